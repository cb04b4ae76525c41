"""Programs on their way: Temporal has few of a tenant's at a time, and the others wait here for their turn.

On Temporal they would cost the server and the workers a lot, and so the other tenants: each that finds no place in a
sandbox gives its activity back and asks again, some ten events of its history each time.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from contextunity.gen.contextunity.code.v1 import ExecuteResponse
from temporalio.client import Client

from contextunity.worker.fair_gate import FairGate, Turn
from contextunity.worker.grpc_errors import Reason, ServiceError
from contextunity.worker.quotas import Quotas, over

from .call import Call

__all__ = ["ANSWER_MARGIN", "Programs", "Running"]

ANSWER_MARGIN = 0.5
"""Seconds before the caller's deadline at which it is told to come back, so that the answer still arrives."""
_AT_ONCE = 64
"""Programs that Temporal has at once, of all tenants of this process together."""
_Start = Callable[[], Coroutine[Any, Any, tuple[str, str]]]


@dataclass(slots=True)
class Running:
    """A program that was sent to Temporal, or is just being sent, and has not ended.

    Attributes:
        started: its workflow id and run id.
        ended: what came of it.
    """

    started: asyncio.Task[tuple[str, str]]
    ended: asyncio.Task[ExecuteResponse | None]


class Programs:
    """Sends programs to Temporal, those of each tenant in turn.

    Args:
        client: of Temporal.
        quotas: how many of a tenant's Temporal has at once.
    """

    def __init__(self, client: Client, quotas: Quotas) -> None:
        self._client, self._quotas = client, quotas
        self._gate = FairGate(_AT_ONCE)
        self._running = dict[tuple[str, str], Running]()

    async def send(self, call: Call, tenant_id: str, start: _Start) -> Running:
        """Sends the program of a call when it is its turn.

        Args:
            call: that asks.
            tenant_id: whose program it is.
            start: starts it; gives its workflow id and run id.

        Raises:
            ServiceError: its turn did not come before the caller's deadline.
        """
        key = (tenant_id, call.request_id)
        turn: Turn | None = None
        if key not in self._running and call.caller.tenants is not None:
            turn = await self._turn(call, tenant_id)
        known = self._running.get(key)
        if known is not None:
            # The same unit again: it joins what it started.
            if turn is not None:
                turn.leave()
            return known
        started = asyncio.create_task(start())
        ended = asyncio.create_task(self._end(started))
        running = self._running[key] = Running(started, ended)
        ended.add_done_callback(functools.partial(self._forget, key, turn))
        return running

    async def _turn(self, call: Call, tenant_id: str) -> Turn:
        limit = self._quotas.of(tenant_id).running_programs
        remaining = call.remaining
        try:
            async with asyncio.timeout(None if remaining is None else max(0.0, remaining - ANSWER_MARGIN)):
                return await self._gate.enter(tenant_id, limit)
        except TimeoutError:
            text = "as many run, and the turn of this one did not come before the deadline of its call"
            raise over("running_programs", limit, text, tenant_id, method=call.method) from None

    async def _end(self, started: asyncio.Task[tuple[str, str]]) -> ExecuteResponse | None:
        workflow_id, run_id = await started
        handle = self._client.get_workflow_handle(workflow_id, run_id=run_id, result_type=ExecuteResponse)
        response: Any = await handle.result()
        return response if isinstance(response, ExecuteResponse) else None

    def _forget(self, key: tuple[str, str], turn: Turn | None, ended: asyncio.Task[ExecuteResponse | None]) -> None:
        del self._running[key]
        if turn is not None:
            turn.leave()
        if not ended.cancelled():
            # Where nobody waits for it any more, its failure is nobody's either.
            ended.exception()

    async def close(self) -> None:
        """Lets go of programs that nobody waits for any more; Temporal has them."""
        tasks = [task for each in self._running.values() for task in (each.started, each.ended)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Refuses programs that wait for their turn."""
        text = "the service is being stopped, and the program was not started; send the same unit again"
        self._gate.close(ServiceError(Reason.STOPPING, text))
