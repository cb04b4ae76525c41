"""Timestamps and durations: signs, rounding, range."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from betterproto2_codec._binary import _read  # pyright: ignore[reportPrivateUsage]
from betterproto2_codec._compile import conversions_of
from contextunity.core import codec
from contextunity.core.exact_datetime import ExactDatetime, ExactTimedelta

_LIMIT = timedelta(seconds=315_576_000_000)

Road = Callable[[type, Any], Any]


@pytest.fixture(params=["bytes", "google"])
def road(request: pytest.FixtureRequest) -> Road:
    """From Google's message to the dataclass: by its bytes, for which there is the extension, and field by field."""
    if request.param == "bytes":
        return lambda cls, pb: codec.decode(cls, pb.SerializeToString())
    return lambda cls, pb: _read(cls, pb, conversions_of(cls))


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
    "value", [_LIMIT + timedelta(seconds=1), -_LIMIT - timedelta(seconds=1), timedelta.max, timedelta.min]
)
def test_durations_out_of_range_are_refused(shapes: Any, value: timedelta) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.encode(shapes.WellKnownLists(durations=[timedelta(0), value]))
    assert caught.value.path == "durations[1]"


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected", "text"),
    [
        pytest.param(0, 1, ExactTimedelta(nanoseconds=1), "0.000000001s", id="one nanosecond"),
        pytest.param(0, 1999, ExactTimedelta(nanoseconds=1999), "0.000001999s", id="nearly two microseconds"),
        pytest.param(0, -1, ExactTimedelta(nanoseconds=-1), "-0.000000001s", id="one nanosecond back"),
        pytest.param(
            -1, -1500, ExactTimedelta(0, -1, nanoseconds=-1500), "-1.000001500s", id="a second and a bit back"
        ),
        pytest.param(
            315_576_000_000,
            999_999_999,
            ExactTimedelta(0, 315_576_000_000, nanoseconds=999_999_999),
            "315576000000.999999999s",
            id="longest",
        ),
        pytest.param(
            -315_576_000_000,
            -999_999_999,
            ExactTimedelta(0, -315_576_000_000, nanoseconds=-999_999_999),
            "-315576000000.999999999s",
            id="longest back",
        ),
    ],
)
def test_durations_keep_their_nanoseconds(
    shapes: Any, road: Road, seconds: int, nanos: int, expected: timedelta, text: str
) -> None:
    pb: Any = codec.proto_class(shapes.WellKnown)(duration=Duration(seconds=seconds, nanos=nanos))
    message = road(shapes.WellKnown, pb)
    assert (type(message.duration), message.duration) == (ExactTimedelta, expected)
    assert codec.to_proto(message) == pb
    assert codec.proto_class(shapes.WellKnown).FromString(codec.encode(message)) == pb
    assert codec.to_dict(message) == {"duration": text}
    for read in (codec.from_dict(shapes.WellKnown, {"duration": text}), copy.deepcopy(message)):
        assert (type(read.duration), read) == (ExactTimedelta, message)


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected", "text"),
    [
        pytest.param(
            0, 999, ExactDatetime(1970, 1, 1, tzinfo=UTC, nanosecond=999), "1970-01-01T00:00:00.000000999Z", id="after"
        ),
        pytest.param(
            -1,
            999_999_999,
            ExactDatetime(1969, 12, 31, 23, 59, 59, 999_999, UTC, nanosecond=999),
            "1969-12-31T23:59:59.999999999Z",
            id="before the epoch",
        ),
        pytest.param(
            253_402_300_799,
            999_999_999,
            ExactDatetime.of(datetime.max.replace(tzinfo=UTC), 999),
            "9999-12-31T23:59:59.999999999Z",
            id="end of the year 9999",
        ),
        pytest.param(
            -62_135_596_800,
            1,
            ExactDatetime.of(datetime.min.replace(tzinfo=UTC), 1),
            "0001-01-01T00:00:00.000000001Z",
            id="start of the year 1",
        ),
        pytest.param(
            1_709_208_000,
            123_456_780,
            ExactDatetime(2024, 2, 29, 12, 0, 0, 123_456, UTC, nanosecond=780),
            "2024-02-29T12:00:00.123456780Z",
            id="leap day",
        ),
    ],
)
def test_timestamps_keep_their_nanoseconds(
    shapes: Any, road: Road, seconds: int, nanos: int, expected: datetime, text: str
) -> None:
    pb: Any = codec.proto_class(shapes.WellKnown)(timestamp=Timestamp(seconds=seconds, nanos=nanos))
    message = road(shapes.WellKnown, pb)
    assert (type(message.timestamp), message.timestamp) == (ExactDatetime, expected)
    assert message.timestamp.tzinfo is UTC
    assert codec.to_proto(message) == pb
    assert codec.proto_class(shapes.WellKnown).FromString(codec.encode(message)) == pb
    assert codec.to_dict(message) == {"timestamp": text}
    assert codec.from_dict(shapes.WellKnown, {"timestamp": text}) == message
    assert codec.from_json(shapes.WellKnown, codec.to_json(message)).timestamp == expected
    for other in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert (type(other.timestamp), other) == (ExactDatetime, message)
        assert codec.encode(other) == codec.encode(message)
    changed = dataclasses.replace(message, duration=timedelta(1))
    assert codec.to_proto(changed) == codec.proto_class(shapes.WellKnown)(
        timestamp=pb.timestamp, duration=Duration(seconds=86_400)
    )


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        pytest.param(1, 0, "1970-01-01T00:00:01Z", id="whole second"),
        pytest.param(1, 250_000_000, "1970-01-01T00:00:01.250Z", id="milliseconds"),
        pytest.param(1, 1000, "1970-01-01T00:00:01.000001Z", id="microseconds"),
    ],
)
def test_whole_microseconds_are_plain_datetimes(shapes: Any, road: Road, seconds: int, nanos: int, text: str) -> None:
    pb: Any = codec.proto_class(shapes.WellKnown)(
        timestamp=Timestamp(seconds=seconds, nanos=nanos), duration=Duration(seconds=seconds, nanos=nanos)
    )
    message = road(shapes.WellKnown, pb)
    assert (type(message.timestamp), type(message.duration)) == (datetime, timedelta)
    assert codec.to_dict(message)["timestamp"] == text
    assert codec.to_proto(message) == pb


def test_messages_that_differ_in_nanoseconds_differ(shapes: Any) -> None:
    moment = ExactDatetime(2024, 1, 1, tzinfo=UTC, nanosecond=1)
    assert shapes.WellKnown(timestamp=moment) != shapes.WellKnown(timestamp=moment.plain())
    assert shapes.WellKnown(timestamp=moment.plain()) != shapes.WellKnown(timestamp=moment)
    assert shapes.WellKnown(timestamp=moment) == shapes.WellKnown(timestamp=moment.replace())


def test_nanoseconds_survive_in_lists_and_maps(shapes: Any) -> None:
    moment, span = ExactDatetime(2024, 1, 1, tzinfo=UTC, nanosecond=1), ExactTimedelta(nanoseconds=-1)
    for message in (
        shapes.WellKnownLists(timestamps=[moment, moment.plain()], durations=[span, timedelta(1)]),
        shapes.Maps(times={"a": moment, "b": moment.plain()}),
    ):
        assert codec.decode(type(message), codec.encode(message)) == message
        assert codec.from_json(type(message), codec.to_json(message)) == message


def test_an_exact_moment_in_another_zone_is_the_same_moment_in_utc(shapes: Any) -> None:
    moment = ExactDatetime(2030, 6, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)), nanosecond=7)
    decoded = codec.decode(shapes.WellKnown, codec.encode(shapes.WellKnown(timestamp=moment))).timestamp
    assert (decoded, decoded.tzinfo, decoded.nanosecond) == (moment, UTC, 7)
    with pytest.raises(codec.CodecError, match="no time zone"):
        codec.encode(shapes.WellKnown(timestamp=moment.replace(tzinfo=None)))


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
