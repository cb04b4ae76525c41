"""Moments and spans to the nanosecond, as values of their own; test_times.py has them in messages."""

from __future__ import annotations

import copy
import datetime as datetime_module
import itertools
import json
import pickle
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from contextunity.core.exact_datetime import ExactDatetime, ExactTimedelta

_PLAIN = datetime(2024, 5, 17, 9, 30, 12, 123_456, UTC)
_MOMENT = ExactDatetime(2024, 5, 17, 9, 30, 12, 123_456, UTC, nanosecond=789)
_SPAN = ExactTimedelta(1, 2, 3, nanoseconds=4)


def test_a_moment_has_all_that_a_datetime_has() -> None:
    assert isinstance(_MOMENT, datetime)
    assert (_MOMENT.year, _MOMENT.microsecond, _MOMENT.nanosecond, _MOMENT.tzinfo) == (2024, 123_456, 789, UTC)
    assert (type(_MOMENT.plain()), _MOMENT.plain()) == (datetime, _PLAIN)
    assert ExactDatetime.of(_PLAIN, 789) == _MOMENT
    assert _MOMENT.timestamp() == _PLAIN.timestamp()


@pytest.mark.parametrize("nanosecond", [-1, 1000])
def test_a_nanosecond_is_below_a_microsecond(nanosecond: int) -> None:
    with pytest.raises(ValueError, match=f"nanosecond must be in 0..999, not {nanosecond}"):
        ExactDatetime(2024, 1, 1, nanosecond=nanosecond)


def test_moments_compare_by_all_of_their_nanoseconds() -> None:
    later, next_micro = _MOMENT.replace(nanosecond=790), _PLAIN + timedelta(microseconds=1)
    assert [_PLAIN, _MOMENT, later, next_micro] == sorted([next_micro, later, _MOMENT, _PLAIN])
    assert _MOMENT.replace() == _MOMENT
    assert not _MOMENT.replace() != _MOMENT  # noqa: SIM202 - betterproto2 asks this way
    for earlier, after in ((_PLAIN, _MOMENT), (_MOMENT, later), (later, next_micro)):
        assert earlier < after
        assert earlier <= after
        assert after > earlier
        assert after >= earlier
        assert earlier != after
        assert not earlier == after  # noqa: SIM201 - another method than the one above
        assert not after <= earlier
        assert not earlier >= after
    assert max(_PLAIN, _MOMENT) is _MOMENT


@pytest.mark.parametrize(
    ("value", "same"),
    [
        pytest.param(_MOMENT, ExactDatetime.of(_PLAIN, 789), id="moments"),
        pytest.param(ExactDatetime.of(_PLAIN, 0), _PLAIN, id="moment and datetime"),
        pytest.param(ExactTimedelta(1, nanoseconds=5), ExactTimedelta(1, nanoseconds=5), id="spans"),
        pytest.param(ExactTimedelta(1), timedelta(1), id="span and timedelta"),
    ],
)
def test_of_equal_values_neither_is_before_the_other(value: Any, same: Any) -> None:
    for one, other in ((value, same), (same, value)):
        assert one == other
        assert not one != other  # noqa: SIM202 - another method than the one above
        assert one <= other
        assert one >= other
        assert not one < other
        assert not one > other


def test_a_moment_without_nanoseconds_equals_the_plain_one() -> None:
    whole = ExactDatetime.of(_PLAIN, 0)
    assert whole == _PLAIN
    assert whole == _PLAIN
    assert hash(whole) == hash(_PLAIN)
    assert len({_PLAIN, whole, _MOMENT, ExactDatetime.of(_PLAIN, 789)}) == 2


def test_a_moment_equals_nothing_that_a_datetime_does_not() -> None:
    others: list[Any] = [_PLAIN.date(), "2024", None, 5, _MOMENT.replace(tzinfo=None)]
    for other in others:
        assert other != _MOMENT
        assert other != _MOMENT
    with pytest.raises(TypeError, match="offset-naive and offset-aware"):
        _ = _MOMENT.replace(tzinfo=None) > _MOMENT
    with pytest.raises(TypeError, match="not supported"):
        _ = _MOMENT < 5  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]


def test_moments_in_different_zones_are_compared_as_moments() -> None:
    elsewhere = _MOMENT.astimezone(ZoneInfo("Europe/Berlin"))
    assert (elsewhere.hour, elsewhere.nanosecond) == (11, 789)
    assert elsewhere == _MOMENT
    assert hash(elsewhere) == hash(_MOMENT)


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol)) for protocol in range(6)),
    ],
)
@pytest.mark.parametrize("value", [_MOMENT, _MOMENT.replace(tzinfo=None), _SPAN, ExactTimedelta(-5)])
def test_copies_are_the_same(copied: Any, value: Any) -> None:
    made = copied(value)
    assert (type(made), made, repr(made)) == (type(value), value, repr(value))
    assert getattr(made, "tzinfo", None) is getattr(value, "tzinfo", None)


def test_copies_keep_the_fold() -> None:
    folded = _MOMENT.replace(tzinfo=None, fold=1)
    for made in (copy.copy(folded), copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        assert (made, made.fold) == (folded, 1)


def test_replace_keeps_the_nanosecond_unless_the_microsecond_is_given() -> None:
    assert _MOMENT.replace(hour=1).isoformat() == "2024-05-17T01:30:12.123456789+00:00"
    assert _MOMENT.replace(nanosecond=0) == _PLAIN
    assert _MOMENT.replace(microsecond=0) == _PLAIN.replace(microsecond=0)
    assert _MOMENT.replace(microsecond=0, nanosecond=5).isoformat() == "2024-05-17T09:30:12.000000005+00:00"
    assert _MOMENT.replace(tzinfo=None, fold=1).fold == 1
    assert _MOMENT.replace(2025, 6) == ExactDatetime(2025, 6, 17, 9, 30, 12, 123_456, UTC, nanosecond=789)
    with pytest.raises(ValueError, match="hour must be in"):
        _MOMENT.replace(hour=24)


def test_arithmetic_gives_plain_values() -> None:
    day = timedelta(1)
    for moment in (_MOMENT + day, day + _MOMENT, _MOMENT + ExactTimedelta(1, nanoseconds=500)):
        assert (type(moment), moment) == (datetime, _PLAIN + day)
    assert (type(_MOMENT - day), _MOMENT - day) == (datetime, _PLAIN - day)
    for span in (_MOMENT - _MOMENT, _MOMENT - _PLAIN, _PLAIN - _MOMENT):
        assert (type(span), span) == (timedelta, timedelta())
    for span in (_SPAN + _SPAN, 2 * _SPAN, _SPAN * 2):
        assert (type(span), span) == (timedelta, 2 * _SPAN.plain())
    assert (type(-_SPAN), -_SPAN, abs(_SPAN)) == (timedelta, -_SPAN.plain(), _SPAN.plain())
    with pytest.raises(TypeError):
        _ = _MOMENT + 5  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    with pytest.raises(TypeError):
        _ = 5 - _MOMENT  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize(
    ("moment", "timespec", "text"),
    [
        pytest.param(_MOMENT, "auto", "2024-05-17T09:30:12.123456789+00:00", id="exact"),
        pytest.param(_MOMENT, "milliseconds", "2024-05-17T09:30:12.123+00:00", id="milliseconds"),
        pytest.param(ExactDatetime.of(_PLAIN, 0), "auto", "2024-05-17T09:30:12.123456+00:00", id="nothing below"),
        pytest.param(ExactDatetime(1, 1, 1), "nanoseconds", "0001-01-01T00:00:00.000000000", id="nanoseconds"),
        pytest.param(ExactDatetime(1, 1, 1, nanosecond=1), "auto", "0001-01-01T00:00:00.000000001", id="naive"),
    ],
)
def test_iso_format(moment: ExactDatetime, timespec: str, text: str) -> None:
    assert moment.isoformat(timespec=timespec) == text


def test_texts() -> None:
    assert str(_MOMENT) == f"{_MOMENT}" == "2024-05-17 09:30:12.123456789+00:00"
    scope = {"datetime": datetime_module, "ExactDatetime": ExactDatetime, "ExactTimedelta": ExactTimedelta}
    for value in (_MOMENT, ExactDatetime.of(_PLAIN, 0), _SPAN, ExactTimedelta(nanoseconds=1), ExactTimedelta(5)):
        assert eval(repr(value), scope) == value
    assert str(_SPAN) == "1 day, 0:00:02.000003004"
    assert str(ExactTimedelta(1, nanoseconds=7)) == "1 day, 0:00:00.000000007"
    assert str(ExactTimedelta(nanoseconds=-1)) == "-1 day, 23:59:59.999999999"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("2024-05-17T09:30:12.123456789Z", _MOMENT, id="nine digits"),
        pytest.param("2024-05-17 11:30:12,123456789+02:00", _MOMENT, id="comma and zone"),
        pytest.param("2024-05-17T09:30:12.1234567Z", _MOMENT.replace(nanosecond=700), id="seven digits"),
        pytest.param("2024-05-17T09:30:12.12345678999Z", _MOMENT, id="more than nine digits"),
        pytest.param("2024-05-17T09:30:12.123456Z", _PLAIN, id="six digits"),
        pytest.param("2024-05-17", datetime(2024, 5, 17), id="date"),
    ],
)
def test_iso_format_is_read(text: str, moment: datetime) -> None:
    assert ExactDatetime.fromisoformat(text) == moment
    assert ExactDatetime.fromisoformat(_MOMENT.isoformat()) == _MOMENT


def test_other_ways_to_make_one_give_no_nanoseconds() -> None:
    for made in (
        ExactDatetime.fromtimestamp(0, UTC),
        ExactDatetime.combine(date(1970, 1, 1), time(0, tzinfo=UTC)),
        ExactDatetime.strptime("1970+0000", "%Y%z"),
    ):
        assert (type(made), made.nanosecond, made) == (ExactDatetime, 0, datetime(1970, 1, 1, tzinfo=UTC))


def test_values_do_not_change() -> None:
    values: list[tuple[Any, str]] = [(_MOMENT, "nanosecond"), (_SPAN, "nanoseconds")]
    for value, name in values:
        with pytest.raises(AttributeError, match="not writable"):
            setattr(value, name, 1)
    assert (_MOMENT.nanosecond, _SPAN.nanoseconds) == (789, 4)


def test_spans_count_nanoseconds_upwards_as_a_timedelta_does() -> None:
    back = ExactTimedelta(nanoseconds=-1)
    assert (back.days, back.seconds, back.microseconds, back.nanoseconds) == (-1, 86_399, 999_999, 999)
    assert back.total_seconds() == -1e-9
    assert ExactTimedelta(0, 1, nanoseconds=1_000_000_001) == ExactTimedelta(0, 2, nanoseconds=1)
    assert ExactTimedelta(nanoseconds=1000) == timedelta(microseconds=1)
    assert hash(ExactTimedelta(nanoseconds=1000)) == hash(timedelta(microseconds=1))
    assert [bool(ExactTimedelta(nanoseconds=nanos)) for nanos in (0, 1)] == [False, True]


def test_spans_compare_by_all_of_their_nanoseconds() -> None:
    spans = [timedelta(microseconds=-1), ExactTimedelta(nanoseconds=-1), timedelta(0), ExactTimedelta(nanoseconds=1)]
    assert sorted([spans[2], spans[0], spans[3], spans[1]]) == spans
    for earlier, after in itertools.pairwise(spans):
        assert earlier < after
        assert earlier <= after
        assert after > earlier
        assert after >= earlier
        assert earlier != after
        assert not earlier == after  # noqa: SIM201 - another method than the one above
    assert len(set(spans)) == 4
    assert ExactTimedelta(1, nanoseconds=1) != "a day"


def test_the_repr_of_json_names_what_a_plain_datetime_would() -> None:
    assert json.dumps({"at": str(_MOMENT)}) == '{"at": "2024-05-17 09:30:12.123456789+00:00"}'
    assert _MOMENT.strftime("%f") == "123456"
    assert _MOMENT.astimezone(timezone(timedelta(hours=-3))).isoformat() == "2024-05-17T06:30:12.123456789-03:00"
