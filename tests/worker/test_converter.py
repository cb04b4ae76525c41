"""The data converter: what is written, what is read, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import HarvestCounts, HarvestRequest, HarvestResponse, harvest_pb2
from contextunity.gen.google.protobuf import Empty, Struct
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload
from temporalio.converter import DefaultPayloadConverter

from contextunity.core import CodecError, codec, worker_pb2
from contextunity.worker.converter import ProtobufPayloadConverter

_RESPONSE = HarvestResponse(
    harvest_id="h", counts=HarvestCounts(pages=2**40), started_at=datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
)


def _payload(
    encoding: str, data: bytes, message_type: str | None = "contextunity.harvest.v1.HarvestResponse"
) -> Payload:
    metadata = {"encoding": encoding.encode()}
    if message_type is not None:
        metadata["messageType"] = message_type.encode()
    return Payload(metadata=metadata, data=data)


def test_a_dataclass_is_written_as_binary_protobuf_with_its_type() -> None:
    (payload,) = ProtobufPayloadConverter().to_payloads([_RESPONSE])
    assert dict(payload.metadata) == {
        "encoding": b"binary/protobuf",
        "messageType": b"contextunity.harvest.v1.HarvestResponse",
    }
    assert harvest_pb2.HarvestResponse.FromString(payload.data).counts.pages == 2**40


@pytest.mark.parametrize(
    "hint",
    [
        pytest.param(HarvestResponse, id="type hint"),
        pytest.param(HarvestResponse | None, id="optional type hint"),
        pytest.param(None, id="messageType alone"),
        pytest.param(Any, id="hint of Any"),
    ],
)
def test_it_is_read_back(hint: Any) -> None:
    converter = ProtobufPayloadConverter()
    assert converter.from_payloads(converter.to_payloads([_RESPONSE]), [hint]) == [_RESPONSE]


def test_what_the_default_converters_of_go_and_python_write_is_read() -> None:
    (payload,) = DefaultPayloadConverter().to_payloads([codec.to_proto(_RESPONSE)])
    assert payload.metadata["encoding"] == b"json/protobuf"
    assert ProtobufPayloadConverter().from_payloads([payload], [HarvestResponse]) == [_RESPONSE]
    assert ProtobufPayloadConverter().from_payloads([payload]) == [_RESPONSE]


def test_googles_messages_go_both_ways() -> None:
    message = worker_pb2.ContextUnit(unit_id="u")
    converter = ProtobufPayloadConverter()
    payloads = converter.to_payloads([message])
    assert payloads[0].metadata["encoding"] == b"binary/protobuf"
    assert converter.from_payloads(payloads, [worker_pb2.ContextUnit]) == [message]
    as_json = _payload("json/protobuf", json_format.MessageToJson(message).encode(), "contextunity.core.ContextUnit")
    assert converter.from_payloads([as_json], [worker_pb2.ContextUnit]) == [message]


def test_fields_of_a_newer_version_are_tolerated_in_both_encodings() -> None:
    converter = ProtobufPayloadConverter()
    newer = _payload("binary/protobuf", codec.encode(_RESPONSE) + b"\xa2\x06\x03new")
    assert converter.from_payloads([newer], [HarvestResponse]) == [_RESPONSE]
    newer = _payload("json/protobuf", b'{"harvestId": "h", "newField": {"a": 1}}')
    assert converter.from_payloads([newer], [HarvestResponse]) == [HarvestResponse(harvest_id="h")]


def test_a_payload_without_type_is_read_by_the_hint() -> None:
    payload = _payload("binary/protobuf", codec.encode(_RESPONSE), None)
    assert ProtobufPayloadConverter().from_payloads([payload], [HarvestResponse]) == [_RESPONSE]


@pytest.mark.parametrize(
    ("payload", "hint", "told"),
    [
        pytest.param(_payload("binary/protobuf", b"", None), None, "no messageType", id="neither type nor hint"),
        pytest.param(_payload("binary/protobuf", b""), HarvestRequest, "expects .*HarvestRequest", id="another type"),
        pytest.param(_payload("binary/protobuf", b"\x0a\xff"), HarvestResponse, "HarvestResponse", id="truncated"),
        pytest.param(_payload("json/protobuf", b"{"), HarvestResponse, "HarvestResponse", id="broken JSON"),
        pytest.param(
            _payload("binary/protobuf", b"", "no.such.Message"), None, r"no\.such\.Message", id="unknown type"
        ),
        pytest.param(
            _payload("binary/protobuf", b"\x0a\xff", "contextunity.core.ContextUnit"),
            worker_pb2.ContextUnit,
            "ContextUnit",
            id="truncated message of Google's",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_so(payload: Payload, hint: Any, told: str) -> None:
    with pytest.raises(CodecError, match=told):
        ProtobufPayloadConverter().from_payloads([payload], [hint])


@pytest.mark.parametrize(
    "value", [None, b"bytes", 1, "text", [1, 2], {"a": 1}], ids=["none", "bytes", "int", "str", "list", "dict"]
)
def test_plain_values_go_by_the_sdks_own_converters(value: object) -> None:
    ours, theirs = ProtobufPayloadConverter(), DefaultPayloadConverter()
    assert ours.to_payloads([value]) == theirs.to_payloads([value])
    assert ours.from_payloads(theirs.to_payloads([value])) == [value]


def test_empty_messages_and_structs_are_messages_too() -> None:
    converter = ProtobufPayloadConverter()
    struct = codec.dict_to_struct({"a": [1, None]})
    payloads = converter.to_payloads([Empty(), struct])
    assert [payload.metadata["messageType"] for payload in payloads] == [
        b"google.protobuf.Empty",
        b"google.protobuf.Struct",
    ]
    assert converter.from_payloads(payloads, [Empty, Struct]) == [Empty(), struct]
