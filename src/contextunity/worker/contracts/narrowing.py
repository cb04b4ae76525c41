"""Find out whether a field's rules accept less than before: its absence, values, elements, expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from .accepted import NUMERIC, Change, Numbers, Text, expressions, matches_all, numbers, text_rules
from .schema import is_map

__all__ = ["ALWAYS", "Side", "absence_refused", "held_message", "held_rules", "narrowed", "side_of", "value_text"]

_IF_ZERO, ALWAYS = 1, 3
"""Values of buf.validate.Ignore."""
_MANY = 2**64
_ZERO = Numbers.of([0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """The rules of one version about a value.

    Attributes:
        rules: None if there are none, or if they are ignored.
        tracked: whether absence differs from zero.
        element: whether the value is in a list or map, so never absent.
        if_zero: whether a zero value is accepted regardless of the rules.
    """

    field: FieldDescriptor
    rules: Any | None
    tracked: bool
    element: bool = False
    if_zero: bool = False

    @property
    def required(self) -> bool:
        """Whether the value must be present."""
        return self.rules is not None and bool(self.rules.required) and not self.element

    @property
    def kind(self) -> str | None:
        """Name of the type that the rules are for; None without rules."""
        return self.rules.WhichOneof("type") if self.rules is not None else None

    def of_kind(self, kind: str) -> Any | None:
        """The rules for a type; None without rules."""
        return getattr(self.rules, kind) if self.kind == kind else None

    def inner(self, kind: str, name: str, each: FieldDescriptor) -> Side:
        """Return the side of a list's items, or of a map's keys or values."""
        outer = self.of_kind(kind)
        rules = getattr(outer, name) if outer is not None and outer.HasField(name) else None
        return side_of(each, rules, element=True)


def side_of(each: FieldDescriptor, rules: Any | None, *, element: bool = False, if_zero: bool = False) -> Side:
    """Return the side of a field from its rules; with `if_zero`, something else makes the rules ignore zero."""
    if rules is not None and rules.ignore == ALWAYS:
        rules = None
    ignored = rules is not None and (rules.ignore == _IF_ZERO or (if_zero and not rules.ignore))
    tracked = each.has_presence or element
    # If zero differs from absence, only absence is ignored.
    return Side(field=each, rules=rules, tracked=tracked, element=element, if_zero=ignored and (element or not tracked))


def absence_refused(side: Side) -> tuple[str, ...]:
    """Return the rules that require a field; none if it is optional."""
    if side.element or side.rules is None:
        return ()
    if side.required:
        return ("required",)
    kind = side.kind
    if side.tracked or side.if_zero or kind is None:
        return ()
    rules = getattr(side.rules, kind)
    if kind in NUMERIC:
        return () if 0 in numbers(kind, rules, side.field) else _differing(kind, None, rules)
    match kind:
        case "string" | "bytes":
            return _zero_refused(text_rules(kind, rules))
        case "repeated":
            return ("repeated.min_items",) if rules.min_items else ()
        case "map":
            return ("map.min_pairs",) if rules.min_pairs else ()
        case _:
            return ()


def _zero_refused(text: Text) -> tuple[str, ...]:
    if text.accepts(text.zero):
        return ()
    if text.values is not None or text.zero in text.not_values:
        return text.blame("values")
    return text.blame("length", "format") or tuple(text.formats.values())


def narrowed(before: Side, after: Side) -> list[Change]:
    """Return the ways in which a value accepted before is rejected now."""
    if after.rules is None:
        return []
    changes: list[Change] = []
    refused = absence_refused(after)
    if refused and not absence_refused(before):
        changes.append(Change("required", refused))
    if after.kind is not None:
        changes += _narrowed_kind(before, after, after.kind)
    # Expressions about a message are compared with the message's own, which may be the same.
    if held_message(before.field) is None or (before.field.is_repeated and not before.element):
        changes += _narrowed_expressions(before, after)
    return changes


def held_message(each: FieldDescriptor) -> Descriptor | None:
    """Return the message type of a field, list or map value whose rules are its own."""
    message = each.message_type
    if message is not None and is_map(each):
        message = message.fields_by_name["value"].message_type
    return None if message is None or message.full_name.startswith("google.protobuf.") else message


def held_rules(each: FieldDescriptor, rules: Any | None) -> Any | None:
    """Return the rules about the message of a field, list or map value; None if they are ignored."""
    if rules is None or rules.ignore == ALWAYS:
        return None
    held: Any = rules
    if each.is_repeated:
        held = rules.map.values if is_map(each) else rules.repeated.items
    return None if held.ignore == ALWAYS else held


def _narrowed_kind(before: Side, after: Side, kind: str) -> list[Change]:
    was, now = before.of_kind(kind), getattr(after.rules, kind)
    if kind in NUMERIC:
        return _narrowed_numbers(before, after, kind)
    match kind:
        case "string" | "bytes" | "any":
            return _narrowed_text(before, after, kind)
        case "repeated":
            changes = _narrowed_sizes(before, after, kind, ("min_items", "max_items"))
            if now.unique and not (was is not None and was.unique):
                changes.append(Change("size", ("repeated.unique",)))
            items = narrowed(before.inner(kind, "items", before.field), after.inner(kind, "items", after.field))
            return changes + _within("repeated.items", items)
        case "map":
            changes = _narrowed_sizes(before, after, kind, ("min_pairs", "max_pairs"))
            for name, part in (("keys", "key"), ("values", "value")):
                fields = [_entry_field(side.field, part) for side in (before, after)]
                inner = narrowed(before.inner(kind, name, fields[0]), after.inner(kind, name, fields[1]))
                changes += _within(f"map.{name}", inner)
            return changes
        case "field_mask":
            return _narrowed_mask(was, now)
        case _:
            return []


def _entry_field(each: FieldDescriptor, part: str) -> FieldDescriptor:
    """Return the key or value field of a map; on other fields, map rules apply to the field itself, without effect."""
    entry = each.message_type
    return entry.fields_by_name[part] if entry is not None and part in entry.fields_by_name else each


def _within(name: str, changes: Sequence[Change]) -> list[Change]:
    return [Change(each.kind, tuple(f"{name}.{option}" for option in each.options)) for each in changes]


def _differing(kind: str, was: Any | None, now: Any) -> tuple[str, ...]:
    """Return the set rules of a type that differ, or all set rules if none differs."""
    given = {option.name: str(value) for option, value in now.ListFields() if option.name != "example"}
    before = {option.name: str(value) for option, value in was.ListFields()} if was is not None else {}
    names = [name for name, text in given.items() if before.get(name) != text]
    return tuple(f"{kind}.{name}" for name in (names or given))


def _narrowed_numbers(before: Side, after: Side, kind: str) -> list[Change]:
    was, now = before.of_kind(kind), getattr(after.rules, kind)
    accepted = [
        numbers(kind, rules, side.field) | (_ZERO if side.if_zero else Numbers(()))
        for side, rules in ((before, was), (after, now))
    ]
    lost = accepted[0] - accepted[1]
    if not (before.tracked and after.tracked):
        lost = lost - _ZERO  # Zero is absence, which is checked separately.
    changes: list[Change] = []
    if lost.intervals:
        names = _differing(kind, was, now)
        ranges = {f"{kind}.{name}" for name in ("gt", "gte", "lt", "lte", "finite")}
        changes.append(Change("range" if ranges & set(names) else "values", names))
    if kind == "timestamp":
        changes += _narrowed_now(was, now)
    return changes


def _narrowed_now(was: Any | None, now: Any) -> list[Change]:
    """Compare rules that compare a timestamp with the clock."""
    names = [
        name for name in ("lt_now", "gt_now") if getattr(now, name) and not (was is not None and getattr(was, name))
    ]
    if now.HasField("within"):
        window = was.within if was is not None and was.HasField("within") else None
        if window is None or (window.seconds, window.nanos) > (now.within.seconds, now.within.nanos):
            names.append("within")
    return [Change("range", tuple(f"timestamp.{name}" for name in names))] if names else []


def _narrowed_text(before: Side, after: Side, kind: str) -> list[Change]:
    was, now = (replace(text_rules(kind, side.of_kind(kind)), or_zero=side.if_zero) for side in (before, after))
    if not (before.tracked and after.tracked):
        was, now = was.nonzero(), now.nonzero()  # Empty is absence, which is checked separately.
    return was.lost_to(now)


def _narrowed_sizes(before: Side, after: Side, kind: str, options: tuple[str, str]) -> list[Change]:
    lowest, highest = options
    was, now = before.of_kind(kind), getattr(after.rules, kind)
    low = max(getattr(was, lowest) if was is not None else 0, 1)
    high = getattr(was, highest) if was is not None and was.HasField(highest) else _MANY
    names: list[str] = []
    # An empty list or map is checked separately.
    if low <= high and getattr(now, lowest) > low:
        names.append(f"{kind}.{lowest}")
    if low <= high and now.HasField(highest) and getattr(now, highest) < high:
        names.append(f"{kind}.{highest}")
    return [Change("size", tuple(names))] if names else []


def _narrowed_mask(was: Any | None, now: Any) -> list[Change]:
    allowed, banned = _listed(was, "in"), _listed(was, "not_in")
    fixed = list[str](was.const.paths) if was is not None and was.HasField("const") else None
    within, without = _listed(now, "in"), _listed(now, "not_in")
    names: list[str] = []
    if now.HasField("const") and fixed != list(now.const.paths):
        names.append("field_mask.const")
    paths = fixed if fixed is not None else allowed
    if within and not (paths and all(_covered(path, within) for path in paths)):
        names.append("field_mask.in")
    if fixed is not None:
        refused = any(_covered(path, without) for path in fixed)
    else:
        # Some allowed values are inside a rejected value, or contain it.
        met = [path for path in without if not allowed or _covered(path, allowed) or _covers_any(path, allowed)]
        refused = any(not _covered(path, banned) for path in met)
    if refused:
        names.append("field_mask.not_in")
    return [Change("values", tuple(names))] if names else []


def _listed(rules: Any | None, name: str) -> list[str]:
    return list(getattr(rules, name)) if rules is not None else []


def _covered(path: str, by: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in by)


def _covers_any(path: str, others: Sequence[str]) -> bool:
    return any(_covered(each, [path]) for each in others)


def _narrowed_expressions(before: Side, after: Side) -> list[Change]:
    """Return the new expressions; one that replaces another counts as changed."""
    was, now = expressions(before.rules), expressions(after.rules)
    added, removed = was.compare(now)
    if before.of_kind("string") is not None:
        # If only a few texts are accepted, the pattern can be tried on each.
        finite = text_rules("string", before.of_kind("string")).finite()
        if finite is not None:
            patterns = [text.removeprefix("pattern ") for text in now.texts if text.startswith("pattern ")]
            if all(matches_all(pattern, finite) for pattern in patterns):
                added = [each for each in added if each != "string.pattern"]
    if not added:
        return []
    return [Change("changed" if removed else "added", tuple(dict.fromkeys(added)))]


def value_text(rules: Any | None, option: str) -> str:
    """Format a rule's value for people; `none` if it is not set."""
    path, _, extension = option.partition(".[")
    current: Any = rules
    for part in path.split("."):
        if current is None:
            break
        descriptor = current.DESCRIPTOR.fields_by_name.get(part)
        if descriptor is None:
            break
        if descriptor.is_repeated:
            return f"[{', '.join(map(_shown, getattr(current, part)))}]" if getattr(current, part) else "none"
        if not current.HasField(part):
            return "none"
        current = getattr(current, part)
    if extension and current is not None:
        given = {field.full_name: value for field, value in current.ListFields() if field.is_extension}
        current = given.get(extension.removesuffix("]"))
    return _shown(current) if current is not None else "none"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if hasattr(value, "expression"):
        return str(value.expression)
    if hasattr(value, "seconds"):
        return f"{value.seconds + value.nanos / 1e9:g}s"
    return str(value).strip().replace("\n", " ")
