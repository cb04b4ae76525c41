"""Watches a task: its status now, and again after each change.

The status changes with the history, so a watch waits for history events, and gathers bursts of them. There is one
exception: failed attempts of activities that will be retried leave no event, so a task with pending activities is also
polled, with growing intervals.

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
from temporalio.api.enums.v1 import HistoryEventFilterType
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
"""Seconds during which events are gathered, so that no outdated status is sent in between."""
_LOOK_AGAIN, _LOOK_AGAIN_AT_MOST = 2.0, 30.0
"""Seconds after which a task with pending activities is polled without an event; doubled each time that nothing
has changed."""
LONG_POLL = timedelta(seconds=70)
"""Timeout of one wait for events; the server itself ends it, without events, after about a minute."""
_LOOKS, _LOOKS_OF_A_TENANT, _LOOKS_SHARE = 16, 8, 4
"""Limits of concurrent status requests: in total, per tenant, and per tenant while other tenants have some too. If a
thousand watches began or ended at once, the Temporal server would not answer anybody else in time."""
_POLLS, _POLLS_OF_A_TENANT = 1000, 100
"""Limits of concurrent waits for history events, in total and per tenant. By default a Temporal server allows 1,200 of
them per namespace. Further runs are polled."""
_BUSY_AGAIN, _BUSY_AGAIN_AT_MOST = 0.5, 10.0
"""Delay in seconds before a retry if the server limits the rate of calls; doubled each time."""
_FLEETING = ("last_heartbeat_at",)
"""Fields of a pending activity that change without an event."""


class Polls:
    """Counts the waits for events at Temporal, in total and per tenant."""

    def __init__(self) -> None:
        self._polls = Counter[str]()

    def try_take(self, tenant: str) -> bool:
        """Take one of a tenant's waits; return False if none is left."""
        if self._polls[tenant] >= _POLLS_OF_A_TENANT or self._polls.total() >= _POLLS:
            return False
        self._polls[tenant] += 1
        return True

    def give_back(self, tenant: str) -> None:
        """Return a wait that `try_take` took."""
        self._polls[tenant] -= 1
        if not self._polls[tenant]:
            del self._polls[tenant]


class WatchTaskHandler:
    """Handles WatchTask.

    Args:
        engine: the engine.
        polls: the waits for events, shared with other handlers.
    """

    def __init__(self, engine: Engine, polls: Polls) -> None:
        self._engine = engine
        self._looks = _Looks(engine, polls)
        self._followers = dict[tuple[str, str], _Follower]()
        self._is_stopping = False

    def stop(self) -> None:
        """End all watches, with an error that makes clients reconnect to another server."""
        self._is_stopping = True
        for follower in self._followers.values():
            follower.wake()

    async def close(self) -> None:
        """End all followers."""
        await asyncio.gather(*(follower.end() for follower in list(self._followers.values())))

    async def watch_task(self, call: Call, request: WatchTaskRequest) -> AsyncGenerator[TaskStatus, None]:
        """Yield the status of a task, and each change until it ends; see WatchTask in worker.proto."""
        tenants = call.visible_tenants(request.tenant_id)
        name = ",".join(sorted(call.caller.tenants or ()))
        async with self._looks.turn(name):
            run = await find_run(call, self._engine, request.workflow_id, request.run_id, request.tenant_id)
        seen = request.after
        with self._following(name, run) as follower:
            while True:
                # Read the event before the news, so that no change in between is missed.
                changed = follower.changed
                news = follower.news
                if news is not None:
                    if tenants is not None and news.tenant_id not in tenants:
                        raise task_unknown(request.workflow_id, request.run_id)
                    if news.status.resume_token != seen:
                        seen = news.status.resume_token
                        yield news.status
                    if news.status.status is not TaskState.RUNNING:
                        return
                if follower.error is not None:
                    # A copy for each watch, because grpcio keeps errors.
                    raise dataclasses.replace(follower.error)
                if self._is_stopping:
                    raise ServiceError(
                        Reason.STOPPING,
                        "the service is stopping; watch again with the last resume_token",
                        metadata={"workflow_id": run.workflow_id},
                    )
                await changed.wait()

    @contextlib.contextmanager
    def _following(self, tenant: str, run: Run) -> Generator[_Follower, None, None]:
        """Share the follower of a run, which ends with its last user."""
        key = (run.workflow_id, run.run_id)
        follower = self._followers.get(key)
        # A follower that has not noticed the end of the run yet would return an outdated status.
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
    """Requests the state of runs for all followers; tenants take turns."""

    def __init__(self, engine: Engine, polls: Polls) -> None:
        self.engine, self.polls = engine, polls
        self._telling = TaskStatusHandler(engine)
        self._gate = FairGate(_LOOKS)

    @contextlib.asynccontextmanager
    async def turn(self, tenant: str) -> AsyncGenerator[None]:
        """Wait for the tenant's turn, and pass it on afterwards."""
        turn = await self._gate.enter(tenant, _LOOKS_OF_A_TENANT, _LOOKS_SHARE)
        try:
            yield
        finally:
            turn.leave()

    async def status(self, tenant: str, run: Run) -> TaskStatus:
        """Return the status of a run."""
        return await self._look(tenant, lambda: self._telling.status(run))

    async def run(self, tenant: str, run: Run) -> Run:
        """Return the current state of a run, or of the run that it continued as."""
        return await self._look(tenant, lambda: follow_run(self.engine, run.workflow_id, run.run_id))

    async def _look(self, tenant: str, look: Callable[[], Awaitable[_Value]]) -> _Value:
        async def in_turn() -> _Value:
            async with self.turn(tenant):
                return await look()

        return await when_not_busy(in_turn)


@dataclass(frozen=True, kw_only=True, slots=True)
class _News:
    """State of a run: its status, which must not be changed, and its tenant."""

    tenant_id: str
    status: TaskStatus


class _Follower:
    """Follows a run, and the runs that it continues as, for all its watches.

    Args:
        looks: requests the state of runs.
        tenant: tenant of the first watch; the follower counts as that tenant's.
        run: the run.

    Attributes:
        news: the newest state; None until there is one.
        error: why there will be no more news.
        changed: set, and replaced by another event, with each change of news or error.
        users: number of watches that use it.
        knows_the_end: whether the run has ended, as far as the follower knows.
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
        """Wake all waiting watches."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def cancel(self) -> None:
        """Stop following."""
        self._task.cancel()

    async def end(self) -> None:
        """Stop following, and wait for the end."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self, run: Run) -> None:
        try:
            await self._tell_each_change(run)
        except ServiceError as error:
            self.error = error
        # Report any error to the watches, and log it.
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
        # The status already reflects the events so far; they are read only to reach the end of the history.
        self._known = run.description.workflow_execution_info.history_length
        self._last = 0
        self._has_ended = False

    async def wait(self) -> None:
        """Wait until there are new events, or the run has ended.

        Raises:
            ServiceError: Temporal does not answer.
        """
        while not await when_not_busy(self._read):
            pass
        if not self._has_ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GATHER):
                    await when_not_busy(self._until_ended)
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
        self._has_ended = not answer.next_page_token
        return self._last > self._known or self._has_ended

    async def _until_ended(self) -> None:
        """Wait for the end of the run alone: its news is final, so it need not be gathered with others."""
        request = GetWorkflowExecutionHistoryRequest()
        request.CopyFrom(self._request)
        request.history_event_filter_type = HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT
        request.next_page_token = b""
        try:
            await self._engine.client.workflow_service.get_workflow_execution_history(
                request, retry=True, timeout=LONG_POLL
            )
        except RPCError as error:
            raise from_rpc_error(error, workflow_id=request.execution.workflow_id) from error


async def when_not_busy(call: Callable[[], Awaitable[_Value]]) -> _Value:
    """Retry a call while Temporal limits the rate, without a limit of time: somebody waits for the result."""
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
    """Return a token that identifies a status; equal statuses have equal tokens."""
    steady = codec.decode(TaskStatus, codec.encode(status))
    for activity in steady.pending_activities:
        for name in _FLEETING:
            setattr(activity, name, None)
    return f"{status.run_id}.{hashlib.sha256(codec.encode(steady)).hexdigest()[:16]}"
