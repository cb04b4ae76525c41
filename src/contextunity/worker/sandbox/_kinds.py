"""Kinds of values that no run can change, so that all runs may have the same."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import inspect
import ipaddress
import logging
import operator
import pathlib
import re
import types
import typing
import uuid
import zoneinfo
from typing import Any

from python_temporal.contract import ActivityContract, ServiceContract, WorkflowContract

__all__ = ["DESCRIPTORS", "KNOWN_CODE", "MADE_LATER", "MAINTAINED", "is_activity", "is_fixed"]

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
        # Contracts are made by generated modules, which are the process's own.
        ActivityContract,
        ServiceContract,
        WorkflowContract,
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

MADE_LATER = frozenset({"__annotations__", "__annotations_cache__", "__warningregistry__"})
"""Names that the interpreter may add to modules and classes at any time, and that no code keeps state in."""


def is_activity(function: types.FunctionType) -> bool:
    """Whether a function is an activity, which stands beside workflows but does not run in their sandbox."""
    return "__temporal_activity_definition" in vars(function)


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
