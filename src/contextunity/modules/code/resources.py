"""What the activities of one worker share: the backends, the places for programs, and the tools."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from contextunity.worker.core.registry import ModuleContext
from contextunity.worker.places import Places as WaitingPlaces
from contextunity.worker.quotas import Quotas

from .backend import Backends, open_backends
from .places import Places
from .settings import CodeSettings
from .tools import ToolSet, open_tools

__all__ = ["Resources", "current", "lifespan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Opened when a worker starts.

    Attributes:
        settings: the module's.
        backends: what runs programs.
        places: bounds how many run at once.
        tools: what programs may call.
        tool_calls: bounds how many of them run at once.
        quotas: what tenants may take.
    """

    settings: CodeSettings
    backends: Backends
    places: Places
    tools: ToolSet
    tool_calls: WaitingPlaces
    quotas: Quotas = field(default_factory=Quotas)


_current: Resources | None = None


def current() -> Resources:
    """Return the resources of the worker that this runs in.

    Raises:
        RuntimeError: no worker with the code module runs in this process.
    """
    if _current is None:
        raise RuntimeError("activities of the code module run in a worker that has opened the module's lifespan")
    return _current


@contextlib.asynccontextmanager
async def lifespan(context: ModuleContext) -> AsyncGenerator[None, None]:
    """Open the resources of a worker, and close them when it stops.

    Raises:
        SettingsError: tools or their settings are wrong.
    """
    global _current
    settings = context.settings if context.settings is not None else CodeSettings()
    async with contextlib.AsyncExitStack() as stack:
        tools = await stack.enter_async_context(open_tools(settings, context.data_folder))
        backends = await stack.enter_async_context(open_backends(settings, context.data_folder / "code"))
        places = Places(settings.parallel, settings.tenant_places)
        tool_calls = WaitingPlaces("tools", settings.parallel_tools, {"tenant": settings.parallel_tools_per_tenant})
        _current = Resources(
            settings=settings,
            backends=backends,
            places=places,
            tools=tools,
            tool_calls=tool_calls,
            quotas=context.quotas,
        )
        try:
            yield
        finally:
            _current = None
