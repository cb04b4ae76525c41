"""Prints a proto file from its descriptor, for packages that ship a descriptor and no text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

__all__ = ["print_proto"]

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in _Field.Type.items()
    if name not in ("TYPE_GROUP", "TYPE_MESSAGE", "TYPE_ENUM")
}
_LABELS = {_Field.LABEL_OPTIONAL: "optional ", _Field.LABEL_REQUIRED: "required ", _Field.LABEL_REPEATED: "repeated "}
_EXTENSION_END = 536870912
"""What a descriptor holds for `max`; the end of a range is exclusive there."""


def print_proto(serialized: bytes, dependencies: Sequence[bytes] = ()) -> str:
    """The text of a proto2 or proto3 file, without comments.

    Args:
        serialized: its FileDescriptorProto.
        dependencies: those of the files that it imports, each after what it imports itself.

    Returns:
        A text that compiles to the same descriptor, source locations apart.
    """
    pool = descriptor_pool.DescriptorPool()
    for dependency in dependencies:
        pool.AddSerializedFile(dependency)
    pool.AddSerializedFile(serialized)
    name = descriptor_pb2.FileDescriptorProto.FromString(serialized).name
    message_factory.GetMessageClassesForFiles([name], pool)
    # Read through the pool's own classes, so that options which extensions define are fields with names.
    descriptor_class = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto")
    )
    file = cast("Any", descriptor_class.FromString(serialized))
    return "\n".join(_file(file, pool)) + "\n"


def _file(file: Any, pool: descriptor_pool.DescriptorPool) -> Iterator[str]:
    yield f'syntax = "{file.syntax or "proto2"}";'
    yield f"package {file.package};"
    public = set(file.public_dependency)
    for index, dependency in enumerate(file.dependency):
        yield f'import {"public " if index in public else ""}"{dependency}";'
    yield from _option_lines(file.options, pool)
    proto3 = file.syntax == "proto3"
    for enum in file.enum_type:
        yield from _enum(enum, pool)
    for message in file.message_type:
        yield from _message(message, pool, proto3)
    yield from _extensions(file.extension, pool, proto3)


def _message(message: Any, pool: descriptor_pool.DescriptorPool, proto3: bool) -> Iterator[str]:
    yield f"message {message.name} {{"
    yield from _indented(_message_body(message, pool, proto3))
    yield "}"


def _message_body(message: Any, pool: descriptor_pool.DescriptorPool, proto3: bool) -> Iterator[str]:
    yield from _option_lines(message.options, pool)
    for enum in message.enum_type:
        yield from _enum(enum, pool)
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    for nested in message.nested_type:
        if nested.name not in maps:
            yield from _message(nested, pool, proto3)
    printed = set[int]()
    for field in message.field:
        if not field.HasField("oneof_index") or field.proto3_optional:
            yield _field(field, pool, proto3, maps)
        elif field.oneof_index not in printed:
            printed.add(field.oneof_index)
            members = [
                each for each in message.field if each.HasField("oneof_index") and each.oneof_index == field.oneof_index
            ]
            yield f"oneof {message.oneof_decl[field.oneof_index].name} {{"
            yield from _indented(_option_lines(message.oneof_decl[field.oneof_index].options, pool))
            yield from _indented(_field(each, pool, proto3, maps, label="") for each in members)
            yield "}"
    for extended in message.extension_range:
        yield f"extensions {_range(extended.start, extended.end - 1, _EXTENSION_END - 1)};"
    for reserved in message.reserved_range:
        yield f"reserved {_range(reserved.start, reserved.end - 1, _EXTENSION_END - 1)};"
    for name in message.reserved_name:
        yield f'reserved "{name}";'
    yield from _extensions(message.extension, pool, proto3)


def _extensions(fields: Iterable[Any], pool: descriptor_pool.DescriptorPool, proto3: bool) -> Iterator[str]:
    for field in fields:
        yield f"extend {field.extendee} {{"
        yield from _indented([_field(field, pool, proto3, {})])
        yield "}"


def _field(
    field: Any, pool: descriptor_pool.DescriptorPool, proto3: bool, maps: dict[str, Any], label: str | None = None
) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = entry.field
        kind, label = f"map<{_type(key)}, {_type(value)}>", ""
    else:
        kind = _type(field)
    if label is None:
        plain = proto3 and field.label == _Field.LABEL_OPTIONAL and not field.proto3_optional
        label = "" if plain else _LABELS[field.label]
    options = list(_options(field.options, pool))
    if field.HasField("default_value"):
        quoted = field.type in (_Field.TYPE_STRING, _Field.TYPE_BYTES)
        options.append(f'default = "{field.default_value}"' if quoted else f"default = {field.default_value}")
    return f"{label}{kind} {field.name} = {field.number}{_bracketed(options)};"


def _type(field: Any) -> str:
    return field.type_name or _SCALARS[field.type]


def _enum(enum: Any, pool: descriptor_pool.DescriptorPool) -> Iterator[str]:
    yield f"enum {enum.name} {{"
    yield from _indented(_option_lines(enum.options, pool))
    for value in enum.value:
        options = list(_options(value.options, pool))
        yield f"  {value.name} = {value.number}{_bracketed(options)};"
    for reserved in enum.reserved_range:
        yield f"  reserved {_range(reserved.start, reserved.end, 2**31 - 1)};"
    for name in enum.reserved_name:
        yield f'  reserved "{name}";'
    yield "}"


def _range(first: int, last: int, end: int) -> str:
    if first == last:
        return str(first)
    return f"{first} to {'max' if last == end else last}"


def _bracketed(options: Sequence[str]) -> str:
    return f" [{', '.join(options)}]" if options else ""


def _option_lines(options: Message, pool: descriptor_pool.DescriptorPool) -> Iterator[str]:
    for option in _options(options, pool):
        yield f"option {option};"


def _options(options: Message, pool: descriptor_pool.DescriptorPool) -> Iterator[str]:
    for field, value in options.ListFields():
        if field.name == "map_entry" and not field.is_extension:
            continue
        name = f"({field.full_name})" if field.is_extension else field.name
        for item in value if field.is_repeated else (value,):
            yield f"{name} = {_value(field, item, pool)}"


def _value(field: Any, value: Any, pool: descriptor_pool.DescriptorPool) -> str:
    if field.message_type is not None:
        text = text_format.MessageToString(value, as_one_line=True, descriptor_pool=pool, as_utf8=True)
        return f"{{ {text} }}"
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _indented(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}"
