"""betterproto2's own codec is never used: not for any message of ours, on any road through the codec."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import betterproto2
import contextunity.gen
import pytest
from google.protobuf.message import Message

from contextunity.core import codec


def _messages() -> list[type[betterproto2.Message]]:
    for module in pkgutil.walk_packages(contextunity.gen.__path__, "contextunity.gen."):
        if module.ispkg:
            importlib.import_module(module.name)
    pool: betterproto2.MessagePool = importlib.import_module("contextunity.gen.message_pool").default_message_pool
    return sorted(pool.type_to_url, key=codec.full_name)


def _fill(pb: Any, depth: int) -> None:
    """Sets every field, the last member of each oneof."""
    for field in pb.DESCRIPTOR.fields:
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            inner = message.fields_by_name["value"].message_type
            if inner is None:
                getattr(pb, field.name)["key"] = "value"
            elif depth:
                _fill(getattr(pb, field.name)["key"], depth - 1)
        elif message is not None and depth:
            target = getattr(pb, field.name)
            inner = target.add() if field.is_repeated else target
            if not field.is_repeated:
                inner.SetInParent()
            if message.full_name != "google.protobuf.Any":
                _fill(inner, depth - 1)
        elif message is None:
            _fill_scalar(pb, field)


def _fill_scalar(pb: Any, field: Any) -> None:
    value: Any = {field.CPPTYPE_STRING: "a", field.CPPTYPE_BOOL: True}.get(field.cpp_type, 1)
    if field.type == field.TYPE_BYTES:
        value = b"a"
    if field.name == "nanos":
        value = 1000  # The least that a datetime can hold.
    if field.is_repeated:
        getattr(pb, field.name).append(value)
    else:
        setattr(pb, field.name, value)


@pytest.mark.parametrize("cls", _messages(), ids=codec.full_name)
def test_every_message_goes_every_road_without_it(
    cls: type[betterproto2.Message], forbid_betterproto_codec: None
) -> None:
    pb: Message = codec.proto_class(cls)()
    if cls.__name__ != "Any":
        _fill(pb, 3)
    message = codec.from_proto(cls, pb)
    assert codec.to_proto(message) == pb
    assert codec.decode(cls, codec.encode(message)) == message
    assert codec.from_json(cls, codec.to_json(message)) == message
    assert codec.unpack_any(codec.pack_any(message)) == message


def test_objects_go_through_dicts_and_structs_without_it(forbid_betterproto_codec: None) -> None:
    for cls in _messages():
        pb = codec.proto_class(cls)()
        message = codec.from_proto(cls, pb)
        if not codec.full_name(cls).startswith("google.protobuf."):
            data = codec.to_dict(message)
            assert codec.from_dict(cls, codec.struct_to_dict(codec.dict_to_struct(data))) == message


@pytest.mark.parametrize("name", ["parse", "from_dict", "from_json", "FromString"])
def test_the_fixture_forbids_reading(forbid_betterproto_codec: None, name: str) -> None:
    cls: Any = codec.message_class("contextunity.harvest.v1.Money")
    with pytest.raises(AssertionError, match="betterproto2's own codec is used"):
        getattr(cls, name)(b"")


@pytest.mark.parametrize("name", ["__bytes__", "to_dict", "to_json", "SerializeToString"])
def test_the_fixture_forbids_writing(forbid_betterproto_codec: None, name: str) -> None:
    cls: Any = codec.message_class("google.protobuf.Struct")
    with pytest.raises(AssertionError, match="betterproto2's own codec is used"):
        getattr(cls(), name)()
