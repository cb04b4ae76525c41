"""Messages to and from ProtoJSON, as text and as plain dicts, by Google's implementation of it."""

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

# What Google's implementation raises, wrapped or not, where a message has no JSON form or JSON is not the message's. It
# reaches for methods by name, so a message with a field of such a name gives it an AttributeError or a TypeError.
_JSON_ERRORS = (json_format.Error, DecodeError, ValueError, TypeError, AttributeError)


def to_json(message: betterproto2.Message, *, indent: int | None = None) -> str:
    """Writes a message as ProtoJSON text.

    Args:
        message: what to write. Fields at their default are left out, unless they have presence and are set.
        indent: spaces of each level; None writes one line.

    Raises:
        CodecError: a value does not fit its field, or has no JSON form, such as NaN in a Struct.
    """
    return json.dumps(_to_data(message, preserving_proto_field_name=False), indent=indent, ensure_ascii=False)


def to_dict(message: betterproto2.Message, *, preserving_proto_field_name: bool = False) -> dict[str, JsonValue]:
    """Writes a message as the plain dict that its ProtoJSON would parse to.

    Args:
        message: what to write.
        preserving_proto_field_name: whether keys are the names in the proto file instead of lowerCamelCase.

    Raises:
        CodecError: a value does not fit its field or has no JSON form; or the JSON of the message is no object, as that
            of a Timestamp is not.
    """
    data = _to_data(message, preserving_proto_field_name=preserving_proto_field_name)
    if isinstance(data, dict):
        return cast("dict[str, JsonValue]", data)
    raise CodecError("its JSON form is no object; use to_json", message_type=full_name(message))


def from_json(cls: type[M], text: str | bytes, *, ignore_unknown_fields: bool = False) -> M:
    """Reads ProtoJSON text, with all the freedom that ProtoJSON has: null for absent, text for numbers.

    Args:
        cls: the dataclass to make.
        text: JSON; bytes are UTF-8.
        ignore_unknown_fields: whether keys that the message does not know are skipped instead of refused, and with them
            names that an enum does not know.

    Raises:
        CodecError: not JSON, or not the JSON of this message; `violations` has everything that is wrong.
    """
    name = full_name(cls)
    try:
        data = json.loads(text, object_pairs_hook=_refuse_duplicates)
    except RecursionError:
        raise CodecError("not JSON that can be read: nested too deep", message_type=name) from None
    except (ValueError, TypeError) as error:
        raise CodecError(f"not JSON: {error}", message_type=name) from None
    return _from_data(cls, data, strict=False, ignore_unknown_fields=ignore_unknown_fields)


def from_dict(cls: type[M], mapping: Mapping[str, Any], *, ignore_unknown_fields: bool = False) -> M:
    """Reads a plain dict in ProtoJSON form, strictly.

    Both the proto name and the JSON name of a field are taken as its key. Refused beside what ProtoJSON refuses: null
    for a field that has no null, text for a number (but 64-bit integers are text in ProtoJSON, and may be either), and
    integers beyond 2^53 that come as floats, as they do out of a Struct.

    Args:
        cls: the dataclass to make.
        mapping: the values, such as `struct_to_dict` gives.
        ignore_unknown_fields: whether keys that the message does not know are skipped instead of refused, and with them
            names that an enum does not know.

    Raises:
        CodecError: the mapping does not fit; `violations` has everything that is wrong with it.
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
        # The check does not look into what it ignores, so this can still happen.
        raise CodecError("it contains itself, or is nested without end", message_type=name) from None
    except _JSON_ERRORS as error:
        # The check above should have found it first; whatever it overlooks is still refused, in Google's words.
        raise CodecError(str(error), message_type=name) from error
    return from_proto(cls, pb)


def _plain(data: Any) -> Any:
    """Google's parser knows dict and list alone."""
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
        # An Any can hold a message whose Google class nobody has imported yet. A tree that fails to import is not the
        # reason; the second try fails for that of the first.
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
    """Finds the innermost message that has no JSON form."""
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
"""Gives what the field holds for a value, or `_UNSURE`."""
_UNSURE = object()
_tables: dict[type, dict[str, tuple[str, _Take]]] = {}


def _simple_message(cls: type, data: Any) -> Any:
    """Returns a dataclass instance, or None where only Google's parser can tell."""
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
