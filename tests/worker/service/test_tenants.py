"""Who may do what: every method, across permissions and tenants."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any

import grpc
import pytest
from temporalio.client import Client

from contextunity.core import ContextUnit, worker_pb2
from contextunity.worker.service import WorkerService

from .conftest import Desk, Refusal

_ABOUT_A_TASK = {
    "GetTaskStatus": {},
    "CancelTask": {"reason": "x"},
    "TerminateTask": {"reason": "x"},
    "SignalTask": {"signal": "finish"},
    "QueryTask": {"query": "progress"},
    "UpdateTask": {"update": "rename", "args": {"name": "x"}},
    "WatchTask": {},
}
_ABOUT_A_SCHEDULE = ("PauseSchedule", "ResumeSchedule", "TriggerSchedule", "DeleteSchedule")
_OTHERS = ("StartWorkflow", "ListTasks", "DescribeContracts", "ExecuteCode", "RegisterSchedules", "ListSchedules")
_NEEDED = {
    **{key: {"worker:read"} for key in ("GetTaskStatus", "WatchTask", "ListTasks", "QueryTask")},
    **{key: {"worker:execute"} for key in ("StartWorkflow", "ExecuteCode", "SignalTask", "UpdateTask")},
    **{key: {"worker:execute"} for key in ("CancelTask", "TerminateTask")},
    **{key: {"worker:schedule", "worker:execute"} for key in (*_ABOUT_A_SCHEDULE, "RegisterSchedules")},
    "ListSchedules": {"worker:read", "worker:schedule", "worker:execute"},
    "DescribeContracts": {"worker:read", "worker:schedule", "worker:execute"},
}
_SCHEDULE = {"schedule_id": "nightly", "workflow_type": "ping", "cron": "0 3 * * *"}


def _attempt(desk: Desk, method: str, payload: dict[str, Any], token: str) -> Refusal | None:
    try:
        if method == "WatchTask":
            next(desk.watch(payload, token))
        else:
            desk.call(method, payload, token=token)
    except Refusal as refusal:
        return refusal
    return None


def test_the_tables_here_know_every_method() -> None:
    methods = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].methods_by_name
    assert {*_ABOUT_A_TASK, *_ABOUT_A_SCHEDULE, *_OTHERS} == set(methods)
    assert _NEEDED.keys() == set(methods)


@pytest.mark.parametrize("method", sorted(_NEEDED))
def test_each_method_needs_its_permission(desk: Desk, method: str) -> None:
    everything = {"worker:execute", "worker:read", "worker:schedule", "admin:all"}
    lacking = Desk.token("one", permissions=tuple(everything - _NEEDED[method]))
    refusal = _attempt(desk, method, {}, lacking)
    assert refusal is not None
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    assert set(refusal.metadata["permissions"].split(",")) == _NEEDED[method]
    for permission in _NEEDED[method]:
        enough = _attempt(desk, method, {}, Desk.token("one", permissions=(permission,)))
        assert enough is None or enough.reason not in ("PERMISSION_MISSING", "TOKEN_REFUSED")


@pytest.mark.parametrize("method", sorted(_ABOUT_A_TASK))
def test_a_task_of_another_tenant_is_not_there(desk: Desk, method: str) -> None:
    owner, stranger = Desk.token("one"), Desk.token("two", "three")
    task = desk.start(name="mine", mode="MODE_WAIT", token=owner)
    unbound = desk.start(name="open", mode="MODE_WAIT", tenant_id="default")
    run_id = desk.status(task, token=owner)["run_id"]
    for payload in (
        {"workflow_id": task},
        {"workflow_id": task, "run_id": run_id},
        {"workflow_id": task, "tenant_id": "two"},
        {"workflow_id": unbound},
    ):
        refusal = _attempt(desk, method, {**payload, **_ABOUT_A_TASK[method]}, stranger)
        assert refusal is not None
        # One that there is not at all, asked for in the same way.
        nobody = _attempt(desk, method, {**payload, "workflow_id": "nobody", **_ABOUT_A_TASK[method]}, stranger)
        assert nobody is not None
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_UNKNOWN")
        assert refusal.message.replace(str(payload["workflow_id"]), "nobody") == nobody.message
    refused = _attempt(desk, method, {"workflow_id": task, "tenant_id": "one", **_ABOUT_A_TASK[method]}, stranger)
    assert refused is not None
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "TENANT_REFUSED")
    assert desk.status(task, token=owner)["status"] == "running", "untouched"
    assert desk.status(task, token=owner)["progress"] == {"name": "mine"}
    assert _attempt(desk, method, {"workflow_id": task, **_ABOUT_A_TASK[method]}, owner) is None
    for left in (task, unbound):
        with contextlib.suppress(Refusal):  # The method at hand may have ended it.
            desk.call("TerminateTask", {"workflow_id": left})


def test_lists_show_the_callers_tenants_alone(desk: Desk) -> None:
    one, two = f"one-{uuid.uuid4()}", f"two-{uuid.uuid4()}"
    mine = desk.start("ping", token=Desk.token(one))
    theirs = desk.start("ping", token=Desk.token(two))

    def listed(token: str, **payload: Any) -> set[str]:
        body = Desk.body(desk.call("ListTasks", payload, token=token))
        return {task.workflow_id for task in body.tasks}

    desk.eventually(lambda: listed(Desk.token(one, two)), {mine, theirs})
    assert listed(Desk.token(one)) == {mine}
    assert listed(Desk.token(one, two), tenant_id=two) == {theirs}
    assert listed(Desk.token()) == set()
    refusal = _attempt(desk, "ListTasks", {"tenant_id": two}, Desk.token(one))
    assert refusal is not None
    assert refusal.reason == "TENANT_REFUSED"


def test_a_task_is_started_for_a_tenant_of_the_token(desk: Desk) -> None:
    assert desk.wait(desk.start(name="a", token=Desk.token("one")))["tenant_id"] == "one"
    assert desk.wait(desk.start(name="a", tenant_id="two", token=Desk.token("one", "two")))["tenant_id"] == "two"
    start = {"workflow_type": "work", "name": "a"}
    for token, payload, code, reason in (
        (Desk.token("one", "two"), start, grpc.StatusCode.INVALID_ARGUMENT, "TENANT_UNCLEAR"),
        (Desk.token(), start, grpc.StatusCode.PERMISSION_DENIED, "TENANT_REFUSED"),
        (Desk.token("one"), {**start, "tenant_id": "two"}, grpc.StatusCode.PERMISSION_DENIED, "TENANT_REFUSED"),
        (Desk.token("one"), {**start, "args": {"tenant_id": "two"}}, grpc.StatusCode.PERMISSION_DENIED, None),
        (Desk.token("one"), {**start, "tenantId": "two"}, grpc.StatusCode.PERMISSION_DENIED, "TENANT_REFUSED"),
        (Desk.token("one"), {"workflow_type": "ping", "tenant_id": "two"}, grpc.StatusCode.PERMISSION_DENIED, None),
    ):
        refusal = _attempt(desk, "StartWorkflow", payload, token)
        assert refusal is not None
        assert refusal.code is code
        assert reason in (None, refusal.reason)


@pytest.mark.parametrize("workflow_type", ["join", "single", "once", "replace"])
def test_a_start_never_meets_the_task_of_another_tenant(desk: Desk, workflow_type: str) -> None:
    """The ids of these contracts do not name the tenant; with tokens they have it all the same."""
    name = uuid.uuid4().hex
    owner, stranger = Desk.token("one"), Desk.token("two")
    unit = ContextUnit(payload={"workflow_type": workflow_type, "name": name})
    started = desk.call("StartWorkflow", unit=unit, token=owner).payload
    # The same unit, as if it had been overheard; of it, the same start again is a repetition.
    theirs = [desk.call("StartWorkflow", unit=unit, token=stranger).payload for _ in range(2)]
    assert theirs[0] == theirs[1]
    assert str(started["workflow_id"]).startswith("~one/")
    assert theirs[0]["workflow_id"] == str(started["workflow_id"]).replace("~one/", "~two/")
    assert theirs[0]["run_id"] != started["run_id"]
    for payload, token in ((started, owner), (theirs[0], stranger)):
        assert desk.status(str(payload["workflow_id"]), token=token)["run_id"] == payload["run_id"]
        assert desk.status(str(payload["workflow_id"]), token=token)["status"] == "running"
        desk.call("TerminateTask", {"workflow_id": payload["workflow_id"]})


def test_what_a_start_tells_is_the_same_whether_another_tenant_uses_the_id(desk: Desk) -> None:
    stranger, answers, used = Desk.token("two"), list[dict[str, Any]](), ""
    for is_used in (True, False):
        name = uuid.uuid4().hex
        if is_used:
            used = desk.start("single", name=name, token=Desk.token("one"))
        payload = desk.call("StartWorkflow", {"workflow_type": "single", "name": name}, token=stranger).payload
        answers.append({key: str(value).replace(name, "NAME") for key, value in payload.items() if key != "run_id"})
        # A second one of its own is refused as ever.
        with pytest.raises(Refusal) as caught:
            desk.call("StartWorkflow", {"workflow_type": "single", "name": name}, token=stranger)
        assert caught.value.reason == "TASK_EXISTS"
        desk.call("TerminateTask", {"workflow_id": payload["workflow_id"]})
    desk.call("TerminateTask", {"workflow_id": used})
    assert answers[0] == answers[1]


def test_a_unit_id_of_another_tenant_is_no_id_of_its_task(desk: Desk) -> None:
    unit = ContextUnit(payload={"workflow_type": "ping"})
    started = [
        desk.call("StartWorkflow", unit=unit, token=Desk.token(tenant)).payload["workflow_id"]
        for tenant in ("one", "two", "one/a", "one")
    ]
    assert started[:3] == [f"ping/{tenant}/{unit.unit_id}" for tenant in ("one", "two", "one%2Fa")]
    assert started[3] == started[0], "a repetition"


async def test_a_start_leaves_nothing_in_the_task_of_another_tenant(desk: Desk) -> None:
    name, owner = uuid.uuid4().hex, Desk.token("one")
    task = desk.start("join", name=name, token=owner)
    handle = (await Client.connect(desk.temporal.address)).get_workflow_handle(task)

    async def joined() -> int:
        history = await handle.fetch_history()
        return sum(each.HasField("workflow_execution_options_updated_event_attributes") for each in history.events)

    theirs = desk.start("join", name=name, token=Desk.token("two"))
    assert theirs != task
    assert await joined() == 0
    desk.start("join", name=name, token=owner)
    # While a workflow task is under way, the server keeps the event back; it may be written after the answer.
    async with asyncio.timeout(30):
        while not await joined():
            pass
    assert await joined() == 1
    for each in (task, theirs):
        desk.call("TerminateTask", {"workflow_id": each})


def test_a_task_queue_may_be_the_contracts_or_the_tenants_own(desk: Desk) -> None:
    token = Desk.token("one")
    assert desk.start(name="a", task_queue="desk", token=token)
    own = desk.start(name="a", task_queue="desk/one", token=token)
    status = desk.wait(own, token)
    assert (status["status"], status["task_queue"]) == ("completed", "desk/one"), "by the tenant's own worker"
    for queue in ("desk/two", "away", "harvest"):
        refusal = _attempt(desk, "StartWorkflow", {"workflow_type": "work", "name": "a", "task_queue": queue}, token)
        assert refusal is not None
        assert refusal.violations.keys() == {"payload.task_queue"}


def test_schedules_of_another_tenant_are_not_there(desk: Desk) -> None:
    permissions = ("worker:schedule", "worker:read")
    owner, stranger = Desk.token("one", permissions=permissions), Desk.token("two", permissions=permissions)
    desk.call("RegisterSchedules", {"project_id": "acme", "schedules": [_SCHEDULE]}, token=owner)
    for method in _ABOUT_A_SCHEDULE:
        about = {"schedule_id": "nightly", "project_id": "acme"}
        refusal = _attempt(desk, method, about, stranger)
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SCHEDULE_UNKNOWN"), method
        refusal = _attempt(desk, method, {**about, "tenant_id": "one"}, stranger)
        assert refusal is not None
        assert refusal.reason == "TENANT_REFUSED"
    assert Desk.body(desk.call("ListSchedules", {}, token=stranger)).schedules == []
    (status,) = Desk.body(desk.call("ListSchedules", {}, token=owner)).schedules
    assert not status.schedule.paused
    desk.call("RegisterSchedules", {"project_id": "acme", "schedules": [_SCHEDULE]}, token=stranger)
    desk.call("DeleteSchedule", {"project_id": "acme", "schedule_id": "nightly"}, token=stranger)
    assert len(Desk.body(desk.call("ListSchedules", {}, token=owner)).schedules) == 1
    desk.call("DeleteSchedule", {"project_id": "acme", "schedule_id": "nightly"}, token=owner)


async def test_the_service_has_every_method_of_its_proto(registry: Any) -> None:
    client = await Client.connect("127.0.0.1:1", lazy=True)
    service = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"]
    methods = WorkerService(client, registry).methods
    assert set(methods) == set(service.methods_by_name)
    for name, method in methods.items():
        assert (method.watch is not None) == service.methods_by_name[name].server_streaming, name
        assert method.label.removeprefix("worker:").replace("_", "") == name.lower()


def test_without_tokens_an_id_is_as_the_contract_makes_it(desk: Desk) -> None:
    name = uuid.uuid4().hex
    task = desk.start("single", name=name, tenant_id="one")
    assert task.endswith(name)
    assert not task.startswith("~")
    desk.call("TerminateTask", {"workflow_id": task})
