"""What is deployed, as processes of its own: a Temporal server, and beside it the service and workers of ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from contextunity.worker.embedded import EmbeddedServer, embedded_server

from ._model import Options
from ._processes import ROOT, Child
from ._tree import generated_tree

__all__ = ["job_variables", "service_of", "temporal_server", "worker_of"]


def job_variables() -> dict[str, str]:
    """The environment in which a process of ours finds the module of the smallest job."""
    return {
        "PYTHONPATH": f"{ROOT}:{generated_tree()}",
        "WORKER_MODULES": "bench._job:module",
        "WORKER_HOST": "127.0.0.1",
        "WORKER_PORT": "0",
        "CONTEXTWORKER_LOG_LEVEL": "warning",
    }


@asynccontextmanager
async def temporal_server(folder: Path) -> AsyncGenerator[EmbeddedServer]:
    """A fresh Temporal server, while the context is open."""
    async with embedded_server(folder, port=0, ui_port=0) as server:
        yield server


def service_of(options: Options, temporal: EmbeddedServer, name: str = "service", **more: str) -> Child:
    """The gRPC service, to be entered; it says `WorkerService listens on HOST:PORT` when it does.

    `more` are variables of its environment.
    """
    variables = {**job_variables(), "TEMPORAL_ADDRESS": temporal.address, **more}
    return Child("-m", "contextunity.worker", folder=options.folder, name=name, **variables)


def worker_of(options: Options, temporal: EmbeddedServer, name: str = "worker", **more: str) -> Child:
    """A worker of the smallest job, to be entered; it says `Temporal workers run` when it does.

    `more` are variables of its environment.
    """
    variables = {**job_variables(), "TEMPORAL_ADDRESS": temporal.address, **more}
    arguments = ("-m", "contextunity.worker", "--temporal", "--modules", "bench-job")
    return Child(*arguments, folder=options.folder, name=name, **variables)
