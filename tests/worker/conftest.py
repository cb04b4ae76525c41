"""A service with workers for the modules that come with it, in a thread of the test process, for all tests here."""

from __future__ import annotations

import asyncio
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


@pytest.fixture(scope="session")
def service_target(temporal_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a service with workers for `code` and `harvest` listens; the bundled feed has 200 products."""
    started: queue.Queue[str | BaseException] = queue.Queue()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    settings = Settings(host="127.0.0.1", port=0, data_folder=tmp_path_factory.mktemp("service"))
    registry = WorkerRegistry(module_settings={"harvest": {"sample_products": 200}})
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
