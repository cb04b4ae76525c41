"""Everything in one process: an embedded Temporal server, the gRPC service, and workers for the modules."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from .auth import open_authenticator
from .embedded import LOOPBACK, EmbeddedServer, embedded_server, usual_or_free_port
from .errors import PortTakenError
from .modules.registry import RegisteredModule, WorkerRegistry
from .quotas import open_quotas
from .server import RunningServer, running_server
from .service import WorkerService
from .settings import Settings, is_loopback
from .temporal.client import connect
from .temporal.worker import running_workers

__all__ = ["DevServer", "running_dev_server"]

_HTTP_PORT = 50080
"""Default port for HTTP, if it is free."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DevServer:
    """The running parts.

    Attributes:
        temporal: the embedded Temporal server.
        grpc: the WorkerService.
        modules: modules of the workers.
        workers: a task that ends when a worker fails.
    """

    temporal: EmbeddedServer
    grpc: RunningServer
    modules: Sequence[RegisteredModule]
    workers: asyncio.Task[None]


@contextlib.asynccontextmanager
async def running_dev_server(
    settings: Settings,
    registry: WorkerRegistry,
    *,
    modules: Sequence[str] | None = None,
    temporal_port: int | None = None,
    ui_port: int | None = None,
) -> AsyncGenerator[DevServer, None]:
    """Run everything while the context is open, and stop it in reverse order.

    Args:
        settings: settings of the process from `boot`; the embedded server's state is in the data folder.
        registry: all modules; the service starts tasks of each of them.
        modules: names of the modules to run workers for; None for all.
        temporal_port: see `embedded_server`.
        ui_port: see `embedded_server`.

    Raises:
        WorkerError: something cannot start; the text says what, and the way out.
    """
    selected = registry.select(modules)
    async with contextlib.AsyncExitStack() as stack:
        authenticator = await stack.enter_async_context(open_authenticator(settings))
        settings = _local(settings)
        http = stack.enter_context(_listen(settings))
        temporal = await stack.enter_async_context(
            embedded_server(settings.data_folder, port=temporal_port, ui_port=ui_port, codec=_codec(settings, http))
        )
        client = await connect(settings, address=temporal.address, workflows=registry.workflows)
        workers = await stack.enter_async_context(
            running_workers(client, selected, settings, workflows=registry.workflows)
        )
        service = WorkerService(
            client,
            registry,
            rpc_timeout=timedelta(seconds=settings.temporal_timeout),
            quotas=await stack.enter_async_context(open_quotas(settings)),
        )
        # Temporal's web UI decrypts payloads with the codec endpoint, so allow its origin.
        origins = (*settings.http_origins, temporal.ui_url, temporal.ui_url.replace(LOOPBACK, "localhost"))
        serving = settings.model_copy(update={"http_origins": origins})
        grpc = await stack.enter_async_context(running_server(service, serving, authenticator, http=http))
        yield DevServer(temporal=temporal, grpc=grpc, modules=selected, workers=workers)


def _local(settings: Settings) -> Settings:
    """Return settings for development: loopback, and free ports if the default ones are taken, unless set."""
    update: dict[str, str | int] = {}
    if "host" not in settings.model_fields_set:
        update["host"] = LOOPBACK
    if "port" not in settings.model_fields_set:
        update["port"] = usual_or_free_port(settings.port)
    return settings.model_copy(update=update)


def _listen(settings: Settings) -> socket.socket:
    """What to serve HTTP on: Temporal's web UI is told where that is, before anything is served there."""
    # Imported only here: other commands import this file too, and serve no HTTP.
    from .http import listen

    if settings.http_port is not None:
        return listen(settings.listen_host, settings.http_port)
    try:
        return listen(settings.listen_host, _HTTP_PORT)
    except PortTakenError:
        return listen(settings.listen_host, 0)


def _codec(settings: Settings, http: socket.socket) -> str:
    """Where Temporal's web UI may ask for payloads in clear; empty where it would have to show a token."""
    if settings.auth == "token":
        return ""
    host = LOOPBACK if is_loopback(settings.listen_host) else "localhost"
    # The embedded server has one namespace.
    scheme = "http" if settings.tls_cert_file is None else "https"
    return f"{scheme}://{host}:{http.getsockname()[1]}/codec/default"
