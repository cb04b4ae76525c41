"""Python source as text: names, indentation, docstrings, literals of option values."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterable
from typing import Any

from .errors import Diagnostics, Place
from .model import TypeRef
from .schema import field_value

__all__ = [
    "TIMEDELTA",
    "Namespace",
    "PythonText",
    "Values",
    "constant_case",
    "dataclass_name",
    "field_name",
    "pascal_case",
    "snake_case",
]

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


_IMPORTED = ("Awaitable", "Final", "Unpack", "abstractmethod", "deprecated", "timedelta")
_DEFINITIONS = ("class ", "def ", "@")


class PythonText:
    """The body of a module; whatever it refers to by `type`, `module` or `literal` is imported, and nothing else.

    Imported names begin with an underscore, which no generated name does, so that they can never meet.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._modules: dict[str, str] = {}
        self._aliases = Namespace({"_t", *(f"_{name}" for name in _IMPORTED)})
        self._names: dict[tuple[str, str], str] = {}

    def line(self, text: str = "", indent: int = 0) -> None:
        """Adds a line; without text, an empty one."""
        self._lines.append(f"{'    ' * indent}{text}" if text else "")

    def docstring(self, text: str, indent: int = 0) -> None:
        """Adds a docstring; an empty text adds none."""
        if not text:
            return
        lines = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').split("\n")
        if len(lines) == 1 and not lines[0].endswith('"'):
            self.line(f'"""{lines[0]}"""', indent)
            return
        # One entry, so that the empty lines within it stay as they are.
        pad = "    " * indent
        body = [f"{pad}{line}" if line else "" for line in lines[1:]]
        self._lines.append("\n".join([f'{pad}"""{lines[0]}', *body, f'{pad}"""']))

    def type(self, reference: TypeRef | None) -> str:
        """A dataclass as an annotation or value; None for google.protobuf.Empty."""
        return "None" if reference is None else f"{self.module(reference.module)}.{reference.name}"

    def module(self, name: str) -> str:
        """The name that a module is imported under."""
        if name not in self._modules:
            parts = name.split(".")
            self._modules[name] = self._aliases.take(
                *(f"_{'__'.join(parts[start:])}" for start in range(len(parts) - 1, -1, -1))
            )
        return self._modules[name]

    def imported(self, module: str, name: str) -> str:
        """The name that something of a module is imported under."""
        return self._names.setdefault((module, name), f"_{name}")

    def literal(self, text: str) -> str:
        """An option's value, as `_values` has it."""
        return text.replace(TIMEDELTA, self.imported("datetime", "timedelta")) if TIMEDELTA in text else text

    def imports(self) -> list[str]:
        """Import statements, sorted, the standard library's first."""
        by_module: dict[str, list[str]] = {}
        for module, name in sorted(self._names):
            by_module.setdefault(module, []).append(f"{name} as _{name}")
        own = [f"import {module} as {alias}" for module, alias in sorted(self._modules.items())]
        standard = [f"from {module} import {', '.join(names)}" for module, names in by_module.items()]
        return [*standard, "", *own, "from python_temporal import codegen as _t"] if standard else own

    def render(self) -> list[str]:
        """The lines so far, with two empty ones around each class and function and never more."""
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
"""Stands for the name under which a generated module imports timedelta; no option can hold it."""

_MAX_SECONDS = 86_400 * 999_999_999
_UNAVAILABLE = {
    "WAIT_POLICY_ADMITTED": "Python's SDK cannot wait for it; declare WAIT_POLICY_ACCEPTED or WAIT_POLICY_COMPLETED"
}


class Values:
    """Reads the options of one annotation and collects an error for each value that cannot be.

    Args:
        options: the annotation's message.
        name: its name, for errors.
        place: where it stands.
        diagnostics: where errors go.
        prefix: path of the message within its annotation, for errors, such as `update.`.
    """

    def __init__(self, options: Any, name: str, place: Place, diagnostics: Diagnostics, *, prefix: str = "") -> None:
        self._options = options
        self._name = name
        self._place = place
        self._diagnostics = diagnostics
        self._prefix = prefix

    def error(self, field: str, text: str) -> None:
        """Collects an error of a field."""
        self._diagnostics.error(self._place, f"option (temporal.v1.{self._name}).{self._prefix}{field}: {text}")

    def warning(self, field: str, text: str) -> None:
        """Collects a warning of a field."""
        self._diagnostics.warning(self._place, f"option (temporal.v1.{self._name}).{self._prefix}{field}: {text}")

    def has(self, field: str) -> bool:
        """Whether a field is set."""
        return _has(self._options, field)

    def get(self, field: str, default: Any = "") -> Any:
        """A field's value; `default` where this schema has no such field."""
        return field_value(self._options, field, default)

    def seconds(self, field: str) -> float | None:
        """A duration's length; None where it is not set."""
        if not self.has(field):
            return None
        value = getattr(self._options, field)
        return float(value.seconds) + float(value.nanos) / 1e9

    def duration(self, field: str) -> str | None:
        """A duration as a timedelta; None where it is not set."""
        return self._duration(self._options, field, field)

    def enum(self, field: str, python: str) -> str | None:
        """An enum's value as a member of the SDK's; None where it is unspecified."""
        member = self.member(field)
        return f"_t.{python}.{member}" if member else None

    def member(self, field: str) -> str:
        """Name of the SDK's member for an enum's value; empty where it is unspecified."""
        number = self.get(field, 0)
        if not number:
            return ""
        enum = self._options.DESCRIPTOR.fields_by_name[field].enum_type
        value = enum.values_by_number.get(number)
        if value is None:
            self.error(field, f"{number} is no value of {enum.full_name}")
            return ""
        if value.name in _UNAVAILABLE:
            self.error(field, f"{value.name} is not supported: {_UNAVAILABLE[value.name]}")
            return ""
        zero = enum.values_by_number[0].name
        return str(value.name).removeprefix(zero.removesuffix("UNSPECIFIED"))

    def max_attempts(self) -> int:
        """How often the retry policy has it tried; 0 is without end."""
        return int(field_value(self._options.retry_policy, "max_attempts", 0)) if self.has("retry_policy") else 0

    def retry_policy(self) -> str | None:
        """The SDK's RetryPolicy; None where none is set."""
        if not self.has("retry_policy"):
            return None
        policy = self._options.retry_policy
        backoff = field_value(policy, "backoff_coefficient", 0)
        arguments = {
            "initial_interval": self._duration(policy, "initial_interval", "retry_policy.initial_interval"),
            "backoff_coefficient": repr(backoff) if backoff else None,
            "maximum_interval": self._duration(policy, "max_interval", "retry_policy.max_interval"),
            "maximum_attempts": str(self.max_attempts()) if self.max_attempts() else None,
            "non_retryable_error_types": _tuple(field_value(policy, "non_retryable_error_types")),
        }
        self._check_retry_policy(policy, backoff)
        return f"_t.RetryPolicy({_joined(arguments)})"

    def priority(self) -> str | None:
        """The SDK's Priority; None where none is set."""
        if not self.has("priority"):
            return None
        key, fairness_key, weight = (
            field_value(self._options.priority, field) for field in ("priority_key", "fairness_key", "fairness_weight")
        )
        if key and key < 0:
            self.error("priority.priority_key", f"{key} is negative; 1 is the highest priority")
        if weight and not 0 < weight < math.inf:
            self.error("priority.fairness_weight", f"{weight} is not a number above 0")
        arguments = {
            "priority_key": str(key) if key else None,
            "fairness_key": repr(fairness_key) if fairness_key else None,
            # A float of single precision, shown by as few digits as tell it from its neighbours.
            "fairness_weight": f"{weight:.7g}" if weight else None,
        }
        return f"_t.Priority({_joined(arguments)})"

    def _check_retry_policy(self, policy: Any, backoff: float) -> None:
        if backoff and not 1 <= backoff < math.inf:
            self.error("retry_policy.backoff_coefficient", f"{backoff} is below 1 or without end")
        if self.max_attempts() < 0:
            self.error("retry_policy.max_attempts", f"{self.max_attempts()} is negative; 0 is without end")
        if _has(policy, "max_interval") and self.max_attempts() != 1:
            initial, longest = policy.initial_interval, policy.max_interval
            first = (initial.seconds, initial.nanos) if _has(policy, "initial_interval") else (1, 0)
            if (longest.seconds, longest.nanos) < first:
                self.error("retry_policy.max_interval", "it is shorter than initial_interval, which is 1 s unless set")

    def _duration(self, message: Any, field: str, path: str) -> str | None:
        if not _has(message, field):
            return None
        value = getattr(message, field)
        if value.seconds < 0 or value.nanos < 0:
            self.error(path, "it is negative")
        elif value.seconds > _MAX_SECONDS:
            self.error(path, f"{value.seconds} s is longer than Python's timedelta can hold")
        elif value.nanos % 1000:
            self.error(path, f"{value.nanos} ns are finer than a microsecond, which is Python's limit")
        fraction = f", microseconds={value.nanos // 1000}" if value.nanos else ""
        return f"{TIMEDELTA}(seconds={value.seconds}{fraction})"


def _has(message: Any, field: str) -> bool:
    return field in message.DESCRIPTOR.fields_by_name and bool(message.HasField(field))


def _tuple(values: Any) -> str | None:
    items = [repr(str(value)) for value in values]
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})" if items else None


def _joined(arguments: dict[str, str | None]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items() if value is not None)
