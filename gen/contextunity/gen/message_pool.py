# ruff: noqa
# fmt: off

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any, TypeVar

import betterproto2

_ClassT = TypeVar("_ClassT", bound=type)


class MessagePool(betterproto2.MessagePool):
    """The messages of this tree."""

    def register_message(self, package_name: str, message_name: str, message_type: type[betterproto2.Message]) -> None:
        super().register_message(package_name, message_name, message_type)
        setattr(message_type, "__reduce__", _reduce)


def _reduce(message: betterproto2.Message) -> tuple[object, ...]:
    """What a message is pickled as: its attributes, where betterproto2's bytes would lose nanoseconds and signs."""
    # Types know nothing of what pickle itself makes objects with.
    make: Any = getattr(copyreg, "__newobj__")
    return make, (type(message),), vars(message)


def named(*names: str) -> Callable[[_ClassT], _ClassT]:
    """Gives fields their names back: in the body of a class, Python puts the class's name before two underscores."""

    def rename(cls: _ClassT) -> _ClassT:
        changed = {f"_{cls.__name__.lstrip('_')}{name}": name for name in names}
        cls.__annotations__ = {changed.get(name, name): hint for name, hint in cls.__annotations__.items()}
        for private, name in changed.items():
            setattr(cls, name, vars(cls)[private])
            delattr(cls, private)
        return cls

    return rename


# betterproto2's constructor has no types, and strict checks refuse to call such a one by its name.
_make_pool: Callable[[], MessagePool] = MessagePool
default_message_pool = _make_pool()
