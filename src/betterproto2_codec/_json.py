"""Convert messages to and from ProtoJSON, as text and as plain dicts, with Google's implementation."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import betterproto2
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from ._binary import decode, from_proto, to_proto
from ._classes import full_name, import_all_pb2, proto_class
from ._json_violations import is_list, is_object, violations_of
from ._model import FieldModel, Kind, MessageModel, ValueType, is_struct, model_of
from ._runtime import LIST_FIELDS, MAX_DEPTH
from ._schema import struct_bytes
from ._violations import item, join
from .errors import CodecError, Violation

list_fields = LIST_FIELDS
"""The fields that are set in one of Google's messages, also in one with a field that hides its method of that name."""

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

M = TypeVar("M", bound=betterproto2.Message)

# Errors of Google's implementation, wrapped or not, if a message has no JSON form or the JSON is invalid. It looks up
# methods by name, so a message with a field of such a name causes an AttributeError or a TypeError.
_JSON_ERRORS = (json_format.Error, DecodeError, ValueError, TypeError, AttributeError)


def to_json(message: betterproto2.Message, *, indent: int | None = None) -> str:
    """Convert a message to ProtoJSON text.

    Args:
        message: the message. Fields with their default value are left out, unless they have presence and are set.
        indent: spaces per level; None writes one line.

    Raises:
        CodecError: a value is invalid, or has no JSON form, such as NaN in a Struct.
    """
    return json.dumps(_to_data(message, preserving_proto_field_name=False), indent=indent, ensure_ascii=False)


def to_dict(message: betterproto2.Message, *, preserving_proto_field_name: bool = False) -> dict[str, JsonValue]:
    """Convert a message to a plain dict, as parsing its ProtoJSON would.

    Args:
        message: the message.
        preserving_proto_field_name: whether keys are the names in the proto file instead of lowerCamelCase.

    Raises:
        CodecError: a value is invalid or has no JSON form; or the JSON of the message is not an object, such as that of
            a Timestamp.
    """
    data = _to_data(message, preserving_proto_field_name=preserving_proto_field_name)
    if isinstance(data, dict):
        return cast("dict[str, JsonValue]", data)
    raise CodecError("its JSON form is not an object; use to_json", message_type=full_name(message))


def from_json(cls: type[M], text: str | bytes, *, ignore_unknown_fields: bool = False) -> M:
    """Parse ProtoJSON text with all variants that ProtoJSON allows: null for absent, text for numbers.

    Args:
        cls: the dataclass to create.
        text: JSON; bytes are UTF-8.
        ignore_unknown_fields: skip unknown keys and unknown enum names instead of rejecting them.

    Raises:
        CodecError: not JSON, or not valid for this message; `violations` lists every fault.
    """
    name = full_name(cls)
    try:
        data = json.loads(text, object_pairs_hook=_refuse_duplicates)
    except RecursionError:
        raise CodecError("not valid JSON: nested too deep", message_type=name) from None
    except (ValueError, TypeError) as error:
        raise CodecError(f"not JSON: {error}", message_type=name) from None
    return _from_data(cls, data, strict=False, ignore_unknown_fields=ignore_unknown_fields)


def from_dict(cls: type[M], mapping: Mapping[str, Any], *, ignore_unknown_fields: bool = False) -> M:
    """Convert a plain dict in ProtoJSON form to a message, strictly.

    Accept the proto name or the JSON name of a field as its key. Reject, in addition to what ProtoJSON rejects: null
    for a field without null, text for a number (except for 64-bit integers, which may be text or number), and integers
    beyond 2^53 given as floats, as they come out of a Struct.

    Args:
        cls: the dataclass to create.
        mapping: the values, such as `struct_to_dict` returns.
        ignore_unknown_fields: skip unknown keys and unknown enum names instead of rejecting them.

    Raises:
        CodecError: the mapping is invalid; `violations` lists every fault.
    """
    made = _simple_message(cls, mapping)
    if made is not None:
        return cast("M", made)
    return _from_data(cls, mapping, strict=True, ignore_unknown_fields=ignore_unknown_fields)


def _from_data(cls: type[M], data: Any, *, strict: bool, ignore_unknown_fields: bool) -> M:
    name = full_name(cls)
    try:
        violations = violations_of(cls, data, strict=strict, ignore_unknown_fields=ignore_unknown_fields)
    except RecursionError:
        violations = [Violation("", "it contains itself, or is nested without end")]
    if violations:
        raise CodecError.of(violations, message_type=name)
    pb = proto_class(cls)()
    try:
        json_format.ParseDict(
            _plain(data), pb, ignore_unknown_fields=ignore_unknown_fields, max_recursion_depth=4 * MAX_DEPTH
        )
    except RecursionError:
        # The check skips ignored values, so this can still happen.
        raise CodecError("it contains itself, or is nested without end", message_type=name) from None
    except _JSON_ERRORS as error:
        # The check above should find every fault first; what it misses is still rejected, with Google's text.
        raise CodecError(str(error), message_type=name) from error
    return from_proto(cls, pb)


def _plain(data: Any) -> Any:
    """Convert mappings and sequences to dict and list: Google's parser accepts no others."""
    if is_object(data):
        return {key: _plain(value) for key, value in data.items()}
    if is_list(data):
        return [_plain(value) for value in data]
    return data


def _to_data(message: betterproto2.Message, *, preserving_proto_field_name: bool) -> Any:
    pb = to_proto(message)
    try:
        return _message_to_data(pb, preserving_proto_field_name)
    except _JSON_ERRORS:
        # An Any can hold a message whose Google class is not imported yet. A tree that cannot be imported is not the
        # fault to report: the second attempt then fails with the first one's error.
        with contextlib.suppress(CodecError):
            import_all_pb2()
    try:
        return _message_to_data(pb, preserving_proto_field_name)
    except _JSON_ERRORS as error:
        path, reason = _locate(pb, "", error)
        raise CodecError(f"it has no JSON form: {reason}", path=path, message_type=full_name(message)) from error


def _message_to_data(pb: ProtoMessage, preserving_proto_field_name: bool) -> Any:
    return json_format.MessageToDict(pb, preserving_proto_field_name=preserving_proto_field_name)


def _locate(pb: ProtoMessage, path: str, error: Exception) -> tuple[str, str]:
    """Find the innermost message without a JSON form."""
    for where, inner in _inner_messages(pb, path):
        try:
            _message_to_data(inner, preserving_proto_field_name=False)
        except _JSON_ERRORS as inner_error:
            return _locate(inner, where, inner_error)
    return path, str(error)


def _inner_messages(pb: ProtoMessage, path: str) -> list[tuple[str, ProtoMessage]]:
    found: list[tuple[str, ProtoMessage]] = []
    for field, value in LIST_FIELDS(pb):
        if field.message_type is None:
            continue
        where = join(path, field.name)
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                found += [(item(where, key), value[key]) for key in value]
        elif field.is_repeated:
            found += [(item(where, index), element) for index, element in enumerate(value)]
        else:
            found.append((where, value))
    return found


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"key {key!r} is given twice in one object")
        made[key] = value
    return made


# The short way from plain data to a dataclass, for the data that most requests are made of. It takes what is surely
# right: scalars, each just of its field's type, and Structs. Whatever else comes, right or wrong, goes by Google's JSON
# parser, and `violations_of` tells what is wrong with it.

_Take = Callable[[Any], Any]
"""Returns the field's value for a plain value, or `_UNSURE`."""
_UNSURE = object()
_tables: dict[type, dict[str, tuple[str, _Take]]] = {}


def _simple_message(cls: type, data: Any) -> Any:
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
