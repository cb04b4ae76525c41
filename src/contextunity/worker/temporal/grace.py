"""The grace of a stop: how long activities under way may go on, whatever they do, and what becomes of the others.

The SDK cancels activities after the grace, and then waits for them. A synchronous activity that waits in a call hears
nothing of that, so a worker with one would stop when it pleases. Here it is abandoned: Temporal is told that it failed,
so that another worker repeats it, and its thread ends with the process.
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

__all__ = ["WORKER_SHUTDOWN", "Grace", "has_abandoned", "leave", "leave_if_held"]

_LOG = logging.getLogger(__name__)

WORKER_SHUTDOWN = "WorkerShutdown"
"""Type of the failure of an activity that was abandoned; it is retried as its retry policy says."""
_MARGIN = 0.5
"""Seconds after the grace in which an activity that heeds its cancellation may end."""
_LAST_WORD = 2.0
"""Seconds in which workers may tell Temporal of what was abandoned."""
_THREADS = 0.5
"""Seconds in which threads of asyncio may end."""
_abandoned = set[str]()


class Grace(Interceptor):
    """Knows the activities of some workers, and abandons those that do not end in time.

    Args:
        seconds: that the workers leave activities after they are told to stop, before they cancel them.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_over = False
        self.running = dict[asyncio.Task[Any], str]()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Looks after each activity while it runs."""
        return _Inbound(next, self)

    async def stop(self, workers: asyncio.Task[None]) -> None:
        """Stops workers, and waits for them no longer than the grace and some.

        Args:
            workers: runs them; cancelled, it stops them in order.
        """
        # Unlike a call of shutdown(), this also holds while a worker starts.
        workers.cancel()
        await asyncio.wait({workers}, timeout=self.seconds + _MARGIN)
        if not workers.done():
            self.is_over = True
            for task, name in self.running.items():
                _LOG.warning("activity %s did not end within the grace of %g s; it is abandoned", name, self.seconds)
                _abandoned.add(name)
                task.cancel()
            await asyncio.wait({workers}, timeout=_LAST_WORD)
        if not workers.done():
            _LOG.warning("workers did not end within the grace of %g s; they are abandoned", self.seconds)
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
                f"the worker was stopped, and the activity did not end within the grace of {grace.seconds:g} s",
                type=WORKER_SHUTDOWN,
            ) from None
        finally:
            del grace.running[task]


def has_abandoned() -> bool:
    """Whether this process has threads that nobody waits for any more."""
    return bool(_abandoned)


async def leave_if_held(code: int) -> None:
    """Ends the process at once where threads would keep it; Python waits for them when its event loop closes."""
    threads = asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor())
    await asyncio.wait({threads}, timeout=_THREADS)
    if has_abandoned() or not threads.done():
        leave(code)


def leave(code: int) -> NoReturn:
    """Ends the process at once, whatever its threads do."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
