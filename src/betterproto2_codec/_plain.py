"""A short way from plain data to a dataclass, for the data that most requests are made of.

It takes what is surely right: scalars, each just of its field's type, and Structs. Whatever else comes, right or wrong,
goes the long way over `_check` and Google's JSON parser, which also tells what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ._binary import decode
from ._model import FieldModel, Kind, MessageModel, ValueType, is_struct, model_of
from ._schema import struct_bytes

_Take = Callable[[Any], Any]
"""Gives what the field holds for a value, or `_UNSURE`."""
_UNSURE = object()
_tables: dict[type, dict[str, tuple[str, _Take]]] = {}


def message_of_plain(cls: type, data: Any) -> Any:
    """Returns a dataclass instance, or None where the long way has to be gone."""
    if type(data) is not dict:
        return None
    table = _tables.get(cls)
    if table is None:
        # A second thread makes the same one.
        table = _tables[cls] = _table(model_of(cls)) if model_of(cls).cls is cls else {}
    values: dict[str, Any] = {}
    given = cast("dict[str, Any]", data)
    for key, value in given.items():
        attribute, take = table.get(key, _NO_FIELD)
        taken = take(value)
        if taken is _UNSURE or attribute in values:
            return None
        values[attribute] = taken
    return cls(**values) if table else None


def _table(model: MessageModel) -> dict[str, tuple[str, _Take]]:
    if model.name.startswith("google.protobuf."):
        return {}
    entries = ((key, field, _take(field)) for key, field in model.by_key.items())
    return {key: (field.attribute, take) for key, field, take in entries if take is not None}


def _take(field: FieldModel) -> _Take | None:
    """What takes a value that surely fits; None for fields that hold other than a scalar or a Struct."""
    if field.repeated or field.key is not None or field.oneof:
        return None
    if is_struct(field.value):
        return _struct_taker(field.value)
    match field.value.kind:
        case Kind.STRING:
            # Text beyond ASCII may have lone surrogates.
            return lambda value: value if type(value) is str and value.isascii() else _UNSURE
        case Kind.BOOL:
            return lambda value: value if value is True or value is False else _UNSURE
        case Kind.INT:
            low, high = field.value.low, field.value.high
            return lambda value: value if type(value) is int and low <= value <= high else _UNSURE
        case _:
            return None


def _struct_taker(struct: ValueType) -> _Take:
    cls = cast("Any", struct.cls)

    def take(value: Any) -> Any:
        data = struct_bytes(value)
        return decode(cls, data) if data is not None else _UNSURE

    return take


def _unsure(_value: object) -> object:
    return _UNSURE


_NO_FIELD: tuple[str, _Take] = ("", _unsure)
