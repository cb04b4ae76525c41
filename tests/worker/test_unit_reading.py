"""Units from bytes: what is too much to work on is refused, wherever it stands and however it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.core.context_unit_pb2 import ContextUnit as UnitMessage
from contextunity.gen.contextunity.worker.code_pb2 import ExecuteCodeRequest
from google.protobuf.struct_pb2 import ListValue, Struct

from betterproto2_codec._schema import IS_NATIVE
from contextunity.core import codec
from contextunity.worker.boundary import read_unit
from contextunity.worker.grpc_errors import Reason, ServiceError

MOST = 1000
UNKNOWN_FIELD = b"\xf8\x07\x01"
"""With it, no unit is read apart from its payload."""


def _flat(count: int) -> Struct:
    """A payload of so many values: a list, and what is in it."""
    struct = Struct()
    struct.fields["x"].list_value.CopyFrom(ListValue.FromString(b"\x0a\x02\x20\x01" * (count - 1)))
    return struct


def _empty(count: int) -> Struct:
    struct = Struct()
    struct.fields["x"].list_value.CopyFrom(ListValue.FromString(b"\x0a\x00" * (count - 1)))
    return struct


def _objects(count: int) -> Struct:
    """Half of the values are objects, the others stand in them."""
    struct = Struct()
    for number in range(count // 2):
        struct.fields[f"k{number}"].struct_value.fields["a"].bool_value = True
    return struct


def _in_payload(struct: Struct) -> bytes:
    return UnitMessage(payload=struct).SerializeToString()


def _in_payload_and_odd(struct: Struct) -> bytes:
    return UnitMessage(payload=struct).SerializeToString() + UNKNOWN_FIELD


def _in_body(struct: Struct) -> bytes:
    unit = UnitMessage()
    unit.body.Pack(ExecuteCodeRequest(code="1", inputs=struct))
    return unit.SerializeToString()


def _payload(unit: ContextUnit, payload: dict[str, Any] | None) -> dict[str, Any]:
    return payload or {} if unit.payload is None else codec.struct_to_dict(unit.payload)


contents = pytest.mark.parametrize("content", [_flat, _empty, _objects])
places = pytest.mark.parametrize("place", [_in_payload, _in_payload_and_odd, _in_body])


@contents
@places
def test_more_values_than_are_taken_are_refused(
    content: Callable[[int], Struct], place: Callable[[Struct], bytes]
) -> None:
    with pytest.raises(ServiceError) as caught:
        read_unit(place(content(2 * MOST + 10)), max_values=MOST)
    assert caught.value.reason is Reason.UNIT_TOO_LARGE
    where = "body" if place is _in_body else "payload"
    assert caught.value.message.startswith(f"the {where} holds more than 1,000 values")
    assert "CONTEXTWORKER_MAX_PAYLOAD_VALUES" in caught.value.message


@contents
@places
def test_as_many_as_are_taken_are_read(content: Callable[[int], Struct], place: Callable[[Struct], bytes]) -> None:
    data = place(content(MOST - 200)) + UnitMessage(provenance=["x" * 5000]).SerializeToString()
    read = read_unit(data, max_values=MOST)
    assert (read[1] is None) == (place is _in_payload_and_odd or not IS_NATIVE)
    if place is not _in_body:
        assert len(_payload(*read)) in (1, (MOST - 200) // 2)


def test_long_texts_are_few_values() -> None:
    struct = Struct()
    struct.fields["text"].string_value = "\n" * 100_000
    assert _payload(*read_unit(_in_payload(struct), max_values=MOST)) == {"text": "\n" * 100_000}


def test_a_body_that_nobody_knows_is_left_to_who_reads_it() -> None:
    unit = UnitMessage()
    unit.body.type_url, unit.body.value = "type.googleapis.com/nobody.Knows", b"\x0a\x00" * 5000
    read, _ = read_unit(unit.SerializeToString(), max_values=MOST)
    assert read.body is not None
    unit.body.type_url = "type.googleapis.com/contextunity.worker.ExecuteCodeRequest"
    read, _ = read_unit(unit.SerializeToString() + UNKNOWN_FIELD, max_values=MOST)
    assert read.body is not None


def test_bytes_that_are_no_unit_are_unreadable_however_many() -> None:
    with pytest.raises(ServiceError) as caught:
        read_unit(b"\xff" * 5000, max_values=MOST)
    assert caught.value.reason is Reason.UNIT_UNREADABLE
