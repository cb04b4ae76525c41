"""Watches a task: its status now, and again whenever its history has grown and something shows.

What a task tells changes with its history, so the history is waited for, not the clock; bursts of events are gathered
for a moment. The one exception are attempts of activities: those that fail and are to be repeated leave no event, so a
task with pending activities is looked at again by and by.

All watches of a run share one follower, which asks Temporal once for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from contextunity.gen.contextunity.worker import TaskState, TaskStatus, WatchTaskRequest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core import codec
from contextunity.worker.fair_gate import FairGate
from contextunity.worker.grpc_errors import Reason, ServiceError, from_rpc_error, task_unknown

from .call import Call, Engine
from .status import Run, TaskStatusHandler, find_run, follow_run

__all__ = ["LONG_POLL", "Polls", "WatchTaskHandler", "when_not_busy"]

_LOG = logging.getLogger(__name__)
_Value = TypeVar("_Value")

_GATHER = 0.2
"""Seconds for which events are gathered: a status in between would be old before it is read."""
_LOOK_AGAIN, _LOOK_AGAIN_AT_MOST = 2.0, 30.0
"""Seconds after which a task with pending activities is looked at without an event; twice as many each time that
nothing was new."""
LONG_POLL = timedelta(seconds=70)
"""How long one wait for events may take; the server itself ends it, without events, after about a minute."""
_LOOKS, _LOOKS_OF_A_TENANT, _LOOKS_SHARE = 16, 8, 4
"""Tasks that are looked at together, in all, of a tenant, and of a tenant while others look too: a thousand watches
that begin, or end, at once would have the Temporal server busy for so long that it answers nobody in time."""
_POLLS, _POLLS_OF_A_TENANT = 1000, 100
"""Runs whose history is waited for at once. The Temporal server takes 1,200 such waits of a namespace, unless it is
configured otherwise. Other runs are looked at by and by."""
_BUSY_AGAIN, _BUSY_AGAIN_AT_MOST = 0.5, 10.0
"""Seconds after which a server that limits the rate of calls is asked again, each time twice as many."""
_FLEETING = ("last_heartbeat_at",)
"""Fields of a pending activity that change without anything having happened."""


class Polls:
    """The waits for events that Temporal is asked to do at once, in all and of a tenant."""

    def __init__(self) -> None:
        self._polls = Counter[str]()

    def try_take(self, tenant: str) -> bool:
        """Takes one of the waits that a tenant may have; False where there is none left."""
        if self._polls[tenant] >= _POLLS_OF_A_TENANT or self._polls.total() >= _POLLS:
            return False
        self._polls[tenant] += 1
        return True

    def give_back(self, tenant: str) -> None:
        """Gives back what `try_take` took."""
        self._polls[tenant] -= 1
        if not self._polls[tenant]:
            del self._polls[tenant]


class WatchTaskHandler:
    """WatchTask.

    Args:
        engine: what it works with.
        polls: the waits for events that it may have; others have of the same.
    """

    def __init__(self, engine: Engine, polls: Polls) -> None:
        self._engine = engine
        self._looks = _Looks(engine, polls)
        self._followers = dict[tuple[str, str], _Follower]()
        self._is_stopping = False

    def stop(self) -> None:
        """Ends all watches, each with an error that has its client come back to another server."""
        self._is_stopping = True
        for follower in self._followers.values():
            follower.wake()

    async def close(self) -> None:
        """Ends what is followed."""
        await asyncio.gather(*(follower.end() for follower in list(self._followers.values())))

    async def watch_task(self, call: Call, request: WatchTaskRequest) -> AsyncGenerator[TaskStatus, None]:
        """Tells how a task goes until it ends; see WatchTask in worker.proto."""
        tenants = call.visible_tenants(request.tenant_id)
        name = ",".join(sorted(call.caller.tenants or ()))
        async with self._looks.turn(name):
            run = await find_run(call, self._engine, request.workflow_id, request.run_id, request.tenant_id)
        seen = request.after
        with self._following(name, run) as follower:
            while True:
                # Before the news are read: what comes in between is not missed.
                changed = follower.changed
                news = follower.news
                if news is not None:
                    if tenants is not None and news.tenant_id not in tenants:
                        raise task_unknown(request.workflow_id)
                    if news.status.resume_token != seen:
                        seen = news.status.resume_token
                        yield news.status
                    if news.status.status is not TaskState.RUNNING:
                        return
                if follower.error is not None:
                    # One of its own for each: grpcio keeps them.
                    raise dataclasses.replace(follower.error)
                if self._is_stopping:
                    raise ServiceError(
                        Reason.STOPPING,
                        "the service is being stopped; watch again with the last resume_token",
                        metadata={"workflow_id": run.workflow_id},
                    )
                await changed.wait()

    @contextlib.contextmanager
    def _following(self, tenant: str, run: Run) -> Generator[_Follower, None, None]:
        """The follower of a run, which goes on while somebody uses it."""
        key = (run.workflow_id, run.run_id)
        follower = self._followers.get(key)
        # One that has not noticed yet that the run has ended would tell what was.
        if follower is None or follower.error is not None or not (run.is_running or follower.knows_the_end):
            follower = self._followers[key] = _Follower(self._looks, tenant, run)
        follower.users += 1
        try:
            yield follower
        finally:
            follower.users -= 1
            if not follower.users:
                follower.cancel()
                if self._followers.get(key) is follower:
                    del self._followers[key]


class _Looks:
    """Looks at runs for all followers, those of each tenant in turn."""

    def __init__(self, engine: Engine, polls: Polls) -> None:
        self.engine, self.polls = engine, polls
        self._telling = TaskStatusHandler(engine)
        self._gate = FairGate(_LOOKS)

    @contextlib.asynccontextmanager
    async def turn(self, tenant: str) -> AsyncGenerator[None]:
        """Waits for the tenant's turn, and lets the next one look afterwards."""
        turn = await self._gate.enter(tenant, _LOOKS_OF_A_TENANT, _LOOKS_SHARE)
        try:
            yield
        finally:
            turn.leave()

    async def status(self, tenant: str, run: Run) -> TaskStatus:
        """How a run goes."""
        return await self._look(tenant, lambda: self._telling.status(run))

    async def run(self, tenant: str, run: Run) -> Run:
        """What is known of a run by now, or of the one that it went on as."""
        return await self._look(tenant, lambda: follow_run(self.engine, run.workflow_id, run.run_id))

    async def _look(self, tenant: str, look: Callable[[], Awaitable[_Value]]) -> _Value:
        async def in_turn() -> _Value:
            async with self.turn(tenant):
                return await look()

        return await when_not_busy(in_turn)


@dataclass(frozen=True, kw_only=True, slots=True)
class _News:
    """What is known of a run: its status, which no one may change, and whose it is."""

    tenant_id: str
    status: TaskStatus


class _Follower:
    """Follows a run, and those that it goes on as, for all who watch it.

    Args:
        looks: looks at it.
        tenant: of the watch that began; it counts as that tenant's.
        run: which.

    Attributes:
        news: the newest; None until there are any.
        error: why there will be no more.
        changed: is set, and another put in its place, with each of these.
        users: how many watches use it.
        knows_the_end: whether the run has ended, as far as it knows.
    """

    def __init__(self, looks: _Looks, tenant: str, run: Run) -> None:
        self._looks, self._tenant = looks, tenant
        self.news: _News | None = None
        self.error: ServiceError | None = None
        self.changed = asyncio.Event()
        self.users = 0
        self.knows_the_end = not run.is_running
        self._task = asyncio.create_task(self._follow(run), name=f"follow {run.workflow_id}")

    def wake(self) -> None:
        """Has all who wait look again."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def cancel(self) -> None:
        """Follows no more."""
        self._task.cancel()

    async def end(self) -> None:
        """Follows no more, and waits until that is so."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self, run: Run) -> None:
        try:
            await self._tell_each_change(run)
        except ServiceError as error:
            self.error = error
        # Whatever it is, those who watch are told, and the log has it.
        except Exception:  # noqa: BLE001
            _LOG.exception("a watch of %r failed", run.workflow_id)
            self.error = ServiceError(Reason.INTERNAL, "the watch failed; the service's log has it")
        self.wake()

    async def _tell_each_change(self, run: Run) -> None:
        growth, patience, token = _Growth(self._looks.engine, run), _LOOK_AGAIN, ""
        while True:
            status = await self._looks.status(self._tenant, run)
            status.resume_token = _token(status)
            if status.resume_token != token:
                token = status.resume_token
                patience = _LOOK_AGAIN
                self.news = _News(tenant_id=run.tenant_id, status=status)
                self.knows_the_end = status.status is not TaskState.RUNNING
                self.wake()
            else:
                patience = min(2 * patience, _LOOK_AGAIN_AT_MOST)
            if self.knows_the_end:
                return
            await self._until_grown(growth, patience, has_activities=bool(status.pending_activities))
            run = await self._looks.run(self._tenant, run)
            if run.run_id != growth.run_id:
                growth = _Growth(self._looks.engine, run)

    async def _until_grown(self, growth: _Growth, patience: float, *, has_activities: bool) -> None:
        if not self._looks.polls.try_take(self._tenant):
            await asyncio.sleep(patience)
            return
        within = asyncio.timeout(patience if has_activities else None)
        try:
            async with within:
                await growth.wait()
        except TimeoutError:
            if not within.expired():
                raise
        finally:
            self._looks.polls.give_back(self._tenant)


class _Growth:
    """Follows the history of one run."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self._engine = engine
        self._request = GetWorkflowExecutionHistoryRequest(
            namespace=engine.client.namespace,
            execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id),
            wait_new_event=True,
        )
        self.run_id = run.run_id
        # The events so far are in the status already; they are read only to come to the end of the history.
        self._known = run.description.workflow_execution_info.history_length
        self._last = 0

    async def wait(self) -> None:
        """Returns when there are events that were not there before, or the run has ended.

        Raises:
            ServiceError: Temporal does not answer.
        """
        while not await when_not_busy(self._read):
            pass
        await asyncio.sleep(_GATHER)
        self._known = self._last

    async def _read(self) -> bool:
        try:
            answer = await self._engine.client.workflow_service.get_workflow_execution_history(
                self._request, retry=True, timeout=LONG_POLL
            )
        except RPCError as error:
            if error.status is RPCStatusCode.DEADLINE_EXCEEDED:
                return False
            raise from_rpc_error(error, workflow_id=self._request.execution.workflow_id) from error
        if answer.history.events:
            self._last = answer.history.events[-1].event_id
        self._request.next_page_token = answer.next_page_token
        # Without a token the run has ended.
        return self._last > self._known or not answer.next_page_token


async def when_not_busy(call: Callable[[], Awaitable[_Value]]) -> _Value:
    """Calls again later what Temporal has no time for: there is somebody who waits for it, however long that takes."""
    wait = _BUSY_AGAIN
    while True:
        try:
            return await call()
        except ServiceError as error:
            if error.reason is not Reason.TEMPORAL_BUSY:
                raise
        await asyncio.sleep(wait)
        wait = min(2 * wait, _BUSY_AGAIN_AT_MOST)


def _token(status: TaskStatus) -> str:
    """Tells one status from another; equal for the same one told again."""
    steady = codec.decode(TaskStatus, codec.encode(status))
    for activity in steady.pending_activities:
        for name in _FLEETING:
            setattr(activity, name, None)
    return f"{status.run_id}.{hashlib.sha256(codec.encode(steady)).hexdigest()[:16]}"
