"""Products as JSON text: the same as google.protobuf writes, and read back without loss."""

from __future__ import annotations

import json
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import harvest_pb2
from google.protobuf import api_pb2, json_format, struct_pb2, wrappers_pb2
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from contextunity.modules.harvest.catalogue.products import compile_to_object, product_from_json, product_to_json

_texts = st.text(max_size=20)
_int64s = st.integers(-(2**63), 2**63 - 1)
_int32s = st.integers(-(2**31), 2**31 - 1)
_moneys = st.builds(harvest_pb2.Money, currency_code=_texts, units=_int64s, nanos=_int32s)

# One strategy for every field of the contract: a test below fails where one is missing.
_FIELDS: dict[str, st.SearchStrategy[object]] = {
    **dict.fromkeys(["sku", "group", "title", "brand", "description", "gtin", "mpn", "link"], _texts),
    **dict.fromkeys(["price", "compare_at_price"], st.none() | _moneys),
    **dict.fromkeys(["stock", "weight_grams"], st.none() | _int64s),
    **dict.fromkeys(["image_urls", "categories", "tags"], st.lists(_texts, max_size=3)),
    "availability": st.integers(0, 9),
    "publication": st.integers(0, 9),
    "options": st.dictionaries(_texts, _texts, max_size=4),
    "line": _int64s,
}


def test_every_field_of_the_contract_is_tried() -> None:
    assert set(_FIELDS) == {field.name for field in harvest_pb2.Product.DESCRIPTOR.fields}


@given(values=st.fixed_dictionaries(_FIELDS))
@settings(deadline=None)
def test_the_text_is_what_google_protobuf_writes_and_reads(values: dict[str, Any]) -> None:
    product = harvest_pb2.Product(**values)
    written = product_to_json(product)
    assert json.loads(written) == json.loads(json_format.MessageToJson(product, preserving_proto_field_name=True))
    assert "\n" not in written
    assert "\0" not in written
    assert product_from_json(written) == product


def test_a_field_of_a_newer_release_is_passed_over() -> None:
    assert product_from_json('{"sku": "A", "warranty": "2 years"}') == harvest_pb2.Product(sku="A")


@pytest.mark.parametrize(
    ("message", "field"),
    [
        pytest.param(wrappers_pb2.DoubleValue, "DoubleValue.value", id="number with a fraction"),
        pytest.param(wrappers_pb2.BytesValue, "BytesValue.value", id="bytes"),
        pytest.param(struct_pb2.Struct, "Struct.fields", id="map to messages"),
        pytest.param(api_pb2.Api, "Api.methods", id="message of another package"),
    ],
)
def test_a_field_of_a_type_that_cannot_be_written_is_named_at_once(message: type[Message], field: str) -> None:
    descriptor: Any = message.DESCRIPTOR  # the stubs of protobuf know two classes of descriptors
    with pytest.raises(NotImplementedError, match=rf"google\.protobuf\.{field} "):
        compile_to_object(descriptor)
