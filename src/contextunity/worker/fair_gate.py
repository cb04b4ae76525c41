"""Lets so many through at once, and so many of one tenant; those that wait take turns by tenant.

A quota refuses what is too much. A gate only orders it: who sends a thousand waits behind itself, and the next tenant
waits for one of them at the most.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

__all__ = ["FairGate", "Turn"]

_CALM = 5.0
"""Seconds without a call of another tenant after which one has the gate to itself."""


class Turn:
    """Somebody who was let through, until it leaves."""

    __slots__ = ("_gate", "since", "tenant")

    def __init__(self, gate: FairGate, tenant: str, since: float) -> None:
        self._gate: FairGate | None = gate
        self.tenant, self.since = tenant, since

    def leave(self) -> None:
        """Makes room for the next; a second call does nothing."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate._left(self)  # pyright: ignore[reportPrivateUsage]  # the two are one thing


@dataclass(slots=True)
class _Line:
    """Those of a tenant that wait, and how many of them may be through at once: alone, and beside other tenants."""

    limit: int
    share: int
    waiting: OrderedDict[asyncio.Future[Turn], None] = field(default_factory=OrderedDict[asyncio.Future[Turn], None])


class FairGate:
    """A gate of one event loop; all is done without a wait in between, so it needs no lock.

    Args:
        total: how many are through at once.
        seconds: after which one that is through makes room for those that wait, though it goes on; None for never. What
            takes longer waits for others itself, such as for a worker's answer, and takes next to nothing meanwhile.
    """

    def __init__(self, total: int, *, seconds: float | None = None) -> None:
        self._free, self._seconds = total, seconds
        self._through = dict[Turn, None]()
        self._of_tenant = dict[str, int]()
        self._lines = OrderedDict[str, _Line]()
        self._timer: asyncio.TimerHandle | None = None
        self._closed: Exception | None = None
        self._last_tenant, self._last_change = "", float("-inf")

    def waiting(self, tenant: str) -> int:
        """How many of a tenant wait."""
        line = self._lines.get(tenant)
        return len(line.waiting) if line is not None else 0

    def try_enter(self, tenant: str, limit: int, share: int) -> Turn | None:
        """Goes through at once; None where that would be out of turn, or too many.

        Args:
            tenant: whose turn it is.
            limit: how many of the tenant's may be through at once.
            share: how many while other tenants call too.
        """
        now = asyncio.get_running_loop().time()
        if tenant != self._last_tenant:
            self._last_tenant, self._last_change = tenant, now
        if self._free <= 0 or tenant in self._lines:
            return None
        count = self._of_tenant.get(tenant, 0)
        if count >= limit or (count >= share and now - self._last_change < _CALM):
            return None
        return self._let_through(tenant, now)

    async def enter(self, tenant: str, limit: int, share: int) -> Turn:
        """Goes through when it is the tenant's turn.

        Args:
            tenant: whose turn it is.
            limit: how many of the tenant's may be through at once.
            share: how many while other tenants call too.

        Raises:
            Exception: the one that the gate was closed with.
        """
        loop = asyncio.get_running_loop()
        if self._closed is not None:
            raise self._closed
        turn = self.try_enter(tenant, limit, share)
        if turn is not None:
            return turn
        line = self._lines.setdefault(tenant, _Line(limit, share))
        line.limit, line.share = limit, share
        waiting: asyncio.Future[Turn] = loop.create_future()
        line.waiting[waiting] = None
        self._watch_the_clock(loop)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                # Its turn came in the same moment.
                waiting.result().leave()
            raise
        finally:
            line.waiting.pop(waiting, None)
            if not line.waiting and self._lines.get(tenant) is line:
                del self._lines[tenant]

    def close(self, error: Exception) -> None:
        """Has all who wait, and who come later, fail with an error; those that are through go on."""
        self._closed = error
        for line in self._lines.values():
            for waiting in line.waiting:
                if not waiting.done():
                    waiting.set_exception(error)

    def _let_through(self, tenant: str, now: float) -> Turn:
        self._free -= 1
        self._of_tenant[tenant] = self._of_tenant.get(tenant, 0) + 1
        turn = Turn(self, tenant, now)
        self._through[turn] = None
        return turn

    def _left(self, turn: Turn) -> None:
        del self._through[turn]
        self._free += 1
        left = self._of_tenant[turn.tenant] - 1
        if left:
            self._of_tenant[turn.tenant] = left
        else:
            del self._of_tenant[turn.tenant]
        if self._lines:
            self._next(asyncio.get_running_loop())

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lets through those whose turn it is: the tenant that was served longest ago comes first."""
        now, found = loop.time(), True
        is_calm = now - self._last_change >= _CALM
        while found:
            found = False
            for tenant, line in list(self._lines.items()):
                limit = line.limit if is_calm else min(line.limit, line.share)
                if self._free > 0 and self._of_tenant.get(tenant, 0) < limit:
                    found = self._let_one_through(tenant, line, now) or found
        self._watch_the_clock(loop)

    def _let_one_through(self, tenant: str, line: _Line, now: float) -> bool:
        came = False
        while line.waiting and not came:
            waiting, _ = line.waiting.popitem(last=False)
            if not waiting.done():
                waiting.set_result(self._let_through(tenant, now))
                came = True
        self._lines.move_to_end(tenant)
        if not line.waiting:
            del self._lines[tenant]
        return came

    def _watch_the_clock(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._seconds is None or self._timer is not None or not self._lines or not self._through:
            return
        oldest = next(iter(self._through))
        self._timer = loop.call_at(oldest.since + self._seconds, self._time_out, loop)

    def _time_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        assert self._seconds is not None
        over = loop.time() - self._seconds
        for turn in [each for each in self._through if each.since <= over]:
            turn.leave()
        self._watch_the_clock(loop)
