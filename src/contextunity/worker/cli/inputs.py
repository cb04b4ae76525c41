"""The input of a command: a document by --input, or a flag for each field of a contract."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from .connection import UsageError
from .output import did_you_mean

if TYPE_CHECKING:
    from contextunity.gen.contextunity.worker import FieldDescription

__all__ = ["ArgumentGroup", "ContractFlags", "add_input", "read_input", "read_text"]


def add_input(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option --input; `what` describes the input."""
    parser.add_argument(
        "--input",
        metavar="JSON|FILE|-",
        help=f"{what}: a JSON object by proto names, a file with one, or - for the standard input",
    )


def read_input(given: str | None) -> dict[str, Any] | None:
    """Return the object of --input; None if the option is absent.

    Raises:
        UsageError: it is not a JSON object, or cannot be read.
    """
    if given is None:
        return None
    # A list is never a valid input, and hardly a file name.
    inline = given.lstrip().startswith(("{", "["))
    text = given if inline else read_text(given)
    where = "--input" if inline else "the standard input" if given == "-" else given
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f'{where}: it holds {type(data).__name__} where a JSON object is due, such as {{"key": 1}}')
    return cast("dict[str, Any]", data)


def read_text(name: str) -> str:
    """Return the content of a file, or of the standard input for `-`.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        if name != "-":
            return Path(name).read_text(encoding="utf-8")
        # Replacements in tests and notebooks may lack the method.
        reconfigure = getattr(sys.stdin, "reconfigure", None)
        if reconfigure is not None and not sys.stdin.isatty():
            # Decode like a file, in UTF-8; only typed input has the terminal's encoding.
            reconfigure(encoding="utf-8")
        return sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{name}: {reason or error}") from None


_EXACT = 1 << 53
"""Larger integers are text in a payload, as in ProtoJSON, because they would not be exact."""

_INTEGERS = {
    **dict.fromkeys(("int32", "sint32", "sfixed32"), (-(1 << 31), (1 << 31) - 1)),
    **dict.fromkeys(("uint32", "fixed32"), (0, (1 << 32) - 1)),
    **dict.fromkeys(("int64", "sint64", "sfixed64"), (-(1 << 63), (1 << 63) - 1)),
    **dict.fromkeys(("uint64", "fixed64"), (0, (1 << 64) - 1)),
}
_WRAPPERS = {
    f"google.protobuf.{name}Value": kind
    for name, kind in {
        "Bool": "bool",
        "Bytes": "bytes",
        "Double": "double",
        "Float": "float",
        "Int32": "int32",
        "Int64": "int64",
        "String": "string",
        "UInt32": "uint32",
        "UInt64": "uint64",
    }.items()
}


class ArgumentGroup(Protocol):
    """A parser, or a group of one, to add flags to."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add a flag."""
        ...


@dataclass(frozen=True, slots=True)
class _Kind:
    """How to type a field's value: its placeholder in the help, and the conversion from text."""

    metavar: str
    read: Callable[[str], Any]


class ContractFlags:
    """The flags of a contract.

    Args:
        fields: fields of the input message.
        besides: names of fields that already have a flag.
    """

    def __init__(self, fields: Sequence[FieldDescription], *, besides: frozenset[str] = frozenset()) -> None:
        self._fields = [field for field in fields if field.name not in besides]
        self._names = dict[str, str]()

    def add_to(self, group: ArgumentGroup) -> None:
        """Add a flag for each field; if a general option has the name, the flag is --field-NAME."""
        for field in self._fields:
            flag = f"--{field.name.replace('_', '-')}"
            try:
                self._add(group, field, flag)
            except argparse.ArgumentError:
                flag = f"--field-{field.name.replace('_', '-')}"
                self._add(group, field, flag)
            self._names[field.name] = flag

    def given(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Return the plain values of the given flags, by proto name."""
        values, found = vars(arguments), dict[str, Any]()
        for field in self._fields:
            value = values.get(_destination(field))
            if value is not None:
                found[field.name] = {k: v for part in value for k, v in part.items()} if _is_map(field) else value
        return found

    def names(self, *prefixes: str) -> dict[str, str]:
        """Return the flag of each field, by the field's path in the service's errors."""
        return {f"{prefix}{name}": flag for prefix in prefixes for name, flag in self._names.items()}

    def _add(self, group: ArgumentGroup, field: FieldDescription, flag: str) -> None:
        kind = _kind(field)
        options: dict[str, Any] = {"dest": _destination(field), "default": None, "help": _help(field)}
        if _base_type(field) == "bool" and not field.repeated:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
            return
        if field.repeated or _is_map(field):
            options["action"] = "append"
        group.add_argument(flag, type=kind.read, metavar=kind.metavar, **options)


def _destination(field: FieldDescription) -> str:
    # The colon prevents a collision with the attributes of general options.
    return f"field:{field.name}"


def _base_type(field: FieldDescription) -> str:
    return _WRAPPERS.get(field.type, field.type)


def _is_map(field: FieldDescription) -> bool:
    return field.type.startswith("map<")


def _kind(field: FieldDescription) -> _Kind:
    word = _Kind("WORD", lambda text: _enum_value(text, field.enum_values))
    if field.enum_values and not _is_map(field):
        return word
    if _is_map(field):
        value_kind = word if field.enum_values else _kind_of(field.type.removesuffix(">").partition(", ")[2])
        return _Kind(f"KEY={value_kind.metavar}", lambda text: _map_part(text, value_kind))
    return _kind_of(_base_type(field))


def _kind_of(name: str) -> _Kind:
    name = _WRAPPERS.get(name, name)
    if name in _INTEGERS:
        lowest, highest = _INTEGERS[name]
        return _Kind("INT", lambda text: _integer(text, lowest, highest))
    match name:
        case "float" | "double":
            return _Kind("NUMBER", _number)
        case "bool":
            return _Kind("true|false", _truth)
        case "string":
            return _Kind("TEXT", str)
        case "bytes":
            return _Kind("BASE64", str)
        case "google.protobuf.Timestamp":
            return _Kind("TIME", _time)
        case "google.protobuf.Duration":
            return _Kind("SECONDS", _duration)
        case "google.protobuf.FieldMask":
            return _Kind("PATHS", str)
        case _:
            return _Kind("JSON", _json)


def _help(field: FieldDescription) -> str:
    parts = [" ".join(field.description.split())]
    if field.enum_values:
        parts.append(f"One of {', '.join(_shown_words(field.enum_values))}.")
    if field.repeated or _is_map(field):
        parts.append("May be given again.")
    rules = [_rule(each) for each in field.rules]
    if rules:
        parts.append(f"[{'; '.join(rules)}]")
    # Escape percent signs, because argparse expands them.
    return " ".join(filter(None, parts)).replace("%", "%%")


def _rule(rule: str) -> str:
    """Return a rule such as `int32.gte: 0` without its type, which is shown next to it."""
    name, colon, value = rule.partition(":")
    return f"{name.partition('.')[2] or name}{colon}{value}"


def _shown_words(names: Sequence[str]) -> list[str]:
    """Return the lower-case words of an enum's values, without the zero value."""
    from betterproto2_codec.plain_data import enum_words

    words = [enum_words(names).word(name) for name in names]
    return [word for word in words if word != "unspecified"] or words


def _enum_value(text: str, names: Sequence[str]) -> str:
    from betterproto2_codec.plain_data import enum_words

    found = enum_words(names).name(text.replace("-", "_"))
    if found is None:
        known = _shown_words(names)
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(known)}{did_you_mean(text, known)}")
    return found


def _map_part(text: str, value_kind: _Kind) -> dict[str, Any]:
    """Return the entry of `KEY=VALUE`, or all entries of a JSON object."""
    if text.lstrip().startswith("{"):
        entries = _json(text)
        if isinstance(entries, dict):
            return cast("dict[str, Any]", entries)
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not an entry; write KEY={value_kind.metavar}, or a JSON object")
    return {key: value_kind.read(value)}


def _integer(text: str, lowest: int, highest: int) -> int | str:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"{text} is not between {lowest} and {highest}")
    return value if -_EXACT <= value <= _EXACT else str(value)


def _number(text: str) -> float | str:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _time(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2030-01-31T08:00:00Z") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} lacks its time zone; add Z for UTC, or an offset such as +02:00")
    return text


def _duration(text: str) -> str:
    seconds = text.removesuffix("s")
    try:
        finite = math.isfinite(float(seconds))
    except ValueError:
        finite = False
    if not finite:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, such as 1.5")
    return f"{seconds}s"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
