"""Convert Structs to and from plain dicts, without going through JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import betterproto2
from google.protobuf.struct_pb2 import Struct as ProtoStruct

from ._binary import decode, encode, to_proto
from ._classes import full_name, google_package, message_class
from ._compile import schema_with_plain
from ._json import JsonValue
from ._json_violations import is_list, is_object, json_scalar_reason
from ._runtime import MAX_DEPTH
from ._schema import struct_bytes
from ._violations import item
from .errors import CodecError

M = TypeVar("M", bound=betterproto2.Message)

_STRUCT = "google.protobuf.Struct"
_EXACT = float(1 << 53)


def struct_to_dict(struct: betterproto2.Message | ProtoStruct) -> dict[str, JsonValue]:
    """Convert a Struct to a dict.

    Numbers in a Struct are doubles. Integers up to 2^53 become int, all others and negative zero become float. A value
    with no kind set becomes None.

    Args:
        struct: a Struct dataclass of any generated tree, or Google's Struct.

    Raises:
        CodecError: the value is not a Struct, or contains NaN or infinity, which a Struct must not.
    """
    if isinstance(struct, betterproto2.Message):
        if full_name(struct) != _STRUCT:
            raise CodecError(f"expected a {_STRUCT}, got a {full_name(struct)}")
        return _fields(struct, "")
    return _fields_of_proto(struct, "")


def decode_apart(cls: type[M], data: bytes, field: str) -> tuple[M, dict[str, JsonValue]] | None:
    """Decode a message, and one of its Struct fields separately as plain data.

    This is several times faster than `decode` and `struct_to_dict`, and tens of times for large Structs: no messages
    are created for the values of the Struct.

    Args:
        cls: the dataclass to create.
        data: the bytes.
        field: attribute of the dataclass that holds a Struct.

    Returns:
        The message without that field, and what `struct_to_dict` would return for it; empty if it is not set. None if
        the compiled extension does not handle the bytes: use `decode` and `struct_to_dict`, which also report faults.

    Raises:
        CodecError: the class has no such Struct.
    """
    schema = schema_with_plain(cls, field)
    made = schema.decode(data) if schema is not None else None
    if type(made) is not cls:
        return None
    plain = getattr(made, field)
    setattr(made, field, None)
    return made, {} if plain is None else plain


def encode_apart(message: betterproto2.Message, field: str, mapping: Mapping[str, Any]) -> bytes:
    """Encode a message, with one of its Struct fields given separately as plain data; the inverse of `decode_apart`.

    Args:
        message: the message; its value of that field is ignored.
        field: attribute of the dataclass that holds a Struct.
        mapping: content of the Struct, as for `dict_to_struct`.

    Raises:
        CodecError: a value of the message or the mapping is invalid, or the class has no such Struct.
    """
    cls = type(message)
    schema = schema_with_plain(cls, field)
    whole: Any = object.__new__(cls)
    whole.__dict__.update(message.__dict__)
    whole.__dict__[field] = mapping
    data = schema.encode(whole) if schema is not None else None
    if data is not None:
        return data
    try:
        whole.__dict__[field] = dict_to_struct(mapping)
    except CodecError as error:
        raise CodecError(error.reason, path=f"{field}{error.path}", message_type=full_name(cls)) from None
    return encode(whole)


def dict_to_struct(mapping: Mapping[str, Any]) -> betterproto2.Message:
    """Convert a mapping to a Struct.

    Args:
        mapping: values are None, bool, int, float, str, lists or tuples, and mappings with text as keys. An int must be
            exact as a double; send others as text.

    Raises:
        CodecError: a value or key is invalid; the error names its path.
    """
    data = struct_bytes(mapping)
    return decode(message_class(_STRUCT), data) if data is not None else _to_struct(mapping, "", 0)


def _fields(struct: Any, path: str) -> dict[str, JsonValue]:
    try:
        return {key: _value(value, path, key) for key, value in struct.fields.items()}
    except (AttributeError, TypeError):
        # Not a valid Struct dataclass: the conversion reports where and why.
        to_proto(struct)
        raise


def _value(value: Any, path: str, key: object) -> JsonValue:
    if (text := value.string_value) is not None:
        return cast("str", text)
    if (number := value.number_value) is not None:
        return _number(number, path, key)
    if (truth := value.bool_value) is not None:
        return cast("bool", truth)
    if (inner := value.struct_value) is not None:
        return _fields(inner, item(path, key))
    if (elements := value.list_value) is not None:
        where = item(path, key)
        return [_value(element, where, index) for index, element in enumerate(elements.values)]
    return None


def _number(number: float, path: str, key: object) -> int | float:
    if not math.isfinite(number):
        raise CodecError(f"a Struct holds finite numbers, not {number}", path=item(path, key), message_type=_STRUCT)
    if -_EXACT <= number <= _EXACT and number == int(number) and (number or math.copysign(1.0, number) > 0):
        return int(number)
    return float(number)


def _fields_of_proto(struct: ProtoStruct, path: str) -> dict[str, JsonValue]:
    fields = struct.fields
    return {key: _value_of_proto(fields[key], path, key) for key in fields}


def _value_of_proto(value: Any, path: str, key: object) -> JsonValue:
    match value.WhichOneof("kind"):
        case "string_value":
            return cast("str", value.string_value)
        case "number_value":
            return _number(value.number_value, path, key)
        case "bool_value":
            return cast("bool", value.bool_value)
        case "struct_value":
            return _fields_of_proto(value.struct_value, item(path, key))
        case "list_value":
            where = item(path, key)
            return [_value_of_proto(element, where, index) for index, element in enumerate(value.list_value.values)]
        case _:
            return None


def _to_struct(mapping: Any, path: str, depth: int) -> betterproto2.Message:
    if not is_object(mapping):
        raise CodecError(f"expected a mapping, got {type(mapping).__name__}", path=path, message_type=_STRUCT)
    google = google_package()
    fields = dict[str, Any]()
    for key, value in mapping.items():
        reason = json_scalar_reason(key) if isinstance(key, str) else f"expected a str, got {type(key).__name__}"
        if reason:
            raise CodecError(f"as a key: {reason}", path=item(path, key), message_type=_STRUCT)
        fields[key] = _to_value(value, path, key, depth + 2, google)
    struct: betterproto2.Message = google.Struct(fields=fields)
    return struct


def _check_depth(depth: int, path: str) -> None:
    if depth > MAX_DEPTH:
        raise CodecError(f"messages are nested more than {MAX_DEPTH} deep", path=path, message_type=_STRUCT)


def _to_value(value: Any, path: str, key: object, depth: int, google: Any) -> Any:
    if type(value) is str and value.isascii():
        return google.Value(string_value=value)
    if is_object(value):
        # The Struct, and in it an entry with its Value.
        _check_depth(depth + (3 if value else 1), path)
        return google.Value(struct_value=_to_struct(value, item(path, key), depth + 1))
    if is_list(value):
        _check_depth(depth + (2 if value else 1), path)
        where = item(path, key)
        elements = [_to_value(element, where, index, depth + 2, google) for index, element in enumerate(value)]
        return google.Value(list_value=google.ListValue(values=elements))
    reason = json_scalar_reason(value)
    if reason:
        raise CodecError(reason, path=item(path, key), message_type=_STRUCT)
    if value is None:
        return google.Value(null_value=google.NullValue.NULL_VALUE)
    if isinstance(value, bool):
        return google.Value(bool_value=value)
    if isinstance(value, str):
        return google.Value(string_value=value)
    return google.Value(number_value=float(value))
