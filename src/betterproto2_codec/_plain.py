"""Fast path from plain data to a dataclass, for the data of most requests.

It accepts only what is certainly valid: scalars of exactly their field's type, and Structs. Everything else, valid or
not, is left to `_check` and Google's JSON parser, which also report faults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ._binary import decode
from ._model import FieldModel, Kind, MessageModel, ValueType, is_struct, model_of
from ._schema import struct_bytes

_Take = Callable[[Any], Any]
"""Returns the field's value for a plain value, or `_UNSURE`."""
_UNSURE = object()
_tables: dict[type, dict[str, tuple[str, _Take]]] = {}


def message_of_plain(cls: type, data: Any) -> Any:
    """Return a dataclass instance, or None if the data needs the full check."""
    if type(data) is not dict:
        return None
    table = _tables.get(cls)
    if table is None:
        # No lock: another thread creates an equal one.
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
    """Return a function that accepts certainly valid values; None for fields other than scalars and Structs."""
    if field.repeated or field.key is not None or field.oneof:
        return None
    if is_struct(field.value):
        return _struct_taker(field.value)
    match field.value.kind:
        case Kind.STRING:
            # Text beyond ASCII may contain lone surrogates.
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
