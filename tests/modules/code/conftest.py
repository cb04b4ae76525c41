"""Workers of the code module in this process, on the real development server, with tools of the tests' own."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.code.v1 import code_temporal
from temporalio.client import Client

from contextunity.modules.code.plugin import module
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from contextunity.worker.temporal.worker import running_workers

Working = Callable[..., AbstractAsyncContextManager[code_temporal.CodeServiceClient]]


@pytest.fixture
async def temporal(temporal_server: EmbeddedServer) -> Client:
    return await connect(Settings(), address=temporal_server.address)


@pytest.fixture
def working(temporal: Client, tmp_path: Path) -> Working:
    """Runs a worker with these settings of `[modules.code]`, and gives a typed client.

    With `shared`, workflows run with this process's modules, in which a test may have changed a bound.
    """

    @contextlib.asynccontextmanager
    async def run(*, shared: bool = False, **section: Any) -> AsyncIterator[code_temporal.CodeServiceClient]:
        registry = WorkerRegistry(module_settings={"code": section})
        passthrough = ["contextunity.modules.code"] if shared else []
        registry.register(dataclasses.replace(module, passthrough_modules=passthrough))
        settings = Settings(data_folder=tmp_path / "data")
        async with running_workers(temporal, registry.select(None), settings):
            yield code_temporal.CodeServiceClient(temporal)

    return run
