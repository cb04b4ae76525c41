"""Resources that the activities of one worker share: catalogue, HTTP clients, and the bundled supplier's feed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import importlib.metadata
import os
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from contextunity.gen.contextunity.harvest.v1 import FeedFormat

from contextunity.worker import egress
from contextunity.worker.core.registry import ModuleContext
from contextunity.worker.quotas import Quotas
from contextunity.worker.temporal.concurrency import ConcurrencyLimit

from .catalogue import Catalogue
from .errors import SupplierUnknownError
from .feed_server import FeedServer
from .feeds import FeedSource
from .on_finished import Follower, follower_for
from .sample import write_sample
from .settings import BUNDLED_SUPPLIER, HarvestSettings, SupplierSettings

__all__ = ["Resources", "current", "lifespan"]

_SAMPLE_TIME = 1_704_067_200
BUNDLED_HOST = "127.0.0.1"
_BUNDLED_URL = f"bundled:{BUNDLED_SUPPLIER}"
_READING_LIBRARIES = ("babel", "charset-normalizer", "selectolax")
"""Libraries whose data decide how a value is read."""


@dataclass(slots=True)
class Resources:
    """Resources of a worker, opened at its start.

    Attributes:
        settings: settings of the module.
        catalogue: catalogue of products.
        trust: trusted certificates of feed servers.
        fetches: limit of feeds read at once.
        spool_folder: folder of feeds from servers without Range.
        sample_path: file of the bundled supplier's feed, once generated.
        resolver: resolves names of feed servers.
        quotas: quotas of tenants.
        follower: workflow to signal after a harvest; None without one.
    """

    settings: HarvestSettings
    catalogue: Catalogue
    trust: ssl.SSLContext
    fetches: ConcurrencyLimit
    spool_folder: Path
    sample_path: Path
    resolver: egress.Resolver = egress.resolve
    quotas: Quotas = field(default_factory=Quotas)
    follower: Follower | None = None
    _server: FeedServer | None = None
    _clients: dict[str, httpx.AsyncClient] = field(default_factory=dict[str, httpx.AsyncClient])
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def supplier(self, supplier_code: str) -> SupplierSettings:
        """Return the settings of a supplier.

        Raises:
            SupplierUnknownError: no supplier with this code is configured.
        """
        supplier = self.settings.supplier(supplier_code)
        if supplier is None:
            raise SupplierUnknownError(supplier_code, known=self.settings.supplier_codes())
        return supplier

    def source(self, supplier_code: str) -> FeedSource:
        """Return the configured feed of a supplier.

        Raises:
            SupplierUnknownError: no supplier with this code is configured.
        """
        supplier = self.supplier(supplier_code)
        return FeedSource(
            supplier_code=supplier_code,
            url=supplier.url,
            format=FeedFormat[supplier.format.upper()] if supplier.format else None,
            currency_code=supplier.currency_code,
            encoding=supplier.encoding,
        )

    def max_delisted_share(self, supplier_code: str) -> float:
        """Return the share of the supplier's products that a harvest may mark as no longer listed.

        Raises:
            SupplierUnknownError: no supplier with this code is configured.
        """
        own = self.supplier(supplier_code).max_delisted_share
        return self.settings.max_delisted_share if own is None else own

    def read_by(self, supplier_code: str) -> str:
        """Return a hash of what decides the products of a feed: the code that reads it and the supplier's settings.

        Returns:
            A hash, which includes the URL.

        Raises:
            SupplierUnknownError: no supplier with this code is configured.
        """
        settings = self.supplier(supplier_code).model_dump_json()
        return hashlib.sha256(f"{_reading_code()}\n{settings}".encode()).hexdigest()

    async def reachable_url(self, url: str) -> str:
        """Return the URL to fetch a feed from: for the bundled one, this worker's own feed server.

        A workflow stores the bundled feed's name, not a URL, because it may continue in another process, whose server
        has another port.
        """
        if url != _BUNDLED_URL:
            return url
        async with self._lock:
            if self._server is None:
                self._server = await self._serve_sample()
        return self._server.url(self.sample_path.name)

    async def client(self, supplier_code: str) -> httpx.AsyncClient:
        """Return the HTTP client for a supplier's feed, restricted by the supplier's policy.

        Raises:
            SupplierUnknownError: no supplier with this code is configured.
        """
        supplier = self.supplier(supplier_code)
        bundled = supplier.url == _BUNDLED_URL
        if bundled:
            await self.reachable_url(supplier.url)
        # No await between the lookup and the assignment, so there is only one client.
        client = self._clients.get(supplier_code)
        if client is None:
            client = egress.open_client(
                self._policy(supplier_code, supplier),
                timeout=self.settings.timeout,
                trust=self.trust,
                resolver=self.resolver,
                proxy=None if bundled else self.settings.proxy,
            )
            self._stack.push_async_callback(client.aclose)
            self._clients[supplier_code] = client
        return client

    def _policy(self, supplier_code: str, supplier: SupplierSettings) -> egress.EgressPolicy:
        if supplier.url == _BUNDLED_URL and self._server is not None:
            # The feed is on this worker's own server; this allows nothing else on the machine.
            return egress.EgressPolicy(endpoints=frozenset({(BUNDLED_HOST, self._server.port)}))
        return egress.EgressPolicy(
            allow_private=supplier.allow_private,
            private_setting=f"set allow_private = true in [modules.harvest.suppliers.{supplier_code}] if intended",
            proxied_hosts=frozenset(
                httpx.URL(each.url).host
                for each in self.settings.suppliers.values()
                if each.url.startswith(("http://", "https://"))
            ),
            proxy_setting="only the hosts of the suppliers' urls are allowed; set the url to the redirect's target",
        )

    async def _serve_sample(self) -> FeedServer:
        if not self.sample_path.exists():
            await asyncio.to_thread(self._make_sample)
        return self._stack.enter_context(FeedServer(self.sample_path.parent, host=BUNDLED_HOST))

    def _make_sample(self) -> None:
        write_sample(self.sample_path, products=self.settings.sample_products)
        # The content is the same in every process. Its HTTP validators must be too, so that a harvest can move.
        os.utime(self.sample_path, (_SAMPLE_TIME, _SAMPLE_TIME))


@functools.cache
def _reading_code() -> str:
    """Return a hash of this module's sources: unlike a version number, it cannot be forgotten.

    An unrelated change makes every feed be read once more, which is harmless.
    """
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in _READING_LIBRARIES:
        digest.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    return digest.hexdigest()


_current: Resources | None = None


def current() -> Resources:
    """Return the resources of the current worker.

    Raises:
        RuntimeError: no worker with the harvest module runs in this process.
    """
    if _current is None:
        raise RuntimeError("harvest activities run in a worker that has opened the module's lifespan")
    return _current


@contextlib.asynccontextmanager
async def lifespan(context: ModuleContext) -> AsyncGenerator[None, None]:
    """Open the resources of a worker, and close them when it stops."""
    global _current
    settings = context.settings if context.settings is not None else HarvestSettings()
    folder = context.data_folder / "harvest"
    follower = follower_for(settings.on_finished, context.workflows)
    async with contextlib.AsyncExitStack() as stack:
        catalogue = await asyncio.to_thread(Catalogue.open, settings.catalogue_in(context.data_folder))
        stack.callback(catalogue.close)
        resources = Resources(
            settings=settings,
            catalogue=catalogue,
            trust=await asyncio.to_thread(httpx.create_ssl_context),
            fetches=ConcurrencyLimit(
                "fetches",
                settings.max_fetches,
                {"tenant": settings.max_fetches_per_tenant, "supplier": settings.max_fetches_per_supplier},
            ),
            spool_folder=folder / "spool",
            sample_path=folder / f"{BUNDLED_SUPPLIER}-{settings.sample_products}.csv",
            quotas=context.quotas,
            follower=follower,
            _stack=stack,
        )
        _current = resources
        try:
            yield
        finally:
            _current = None
