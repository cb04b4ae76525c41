"""Counts how runs of workflows begin and end, and how attempts of activities end."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, FailureError, is_cancelled_exception
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from contextunity.core import context

from ..metrics import ACTIVITY_FAILURES_TOTAL, ACTIVITY_RETRIES_TOTAL, START_SECONDS, WORKFLOWS_TOTAL

__all__ = ["MetricsInterceptor"]


class MetricsInterceptor(Interceptor):
    """Counts in the metrics of this process; see `contextunity.worker.metrics`."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Counts attempts that fail, and repeated ones."""
        return _ActivityInbound(next)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        """Counts runs that begin, and that end."""
        return _WorkflowInbound


class _ActivityInbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        if info.attempt > 1:
            ACTIVITY_RETRIES_TOTAL.add(1, activity_type=info.activity_type, tenant=_tenant())
        try:
            return await super().execute_activity(input)
        except Exception as error:
            error_type, benign = type(error).__name__, False
            if isinstance(error, ApplicationError):
                error_type, benign = error.type or error_type, error.category is ApplicationErrorCategory.BENIGN
            ACTIVITY_FAILURES_TOTAL.add(
                1,
                activity_type=info.activity_type,
                error_type=error_type,
                benign="true" if benign else "false",
                tenant=_tenant(),
            )
            raise


class _WorkflowInbound(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        _observe_start()
        try:
            result = await super().execute_workflow(input)
        except workflow.ContinueAsNewError:
            _count_end("continued_as_new")
            raise
        # What else is raised fails the workflow's task, which is repeated: the run goes on.
        except (TimeoutError, FailureError, asyncio.CancelledError) as error:
            is_cancelled = workflow.cancellation_reason() is not None and is_cancelled_exception(error)
            _count_end("cancelled" if is_cancelled else "failed")
            raise
        _count_end("completed")
        return result


_REMEMBERED = 10_000
"""Runs whose beginning was observed. A first task that fails is tried again, and is no replay then."""


@functools.lru_cache(maxsize=_REMEMBERED)
def _observed(_run_id: str) -> list[float]:
    """What was observed of a run; nothing at first. Workflows run in several threads, which this serves."""
    return []


def _observe_start() -> None:
    info = workflow.info()
    # A run that continues, repeats or resets another one has a start that nobody asked for.
    if workflow.unsafe.is_replaying() or info.parent is not None or info.run_id != info.first_execution_run_id:
        return
    observed = _observed(info.run_id)
    if not observed:
        # `start_time` is when the server gave the first task to this worker.
        observed.append((info.start_time - info.workflow_start_time).total_seconds())
        START_SECONDS.observe(max(0.0, observed[0]), workflow_type=info.workflow_type, tenant=_tenant())


def _count_end(status: str) -> None:
    # A replay ends the run once more, and so does a worker that forgets it; to the SDK that is a replay, too.
    if not workflow.unsafe.is_replaying():
        WORKFLOWS_TOTAL.add(1, workflow_type=workflow.info().workflow_type, status=status, tenant=_tenant())


def _tenant() -> str:
    return context.current().tenant_id
