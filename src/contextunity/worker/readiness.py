"""Readiness: the health of the services follows Temporal, which they need.

The standard health service reports it by name. A service is SERVING while Temporal answers, so that a readiness probe
with its name removes the process from a load balancer while Temporal is down, and adds it again afterwards. The empty
name is the process itself and stays SERVING, so that a liveness probe does not restart a process for a problem that a
restart cannot fix.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from temporalio.client import Client
from temporalio.service import RPCError

__all__ = ["Pace", "Probe", "following_temporal", "temporal_probe"]

_LOG = logging.getLogger(__name__)

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


@contextlib.asynccontextmanager
async def following_temporal(
    health: health_aio.HealthServicer, services: Sequence[str], probe: Probe, pace: Pace | None = None
) -> AsyncGenerator[None, None]:
    """Keep the health of services in step with Temporal while the context is open.

    They are SERVING at first, because the caller has already reached Temporal. The empty name stays SERVING.

    Args:
        health: the health service.
        services: full names of the services.
        probe: probes Temporal once.
        pace: how often to probe; the defaults of `Pace` unless given.
    """
    for name in ("", *services):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    task = asyncio.create_task(_follow(health, services, probe, pace or Pace()), name="readiness")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(health: health_aio.HealthServicer, services: Sequence[str], probe: Probe, pace: Pace) -> None:
    failed, serving = 0, True
    while True:
        await asyncio.sleep(pace.interval)
        reason = await _probed(probe, pace)
        failed = failed + 1 if reason else 0
        if failed == 0 and not serving:
            serving = True
            _LOG.warning("Temporal answers again: health is SERVING")
        elif failed >= pace.failures and serving:
            serving = False
            _LOG.error("Temporal does not answer: health is NOT_SERVING until it does: %s", reason)
        else:
            continue
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in services:
            await health.set(name, status)


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
