"""What GetTaskStatus asks the Temporal server, and when: what it will need at once, and nothing about others' tasks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from contextunity.core import ContextUnit, codec
from contextunity.worker.auth import EVERYBODY, Caller
from contextunity.worker.grpc_errors import Reason, ServiceError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.service import Call, WorkerService
from contextunity.worker.service.call import KnownTask, KnownTasks
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect

from .conftest import Desk

_DESCRIBE, _EVENTS, _QUERY = "describe_workflow_execution", "get_workflow_execution_history_reverse", "query_workflow"


class Temporal:
    """The server's API, which remembers what was asked, and does something before it passes a question on."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.asked: list[str] = []
        self.before: dict[str, Callable[[], Awaitable[Any]]] = {}
        self._asked = asyncio.Condition()

    def __getattr__(self, name: str) -> Any:
        async def ask(request: Any, **options: Any) -> Any:
            async with self._asked:
                self.asked.append(name)
                self._asked.notify_all()
            before = self.before.pop(name, None)
            if before is not None:
                await before()
            return await getattr(self._real, name)(request, **options)

        return ask

    def hold(self, name: str, until: str) -> None:
        """Passes the next such question on only once another has been asked."""

        async def wait() -> None:
            async with self._asked, asyncio.timeout(10):
                await self._asked.wait_for(lambda: until in self.asked)

        self.before[name] = wait


class _Asking:
    """A service of its own, beside the desk's: it has not seen what that has."""

    def __init__(self, service: WorkerService, temporal: Temporal) -> None:
        self._service = service
        self.temporal = temporal

    async def status(self, workflow_id: str, caller: Caller = EVERYBODY, **more: str) -> dict[str, Any]:
        self.temporal.asked.clear()
        unit = ContextUnit(payload={"workflow_id": workflow_id, **more}).to_dataclass()
        method = self._service.methods["GetTaskStatus"]
        answer = await self._service.call(method, Call(unit=unit, caller=caller))
        assert answer.payload is not None
        return dict(codec.struct_to_dict(answer.payload))


@pytest.fixture
async def asking(desk: Desk, registry: WorkerRegistry) -> _Asking:
    client = await connect(Settings(), address=desk.temporal.address)
    temporal = Temporal(client.workflow_service)
    services: Any = client.service_client
    services.workflow_service = temporal
    return _Asking(WorkerService(client, registry), temporal)


def _done(desk: Desk, **parameters: Any) -> str:
    workflow_id = desk.start(name="beside", **parameters)
    desk.wait(workflow_id)
    return workflow_id


async def test_how_a_task_ended_is_asked_beside_its_description(desk: Desk, asking: _Asking) -> None:
    for parameters in ({"mode": "MODE_DONE"}, {"mode": "MODE_FAIL"}):
        workflow_id = _done(desk, **parameters)
        await asking.status(workflow_id)
        asking.temporal.hold(_DESCRIBE, until=_EVENTS)
        seen = await asking.status(workflow_id)
        assert seen == desk.status(workflow_id)
        assert sorted(asking.temporal.asked) == [_DESCRIBE, _EVENTS]


async def test_a_task_that_is_not_known_yet_may_have_ended(desk: Desk, asking: _Asking) -> None:
    workflow_id = _done(desk)
    asking.temporal.hold(_DESCRIBE, until=_EVENTS)
    assert (await asking.status(workflow_id))["result"]["text"]
    assert sorted(asking.temporal.asked) == [_DESCRIBE, _EVENTS]


async def test_the_progress_is_asked_beside_the_description(desk: Desk, asking: _Asking) -> None:
    workflow_id = desk.start(name="beside", mode="MODE_WAIT")
    await asking.status(workflow_id)
    asking.temporal.hold(_DESCRIBE, until=_QUERY)
    assert (await asking.status(workflow_id))["progress"]["name"] == "beside"
    assert sorted(asking.temporal.asked) == [_DESCRIBE, _QUERY]
    desk.call("SignalTask", {"workflow_id": workflow_id, "signal": "finish"})
    desk.wait(workflow_id)
    status = await asking.status(workflow_id)
    assert (status["status"], status.get("progress")) == ("completed", None)
    assert status == desk.status(workflow_id)


async def test_a_task_without_progress_is_described_alone(desk: Desk, asking: _Asking) -> None:
    workflow_id = desk.start("single", name=str(uuid.uuid4()))
    desk.wait_until(workflow_id, lambda status: status["status"] == "running")
    await asking.status(workflow_id)
    assert (await asking.status(workflow_id))["status"] == "running"
    assert asking.temporal.asked[:1] == [_DESCRIBE]
    assert not {_EVENTS, _QUERY} & set(asking.temporal.asked)


async def test_nothing_is_asked_about_a_task_of_others_but_whose_it_is(desk: Desk, asking: _Asking) -> None:
    stranger = Caller(permissions=None, tenants=frozenset({"two"}))
    running, done = desk.start(name="a", mode="MODE_WAIT", tenant_id="one"), _done(desk, tenant_id="one")
    for workflow_id in (running, done):
        await asking.status(workflow_id)
        with pytest.raises(ServiceError) as caught:
            await asking.status(workflow_id, stranger)
        assert caught.value.reason is Reason.TASK_UNKNOWN
        assert asking.temporal.asked == [_DESCRIBE]


async def test_what_was_asked_of_an_earlier_run_is_not_told_of_a_later_one(desk: Desk, asking: _Asking) -> None:
    name = str(uuid.uuid4())

    def ended() -> str:
        workflow_id = desk.start("single", name=name)
        desk.call("SignalTask", {"workflow_id": workflow_id, "signal": "finish"})
        return str(desk.wait(workflow_id)["run_id"])

    # The service knows nothing yet, and asks for the end of the newest run, which is another one a moment later.
    first, workflow_id = ended(), f"single/{name}"
    second = ""

    async def end_another() -> None:
        nonlocal second
        second = await asyncio.to_thread(ended)

    asking.temporal.before[_DESCRIBE] = end_another
    status = await asking.status(workflow_id)
    assert first != second == status["run_id"]
    assert asking.temporal.asked.count(_EVENTS) == 2
    # And the other way round: it knows the run that ended, and a new one goes on.
    running = desk.start("single", name=name)
    status = await asking.status(running)
    assert (status["status"], status["run_id"] == second) == ("running", False)
    status = await asking.status(workflow_id, run_id=first)
    assert (status["status"], status["run_id"]) == ("completed", first)
    assert (await asking.status(workflow_id))["status"] == "running"


def test_a_bounded_number_of_tasks_is_remembered() -> None:
    tasks = KnownTasks(most=2)
    for workflow_id in ("a", "b", "a", "c"):
        tasks.keep(workflow_id, KnownTask(run_id=workflow_id, tenant_id="one", contract=None))
    assert tasks.recall("b") is None
    assert [tasks.recall(each) is not None for each in ("a", "c")] == [True, True]
