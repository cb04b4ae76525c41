"""Readiness: the health of the services follows Temporal, without which they can do nothing.

The standard health service tells it by name. A service is SERVING while Temporal answers, so that a readiness probe of
its name takes the process out of a load balancer while Temporal does not, and puts it back afterwards. The empty name
is the process itself and stays SERVING while that answers, so that a liveness probe restarts nobody for what a restart
does not mend.
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
"""Looks once whether Temporal answers; gives why it does not, empty where it does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How often Temporal is probed. By these a loss is told within 13 seconds at the latest, a return within 9.

    Attributes:
        interval: seconds from the end of one probe to the next.
        timeout: seconds that a probe may take.
        failures: probes in a row that must fail before a loss is told: a single one may be a hiccup.
    """

    interval: float = 4.0
    timeout: float = 2.5
    failures: int = 2


def temporal_probe(client: Client) -> Probe:
    """A probe that asks the front end of the Temporal server for its own health."""

    async def probe() -> str:
        try:
            # Without the SDK's retries, each of which would be a probe of its own.
            answers = await client.service_client.check_health(retry=False)
        except RPCError as error:
            return error.message or error.status.name
        return "" if answers else "the server says that it does not serve"

    return probe


@contextlib.asynccontextmanager
async def following_temporal(
    health: health_aio.HealthServicer, services: Sequence[str], probe: Probe, pace: Pace | None = None
) -> AsyncGenerator[None, None]:
    """Has the health of services follow Temporal while the context is open.

    They are SERVING when it opens: who comes here has reached Temporal before. The empty name is SERVING, and stays.

    Args:
        health: where the health is told.
        services: full names of the services.
        probe: looks once whether Temporal answers.
        pace: how often; as `Pace` has it unless given.
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
    # Whatever a probe ends with, the next one is due: health that no longer follows would be a lie without a sign.
    except Exception as error:  # noqa: BLE001
        _LOG.warning("a probe of Temporal failed in an unforeseen way", exc_info=error)
        return str(error) or type(error).__name__
