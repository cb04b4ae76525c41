"""What both directions between messages and payloads share: the words of enums, and what is plain JSON already."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard

from google.protobuf.descriptor import EnumDescriptor

__all__ = ["Convert", "Descriptor", "elementwise", "is_list", "is_object", "is_plain", "word"]

Descriptor: TypeAlias = Any
"""A message's descriptor; the stubs know two classes of them that do not fit each other."""

Convert: TypeAlias = Callable[[Any], Any]
"""Makes one form of a value into the other, and leaves what it does not know as it is."""


def is_plain(message: Descriptor) -> bool:
    """Whether its JSON is as ProtoJSON has it, whatever it holds."""
    return bool(message.full_name.startswith("google.protobuf.") or message.GetOptions().map_entry)


def elementwise(one: Convert) -> Convert:
    """Converts the elements of a list."""

    def convert(values: Any) -> Any:
        return [one(value) for value in values] if is_list(values) else values

    return convert


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether it is a JSON list."""
    return isinstance(value, list)


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is a JSON object."""
    return isinstance(value, dict)


def word(name: str, enum: EnumDescriptor) -> str:
    """The word of a payload for an enum value: its name in lower case, without the prefix that all of them share."""
    return name.removeprefix(_prefix(enum)).lower()


@functools.cache
def _prefix(enum: EnumDescriptor) -> str:
    names = [value.name for value in enum.values]
    shared = names[0]
    for name in names[1:]:
        while not name.startswith(shared):
            shared = shared[:-1]
    return shared[: shared.rfind("_") + 1]
