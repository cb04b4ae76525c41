"""Resources that the activities of a worker share: the enricher, and places for calls of the router."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from contextunity.worker.core.registry import ModuleContext
from contextunity.worker.temporal.concurrency import ConcurrencyLimit

from .enricher import Enricher
from .router import RouterEnricher
from .rules import RuleEnricher
from .settings import GardenerSettings
from .taxonomy import load_taxonomy

__all__ = ["Resources", "current", "lifespan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Opened at a worker's start.

    Attributes:
        enricher: the enricher.
        calls: limits how many batches wait for the router at once; None without a router.
    """

    enricher: Enricher
    calls: ConcurrencyLimit | None = None


_current: Resources | None = None


def current() -> Resources:
    """Return the resources of the current worker.

    Raises:
        RuntimeError: no worker with the gardener module runs in this process.
    """
    if _current is None:
        raise RuntimeError("gardener activities run in a worker that has opened the module's lifespan")
    return _current


@contextlib.asynccontextmanager
async def lifespan(context: ModuleContext) -> AsyncGenerator[None, None]:
    """Open the resources of a worker, and close them when it stops."""
    global _current
    settings = context.settings if context.settings is not None else GardenerSettings()
    rules = RuleEnricher(await asyncio.to_thread(load_taxonomy, settings.taxonomy))
    async with contextlib.AsyncExitStack() as stack:
        resources = Resources(enricher=rules)
        if settings.router_url is not None:
            router = RouterEnricher(settings, rules)
            stack.push_async_callback(router.close)
            limits = {"tenant": settings.router_calls_per_tenant}
            resources = Resources(
                enricher=router, calls=ConcurrencyLimit("calls of the router", settings.router_calls, limits)
            )
        _current = resources
        try:
            yield
        finally:
            _current = None
