"""Slots for programs: so many in a worker, and so many of them for one tenant."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

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
        total: in the worker.
        per_tenant: of one tenant.
        patience: seconds that a program waits for a place here; then it gives way to others, and comes again.
            As many of one tenant wait as run, and two at least; a further one gives way at once, so that the
            activities of the worker are never all of one tenant's that waits.
    """

    total: int
    per_tenant: int
    patience: float = 2.0
    _all: asyncio.Semaphore = field(init=False)
    _tenants: dict[str, _Tenant] = field(default_factory=dict[str, _Tenant], init=False)

    def __post_init__(self) -> None:
        self._all = asyncio.Semaphore(self.total)

    @contextlib.asynccontextmanager
    async def hold(self, tenant_id: str) -> AsyncGenerator[None, None]:
        """Hold a place while the context is open.

        Raises:
            SandboxBusyError: none came free in time, or enough of the tenant's programs wait already.
        """
        tenant = self._tenants.setdefault(tenant_id, _Tenant(asyncio.Semaphore(self.per_tenant)))
        tenant.users += 1
        try:
            async with contextlib.AsyncExitStack() as held:
                if tenant.waiting >= max(_WAITING, self.per_tenant):
                    raise self._busy()
                tenant.waiting += 1
                try:
                    async with asyncio.timeout(self.patience):
                        # The tenant's first: who waits for that holds no place that others could have.
                        await held.enter_async_context(tenant.semaphore)
                        await held.enter_async_context(self._all)
                except TimeoutError:
                    raise self._busy() from None
                finally:
                    tenant.waiting -= 1
                yield
        finally:
            tenant.users -= 1
            if not tenant.users:
                del self._tenants[tenant_id]

    def _busy(self) -> SandboxBusyError:
        return SandboxBusyError(
            f"all places are taken: {self.total} in this worker, {self.per_tenant} of them for one tenant"
        )
