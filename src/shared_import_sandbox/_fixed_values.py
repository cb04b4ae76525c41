"""Kinds of values that no run can change, so that all runs may have the same."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import inspect
import ipaddress
import logging
import operator
import pathlib
import re
import struct
import types
import typing
import uuid
import zoneinfo
from typing import Any

__all__ = [
    "DESCRIPTORS",
    "KNOWN_CODE",
    "MADE_BY_LIBRARIES",
    "MADE_LATER",
    "MADE_LATER_BY_ENUMS",
    "MAINTAINED",
    "hint",
    "is_activity",
    "is_fixed",
    "is_plain",
]

_FIXED: frozenset[type[Any]] = frozenset(
    {
        type(None),
        type(Ellipsis),
        type(NotImplemented),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        range,
        slice,
        # Without attributes: people make sentinels of it.
        object,
        types.CodeType,
        types.GenericAlias,
        types.UnionType,
        re.Pattern,
        datetime.date,
        datetime.datetime,
        datetime.time,
        datetime.timedelta,
        datetime.timezone,
        zoneinfo.ZoneInfo,
        decimal.Decimal,
        fractions.Fraction,
        uuid.UUID,
        inspect.Signature,
        pathlib.PurePosixPath,
        pathlib.PureWindowsPath,
        pathlib.PosixPath,
        pathlib.WindowsPath,
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
        ipaddress.IPv4Network,
        ipaddress.IPv6Network,
        operator.attrgetter,
        operator.itemgetter,
        operator.methodcaller,
        struct.Struct,
    }
)

_TYPING = frozenset({"typing", "typing_extensions"})


class _Pair(typing.NamedTuple):
    one: int


_PAIR: dict[str, Any] = dict(vars(_Pair))

DESCRIPTORS: tuple[type[Any], ...] = (
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.WrapperDescriptorType,
    _PAIR["one"].__class__,  # What named tuples read by.
)


@dataclasses.dataclass
class _Sample: ...


KNOWN_CODE: frozenset[types.CodeType] = frozenset({_Sample.__repr__.__code__})
"""Code of functions that close over something that changes, and leave it as it was: a dataclass's `__repr__` notes whom
it is just showing."""

MAINTAINED = frozenset(
    {
        "__abstractmethods__",
        "__annotations__",
        "__builtins__",
        "__cached__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__file__",
        "__loader__",
        "__module__",
        "__name__",
        "__orig_bases__",
        "__package__",
        "__parameters__",
        "__path__",
        "__qualname__",
        "__slots__",
        "__spec__",
        "__warningregistry__",
        "__weakref__",
        "_abc_impl",
    }
)
"""Names in modules and classes that the interpreter keeps; of them only whether they are replaced is watched."""

MADE_LATER = frozenset({"__annotations__", "__annotations_cache__", "__slotnames__", "__warningregistry__"})
"""Names that the interpreter may add to modules and classes at any time, and that no code keeps state in. Copying an
object notes the names of its slots in its class."""

MADE_LATER_BY_ENUMS = "_inverted_"
"""What a member of a flag remembers of itself the first time that it is inverted."""


_INSTEAD: dict[type[Any], str] = {
    list: "a tuple",
    dict: "a types.MappingProxyType",
    set: "a frozenset",
    bytearray: "a bytes",
}
"""What says of a constant that it is one."""

MADE_BY_LIBRARIES = frozenset({"__attrs_attrs__", "__pydantic_core_schema__", "__pydantic_decorators__"})
"""Attributes by which models of pydantic and classes of attrs are known; what else is in them tells authors nothing."""


def is_activity(function: types.FunctionType) -> bool:
    """Whether a function is an activity, which stands beside workflows but does not run in their sandbox."""
    return "__temporal_activity_definition" in vars(function)


def hint(value: Any) -> str:
    """What to tell the author of a value that could be changed."""
    instead = next((better for kind, better in _INSTEAD.items() if type(value) is kind), None)
    return f" (if none does, {instead} is shared)" if instead else ""


def is_plain(value: Any) -> bool:
    """Whether an object keeps all that can be changed in attributes and slots.

    That is not so for those of classes derived from list, dict, Exception and the like, nor for those with cached
    properties, which change them by being read.
    """
    for cls in type(value).__mro__:
        members = vars(cls)
        made_in_c = isinstance(members.get("__new__"), types.BuiltinFunctionType)
        if made_in_c and cls not in _FIXED and cls not in (tuple, frozenset):
            return False
        if any(isinstance(member, functools.cached_property) for member in members.values()):
            return False
    return True


def is_fixed(value: Any) -> bool:
    """Whether a value cannot be changed itself, whatever it refers to, and refers to nothing that could be."""
    if type(value) in _FIXED or type(value).__module__ in _TYPING:
        return True
    if isinstance(value, enum.Enum):
        return False
    if isinstance(value, logging.Logger):
        # Found by its name everywhere: the sandbox never had another one.
        return value is logging.root or logging.Logger.manager.loggerDict.get(value.name) is value
    return False
