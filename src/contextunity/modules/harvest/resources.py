"""What the activities of one worker share: the catalogue, the HTTP client, and the feed of the bundled supplier."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from contextunity.gen.contextunity.harvest.v1 import FeedFormat

from contextunity.worker.core.registry import ModuleContext

from .catalogue import Catalogue
from .errors import SupplierUnknownError
from .feed_server import FeedServer
from .feeds import FeedSource
from .sample import write_sample
from .settings import BUNDLED_SUPPLIER, HarvestSettings, SupplierSettings

__all__ = ["Resources", "current", "lifespan"]

_SAMPLE_TIME = 1_704_067_200
_BUNDLED_URL = f"bundled:{BUNDLED_SUPPLIER}"


@dataclass(slots=True)
class Resources:
    """Opened when a worker starts.

    Attributes:
        settings: the module's.
        catalogue: where products go.
        client: for feeds.
        spool_folder: where feeds lie that their server does not give in parts.
        sample_path: where the feed of the bundled supplier lies once it is made.
    """

    settings: HarvestSettings
    catalogue: Catalogue
    client: httpx.AsyncClient
    spool_folder: Path
    sample_path: Path
    _server: FeedServer | None = None
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def source(self, supplier_code: str) -> FeedSource:
        """The configured feed of a supplier.

        Raises:
            SupplierUnknownError: none is configured under this code.
        """
        supplier = self._supplier(supplier_code)
        return FeedSource(
            supplier_code=supplier_code,
            url=supplier.url,
            format=FeedFormat[supplier.format.upper()] if supplier.format else None,
            currency_code=supplier.currency_code,
        )

    def page_size(self, supplier_code: str) -> int:
        """Feed entries in a page of a supplier's feed.

        Raises:
            SupplierUnknownError: none is configured under this code.
        """
        return self._supplier(supplier_code).page_size

    async def reachable_url(self, url: str) -> str:
        """The address to fetch a feed from: for the bundled one that of this worker's own little server.

        A workflow keeps the bundled feed's name rather than an address, since it may go on in another process, whose
        server listens elsewhere.
        """
        if url != _BUNDLED_URL:
            return url
        async with self._lock:
            if self._server is None:
                self._server = await self._serve_sample()
        return self._server.url(self.sample_path.name)

    def _supplier(self, supplier_code: str) -> SupplierSettings:
        supplier = self.settings.supplier(supplier_code)
        if supplier is None:
            raise SupplierUnknownError(supplier_code, known=self.settings.supplier_codes())
        return supplier

    async def _serve_sample(self) -> FeedServer:
        if not self.sample_path.exists():
            await asyncio.to_thread(self._make_sample)
        return self._stack.enter_context(FeedServer(self.sample_path.parent))

    def _make_sample(self) -> None:
        write_sample(self.sample_path, products=self.settings.sample_products)
        # The content is the same wherever it is made; so must its HTTP validators be, for a harvest to go on elsewhere.
        os.utime(self.sample_path, (_SAMPLE_TIME, _SAMPLE_TIME))


_current: Resources | None = None


def current() -> Resources:
    """The resources of the worker that this runs in.

    Raises:
        RuntimeError: no worker with the harvest module runs in this process.
    """
    if _current is None:
        raise RuntimeError("harvest activities run in a worker that has opened the module's lifespan")
    return _current


@contextlib.asynccontextmanager
async def lifespan(context: ModuleContext) -> AsyncGenerator[None, None]:
    """Opens the resources of a worker, and closes them when it stops."""
    global _current
    settings = context.settings if context.settings is not None else HarvestSettings()
    folder = context.data_folder / "harvest"
    timeout = httpx.Timeout(settings.timeout)
    async with contextlib.AsyncExitStack() as stack:
        catalogue = await asyncio.to_thread(Catalogue.open, settings.catalogue_in(context.data_folder))
        stack.callback(catalogue.close)
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=timeout, follow_redirects=True))
        resources = Resources(
            settings=settings,
            catalogue=catalogue,
            client=client,
            spool_folder=folder / "spool",
            sample_path=folder / f"{BUNDLED_SUPPLIER}-{settings.sample_products}.csv",
            _stack=stack,
        )
        _current = resources
        try:
            yield
        finally:
            _current = None
