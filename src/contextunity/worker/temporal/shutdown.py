"""The grace period of a stop: how long running activities may continue, and what happens to the others.

The SDK cancels activities after the grace period, and then waits for them. A synchronous activity that blocks in a call
does not notice that, and would delay the stop without limit. So it is abandoned: it is reported to Temporal as failed,
another worker retries it, and its thread ends with the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any, NoReturn

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from ..tracing import stop_tracing

__all__ = ["WORKER_SHUTDOWN", "Grace", "has_abandoned", "leave", "leave_if_held"]

_LOG = logging.getLogger(__name__)

WORKER_SHUTDOWN = "WorkerShutdown"
"""Type of the failure of an abandoned activity; its retry policy applies."""
_MARGIN = 0.5
"""Seconds after the grace period for an activity that handles its cancellation."""
_LAST_WORD = 2.0
"""Seconds for workers to report abandoned activities to Temporal."""
_THREADS = 0.5
"""Seconds for threads of asyncio to end."""
_abandoned = set[str]()


class Grace(Interceptor):
    """Tracks the activities of some workers, and abandons those that do not end in time.

    Args:
        seconds: grace period of the workers before they cancel activities.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_over = False
        self.running = dict[asyncio.Task[Any], str]()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Track each activity while it runs."""
        return _Inbound(next, self)

    async def stop(self, workers: asyncio.Task[None]) -> None:
        """Stop workers, and wait for them only slightly longer than the grace period.

        Args:
            workers: the task that runs them; cancelling it stops them in order.
        """
        # Unlike shutdown(), cancelling also works while a worker starts.
        workers.cancel()
        await asyncio.wait({workers}, timeout=self.seconds + _MARGIN)
        if not workers.done():
            self.is_over = True
            for task, name in self.running.items():
                _LOG.warning("activity %s did not end within the grace period of %g s; abandoned", name, self.seconds)
                _abandoned.add(name)
                task.cancel()
            await asyncio.wait({workers}, timeout=_LAST_WORD)
        if not workers.done():
            _LOG.warning("workers did not end within the grace period of %g s; abandoned", self.seconds)
            _abandoned.add(workers.get_name())
        elif not workers.cancelled() and workers.exception() is not None:
            _LOG.debug("workers ended with an error", exc_info=workers.exception())


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, grace: Grace) -> None:
        super().__init__(next)
        self._grace = grace

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        grace, task, info = self._grace, asyncio.current_task(), activity.info()
        assert task is not None
        grace.running[task] = f"{info.activity_type} of workflow {info.workflow_id}"
        try:
            return await super().execute_activity(input)
        except asyncio.CancelledError:
            if not grace.is_over:
                raise
            raise ApplicationError(
                f"the worker was stopped, and the activity did not end within the grace period of {grace.seconds:g} s",
                type=WORKER_SHUTDOWN,
            ) from None
        finally:
            del grace.running[task]


def has_abandoned() -> bool:
    """Return whether this process has abandoned threads."""
    return bool(_abandoned)


async def leave_if_held(code: int) -> None:
    """End the process at once if it has abandoned threads; Python waits for threads when its event loop closes."""
    threads = asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor())
    await asyncio.wait({threads}, timeout=_THREADS)
    if has_abandoned() or not threads.done():
        leave(code)


def leave(code: int) -> NoReturn:
    """End the process at once, regardless of its threads."""
    stop_tracing()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
