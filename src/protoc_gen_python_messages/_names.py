"""The names that betterproto2's generator gives to classes, fields and enum members."""

from __future__ import annotations

from betterproto2_compiler import casing
from google.protobuf import descriptor_pb2


def class_name(name: str) -> str:
    """Name of the class of a message or enum, which for a nested one is called `Outer.Inner` here."""
    return casing.pascal_case(name)


def field_name(name: str) -> str:
    """Name of a field's attribute."""
    return casing.safe_snake_case(name)


def member_names(enum: descriptor_pb2.EnumDescriptorProto) -> list[str]:
    """Names of an enum's members, in the order of its values.

    Where all values begin with the enum's own name, it falls away.
    """
    names = [value.name for value in enum.value]
    prefix = _prefix(enum.name, names[0]) if names else ""
    if prefix and all(name.startswith(prefix) for name in names):
        names = [name.removeprefix(prefix) for name in names]
    return [casing.sanitize_name(name) for name in names]


def _prefix(enum: str, first: str) -> str:
    """The start of the first value's name that is the enum's name but for case and underscores."""
    for length in range(1, len(first) + 1):
        if first[:length].replace("_", "").lower() == enum.replace("_", "").lower():
            return f"{first[:length]}_"
    return ""
