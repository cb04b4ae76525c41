"""Limit concurrent programs per worker and per tenant."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from contextunity.worker.metrics import PROGRAMS_RUNNING, PROGRAMS_WAITING

from .errors import SandboxBusyError

__all__ = ["ProgramSlots"]

_WAITING = 2


@dataclass(slots=True)
class _Tenant:
    semaphore: asyncio.Semaphore
    users: int = 0
    waiting: int = 0


@dataclass(slots=True)
class ProgramSlots:
    """Limit how many programs run at once.

    Args:
        total: places in the worker.
        per_tenant: places of one tenant.
        patience: seconds that a program waits for a place; then its activity fails, and is retried.
            Of one tenant as many wait as may run, and at least two; a further one fails at once, so that one
            tenant's waiting programs never use all activity slots of the worker.
    """

    total: int
    per_tenant: int
    patience: float = 2.0
    _all: asyncio.Semaphore = field(init=False)
    _tenants: dict[str, _Tenant] = field(default_factory=dict[str, _Tenant], init=False)
    _running: int = field(default=0, init=False)
    _waiting: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._all = asyncio.Semaphore(self.total)

    @contextlib.asynccontextmanager
    async def hold(self, tenant_id: str) -> AsyncGenerator[None, None]:
        """Hold a place while the context is open.

        Raises:
            SandboxBusyError: no place became free in time, or too many of the tenant's programs wait already.
        """
        tenant = self._tenants.setdefault(tenant_id, _Tenant(asyncio.Semaphore(self.per_tenant)))
        tenant.users += 1
        try:
            async with contextlib.AsyncExitStack() as held:
                if tenant.waiting >= max(_WAITING, self.per_tenant):
                    raise self._busy()
                tenant.waiting += 1
                self._count(waiting=1)
                try:
                    async with asyncio.timeout(self.patience):
                        # Wait for the tenant's place first: that wait holds no place that others could use.
                        await held.enter_async_context(tenant.semaphore)
                        await held.enter_async_context(self._all)
                except TimeoutError:
                    raise self._busy() from None
                finally:
                    tenant.waiting -= 1
                    self._count(waiting=-1)
                self._count(running=1)
                held.callback(self._count, running=-1)
                yield
        finally:
            tenant.users -= 1
            if not tenant.users:
                del self._tenants[tenant_id]

    def _count(self, *, running: int = 0, waiting: int = 0) -> None:
        self._running += running
        self._waiting += waiting
        PROGRAMS_RUNNING.set(self._running)
        PROGRAMS_WAITING.set(self._waiting)

    def _busy(self) -> SandboxBusyError:
        return SandboxBusyError(
            f"all places are taken: {self.total} in this worker, {self.per_tenant} of them for one tenant"
        )
