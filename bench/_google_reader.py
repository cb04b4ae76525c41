"""Straight-line functions over google.protobuf messages, as somebody would write them by hand for one message.

`reader_of` reads every field into Python values, and so does what a decoder to dataclasses has to do at least;
`plain_of` gives the values as dicts, from which the message class can be made anew by its constructor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

__all__ = ["plain_of", "reader_of"]

_STRUCT_FILE = "google/protobuf/struct.proto"


def reader_of(descriptor: Descriptor) -> Callable[[Any], None]:
    """Make the function that reads every field of a message."""
    source: dict[str, list[str]] = {}
    _write_reader(descriptor, source)
    namespace: dict[str, Any] = {}
    exec("\n".join(line for lines in source.values() for line in lines), namespace)
    reader: Callable[[Any], None] = namespace[_name(descriptor)]
    return reader


def _name(descriptor: Descriptor) -> str:
    return "read_" + descriptor.full_name.replace(".", "_")


def _write_reader(descriptor: Descriptor, source: dict[str, list[str]]) -> None:
    name = _name(descriptor)
    if name in source:
        return
    lines = source[name] = [f"def {name}(m):", "    pass"]
    # The oneof of an optional field is the compiler's own, and begins with an underscore.
    lines += [f"    m.WhichOneof({oneof.name!r})" for oneof in descriptor.oneofs if not oneof.name.startswith("_")]
    for field in descriptor.fields:
        lines += [f"    {line}" for line in _field_lines(field, source)]


def _field_lines(field: FieldDescriptor, source: dict[str, list[str]]) -> list[str]:
    value = f"m.{field.name}"
    message = field.message_type
    if message is None:
        if field.is_repeated:
            return [f"list({value})"]
        return [f"if m.HasField({field.name!r}): {value}"] if field.has_presence else [value]
    if message.GetOptions().map_entry:
        inner = message.fields_by_name["value"].message_type
        if inner is None:
            return [f"dict({value})"]
        _write_reader(inner, source)
        return [f"for k, v in {value}.items(): {_name(inner)}(v)"]
    _write_reader(message, source)
    if field.is_repeated:
        return [f"for v in {value}: {_name(message)}(v)"]
    return [f"if m.HasField({field.name!r}): {_name(message)}({value})"]


def plain_of(message: Any) -> Any:
    """Give a message as the dicts, lists and scalars that its class's constructor takes."""
    descriptor = message.DESCRIPTOR
    if descriptor.file.name.endswith(_STRUCT_FILE):
        return _plain_struct(message)
    plain: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            plain[field.name] = list(value) if field.is_repeated else value
        elif field.message_type.GetOptions().map_entry:
            nested = field.message_type.fields_by_name["value"].message_type is not None
            plain[field.name] = {key: plain_of(entry) if nested else entry for key, entry in value.items()}
        elif field.is_repeated:
            plain[field.name] = [plain_of(entry) for entry in value]
        else:
            plain[field.name] = plain_of(value)
    return plain


def _plain_struct(message: Any) -> Any:
    """Constructors take a Struct as the dict that it stands for."""
    match message.DESCRIPTOR.name:
        case "Struct":
            return {key: _plain_struct(value) for key, value in message.fields.items()}
        case "ListValue":
            return [_plain_struct(value) for value in message.values]
        case _:
            kind = message.WhichOneof("kind")
            value = getattr(message, kind)
            if kind == "null_value":
                return None
            return _plain_struct(value) if kind in ("struct_value", "list_value") else value
