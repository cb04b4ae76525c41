"""Parse cron expressions and check time zones."""

from __future__ import annotations

import functools
import itertools
import re
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass

from temporalio.api.schedule.v1 import Range, StructuredCalendarSpec

from contextunity.core.errors import ContextUnityError

__all__ = ["CronError", "compile_cron", "cron_text", "zone_violation"]

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_NUMBER = re.compile(r"[0-9]{1,4}")


class CronError(ContextUnityError, ValueError):
    """A cron expression is invalid; `faults` names each wrong field with the reason."""

    def __init__(self, violations: Sequence[str]) -> None:
        self.faults = tuple(violations)
        super().__init__("; ".join(self.faults))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Field:
    """One of the five fields; `names` are for the numbers from `first` on, and `last` may be one more for Sunday."""

    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()

    @property
    def whole(self) -> range:
        return range(self.first, min(self.last, 6 if self.names is _WEEKDAYS else self.last) + 1)


_FIELDS = (
    _Field(name="minute", first=0, last=59),
    _Field(name="hour", first=0, last=23),
    _Field(name="day of month", first=1, last=31),
    _Field(name="month", first=1, last=12, names=_MONTHS),
    _Field(name="day of week", first=0, last=7, names=_WEEKDAYS),
)
_ORDER = ", ".join(field.name for field in _FIELDS)


class _FieldError(ValueError):
    pass


def compile_cron(expression: str) -> StructuredCalendarSpec:
    """Compile a cron expression into the calendar that Temporal matches times with.

    Args:
        expression: five fields (minute, hour, day of month, month, day of week), each `*` or a list of numbers, ranges
            and steps such as `1-5`, `*/15`, `8-18/2`; months and days of the week may be three-letter names, 0 and 7
            are Sunday. Or one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually.

    Raises:
        CronError: the expression is invalid, names a day that no month has, or restricts both the day of the month and
            the day of the week, which cron reads as "either" and Temporal as "both".
    """
    texts = _split(expression)
    values, violations = list[list[int]](), list[str]()
    for field, text in zip(_FIELDS, texts, strict=True):
        try:
            values.append(_parse(field, text))
        except _FieldError as error:
            violations.append(f"{field.name} {text!r}: {error}")
    if texts[2] != "*" and texts[4] != "*":
        violations.append(
            f"day of month {texts[2]!r} and day of week {texts[4]!r}: cron takes days that match either, Temporal days "
            "that match both; restrict one of them, or register two schedules"
        )
    if not violations and values[2][0] > max(_LONGEST[month - 1] for month in values[3]):
        violations.append(f"day of month {texts[2]!r}: month {texts[3]!r} has no such day, so it would never run")
    if violations:
        raise CronError(violations)
    minutes, hours, days, months, weekdays = map(_ranges, values)
    return StructuredCalendarSpec(
        second=[Range(start=0, end=0, step=1)],
        minute=minutes,
        hour=hours,
        day_of_month=days,
        month=months,
        day_of_week=weekdays,
        comment=expression,
    )


def cron_text(calendar: StructuredCalendarSpec) -> str:
    """Format a calendar as a cron expression, for one changed directly in Temporal; a note if that is impossible."""
    if calendar.year or [(each.start, each.end) for each in calendar.second] not in ([(0, 0)], [(0, 59)]):
        return "(a calendar that cron cannot express)"
    fields = (calendar.minute, calendar.hour, calendar.day_of_month, calendar.month, calendar.day_of_week)
    return " ".join(_text(field, list(ranges)) for field, ranges in zip(_FIELDS, fields, strict=True))


def _split(expression: str) -> list[str]:
    words = expression.split()
    first = words[0] if words else ""
    if len(words) == 1 and first.startswith("@"):
        if first.lower() not in _MACROS:
            raise CronError([f"{first!r} is not one of {', '.join(_MACROS)}; write five fields: {_ORDER}"])
        return _MACROS[first.lower()].split()
    if first.startswith("@every"):
        raise CronError([f"{expression!r} is an interval; write five fields with a step, such as '*/15 * * * *'"])
    if first.upper().startswith(("CRON_TZ=", "TZ=")):
        raise CronError([f"{first!r}: the time zone does not belong in the expression; give it as timezone"])
    if "#" in expression:
        raise CronError([f"{expression!r}: comments and the # of 'third Monday' are not supported"])
    if len(words) != len(_FIELDS):
        hint = "; seconds and years are not supported" if len(words) > len(_FIELDS) else ""
        raise CronError([f"{expression!r} has {len(words)} fields instead of five: {_ORDER}{hint}"])
    return words


def _parse(field: _Field, text: str) -> list[int]:
    """Return the values that a field matches, in order."""
    found = set[int]()
    for part in text.split(","):
        found.update(_parse_part(field, part))
    if field.names is _WEEKDAYS and 7 in found:
        found = found - {7} | {0}
    return sorted(found)


def _parse_part(field: _Field, part: str) -> range:
    span, slash, step_text = part.partition("/")
    if span == "*":
        values = field.whole
    elif "-" in span:
        start_text, _, end_text = span.partition("-")
        start, end = _value(field, start_text), _value(field, end_text, ends=True)
        if end < start:
            raise _FieldError(f"the range {span} ends before it begins; write two ranges, separated by a comma")
        values = range(start, end + 1)
    else:
        value = _value(field, span)
        if slash:
            raise _FieldError(f"a step needs a range; write {span}-{field.whole[-1]}/{step_text} or */{step_text}")
        return range(value, value + 1)
    if not slash:
        return values
    if not _NUMBER.fullmatch(step_text) or int(step_text) == 0:
        raise _FieldError(f"the step {step_text!r} is not a positive integer")
    if int(step_text) >= len(values) > 1:
        raise _FieldError(f"the step {step_text} is larger than the range; write {values[0]} if that is meant")
    return values[:: int(step_text)]


def _value(field: _Field, text: str, *, ends: bool = False) -> int:
    if _NUMBER.fullmatch(text):
        value = int(text)
        if not field.first <= value <= field.last:
            raise _FieldError(f"{text} is not from {field.first} to {field.last}")
        return value
    if text.upper() in field.names:
        value = field.names.index(text.upper()) + field.first
        # A week may begin or end with Sunday.
        return 7 if ends and field.names is _WEEKDAYS and value == 0 else value
    if text == "?":
        raise _FieldError("? is not supported; write *")
    if not text:
        raise _FieldError("a value is missing")
    named = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    raise _FieldError(f"{text!r} is not a number from {field.first} to {field.last}{named}")


def _ranges(values: list[int]) -> list[Range]:
    """Group values into few ranges, with a step if it covers all of them."""
    steps = {later - earlier for earlier, later in itertools.pairwise(values)}
    if len(values) > 2 and len(steps) == 1:
        return [Range(start=values[0], end=values[-1], step=steps.pop())]
    ranges = list[Range]()
    for value in values:
        if ranges and ranges[-1].end == value - 1:
            ranges[-1].end = value
        else:
            ranges.append(Range(start=value, end=value, step=1))
    return ranges


def _text(field: _Field, ranges: list[Range]) -> str:
    values = {value for each in ranges for value in range(each.start, max(each.start, each.end) + 1, max(1, each.step))}
    if values >= set(field.whole):
        return "*"
    parts = list[str]()
    for each in _ranges(sorted(values)):
        span = str(each.start) if each.end <= each.start else f"{each.start}-{each.end}"
        parts.append(f"{span}/{each.step}" if each.step > 1 else span)
    return ",".join(parts)


_OF_THE_MACHINE = frozenset({"Factory", "Local", "localtime", "posixrules"})
"""Names whose zone depends on the machine."""


def zone_violation(name: str) -> str:
    """Return why a text is not the name of a time zone; empty if it is one.

    If the machine has no time zone database, the Temporal server decides.
    """
    known = _known()
    if not known or name in known:
        return ""
    alike = next((each for each in sorted(known) if each.lower() == name.lower()), "")
    if alike:
        return f"{name!r} is written {alike!r}"
    return f"{name!r} is not a time zone of the IANA database, such as 'Europe/Berlin' or 'UTC'"


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _OF_THE_MACHINE
