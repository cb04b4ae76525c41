"""What watches ask of the Temporal server: once for all of a run, and again later where it has too much to do."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core import ContextUnit
from contextunity.worker.auth import Caller
from contextunity.worker.grpc_errors import Reason, ServiceError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.service import Call, WorkerService, stream, watch
from contextunity.worker.settings import Settings
from contextunity.worker.temporal import connect

from .conftest import Desk
from .test_status_prefetch import Temporal

_FOLLOW, _END, _PROGRESS = "get_workflow_execution_history", "get_workflow_execution_history_reverse", "query_workflow"


class _Watches:
    """A service of its own, and watches of it."""

    def __init__(self, service: WorkerService, temporal: Temporal) -> None:
        self.service, self.temporal = service, temporal
        self.began = asyncio.Semaphore(0)

    async def watch(self, workflow_id: str, tenant: str = "default") -> list[str]:
        """The states that a watch sends until it ends, without repetitions: on a busy machine a change of something
        else is sent between."""
        unit = ContextUnit(payload={"workflow_id": workflow_id}).to_dataclass()
        caller = Caller(permissions=frozenset({"worker:read"}), tenants=frozenset({tenant}))
        states = list[str]()
        async for answer in stream(self.service.methods["WatchTask"], Call(unit=unit, caller=caller)):
            states.append(str(answer.payload["status"]))
            self.began.release()
        return [state for state, _ in itertools.groupby(states)]

    async def until_so_many_began(self, count: int) -> None:
        async with asyncio.timeout(30):
            for _ in range(count):
                await self.began.acquire()


@pytest.fixture
async def watches(desk: Desk, registry: WorkerRegistry) -> Any:
    client = await connect(Settings(), address=desk.temporal.address)
    temporal = Temporal(client.workflow_service)
    services: Any = client.service_client
    services.workflow_service = temporal
    service = WorkerService(client, registry)
    yield _Watches(service, temporal)
    await service.close()


def _start(desk: Desk) -> str:
    return desk.start(name="a", mode="MODE_WAIT", token=desk.token("default"))


async def _finish(desk: Desk, workflow_id: str) -> None:
    await asyncio.to_thread(desk.call, "SignalTask", {"workflow_id": workflow_id, "signal": "finish"})


async def test_all_watches_of_a_run_ask_once(desk: Desk, watches: _Watches) -> None:
    task = await asyncio.to_thread(_start, desk)
    all_of_it = [asyncio.create_task(watches.watch(task)) for _ in range(50)]
    await watches.until_so_many_began(50)
    assert watches.temporal.asked.count(_PROGRESS) == 1
    await _finish(desk, task)
    async with asyncio.timeout(30):
        told = await asyncio.gather(*all_of_it)
    assert {tuple(each) for each in told} == {("running", "completed")}
    # The end of the history may be read before it has grown, so a wait or two more are no waste.
    assert watches.temporal.asked.count(_FOLLOW) < 5
    assert watches.temporal.asked.count(_END) == 1


async def test_the_end_is_told_without_waiting_for_more_events(
    desk: Desk, watches: _Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_GATHER", 3600.0)
    task = await asyncio.to_thread(_start, desk)
    watching = asyncio.create_task(watches.watch(task))
    await watches.until_so_many_began(1)
    await _finish(desk, task)
    async with asyncio.timeout(30):
        assert (await watching)[-1] == "completed"


async def test_a_watch_of_another_tenant_learns_nothing_from_it(desk: Desk, watches: _Watches) -> None:
    task = await asyncio.to_thread(_start, desk)
    watching = asyncio.create_task(watches.watch(task))
    await watches.until_so_many_began(1)
    with pytest.raises(Exception, match="no task has the workflow_id"):
        await watches.watch(task, tenant="another")
    await _finish(desk, task)
    assert await watching == ["running", "completed"]


async def test_a_server_that_has_too_much_to_do_ends_no_watch(
    desk: Desk, watches: _Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_BUSY_AGAIN", 0.01)

    async def busy() -> None:
        raise RPCError("namespace rate limit exceeded", RPCStatusCode.RESOURCE_EXHAUSTED, b"")

    task = await asyncio.to_thread(_start, desk)
    watches.temporal.before = {_FOLLOW: busy, _END: busy}
    watching = asyncio.create_task(watches.watch(task))
    await watches.until_so_many_began(1)
    await _finish(desk, task)
    async with asyncio.timeout(30):
        assert await watching == ["running", "completed"]
    assert watches.temporal.before == {}, "it was too busy once for each"


async def test_runs_beyond_the_bound_are_looked_at_by_and_by(
    desk: Desk, watches: _Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_POLLS_OF_A_TENANT", 1)
    monkeypatch.setattr(watch, "_LOOK_AGAIN", 0.05)
    tasks = [await asyncio.to_thread(_start, desk) for _ in range(3)]
    watching = [asyncio.create_task(watches.watch(task)) for task in tasks]
    await watches.until_so_many_began(3)
    for task in tasks:
        await _finish(desk, task)
    async with asyncio.timeout(30):
        seen = await asyncio.gather(*watching)
    # One that is looked at just as its last workflow task begins is told to be running once more.
    assert [(each[0], each[-1], set(each)) for each in seen] == [("running", "completed", {"running", "completed"})] * 3


async def test_those_who_watch_are_woken_where_a_watch_fails() -> None:
    async def status(tenant: str, run: object) -> None:
        raise ServiceError(Reason.TEMPORAL_UNAVAILABLE, "gone")

    looks: Any = SimpleNamespace(engine=None, status=status)
    run: Any = SimpleNamespace(workflow_id="w", run_id="r", is_running=True)
    follower = watch._Follower(looks, "one", run)
    async with asyncio.timeout(20):
        await follower.changed.wait()
    assert follower.error is not None
