"""What both directions between messages and payloads share: the words of enums, and what is plain JSON already."""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

from google.protobuf.descriptor import EnumDescriptor

__all__ = ["Descriptor", "is_plain", "word"]

Descriptor: TypeAlias = Any
"""A message's descriptor; the stubs know two classes of them that do not fit each other."""


def is_plain(message: Descriptor) -> bool:
    """Whether its JSON is as ProtoJSON has it, whatever it holds."""
    return bool(message.full_name.startswith("google.protobuf.") or message.GetOptions().map_entry)


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
