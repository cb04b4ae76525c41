"""Limit how many calls run at once, in all and per tenant; waiting calls take turns by tenant.

A quota rejects calls over the limit. A gate only orders them: a tenant that sends a thousand waits for its own calls,
and the next tenant waits for at most one of them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

__all__ = ["FairGate", "Turn"]

_CALM = 5.0
"""Seconds without a call of another tenant after which a tenant has the whole gate."""


class Turn:
    """A place in the gate, until it is left."""

    __slots__ = ("_gate", "since", "tenant")

    def __init__(self, gate: FairGate, tenant: str, since: float) -> None:
        self._gate: FairGate | None = gate
        self.tenant, self.since = tenant, since

    def leave(self, pause: float = 0.0) -> None:
        """Free the place for the next call; a second call does nothing.

        Args:
            pause: seconds for which the place still counts for this tenant, while other tenants may have it.
        """
        gate, self._gate = self._gate, None
        if gate is not None:
            gate._left(self, pause)  # pyright: ignore[reportPrivateUsage]  # the two classes are one concept


@dataclass(slots=True)
class _Line:
    """Waiting calls of a tenant, and how many may run at once: alone, and while other tenants call."""

    limit: int
    share: int
    waiting: OrderedDict[asyncio.Future[Turn], None] = field(default_factory=OrderedDict[asyncio.Future[Turn], None])


class FairGate:
    """A gate of one event loop; no method awaits while it changes the state, so it needs no lock.

    Args:
        total: number of places.
        seconds: after this time a call frees its place while it continues; None for never. A longer call waits for
            others, such as for a worker's answer, and uses almost no processor time.
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
        """Return how many calls of a tenant wait."""
        line = self._lines.get(tenant)
        return len(line.waiting) if line is not None else 0

    def try_enter(self, tenant: str, limit: int, share: int) -> Turn | None:
        """Take a place now; None if it is not the tenant's turn, or there is no place.

        Args:
            tenant: tenant of the call.
            limit: places that the tenant may have.
            share: places that it may have while other tenants call too.
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
        """Wait for the tenant's turn, and take a place.

        Args:
            tenant: tenant of the call.
            limit: places that the tenant may have.
            share: places that it may have while other tenants call too.

        Raises:
            Exception: the error that the gate was closed with.
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
                # The turn came at the same moment.
                waiting.result().leave()
            raise
        finally:
            line.waiting.pop(waiting, None)
            if not line.waiting and self._lines.get(tenant) is line:
                del self._lines[tenant]

    def close(self, error: Exception) -> None:
        """Fail all waiting and later calls with an error; running calls continue."""
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

    def _left(self, turn: Turn, pause: float) -> None:
        del self._through[turn]
        self._free += 1
        loop = asyncio.get_running_loop()
        if pause > 0:
            loop.call_later(pause, self._discount, turn.tenant, loop)
            if self._lines:
                self._next(loop)
        else:
            self._discount(turn.tenant, loop)

    def _discount(self, tenant: str, loop: asyncio.AbstractEventLoop) -> None:
        left = self._of_tenant[tenant] - 1
        if left:
            self._of_tenant[tenant] = left
        else:
            del self._of_tenant[tenant]
        if self._lines:
            self._next(loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give free places to waiting calls: the tenant that was served longest ago comes first."""
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
