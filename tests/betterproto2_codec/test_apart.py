"""Structs as plain data, read and written without the messages in between: the same as the two steps give."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from contextunity.gen.contextunity.core import ContextUnit, SecurityScopes
from contextunity.gen.contextunity.core.context_unit_pb2 import ContextUnit as UnitMessage
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from betterproto2_codec._schema import IS_NATIVE
from betterproto2_codec._struct import _to_struct  # pyright: ignore[reportPrivateUsage]  # one of two ways
from contextunity.core import CodecError, codec

from .test_native_search import MUTATIONS

native = pytest.mark.skipif(not IS_NATIVE, reason="the extension is not built, or switched off")
ROUNDS = int(os.environ.get("CODEC_FUZZ_ROUNDS", "400")) * 5
SEED = int(os.environ.get("CODEC_FUZZ_SEED", "0"))

scalars = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30)
whole = st.integers(min_value=-(2**53), max_value=2**53)
plain: st.SearchStrategy[Any] = st.recursive(
    scalars | whole,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=30), inner, max_size=4),
)


def _by_python(mapping: dict[str, Any]) -> Any:
    """The Struct that the extension has no part in."""
    return _to_struct(mapping, "", 0)


def _two_steps(data: bytes) -> tuple[ContextUnit, dict[str, Any]]:
    unit = codec.decode(ContextUnit, data)
    payload = codec.struct_to_dict(unit.payload) if unit.payload is not None else {}
    unit.payload = None
    return unit, payload


@native
@given(payload=st.dictionaries(st.text(max_size=30), plain, max_size=5))
def test_a_payload_is_read_as_the_two_steps_read_it(payload: dict[str, Any]) -> None:
    unit = ContextUnit(unit_id="u", payload=codec.dict_to_struct(payload), security=SecurityScopes(read=["a"]))
    data = codec.encode(unit)
    read = codec.decode_apart(ContextUnit, data, "payload")
    assert read is not None
    # By repr: 1 and 1.0, and the two zeros, are equal.
    assert repr(read) == repr(_two_steps(data))


@native
def test_mutated_bytes_are_read_as_the_two_steps_read_them_or_given_up_on() -> None:
    chance = random.Random(SEED)
    known = [b""]
    taken = Counter[bool]()
    for _ in range(ROUNDS):
        message = UnitMessage(unit_id=chance.choice(["", "u"]), provenance=["a:b"] * chance.randint(0, 2))
        if chance.random() < 0.9:
            _fill(chance, message.payload, 3)
        known.append(message.SerializeToString())
        data = chance.choice(known[-20:])
        for _ in range(chance.randint(0, 3)):
            data = chance.choice(MUTATIONS)(chance, data, known)
        read = codec.decode_apart(ContextUnit, data, "payload")
        taken[read is not None] += 1
        assert read is None or repr(read) == repr(_two_steps(data)), data
    # A search in which one side never occurs finds nothing.
    assert taken[True] > ROUNDS / 20
    assert taken[False] > ROUNDS / 20


@native
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(Value(number_value=float("nan")), id="nan"),
        pytest.param(Value(number_value=float("-inf")), id="infinity"),
    ],
)
def test_what_a_struct_may_not_hold_is_given_up_on(value: Value) -> None:
    data = UnitMessage(payload=Struct(fields={"x": value})).SerializeToString()
    assert codec.decode_apart(ContextUnit, data, "payload") is None


@native
def test_a_payload_in_two_parts_is_given_up_on_as_they_would_have_to_be_merged() -> None:
    parts = [UnitMessage(payload=Struct(fields={key: Value(bool_value=True)})).SerializeToString() for key in "ab"]
    assert codec.decode_apart(ContextUnit, b"".join(parts), "payload") is None
    assert _two_steps(b"".join(parts))[1] == {"a": True, "b": True}


@native
def test_nesting_is_given_up_on_before_google_would_refuse_it() -> None:
    depths = []
    for depth in range(1, 40):
        value: Any = 1
        for _ in range(depth):
            value = {"x": value}
        message = UnitMessage()
        message.payload.update(value)
        data = message.SerializeToString()
        read = codec.decode_apart(ContextUnit, data, "payload")
        if read is not None:
            depths.append(depth)
            assert read == _two_steps(data)
    assert depths == list(range(1, len(depths) + 1))
    assert 20 < len(depths) < 34


@native
def test_a_field_that_is_not_set_is_empty() -> None:
    assert codec.decode_apart(ContextUnit, b"", "payload") == (ContextUnit(), {})


@native
def test_a_derived_class_is_left_to_the_two_steps() -> None:
    class Derived(ContextUnit):
        pass

    assert codec.decode_apart(Derived, b"", "payload") is None


@pytest.mark.parametrize("field", ["security", "unit_id", "provenance", "there_is_none"])
def test_a_field_that_is_no_struct_is_an_error(field: str) -> None:
    fault = f"contextunity.core.ContextUnit: it has no field '{field}' that is a Struct"
    with pytest.raises(CodecError, match=fault):
        codec.decode_apart(ContextUnit, b"", field)
    with pytest.raises(CodecError, match=fault):
        codec.encode_apart(ContextUnit(), field, {})


@given(payload=st.dictionaries(st.text(max_size=30), plain, max_size=5))
def test_a_payload_is_written_as_the_two_steps_write_it(payload: dict[str, Any]) -> None:
    unit = ContextUnit(unit_id="u", security=SecurityScopes(read=["a"]), provenance=["a:b"])
    written = codec.encode_apart(unit, "payload", payload)
    assert unit.payload is None
    unit.payload = _by_python(payload)
    assert written == codec.encode(unit)
    assert codec.dict_to_struct(payload) == unit.payload


class _Text(str):
    """Text of a derived class."""


_CIRCLE: dict[str, Any] = {}
_CIRCLE["x"] = [_CIRCLE]
_ODD: list[Any] = [
    *(
        2**53,
        2**53 + 1,
        -(2**53) - 1,
        2**60,
        -(2**60),
        10**400,
        -0.0,
        float("nan"),
        float("inf"),
        True,
        _Text("t"),
        "\ud800",
    ),
    *((1, 2), {1, 2}, {1: 2}, {"\ud800": 1}, {_Text("k"): 1}, b"bytes", object(), _CIRCLE, [[None]], {}),
]


@pytest.mark.parametrize("odd", _ODD, ids=lambda odd: repr(odd)[:20].replace("\ud800", "surrogate"))
@pytest.mark.parametrize("place", [lambda odd: {"x": odd}, lambda odd: {"x": [1, {"y": odd}]}], ids=["near", "deep"])
def test_odd_values_are_written_as_the_two_steps_write_them_or_refused_as_they_refuse_them(
    odd: Any, place: Callable[[Any], dict[str, Any]]
) -> None:
    def told(write: Callable[[], bytes]) -> object:
        try:
            return write()
        except CodecError as error:
            return error.path, error.reason

    def two_steps() -> bytes:
        return codec.encode(ContextUnit(payload=_by_python(place(odd))))

    at_once = told(lambda: codec.encode(ContextUnit(payload=codec.dict_to_struct(place(odd)))))
    assert at_once == told(two_steps)
    apart, steps = told(lambda: codec.encode_apart(ContextUnit(), "payload", place(odd))), told(two_steps)
    if isinstance(steps, tuple):
        assert apart == (f"payload{steps[0]}", steps[1])
    else:
        assert apart == steps


def test_what_changes_while_it_is_written_does_no_harm() -> None:
    rows: list[Any] = [{"x": [1, 2, 3]} for _ in range(30_000)]
    mapping: dict[str, Any] = {"rows": rows}
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            rows[:] = rows[: len(rows) // 2] or [{"x": ["text" * 10]} for _ in range(30_000)]
            mapping[f"key-{len(mapping) % 50}"] = rows[:10]
            time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    other = threading.Thread(target=change)
    other.start()
    try:
        for _ in range(50):
            # What the extension gives up on is walked in Python, which may find that it changed.
            with contextlib.suppress(RuntimeError):
                UnitMessage.FromString(codec.encode_apart(ContextUnit(), "payload", mapping))
    finally:
        ended.set()
        other.join()
        sys.setswitchinterval(interval)


@native
def test_other_threads_run_while_there_is_much_to_read() -> None:
    values = 1_000_000
    message = UnitMessage()
    # A million times the bytes of a Value with a number.
    message.payload.fields["numbers"].list_value.MergeFromString((b"\x0a\x09\x11" + bytes(7) + b"\x40") * values)
    data = message.SerializeToString()
    turns, ended, begun = list[float](), threading.Event(), threading.Event()

    def count() -> None:
        while not ended.is_set():
            turns.append(time.perf_counter())
            begun.set()
            time.sleep(0)  # lets the reader go on at once

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    other = threading.Thread(target=count)
    other.start()
    try:
        assert begun.wait(30)
        before = time.perf_counter()
        read = codec.decode_apart(ContextUnit, data, "payload")
        after = time.perf_counter()
    finally:
        ended.set()
        other.join()
        sys.setswitchinterval(interval)
    # One or two fall to it at the edges; it has some dozens where it gets them meanwhile.
    assert sum(before < turn < after for turn in turns) > 10
    assert read is not None
    assert read[1] == {"numbers": [2] * values}


def _fill(chance: random.Random, struct: Any, depth: int) -> None:
    struct.SetInParent()
    for _ in range(chance.randint(0, 3)):
        _fill_value(chance, struct.fields[chance.choice(["", "a", "key", "é", "k" * 30])], depth)


def _fill_value(chance: random.Random, value: Any, depth: int) -> None:
    match chance.randint(0, 7 if depth else 5):
        case 0:
            value.null_value = 0
        case 1:
            value.number_value = chance.choice([0.0, -0.0, 1, -1, 1.5, 2**53, 2**53 + 2, -(2**53), 1e300, 5e-324])
        case 2 | 3:
            value.string_value = chance.choice(["", "a", "text", "\0", "漢字", "x" * 200])
        case 4:
            value.bool_value = chance.random() < 0.5
        case 5:
            value.SetInParent()
        case 6:
            _fill(chance, value.struct_value, depth - 1)
        case _:
            value.list_value.SetInParent()
            for _ in range(chance.randint(0, 3)):
                _fill_value(chance, value.list_value.values.add(), depth - 1)
