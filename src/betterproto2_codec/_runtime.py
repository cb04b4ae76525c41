"""Functions that the compiled conversions call: times, unknown fields, and checks that upb does not do.

Errors raised here have no path. The compiled code does not track where it is; its caller searches for the place
afterwards, with `_violations`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import betterproto2
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message as ProtoMessage

from .exact_datetime import ExactDatetime, ExactTimedelta

# A field of a message may have the name of one of Google's methods, and then hides it on the instance. So call the
# methods through a class without fields; they are the same functions for all classes.
_ANY: type[ProtoMessage] = Empty
HAS_FIELD = _ANY.HasField
LIST_FIELDS: Callable[..., Any] = _ANY.ListFields
MERGE_FROM_STRING: Callable[..., Any] = _ANY.MergeFromString
SERIALIZE: Callable[..., bytes] = _ANY.SerializeToString
SET_IN_PARENT = _ANY.SetInParent
WHICH_ONEOF = _ANY.WhichOneof

MAX_DEPTH = 100
"""Maximum levels of messages below the outermost one. Protobuf parsers reject more, so encoding more is useless."""

MAX_DURATION_SECONDS = 315_576_000_000
"""Whole seconds; a fraction may be added. Source: google/protobuf/duration.proto, `Duration.seconds`."""

# Little-endian, because only formats with a fixed layout reject values that are too large.
_FLOAT = struct.Struct("<f")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIN_TIMESTAMP_SECONDS = -62_135_596_800
MAX_TIMESTAMP_SECONDS = 253_402_300_799
_FROM_TIMESTAMP = datetime.fromtimestamp


class InvalidValueError(Exception):
    """A value is invalid; the text is the reason."""


class EnumTable(dict[int, Any]):
    """Members of an enum by number. Unknown numbers become unnamed members, which are not cached."""

    def __init__(self, cls: type[betterproto2.Enum]) -> None:
        super().__init__({member.value: member for member in cls})
        self._cls = cls

    def __missing__(self, number: int) -> Any:
        return self._cls(number)


def datetime_from_proto(pb: Any) -> datetime:
    """Convert a Timestamp to a datetime; with nanoseconds, to an ExactDatetime."""
    seconds, nanos = pb.seconds, pb.nanos
    if not nanos and 0 <= seconds <= MAX_TIMESTAMP_SECONDS:
        return _FROM_TIMESTAMP(seconds, UTC)
    if not 0 <= nanos <= 999_999_999:
        raise InvalidValueError(f"a timestamp's nanos must be 0 to 999999999, not {nanos}")
    try:
        moment = EPOCH + timedelta(0, seconds, nanos // 1000)
    except OverflowError:
        raise InvalidValueError(f"a timestamp must be in the years 1 to 9999; {seconds} seconds are not") from None
    return ExactDatetime.of(moment, nanos % 1000) if nanos % 1000 else moment


def timedelta_from_proto(pb: Any) -> timedelta:
    """Convert a Duration to a timedelta; with nanoseconds, to an ExactTimedelta."""
    seconds, nanos = pb.seconds, pb.nanos
    if not -MAX_DURATION_SECONDS <= seconds <= MAX_DURATION_SECONDS:
        raise InvalidValueError(f"a duration must be within {MAX_DURATION_SECONDS} seconds of zero, not {seconds}")
    if not -999_999_999 <= nanos <= 999_999_999 or (seconds < 0 < nanos) or (nanos < 0 < seconds):
        raise InvalidValueError(
            f"a duration's nanos must be within a second and have the sign of its seconds, not {seconds} s {nanos} ns"
        )
    if nanos % 1000:
        return ExactTimedelta(0, seconds, nanoseconds=nanos)
    return timedelta(0, seconds, nanos // 1000)


def datetime_to_proto(value: Any, pb: Any) -> None:
    """Fill a Timestamp from a datetime."""
    if not isinstance(value, datetime):
        raise InvalidValueError(f"expected a datetime, got {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidValueError("the datetime has no time zone; give it one, such as datetime.UTC")
    try:
        since = value - EPOCH
    except TypeError:
        raise InvalidValueError("the datetime's time zone returns no offset from UTC") from None
    seconds = since.days * 86_400 + since.seconds
    if not MIN_TIMESTAMP_SECONDS <= seconds <= MAX_TIMESTAMP_SECONDS:
        raise InvalidValueError(f"{value.isoformat()} is outside the years 1 to 9999 in UTC")
    pb.seconds = seconds
    pb.nanos = since.microseconds * 1000 + (value.nanosecond if isinstance(value, ExactDatetime) else 0)


def timedelta_to_proto(value: Any, pb: Any) -> None:
    """Fill a Duration from a timedelta; both parts get the sign of the whole."""
    if not isinstance(value, timedelta):
        raise InvalidValueError(f"expected a timedelta, got {type(value).__name__}")
    seconds, nanos = value.days * 86_400 + value.seconds, value.microseconds * 1000
    if isinstance(value, ExactTimedelta):
        nanos += value.nanoseconds
    if seconds < 0 and nanos:
        seconds, nanos = seconds + 1, nanos - 1_000_000_000
    if abs(seconds) > MAX_DURATION_SECONDS:
        raise InvalidValueError(f"a duration must be within {MAX_DURATION_SECONDS} seconds of zero, not {value}")
    pb.seconds = seconds
    pb.nanos = nanos


def unknown_fields(pb: ProtoMessage) -> bytes:
    """Return the bytes of this message's own unknown fields, without those of messages inside it.

    This is slow; check with UnknownFieldSet first whether there are any.
    """
    rest = type(pb)()
    _ANY.CopyFrom(rest, pb)
    for field in type(pb).DESCRIPTOR.fields:
        _ANY.ClearField(rest, field.name)
    return SERIALIZE(rest, deterministic=True)


def check_str(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise InvalidValueError(f"expected a str, got {type(value).__name__}")


def check_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    raise InvalidValueError(f"expected bytes, got {type(value).__name__}")


def check_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise InvalidValueError(f"expected a bool, got {type(value).__name__}")


def check_int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidValueError(f"expected an int, got {type(value).__name__}")


def check_double(value: Any) -> float:
    if isinstance(value, float | int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise InvalidValueError(f"{short(value)} is out of range for a double") from None
    raise InvalidValueError(f"expected a float, got {type(value).__name__}")


def check_float(value: Any) -> float:
    """Check a 32-bit float; upb would turn a value that is too large into infinity."""
    number = check_double(value)
    try:
        _FLOAT.pack(number)
    except OverflowError:
        raise InvalidValueError(f"{number} is out of range for a 32-bit float") from None
    return number


def check_list(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(cast("list[Any]", value))
    raise InvalidValueError(f"expected a list, got {type(value).__name__}")


def check_dict(value: Any) -> dict[Any, Any]:
    if isinstance(value, dict):
        return value  # pyright: ignore[reportUnknownVariableType]  # the elements are checked one by one
    raise InvalidValueError(f"expected a dict, got {type(value).__name__}")


def short(value: Any) -> str:
    text = hex(value) if isinstance(value, int) and value.bit_length() > 200 else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
