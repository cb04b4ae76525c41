"""The end of a listener: new calls are rejected as STOPPING, and so are calls that outlast the grace period."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, NoReturn, cast

from .grpc_errors import Reason, ServiceError
from .rejected_calls import refuse

__all__ = ["CallsUnderWay", "stopping"]

_LAST_WORD = 0.5
"""Seconds for calls that outlasted the grace period to send their error."""


def stopping() -> ServiceError:
    """Return the error of a call that comes to a stopping service."""
    text = "the service is stopping and takes no more calls; send the same call again, which reaches another one"
    return ServiceError(Reason.STOPPING, text)


class CallsUnderWay:
    """The calls under way, each in a task of its own."""

    def __init__(self) -> None:
        self.tasks = set[asyncio.Task[Any]]()
        """Their tasks; each adds and discards its own."""
        self.is_stopping = False
        """Whether new calls are rejected."""
        self._outlasted = set[asyncio.Task[Any]]()

    @contextlib.asynccontextmanager
    async def running(self, context: Any) -> AsyncGenerator[None]:
        """Count the calling task's call as under way while the context is open.

        Args:
            context: grpcio's context, which ends the call as STOPPING if it outlasts the grace period of `stop`.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self.tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self.has_outlasted(task):
                raise
            await self.refuse(context)
        finally:
            self.tasks.discard(task)

    def has_outlasted(self, task: asyncio.Task[Any]) -> bool:
        """Return whether the cancellation of a call is that of `stop`, and nobody else's."""
        return task in self._outlasted and not task.uncancel()

    @staticmethod
    async def refuse(context: Any) -> NoReturn:
        """End a call that has outlasted the grace period."""
        # Let grpcio complete what it had begun for the call; otherwise it logs an error.
        await asyncio.sleep(0)
        text = "the service is stopping, and the call did not end within its grace period; send the same call again"
        await refuse(ServiceError(Reason.STOPPING, text), context)

    async def stop(self, grace: float) -> None:
        """Wait for the calls under way, and end those that outlast the grace period in seconds as STOPPING."""
        self.is_stopping = True
        if self.tasks:
            await asyncio.wait(self.tasks.copy(), timeout=grace)
        if self.tasks:
            self._outlasted = self.tasks.copy()
            for task in self._outlasted:
                task.cancel()
            await asyncio.wait(self._outlasted, timeout=_LAST_WORD)
