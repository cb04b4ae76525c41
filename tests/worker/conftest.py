"""A service with workers for the modules that come with it, in a thread of the test process, for all tests here."""

from __future__ import annotations

import asyncio
import http.server
import queue
import threading
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from contextunity.modules.code.plugin import module as code
from contextunity.modules.harvest.plugin import module as harvest
from contextunity.worker.auth import authenticator_for
from contextunity.worker.core.registry import WorkerRegistry
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.server import running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal import connect, running_workers


class Site(http.server.ThreadingHTTPServer):
    """A web server on a loopback port that programs may fetch from; it keeps the paths that were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.asked: list[str] = []

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Site)
        self.server.asked.append(self.path)
        body = f"hello from {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Writes nothing."""


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, name="site")
        thread.start()
        yield site
        site.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def service_target(
    temporal_server: EmbeddedServer, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where a service with workers for `code` and `harvest` listens; the bundled feed has 200 products."""
    started: queue.Queue[str | BaseException] = queue.Queue()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    settings = Settings(host="127.0.0.1", port=0, data_folder=tmp_path_factory.mktemp("service"))
    tools = {"http_get": {"allow": [site.origin]}}
    registry = WorkerRegistry(
        module_settings={"harvest": {"sample_products": 200}, "code": {"parallel": 4, "tools": tools}}
    )
    registry.register_all([code, harvest])

    async def serve() -> None:
        try:
            async with AsyncExitStack() as stack:
                client = await connect(settings, address=temporal_server.address)
                await stack.enter_async_context(running_workers(client, registry.select(None), settings))
                server = await stack.enter_async_context(
                    running_server(WorkerService(client, registry), settings, authenticator_for(settings))
                )
                started.put(server.target)
                await stop.wait()
        except BaseException as error:
            started.put(error)
            raise

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="service")
    thread.start()
    outcome = started.get(timeout=90)
    if isinstance(outcome, BaseException):
        raise outcome
    yield outcome
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own, so that its tasks are alone."""
    return f"tenant-{uuid.uuid4().hex[:12]}"
