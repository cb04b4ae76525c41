"""Watches a task: its status now, and again whenever its history has grown and something shows.

What a task tells changes with its history, so the history is waited for, not the clock; bursts of events are gathered
for a moment. The one exception are attempts of activities: those that fail and are to be repeated leave no event, so a
task with pending activities is looked at again by and by.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections.abc import AsyncGenerator
from datetime import timedelta

from contextunity.gen.contextunity.worker import TaskState, TaskStatus, WatchTaskRequest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core import codec
from contextunity.worker.grpc_errors import Reason, ServiceError, from_rpc_error

from .call import Call, Engine
from .status import Run, TaskStatusHandler, find_run

__all__ = ["WatchTaskHandler"]

_GATHER = 0.2
"""Seconds for which events are gathered: a status in between would be old before it is read."""
_LOOK_AGAIN, _LOOK_AGAIN_AT_MOST = 2.0, 30.0
"""Seconds after which a task with pending activities is looked at without an event; twice as many each time that
nothing was new."""
_LONG_POLL = timedelta(seconds=70)
"""How long one wait for events may take; the server itself ends it, without events, after about a minute."""
_LOOKS = 8
"""Tasks that are looked at together for the watches of a tenant: a thousand watches that begin at once, or are of one
task, would have the Temporal server busy for so long that it answers nobody in time."""
_FLEETING = ("last_heartbeat_at",)
"""Fields of a pending activity that change without anything having happened."""


class WatchTaskHandler:
    """WatchTask."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._telling = TaskStatusHandler(engine)
        self._stopping = asyncio.Event()
        # Each is kept by the watches that use it.
        self._looks = weakref.WeakValueDictionary[frozenset[str] | None, asyncio.Semaphore]()

    def stop(self) -> None:
        """Ends all watches, each with an error that has its client come back to another server."""
        self._stopping.set()

    async def watch_task(self, call: Call, request: WatchTaskRequest) -> AsyncGenerator[TaskStatus, None]:
        """Tells how a task goes until it ends; see WatchTask in worker.proto."""
        seen = request.after
        looks = self._looks.setdefault(call.caller.tenants, asyncio.Semaphore(_LOOKS))
        async with looks:
            run = await find_run(call, self._engine, request.workflow_id, request.run_id, request.tenant_id)
        growth, patience = _Growth(self._engine, run), _LOOK_AGAIN
        while True:
            async with looks:
                status = await self._telling.status(run)
            token = _token(status)
            if token != seen:
                seen = status.resume_token = token
                patience = _LOOK_AGAIN
                yield status
            else:
                patience = min(2 * patience, _LOOK_AGAIN_AT_MOST)
            if status.status is not TaskState.RUNNING:
                return
            await self._until_grown(growth, run, patience if status.pending_activities else None)
            async with looks:
                run = await find_run(call, self._engine, run.workflow_id, run.run_id, request.tenant_id)
            if run.run_id != growth.run_id:
                growth = _Growth(self._engine, run)

    async def _until_grown(self, growth: _Growth, run: Run, at_most: float | None) -> None:
        waiting = asyncio.ensure_future(growth.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED, timeout=at_most)
            if self._stopping.is_set():
                raise ServiceError(
                    Reason.STOPPING,
                    "the service is being stopped; watch again with the last resume_token",
                    metadata={"workflow_id": run.workflow_id},
                )
            if waiting.done():
                waiting.result()
        finally:
            for task in (waiting, stopping):
                task.cancel()
            await asyncio.gather(waiting, stopping, return_exceptions=True)


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
        while not await self._read():
            pass
        await asyncio.sleep(_GATHER)
        self._known = self._last

    async def _read(self) -> bool:
        try:
            answer = await self._engine.client.workflow_service.get_workflow_execution_history(
                self._request, retry=True, timeout=_LONG_POLL
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


def _token(status: TaskStatus) -> str:
    """Tells one status from another; equal for the same one told again."""
    steady = codec.decode(TaskStatus, codec.encode(status))
    for activity in steady.pending_activities:
        for name in _FLEETING:
            setattr(activity, name, None)
    return f"{status.run_id}.{hashlib.sha256(codec.encode(steady)).hexdigest()[:16]}"
