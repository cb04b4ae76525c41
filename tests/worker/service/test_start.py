"""StartWorkflow: the strict contract of a workflow_type, its two forms, and what a repetition gives."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from contextunity.gen.contextunity import core as gen
from contextunity.gen.contextunity.worker import QueryTaskRequest
from contextunity.gen.google import protobuf
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy

from contextunity.core import ContextUnit, codec
from contextunity.worker.auth import Caller
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.fair_gate import FairGate
from contextunity.worker.grpc_errors import Reason, ServiceError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.quotas import Quotas
from contextunity.worker.service import Call, WorkerService
from contextunity.worker.service.call import Engine
from contextunity.worker.service.inputs import StartRequest
from contextunity.worker.service.programs import Programs
from contextunity.worker.service.start import StartWorkflowHandler
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from contextunity.worker.temporal.tenancy import fairness_key

from .conftest import Desk, Refusal


def _new() -> str:
    return uuid.uuid4().hex[:12]


def _refused(desk: Desk, payload: dict[str, Any], **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        desk.call("StartWorkflow", payload, **options)
    return caught.value


def test_parameters_stand_beside_the_routing_keys_or_in_args(desk: Desk) -> None:
    for payload in (
        {"workflow_type": "work", "name": "a", "big": "9007199254740993", "tenant_id": "one"},
        {"workflow_type": "work", "args": {"name": "a", "big": "9007199254740993"}, "tenant_id": "one"},
        {"workflow_type": "work", "args": {"name": "a", "tenantId": "one"}, "big": "9007199254740993"},
    ):
        answer = desk.call("StartWorkflow", payload)
        assert answer.payload.keys() == {"workflow_id", "run_id", "status"}
        assert answer.payload["status"] == "started"
        done = desk.wait(str(answer.payload["workflow_id"]))
        assert done["result"] == {"text": "a for one", "big": "9007199254740993"}


def test_the_typed_message_alone_tells_the_workflow_type(desk: Desk, desk_messages: SimpleNamespace) -> None:
    request = desk_messages.WorkRequest(name="typed", mode=desk_messages.Mode.DONE, big=2**62)
    answer = desk.call("StartWorkflow", body=request)
    result = desk.body(answer)
    assert codec.full_name(result) == "contextunity.worker.StartWorkflowResult"
    assert (result.workflow_id, result.run_id) == (answer.payload["workflow_id"], answer.payload["run_id"])
    status = desk.body(desk.call("GetTaskStatus", {"workflow_id": result.workflow_id}))
    desk.wait(result.workflow_id)
    status = desk.body(desk.call("GetTaskStatus", {"workflow_id": result.workflow_id}))
    assert cast("Any", codec.unpack_any(status.result)).big == 2**62


@pytest.mark.parametrize("tenant", ["one", "t" * 200])
def test_its_tasks_wait_under_the_tenants_key(desk: Desk, temporal_server: EmbeddedServer, tenant: str) -> None:
    answer = desk.call("StartWorkflow", {"workflow_type": "work", "name": "a", "tenant_id": tenant})

    async def kept() -> str:
        client = await Client.connect(temporal_server.address)
        description = await client.get_workflow_handle(str(answer.payload["workflow_id"])).describe()
        return description.raw_description.workflow_execution_info.priority.fairness_key

    assert asyncio.run(kept()) == fairness_key(tenant)


def test_body_and_workflow_type_must_agree(desk: Desk, desk_messages: SimpleNamespace) -> None:
    named = desk_messages.NamedRequest(name="x")
    several = _refused(desk, {}, body=named)
    assert (several.code, several.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BODY_INVALID")
    assert "idle, join, once, replace, single" in several.message
    wrong = _refused(desk, {"workflow_type": "work"}, body=named)
    assert "acme.desk.v1.NamedRequest" in wrong.message
    assert "acme.desk.v1.WorkRequest" in wrong.message
    no_input = _refused(desk, {}, body=desk_messages.WorkResponse()).message
    assert "no workflow_type takes a acme.desk.v1.WorkResponse; types that can stand here: " in no_input
    assert "acme.desk.v1.NamedRequest, " in no_input
    beside = _refused(desk, {"workflow_type": "join", "name": "y"}, body=named)
    assert beside.violations == {"payload.name": "the parameters are in the body; remove them from the payload"}
    assert desk.call("StartWorkflow", {"workflow_type": "lone"}, body=desk_messages.NamedRequest(name=_new()))


@pytest.mark.parametrize(
    ("method", "known"),
    [
        ("StartWorkflow", "acme.desk.v1.NamedRequest"),
        ("GetTaskStatus", "contextunity.worker.GetTaskStatusRequest"),
        ("RegisterSchedules", "contextunity.worker.RegisterSchedulesRequest"),
    ],
)
def test_a_body_of_an_unknown_type_is_told_the_known_ones(method: str, known: str, desk: Desk) -> None:
    strange = protobuf.Any(type_url="type.googleapis.com/no.such.Message")
    with pytest.raises(Refusal) as caught:
        desk.call(method, body=strange)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BODY_INVALID")
    assert "no.such.Message" in caught.value.violations["body"]
    assert known in caught.value.violations["body"].partition("types that can stand here: ")[2]


def test_an_input_of_an_unknown_type_is_told_what_the_handler_takes(desk: Desk) -> None:
    task = desk.start(name="a", mode="MODE_WAIT")
    strange = protobuf.Any(type_url="type.googleapis.com/no.such.Message")
    with pytest.raises(Refusal) as caught:
        desk.call("QueryTask", body=QueryTaskRequest(workflow_id=task, query="progress", input=strange))
    assert caught.value.violations["input"].endswith("'progress' takes nothing")
    desk.call("TerminateTask", {"workflow_id": task})


@pytest.mark.parametrize(
    ("parameters", "violations"),
    [
        pytest.param({"supplier": "x", "name": "a"}, {"supplier"}, id="unknown key"),
        pytest.param({"name": 5}, {"name"}, id="wrong type"),
        pytest.param({"name": ""}, {"name"}, id="rule: too short"),
        pytest.param({"name": "a" * 51}, {"name"}, id="rule: too long"),
        pytest.param({"name": "a", "count": 2**31}, {"count"}, id="out of the type's range"),
        pytest.param({"name": "a", "count": 101}, {"count"}, id="rule: out of range"),
        pytest.param({"name": "a", "count": 1.5}, {"count"}, id="fractional integer"),
        pytest.param({"name": "a", "count": "5"}, {"count"}, id="text for a 32-bit integer"),
        pytest.param({"name": "a", "big": 9007199254740994.0}, {"big"}, id="integer beyond 2^53"),
        pytest.param({"name": "a", "big": "9223372036854775808"}, {"big"}, id="text beyond 64 bits"),
        pytest.param({"name": "a", "mode": "MODE_NONE"}, {"mode"}, id="bad enum"),
        pytest.param({"name": "a", "due": "tomorrow"}, {"due"}, id="bad timestamp"),
        pytest.param({"name": "a", "urgent": "yes"}, {"urgent"}, id="text for a bool"),
        pytest.param({"name": "a", "tags": "x"}, {"tags"}, id="no list"),
        pytest.param({"name": "a", "tags": ["x", 1, "far too long a tag"]}, {"tags[1]"}, id="wrong element"),
        pytest.param({"name": "a", "tags": ["x", "far too long a tag"]}, {"tags[1]"}, id="rule of an element"),
        pytest.param({"name": "a", "marks": {"x": "y"}}, {'marks["x"]'}, id="wrong map value"),
        pytest.param({"name": "a", "inner": {"level": 10}}, {"inner.level"}, id="rule of a nested message"),
        pytest.param({"name": "a", "inner": {"depth": 1}}, {"inner.depth"}, id="unknown nested key"),
        pytest.param({"name": None}, {"name"}, id="null"),
        pytest.param(
            {"nam": "a", "count": "x", "mode": 77.5, "inner": []},
            {"nam", "count", "mode", "inner"},
            id="all at once",
        ),
        pytest.param({"args": 5}, {"args"}, id="args no object"),
        pytest.param({"args": {"name": "b"}, "name": "a"}, {"name"}, id="given twice"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(desk: Desk, parameters: dict[str, Any], violations: set[str]) -> None:
    refusal = _refused(desk, {"workflow_type": "work", **parameters})
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_INVALID")
    assert refusal.violations.keys() == {f"payload.{name}" for name in violations}
    for name in refusal.violations:
        assert name in refusal.message


def test_rules_bind_a_typed_body_too(desk: Desk, desk_messages: SimpleNamespace) -> None:
    refusal = _refused(desk, {}, body=desk_messages.WorkRequest(name="a", count=101))
    assert refusal.violations.keys() == {"body.count"}


def test_an_unknown_workflow_type_names_the_known_ones(desk: Desk) -> None:
    refusal = _refused(desk, {"workflow_type": "harvst"})
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "WORKFLOW_TYPE_UNKNOWN")
    assert refusal.metadata["known"] == "bounded, chain, idle, join, lone, once, patient, ping, replace, single, work"
    assert _refused(desk, {}).violations == {"payload.workflow_type": "is required"}
    assert "must be a string" in _refused(desk, {"workflow_type": 5}).message


def test_routing_keys_are_no_parameters(desk: Desk) -> None:
    assert desk.start("ping", tenant_id="one", task_queue="desk", args={})
    assert _refused(desk, {"workflow_type": "ping", "name": "a"}).violations == {
        "payload.name": "'ping' takes no parameters"
    }
    refusal = _refused(desk, {"workflow_type": "ping", "task_queue": "other"})
    assert "'desk'" in refusal.violations["payload.task_queue"]
    refusal = _refused(desk, {"workflow_type": "work", "name": "a", "tenant_id": "one", "args": {"tenant_id": "two"}})
    assert "names two" in refusal.message
    assert "is not a tenant id" in _refused(desk, {"workflow_type": "ping", "tenant_id": "a'b"}).message


@pytest.mark.parametrize("workflow_type", ["work", "join", "single", "once", "replace"])
def test_the_same_unit_again_gives_the_same_run(desk: Desk, workflow_type: str) -> None:
    parameters = {"name": _new(), "mode": "MODE_WAIT"} if workflow_type == "work" else {"name": _new()}
    unit = ContextUnit(payload={"workflow_type": workflow_type, **parameters})
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: desk.call("StartWorkflow", unit=unit).payload, range(10)))
    assert len({(answer["workflow_id"], answer["run_id"]) for answer in answers}) == 1
    workflow_id = str(answers[0]["workflow_id"])
    desk.call("SignalTask", {"workflow_id": workflow_id, "signal": "finish"})
    assert desk.wait(workflow_id)["status"] == "completed"
    assert desk.call("StartWorkflow", unit=unit).payload == answers[0], "once it has ended"
    assert desk.status(workflow_id)["status"] == "completed"


def test_a_unit_gives_its_own_run_also_after_others_under_the_same_id(desk: Desk) -> None:
    units = [ContextUnit(payload={"workflow_type": "single", "name": "again"}) for _ in range(3)]
    runs = []
    for unit in units:
        answer = desk.call("StartWorkflow", unit=unit).payload
        runs.append(answer["run_id"])
        desk.call("SignalTask", {"workflow_id": answer["workflow_id"], "signal": "Finish"})
        desk.wait(str(answer["workflow_id"]))
    assert len(set(runs)) == 3
    # Which unit started a run that is not the newest is looked for in a list, which follows a moment behind.
    tenant = {"tenant_id": "default", "workflow_type": ["single"], "status": ["completed"]}
    listed = lambda: {each.run_id for each in desk.body(desk.call("ListTasks", tenant)).tasks}  # noqa: E731
    desk.eventually(lambda: set(runs) <= listed(), True)
    assert [desk.call("StartWorkflow", unit=unit).payload["run_id"] for unit in units] == runs


def test_a_unit_that_joined_another_run_gives_it_also_when_it_has_ended(desk: Desk) -> None:
    first, second = (ContextUnit(payload={"workflow_type": "join", "name": "shared"}) for _ in range(2))
    started = desk.call("StartWorkflow", unit=first).payload
    assert desk.call("StartWorkflow", unit=second).payload == started
    desk.call("SignalTask", {"workflow_id": "join/shared", "signal": "finish"})
    desk.wait("join/shared")
    assert desk.call("StartWorkflow", unit=second).payload == started
    assert desk.call("StartWorkflow", unit=first).payload == started


def test_the_contract_says_what_another_unit_under_a_running_id_gets(desk: Desk) -> None:
    name = _new()
    single = desk.start("single", name=name)
    refusal = _refused(desk, {"workflow_type": "single", "name": name})
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "TASK_EXISTS")
    assert refusal.metadata["workflow_id"] == single
    replaced = desk.call("StartWorkflow", {"workflow_type": "replace", "name": name}).payload
    newer = desk.call("StartWorkflow", {"workflow_type": "replace", "name": name}).payload
    assert newer["run_id"] != replaced["run_id"]
    old = {"workflow_id": replaced["workflow_id"], "run_id": replaced["run_id"]}
    assert desk.call("GetTaskStatus", old).payload["status"] == "terminated"
    once = desk.start("once", name=name)
    desk.call("SignalTask", {"workflow_id": once, "signal": "finish"})
    desk.wait(once)
    assert _refused(desk, {"workflow_type": "once", "name": name}).reason == "TASK_EXISTS"


def test_units_without_an_id_are_requests_of_their_own(desk: Desk) -> None:
    unit = ContextUnit(unit_id="", payload={"workflow_type": "ping"})
    one, two = (desk.call("StartWorkflow", unit=unit).payload["workflow_id"] for _ in range(2))
    assert one != two


def test_an_old_unit_again_ends_no_newer_task(desk: Desk) -> None:
    name = _new()
    first, second = (ContextUnit(payload={"workflow_type": "replace", "name": name}) for _ in range(2))
    old, new = (desk.call("StartWorkflow", unit=unit).payload for unit in (first, second))
    # Which unit started a run that is not the newest is looked for in a list, which follows a moment behind.
    wanted = {"tenant_id": "default", "workflow_type": ["replace"]}
    listed = lambda: {each.run_id for each in desk.body(desk.call("ListTasks", wanted)).tasks}  # noqa: E731
    desk.eventually(lambda: {old["run_id"], new["run_id"]} <= listed(), True)
    assert desk.call("StartWorkflow", unit=first).payload == old
    status = desk.status(str(new["workflow_id"]))
    assert (status["run_id"], status["status"]) == (new["run_id"], "running")
    desk.call("TerminateTask", {"workflow_id": new["workflow_id"]})


async def _past_the_service(desk: Desk, workflow_type: str, workflow_id: str) -> WorkflowHandle[Any, Any]:
    """A run that belongs to no tenant, and that no worker touches."""
    client = await Client.connect(desk.temporal.address)
    return await client.start_workflow(workflow_type, id=workflow_id, task_queue=f"nowhere-{_new()}")


@pytest.mark.parametrize("workflow_type", ["join", "single", "replace"])
async def test_a_run_of_no_tenant_is_neither_joined_nor_ended_by_one(desk: Desk, workflow_type: str) -> None:
    name = _new()
    handle = await _past_the_service(desk, workflow_type, f"~one/{workflow_type}/{name}")
    with pytest.raises(Refusal) as caught:
        desk.call("StartWorkflow", {"workflow_type": workflow_type, "name": name}, token=desk.token("one"))
    assert caught.value.reason == "TASK_EXISTS"
    description = await handle.describe()
    assert (description.run_id, description.status) == (handle.first_execution_run_id, WorkflowExecutionStatus.RUNNING)
    await handle.terminate()


async def test_a_run_of_no_tenant_is_for_those_who_may_see_everything(desk: Desk) -> None:
    name = _new()
    handle = await _past_the_service(desk, "join", f"join/{name}")
    joined = desk.call("StartWorkflow", {"workflow_type": "join", "name": name}).payload
    assert joined["run_id"] == handle.first_execution_run_id
    await handle.terminate()
    handle = await _past_the_service(desk, "replace", f"replace/{name}")
    replaced = desk.call("StartWorkflow", {"workflow_type": "replace", "name": name}).payload
    assert replaced["run_id"] != handle.first_execution_run_id
    desk.call("TerminateTask", {"workflow_id": replaced["workflow_id"]})


@pytest.mark.parametrize("workflow_type", ["join", "single", "replace"])
def test_where_nobody_is_asked_the_run_of_another_tenant_is_left_alone_too(desk: Desk, workflow_type: str) -> None:
    payload = {"workflow_type": workflow_type, "name": _new()}
    started = desk.call("StartWorkflow", {**payload, "tenant_id": "one"}).payload
    assert _refused(desk, {**payload, "tenant_id": "two"}).reason == "TASK_EXISTS"
    status = desk.status(str(started["workflow_id"]))
    assert (status["run_id"], status["status"]) == (started["run_id"], "running")
    desk.call("TerminateTask", {"workflow_id": started["workflow_id"]})


async def test_a_contract_that_terminates_what_runs_spares_other_tenants(
    desk: Desk, registry: WorkerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = replace(
        registry.workflows["replace"],
        id_conflict_policy=None,
        id_reuse_policy=WorkflowIDReusePolicy.TERMINATE_IF_RUNNING,
    )
    monkeypatch.setattr(registry, "workflows", {**registry.workflows, "replace": contract})
    service = WorkerService(await connect(Settings(), address=desk.temporal.address), registry)
    name = _new()

    async def start(tenant: str) -> dict[str, Any]:
        unit = ContextUnit(payload={"workflow_type": "replace", "name": name, "tenant_id": tenant}).to_dataclass()
        answer = await service.call(service.methods["StartWorkflow"], Call(unit=unit))
        assert answer.payload is not None
        return codec.struct_to_dict(answer.payload)

    first = await start("one")
    with pytest.raises(ServiceError) as caught:
        await start("two")
    assert caught.value.reason is Reason.TASK_EXISTS
    assert desk.status(str(first["workflow_id"]))["run_id"] == first["run_id"]
    second = await start("one")
    assert second["run_id"] != first["run_id"]
    old = {"workflow_id": first["workflow_id"], "run_id": first["run_id"]}
    assert desk.call("GetTaskStatus", old).payload["status"] == "terminated"
    desk.call("TerminateTask", {"workflow_id": second["workflow_id"]})


async def test_a_start_that_waits_for_others_leaves_its_turn_to_other_calls(
    registry: WorkerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await Client.connect("127.0.0.1:1", lazy=True, plugins=[ContextWorkerPlugin()])
    handler = StartWorkflowHandler(Engine(client=client, registry=registry, rpc_timeout=timedelta(seconds=30)))
    starts, calls = FairGate(1), FairGate(1)
    monkeypatch.setattr(handler, "_gate", starts)

    async def nothing(call: Call, request: StartRequest) -> None:
        """Stands for what asks Temporal."""

    monkeypatch.setattr(handler, "_count", nothing)
    monkeypatch.setattr(handler, "_start", nothing)
    busy = await starts.enter("another", 1, 1)
    caller = Caller(permissions=None, tenants=frozenset({"one"}))
    call = Call(unit=gen.ContextUnit(), caller=caller, turn=await calls.enter("one", 1, 1))
    request = StartRequest(registry.workflows["work"], None, None, "one", "", "")
    waits = asyncio.create_task(handler.start(call, request))
    async with asyncio.timeout(20):
        (await calls.enter("two", 1, 1)).leave()
    assert not waits.done()
    busy.leave()
    await waits


async def test_programs_under_way_are_let_go_of_when_the_service_ends() -> None:
    client = await Client.connect("127.0.0.1:1", lazy=True, plugins=[ContextWorkerPlugin()])
    programs = Programs(client, Quotas())

    async def start() -> tuple[str, str]:
        await asyncio.Event().wait()
        raise AssertionError

    running = [await programs.send(Call(unit=gen.ContextUnit()), "one", start) for _ in range(2)]
    await programs.close()
    assert all(each.started.cancelled() and each.ended.cancelled() for each in running)
