"""Fields and enum values that betterproto2's generator turns into classes that do not work."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from google.protobuf import descriptor_pb2

from . import _names

_Field = descriptor_pb2.FieldDescriptorProto
_SPECIAL = re.compile(r"__.*__")
_RESERVED_IN_ENUM = re.compile(r"mro|_[^_]_|_[^_].*[^_]_|__.*")
_SHADOWED_IN_MESSAGE = ("_abc_impl", "_betterproto", "_get_field_default", "_unknown_fields")
_SHADOWED_IN_ENUM = (
    "betterproto_renamed_proto_names_to_value",
    "betterproto_value_to_renamed_proto_names",
    "from_string",
)
_USED_IN_ENUM = ("classmethod", "dict")


def field_faults(message: descriptor_pb2.DescriptorProto, message_name: str) -> Iterator[tuple[int, str]]:
    """Yields what is wrong with the fields of a message: each field's index, and a text that follows its name.

    Args:
        message: its descriptor.
        message_name: the name of the message in its package, such as `Outer.Inner`.
    """
    names = [_names.field_name(field.name) for field in message.field]
    private = f"_{_names.class_name(message_name).lstrip('_')}__"
    by_name: dict[str, list[str]] = defaultdict(list)
    for name, field in zip(names, message.field, strict=True):
        by_name[name].append(field.name)
    deprecated = any(field.options.deprecated for field in message.field)
    for index, (name, field) in enumerate(zip(names, message.field, strict=True)):
        others = [other for other in by_name[name] if other != field.name]
        if others:
            yield index, f"and {', '.join(others)} have one name in Python, {name}; rename one of them"
        if name == "betterproto2" and index + 1 < len(names):
            yield index, "hides the module betterproto2 from the fields after it; rename it, or declare it last"
        if name in _SHADOWED_IN_MESSAGE or _SPECIAL.fullmatch(name):
            yield index, "takes the place of what makes the dataclass work; rename it"
        if name.startswith(private) and name.removeprefix(private[:-2]) in names:
            yield index, f"is what Python makes of {name.removeprefix(private[:-2])} in this class; rename one of them"
        if name == "is_set" and deprecated:
            yield index, "hides the method that warns of the message's deprecated fields; rename it"
        yield from ((index, reason) for reason in _type_faults(field))


def _type_faults(field: descriptor_pb2.FieldDescriptorProto) -> Iterator[str]:
    if field.type == _Field.TYPE_GROUP:
        yield "is a group, which dataclasses cannot hold; use a message"
    elif field.label == _Field.LABEL_REQUIRED:
        yield 'is required, which dataclasses cannot say; make it optional, or use syntax = "proto3"'


def value_faults(enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[tuple[int, str]]:
    """Yields what is wrong with the values of an enum: each value's index, and a text that follows its name."""
    members = _names.member_names(enum)
    renamed = any(member != value.name for member, value in zip(members, enum.value, strict=True))
    for index, (member, value) in enumerate(zip(members, enum.value, strict=True)):
        becomes = "" if member == value.name else f"becomes {member}, which "
        if _RESERVED_IN_ENUM.fullmatch(member):
            yield index, f"{becomes}is a name that Python's Enum keeps for itself; rename it"
        elif member in _SHADOWED_IN_ENUM:
            yield index, f"{becomes}takes the place of a method of betterproto2.Enum; rename it"
        elif member in _USED_IN_ENUM and renamed:
            yield index, f"{becomes}hides what Python calls so from the rest of the enum's class; rename it"
