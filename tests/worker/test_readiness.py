"""Readiness: the health of the service follows a real Temporal server that is lost and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from temporalio.api.enums.v1 import TaskQueueType

from contextunity.worker.auth import authenticator_for
from contextunity.worker.boundary import SERVICE_NAME
from contextunity.worker.embedded import EmbeddedServer, embedded_server
from contextunity.worker.errors import PortTakenError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.readiness import (
    WORKERS,
    Pace,
    Readiness,
    following_temporal,
    serving_health,
    workers_probe,
)
from contextunity.worker.server import running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from tests.conftest import Spawn

Status = health_pb2.HealthCheckResponse
_FAST = Pace(interval=0.05, timeout=1.0)


class _Watched:
    """The health of a service, as a client watches it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        self._stream: Any = self._stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAME))

    async def becomes(self, status: Any) -> None:
        """Waits for the next status that is told, and it must be this one."""
        async with asyncio.timeout(60):
            answer = await self._stream.read()
        assert answer.status == status

    async def of_the_process(self) -> Any:
        return (await self._stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=10)).status


@asynccontextmanager
async def _watching(temporal: EmbeddedServer, pace: Pace) -> AsyncIterator[_Watched]:
    settings = Settings(host="127.0.0.1", port=0)
    client = await connect(settings, address=temporal.address)
    service = WorkerService(client, WorkerRegistry())
    async with (
        running_server(service, settings, authenticator_for(settings), pace=pace) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        yield _Watched(channel)


async def test_it_follows_a_server_that_ends_and_one_that_comes_in_its_place(tmp_path: Path) -> None:
    async with AsyncExitStack() as later:
        first = AsyncExitStack()
        temporal = await first.enter_async_context(embedded_server(tmp_path, port=0, ui_port=0))
        port = int(temporal.address.rpartition(":")[2])
        watched = await later.enter_async_context(_watching(temporal, _FAST))
        await watched.becomes(Status.SERVING)
        await first.aclose()
        await watched.becomes(Status.NOT_SERVING)
        assert await watched.of_the_process() == Status.SERVING
        await later.enter_async_context(embedded_server(tmp_path, port=port, ui_port=0))
        await watched.becomes(Status.SERVING)


async def test_it_follows_a_server_that_stands_still(tmp_path: Path) -> None:
    async with (
        embedded_server(tmp_path, port=0, ui_port=0) as temporal,
        _watching(temporal, Pace(interval=0.05, timeout=0.5)) as watched,
    ):
        await watched.becomes(Status.SERVING)
        os.kill(temporal.pid, signal.SIGSTOP)
        try:
            await watched.becomes(Status.NOT_SERVING)
            assert await watched.of_the_process() == Status.SERVING
        finally:
            os.kill(temporal.pid, signal.SIGCONT)
        await watched.becomes(Status.SERVING)


class _Health(health_aio.HealthServicer):
    """Keeps what was set."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, Any]] = []

    async def set(self, service: str, status: Any) -> None:
        self.told.append((service, status))
        await super().set(service, status)


async def _told(probes: str, services: tuple[str, ...] = ("s",)) -> list[tuple[str, Any]]:
    """What is told after probes that succeed (.), fail (x), raise (!) or do not answer (?)."""
    readiness, health, left, done = Readiness(*services), _Health(), list(probes), asyncio.Event()
    readiness.health = health

    async def probe() -> str:
        if not left:
            done.set()
            await asyncio.get_running_loop().create_future()
        match left.pop(0):
            case ".":
                return ""
            case "!":
                raise RuntimeError("a slip")
            case "?":
                await asyncio.get_running_loop().create_future()
        return "gone"

    # The last probe is still under way when the context is left.
    async with following_temporal(readiness, probe, Pace(interval=0, timeout=0.05 if "?" in probes else 60)):
        await done.wait()
        told = health.told.copy()
    # Whatever was last, the end is that nothing is served.
    assert health.told == [*told, *((name, Status.NOT_SERVING) for name in services)]
    await readiness.turn(ready=True)
    assert not readiness.is_ready
    return told


_AT_FIRST = [("", Status.SERVING), ("s", Status.SERVING)]


@pytest.mark.parametrize("probes", ["...", "x..", ".x.", "..x", "x.x.x.", "!..", "?.."])
async def test_one_failed_probe_of_three_does_not_turn_it(probes: str) -> None:
    assert await _told(probes) == _AT_FIRST


@pytest.mark.parametrize("probes", ["xx", "xxxxx", ".x.xx", "?x", "x!"])
async def test_two_in_a_row_turn_it_once(probes: str) -> None:
    assert await _told(probes) == [*_AT_FIRST, ("s", Status.NOT_SERVING)]


@pytest.mark.parametrize("probes", ["xx.", "xxx.x...", "xx.?."])
async def test_the_first_good_one_turns_it_back(probes: str) -> None:
    assert await _told(probes) == [*_AT_FIRST, ("s", Status.NOT_SERVING), ("s", Status.SERVING)]


async def test_each_further_service_follows_and_the_process_does_not() -> None:
    assert await _told("xx", ("a", "b")) == [
        ("", Status.SERVING),
        ("a", Status.SERVING),
        ("b", Status.SERVING),
        ("a", Status.NOT_SERVING),
        ("b", Status.NOT_SERVING),
    ]


def test_the_usual_pace_tells_within_a_quarter_of_a_minute() -> None:
    pace = Pace()
    # A loss just after a probe succeeded, whose probes then all take as long as they may; and a return just after a
    # probe began that is lost with the connection.
    assert pace.failures * (pace.interval + pace.timeout) <= 15
    assert pace.timeout + pace.interval + pace.timeout <= 15


async def test_workers_are_ready_once_their_queues_are_polled_and_until_they_stop(
    spawn: Spawn, temporal_server: EmbeddedServer, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    environment = {
        "TEMPORAL_ADDRESS": temporal_server.address,
        "CONTEXTWORKER_HEALTH_PORT": "0",
        "CONTEXTWORKER_READY_FILE": str(ready),
    }
    arguments = ("-m", "contextunity.worker", "--temporal", "--modules", "gardener", "--tenant", "of-this-test")
    process = spawn(*arguments, **environment)
    line = await asyncio.to_thread(process.wait_for, "Temporal workers run for modules")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{line.split()[-1]}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        watch = health.Watch(health_pb2.HealthCheckRequest(service=WORKERS))
        async with asyncio.timeout(60):
            while (await watch.read()).status != Status.SERVING:
                pass
            assert ready.exists()
            assert (await health.Check(health_pb2.HealthCheckRequest(service=""), timeout=10)).status == Status.SERVING
            process.send(signal.SIGTERM)
            assert (await watch.read()).status == Status.NOT_SERVING
        assert not ready.exists()
    assert await asyncio.to_thread(process.wait) == 0, process.output


async def test_workers_whose_polls_nobody_hears_are_not_ready(temporal_server: EmbeddedServer) -> None:
    client = await connect(Settings(), address=temporal_server.address)
    probe = workers_probe(client, {("polled-by-nobody", TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)})
    assert await probe() == f"no poller of {client.identity} on the task queue polled-by-nobody"
    settings = Settings(host="127.0.0.1", health_port=0)
    probed = asyncio.Event()

    async def probing() -> str:
        reason = await probe()
        probed.set()
        return reason

    readiness = Readiness(WORKERS)
    async with (
        serving_health(settings, readiness) as port,
        following_temporal(readiness, probing, _FAST, ready=False),
    ):
        await asyncio.wait_for(probed.wait(), 20)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            answer = await health.Check(health_pb2.HealthCheckRequest(service=WORKERS), timeout=10)
            assert answer.status == Status.NOT_SERVING
        with pytest.raises(PortTakenError, match="CONTEXTWORKER_HEALTH_PORT"):
            async with serving_health(settings.model_copy(update={"health_port": port}), Readiness(WORKERS)):
                pass
