"""Callers that mean no good, or do not know what they do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity import core as gen
from contextunity.gen.contextunity.worker import ScheduleEntry, TaskReply
from pydantic import SecretStr

from contextunity.core import ContextUnit, codec, worker_pb2, worker_pb2_grpc
from contextunity.core.context import MAX_PROVENANCE
from contextunity.modules.code.plugin import module as code
from contextunity.worker.auth import Caller, authenticator_for
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.rejected_calls import trace_id_of
from contextunity.worker.schedules.check import EntryError, check_entry
from contextunity.worker.server import RunningServer
from contextunity.worker.service import Call
from contextunity.worker.service.payloads import encode_answer
from contextunity.worker.settings import Settings

from .conftest import SECRET, Desk, Refusal, ask, refusal_of, serving
from .raw_http2 import RawConnection

_MIB = 1024 * 1024
_SERVICE = "/contextunity.worker.WorkerService"
_DESCRIBE = f"{_SERVICE}/DescribeContracts"


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


@pytest.mark.parametrize("character", ["\n", "\x1b", "\x7f", "\x9b", "\u202e", "\u2028"])
def test_an_id_that_could_not_be_shown_is_not_made(desk: Desk, character: str) -> None:
    text = f"a{character}b"
    violation = f"has the control character U+{ord(character):04X}, which no id may have"
    schedule = {"schedule_id": "a", "workflow_type": "ping", "cron": "0 3 * * *"}
    requests: list[tuple[str, dict[str, Any], str]] = [
        ("StartWorkflow", {"workflow_type": "join", "name": text}, "payload.name"),
        ("StartWorkflow", {"workflow_type": "join", "args": {"name": text}}, "payload.name"),
        ("RegisterSchedules", {"schedules": [{**schedule, "schedule_id": text}]}, "payload.schedules[0].schedule_id"),
        ("RegisterSchedules", {"schedules": [schedule], "project_id": text}, "payload.project_id"),
    ]
    for method, payload, field in requests:
        with pytest.raises(Refusal) as caught:
            desk.call(method, payload)
        refusal = caught.value
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_INVALID")
        assert list(refusal.violations) == [field]
        assert refusal.violations[field].endswith(violation)
    # What is no part of an id is not concerned, and letters of any script may be.
    for name in ("ééé 商品\u00a0👩\u200d🚀",):
        desk.call("StartWorkflow", {"workflow_type": "join", "name": name})
        desk.call("TerminateTask", {"workflow_id": f"join/{name}"})
    assert desk.wait(desk.start(name=text))["status"] == "completed"


def test_an_update_without_what_its_id_is_made_of_is_refused(desk: Desk) -> None:
    chain = desk.start("chain", then="wait")
    for args, field in (({}, "args.name"), ({"name": "a\x1b"}, "args")):
        with pytest.raises(Refusal) as caught:
            desk.call("UpdateTask", {"workflow_id": chain, "update": "change", "args": args})
        assert (caught.value.reason, list(caught.value.violations)) == ("PAYLOAD_INVALID", [field])
    desk.call("TerminateTask", {"workflow_id": chain})


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


def test_what_temporal_refuses_is_told_in_its_words(desk: Desk) -> None:
    with pytest.raises(Refusal) as caught:
        desk.call("StartWorkflow", {"workflow_type": "join", "name": "a" * 2000})
    assert caught.value.reason == "REFUSED_BY_TEMPORAL"
    assert "WorkflowId exceeds maximum allowed length (2005/1000)" in caught.value.message


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
    unit = encode_answer(Call(unit=gen.ContextUnit()), TaskReply(workflow_id="w", result=packed))
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
        calls = [watch(unit, metadata=[("authorization", f"Bearer {token}")], timeout=60) for _ in range(700)]
        for call in calls:
            if not call.add_callback(refused.release):
                # It has ended already, and grpc calls nothing.
                refused.release()
        # Two hundred are let in; the rest ends at once.
        for _ in range(500):
            assert refused.acquire(timeout=60)
        assert desk.call("DescribeContracts", {}, token=other)
        assert desk.status(task, token=token)["status"] == "running"
        for call in calls:
            call.cancel()
    desk.call("TerminateTask", {"workflow_id": task}, token=token)


class _Counting:
    """Counts how often somebody is asked who calls."""

    confirm = None

    def __init__(self) -> None:
        self.asked = 0
        self._asks = authenticator_for(Settings(auth="token", token_secret=SecretStr(SECRET)))

    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        self.asked += 1
        return self._asks.authenticate(metadata)


async def _until(reached: Callable[[], bool]) -> None:
    """Waits until it is so, where there is no event of it: what grpcio lets go of tells nobody."""
    async with asyncio.timeout(60):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def _attacked(server: RunningServer, *, reads: bool = True) -> AsyncGenerator[RawConnection]:
    """A connection of somebody who means no good; whatever was begun for it has ended when it is left."""
    await ask(server, Desk.token("bystander"))
    before = len(asyncio.all_tasks())
    connection = await RawConnection.connect("127.0.0.1", server.port, reads=reads)
    async with asyncio.timeout(90):
        yield connection
    await connection.close()
    await _until(lambda: len(asyncio.all_tasks()) <= before)


@pytest.mark.parametrize("token", [pytest.param("", id="stranger"), pytest.param("good", id="tenant")])
async def test_calls_that_are_cancelled_without_end_hold_up_nobody(registry: WorkerRegistry, token: str) -> None:
    times, counting = 20_000, _Counting()
    async with serving(registry, counting, max_connection_calls=64) as server, _attacked(server) as connection:
        flood = asyncio.create_task(
            connection.call_and_cancel(_DESCRIBE, times=times, token=token and Desk.token("flooding"))
        )
        for _ in range(5):
            await ask(server, Desk.token("bystander"))
        await flood
        await ask(server, Desk.token("bystander"))
    # grpcio refuses most of them by itself.
    assert counting.asked < times // 2


async def test_a_client_that_is_refused_and_calls_again_slows_itself_alone(registry: WorkerRegistry) -> None:
    counting = _Counting()
    async with serving(registry, counting, max_connection_calls=64) as server, _attacked(server) as connection:
        for stream in range(1, 10_001, 2):
            connection.call(stream, _DESCRIBE, declared=_MIB, sends=0)
        await ask(server, Desk.token("bystander"))
        await connection.until_so_many_ended(5000)
        await ask(server, Desk.token("bystander"))
    assert counting.asked < 2500


async def test_a_flood_of_pings_ends_the_connection(registry: WorkerRegistry) -> None:
    async with serving(registry) as server:
        async with _attacked(server) as connection:
            await connection.ping(5)
            await connection.until_hung_up()
            assert connection.farewell == b"too_many_pings"
        async with _attacked(server) as connection:
            with contextlib.suppress(ConnectionError):
                await connection.ping(10_000)
            await connection.until_hung_up()
            await ask(server, Desk.token("bystander"))


async def test_pings_of_clients_that_keep_their_connection_alive_are_taken(registry: WorkerRegistry) -> None:
    async with serving(registry) as server, _attacked(server) as connection:
        await connection.ping(1)
        connection.call(1, _DESCRIBE, declared=0, sends=0)
        await connection.until_ended(1)
        assert connection.farewell == b""


@pytest.mark.parametrize("token", [pytest.param("", id="stranger"), pytest.param("good", id="tenant")])
async def test_a_client_that_never_reads_holds_up_nobody(registry: WorkerRegistry, token: str) -> None:
    unit = ContextUnit().to_protobuf(worker_pb2).SerializeToString()
    token = token and Desk.token("flooding")
    async with serving(registry) as server, _attacked(server, reads=False) as connection:
        for stream in range(1, 401, 2):
            connection.call(stream, _DESCRIBE, declared=len(unit), sends=len(unit), token=token)
        await ask(server, Desk.token("bystander"))


async def test_watches_that_nobody_reads_hold_up_nobody(desk: Desk) -> None:
    token = Desk.token("flooding")
    task = await asyncio.to_thread(desk.start, name="a", mode="MODE_WAIT", token=token)
    unit = ContextUnit(payload={"workflow_id": task}).to_protobuf(worker_pb2)
    data = unit.SerializeToString()
    host, _, port = desk.guarded_target.partition(":")
    connection = await RawConnection.connect(host, int(port), reads=False)
    for stream in range(1, 101, 2):
        connection.call(stream, f"{_SERVICE}/WatchTask", message=data, token=token)
    status = await asyncio.to_thread(desk.status, task, token=token)
    assert status["status"] == "running"
    await connection.close()
    await asyncio.to_thread(desk.call, "TerminateTask", {"workflow_id": task}, token=token)


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_five_thousand_watches_hold_up_nobody_and_end_together(desk: Desk) -> None:
    tenants, tasks, watches = 25, 20, 10
    async with contextlib.AsyncExitStack() as stack:
        calls, ends = list[Any](), list[Any]()
        for number in range(tenants):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(desk.guarded_target, options=options))
            stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)
            metadata = [("authorization", f"Bearer {Desk.token(f'watcher-{number}')}")]
            for _ in range(tasks):
                start = ContextUnit(payload={"workflow_type": "work", "name": "a", "mode": "MODE_WAIT"})
                answer = await stub.StartWorkflow(start.to_protobuf(worker_pb2), metadata=metadata)
                unit = ContextUnit(payload={"workflow_id": answer.payload["workflow_id"]}).to_protobuf(worker_pb2)
                calls += [stub.WatchTask(unit, metadata=metadata) for _ in range(watches)]
                ends.append(functools.partial(stub.TerminateTask, unit, metadata=metadata))
        for call in calls:
            assert (await call.read()).payload["status"] == "running"
        assert await asyncio.to_thread(desk.call, "DescribeContracts", {}, token=Desk.token("bystander"))
        await asyncio.gather(*(end() for end in ends))
        # Told one by one that a task has ended, they would meet the development server's own limit of calls a second.
        for call in calls:
            assert (await call.read()).payload["status"] == "terminated"
            assert await call.read() is grpc.aio.EOF
