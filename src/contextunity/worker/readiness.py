"""Readiness: the health of the services follows Temporal, which they need, and that of workers their pollers.

The standard health service reports it by name, `/readyz` over HTTP, and `ready_file` by its presence. A service is
SERVING while Temporal answers, so that a readiness probe with its name removes the process from a load balancer while
Temporal is down, and adds it again afterwards. From the first moment of a stop it is NOT_SERVING. The empty name is the
process itself and stays SERVING, so that a liveness probe does not restart a process for a problem that a restart
cannot fix.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from .errors import PortTakenError, SettingsError
from .settings import Settings
from .unauthenticated import UnauthenticatedMethods

__all__ = [
    "WORKERS",
    "Pace",
    "Probe",
    "Readiness",
    "following_temporal",
    "recent_pollers",
    "serving_health",
    "temporal_probe",
    "workers_probe",
]

_LOG = logging.getLogger(__name__)

WORKERS = "contextunity.worker.Workers"
"""What health checks call the workers of a process."""
_STARTING = 0.25
"""Seconds between probes of what has not been ready yet."""
_RECENTLY = timedelta(seconds=150)
"""How long ago a poller was heard of that counts: a poll lasts a minute, and some more where the server is slow."""

Probe = Callable[[], Awaitable[str]]
"""Probes Temporal once; returns why it does not answer, empty if it does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How often to probe Temporal. The defaults report a failure within 13 seconds, and a recovery within 9.

    Attributes:
        interval: seconds from the end of one probe to the next.
        timeout: timeout of a probe in seconds.
        failures: consecutive probes that must fail before a failure is reported.
    """

    interval: float = 4.0
    timeout: float = 2.5
    failures: int = 2


def temporal_probe(client: Client) -> Probe:
    """Return a probe that checks the health of the Temporal server's front end."""

    async def probe() -> str:
        try:
            # Without the SDK's retries, because each would be another probe.
            answers = await client.service_client.check_health(retry=False)
        except RPCError as error:
            return error.message or error.status.name
        return "" if answers else "the server reports that it is not serving"

    return probe


def workers_probe(client: Client, polled: Collection[tuple[str, TaskQueueType.ValueType]]) -> Probe:
    """Return a probe that asks the Temporal server whether this process polls its task queues.

    Args:
        client: the client of the workers.
        polled: task queues, and for what: workflow tasks or activities.
    """

    async def probe() -> str:
        for name, kind in sorted(polled):
            try:
                pollers = await recent_pollers(client, name, kind)
            except RPCError as error:
                return error.message or error.status.name
            if not any(each.identity == client.identity for each in pollers):
                return f"no poller of {client.identity} on the task queue {name}"
        return ""

    return probe


async def recent_pollers(client: Client, name: str, kind: TaskQueueType.ValueType) -> list[PollerInfo]:
    """Return who polls a task queue, as the Temporal server heard lately.

    Raises:
        RPCError: the server does not answer, or not to this client.
    """
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(namespace=client.namespace, task_queue=TaskQueue(name=name), task_queue_type=kind)
    )
    since = datetime.now(UTC) - _RECENTLY
    return [each for each in answer.pollers if each.last_access_time.ToDatetime(UTC) > since]


class Readiness:
    """Whether a process takes work.

    Args:
        services: names that health checks ask for.
        file: exists while the process is ready; None for none.

    Raises:
        SettingsError: the file cannot be written.
    """

    def __init__(self, *services: str, file: Path | None = None) -> None:
        self.health = health_aio.HealthServicer()
        """Answers health checks."""
        self.is_ready = False
        """Whether the process is ready."""
        self.is_stopping = False
        """Whether it will not be ready again."""
        self._services, self._file = services, file
        if file is not None:
            try:
                file.touch()
                file.unlink()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                text = f"ready_file = {str(file)!r}: {reason}; set CONTEXTWORKER_READY_FILE to a file that can be made"
                raise SettingsError([text]) from None

    async def begin(self, *, ready: bool) -> None:
        """Report the process as SERVING, and its services too if they are ready."""
        await self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        await self._report(ready)

    async def turn(self, *, ready: bool) -> None:
        """Report a change, unless the process is stopping."""
        if not self.is_stopping:
            await self._report(ready)

    async def stop(self) -> None:
        """Report NOT_SERVING, for good."""
        if not self.is_stopping:
            self.is_stopping = True
            await self._report(False)

    async def _report(self, ready: bool) -> None:
        self.is_ready = ready
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        self._keep_file(ready)
        for name in self._services:
            await self.health.set(name, status)

    def _keep_file(self, ready: bool) -> None:
        if self._file is None:
            return
        try:
            if ready:
                self._file.touch()
            else:
                self._file.unlink(missing_ok=True)
        except OSError as error:
            # It could be made at the start; the process goes on, and its other reports are right.
            _LOG.error("ready_file %s does not say that ready is %s: %s", self._file, ready, error)


@contextlib.asynccontextmanager
async def serving_health(settings: Settings, readiness: Readiness) -> AsyncGenerator[int, None]:
    """Serve gRPC health checks of workers while the context is open; gives the port.

    Args:
        settings: `health_port`, and where to listen.
        readiness: what they report.

    Raises:
        PortTakenError: the address cannot be listened on.
    """
    # Without it a second server on the port would share it in silence.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    unauthenticated = UnauthenticatedMethods()
    # Generated code needs only this method of a server.
    add_health: Any = health_pb2_grpc.add_HealthServicer_to_server
    add_health(readiness.health, unauthenticated)
    server.add_generic_rpc_handlers((unauthenticated,))
    address = settings.model_copy(update={"port": settings.health_port}).listen_address
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        setting = "CONTEXTWORKER_HEALTH_PORT (or the host with WORKER_HOST)"
        raise PortTakenError(address, setting, "the address is taken or not ours") from None
    await readiness.begin(ready=False)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def following_temporal(
    readiness: Readiness,
    probe: Probe,
    pace: Pace | None = None,
    *,
    ready: bool = True,
) -> AsyncGenerator[None, None]:
    """Keep the readiness in step with Temporal while the context is open; leaving it stops the readiness.

    Args:
        readiness: what to keep.
        probe: probes Temporal once.
        pace: how often to probe; the defaults of `Pace` unless given.
        ready: whether the process is ready at first, because it has reached Temporal; else the first probe that
            succeeds makes it.
    """
    await readiness.begin(ready=ready)
    task = asyncio.create_task(_follow(readiness, probe, pace or Pace(), serving=ready), name="readiness")
    try:
        yield
    finally:
        await readiness.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(readiness: Readiness, probe: Probe, pace: Pace, *, serving: bool) -> None:
    failed, was_ready = 0, serving
    while True:
        # What is not ready yet is asked more often.
        await asyncio.sleep(pace.interval if was_ready else min(_STARTING, pace.interval))
        reason = await _probed(probe, pace)
        failed = failed + 1 if reason else 0
        if failed == 0 and not serving:
            serving = True
            if was_ready:
                _LOG.warning("Temporal answers again: health is SERVING")
            else:
                _LOG.info("all task queues are polled: health is SERVING")
            was_ready = True
        elif failed >= pace.failures and serving:
            serving = False
            _LOG.error("Temporal does not answer: health is NOT_SERVING until it does: %s", reason)
        else:
            continue
        await readiness.turn(ready=serving)


async def _probed(probe: Probe, pace: Pace) -> str:
    try:
        async with asyncio.timeout(pace.timeout):
            return await probe()
    except TimeoutError:
        return f"no answer within {timedelta(seconds=pace.timeout).total_seconds():g} s"
    # Continue after any error of a probe: otherwise health would silently stop following Temporal.
    except Exception as error:  # noqa: BLE001
        _LOG.warning("a probe of Temporal failed unexpectedly", exc_info=error)
        return str(error) or type(error).__name__
