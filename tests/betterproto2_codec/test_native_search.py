"""A search for anything in which the compiled extension differs from google.protobuf.

What the extension gives up on is decided by google.protobuf, so only what it takes or writes wrongly makes a
difference. So the extension is asked by itself here, and google.protobuf for the same.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import betterproto2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from betterproto2_codec._schema import IS_NATIVE
from contextunity.core import codec
from contextunity.core.exact_datetime import ExactDatetime, ExactTimedelta

if not IS_NATIVE:
    pytest.skip("the extension is not built, or switched off", allow_module_level=True)

SHAPES = [
    *("Scalars", "Optionals", "Lists", "Nothing", "Enums", "Maps", "Oneofs", "Outer", "Node", "Ping"),
    *("WellKnown", "WellKnownLists", "Wrappers"),
]
WITHOUT_MAPS = ["Scalars", "Optionals", "Lists", "Nothing", "Oneofs", "Ping", "Wrappers"]
every_shape = pytest.mark.parametrize("shape", SHAPES)
properties = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
ROUNDS = int(os.environ.get("CODEC_FUZZ_ROUNDS", "400"))
"""Mutations of each shape; more of them for a search of hours."""
SEED = int(os.environ.get("CODEC_FUZZ_SEED", "0"))


@every_shape
@properties
@given(data=st.data())
def test_clean_messages_are_taken_and_are_the_same(
    shapes: Any, fill: Any, shape: str, data: st.DataObject, native_decoding: Any, native_encoding: Any
) -> None:
    cls = getattr(shapes, shape)
    pb = codec.proto_class(cls)()
    fill(data, pb)
    clean = pb.SerializeToString()
    assert native_decoding(cls, clean)
    message = codec.from_proto(cls, pb)
    assert native_encoding(message)
    if shape in WITHOUT_MAPS:
        assert codec.encode(message) == clean


@every_shape
def test_mutated_bytes_are_taken_as_google_takes_them_or_given_up_on(
    shapes: Any, shape: str, native_decoding: Any
) -> None:
    cls = getattr(shapes, shape)
    chance = random.Random(f"{SEED}{shape}")
    known: list[bytes] = [b""]
    taken: Counter[bool] = Counter()
    for _ in range(ROUNDS):
        pb = codec.proto_class(cls)()
        _fill(chance, pb, 3)
        known.append(pb.SerializeToString())
        data = chance.choice(known[-20:])
        for _ in range(chance.randint(1, 3)):
            data = chance.choice(MUTATIONS)(chance, data, known)
        taken[native_decoding(cls, data)] += 1
    # A search in which one side never occurs finds nothing.
    assert taken[True] > ROUNDS / 100
    assert taken[False] > ROUNDS / 100


@every_shape
def test_odd_values_are_written_as_google_writes_them_or_given_up_on(
    shapes: Any, shape: str, native_encoding: Any
) -> None:
    cls = getattr(shapes, shape)
    chance = random.Random(f"{SEED}{shape}")
    taken: Counter[bool] = Counter()
    for _ in range(ROUNDS):
        pb = codec.proto_class(cls)()
        _fill(chance, pb, 3)
        message = codec.from_proto(cls, pb)
        for _ in range(chance.randint(0, 2)):
            _spoil(chance, message, shapes)
        taken[native_encoding(message)] += 1
    assert taken[True] > ROUNDS / 100
    assert taken[False] > ROUNDS / 100


def _spoil(chance: random.Random, message: Any, shapes: Any) -> None:
    """Puts an odd value somewhere into a message: into an attribute, a list or a map, at any depth."""
    name = chance.choice([*vars(message), "_unknown_fields"])
    value = getattr(message, name, None)
    inside = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    messages = [each for each in inside if isinstance(each, betterproto2.Message)]
    if messages and chance.random() < 0.7:
        _spoil(chance, chance.choice(messages), shapes)
        return
    odd = _ODD[chance.randrange(len(_ODD))](shapes)
    if isinstance(value, list) and chance.random() < 0.8:
        value.insert(chance.randint(0, len(value)), chance.choice([odd, *value]))
    elif isinstance(value, dict) and chance.random() < 0.8:
        if chance.random() < 0.5:
            value[chance.choice(_KEYS)] = chance.choice(inside or [odd])
        else:
            value[chance.choice([*value, "key"])] = odd
    elif chance.random() < 0.05 and hasattr(message, name):
        delattr(message, name)
    else:
        setattr(message, name, odd)


class _Text(str):
    """Text of a derived class."""


class _Whole(int):
    """An int of a derived class."""


_KEYS: list[Any] = ["", "k", "\ud800", _Text("t"), 0, 1, -1, 2**31, 2**64, True, False, None, b"k", 1.0, (1,)]
_ODD: list[Callable[[Any], Any]] = [
    *(lambda _, value=value: value for value in (*_KEYS, _Whole(3), -(2**31) - 1, 2**32, 2**63, 10**400, -(10**400))),
    *(lambda _, value=value: value for value in (0.0, -0.0, 1e39, -1e39, 1e-60, -1e-60, float("nan"), float("inf"))),
    *(
        lambda _, value=value: value
        for value in ("a\udfff", b"", bytearray(b"a"), memoryview(b"a"), (), ("a",), object())
    ),
    *(lambda _, value=value: value for value in (date(2030, 1, 1), datetime(2030, 1, 1), datetime.max, timedelta.max)),
    *(lambda _, value=value: value for value in (datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC))),
    *(lambda _, value=value: value for value in (timedelta(seconds=315_576_000_000), -timedelta(microseconds=1))),
    lambda _: datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    lambda _: datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    lambda _: datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    *(
        lambda _, value=value: value
        for value in (
            ExactDatetime(2024, 2, 29, tzinfo=UTC, nanosecond=1),
            ExactDatetime(2024, 2, 29, tzinfo=UTC),
            ExactDatetime(2024, 2, 29, nanosecond=1),
            ExactDatetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=-1)), nanosecond=999),
            ExactTimedelta(nanoseconds=-1),
            ExactTimedelta(1, nanoseconds=1),
            ExactTimedelta(0, 315_576_000_000, nanoseconds=1),
            ExactTimedelta(0, -315_576_000_000, nanoseconds=1),
        )
    ),
    lambda _: [],
    lambda _: {},
    lambda _: [1, 2],
    lambda _: {"k": 1},
    lambda shapes: shapes.Node(name="n"),
    lambda shapes: shapes.Scalars(an_int32=1),
    lambda shapes: shapes.Colour.COLOUR_RED if hasattr(shapes.Colour, "COLOUR_RED") else shapes.Colour(1),
    lambda shapes: shapes.Level(77),
    lambda shapes: type("Derived", (shapes.Node,), {})(name="n"),
]


def _flip(chance: random.Random, data: bytes, known: list[bytes]) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _cut(chance: random.Random, data: bytes, known: list[bytes]) -> bytes:
    return data[: chance.randint(0, len(data))]


def _drop(chance: random.Random, data: bytes, known: list[bytes]) -> bytes:
    at = chance.randint(0, len(data))
    return data[:at] + data[at + chance.randint(1, 3) :]


def _insert(chance: random.Random, data: bytes, known: list[bytes]) -> bytes:
    at = chance.randint(0, len(data))
    junk = (b"\xff" * chance.randint(1, 11), b"\x80" * chance.randint(1, 10) + b"\x00", chance.randbytes(2))
    return data[:at] + chance.choice(junk) + data[at:]


def _join(chance: random.Random, data: bytes, known: list[bytes]) -> bytes:
    """Two messages in a row are the two merged: later scalars win, lists grow, messages merge."""
    return data + chance.choice(known[-20:])


def _shuffle(chance: random.Random, data: bytes, known: list[bytes]) -> bytes:
    fields = _split(data)
    fields += chance.choices(fields, k=chance.randint(0, 2)) if fields else []
    chance.shuffle(fields)
    return b"".join(fields)


def _append(chance: random.Random, data: bytes, known: list[bytes]) -> bytes:
    """A field of one of the few lowest numbers, whatever its type is."""
    number, wire = chance.randint(0, 24), chance.choice((0, 1, 2, 3, 4, 5, 6, 7))
    body = {
        0: _varint(chance.choice((0, 1, 127, 2**31, 2**32 + 1, 2**63, 2**64 - 1, chance.getrandbits(64)))),
        1: chance.randbytes(8),
        2: _varint(3) + chance.choice((b"\x08\x01\x00", b"abc", b"\x0a\x01a", b"\xed\xa0\x80", b"\x01\x02\x03")),
        5: chance.randbytes(4),
    }
    return data + _varint(number << 3 | wire) + body.get(wire, b"")


def _random(chance: random.Random, data: bytes, known: list[bytes]) -> bytes:
    return chance.randbytes(chance.randint(0, 12))


MUTATIONS: list[Callable[[random.Random, bytes, list[bytes]], bytes]] = [
    *(_flip, _flip, _cut, _drop, _insert, _join, _shuffle, _shuffle, _append, _random)
]


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _split(data: bytes) -> list[bytes]:
    """The fields of valid bytes, each with its tag; what follows a fault is one more piece."""
    fields: list[bytes] = []
    while data:
        try:
            end = _end_of_field(data)
        except IndexError:
            end = len(data)
        fields, data = [*fields, data[:end]], data[end:]
    return fields


def _end_of_field(data: bytes) -> int:
    tag, at = _read_varint(data, 0)
    match tag & 7:
        case 0:
            return _read_varint(data, at)[1]
        case 1:
            return at + 8
        case 2:
            length, at = _read_varint(data, at)
            return at + length
        case 5:
            return at + 4
        case _:
            return len(data)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


_NUMBERS = [0, 1, -1, 2, 127, 128, 300, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1]
_TEXTS = ["", "a", "text", "é", "\0", "漢字", "\U0001f600", "x" * 200]


def _fill(chance: random.Random, pb: Any, depth: int) -> None:
    """Random values, quicker than Hypothesis draws them, and without care for what has a JSON form."""
    if pb.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        pb.seconds = chance.choice([0, 1, -1, chance.randint(-62_135_596_800, 253_402_300_799)])
        pb.nanos = chance.choice([0, 0, 1, 999_999_999, chance.randrange(10**9)])
        return
    if pb.DESCRIPTOR.full_name == "google.protobuf.Duration":
        sign = chance.choice((-1, 1))
        pb.seconds = sign * chance.choice([0, 1, 86_400, chance.randint(0, 315_576_000_000)])
        pb.nanos = sign * chance.choice([0, 0, 1, 999, 999_999_999, chance.randrange(10**9)])
        return
    for field in pb.DESCRIPTOR.fields:
        message = field.message_type
        if chance.random() < 0.6 or (message is not None and not depth):
            continue
        target = getattr(pb, field.name)
        if message is not None and message.GetOptions().map_entry:
            inner = message.fields_by_name["value"]
            for _ in range(chance.randint(0, 3)):
                key = _scalar(chance, message.fields_by_name["key"])
                if inner.message_type is not None:
                    target[key].SetInParent()
                    _fill(chance, target[key], depth - 1)
                else:
                    target[key] = _scalar(chance, inner)
        elif message is not None:
            for _ in range(chance.randint(0, 3) if field.is_repeated else 1):
                made = target.add() if field.is_repeated else target
                made.SetInParent()
                _fill(chance, made, depth - 1)
        elif field.is_repeated:
            target.extend(_scalar(chance, field) for _ in range(chance.randint(0, 4)))
        else:
            setattr(pb, field.name, _scalar(chance, field))


def _scalar(chance: random.Random, field: Any) -> Any:
    match field.cpp_type:
        case field.CPPTYPE_STRING if field.type == field.TYPE_BYTES:
            return chance.randbytes(chance.randint(0, 5))
        case field.CPPTYPE_STRING:
            return chance.choice(_TEXTS)
        case field.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case field.CPPTYPE_DOUBLE:
            return chance.choice(
                [0.0, -0.0, 1.5, float("inf"), float("nan"), struct.unpack("<d", chance.randbytes(8))[0]]
            )
        case field.CPPTYPE_FLOAT:
            return chance.choice([0.0, -0.0, 1.5, float("-inf"), float("nan"), 1e-45])
        case field.CPPTYPE_ENUM:
            return chance.choice([0, 1, 2, -1, 31, 32, 77, 2**31 - 1, -(2**31)])
        case _:
            bits = 32 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
            low = 0 if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64) else -(1 << bits - 1)
            return chance.choice([number for number in _NUMBERS if low <= number < low + (1 << bits)])
