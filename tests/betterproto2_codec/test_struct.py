"""Structs and plain dicts."""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import Any

import pytest
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.core.context_unit_pb2 import ContextUnit as Unit
from contextunity.gen.contextunity.harvest.v1 import Money
from contextunity.gen.google.protobuf import ListValue, Struct, Value
from google.protobuf import json_format, struct_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from contextunity.core import codec

_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab.", max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text("xyz", max_size=3), _JSON, max_size=4))
def test_a_struct_is_googles_struct(content: dict[str, Any]) -> None:
    struct = codec.dict_to_struct(content)
    google = json_format.ParseDict(content, struct_pb2.Struct())
    assert codec.to_proto(struct) == google
    assert codec.struct_to_dict(struct) == codec.struct_to_dict(google) == content
    assert codec.struct_to_dict(codec.decode(Struct, codec.encode(struct))) == content


def test_numbers_come_back_as_int_where_they_are_whole() -> None:
    content = codec.struct_to_dict(
        codec.dict_to_struct({"a": 5, "b": 5.0, "c": 5.5, "d": 2.0**53, "e": 1e300, "f": -0.0})
    )
    assert repr(content) == "{'a': 5, 'b': 5, 'c': 5.5, 'd': 9007199254740992, 'e': 1e+300, 'f': -0.0}"


def test_tuples_and_other_mappings_are_taken() -> None:
    struct = codec.dict_to_struct(MappingProxyType({"a": (1, MappingProxyType({"b": None}))}))
    assert codec.struct_to_dict(struct) == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("content", "path", "reason"),
    [
        pytest.param(
            {"a": 2**53 + 1}, '["a"]', f"{2**53 + 1} cannot be stored exactly in a double", id="imprecise int"
        ),
        pytest.param({"a": {"b": [0, 10**400]}}, '["a"]["b"][1]', "exactly in a double", id="huge int"),
        pytest.param({"a": float("nan")}, '["a"]', "finite numbers, not nan", id="NaN"),
        pytest.param({"a": float("inf")}, '["a"]', "finite numbers, not inf", id="infinity"),
        pytest.param({"a": b"x"}, '["a"]', "not bytes", id="bytes"),
        pytest.param({"a": {1}}, '["a"]', "not set", id="set"),
        pytest.param({"a": Money()}, '["a"]', "not Money", id="message"),
        pytest.param({"a": "\ud800"}, '["a"]', "lone surrogates", id="surrogate"),
        pytest.param({1: "a"}, "[1]", "as a key: expected a str, got int", id="int key"),
        pytest.param({"a": {None: 1}}, '["a"][None]', "as a key: expected a str, got NoneType", id="None key"),
        pytest.param([], "", "expected a mapping, got list", id="list"),
    ],
)
def test_what_a_struct_cannot_hold_is_refused_by_its_path(content: Any, path: str, reason: str) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.dict_to_struct(content)
    assert caught.value.path == path
    assert reason in caught.value.reason


def _nested(levels: int, *, lists: bool) -> dict[str, Any]:
    """An object in which objects or lists stand in each other, so many that they make `levels` with it."""
    inner: Any = [] if lists else {}
    for _ in range(levels - 2):
        inner = [inner] if lists else {"a": inner}
    return {"a": inner}


@pytest.mark.parametrize(
    ("lists", "most"),
    # Of protobuf's 100 levels, an object takes three and a list two.
    [pytest.param(False, 34, id="objects"), pytest.param(True, 50, id="lists")],
)
def test_as_deep_as_google_reads_is_read_and_written(lists: bool, most: int) -> None:
    for levels in range(30, most + 1):
        mapping = _nested(levels, lists=lists)
        struct = struct_pb2.Struct()
        json_format.ParseDict(mapping, struct, max_recursion_depth=1000)
        data = struct.SerializeToString()
        assert struct_pb2.Struct.FromString(data) == struct
        assert codec.struct_to_dict(codec.decode(Struct, data)) == mapping
        assert codec.encode(codec.dict_to_struct(mapping)) == data
        unit = Unit.FromString(codec.encode_apart(ContextUnit(), "payload", mapping)) if levels <= most - 1 else None
        assert unit is None or unit.payload == struct
    deeper = struct_pb2.Struct()
    json_format.ParseDict(_nested(most + 1, lists=lists), deeper, max_recursion_depth=1000)
    with pytest.raises(DecodeError):
        struct_pb2.Struct.FromString(deeper.SerializeToString())
    with pytest.raises(codec.CodecError, match="nested more than 100 deep"):
        codec.decode(Struct, deeper.SerializeToString())
    with pytest.raises(codec.CodecError, match="nested more than 100 deep"):
        codec.encode(codec.dict_to_struct(_nested(most + 1, lists=lists)))


@pytest.mark.parametrize(
    "leaf",
    [
        pytest.param(1, id="scalar"),
        pytest.param("text", id="text"),
        pytest.param({}, id="object"),
        pytest.param([], id="list"),
    ],
)
@pytest.mark.parametrize("objects", [0, 1, 10, 20, 31, 32, 33])
def test_plain_data_is_taken_as_deep_as_google_reads_it_and_no_deeper(objects: int, leaf: Any) -> None:
    taken, read = list[int](), list[int]()
    for lists in range(52):
        mapping: Any = leaf
        for _ in range(lists):
            mapping = [mapping]
        for _ in range(objects + 1):
            mapping = {"a": mapping}
        struct = struct_pb2.Struct()
        json_format.ParseDict(mapping, struct, max_recursion_depth=1000)
        with contextlib.suppress(DecodeError):
            struct_pb2.Struct.FromString(struct.SerializeToString())
            read.append(lists)
        with contextlib.suppress(codec.CodecError):
            codec.dict_to_struct(mapping)
            taken.append(lists)
    assert taken == read


def test_a_large_int_that_a_double_holds_is_taken() -> None:
    assert codec.struct_to_dict(codec.dict_to_struct({"a": 2**60})) == {"a": float(2**60)}


def test_a_mapping_that_contains_itself_is_refused() -> None:
    content: dict[str, Any] = {}
    content["a"] = [content]
    with pytest.raises(codec.CodecError, match="nested more than 100 deep"):
        codec.dict_to_struct(content)


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_a_struct_that_holds_no_number_is_refused(number: float) -> None:
    struct = Struct(fields={"a": Value(list_value=ListValue(values=[Value(number_value=number)]))})
    with pytest.raises(codec.CodecError) as caught:
        codec.struct_to_dict(struct)
    assert caught.value.path == '["a"][0]'
    google: Any = codec.to_proto(struct)
    with pytest.raises(codec.CodecError, match="finite numbers"):
        codec.struct_to_dict(google)


def test_a_value_without_a_kind_is_none() -> None:
    assert codec.struct_to_dict(Struct(fields={"a": Value()})) == {"a": None}


def test_a_struct_of_another_tree_is_a_struct(wkt: Any) -> None:
    assert codec.struct_to_dict(wkt.Struct(fields={"a": wkt.Value(bool_value=True)})) == {"a": True}


def test_what_is_no_struct_is_refused() -> None:
    with pytest.raises(codec.CodecError, match=r"expected a google\.protobuf\.Struct, got a contextunity\.harvest"):
        codec.struct_to_dict(Money())
    broken: Any = Struct(fields={"a": 5})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    with pytest.raises(codec.CodecError) as caught:
        codec.struct_to_dict(broken)
    assert caught.value.path == 'fields["a"]'
