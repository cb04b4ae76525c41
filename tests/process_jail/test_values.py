"""What can be a result, and what is said of the rest."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from process_jail.values import MAX_DEPTH, CannotCarry, encode

_LIMIT = 1 << 16


class _Colour(enum.IntEnum):
    RED = 1


class _Liar(list[int]):
    def __iter__(self) -> Any:
        raise AssertionError("asked")

    __len__ = __iter__
    __class__ = property(__iter__)  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


def _nested(depth: int) -> object:
    value: object = 1
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)


@given(_JSON)
def test_what_json_has_is_carried_as_it_is(value: object) -> None:
    carried = json.loads(encode(value, 1 << 24))
    assert carried == value
    assert repr(carried) == repr(value)


@pytest.mark.parametrize(
    ("value", "carried"),
    [
        pytest.param((1, (2,)), [1, [2]], id="tuples"),
        pytest.param(collections.Counter("aab"), {"a": 2, "b": 1}, id="counter"),
        pytest.param(collections.namedtuple("P", "x y")(1, 2), [1, 2], id="namedtuple"),
        pytest.param(_Colour.RED, 1, id="int enum"),
        pytest.param(_Liar([1]), [1], id="a type that lies"),
        pytest.param(_nested(MAX_DEPTH), _nested(MAX_DEPTH), id="as deep as can be"),
        pytest.param([[]] * 2, [[], []], id="one list twice"),
    ],
)
def test_derived_types_are_carried_as_what_they_derive_from(value: object, carried: object) -> None:
    assert json.loads(encode(value, _LIMIT)) == carried


_CYCLE: list[object] = []
_CYCLE.append(_CYCLE)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(
            {"a": [0, {1}]}, "result['a'][1] is of type set, which JSON cannot represent; use sorted(…)", id="set"
        ),
        pytest.param(
            b"x", "result is of type bytes, which JSON cannot represent; decode it, or use base64", id="bytes"
        ),
        pytest.param(decimal.Decimal(1), "Decimal, which JSON cannot represent; use float(…) or str(…)", id="decimal"),
        pytest.param(datetime.date(2024, 1, 1), "date, which JSON cannot represent; use .isoformat()", id="date"),
        pytest.param(object, "result is of type type, which JSON cannot represent; make it of None, bool", id="class"),
        pytest.param(2**53 + 1, "result is 9007199254740993, beyond 2^53", id="large integer"),
        pytest.param([1 << 5000], "result[0] is an integer of 5,001 bits, beyond 2^53", id="huge integer"),
        pytest.param(float("nan"), "result is nan, which JSON does not have", id="nan"),
        pytest.param([float("-inf")], "result[0] is -inf, which JSON does not have", id="infinity"),
        pytest.param("\udc80", "result contains a lone surrogate", id="surrogate"),
        pytest.param({"\udc80": 1}, "a key of result contains a lone surrogate", id="surrogate in a key"),
        pytest.param({1: 2}, "result has a key of type int; keys must be text, such as str(key)", id="key"),
        pytest.param(_CYCLE, "result[0] is part of itself", id="cycle"),
        pytest.param(_nested(MAX_DEPTH + 1), f"is nested more than {MAX_DEPTH} deep", id="depth"),
        pytest.param("x" * (_LIMIT - 1), "result takes 65,537 bytes as JSON; the limit is 65,536", id="long text"),
        pytest.param([0] * _LIMIT, "result takes more than the limit of 65,536 bytes", id="long list"),
    ],
)
def test_what_cannot_be_carried_is_named_with_its_place_and_the_way_out(value: object, reason: str) -> None:
    with pytest.raises(CannotCarry) as raised:
        encode(value, _LIMIT)
    assert reason in str(raised.value)
