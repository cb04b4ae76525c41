"""ContextUnit as Python callers hold it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import uuid
from datetime import UTC, datetime

import pytest
from contextunity.gen.contextunity import core as gen
from contextunity.gen.contextunity.harvest.v1 import HarvestRequest
from contextunity.gen.google import protobuf as wkt
from google.protobuf import empty_pb2
from pydantic import ValidationError

from contextunity.core import CodecError, ContextUnit, codec, worker_pb2
from contextunity.core.exact_datetime import ExactDatetime


def test_it_has_the_fields_of_the_contract_and_no_others() -> None:
    assert list(ContextUnit.model_fields) == [field.name for field in worker_pb2.ContextUnit.DESCRIPTOR.fields]
    assert list(ContextUnit.model_fields) == [field.name for field in dataclasses.fields(gen.ContextUnit)]


def test_defaults_are_fresh_ids_and_now() -> None:
    one, other = ContextUnit(), ContextUnit()
    assert len({one.unit_id, one.trace_id, other.unit_id, other.trace_id}) == 4
    assert uuid.UUID(one.unit_id).version == 4
    assert one.created_at is not None
    assert abs((datetime.now(UTC) - one.created_at).total_seconds()) < 60


def test_its_time_keeps_nanoseconds_on_every_road() -> None:
    moment = ExactDatetime(2024, 5, 17, 9, 30, 12, 123_456, UTC, nanosecond=789)
    unit = ContextUnit(created_at=moment)
    assert unit.model_dump(mode="json")["created_at"] == "2024-05-17T09:30:12.123456789Z"
    for other in (
        ContextUnit.from_protobuf(unit.to_protobuf(worker_pb2)),
        ContextUnit.from_dataclass(unit.to_dataclass()),
        ContextUnit.model_validate_json(unit.model_dump_json()),
        pickle.loads(pickle.dumps(unit)),
        copy.deepcopy(unit),
    ):
        assert (type(other.created_at), other.created_at) == (ExactDatetime, moment)
    plain = ContextUnit(created_at=moment.plain())
    assert plain.model_dump(mode="json")["created_at"] == "2024-05-17T09:30:12.123456Z"
    assert type(ContextUnit.model_validate_json(plain.model_dump_json()).created_at) is datetime
    assert ContextUnit(created_at=None).model_dump(mode="json")["created_at"] is None


def test_a_full_unit_survives_the_wire() -> None:
    unit = ContextUnit(
        parent_unit_id=str(uuid.uuid4()),
        modality=gen.Modality.IMAGE,
        payload={"text": "ä", "number": 1.5, "list": [1, None, True], "nested": {"a": {}}},
        chain_of_thought=[gen.CotStep(agent="a", action="b", status="c", timestamp=datetime.now(UTC))],
        metrics=gen.UnitMetrics(latency_ms=2**40, cost_usd=0.5, tokens_used=7),
        security=gen.SecurityScopes(read=["r"], write=["w"]),
        provenance=["commerce:trigger"],
        body=codec.pack_any(HarvestRequest(supplier_code="x")),
    )
    message = unit.to_protobuf(worker_pb2)
    assert isinstance(message, worker_pb2.ContextUnit)
    assert ContextUnit.from_protobuf(message) == unit
    assert ContextUnit.from_protobuf(message).to_protobuf(worker_pb2) == message


def test_what_a_newer_peer_sent_is_kept() -> None:
    newer = worker_pb2.ContextUnit(unit_id=str(uuid.uuid4())).SerializeToString() + b"\xa2\x06\x03new"
    message = worker_pb2.ContextUnit.FromString(newer)
    assert ContextUnit.from_protobuf(message).to_protobuf(worker_pb2).SerializeToString() == newer


def test_an_absent_payload_stays_absent_and_an_empty_one_empty() -> None:
    absent = worker_pb2.ContextUnit(unit_id=str(uuid.uuid4()))
    assert not ContextUnit.from_protobuf(absent).to_protobuf(worker_pb2).HasField("payload")
    empty = worker_pb2.ContextUnit()
    empty.payload.SetInParent()
    assert ContextUnit.from_protobuf(empty).to_protobuf(worker_pb2).HasField("payload")


def test_ids_that_a_peer_left_empty_stay_empty() -> None:
    unit = ContextUnit.from_protobuf(worker_pb2.ContextUnit())
    assert (unit.unit_id, unit.trace_id, unit.created_at) == ("", "", None)


def test_a_typed_body_is_packed() -> None:
    unit = ContextUnit(body=HarvestRequest(supplier_code="camping-trade"))
    assert isinstance(unit.body, wkt.Any)
    assert unit.body.type_url == "type.googleapis.com/contextunity.harvest.v1.HarvestRequest"
    assert codec.unpack_any(unit.body) == HarvestRequest(supplier_code="camping-trade")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        pytest.param({"unit_id": "not-a-uuid"}, "unit_id", id="unit_id"),
        pytest.param({"trace_id": "7"}, "trace_id", id="trace_id"),
        pytest.param({"payload": {"a": object()}}, "payload.a", id="payload value"),
        pytest.param({"payload": {"a": 2**60 + 1}}, 'payload["a"]', id="payload integer"),
        pytest.param({"payload": {"a": float("nan")}}, 'payload["a"]', id="payload nan"),
        pytest.param({"created_at": datetime(2020, 1, 1)}, "created_at", id="naive time"),
        pytest.param({"provenance": "commerce:trigger"}, "provenance", id="provenance text"),
        pytest.param({"modality": "smell"}, "modality", id="modality"),
        pytest.param({"metrics": gen.UnitMetrics(tokens_used=2**40)}, "metrics.tokens_used", id="out of range"),
        pytest.param({"unit_identity": "x"}, "unit_identity", id="unknown field"),
        pytest.param({"body": "text"}, "body", id="body"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(values: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ContextUnit(**values)  # type: ignore[arg-type]  # wrong on purpose
    assert field in str(caught.value).replace("\n", ".")


def test_another_message_is_refused() -> None:
    with pytest.raises(CodecError, match=r"expected contextunity\.core\.ContextUnit, got google\.protobuf\.Empty"):
        ContextUnit.from_protobuf(empty_pb2.Empty())
