"""A short way from plain data to a dataclass, for the data that most requests are made of.

It takes what is surely right: scalars, each just of its field's type. Whatever else comes, right or wrong, goes the
long way over `_check` and Google's JSON parser, which also tells what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ._model import FieldModel, Kind, MessageModel, model_of

_Check = Callable[[Any], bool]
_tables: dict[type, dict[str, tuple[str, _Check]]] = {}


def message_of_scalars(cls: type, data: Any) -> Any:
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
        attribute, fits = table.get(key, _NO_FIELD)
        if attribute in values or not fits(value):
            return None
        values[attribute] = value
    return cls(**values) if table else None


def _table(model: MessageModel) -> dict[str, tuple[str, _Check]]:
    if model.name.startswith("google.protobuf."):
        return {}
    entries = ((key, field, _check(field)) for key, field in model.by_key.items())
    return {key: (field.attribute, check) for key, field, check in entries if check is not None}


def _check(field: FieldModel) -> _Check | None:
    """What tells that a value surely fits; None for fields that take more than a scalar."""
    if field.repeated or field.key is not None or field.oneof:
        return None
    match field.value.kind:
        case Kind.STRING:
            # Text beyond ASCII may have lone surrogates.
            return lambda value: type(value) is str and value.isascii()
        case Kind.BOOL:
            return lambda value: value is True or value is False
        case Kind.INT:
            low, high = field.value.low, field.value.high
            return lambda value: type(value) is int and low <= value <= high
        case _:
            return None


def _never(_value: object) -> bool:
    return False


_NO_FIELD: tuple[str, _Check] = ("", _never)
