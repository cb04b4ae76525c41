"""Timestamps and durations: signs, rounding, range."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from contextunity.core import codec

_LIMIT = timedelta(seconds=315_576_000_000)


@pytest.mark.parametrize(
    ("value", "seconds", "nanos"),
    [
        pytest.param(timedelta(seconds=-1.5), -1, -500_000_000, id="negative with a fraction"),
        pytest.param(timedelta(microseconds=-1), 0, -1000, id="smallest negative"),
        pytest.param(timedelta(seconds=-2), -2, 0, id="negative whole"),
        pytest.param(timedelta(seconds=1.5), 1, 500_000_000, id="positive"),
        pytest.param(timedelta(0), 0, 0, id="zero"),
        pytest.param(timedelta(days=-1, microseconds=1), -86_399, -999_999_000, id="nearly a day back"),
        pytest.param(_LIMIT, 315_576_000_000, 0, id="longest"),
        pytest.param(-_LIMIT, -315_576_000_000, 0, id="longest back"),
    ],
)
def test_durations_keep_sign_and_fraction(shapes: Any, value: timedelta, seconds: int, nanos: int) -> None:
    pb: Any = codec.to_proto(shapes.WellKnown(duration=value))
    assert (pb.duration.seconds, pb.duration.nanos) == (seconds, nanos)
    assert codec.decode(shapes.WellKnown, pb.SerializeToString()).duration == value


@pytest.mark.parametrize(
    "value", [_LIMIT + timedelta(microseconds=1), -_LIMIT - timedelta(microseconds=1), timedelta.max, timedelta.min]
)
def test_durations_out_of_range_are_refused(shapes: Any, value: timedelta) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.encode(shapes.WellKnownLists(durations=[timedelta(0), value]))
    assert caught.value.path == "durations[1]"


@pytest.mark.parametrize(
    ("seconds", "nanos", "microseconds"),
    [
        pytest.param(0, 1, 0, id="one nanosecond"),
        pytest.param(0, 1999, 1, id="nearly two microseconds"),
        pytest.param(0, -1, -1, id="one nanosecond back"),
        pytest.param(-1, -1500, -1_000_002, id="a second and a bit back"),
    ],
)
def test_durations_are_cut_towards_minus_infinity(shapes: Any, seconds: int, nanos: int, microseconds: int) -> None:
    pb: Any = codec.proto_class(shapes.WellKnown)(duration=Duration(seconds=seconds, nanos=nanos))
    assert codec.from_proto(shapes.WellKnown, pb).duration == timedelta(microseconds=microseconds)


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected"),
    [
        pytest.param(0, 999, datetime(1970, 1, 1, tzinfo=UTC), id="after the epoch"),
        pytest.param(-1, 999_999_999, datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), id="before the epoch"),
        pytest.param(253_402_300_799, 999_999_999, datetime.max.replace(tzinfo=UTC), id="end of the year 9999"),
        pytest.param(-62_135_596_800, 0, datetime.min.replace(tzinfo=UTC), id="start of the year 1"),
    ],
)
def test_timestamps_are_cut_towards_the_past(shapes: Any, seconds: int, nanos: int, expected: datetime) -> None:
    pb: Any = codec.proto_class(shapes.WellKnown)(timestamp=Timestamp(seconds=seconds, nanos=nanos))
    moment = codec.from_proto(shapes.WellKnown, pb).timestamp
    assert moment == expected
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("timestamps", Timestamp(seconds=253_402_300_800), id="year 10000"),
        pytest.param("timestamps", Timestamp(seconds=-62_135_596_801), id="year 0"),
        pytest.param("timestamps", Timestamp(seconds=2**63 - 1), id="far future"),
        pytest.param("timestamps", Timestamp(nanos=-1), id="negative nanos"),
        pytest.param("timestamps", Timestamp(nanos=10**9), id="too many nanos"),
        pytest.param("durations", Duration(seconds=315_576_000_001), id="too long"),
        pytest.param("durations", Duration(seconds=2**63 - 1), id="far too long"),
        pytest.param("durations", Duration(seconds=1, nanos=-1), id="mixed signs"),
        pytest.param("durations", Duration(nanos=10**9), id="nanos beyond a second"),
    ],
)
def test_invalid_times_on_the_wire_are_refused_by_their_path(shapes: Any, field: str, value: Any) -> None:
    pb: Any = codec.proto_class(shapes.WellKnownLists)()
    getattr(pb, field).extend([type(value)(), value])
    with pytest.raises(codec.CodecError) as caught:
        codec.decode(shapes.WellKnownLists, pb.SerializeToString())
    assert caught.value.path == f"{field}[1]"
    assert caught.value.message_type == "shapes.v1.WellKnownLists"


def test_an_invalid_time_in_a_map_is_refused_by_its_key(shapes: Any) -> None:
    pb: Any = codec.proto_class(shapes.Maps)()
    pb.recursive[3].times["late"].seconds = 2**62
    with pytest.raises(codec.CodecError) as caught:
        codec.from_proto(shapes.Maps, pb)
    assert caught.value.path == 'recursive[3].times["late"]'


def test_a_moment_in_another_zone_is_the_same_moment_in_utc(shapes: Any) -> None:
    moment = datetime(2030, 6, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    decoded = codec.decode(shapes.WellKnown, codec.encode(shapes.WellKnown(timestamp=moment)))
    assert decoded.timestamp == moment
    assert decoded.timestamp.tzinfo is UTC


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), id="before the year 1"),
        pytest.param(datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), id="after the year 9999"),
    ],
)
def test_a_moment_beyond_the_ends_of_time_in_utc_is_refused(shapes: Any, moment: datetime) -> None:
    with pytest.raises(codec.CodecError, match="outside the years 1 to 9999 in UTC"):
        codec.encode(shapes.WellKnown(timestamp=moment))
