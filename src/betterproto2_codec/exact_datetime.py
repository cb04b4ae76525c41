"""Datetimes and timedeltas with nanoseconds, for Timestamps and Durations finer than Python's own types.

Only values with nanoseconds are of these classes; all others are plain `datetime` and `timedelta`. Temporal's workflow
sandbox must pass this module through: inside it, `datetime` is a proxy that cannot be subclassed.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final, Never, Self, SupportsIndex, overload

__all__ = ["ExactDatetime", "ExactTimedelta", "nanosecond_in", "read_isoformat"]

_FINER: Final = re.compile(r"([.,][0-9]{6})([0-9]{1,3})[0-9]*")
"""The fraction of a second in ISO 8601, from the seventh digit on."""


class ExactDatetime(datetime):
    """A datetime with nanoseconds, such as a Timestamp that Go wrote.

    Comparison includes nanoseconds, so it equals a plain datetime only if `nanosecond` is 0. Pickling, copies,
    `replace` and `astimezone` keep `nanosecond`. Addition and subtraction ignore it and return plain values.

    Args:
        year: this and the following as for `datetime`.
        nanosecond: nanoseconds beyond the microsecond, 0 to 999.

    Raises:
        ValueError: a part is out of range.
    """

    # A default on the class: datetime creates instances itself in many places, without setting this attribute.
    nanosecond: int = 0
    """Nanoseconds beyond `microsecond`, 0 to 999."""

    def __new__(
        cls,
        year: SupportsIndex,
        month: SupportsIndex,
        day: SupportsIndex,
        hour: SupportsIndex = 0,
        minute: SupportsIndex = 0,
        second: SupportsIndex = 0,
        microsecond: SupportsIndex = 0,
        tzinfo: tzinfo | None = None,
        *,
        fold: int = 0,
        nanosecond: int = 0,
    ) -> Self:
        """Create an instance from its parts."""
        if not 0 <= nanosecond <= 999:
            raise ValueError(f"nanosecond must be in 0..999, not {nanosecond}")
        made = super().__new__(cls, year, month, day, hour, minute, second, microsecond, tzinfo, fold=fold)
        if nanosecond:
            made.__dict__["nanosecond"] = nanosecond
        return made

    @classmethod
    def of(cls, moment: datetime, nanosecond: int) -> Self:
        """Return a copy of a datetime with `nanosecond`, 0 to 999."""
        day, at = moment.date(), moment.timetz()
        return cls(
            *(day.year, day.month, day.day, at.hour, at.minute, at.second, at.microsecond, at.tzinfo),
            fold=at.fold,
            nanosecond=nanosecond,
        )

    @classmethod
    def fromisoformat(cls, date_string: str, /) -> Self:
        """Parse the format of `isoformat`; digits after the ninth of a second are cut off.

        Raises:
            ValueError: the text is not ISO 8601.
        """
        moment = super().fromisoformat(_FINER.sub(r"\1", date_string, count=1))
        nanosecond = nanosecond_in(date_string)
        return cls.of(moment, nanosecond) if nanosecond else moment

    def plain(self) -> datetime:
        """Return a plain datetime without `nanosecond`."""
        return datetime.combine(self.date(), self.timetz())

    def replace(
        self,
        year: SupportsIndex | None = None,
        month: SupportsIndex | None = None,
        day: SupportsIndex | None = None,
        hour: SupportsIndex | None = None,
        minute: SupportsIndex | None = None,
        second: SupportsIndex | None = None,
        microsecond: SupportsIndex | None = None,
        tzinfo: tzinfo | bool | None = True,
        *,
        fold: int | None = None,
        nanosecond: int | None = None,
    ) -> Self:
        """Return a copy with other parts.

        A new microsecond resets `nanosecond` unless it is given too: code that sets `microsecond=0` means a whole
        second.
        """
        if nanosecond is None:
            nanosecond = self.nanosecond if microsecond is None else 0
        parts = {"year": year, "month": month, "day": day, "hour": hour, "minute": minute, "second": second}
        given: dict[str, Any] = {**parts, "microsecond": microsecond, "fold": fold}
        given = {name: value for name, value in given.items() if value is not None}
        if tzinfo is not True:  # as datetime distinguishes None from an omitted argument
            given["tzinfo"] = tzinfo
        return type(self).of(self.plain().replace(**given), nanosecond)

    __replace__ = replace

    def astimezone(self, tz: tzinfo | None = None) -> Self:
        """Convert to another time zone; the local one by default."""
        return type(self).of(self.plain().astimezone(tz), self.nanosecond)

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        """Format like `datetime.isoformat`, with nine digits of a second if `timespec` is `auto` or `nanoseconds`."""
        if timespec != "nanoseconds" and not (timespec == "auto" and self.nanosecond):
            return super().isoformat(sep, timespec)
        text = super().isoformat(sep, "microseconds")
        # The date has 10 characters, the separator 1, the time 15.
        return f"{text[:26]}{self.nanosecond:03}{text[26:]}"

    def __repr__(self) -> str:
        text = super().__repr__()
        return f"{text[:-1]}, nanosecond={self.nanosecond})" if self.nanosecond else text

    def __eq__(self, other: object) -> bool:
        same = super().__eq__(other)
        return self.nanosecond == _nanosecond(other) if same is True else same

    def __ne__(self, other: object) -> bool:
        same = self.__eq__(other)
        return same if same is NotImplemented else not same

    def __lt__(self, other: datetime) -> bool:  # type: ignore[override]  # as datetime has it
        return self.nanosecond < _nanosecond(other) if super().__eq__(other) is True else super().__lt__(other)

    def __le__(self, other: datetime) -> bool:  # type: ignore[override]  # as datetime has it
        return self.nanosecond <= _nanosecond(other) if super().__eq__(other) is True else super().__le__(other)

    def __gt__(self, other: datetime) -> bool:  # type: ignore[override]  # as datetime has it
        return self.nanosecond > _nanosecond(other) if super().__eq__(other) is True else super().__gt__(other)

    def __ge__(self, other: datetime) -> bool:  # type: ignore[override]  # as datetime has it
        return self.nanosecond >= _nanosecond(other) if super().__eq__(other) is True else super().__ge__(other)

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.nanosecond)) if self.nanosecond else super().__hash__()

    def __add__(self, other: timedelta) -> datetime:  # type: ignore[override]  # a plain one, not one of this class
        return self.plain() + other

    def __radd__(self, other: timedelta) -> datetime:  # type: ignore[override]
        return self.plain() + other

    @overload  # type: ignore[override]
    def __sub__(self, other: datetime) -> timedelta: ...
    @overload
    def __sub__(self, other: timedelta) -> datetime: ...
    def __sub__(self, other: datetime | timedelta) -> datetime | timedelta:
        return self.plain() - (other.plain() if isinstance(other, ExactDatetime) else other)

    def __rsub__(self, other: datetime) -> timedelta:
        return other - self.plain()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return type(self).of, (self.plain(), self.nanosecond)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__reduce_ex__(2)

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError(f"attribute {name!r} of {type(self).__name__} objects is not writable; use replace")


class ExactTimedelta(timedelta):
    """A timedelta with nanoseconds, such as a Duration that Go wrote.

    Comparison includes nanoseconds, so it equals a plain timedelta only if `nanoseconds` is 0. Pickling and copies keep
    `nanoseconds`. Arithmetic ignores them and returns plain values.

    Args:
        days: this and the following as for `timedelta`.
        nanoseconds: any integer.
    """

    nanoseconds: int = 0
    """Nanoseconds beyond `microseconds`, 0 to 999, also if the whole is negative."""

    def __new__(
        cls,
        days: float = 0,
        seconds: float = 0,
        microseconds: float = 0,
        milliseconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        weeks: float = 0,
        *,
        nanoseconds: int = 0,
    ) -> Self:
        """Create an instance from its parts."""
        micros, rest = divmod(nanoseconds, 1000)
        plain = timedelta(days, seconds, microseconds, milliseconds, minutes, hours, weeks) + timedelta(0, 0, micros)
        made = super().__new__(cls, plain.days, plain.seconds, plain.microseconds)
        if rest:
            made.__dict__["nanoseconds"] = rest
        return made

    @classmethod
    def of(cls, span: timedelta, nanoseconds: int) -> Self:
        """Return a timedelta plus `nanoseconds`; nanoseconds of `span` itself are ignored."""
        return cls(span.days, span.seconds, span.microseconds, nanoseconds=nanoseconds)

    def plain(self) -> timedelta:
        """Return a plain timedelta without `nanoseconds`."""
        return timedelta(self.days, self.seconds, self.microseconds)

    def total_seconds(self) -> float:
        """Return the seconds, as exactly as a float can."""
        seconds = self.days * 86_400 + self.seconds
        return ((seconds * 10**6 + self.microseconds) * 1000 + self.nanoseconds) / 10**9

    def __repr__(self) -> str:
        text = super().__repr__()
        return f"{text[:-1]}, nanoseconds={self.nanoseconds})" if self.nanoseconds else text

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}{'' if self.microseconds else '.000000'}{self.nanoseconds:03}" if self.nanoseconds else text

    def __bool__(self) -> bool:
        return bool(self.nanoseconds) or super().__bool__()

    def __eq__(self, other: object) -> bool:
        same = super().__eq__(other)
        return self.nanoseconds == _nanoseconds(other) if same is True else same

    def __ne__(self, other: object) -> bool:
        same = self.__eq__(other)
        return same if same is NotImplemented else not same

    def __lt__(self, other: timedelta) -> bool:
        return self.nanoseconds < _nanoseconds(other) if super().__eq__(other) is True else super().__lt__(other)

    def __le__(self, other: timedelta) -> bool:
        return self.nanoseconds <= _nanoseconds(other) if super().__eq__(other) is True else super().__le__(other)

    def __gt__(self, other: timedelta) -> bool:
        return self.nanoseconds > _nanoseconds(other) if super().__eq__(other) is True else super().__gt__(other)

    def __ge__(self, other: timedelta) -> bool:
        return self.nanoseconds >= _nanoseconds(other) if super().__eq__(other) is True else super().__ge__(other)

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.nanoseconds)) if self.nanoseconds else super().__hash__()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return type(self).of, (self.plain(), self.nanoseconds)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__reduce_ex__(2)

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError(f"attribute {name!r} of {type(self).__name__} objects is not writable")


def nanosecond_in(text: str) -> int:
    """Return the nanoseconds beyond the microsecond of a time in ISO 8601, 0 to 999."""
    finer = _FINER.search(text)
    return int(finer[2].ljust(3, "0")) if finer else 0


def read_isoformat(text: str) -> datetime:
    """Parse a time in ISO 8601: an ExactDatetime if it has nanoseconds, otherwise a plain datetime.

    Raises:
        ValueError: the text is not ISO 8601.
    """
    return ExactDatetime.fromisoformat(text) if nanosecond_in(text) else datetime.fromisoformat(text)


def _nanosecond(moment: object) -> int:
    return moment.nanosecond if isinstance(moment, ExactDatetime) else 0


def _nanoseconds(span: object) -> int:
    return span.nanoseconds if isinstance(span, ExactTimedelta) else 0
