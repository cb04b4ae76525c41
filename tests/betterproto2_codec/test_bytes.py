"""Bytes: what survives the round trip, and which bytes are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from contextunity.gen.contextunity.core import ContextUnit, CotStep
from contextunity.gen.contextunity.harvest.v1 import Availability, Money, Product, ProductPage
from contextunity.gen.google.protobuf import Struct, Value
from google.protobuf import struct_pb2

from contextunity.core import codec


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _chain(shapes: Any, levels: int) -> Any:
    node = shapes.Node(name="end")
    for _ in range(levels):
        node = shapes.Node(next=node)
    return node


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x0a\x05ab", id="truncated text"),
        pytest.param(b"\x0a", id="tag alone"),
        pytest.param(b"\x00\x01", id="field number 0"),
        pytest.param(b"\x0a\x02\xff\xff", id="invalid UTF-8"),
        pytest.param(b"\x90\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", id="varint without end"),
        pytest.param(b"\x0f", id="unknown wire type"),
    ],
)
def test_bad_bytes_are_refused_by_the_name_of_the_message(data: bytes) -> None:
    with pytest.raises(codec.CodecError, match=r"contextunity\.harvest\.v1\.Product: not the bytes of this message"):
        codec.decode(Product, data)


@pytest.mark.parametrize("data", ["text", None, 5], ids=["str", "None", "int"])
def test_what_is_no_bytes_is_refused(data: Any) -> None:
    with pytest.raises(codec.CodecError, match="expected bytes, got"):
        codec.decode(Product, data)


@pytest.mark.parametrize("data", [bytearray(b"\x0a\x01a"), memoryview(b"\x0a\x01a")], ids=["bytearray", "memoryview"])
def test_buffers_are_as_good_as_bytes(data: Any) -> None:
    assert codec.decode(Product, data) == Product(sku="a")


def test_a_value_of_another_wire_type_is_an_unknown_field() -> None:
    product = codec.decode(Product, b"\x08\x05")
    assert product == Product()
    assert codec.encode(product) == b"\x08\x05"


def test_nesting_is_limited_to_what_parsers_read(shapes: Any) -> None:
    deepest = _chain(shapes, 100)
    assert codec.decode(shapes.Node, codec.encode(deepest)) == deepest
    with pytest.raises(codec.CodecError, match=r"shapes\.v1\.Node: .*next: messages are nested more than 100 deep"):
        codec.encode(_chain(shapes, 101))


def test_a_wrong_value_in_the_deepest_message_is_told_as_such(shapes: Any) -> None:
    deepest = _chain(shapes, 100)
    node = deepest
    while node.next is not None:
        node = node.next
    node.name = 5
    with pytest.raises(codec.CodecError, match=r"name: expected") as caught:
        codec.encode(deepest)
    assert "nested" not in str(caught.value)


def test_bytes_nested_too_deep_are_refused(shapes: Any) -> None:
    data = b""
    for _ in range(101):
        data = b"\x12" + _varint(len(data)) + data
    with pytest.raises(codec.CodecError, match=r"shapes\.v1\.Node: .*[Dd]epth"):
        codec.decode(shapes.Node, data)


def test_the_entries_of_maps_count_as_levels_as_they_do_for_parsers(shapes: Any) -> None:
    node = shapes.Node()
    for _ in range(50):
        node = shapes.Node(by_name={"k": node})
    assert codec.decode(shapes.Node, codec.encode(node)) == node
    with pytest.raises(codec.CodecError, match="nested more than 100 deep"):
        codec.encode(shapes.Node(next=node))


def test_a_message_that_contains_itself_is_refused(shapes: Any) -> None:
    node = shapes.Node()
    node.next = node
    with pytest.raises(codec.CodecError, match="nested more than 100 deep"):
        codec.encode(node)


def test_unknown_fields_survive_at_every_level() -> None:
    unknown = b"\xa2\x06\x03abc" + b"\xa8\x06\x07" + b"\xb5\x06abcd" + b"\xb9\x06abcdefgh"
    money = b"\x10\x05" + unknown
    product = b"\x0a\x01s" + b"\x32" + _varint(len(money)) + money + unknown
    page = b"\x0a" + _varint(len(product)) + product + unknown
    decoded: Any = codec.decode(ProductPage, page)
    price = decoded.products[0].price
    assert price.units == 5
    assert decoded._unknown_fields == decoded.products[0]._unknown_fields == price._unknown_fields == unknown
    assert codec.encode(decoded) == page


def test_from_proto_leaves_the_message_as_it_is() -> None:
    pb = codec.to_proto(Product(sku="a", tags=["b"], price=Money()))
    before = pb.SerializeToString()
    product = codec.from_proto(Product, pb)
    product.tags.append("c")
    assert pb.SerializeToString() == before


def test_from_proto_refuses_another_message() -> None:
    with pytest.raises(codec.CodecError, match=r"Product: expected this message, got a contextunity\.harvest\.v1\.Mo"):
        codec.from_proto(Product, codec.to_proto(Money()))


def test_numbers_that_an_enum_does_not_know_survive() -> None:
    product = Product(availability=Availability(77))
    decoded = codec.decode(Product, codec.encode(product))
    assert decoded.availability == 77
    assert isinstance(decoded.availability, Availability)
    assert codec.decode(Product, codec.encode(Product(availability=Availability(-5)))).availability == -5


def test_aliases_of_an_enum_are_one_member(shapes: Any) -> None:
    decoded = codec.decode(shapes.Enums, codec.encode(shapes.Enums(aliased=shapes.Aliased.ERSTER)))
    assert decoded.aliased is shapes.Aliased.FIRST


def test_presence_tells_zero_from_absent() -> None:
    assert codec.decode(Product, codec.encode(Product(stock=0))).stock == 0
    assert codec.decode(Product, codec.encode(Product())).stock is None
    assert codec.decode(Product, codec.encode(Product(price=Money()))).price == Money()
    assert codec.decode(Product, codec.encode(Product())).price is None


@pytest.mark.parametrize(
    ("member", "value"),
    [("number", 0), ("text", ""), ("data", b""), ("flag", False), ("fraction", 0.0), ("wrapped", "")],
)
def test_a_member_of_a_oneof_is_kept_at_its_default(shapes: Any, member: str, value: object) -> None:
    decoded = codec.decode(shapes.Oneofs, codec.encode(shapes.Oneofs(**{member: value})))
    assert getattr(decoded, member) == value
    assert decoded == shapes.Oneofs(**{member: value})


def test_an_empty_message_in_a_oneof_is_kept(shapes: Any) -> None:
    decoded = codec.decode(shapes.Oneofs, codec.encode(shapes.Oneofs(nothing=shapes.Nothing())))
    assert decoded.nothing is not None


def test_empty_messages_in_lists_and_maps_are_kept(shapes: Any) -> None:
    node = shapes.Node(children=[shapes.Node(), shapes.Node()], by_name={"": shapes.Node()})
    assert codec.decode(shapes.Node, codec.encode(node)) == node


@pytest.mark.parametrize("number", [-0.0, math.inf, -math.inf, math.nan, 5e-324], ids=str)
def test_special_floats_survive(shapes: Any, number: float) -> None:
    message = shapes.Scalars(a_double=number)
    assert repr(codec.decode(shapes.Scalars, codec.encode(message)).a_double) == repr(number)


def test_wrapped_values_are_plain_and_absent_is_none(shapes: Any) -> None:
    given = shapes.Wrappers(an_int64=0, a_string="", a_bool=False, some_bytes=b"")
    decoded = codec.decode(shapes.Wrappers, codec.encode(given))
    assert (decoded.an_int64, decoded.a_string, decoded.a_bool, decoded.some_bytes) == (0, "", False, b"")
    assert decoded.a_double is None


def test_lists_may_be_tuples_and_are_lists_again() -> None:
    product: Any = Product(tags=("a", "b"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert codec.decode(Product, codec.encode(product)).tags == ["a", "b"]


def test_a_derived_class_is_decoded_as_itself() -> None:
    class Priced(Product):
        """A product with a method of its own."""

        def label(self) -> str:
            return f"{self.sku}!"

    decoded = codec.decode(Priced, codec.encode(Priced(sku="a")))
    assert type(decoded) is Priced
    assert decoded.label() == "a!"
    assert codec.encode(ProductPage(products=[decoded])) == codec.encode(ProductPage(products=[Product(sku="a")]))


def test_a_message_of_another_tree_fits_where_its_message_does(wkt: Any) -> None:
    assert wkt.Struct is not Struct
    foreign = wkt.Struct(fields={"a": wkt.Value(number_value=1.0)})
    own = Struct(fields={"a": Value(number_value=1.0)})
    assert codec.encode(ContextUnit(payload=foreign)) == codec.encode(ContextUnit(payload=own))


def test_structs_nested_as_deep_as_parsers_allow_survive() -> None:
    value: dict[str, Any] = {}
    for _ in range(33):
        value = {"a": value}
    struct = codec.dict_to_struct(value)
    assert codec.struct_to_dict(codec.decode(Struct, codec.encode(struct))) == value
    pb = struct_pb2.Struct.FromString(codec.encode(struct))
    assert codec.struct_to_dict(pb) == value
    with pytest.raises(codec.CodecError, match="nested more than 100 deep"):
        codec.dict_to_struct({"a": value})


def test_messages_in_lists_keep_their_order() -> None:
    unit = ContextUnit(chain_of_thought=[CotStep(agent=str(index)) for index in range(20)])
    assert [step.agent for step in codec.decode(ContextUnit, codec.encode(unit)).chain_of_thought] == [
        str(index) for index in range(20)
    ]
