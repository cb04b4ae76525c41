"""Messages in google.protobuf.Any."""

from __future__ import annotations

from typing import Any

import pytest
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.harvest.v1 import Money
from contextunity.gen.google.protobuf import Any as AnyMessage
from contextunity.gen.google.protobuf import Struct
from google.protobuf import any_pb2

from contextunity.core import codec


def test_a_packed_message_comes_back() -> None:
    packed = codec.pack_any(Money(units=-1))
    assert packed.type_url == "type.googleapis.com/contextunity.harvest.v1.Money"
    assert codec.unpack_any(packed) == Money(units=-1)


def test_google_unpacks_it() -> None:
    google: any_pb2.Any = codec.to_proto(codec.pack_any(Money(units=5)))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    target: Any = codec.proto_class(Money)()
    assert google.Unpack(target)
    assert target.units == 5


def test_only_what_follows_the_last_slash_counts() -> None:
    assert codec.unpack_any(AnyMessage(type_url="a/b/contextunity.harvest.v1.Money")) == Money()


def test_the_tree_of_the_any_is_searched_first(wkt: Any) -> None:
    url = "type.googleapis.com/google.protobuf.Struct"
    assert type(codec.unpack_any(AnyMessage(type_url=url))) is Struct
    assert type(codec.unpack_any(wkt.Any(type_url=url))) is wkt.Struct


def test_a_message_of_another_tree_is_found(shapes: Any) -> None:
    assert codec.unpack_any(codec.pack_any(shapes.Node(name="a"))) == shapes.Node(name="a")


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        pytest.param(AnyMessage(), "'' is not a type URL", id="empty"),
        pytest.param(AnyMessage(type_url="contextunity.harvest.v1.Money"), "is not a type URL", id="no slash"),
        pytest.param(AnyMessage(type_url="type.googleapis.com/"), "is not a type URL", id="no name"),
        pytest.param(AnyMessage(type_url="type.googleapis.com/no.Such"), "'no.Such'", id="unknown"),
        pytest.param(
            AnyMessage(type_url="type.googleapis.com/contextunity.harvest.v1.Money", value=b"\xff"),
            "contextunity.harvest.v1.Money: not the bytes of this message",
            id="bad bytes",
        ),
        pytest.param(Money(), "expected a google.protobuf.Any, got a contextunity.harvest.v1.Money", id="no Any"),
    ],
)
def test_what_cannot_be_unpacked_is_refused(packed: Any, reason: str) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.unpack_any(packed)
    assert reason in str(caught.value)


@pytest.mark.parametrize("url", ["contextunity.harvest.v1.Money", "", 7])
def test_json_of_an_any_needs_a_type_url_with_a_slash(url: Any) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.from_dict(ContextUnit, {"body": {"@type": url, "units": 1}})
    (violation,) = caught.value.violations
    assert (violation.path, violation.reason) == (
        "body.@type",
        "expected a type URL, such as type.googleapis.com/package.Message",
    )
    packed = codec.from_dict(ContextUnit, {"body": {"@type": "/contextunity.harvest.v1.Money", "units": 1}}).body
    assert packed is not None
    assert codec.unpack_any(packed) == Money(units=1)
