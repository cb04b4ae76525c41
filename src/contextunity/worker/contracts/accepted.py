"""Represent what a `buf.validate` rule accepts as comparable values: compared by meaning, not by text.

Numbers, booleans, enums, times and sizes are exact sets of integers. Strings and bytes are a conjunction of
conditions: each condition of the new version must follow from those of the old one. CEL expressions, patterns and
predefined rules are texts, which are equal or not.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from .schema import plain_text

__all__ = [
    "NO_EXPRESSIONS",
    "NUMERIC",
    "Change",
    "Expressions",
    "Numbers",
    "Text",
    "expressions",
    "matches_all",
    "numbers",
    "text_rules",
]

_BOUNDS = ("gt", "gte", "lt", "lte")
_EDGE = 2**69
"""Greater than every ordered number, and every time in nanoseconds."""
_NAN = 2 * _EDGE
"""Represents every NaN, which has no order."""
_INFINITE = 4 * _EDGE
"""Above everything."""


@dataclass(frozen=True, slots=True)
class Change:
    """One way in which a rule accepts less.

    Attributes:
        kind: required, range, values, length, format, size, added or changed; the last two are for expressions.
        options: the rules that cause it, by their names below the field's rules, such as `int32.lte`.
    """

    kind: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Numbers:
    """A set of integers, as sorted closed intervals that do not touch."""

    intervals: tuple[tuple[int, int], ...]

    @staticmethod
    def between(lowest: int, highest: int) -> Numbers:
        """Return all integers of a closed interval."""
        return Numbers(((lowest, highest),) if lowest <= highest else ())

    @staticmethod
    def of(values: Iterable[int]) -> Numbers:
        """Just these."""
        return Numbers._joined((value, value) for value in values)

    @staticmethod
    def _joined(intervals: Iterable[tuple[int, int]]) -> Numbers:
        joined: list[tuple[int, int]] = []
        for low, high in sorted(intervals):
            if joined and low <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
            else:
                joined.append((low, high))
        return Numbers(tuple(joined))

    def __or__(self, other: Numbers) -> Numbers:
        return self._joined((*self.intervals, *other.intervals))

    def __and__(self, other: Numbers) -> Numbers:
        return self._joined(
            (max(low, low2), min(high, high2))
            for low, high in self.intervals
            for low2, high2 in other.intervals
            if max(low, low2) <= min(high, high2)
        )

    def __sub__(self, other: Numbers) -> Numbers:
        edge = -_INFINITE
        outside: list[tuple[int, int]] = []
        for low, high in other.intervals:
            outside.append((edge, low - 1))
            edge = high + 1
        outside.append((edge, _INFINITE))
        return self & Numbers(tuple((low, high) for low, high in outside if low <= high))

    def __contains__(self, value: int) -> bool:
        return any(low <= value <= high for low, high in self.intervals)

    def __le__(self, other: Numbers) -> bool:
        return not (self - other).intervals


def _ordered(value: float, form: str) -> int:
    """Return the rank of a floating-point number among all of its width; both zeros have the same."""
    if math.isnan(value):
        return _NAN
    unsigned, sign = ("<I", 2**31) if form == "<f" else ("<Q", 2**63)
    (bits,) = struct.unpack(unsigned, struct.pack(form, value))
    number = int(bits)
    return number if number < sign else sign - number


def _nanoseconds(value: Any) -> int:
    return int(value.seconds) * 1_000_000_000 + int(value.nanos)


_INTEGERS = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "sint32": (-(2**31), 2**31 - 1),
    "sint64": (-(2**63), 2**63 - 1),
    "fixed32": (0, 2**32 - 1),
    "fixed64": (0, 2**64 - 1),
    "sfixed32": (-(2**31), 2**31 - 1),
    "sfixed64": (-(2**63), 2**63 - 1),
    "bool": (0, 1),
    "enum": (-(2**31), 2**31 - 1),
    "duration": (-_EDGE, _EDGE),
    "timestamp": (-_EDGE, _EDGE),
}
NUMERIC = frozenset((*_INTEGERS, "float", "double"))
"""Kinds of rules whose values are numbers; durations and timestamps are in nanoseconds."""


def _everything(kind: str) -> Numbers:
    if kind in ("float", "double"):
        form = "<f" if kind == "float" else "<d"
        highest = _ordered(math.inf, form)
        return Numbers.between(-highest, highest) | Numbers.of([_NAN])
    return Numbers.between(*_INTEGERS[kind])


def _number(kind: str) -> Callable[[Any], int]:
    match kind:
        case "float" | "double":
            form = "<f" if kind == "float" else "<d"
            return lambda value: _ordered(float(value), form)
        case "duration" | "timestamp":
            return _nanoseconds
        case _:
            return int


def numbers(kind: str, rules: Any | None, field: FieldDescriptor | None = None) -> Numbers:
    """Return the numbers that rules of a kind accept; all without rules. `field` gives an enum's values."""
    accepted = _everything(kind)
    if rules is None:
        return accepted
    number = _number(kind)
    given = {option.name: value for option, value in rules.ListFields() if not option.is_extension}
    if any(name in given for name in _BOUNDS):
        accepted &= _bounded({name: number(given[name]) for name in _BOUNDS if name in given})
    if given.get("finite"):
        infinite = number(math.inf)
        accepted &= Numbers.between(1 - infinite, infinite - 1)
    if given.get("defined_only") and field is not None and field.enum_type is not None:
        accepted &= Numbers.of(value.number for value in field.enum_type.values)
    if "const" in given:
        accepted &= Numbers.of([number(given["const"])])
    if given.get("in"):
        accepted &= Numbers.of(map(number, given["in"]))
    if given.get("not_in"):
        accepted = accepted - Numbers.of(map(number, given["not_in"]))
    return accepted


def _bounded(given: Mapping[str, int]) -> Numbers:
    """Return the numbers within bounds; an upper bound below the lower one excludes the numbers between them."""
    low = given["gt"] + 1 if "gt" in given else given.get("gte")
    high = given["lt"] - 1 if "lt" in given else given.get("lte")
    # NaN is within no bounds.
    if low is None or high is None:
        return Numbers.between(-_EDGE if low is None else low, _EDGE if high is None else high)
    upper, lower = given.get("lt", given.get("lte", 0)), given.get("gt", given.get("gte", 0))
    if upper >= lower:
        return Numbers.between(low, high)
    return Numbers.between(-_EDGE, high) | Numbers.between(low, _EDGE)


_FORMATS = (
    "email", "hostname", "ip", "ipv4", "ipv6", "uri", "uri_ref", "address", "uuid", "tuuid", "ip_with_prefixlen",
    "ipv4_with_prefixlen", "ipv6_with_prefixlen", "ip_prefix", "ipv4_prefix", "ipv6_prefix", "host_and_port", "ulid",
    "protobuf_fqn", "protobuf_dot_fqn",
)  # fmt: skip
_WIDER = {
    "hostname": ("address",),
    "ip": ("address",),
    "ipv4": ("ip", "address"),
    "ipv6": ("ip", "address"),
    "uri": ("uri_ref",),
    "ipv4_with_prefixlen": ("ip_with_prefixlen",),
    "ipv6_with_prefixlen": ("ip_with_prefixlen",),
    "ip_prefix": ("ip_with_prefixlen",),
    "ipv4_prefix": ("ip_prefix", "ip_with_prefixlen", "ipv4_with_prefixlen"),
    "ipv6_prefix": ("ip_prefix", "ip_with_prefixlen", "ipv6_with_prefixlen"),
}
"""For each format, the formats that accept all of its values."""
_LENGTHS = {"uuid": 36, "tuuid": 32, "ulid": 26}
_EMPTY_TOO = ("uri_ref", "header_value", "header_value_loose")


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """What the conditions on a string or bytes accept together.

    Attributes:
        zero: the empty value, "" or b"".
        or_zero: whether the empty value is accepted regardless of the conditions.
        chars: bounds of the length in characters; for bytes, in bytes.
        size: bounds of the length in bytes.
        formats: required formats, each with the option that requires it.
    """

    zero: Any
    or_zero: bool = False
    chars: tuple[int, int] = (0, _INFINITE)
    size: tuple[int, int] = (0, _INFINITE)
    values: frozenset[Any] | None = None
    not_values: frozenset[Any] = frozenset()
    prefix: Any = None
    suffix: Any = None
    contains: Any = None
    not_contains: Any = None
    formats: Mapping[str, str]
    options: Mapping[str, tuple[str, ...]]

    def nonzero(self) -> Text:
        """Return the same conditions without the empty value."""
        return replace(self, or_zero=False, not_values=self.not_values | {self.zero})

    def accepts(self, value: Any) -> bool:
        """Return whether a value is accepted, apart from formats and patterns."""
        if value == self.zero and self.or_zero:
            return True
        return (self.values is None or value in self.values) and self._fits(value)

    def _fits(self, value: Any) -> bool:
        size = len(value.encode()) if isinstance(value, str) else len(value)
        return (
            value not in self.not_values
            and self.chars[0] <= len(value) <= self.chars[1]
            and self.size[0] <= size <= self.size[1]
            and (self.prefix is None or value.startswith(self.prefix))
            and (self.suffix is None or value.endswith(self.suffix))
            and (self.contains is None or self.contains in value)
            and (self.not_contains is None or self.not_contains not in value)
            and not (value == self.zero and any(each not in _EMPTY_TOO for each in self.formats))
        )

    def finite(self) -> frozenset[Any] | None:
        """Return all accepted values if they are a list; formats and patterns may exclude some. None otherwise."""
        if self.values is None:
            return None
        kept = frozenset(value for value in self.values if self._fits(value))
        return kept | {self.zero} if self.or_zero else kept

    def bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the bounds of the length in characters and in bytes that all conditions together imply."""
        low, high = self.chars
        low_bytes, high_bytes = self.size
        parts = [part for part in (_merged(self.prefix, self.suffix), self.contains) if part]
        low = max(low, *(len(part) for part in parts), 0)
        if self.zero in self.not_values or any(each not in _EMPTY_TOO for each in self.formats):
            low = max(low, 1)
        for name in self.formats:
            if name in _LENGTHS and isinstance(self.zero, str):
                low, high = max(low, _LENGTHS[name]), min(high, _LENGTHS[name])
        if isinstance(self.zero, bytes):
            low, high = max(low, low_bytes), min(high, high_bytes)
            return (low, high), (low, high)
        # A character takes one to four bytes.
        low, high = max(low, -(-low_bytes // 4)), min(high, high_bytes)
        low_bytes = max(low_bytes, low, *(len(part.encode()) for part in parts), 0)
        high_bytes = min(high_bytes, 4 * high)
        return (low, high), (low_bytes, high_bytes)

    def lost_to(self, new: Text) -> list[Change]:
        """Return the ways in which `new` accepts less."""
        if self.zero not in self.not_values and self.or_zero and not new.accepts(new.zero):
            return [Change("values", new.blame("values", "length", "format"))]
        old = self.nonzero() if self.or_zero or new.or_zero else self
        finite = old.finite()
        if finite is not None:
            if not finite:
                return []
            changed = [Change("values", new.blame("values", "length", "format"))]
            lost = any(not new.accepts(value) for value in finite)
            return (changed if lost else []) + old._lost_formats(new)
        chars, size = old.bounds()
        if chars[0] > chars[1] or size[0] > size[1]:
            return []
        found: list[Change] = []
        if new.values is not None or any(old.accepts(value) for value in new.not_values):
            found.append(Change("values", new.blame("values")))
        within = new.chars[0] <= chars[0] and chars[1] <= new.chars[1]
        if not (within and new.size[0] <= size[0] and size[1] <= new.size[1]):
            found.append(Change("length", new.blame("length")))
        if not old._implies_parts(new):
            found.append(Change("format", new.blame("format")))
        return found + old._lost_formats(new)

    def _lost_formats(self, new: Text) -> list[Change]:
        held = {*self.formats, *(wider for name in self.formats for wider in _WIDER.get(name, ()))}
        if "header_name" in held:
            held.add("header_name_loose")
        if "header_value" in held:
            held.add("header_value_loose")
        return [Change("format", (option,)) for name, option in new.formats.items() if name not in held]

    def _implies_parts(self, new: Text) -> bool:
        known = [part for part in (self.prefix, self.suffix, self.contains) if part is not None]
        return (
            (not new.prefix or (self.prefix is not None and self.prefix.startswith(new.prefix)))
            and (not new.suffix or (self.suffix is not None and self.suffix.endswith(new.suffix)))
            and (not new.contains or any(new.contains in part for part in known))
            # A value without the shorter text cannot contain a longer text around it.
            and (new.not_contains is None or (self.not_contains is not None and self.not_contains in new.not_contains))
        )

    def blame(self, *kinds: str) -> tuple[str, ...]:
        """Return the names of the set rules of the first of these kinds that has any."""
        return next((self.options[kind] for kind in kinds if self.options.get(kind)), ())


def _merged(prefix: Any, suffix: Any) -> Any:
    """Return the shortest text with this prefix and suffix."""
    if not prefix or not suffix:
        return prefix or suffix
    shared = next(size for size in range(len(suffix), -1, -1) if prefix.endswith(suffix[:size]))
    return prefix + suffix[shared:]


_TEXT_OPTIONS = {
    "values": ("const", "in", "not_in"),
    "length": ("len", "min_len", "max_len", "len_bytes", "min_bytes", "max_bytes"),
    "format": ("prefix", "suffix", "contains", "not_contains"),
}


def text_rules(kind: str, rules: Any | None) -> Text:
    """Return what rules of the kind string, bytes or any accept; everything without rules."""
    zero: Any = b"" if kind == "bytes" else ""
    if rules is None:
        return Text(zero=zero, formats={}, options={})
    given = {option.name: value for option, value in rules.ListFields() if not option.is_extension}
    values = frozenset(given["in"]) if given.get("in") else None
    if "const" in given:
        values = frozenset([given["const"]]) & (values if values is not None else frozenset([given["const"]]))
    options = {key: tuple(f"{kind}.{name}" for name in names if name in given) for key, names in _TEXT_OPTIONS.items()}
    return Text(
        zero=zero,
        values=values,
        not_values=frozenset(given.get("not_in", ())),
        chars=(given.get("len", given.get("min_len", 0)), given.get("len", given.get("max_len", _INFINITE))),
        size=(
            given.get("len_bytes", given.get("min_bytes", 0)),
            given.get("len_bytes", given.get("max_bytes", _INFINITE)),
        ),
        prefix=given.get("prefix"),
        suffix=given.get("suffix"),
        contains=given.get("contains"),
        # Every text contains the empty text.
        not_contains=given.get("not_contains"),
        formats=_formats(kind, given),
        options=options,
    )


def _formats(kind: str, given: Mapping[str, Any]) -> dict[str, str]:
    found = {name: f"{kind}.{name}" for name in _FORMATS if given.get(name)}
    regex = int(given.get("well_known_regex", 0))
    if regex:
        name = "header_name" if regex == 1 else "header_value"
        found[name if given.get("strict", True) else f"{name}_loose"] = f"{kind}.well_known_regex"
    return found


@dataclass(frozen=True, slots=True)
class Expressions:
    """Rules that are only compared for equality: CEL expressions, patterns and predefined rules, by their text."""

    texts: Mapping[str, str]

    def compare(self, new: Expressions) -> tuple[list[str], list[str]]:
        """Return the options of added and of removed rules."""
        added = [option for text, option in new.texts.items() if text not in self.texts]
        removed = [option for text, option in self.texts.items() if text not in new.texts]
        return added, removed

    def __or__(self, other: Expressions) -> Expressions:
        return Expressions({**other.texts, **self.texts})


NO_EXPRESSIONS = Expressions({})


def expressions(rules: Any | None) -> Expressions:
    """Return the CEL expressions of field or message rules, with the pattern and predefined rules of its type."""
    texts: dict[str, str] = {}
    if rules is None:
        return NO_EXPRESSIONS
    for rule in rules.cel:
        texts[f"cel {plain_text(rule.expression)}"] = "cel"
    for expression in _given(rules, "cel_expression"):
        texts[f"cel {plain_text(expression)}"] = "cel_expression"
    kind = rules.WhichOneof("type") if "type" in rules.DESCRIPTOR.oneofs_by_name else None
    if kind is not None:
        for option, value in getattr(rules, kind).ListFields():
            if option.is_extension:
                definition = option.GetOptions().SerializeToString(deterministic=True).hex()
                texts[f"predefined {option.full_name} {value} {definition}"] = f"{kind}.[{option.full_name}]"
            elif option.name == "pattern":
                texts[f"pattern {value}"] = f"{kind}.pattern"
    return Expressions(texts)


def _given(message: Any, name: str) -> Collection[str]:
    return getattr(message, name) if name in message.DESCRIPTOR.fields_by_name else ()


def matches_all(pattern: str, values: Collection[Any]) -> bool:
    """Return whether a pattern certainly matches each of a few values."""
    try:
        compiled = re.compile(pattern)
    except re.error:
        return False  # RE2 has syntax that Python lacks.
    return all(isinstance(value, str) and compiled.search(value) is not None for value in values)
