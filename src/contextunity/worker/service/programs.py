"""Programs that run or wait: Temporal gets only a few of each tenant at a time, and the others wait here.

On Temporal, waiting programs would burden the server, the workers and other tenants: each that finds no free sandbox
frees its slot and retries, which adds some ten events to its history each time.
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
"""Seconds before the caller's deadline at which waiting ends, so that the answer still arrives in time."""
_TENANTS = 4
"""How many tenants may reach their limit of programs on Temporal at once; above that, all take turns."""
_SHARES = 4
"""Share of its programs that a tenant may start at once while other tenants have programs too."""
_BEGINNING = 1.0
"""Seconds after which a program counts as started: by then it waits for a tool, or has a sandbox."""
_Start = Callable[[], Coroutine[Any, Any, tuple[str, str]]]


@dataclass(slots=True)
class Running:
    """A program that is being sent to Temporal, or is there and has not ended.

    Attributes:
        started: its workflow id and run id.
        ended: its result.
    """

    started: asyncio.Task[tuple[str, str]]
    ended: asyncio.Task[ExecuteResponse | None]


class Programs:
    """Sends programs to Temporal; the programs of each tenant take turns.

    Args:
        client: Temporal client.
        quotas: limits of a tenant's programs on Temporal.
    """

    def __init__(self, client: Client, quotas: Quotas) -> None:
        self._client, self._quotas = client, quotas
        total = _TENANTS * quotas.of("").running_programs
        self._gate, self._beginning = FairGate(total), FairGate(total, seconds=_BEGINNING)
        self._running = dict[tuple[str, str], Running]()

    async def send(self, call: Call, tenant_id: str, start: _Start) -> Running:
        """Start the program of a call when it is its tenant's turn.

        Args:
            call: the call.
            tenant_id: tenant of the program.
            start: starts it, and returns its workflow id and run id.

        Raises:
            ServiceError: the caller's deadline passed before its turn.
        """
        key = (tenant_id, call.request_id)
        turns = list[Turn]()
        if key not in self._running and call.caller.tenants is not None:
            turns = await self._turns(call, tenant_id)
        known = self._running.get(key)
        if known is not None:
            # A retry with the same unit joins the program that it started.
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
            text = "as many programs run, and the caller's deadline passed before it was this one's turn"
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
            # Retrieve the failure even if nobody waits, because asyncio would log it.
            ended.exception()

    async def close(self) -> None:
        """Detach from running programs; they continue on Temporal."""
        tasks: list[asyncio.Task[Any]] = [
            task for each in self._running.values() for task in (each.started, each.ended)
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Reject programs that wait for their turn."""
        text = "the service is stopping, and the program was not started; send the same unit again"
        self._gate.close(ServiceError(Reason.STOPPING, text))


def _leave(turns: list[Turn]) -> None:
    for turn in turns:
        turn.leave()
