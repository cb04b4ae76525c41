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
from contextunity.worker.quotas import Quotas, over_quota

from .call import Call

__all__ = ["ANSWER_MARGIN", "Programs", "Running"]

ANSWER_MARGIN = 0.5
"""Seconds before the caller's deadline at which it is told to come back, so that the answer still arrives."""
_TENANTS = 4
"""How many tenants may have as many programs on Temporal as each may; beyond, all take turns."""
_SHARES = 4
"""What part of its programs a tenant may begin at once while other tenants have programs too."""
_BEGINNING = 1.0
"""Seconds after which a program counts as begun: it waits for a tool by then, or has a place in a sandbox for long."""
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
        total = _TENANTS * quotas.of("").running_programs
        self._gate, self._beginning = FairGate(total), FairGate(total, seconds=_BEGINNING)
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
        turns = list[Turn]()
        if key not in self._running and call.caller.tenants is not None:
            turns = await self._turns(call, tenant_id)
        known = self._running.get(key)
        if known is not None:
            # The same unit again: it joins what it started.
            _leave(turns)
            return known
        started = asyncio.create_task(start())
        ended = asyncio.create_task(self._end(started))
        running = self._running[key] = Running(started, ended)
        ended.add_done_callback(functools.partial(self._forget, key, turns))
        return running

    async def _turns(self, call: Call, tenant_id: str) -> list[Turn]:
        limit = self._quotas.of(tenant_id).running_programs
        share = max(1, limit // _SHARES)
        remaining = call.remaining
        turns = list[Turn]()
        try:
            async with asyncio.timeout(None if remaining is None else max(0.0, remaining - ANSWER_MARGIN)):
                for gate, most in ((self._gate, limit), (self._beginning, share)):
                    turn = gate.try_enter(tenant_id, limit, most)
                    if turn is None:
                        call.rest()
                        turn = await gate.enter(tenant_id, limit, most)
                    turns.append(turn)
        except BaseException as error:
            _leave(turns)
            if not isinstance(error, TimeoutError):
                raise
            text = "as many run, and the turn of this one did not come before the deadline of its call"
            raise over_quota("running_programs", limit, text, tenant_id, method=call.method) from None
        return turns

    async def _end(self, started: asyncio.Task[tuple[str, str]]) -> ExecuteResponse | None:
        workflow_id, run_id = await started
        handle = self._client.get_workflow_handle(workflow_id, run_id=run_id, result_type=ExecuteResponse)
        response: Any = await handle.result()
        return response if isinstance(response, ExecuteResponse) else None

    def _forget(self, key: tuple[str, str], turns: list[Turn], ended: asyncio.Task[ExecuteResponse | None]) -> None:
        del self._running[key]
        _leave(turns)
        if not ended.cancelled():
            # Where nobody waits for it any more, its failure is nobody's either.
            ended.exception()

    async def close(self) -> None:
        """Lets go of programs that nobody waits for any more; Temporal has them."""
        tasks: list[asyncio.Task[Any]] = [
            task for each in self._running.values() for task in (each.started, each.ended)
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Refuses programs that wait for their turn."""
        text = "the service is being stopped, and the program was not started; send the same unit again"
        self._gate.close(ServiceError(Reason.STOPPING, text))


def _leave(turns: list[Turn]) -> None:
    for turn in turns:
        turn.leave()
