"""Places for programs: so many in a worker, and so many of them for one tenant."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from .errors import SandboxBusyError

__all__ = ["Places"]


@dataclass(slots=True)
class _Tenant:
    semaphore: asyncio.Semaphore
    users: int = 0


@dataclass(slots=True)
class Places:
    """Bounds how many programs run at once.

    Args:
        total: in the worker.
        per_tenant: of one tenant.
        patience: seconds that a program waits for a place here; then it gives way to others, and comes again.
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
        """Holds a place while the context is open.

        Raises:
            SandboxBusyError: none came free in time.
        """
        tenant = self._tenants.setdefault(tenant_id, _Tenant(asyncio.Semaphore(self.per_tenant)))
        tenant.users += 1
        try:
            async with contextlib.AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(self.patience):
                        # The tenant's first: who waits for that holds no place that others could have.
                        await held.enter_async_context(tenant.semaphore)
                        await held.enter_async_context(self._all)
                except TimeoutError:
                    raise SandboxBusyError(
                        f"all places are taken: {self.total} in this worker, {self.per_tenant} of them for one tenant"
                    ) from None
                yield
        finally:
            tenant.users -= 1
            if not tenant.users:
                del self._tenants[tenant_id]
