"""Compiles id expressions and mappings of search attributes: Bloblang's paths, checked against the input."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from .model import Attribute, PathPart, Template
from .python_text import field_name

__all__ = ["ExpressionError", "compile_attributes", "compile_template"]

_PATH = re.compile(r"(?:this\.)?([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)((?:\.\w+\([^()]*\))?)")
_LITERAL = re.compile(r'"(?:[^"\\]|\\["\\])*"|-?\d+(?:\.\d+)?|true|false')
_LINE = re.compile(r"(?:root\.)?([A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)?)\s*=\s*(.+)")

_INTEGERS = {
    FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_FIXED32,
    FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_SFIXED64,
}  # fmt: skip
_FLOATS = {FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE}
_WELL_KNOWN = {
    "google.protobuf.StringValue": "string",
    "google.protobuf.BytesValue": "bytes",
    "google.protobuf.BoolValue": "bool",
    "google.protobuf.Int32Value": "int",
    "google.protobuf.Int64Value": "int",
    "google.protobuf.UInt32Value": "int",
    "google.protobuf.UInt64Value": "int",
    "google.protobuf.FloatValue": "float",
    "google.protobuf.DoubleValue": "float",
    "google.protobuf.Timestamp": "time",
}
_TEXT_KINDS = {"string", "int", "bool", "enum", "bytes"}
# The kinds of values for each type of search attribute, by the names of the types in typed mappings.
_ATTRIBUTE_TYPES: dict[str, tuple[str, set[str]]] = {
    "keyword": ("for_keyword", {"string", "enum"}),
    "string": ("for_text", {"string"}),
    "int64": ("for_int", {"int"}),
    "float64": ("for_float", {"float"}),
    "bool": ("for_bool", {"bool"}),
    "time": ("for_datetime", {"time"}),
    "keyword_list": ("for_keyword_list", {"list"}),
}
_INFERRED = {"string": "keyword", "enum": "keyword", "int": "int64", "float": "float64", "bool": "bool", "time": "time",
             "list": "keyword_list"}  # fmt: skip
# Conversions that Go needs for JSON, and dataclasses do not need.
_CONVERSIONS = {".string()": _TEXT_KINDS, ".int64()": {"int"}, ".float64()": {"float"}}
_PARSE_TIME = re.compile(r'\.ts_parse\("[^"]*"\)')


class ExpressionError(Exception):
    """An expression is unsupported, or does not match the input; the text says what to do."""


def compile_template(source: str, message: Descriptor) -> Template:
    """Compile an id expression such as `harvest/${! tenantId }`.

    Raises:
        ExpressionError: it contains more than paths, a path to no field or to a field without a text form, or a text
            between two paths that begins with %.
    """
    parts: list[str | PathPart] = []
    rest = source
    while "${!" in rest:
        before, _, rest = rest.partition("${!")
        query, closed, rest = rest.partition("}")
        if not closed:
            raise ExpressionError("a ${! has no closing }")
        parts += [before, _template_path(query.strip(), message)]
    parts.append(rest)
    template = Template(source=source, parts=tuple(part for part in parts if part != ""))
    _check_separators(template)
    return template


def _check_separators(template: Template) -> None:
    *followed, _ = [place for place, part in enumerate(template.parts) if isinstance(part, PathPart)] or [0]
    for place in followed:
        following = template.parts[place + 1]
        if isinstance(following, str) and following.startswith("%"):
            raise ExpressionError(
                f"{following!r} follows a value, in which % begins an encoded character, so different inputs "
                "could have the same id; begin the text with another character, such as /"
            )


def compile_attributes(source: str, message: Descriptor, *, typed: bool) -> tuple[Attribute, ...]:
    """Compile a mapping of search attributes, with one `Name = path` per line.

    Args:
        source: the mapping.
        message: the workflow's input message.
        typed: whether names include their type, as in `keyword.Name = path`.

    Raises:
        ExpressionError: a line is not an assignment, or its value does not match its type.
    """
    attributes = dict[str, Attribute]()
    for line in filter(None, (line.strip() for line in source.split("\n"))):
        if line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ExpressionError(f"{line!r} is not an assignment such as Name = path")
        attribute = _attribute(match[1], match[2].strip(), message, typed=typed)
        if attribute.name in attributes:
            raise ExpressionError(f"{attribute.name} is assigned twice")
        attributes[attribute.name] = attribute
    return tuple(attributes.values())


def _template_path(query: str, message: Descriptor) -> PathPart:
    path, kind = _path(query, message)
    if kind not in _TEXT_KINDS:
        raise ExpressionError(
            f"{query} is {_ARTICLES[kind]}, whose text differs between languages; name a string, integer, bool, enum "
            "or bytes field"
        )
    return path


def _attribute(target: str, value: str, message: Descriptor, *, typed: bool) -> Attribute:
    declared, _, name = target.rpartition(".")
    if typed != bool(declared):
        form = "type.Name, such as keyword.Name" if typed else "a plain Name"
        raise ExpressionError(f"{target!r} should be {form}")
    if _LITERAL.fullmatch(value):
        path, kind = None, _literal_kind(value)
    else:
        path, kind = _path(value, message)
    if not typed and kind not in _INFERRED:
        raise ExpressionError(f"{value} is {_ARTICLES[kind]}, which search attributes cannot hold")
    declared = declared or _INFERRED[kind]
    if declared not in _ATTRIBUTE_TYPES:
        raise ExpressionError(f"{declared!r} is not a type; types are {', '.join(_ATTRIBUTE_TYPES)}")
    constructor, kinds = _ATTRIBUTE_TYPES[declared]
    if kind not in kinds:
        raise ExpressionError(f"{value} is {_ARTICLES[kind]}, which {name}, a {declared} attribute, cannot hold")
    return Attribute(name=name, kind=constructor, path=path, literal=_python_literal(value) if path is None else "")


_ARTICLES = {
    "string": "a string", "int": "an integer", "bool": "a bool", "enum": "an enum", "bytes": "bytes",
    "float": "a floating-point number", "time": "a timestamp", "list": "a list", "message": "a message",
}  # fmt: skip


def _path(text: str, message: Descriptor) -> tuple[PathPart, str]:
    """A path, and the kind of its value."""
    match = _PATH.fullmatch(text)
    if match is None:
        raise ExpressionError(
            f"{text!r} is more than a path; Python supports paths into the input, such as tenantId or page.tenantId"
        )
    names, conversion = match[1].split("."), match[2]
    fields = list[FieldDescriptor]()
    current: Descriptor | None = message
    for index, name in enumerate(names):
        if current is None:
            raise ExpressionError(f"{'.'.join(names[:index])} is not a message, so it has no {name}")
        field = _field(current, name)
        if field.is_repeated and (index < len(names) - 1 or _is_map(field)):
            raise ExpressionError(f"{'.'.join(names[: index + 1])} is a {_repeated(field)}, into which no path leads")
        fields.append(field)
        current = None if field.message_type is None else field.message_type
        if current is not None and current.full_name in _WELL_KNOWN:
            current = None
    kind = _kind(fields[-1])
    _check_conversion(text, conversion, kind)
    path = PathPart(
        proto=".".join(field.name for field in fields), attributes=tuple(field_name(field.name) for field in fields)
    )
    return path, kind


def _field(message: Descriptor, name: str) -> FieldDescriptor:
    for field in message.fields:
        if field.json_name == name:
            return field
    for field in message.fields:
        if field.name == name:
            raise ExpressionError(f"{name} is written {field.json_name} in expressions, which see the input as JSON")
    known = ", ".join(field.json_name for field in message.fields) or "none"
    raise ExpressionError(f"{message.full_name} has no field {name}; its fields are {known}")


def _kind(field: FieldDescriptor) -> str:
    if field.is_repeated:
        is_text = field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM)
        return "list" if is_text else "message"
    if field.message_type is not None:
        return _WELL_KNOWN.get(field.message_type.full_name, "message")
    if field.type in _INTEGERS:
        return "int"
    if field.type in _FLOATS:
        return "float"
    scalars = {
        FieldDescriptor.TYPE_STRING: "string",
        FieldDescriptor.TYPE_BOOL: "bool",
        FieldDescriptor.TYPE_ENUM: "enum",
        FieldDescriptor.TYPE_BYTES: "bytes",
    }
    return scalars.get(field.type, "message")


def _check_conversion(text: str, conversion: str, kind: str) -> None:
    if not conversion:
        return
    fits = kind == "time" if _PARSE_TIME.fullmatch(conversion) else kind in _CONVERSIONS.get(conversion, set[Any]())
    if not fits:
        raise ExpressionError(
            f"{text!r} is more than a path; Python supports paths into the input, and of the functions only .string(), "
            ".int64(), .float64() and .ts_parse() where they change nothing"
        )


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _repeated(field: FieldDescriptor) -> str:
    return "map" if _is_map(field) else "repeated field"


def _literal_kind(value: str) -> str:
    if value.startswith('"'):
        return "string"
    if value in ("true", "false"):
        return "bool"
    return "float" if "." in value else "int"


def _python_literal(value: str) -> str:
    if value.startswith('"'):
        return repr(re.sub(r"\\(.)", r"\1", value[1:-1]))
    return value.capitalize() if value in ("true", "false") else value
