"""Python source as text: names, indentation, docstrings, literals of option values."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from .model import TypeRef

__all__ = [
    "TIMEDELTA",
    "Namespace",
    "PythonText",
    "constant_case",
    "dataclass_name",
    "field_name",
    "pascal_case",
    "snake_case",
]

_WORD = re.compile(r"([^a-zA-Z0-9]*)([A-Z]+(?![a-z])[0-9]*|[A-Z]*[a-z]*[0-9]*)")


def dataclass_name(nested: str) -> str:
    """Return betterproto2's name for a message: nested names are joined in CamelCase (`Outer.inner` OuterInner)."""
    return _WORD.sub(lambda match: match[2].capitalize(), nested)


def field_name(name: str) -> str:
    """Return betterproto2's name for a field."""
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
    """Return a method's name in Python's case: `SyncToBrain` sync_to_brain, `GetHTTPPage` get_http_page."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"__+", "_", name).lower().lstrip("_") or "_"


def pascal_case(name: str) -> str:
    """Return a method's name for a class name: `sync_to_brain` SyncToBrain; `SyncToBrain` is unchanged."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def constant_case(name: str) -> str:
    """Return a method's name for a constant: `SyncToBrain` SYNC_TO_BRAIN."""
    return snake_case(name).upper()


class Namespace:
    """Assigns names that differ from each other and from Python's keywords.

    The first request gets the plain name, so that additions at the end of a proto never rename anything.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken = set(reserved)

    def take(self, *wishes: str) -> str:
        """Return the first free name of `wishes`, or else the last one with an underscore or a number as a suffix."""
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


_IMPORTED = ("Awaitable", "Final", "Unpack", "abstractmethod", "deprecated", "timedelta")
_DEFINITIONS = ("class ", "def ", "@")


class PythonText:
    """The body of a module; exactly what it refers to by `type`, `module` or `literal` is imported.

    Imported names begin with an underscore, which generated names never do, so that they cannot collide.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._modules: dict[str, str] = {}
        self._aliases = Namespace({"_t", *(f"_{name}" for name in _IMPORTED)})
        self._names: dict[tuple[str, str], str] = {}

    def line(self, text: str = "", indent: int = 0) -> None:
        """Add a line; without text, an empty one."""
        self._lines.append(f"{'    ' * indent}{text}" if text else "")

    def docstring(self, text: str, indent: int = 0) -> None:
        """Add a docstring, unless the text is empty."""
        if not text:
            return
        lines = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').split("\n")
        if len(lines) == 1 and not lines[0].endswith('"'):
            self.line(f'"""{lines[0]}"""', indent)
            return
        # One entry, to keep its empty lines.
        pad = "    " * indent
        body = [f"{pad}{line}" if line else "" for line in lines[1:]]
        self._lines.append("\n".join([f'{pad}"""{lines[0]}', *body, f'{pad}"""']))

    def type(self, reference: TypeRef | None) -> str:
        """Return a dataclass as an annotation or value; None for google.protobuf.Empty."""
        return "None" if reference is None else f"{self.module(reference.module)}.{reference.name}"

    def module(self, name: str) -> str:
        """Return the name that a module is imported as."""
        if name not in self._modules:
            parts = name.split(".")
            self._modules[name] = self._aliases.take(
                *(f"_{'__'.join(parts[start:])}" for start in range(len(parts) - 1, -1, -1))
            )
        return self._modules[name]

    def imported(self, module: str, name: str) -> str:
        """Return the name that a member of a module is imported as."""
        return self._names.setdefault((module, name), f"_{name}")

    def literal(self, text: str) -> str:
        """Return an option's value, in the form of `Values`."""
        return text.replace(TIMEDELTA, self.imported("datetime", "timedelta")) if TIMEDELTA in text else text

    def imports(self) -> list[str]:
        """Return import statements, sorted, the standard library's first."""
        by_module: dict[str, list[str]] = {}
        for module, name in sorted(self._names):
            by_module.setdefault(module, []).append(f"{name} as _{name}")
        own = [f"import {module} as {alias}" for module, alias in sorted(self._modules.items())]
        standard = [f"from {module} import {', '.join(names)}" for module, names in by_module.items()]
        return [*standard, "", *own, "from python_temporal import codegen as _t"] if standard else own

    def render(self) -> list[str]:
        """Return the lines so far, with two empty ones around each class and function, and never more."""
        lines, empty = list[str](), 0
        previous = ""
        for line in self._lines:
            if not line:
                empty += 1
                continue
            is_top_level = not line.startswith((" ", ")", '"""'))
            if empty and is_top_level and (line.startswith(_DEFINITIONS) or previous.startswith(" ")):
                empty = 2
            lines += [""] * min(empty, 2 if is_top_level else 1)
            lines.append(line)
            previous, empty = line, 0
        return lines


TIMEDELTA = "\x1f"
"""Placeholder for the name of timedelta in a generated module; it cannot occur in an option."""
