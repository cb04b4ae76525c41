"""What the activities of one worker share: the catalogue, the HTTP client, and the feed of the bundled supplier."""

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
from .following import Follower, follower_for
from .sample import write_sample
from .settings import BUNDLED_SUPPLIER, HarvestSettings, SupplierSettings

__all__ = ["Resources", "current", "lifespan"]

_SAMPLE_TIME = 1_704_067_200
BUNDLED_HOST = "127.0.0.1"
_BUNDLED_URL = f"bundled:{BUNDLED_SUPPLIER}"
_READING_LIBRARIES = ("babel", "charset-normalizer", "selectolax")
"""Their data decide what becomes of a value."""


@dataclass(slots=True)
class Resources:
    """Opened when a worker starts.

    Attributes:
        settings: the module's.
        catalogue: where products go.
        trust: which certificates of feed servers are good.
        fetches: bounds how many feeds are read from at once.
        spool_folder: where feeds lie that their server does not give in parts.
        sample_path: where the feed of the bundled supplier lies once it is made.
        resolver: what resolves the names of feed servers.
        quotas: what tenants may take.
        follower: who is told of a harvest that has ended; None for nobody.
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
        """The settings of a supplier.

        Raises:
            SupplierUnknownError: none is configured under this code.
        """
        supplier = self.settings.supplier(supplier_code)
        if supplier is None:
            raise SupplierUnknownError(supplier_code, known=self.settings.supplier_codes())
        return supplier

    def source(self, supplier_code: str) -> FeedSource:
        """The configured feed of a supplier.

        Raises:
            SupplierUnknownError: none is configured under this code.
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
        """Share of the supplier's products that a harvest may mark as no longer listed.

        Raises:
            SupplierUnknownError: none is configured under this code.
        """
        own = self.supplier(supplier_code).max_delisted_share
        return self.settings.max_delisted_share if own is None else own

    def read_by(self, supplier_code: str) -> str:
        """What decides beside the feed what its products are: the code that reads it and its supplier's settings.

        Returns:
            A hash; the url is in it.

        Raises:
            SupplierUnknownError: none is configured under this code.
        """
        settings = self.supplier(supplier_code).model_dump_json()
        return hashlib.sha256(f"{_reading_code()}\n{settings}".encode()).hexdigest()

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

    async def client(self, supplier_code: str) -> httpx.AsyncClient:
        """The HTTP client that a supplier's feed is fetched with; what it may fetch from is the supplier's policy.

        Raises:
            SupplierUnknownError: none is configured under this code.
        """
        supplier = self.supplier(supplier_code)
        bundled = supplier.url == _BUNDLED_URL
        if bundled:
            await self.reachable_url(supplier.url)
        # Nothing is awaited between looking and keeping, so that there is one client.
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
            # This worker's own server is what the feed is; nothing else on this machine is open by that.
            return egress.EgressPolicy(endpoints=frozenset({(BUNDLED_HOST, self._server.port)}))
        return egress.EgressPolicy(
            allow_private=supplier.allow_private,
            private_setting=f"set allow_private = true in [modules.harvest.suppliers.{supplier_code}] where that is so",
            proxied_hosts=frozenset(
                httpx.URL(each.url).host
                for each in self.settings.suppliers.values()
                if each.url.startswith(("http://", "https://"))
            ),
            proxy_setting="those are the hosts of the suppliers' urls; set the supplier's url to where it redirects to",
        )

    async def _serve_sample(self) -> FeedServer:
        if not self.sample_path.exists():
            await asyncio.to_thread(self._make_sample)
        return self._stack.enter_context(FeedServer(self.sample_path.parent, host=BUNDLED_HOST))

    def _make_sample(self) -> None:
        write_sample(self.sample_path, products=self.settings.sample_products)
        # The content is the same wherever it is made; so must its HTTP validators be, for a harvest to go on elsewhere.
        os.utime(self.sample_path, (_SAMPLE_TIME, _SAMPLE_TIME))


@functools.cache
def _reading_code() -> str:
    """A hash of this module's sources: unlike a number of their version, nobody forgets to raise it.

    A change that has nothing to do with reading has every feed read once more, which does no harm.
    """
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in _READING_LIBRARIES:
        digest.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    return digest.hexdigest()


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
