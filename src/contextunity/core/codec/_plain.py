"""A short way between plain data and a dataclass, for what most requests and answers are made of.

It takes what is surely right: scalars, each just of its field's type. Whatever else comes, right or wrong, goes the
long way over `_check` and Google's JSON, which also tells what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ._model import FieldModel, Kind, MessageModel, model_of

_Check = Callable[[Any], bool]
_Write = Callable[[Any], Any]
_Field = tuple[str, str, str, bool, _Write]
_tables: dict[type, dict[str, tuple[str, _Check]]] = {}
_writers: dict[type, tuple[_Field, ...]] = {}


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


def scalars_of_message(message: object, *, preserving_proto_field_name: bool) -> dict[str, Any] | None:
    """Returns the plain dict of a dataclass instance, or None where the long way has to be gone."""
    cls = type(message)
    writers = _writers.get(cls)
    if writers is None:
        writers = _writers[cls] = _all_writers(model_of(cls)) if model_of(cls).cls is cls else ()
    data: dict[str, Any] = {}
    for attribute, name, json_name, presence, write in writers:
        value = getattr(message, attribute)
        if presence and value is None:
            continue
        written = write(value)
        if written is None:
            return None
        if written or presence:
            data[name if preserving_proto_field_name else json_name] = written
    return data if writers else None


def _all_writers(model: MessageModel) -> tuple[_Field, ...]:
    """How each field is written; none at all where some field can hold more than a scalar."""
    made = [(each.attribute, each.name, each.json_name, each.presence, _writer(each)) for each in model.fields]
    if model.name.startswith("google.protobuf.") or any(field[4] is None for field in made):
        return ()
    return tuple(cast("list[_Field]", made))


def _writer(field: FieldModel) -> _Write | None:
    """Gives the JSON form of a value, empty or false for a default, and None where it is not surely right."""
    check = _check(field)
    if check is None and field.value.kind is Kind.ENUM and not (field.repeated or field.key is not None or field.oneof):
        enum_type = field.value.descriptor.enum_type
        assert enum_type is not None
        if field.presence or enum_type.full_name.startswith("google.protobuf."):
            return None
        names = {number: value.name for number, value in enum_type.values_by_number.items()}
        names[0] = ""
        return lambda value: names.get(value) if isinstance(value, int) and not isinstance(value, bool) else None
    if check is None:
        return None
    if field.value.kind is Kind.INT and field.value.bits == 64:
        # ProtoJSON has them as text; only that of a present zero is no default.
        return lambda value: (str(value) if value or field.presence else "") if check(value) else None
    return lambda value: value if check(value) else None


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
