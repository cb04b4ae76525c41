"""Names: those that betterproto2 gives to dataclasses and fields, and our own, which never map two inputs to one."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

__all__ = ["Namespace", "constant_case", "dataclass_name", "field_name", "pascal_case", "snake_case"]

_WORD = re.compile(r"([^a-zA-Z0-9]*)([A-Z]+(?![a-z])[0-9]*|[A-Z]*[a-z]*[0-9]*)")


def dataclass_name(nested: str) -> str:
    """betterproto2's name for a message: nested names are joined, every word capitalised (`Outer.inner` OuterInner)."""
    return _WORD.sub(lambda match: match[2].capitalize(), nested)


def field_name(name: str) -> str:
    """betterproto2's name for a field."""
    name = _betterproto_snake(name)
    if keyword.iskeyword(name):
        return f"{name}_"
    return name if name.isidentifier() else f"_{name}"


def _betterproto_snake(name: str) -> str:
    if "_" in name or not any(character.isupper() for character in name):
        return name
    name = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name)
    name = re.sub(r"(?<=[A-Z])([A-Z])(?=[a-z])", r"_\1", name)
    name = re.sub(r"(?<=[a-zA-Z])([0-9])", r"_\1", name)
    return name.lower()


def snake_case(name: str) -> str:
    """A method's name in Python's case: `SyncToBrain` sync_to_brain, `GetHTTPPage` get_http_page."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"__+", "_", name).lower().lstrip("_") or "_"


def pascal_case(name: str) -> str:
    """A method's name as part of a class name: `sync_to_brain` SyncToBrain; `SyncToBrain` stays."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def constant_case(name: str) -> str:
    """A method's name as part of a constant's name: `SyncToBrain` SYNC_TO_BRAIN."""
    return snake_case(name).upper()


class Namespace:
    """Gives out names that differ from one another and from Python's keywords.

    Who asks first gets the plain name, so that what is added to the end of a proto never renames what was there.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken = set(reserved)

    def take(self, *wishes: str) -> str:
        """The first of `wishes` that is free, else the last one with an underscore or a number behind it."""
        for wish in wishes:
            if wish not in self._taken and not keyword.iskeyword(wish):
                return self._add(wish)
        if f"{wishes[-1]}_" not in self._taken:
            return self._add(f"{wishes[-1]}_")
        number = 2
        while f"{wishes[-1]}_{number}" in self._taken:
            number += 1
        return self._add(f"{wishes[-1]}_{number}")

    def _add(self, name: str) -> str:
        self._taken.add(name)
        return name
