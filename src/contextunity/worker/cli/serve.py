"""Commands that run something: the gRPC service, Temporal workers, or both with a Temporal server; and `protos`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from betterproto2_codec import DescriptorConflictError
from contextunity.core.errors import CodecError, ContextUnityError

from .. import event_loop
from ..errors import SettingsError
from ..logs import begin, configure, core_log, forward_core_log, writes_json
from ..metrics import serve_metrics
from ..modules.discovery import boot
from ..modules.registry import WorkerRegistry
from ..settings import Settings, ignored_warning
from ..tracing import start_tracing, stop_tracing
from .connection import FAILED, USAGE
from .output import complain, say
from .welcome import welcome

__all__ = ["run"]

_LOG = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(arguments: argparse.Namespace) -> int:
    """Run a command until it is stopped; return 0 for success, 1 for failure, 2 for wrong usage or configuration."""
    if arguments.command == "protos":
        return _protos(arguments)
    begin(os.environ)
    try:
        gc.disable()  # As during the imports; a start that fails ends the process.
        settings, registry = boot(log_level=getattr(arguments, "log_level", "") or "")
        gc.freeze()
        gc.enable()
        configure(settings)
        if ignored := ignored_warning(os.environ):
            _LOG.warning(ignored)
        if metrics := serve_metrics(settings, core_log(settings)):
            _announce(f"metrics: {metrics}")
        else:
            forward_core_log(settings)
        start_tracing(os.environ)
        delay = _Delay()
        event_loop.run(_until_signal(_command(arguments, delay)(settings, registry), delay))
    except (ContextUnityError, CodecError) as error:
        if writes_json():
            _LOG.critical("%s", error)
        else:
            complain(str(error))
        # Conflicting modules are a configuration error, like modules that do not match their contracts.
        code = int(getattr(error, "exit_code", USAGE if isinstance(error, DescriptorConflictError) else FAILED))
        if (grace := _grace()) is not None and grace.has_abandoned():
            grace.leave(code)
        return code
    finally:
        stop_tracing()
    return 0


def _announce(text: str) -> None:
    """Tell what runs: as text, or as a line of a log in JSON."""
    if writes_json():
        _LOG.info("%s", text)
    else:
        say(text)


@dataclass
class _Delay:
    """The time after a SIGTERM in which the service still answers.

    Attributes:
        seconds: how long it is; 0 as long as nothing is served.
        over: set when it is over, or to end it.
    """

    seconds: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)


def _command(
    arguments: argparse.Namespace, delay: _Delay
) -> Callable[[Settings, WorkerRegistry], Coroutine[Any, Any, None]]:
    if arguments.command == "dev":
        return lambda settings, registry: _dev(settings, registry, arguments)
    address = arguments.temporal_host or None
    if arguments.temporal or arguments.command == "temporal":
        modules, tenant = arguments.modules, arguments.own_tenant
        return lambda settings, registry: _temporal(settings, registry, modules, tenant, address)
    return lambda settings, registry: _grpc(settings, registry, address, delay)


def _protos(arguments: argparse.Namespace) -> int:
    try:
        if arguments.client:
            from ..client_protos import export_client

            _, registry = boot()
            written = export_client(arguments.folder, registry)
        else:
            from ..protos import export

            written = export(arguments.folder)
    except (ContextUnityError, CodecError) as error:
        complain(str(error))
        return int(getattr(error, "exit_code", 1))
    say(f"wrote to {arguments.folder}:\n" + "\n".join(f"  {name}" for name in written))
    return 0


async def _grpc(settings: Settings, registry: WorkerRegistry, address: str | None, delay: _Delay) -> None:
    from ..auth import open_authenticator
    from ..quotas import open_quotas
    from ..server import open_tls, running_server
    from ..service import WorkerService
    from ..temporal.client import connect, with_port

    async with contextlib.AsyncExitStack() as stack:
        # Check keys and certificates before connecting, so that faults are reported at once.
        authenticator = await stack.enter_async_context(open_authenticator(settings))
        tls = open_tls(settings)
        quotas = await stack.enter_async_context(open_quotas(settings))
        client = await connect(settings, address=address and with_port(address), workflows=registry.workflows)
        timeout = timedelta(seconds=settings.temporal_timeout)
        service = WorkerService(client, registry, rpc_timeout=timeout, quotas=quotas)
        server = await stack.enter_async_context(running_server(service, settings, authenticator, tls=tls))
        temporal = client.service_client.config.target_host
        http = "" if server.http_port is None else f" (HTTP on port {server.http_port})"
        encrypted = " with TLS" if server.has_tls else ""
        _announce(f"WorkerService listens on {server.host}:{server.port}{encrypted}{http}, Temporal at {temporal}")
        delay.seconds = settings.shutdown_delay
        try:
            await _forever()
        finally:
            await server.drain(delay.seconds, delay.over)
            delay.over.set()
            _let_signals_end_the_process()


async def _temporal(
    settings: Settings, registry: WorkerRegistry, names: Sequence[str] | None, tenant: str, address: str | None
) -> None:
    from ..readiness import WORKERS, Readiness, following_temporal, serving_health, workers_probe
    from ..temporal.client import connect, with_port
    from ..temporal.tenancy import tenant_violation
    from ..temporal.worker import running_workers, task_queues

    if tenant and tenant_violation(tenant):
        raise SettingsError([f"--tenant {tenant!r} {tenant_violation(tenant)}"])
    modules = registry.select(names)
    client = await connect(settings, address=address and with_port(address), workflows=registry.workflows)
    async with contextlib.AsyncExitStack() as stack:
        readiness = Readiness(WORKERS, file=settings.ready_file)
        health = ""
        if settings.health_port is not None:
            health = f", health checks on port {await stack.enter_async_context(serving_health(settings, readiness))}"
        running = running_workers(client, modules, settings, tenant=tenant, workflows=registry.workflows)
        workers = await stack.enter_async_context(running)
        if settings.health_port is not None or settings.ready_file is not None:
            # It ends first: workers that stop are not ready, however long their activities go on.
            probe = workers_probe(client, task_queues(modules, tenant))
            await stack.enter_async_context(following_temporal(readiness, probe, ready=False))
        listed = ", ".join(module.config.name for module in modules) or "none"
        alone = f" of the tenant {tenant} alone" if tenant else ""
        _announce(
            f"Temporal workers run for modules: {listed}{alone}; Temporal at "
            f"{client.service_client.config.target_host}{health}"
        )
        await _forever(workers)


async def _dev(settings: Settings, registry: WorkerRegistry, arguments: argparse.Namespace) -> None:
    from ..devserver import running_dev_server

    async with running_dev_server(
        settings, registry, modules=arguments.modules, temporal_port=arguments.temporal_port, ui_port=arguments.ui_port
    ) as stack:
        _announce(welcome(stack, with_token=settings.auth == "token"))
        try:
            await _forever(stack.workers)
        finally:
            _announce("stopping …")


async def _until_signal(command: Coroutine[Any, Any, None], delay: _Delay) -> None:
    """Run a command; the first Ctrl-C or SIGTERM stops it in order.

    Ctrl-C does so at once, SIGTERM after the delay; another signal ends the delay. One more ends the process at once.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(command)
    asked_to_stop = False

    def stop(number: signal.Signals) -> None:
        nonlocal asked_to_stop
        if asked_to_stop or number is signal.SIGINT or not delay.seconds:
            delay.over.set()
            _let_signals_end_the_process()
        if not asked_to_stop:
            asked_to_stop = True
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not asked_to_stop:
            raise
        if (grace := _grace()) is not None:
            await grace.leave_if_held(0)


def _let_signals_end_the_process() -> None:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.remove_signal_handler(number)


def _grace() -> Any:
    """Return the module for abandoned work, if there are workers; importing it is slow."""
    return sys.modules.get("contextunity.worker.temporal.shutdown")


async def _forever(*watched: asyncio.Task[None]) -> None:
    """Wait until cancelled, or until a watched task fails."""
    await asyncio.gather(asyncio.get_running_loop().create_future(), *watched)
