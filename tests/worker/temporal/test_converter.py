"""The data converter: what is written, what is read, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import Feed, HarvestCounts, HarvestRequest, HarvestResponse, harvest_pb2
from contextunity.gen.google.protobuf import Empty, Struct
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import (
    ActivitySerializationContext,
    DefaultPayloadConverter,
    WorkflowSerializationContext,
)
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from contextunity.core import CodecError, codec, worker_pb2
from contextunity.core.exact_datetime import ExactDatetime
from contextunity.worker.temporal.converter import ProtobufPayloadConverter, data_converter
from contextunity.worker.temporal.errors import INVALID_INPUT, UndecodableInputError

_RESPONSE = HarvestResponse(
    harvest_id="h", counts=HarvestCounts(pages=2**40), started_at=datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
)

_MOMENT = ExactDatetime(2026, 1, 2, 3, 4, 5, 600_007, UTC, nanosecond=89)


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


def test_names_of_enums_of_a_newer_version_are_tolerated_as_well() -> None:
    converter = ProtobufPayloadConverter()
    newer = b'{"version": "e", "format": "FEED_FORMAT_NEWER"}'
    payload = _payload("json/protobuf", newer, "contextunity.harvest.v1.Feed")
    assert converter.from_payloads([payload], [Feed]) == [Feed(version="e")]
    assert converter.from_payloads([payload], [harvest_pb2.Feed]) == [harvest_pb2.Feed(version="e")]
    with pytest.raises(CodecError, match="'FEED_FORMAT_NEWER' is no"):
        codec.from_json(Feed, newer)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        pytest.param("2026-01-02T03:04:05.600007089Z", _MOMENT, id="nine digits"),
        pytest.param("2026-01-02T03:04:05.600007Z", _MOMENT.plain(), id="six digits"),
    ],
)
def test_datetimes_as_plain_json_keep_their_nanoseconds(text: str, read: datetime) -> None:
    converter = ProtobufPayloadConverter()
    payload = Payload(metadata={"encoding": b"json/plain"}, data=f'"{text}"'.encode())
    for made in converter.from_payloads([payload, *converter.to_payloads([read])], [datetime, datetime]):
        assert (type(made), made) == (type(read), read)
    [inside] = converter.from_payloads(converter.to_payloads([{"at": read}]), [dict[str, datetime]])
    assert inside == {"at": read}


def test_a_payload_without_type_is_read_by_the_hint() -> None:
    payload = _payload("binary/protobuf", codec.encode(_RESPONSE), None)
    assert ProtobufPayloadConverter().from_payloads([payload], [HarvestResponse]) == [_RESPONSE]


@pytest.mark.parametrize(
    ("payload", "hint", "told"),
    [
        pytest.param(_payload("binary/protobuf", b"", None), None, "no messageType", id="neither type nor hint"),
        pytest.param(_payload("binary/protobuf", b""), HarvestRequest, "expects .*HarvestRequest", id="another type"),
        pytest.param(_payload("binary/protobuf", b"\x0a\xff"), HarvestResponse, "HarvestResponse", id="truncated"),
        pytest.param(_payload("json/plain", b"[1]"), HarvestResponse, "HarvestResponse", id="plain JSON of no object"),
        pytest.param(_payload("secret/box", b""), HarvestResponse, "encoding secret/box", id="unknown encoding"),
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


@pytest.mark.parametrize(
    ("hint", "read"),
    [
        pytest.param(HarvestRequest, HarvestRequest(supplier_code="s", max_products=2**40), id="dataclass"),
        pytest.param(HarvestRequest | None, HarvestRequest(supplier_code="s", max_products=2**40), id="optional"),
        pytest.param(
            harvest_pb2.HarvestRequest, harvest_pb2.HarvestRequest(supplier_code="s", max_products=2**40), id="pb2"
        ),
        pytest.param(dict, {"supplierCode": "s", "maxProducts": str(2**40), "new": 1}, id="no message"),
    ],
)
def test_plain_json_is_protojson_where_a_message_is_expected(hint: Any, read: Any) -> None:
    typed = Payload(
        metadata={"encoding": b"json/plain"}, data=b'{"supplierCode": "s", "maxProducts": "1099511627776", "new": 1}'
    )
    assert ProtobufPayloadConverter().from_payloads([typed], [hint]) == [read]


def test_plain_null_is_none() -> None:
    hint: Any = HarvestRequest | None
    null = Payload(metadata={"encoding": b"json/plain"}, data=b"null")
    assert ProtobufPayloadConverter().from_payloads([null], [hint]) == [None]


_OF_WORKFLOW = WorkflowSerializationContext(namespace="default", workflow_id="w")
_OF_ACTIVITY = ActivitySerializationContext(
    namespace="default",
    workflow_id="w",
    workflow_type=None,
    activity_type=None,
    activity_id=None,
    activity_task_queue=None,
    is_local=False,
)


def test_what_a_workflow_cannot_read_is_a_failure_that_is_not_retried() -> None:
    converter = ProtobufPayloadConverter()
    broken = _payload("binary/protobuf", b"\x0a\xff")
    with pytest.raises(UndecodableInputError, match="HarvestResponse") as caught:
        converter.with_context(_OF_WORKFLOW).from_payloads([broken], [HarvestResponse])
    assert isinstance(caught.value, CodecError)
    assert (caught.value.type, caught.value.non_retryable) == (INVALID_INPUT, True)
    assert caught.value.violations
    with pytest.raises(CodecError) as plain:
        converter.with_context(_OF_WORKFLOW).with_context(_OF_ACTIVITY).from_payloads([broken], [HarvestResponse])
    assert not isinstance(plain.value, UndecodableInputError)


def test_an_activity_that_cannot_read_its_input_is_not_retried() -> None:
    failure = Failure()
    error = ApplicationError("Failed decoding arguments")
    error.__cause__ = CodecError("is no number", path="page", message_type="a.B")
    data_converter.failure_converter.to_failure(error, data_converter.payload_converter, failure)
    assert failure.message == "a.B: page: is no number"
    assert failure.application_failure_info.type == INVALID_INPUT
    assert failure.application_failure_info.non_retryable


def test_other_errors_stay_as_they_are() -> None:
    failure = Failure()
    error = ApplicationError("no feed", type="FeedGone")
    error.__cause__ = CodecError("is no number")
    data_converter.failure_converter.to_failure(error, data_converter.payload_converter, failure)
    assert (failure.message, failure.application_failure_info.type) == ("no feed", "FeedGone")
    assert not failure.application_failure_info.non_retryable


def test_empty_messages_and_structs_are_messages_too() -> None:
    converter = ProtobufPayloadConverter()
    struct = codec.dict_to_struct({"a": [1, None]})
    payloads = converter.to_payloads([Empty(), struct])
    assert [payload.metadata["messageType"] for payload in payloads] == [
        b"google.protobuf.Empty",
        b"google.protobuf.Struct",
    ]
    assert converter.from_payloads(payloads, [Empty, Struct]) == [Empty(), struct]


def _raise(depth: int, text: str) -> None:
    """Raises an error with as many causes, each with a stack trace."""
    try:
        _raise(depth - 1, text) if depth else int(text)
    except (ValueError, ApplicationError) as error:
        raise ApplicationError(text, {"rows": 7}, type="Broken") from error


@pytest.mark.parametrize("depth", [0, 3, 40])
@pytest.mark.parametrize("text", ["short", "é" * 10_000])
def test_the_failure_of_an_activity_is_short_enough_for_the_server(depth: int, text: str) -> None:
    def fail() -> Failure:
        failure = Failure()
        with pytest.raises(ApplicationError) as caught:
            _raise(depth, text)
        data_converter.failure_converter.to_failure(caught.value, data_converter.payload_converter, failure)
        return failure

    whole, kept = fail(), ActivityEnvironment().run(fail)
    assert whole.message == text
    assert kept.ByteSize() <= 3000
    assert (kept == whole) == (depth < 40 and text == "short")
    assert kept.message[:100] == text[:100]
    assert kept.application_failure_info == whole.application_failure_info
    assert kept.HasField("cause")
    assert kept.cause.message[:30] == (text if depth else f"invalid literal for int() with base 10: {text!r}")[:30]
    if kept.stack_trace:
        assert whole.stack_trace.endswith(kept.stack_trace.removeprefix("…\n"))


def test_a_failure_that_is_not_repeated_stays_whole() -> None:
    failure = Failure()

    def fail() -> None:
        error = ApplicationError("x" * 10_000, type="Broken", non_retryable=True)
        data_converter.failure_converter.to_failure(error, data_converter.payload_converter, failure)

    ActivityEnvironment().run(fail)
    assert failure.message == "x" * 10_000
