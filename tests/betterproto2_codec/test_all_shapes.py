"""For random messages of every shape, the codec and google.protobuf agree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contextunity.core import codec

SHAPES = [
    *("Scalars", "Optionals", "Lists", "Nothing", "Enums", "Maps", "Oneofs", "Outer", "Node", "Ping"),
    *("WellKnown", "WellKnownLists", "Wrappers"),
]
NAMES = ["Keywords", "Methods", "Locals", "UsesWords"]

every_shape = pytest.mark.parametrize("shape", SHAPES)
properties = settings(
    max_examples=40,
    deadline=None,
    # The generated tree is made once, and nothing in it changes.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _content(pb: Message) -> bytes:
    """Bytes that are equal for equal messages; Google's own == takes NaN for unequal to itself."""
    return type(pb).SerializeToString(pb, deterministic=True)


def _text(data: Any) -> str:
    """Text that tells -0.0 from 0.0, and takes no notice of the order of a map."""
    return json.dumps(data, sort_keys=True)


@every_shape
@properties
@given(data=st.data())
def test_bytes_survive_both_ways(shapes: Any, fill: Any, shape: str, data: st.DataObject) -> None:
    cls = getattr(shapes, shape)
    google = codec.proto_class(cls)
    pb = google()
    fill(data, pb)
    message = codec.decode(cls, pb.SerializeToString())
    assert type(message) is cls
    assert _content(google.FromString(codec.encode(message))) == _content(pb)
    assert _content(codec.to_proto(codec.from_proto(cls, pb))) == _content(pb)


@every_shape
@properties
@given(data=st.data())
def test_json_is_googles(shapes: Any, fill: Any, shape: str, data: st.DataObject) -> None:
    cls = getattr(shapes, shape)
    pb = codec.proto_class(cls)()
    fill(data, pb)
    message = codec.from_proto(cls, pb)
    assert _text(codec.to_dict(message)) == _text(json_format.MessageToDict(pb))
    names = codec.to_dict(message, preserving_proto_field_name=True)
    assert _text(names) == _text(json_format.MessageToDict(pb, preserving_proto_field_name=True))
    for back in (
        codec.from_json(cls, codec.to_json(message)),
        codec.from_json(cls, json_format.MessageToJson(pb)),
        codec.from_dict(cls, codec.to_dict(message)),
        codec.from_dict(cls, names),
    ):
        assert _text(json_format.MessageToDict(codec.to_proto(back))) == _text(json_format.MessageToDict(pb))


@pytest.mark.parametrize("name", NAMES)
@properties
@given(data=st.data())
def test_awkward_names_are_as_good_as_others(names: Any, fill: Any, name: str, data: st.DataObject) -> None:
    cls = getattr(names, name)
    google = codec.proto_class(cls)
    pb = google()
    fill(data, pb)
    message = codec.decode(cls, google.SerializeToString(pb))
    assert _content(google.FromString(codec.encode(message))) == _content(pb)
    assert codec.from_dict(cls, codec.to_dict(message)) == message


@every_shape
@settings(properties, max_examples=60)
@given(junk=st.binary(max_size=40))
def test_any_bytes_are_decoded_as_google_does_or_refused(shapes: Any, shape: str, junk: bytes) -> None:
    cls = getattr(shapes, shape)
    google = codec.proto_class(cls)
    try:
        message = codec.decode(cls, junk)
    except codec.CodecError:
        return
    assert _content(google.FromString(codec.encode(message))) == _content(google.FromString(junk))
