"""Wait for the end of tasks, with Temporal's long poll for the last event of a history.

All callers that wait for the same run share one poll, so a hundred cost no more than one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import NamedTuple

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import HistoryEventFilterType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.service import RPCError, RPCStatusCode

from contextunity.worker.grpc_errors import Reason, ServiceError, from_rpc_error

from .call import Engine
from .watch import LONG_POLL, Polls, when_not_busy

__all__ = ["End", "Results"]

_LOOK_AGAIN, _LOOK_AGAIN_AT_MOST = 2.0, 30.0
"""Seconds between checks of a run if the tenant has no poll left; doubled each time."""
_ENDS = frozenset(
    f"workflow_execution_{end}_event_attributes"
    for end in ("completed", "failed", "canceled", "terminated", "timed_out", "continued_as_new")
)


class End(NamedTuple):
    """How a task ended.

    Attributes:
        run_id: id of its last run.
        event: last event of that run's history.
    """

    run_id: str
    event: HistoryEvent


@dataclass(slots=True)
class _Waiting:
    """A run and the number of callers that wait for it."""

    task: asyncio.Task[End]
    users: int = 0


class Results:
    """Waits for the end of tasks.

    Args:
        engine: the engine whose client is used.
        polls: the waits for events, shared with other handlers.
    """

    def __init__(self, engine: Engine, polls: Polls) -> None:
        self._engine, self._polls = engine, polls
        self._waiting = dict[tuple[str, str], _Waiting]()
        self._is_stopping = False

    def stop(self) -> None:
        """End all waits with an error that makes clients call another server."""
        self._is_stopping = True
        for each in self._waiting.values():
            each.task.cancel()

    async def close(self) -> None:
        """Cancel all polls."""
        tasks = [each.task for each in self._waiting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def end(self, tenant: str, workflow_id: str, run_id: str) -> End:
        """Wait until a run, and the runs that it continued as, have ended.

        Args:
            tenant: tenant of the caller, for the count of polls.
            workflow_id: id of the task.
            run_id: id of the run.

        Raises:
            ServiceError: Temporal does not answer, or the service is stopping.
        """
        async with self._shared(tenant, workflow_id, run_id) as task:
            try:
                return await asyncio.shield(task)
            except ServiceError as error:
                # A copy for each caller, because grpcio keeps errors.
                raise dataclasses.replace(error) from None
            except asyncio.CancelledError:
                if not (self._is_stopping and task.cancelled()):
                    raise
        raise ServiceError(
            Reason.STOPPING,
            "the service is stopping, and the task continues; send the same call again to wait for it",
            metadata={"workflow_id": workflow_id, "run_id": run_id},
        )

    @contextlib.asynccontextmanager
    async def _shared(self, tenant: str, workflow_id: str, run_id: str) -> AsyncGenerator[asyncio.Task[End]]:
        key = (workflow_id, run_id)
        waiting = self._waiting.get(key)
        if waiting is None:
            name = f"wait for the end of {workflow_id}"
            task = asyncio.create_task(self._follow(tenant, workflow_id, run_id), name=name)
            waiting = self._waiting[key] = _Waiting(task)
            if self._is_stopping:
                task.cancel()
        waiting.users += 1
        try:
            yield waiting.task
        finally:
            waiting.users -= 1
            if not waiting.users:
                del self._waiting[key]
                waiting.task.cancel()
                # All waiting callers have received the result or error.
                await asyncio.gather(waiting.task, return_exceptions=True)

    async def _follow(self, tenant: str, workflow_id: str, run_id: str) -> End:
        while True:
            event = await self._last_event(tenant, workflow_id, run_id)
            following = _next_run(event)
            if not following:
                return End(run_id, event)
            run_id = following

    async def _last_event(self, tenant: str, workflow_id: str, run_id: str) -> HistoryEvent:
        request = GetWorkflowExecutionHistoryRequest(
            namespace=self._engine.client.namespace,
            execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            history_event_filter_type=HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT,
        )
        patience = _LOOK_AGAIN
        while True:
            request.wait_new_event = self._polls.try_take(tenant)
            try:
                event = await when_not_busy(lambda: self._ask(request))
            finally:
                if request.wait_new_event:
                    self._polls.give_back(tenant)
            if event is not None:
                return event
            if not request.wait_new_event:
                await asyncio.sleep(patience)
                patience = min(2 * patience, _LOOK_AGAIN_AT_MOST)

    async def _ask(self, request: GetWorkflowExecutionHistoryRequest) -> HistoryEvent | None:
        """Return the last event of a run; None if it has not ended."""
        try:
            answer = await self._engine.client.workflow_service.get_workflow_execution_history(
                request, retry=True, timeout=LONG_POLL
            )
        except RPCError as error:
            if error.status is RPCStatusCode.DEADLINE_EXCEEDED:
                return None
            raise from_rpc_error(error, workflow_id=request.execution.workflow_id) from error
        # Without waiting, the server returns the newest event of a running workflow.
        return next((each for each in answer.history.events if each.WhichOneof("attributes") in _ENDS), None)


def _next_run(event: HistoryEvent) -> str:
    """Return the run that a run continued as: by itself, its retry policy or its cron; empty if the task has ended."""
    kind = event.WhichOneof("attributes")
    return str(getattr(getattr(event, kind), "new_execution_run_id", "")) if kind is not None else ""
