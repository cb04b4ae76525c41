"""What is said of arguments that no unit can carry, in words of the client's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError

__all__ = ["describe", "plain_data", "shown"]

_MAX_SHOWN = 100


def shown(value: object) -> str:
    """A value as messages have it: its type, and its beginning."""
    text = repr(value)
    return f"the {type(value).__name__} {text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]}…'}"


def plain_data(value: object, what: str) -> dict[str, Any]:
    """A copy of a mapping that a caller gave.

    Args:
        value: what was given.
        what: the argument and what it takes, as the beginning of a sentence.

    Raises:
        TypeError: it is no mapping.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{what}, not {shown(value)}")
    return dict(cast("Mapping[str, Any]", value))


def describe(error: ValidationError) -> str:
    """One line for all that pydantic found wrong with a unit, without the addresses that its own text has."""
    return "; ".join(_fault(each["loc"], each["type"], each["msg"], each["input"]) for each in error.errors())


def _fault(location: tuple[int | str, ...], kind: str, message: str, value: object) -> str:
    if kind == "value_error":
        return ": ".join(filter(None, (".".join(map(str, location)), message.removeprefix("Value error, "))))
    if location[0] == "payload":
        # Behind the name in the payload, names and indexes take turns with what pydantic took the value for.
        path = ".".join(map(str, (location[0], *location[1::2])))
        if location[-1] == "[key]":
            return f"{path}: a name is text, not {shown(value)}"
        return f"{path}: it takes null, booleans, numbers, text, lists and mappings, not {shown(value)}"
    return f"{'.'.join(map(str, location))}: {message[0].lower()}{message[1:]}, not {shown(value)}"
