"""Values in a dataclass that do not fit their field are refused, and the error names the field."""

# ruff: noqa: E501 - the tables have one case a line

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from contextunity.gen.contextunity.core import ContextUnit, CotStep, UnitMetrics
from contextunity.gen.contextunity.harvest.v1 import Feed, Money, Product, ProductPage

from contextunity.core import codec


class _Clueless(tzinfo):
    """A time zone that does not tell its offset."""

    def utcoffset(self, dt: datetime | None, /) -> None:
        return None

    def dst(self, dt: datetime | None, /) -> None:
        return None

    def tzname(self, dt: datetime | None, /) -> str:
        return "?"


def _case(path: str, reason: str, message: Any, *, label: str) -> Any:
    return pytest.param(message, path, reason, id=label)


def _made(cls: Any, **values: Any) -> Any:
    """A message with values that type checkers would not let pass."""
    return cls(**values)


def _page(**values: Any) -> Any:
    return ProductPage(products=[Product(), _made(Product, **values)])


@pytest.mark.parametrize(
    ("message", "path", "reason"),
    [
        _case("sku", "expected a str, got int", _made(Product, sku=5), label="int for text"),
        _case("sku", "expected a str, got bytes", _made(Product, sku=b"a"), label="bytes for text"),
        _case("sku", "expected a str, got NoneType", _made(Product, sku=None), label="None for text"),
        _case("sku", "expected a str, got int", _made(Product, sku=0), label="falsy int for text"),
        _case("sku", "not text: a lone surrogate '\\ud800' at index 1", Product(sku="a\ud800"), label="surrogate"),
        _case("line", "expected an int, got str", _made(Product, line="5"), label="text for int"),
        _case("line", "expected an int, got str", _made(Product, line=""), label="empty text for int"),
        _case("line", "expected an int, got NoneType", _made(Product, line=None), label="None for int"),
        _case("line", "expected an int, got float", _made(Product, line=5.0), label="float for int"),
        _case("line", "expected an int, got bool", _made(Product, line=True), label="bool for int"),
        _case("line", f"{2**63} is out of range for an int64", Product(line=2**63), label="int64 too large"),
        _case("stock", f"{-(2**63) - 1} is out of range", Product(stock=-(2**63) - 1), label="int64 too small"),
        _case("availability", "expected an int, got str", _made(Product, availability="X"), label="text for enum"),
        _case("availability", "expected an int, got NoneType", _made(Product, availability=None), label="None for enum"),
        _case("availability", f"{2**31} is out of range", _made(Product, availability=2**31), label="enum too large"),
        _case("tags", "expected a list, got str", _made(Product, tags="abc"), label="text for list"),
        _case("tags", "expected a list, got NoneType", _made(Product, tags=None), label="None for list"),
        _case("tags[1]", "expected a str, got bytes", _made(Product, tags=["a", b"b"]), label="bytes in list"),
        _case("options", "expected a dict, got list", _made(Product, options=[]), label="list for map"),
        _case('options["Size"]', "expected a str, got int", _made(Product, options={"Size": 5}), label="map value"),
        _case("options[5]", "as a key: expected a str, got int", _made(Product, options={5: "a"}), label="map key"),
        _case("price", "expected a contextunity.harvest.v1.Money, got Feed", _made(Product, price=Feed()), label="class"),
        _case("price", "expected a contextunity.harvest.v1.Money, got dict", _made(Product, price={}), label="dict"),
        _case("products[1].price.units", "out of range", _page(price=Money(units=2**70)), label="path through list"),
        _case("products[1].tags[0]", "expected a str", _page(tags=[1]), label="path into list"),
        _case("products[0]", "expected a contextunity", _made(ProductPage, products=[None]), label="None in list"),
        _case("metrics.cost_usd", "expected a float, got str", ContextUnit(metrics=_made(UnitMetrics, cost_usd="5")), label="text for float"),
        _case("metrics.cost_usd", "expected a float, got bool", ContextUnit(metrics=UnitMetrics(cost_usd=True)), label="bool for float"),
        _case("metrics.cost_usd", "out of range for a double", ContextUnit(metrics=UnitMetrics(cost_usd=10**400)), label="double"),
        _case("metrics.tokens_used", "out of range for an int32", ContextUnit(metrics=UnitMetrics(tokens_used=2**40)), label="int32"),
        _case("ranges", "expected a bool, got int", _made(Feed, ranges=1), label="int for bool"),
        _case("ranges", "expected a bool, got int", _made(Feed, ranges=0), label="falsy int for bool"),
        _case("prologue", "expected bytes, got str", _made(Feed, prologue="a"), label="text for bytes"),
        _case("prologue", "expected bytes, got str", _made(Feed, prologue=""), label="empty text for bytes"),
        _case("created_at", "no time zone", ContextUnit(created_at=datetime(2030, 1, 1)), label="naive time"),
        _case("created_at", "returns no offset from UTC", ContextUnit(created_at=datetime(2030, 1, 1, tzinfo=_Clueless())), label="zone without offset"),
        _case("created_at", "expected a datetime, got str", _made(ContextUnit, created_at="2030"), label="text for time"),
        _case("chain_of_thought[0].timestamp", "no time zone", ContextUnit(chain_of_thought=[CotStep(timestamp=datetime(2030, 1, 1))]), label="time in list"),
    ],
)  # fmt: skip
def test_it_is_refused_by_its_path(message: Any, path: str, reason: str) -> None:
    for convert in (codec.encode, codec.to_json, codec.to_dict, codec.to_proto):
        with pytest.raises(codec.CodecError) as caught:
            convert(message)
        assert caught.value.path == path
        assert reason in caught.value.reason
        assert caught.value.message_type == codec.full_name(message)
        assert str(caught.value).startswith(f"{codec.full_name(message)}: {path}: ")


@pytest.mark.parametrize(
    ("values", "path", "reason"),
    [
        pytest.param({"a_uint32": -1}, "a_uint32", "-1 is out of range for a uint32, 0 to 4294967295", id="uint32"),
        pytest.param({"a_uint64": 2**64}, "a_uint64", "out of range for a uint64", id="uint64"),
        pytest.param({"an_int32": 2**40}, "an_int32", "out of range for an int32", id="int32"),
        pytest.param({"a_sint32": -(2**31) - 1}, "a_sint32", "out of range for an int32", id="sint32"),
        pytest.param({"a_fixed64": -1}, "a_fixed64", "out of range for a uint64", id="fixed64"),
        pytest.param({"a_float": 1e39}, "a_float", "1e+39 is out of range for a 32-bit float", id="float"),
        pytest.param({"an_int64": 10**5000}, "an_int64", "out of range for an int64", id="huge"),
    ],
)
def test_scalars_out_of_range_are_refused(shapes: Any, values: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.encode(shapes.Scalars(**values))
    assert caught.value.path == path
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("values", "path"),
    [
        pytest.param({"int32s": [0, 2**31]}, "int32s[1]", id="int32"),
        pytest.param({"bools": [True, 1]}, "bools[1]", id="int for bool"),
        pytest.param({"doubles": [1.0, True]}, "doubles[1]", id="bool for double"),
        pytest.param({"floats": [1e300]}, "floats[0]", id="float"),
        pytest.param({"bytes_list": [b"", ""]}, "bytes_list[1]", id="text for bytes"),
        pytest.param({"strings": ["", "\udfff"]}, "strings[1]", id="surrogate"),
        pytest.param({"messages": [5]}, "messages[0]", id="int for message"),
    ],
)
def test_elements_of_lists_are_checked(shapes: Any, values: dict[str, Any], path: str) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.encode(shapes.Lists(**values))
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("values", "path"),
    [
        pytest.param({"int32_keys": {2**31: "a"}}, "int32_keys[2147483648]", id="int32 key"),
        pytest.param({"bool_keys": {1: "a"}}, "bool_keys[1]", id="int for a bool key"),
        pytest.param({"int64_keys": {True: "a"}}, "int64_keys[True]", id="bool for an int key"),
        pytest.param({"string_keys": {b"k": "a"}}, "string_keys[b'k']", id="bytes for a text key"),
        pytest.param({"colours": {"k": "COLOUR_RED"}}, 'colours["k"]', id="text for an enum"),
        pytest.param({"times": {"k": datetime(2030, 1, 1)}}, 'times["k"]', id="naive time"),
        pytest.param({"wrapped": {"k": None}}, 'wrapped["k"]', id="None for a wrapped value"),
        pytest.param({"messages": {"k": None}}, 'messages["k"]', id="None for a message"),
    ],
)
def test_keys_and_values_of_maps_are_checked(shapes: Any, values: dict[str, Any], path: str) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.encode(shapes.Maps(**values))
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("values", "path"),
    [
        pytest.param({"number": 0, "text": ""}, "text", id="both at their default"),
        pytest.param({"flag": True, "left": 1, "duration": timedelta(1)}, "duration", id="beside another oneof"),
    ],
)
def test_two_members_of_a_oneof_are_refused(shapes: Any, values: dict[str, Any], path: str) -> None:
    with pytest.raises(codec.CodecError, match="oneof choice can hold only one member, not") as caught:
        codec.encode(shapes.Oneofs(**values))
    assert caught.value.path == path


def test_members_of_two_oneofs_go_together(shapes: Any) -> None:
    message = shapes.Oneofs(number=0, left=0, single=0)
    assert codec.decode(shapes.Oneofs, codec.encode(message)) == message


def test_unknown_fields_that_are_no_fields_are_refused() -> None:
    money: Any = Money()
    money._unknown_fields = b"\xff"
    with pytest.raises(codec.CodecError) as caught:
        codec.encode(Product(price=money))
    assert caught.value.path == "price._unknown_fields"


def test_the_cause_is_kept() -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.encode(Product(line=2**63))
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(datetime.max.replace(tzinfo=UTC), id="the last"),
        pytest.param(datetime.min.replace(tzinfo=UTC), id="the first"),
    ],
)
def test_the_ends_of_time_are_within_range(moment: datetime) -> None:
    assert codec.decode(ContextUnit, codec.encode(ContextUnit(created_at=moment))).created_at == moment
