"""Callers that mean no good, or do not know what they do."""

from __future__ import annotations

import asyncio
import base64
import threading
import uuid
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity import core as gen
from contextunity.gen.contextunity.worker import ScheduleEntry, TaskReply

from contextunity.core import ContextUnit, codec, worker_pb2
from contextunity.core.context import MAX_PROVENANCE
from contextunity.modules.code.plugin import module as code
from contextunity.worker.core.registry import WorkerRegistry
from contextunity.worker.schedules.check import EntryError, check_entry
from contextunity.worker.service import Call
from contextunity.worker.service.payloads import answered
from contextunity.worker.unit_bytes import trace_id_of

from .conftest import Desk, Refusal, refusal_of
from .raw_http2 import RawConnection

_MIB = 1024 * 1024


@pytest.fixture
def waiting(desk: Desk) -> str:
    return desk.start(name="a", mode="MODE_WAIT")


@pytest.mark.parametrize("text", ["a" * 201, "a\nb", "a\0b", "\u202e"])
@pytest.mark.parametrize("field", ["unit_id", "trace_id", "provenance"])
def test_an_envelope_that_nobody_can_keep_is_refused_by_its_place(desk: Desk, field: str, text: str) -> None:
    unit = worker_pb2.ContextUnit(trace_id="t")
    unit.payload.update({"workflow_type": "ping"})
    if field == "provenance":
        unit.provenance.extend(["a:b", text * 3])
    else:
        setattr(unit, field, text)
    with pytest.raises(grpc.RpcError) as caught:
        desk.send("StartWorkflow", unit)
    refusal = refusal_of(caught.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_INVALID")
    assert set(refusal.violations) == {"provenance[1]" if field == "provenance" else field}


def test_a_task_carries_the_beginning_of_a_long_provenance(desk: Desk) -> None:
    unit = ContextUnit(
        payload={"workflow_type": "work", "name": "a"}, provenance=[f"hop:{number}" for number in range(2000)]
    )
    assert len(desk.call("StartWorkflow", unit=unit).provenance) == 2001
    carried = Call(unit=gen.ContextUnit(provenance=unit.provenance), label="worker:start_workflow").context("one")
    assert carried.provenance == unit.provenance[:MAX_PROVENANCE]


@pytest.mark.parametrize("workflow_id", ["a" * 1001, "\U0001f4a3" * 2000, "a\0b"])
def test_an_id_that_no_task_can_have_is_unknown(desk: Desk, workflow_id: str) -> None:
    for method in ("GetTaskStatus", "CancelTask", "TerminateTask"):
        with pytest.raises(Refusal) as caught:
            desk.call(method, {"workflow_id": workflow_id})
        assert caught.value.reason == "TASK_UNKNOWN"


@pytest.mark.parametrize("project_id", ["\U0001f4a3" * 2000, "\0" * 900])
def test_a_schedule_that_cannot_be_is_unknown(desk: Desk, project_id: str) -> None:
    with pytest.raises(Refusal) as caught:
        desk.call("PauseSchedule", {"schedule_id": "a", "project_id": project_id})
    assert caught.value.reason == "SCHEDULE_UNKNOWN"


@pytest.mark.parametrize("size", [2 * _MIB + 1, 5 * _MIB])
@pytest.mark.parametrize("method", ["StartWorkflow", "SignalTask", "UpdateTask"])
def test_what_temporal_does_not_keep_is_too_large_and_not_to_be_tried_again(
    desk: Desk, waiting: str, method: str, size: int
) -> None:
    text = "a" * size
    payloads: dict[str, dict[str, Any]] = {
        "StartWorkflow": {"workflow_type": "join", "name": text},
        "SignalTask": {"workflow_id": waiting, "signal": "note", "args": {"text": text}},
        "UpdateTask": {"workflow_id": waiting, "update": "rename", "args": {"name": text}},
    }
    with pytest.raises(Refusal) as caught:
        desk.call(method, payloads[method], token=desk.token("default"))
    refusal = caught.value
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UNIT_TOO_LARGE")
    assert refusal.retry_after is None
    # An update that the worker cannot take in would keep it from everything else.
    assert desk.call("QueryTask", {"workflow_id": waiting, "query": "progress"}).payload["result"]["name"] == "a"


def test_words_of_temporal_are_not_passed_on(desk: Desk) -> None:
    with pytest.raises(Refusal) as caught:
        desk.call("StartWorkflow", {"workflow_type": "join", "name": "a" * 2000})
    assert caught.value.reason == "REFUSED_BY_TEMPORAL"
    assert "WorkflowId exceeds" not in caught.value.message


def test_a_page_token_that_was_changed_is_refused(desk: Desk) -> None:
    for _ in range(3):
        desk.wait(desk.start("ping"))
    conditions = {"workflow_type": ["ping"], "page_size": 1}
    desk.eventually(lambda: "next_page_token" in desk.call("ListTasks", conditions).payload, True)
    token = desk.call("ListTasks", conditions).payload["next_page_token"]
    sealed = base64.urlsafe_b64decode(token)
    for changed in (sealed[:-3], sealed[:8] + b"{}", sealed[:8] + b"garbage", sealed[:4]):
        with pytest.raises(Refusal) as caught:
            desk.call("ListTasks", {**conditions, "page_token": base64.urlsafe_b64encode(changed).decode()})
        assert caught.value.reason == "PAGE_TOKEN_INVALID"
    desk.call("ListTasks", {**conditions, "page_token": token})


def test_a_nul_in_a_condition_is_refused(desk: Desk) -> None:
    with pytest.raises(Refusal) as caught:
        desk.call("ListTasks", {"workflow_type": ["a\0"]})
    assert set(caught.value.violations) == {"payload.workflow_type"}


def _nested(levels: int) -> bytes:
    """Bytes of a unit whose payload has lists in lists."""

    def field(tag: int, data: bytes) -> bytes:
        length = bytearray()
        left = len(data)
        while left > 0x7F:
            length.append(left & 0x7F | 0x80)
            left >>= 7
        return bytes([tag, *length, left]) + data

    value = field(0x1A, b"x")
    for _ in range(levels):
        value = field(0x32, field(0x0A, value))
    return field(0x12, b"trace-1") + field(0x2A, field(0x0A, field(0x0A, b"k") + field(0x12, value)))


@pytest.mark.parametrize("levels", [60, 10_000])
def test_a_unit_nested_too_deep_is_told_so_with_its_trace(desk: Desk, levels: int) -> None:
    with grpc.insecure_channel(desk.target) as channel:
        ask: Any = channel.unary_unary("/contextunity.worker.WorkerService/GetTaskStatus")
        with pytest.raises(grpc.RpcError) as caught:
            ask(_nested(levels), timeout=30)
    refusal = refusal_of(caught.value)
    assert refusal.reason == "UNIT_UNREADABLE"
    assert refusal.metadata["trace_id"] == "trace-1"
    assert "nested more than 100 deep" in refusal.message
    assert "upb" not in refusal.message


def test_the_trace_is_read_out_of_any_bytes() -> None:
    unit = worker_pb2.ContextUnit(unit_id=str(uuid.uuid4()), trace_id="t", parent_unit_id="p")
    data = unit.SerializeToString()
    assert trace_id_of(data) == "t"
    assert trace_id_of(data + b"\xff\xff") == "t"
    assert trace_id_of(b"") == ""
    assert trace_id_of(b"\xff" * 100) == ""
    assert trace_id_of(data[:20]) == ""
    # An endless row of fields before it is not gone through.
    assert trace_id_of(b"\x20\x00" * 1_000_000 + data) == ""


def test_what_is_nested_too_deep_for_a_payload_stands_in_the_body() -> None:
    data: dict[str, Any] = {"x": 1}
    for _ in range(31):
        data = {"x": data}
    packed = codec.pack_any(codec.dict_to_struct(data))
    unit = answered(Call(unit=gen.ContextUnit()), TaskReply(workflow_id="w", result=packed))
    read = codec.decode(gen.ContextUnit, unit.SerializeToString())
    assert read.payload is not None
    assert read.body is not None
    told: Any = codec.struct_to_dict(read.payload)
    assert told["workflow_id"] == "w"
    assert told["result"]["x"]["x"]["x"]
    assert codec.unpack_any(read.body) == TaskReply(workflow_id="w", result=packed)


def test_a_schedule_that_no_list_could_tell_is_refused() -> None:
    registry = WorkerRegistry()
    registry.register(code)
    inputs: Any = "x"
    for _ in range(42):
        inputs = [inputs]
    entry = ScheduleEntry(
        schedule_id="deep",
        workflow_type="execute_code",
        cron="0 3 * * *",
        args=codec.dict_to_struct({"code": "x", "inputs": {"x": inputs}}),
    )
    with pytest.raises(EntryError) as caught:
        check_entry(entry, registry.workflows, tenant_id="one", project_id="p")
    assert [each.path for each in caught.value.violations] == ["args"]


def test_a_task_of_another_tenant_is_joined_by_nobody(desk: Desk) -> None:
    for workflow_type in ("join", "replace"):
        name = str(uuid.uuid4())
        theirs = desk.start(workflow_type, name=name, tenant_id="theirs")
        with pytest.raises(Refusal) as caught:
            desk.start(workflow_type, name=name, tenant_id="ours")
        assert caught.value.reason == "TASK_EXISTS"
        assert desk.status(theirs)["status"] == "running"


def _ask(desk: Desk, *metadata: tuple[str, str]) -> grpc.StatusCode:
    with grpc.insecure_channel(desk.guarded_target) as channel:
        call: Any = channel.unary_unary("/contextunity.worker.WorkerService/DescribeContracts")
        try:
            call(b"", metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param([("authorization", "Bearer " + "a" * 1024 * 1024)], id="token_of_a_megabyte"),
        pytest.param([(f"x-{number}", "y") for number in range(10_000)], id="ten_thousand_entries"),
    ],
)
def test_headers_beyond_all_measure_are_refused(desk: Desk, metadata: list[tuple[str, str]]) -> None:
    token = ("authorization", f"Bearer {Desk.token('one')}")
    refused = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE)
    more = metadata if metadata[0][0] == "authorization" else [token, *metadata]
    assert _ask(desk, *more) in refused
    assert _ask(desk, token) is grpc.StatusCode.OK


def test_watches_beyond_the_quota_are_refused_and_hold_up_nobody(desk: Desk) -> None:
    token, other = Desk.token("watcher"), Desk.token("bystander")
    task = desk.start(name="a", mode="MODE_WAIT", token=token)
    unit = ContextUnit(payload={"workflow_id": task}).to_protobuf(worker_pb2).SerializeToString()
    refused = threading.Semaphore(0)
    with grpc.insecure_channel(desk.guarded_target) as channel:
        watch: Any = channel.unary_stream("/contextunity.worker.WorkerService/WatchTask")
        calls = [watch(unit, metadata=[("authorization", f"Bearer {token}")], timeout=60) for _ in range(1500)]
        for call in calls:
            call.add_callback(refused.release)
        # A thousand are let in; the rest ends at once.
        for _ in range(500):
            assert refused.acquire(timeout=60)
        assert desk.call("DescribeContracts", {}, token=other)
        assert desk.status(task, token=token)["status"] == "running"
        for call in calls:
            call.cancel()
    desk.call("TerminateTask", {"workflow_id": task}, token=token)


async def test_a_client_that_never_reads_holds_up_nobody(desk: Desk) -> None:
    token = Desk.token("one")
    unit = ContextUnit().to_protobuf(worker_pb2).SerializeToString()
    host, _, port = desk.guarded_target.partition(":")
    connection = await RawConnection.connect(host, int(port), reads=False)
    for stream in range(1, 401, 2):
        connection.call(
            stream,
            "/contextunity.worker.WorkerService/DescribeContracts",
            declared=len(unit),
            sends=len(unit),
            token=token,
        )
    answered = await asyncio.to_thread(desk.call, "DescribeContracts", {}, token=token)
    assert answered.payload
    await connection.close()
