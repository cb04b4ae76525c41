"""Kinds of values that no run can change, so all runs may share them."""

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
        # Has no attributes; used for sentinels.
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
    _PAIR["one"].__class__,  # The field accessors of named tuples.
)


@dataclasses.dataclass
class _Sample: ...


KNOWN_CODE: frozenset[types.CodeType] = frozenset({_Sample.__repr__.__code__})
"""Code of functions that change a variable they close over and restore it: a dataclass's `__repr__` records the objects
it is printing."""

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
"""Names in modules and classes that the interpreter maintains. Only their replacement is detected."""

MADE_LATER = frozenset({"__annotations__", "__annotations_cache__", "__slotnames__", "__warningregistry__"})
"""Names that the interpreter may add to modules and classes at any time, and that hold no state of code. Copying an
object stores its slot names in its class."""

MADE_LATER_BY_ENUMS = "_inverted_"
"""Attribute in which a flag member caches its inverse."""


_INSTEAD: dict[type[Any], str] = {
    list: "a tuple",
    dict: "a types.MappingProxyType",
    set: "a frozenset",
    bytearray: "a bytes",
}
"""Immutable replacements for mutable constants."""

MADE_BY_LIBRARIES = frozenset({"__attrs_attrs__", "__pydantic_core_schema__", "__pydantic_decorators__"})
"""Attributes that identify pydantic models and attrs classes; listing more of their attributes helps no author."""


def is_activity(function: types.FunctionType) -> bool:
    """Return whether a function is an activity, which may be in a workflow's module but does not run in its sandbox."""
    return "__temporal_activity_definition" in vars(function)


def hint(value: Any) -> str:
    """Return advice for the author of a value that could be changed."""
    instead = next((better for kind, better in _INSTEAD.items() if type(value) is kind), None)
    return f" (use {instead} if no run changes it)" if instead else ""


def is_plain(value: Any) -> bool:
    """Return whether an object keeps all of its mutable state in attributes and slots.

    False for classes derived from list, dict, Exception and similar, and for those with cached properties, which change
    the object when read.
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
    """Return whether a value is immutable, and refers to nothing mutable."""
    if type(value) in _FIXED or type(value).__module__ in _TYPING:
        return True
    if isinstance(value, enum.Enum):
        return False
    if isinstance(value, logging.Logger):
        # Loggers are global by name: the SDK's sandbox shares them too.
        return value is logging.root or logging.Logger.manager.loggerDict.get(value.name) is value
    return False
