"""A service is told to stop while it is called: nothing that its callers asked for is lost."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from contextunity.gen.contextunity.worker import TaskState, TaskStatus
from grpc_health.v1 import health_pb2, health_pb2_grpc
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from contextunity.worker.auth import authenticator_for
from contextunity.worker.boundary import SERVICE_NAME
from contextunity.worker.client import RetryPolicy, WorkerClient
from contextunity.worker.client.errors import WorkerServiceError
from contextunity.worker.client.methods import START_WORKFLOW
from contextunity.worker.embedded import EmbeddedServer, usual_or_free_port
from contextunity.worker.errors import SettingsError
from contextunity.worker.modules.discovery import boot
from contextunity.worker.readiness import Readiness
from contextunity.worker.server import RunningServer, running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from tests.conftest import Process, Spawn

Status = health_pb2.HealthCheckResponse
_CALLERS, _MORE, _PAUSE = 4, 3, 0.1
_LONG = "600"
"""Seconds of a delay that only a signal ends."""


@workflow.defn(name="harvest")
class _Endless:
    """A task that runs until it is terminated."""

    @workflow.run
    async def run(self, given: RawValue) -> None:
        await workflow.wait_condition(lambda: False)


class _Services:
    """Two services, of which callers use the second once the first is gone."""

    def __init__(self, spawn: Spawn, temporal: EmbeddedServer) -> None:
        self.ports = [usual_or_free_port(0), usual_or_free_port(0)]
        variables = {"TEMPORAL_ADDRESS": temporal.address, "WORKER_HOST": "127.0.0.1", "WORKER_HTTP_PORT": "0"}
        self.processes: list[Process] = [
            spawn(
                *("-m", "contextunity.worker"),
                **variables,
                WORKER_PORT=str(port),
                CONTEXTWORKER_SHUTDOWN_DELAY=_LONG,
                CONTEXTWORKER_READY_FILE=f"ready-{number}",
            )
            for number, port in enumerate(self.ports)
        ]
        lines = [process.wait_for("WorkerService listens on") for process in self.processes]
        self.urls = [f"http://127.0.0.1:{line.partition('HTTP on port ')[2].partition(')')[0]}" for line in lines]

    def client(self, tenant: str) -> WorkerClient:
        client = WorkerClient("127.0.0.1:1", tenant_id=tenant, timeout=60)
        # As a name that stands for both, such as that of a service in Kubernetes.
        client.target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return client


class _Load:
    """Calls until it is told to stop; what fails fails the test."""

    def __init__(self) -> None:
        self.done = 0
        self._changed = asyncio.Event()
        self._over = False

    async def run(self, call: Callable[[], Awaitable[object]]) -> None:
        while not self._over:
            await call()
            self.done += 1
            self._changed.set()
            # The machine has other work: what matters is that there is always a call, not how many.
            await asyncio.sleep(_PAUSE)

    async def more(self, count: int = _CALLERS * _MORE) -> None:
        """Wait for some more answers."""
        end = self.done + count
        while self.done < end:
            self._changed.clear()
            async with asyncio.timeout(30):
                await self._changed.wait()

    def end(self) -> None:
        self._over = True


async def _health(port: int) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        stream = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        async for answer in stream:
            yield answer.status


async def test_no_call_fails_while_a_service_stops(
    spawn: Spawn, temporal_server: EmbeddedServer, tenant: str, tmp_path: Path
) -> None:
    services = await asyncio.to_thread(_Services, spawn, temporal_server)
    first, second = services.processes
    load, web, unit_id = _Load(), _Load(), str(uuid.uuid4())
    temporal = await connect(Settings(), address=temporal_server.address)
    queue, runner = f"harvest/{tenant}", UnsandboxedWorkflowRunner()
    worker = Worker(temporal, task_queue=queue, workflows=[_Endless], workflow_runner=runner)
    given = {
        "workflow_type": "harvest",
        "tenant_id": tenant,
        "supplier_code": "camping-trade",
        "task_queue": queue,
    }
    async with worker, services.client(tenant) as client, httpx.AsyncClient(timeout=60) as http:
        started = (await client.call(START_WORKFLOW, payload=given, unit_id=unit_id)).body
        task = client.task(started.workflow_id)

        async def start() -> None:
            assert (await client.call(START_WORKFLOW, payload=given, unit_id=unit_id)).body.run_id == started.run_id

        async def status() -> None:
            assert (await task.status()).status is TaskState.RUNNING

        async def over_http() -> None:
            for url in services.urls:
                try:
                    answer = await http.post(
                        f"{url}/{SERVICE_NAME}/GetTaskStatus", json={"payload": {"workflow_id": task.workflow_id}}
                    )
                except (httpx.NetworkError, httpx.RemoteProtocolError):
                    # Nobody listens there any more, or the connection was closed while nothing was asked on it.
                    continue
                if answer.status_code != 503:
                    assert answer.status_code == 200, answer.text
                    return
            raise AssertionError("neither service answered")

        async with asyncio.TaskGroup() as group:
            seen = list[TaskStatus]()
            seen_one = asyncio.Event()

            async def watch() -> None:
                async for answer in task.watch(timeout=60):
                    seen.append(answer.body)
                    seen_one.set()

            group.create_task(watch())
            for number in range(_CALLERS):
                group.create_task(load.run(start if number % 2 else status))
            for _ in range(2):
                group.create_task(web.run(over_http))
            await load.more()
            await web.more(2)
            await seen_one.wait()

            health = _health(services.ports[0])
            assert await anext(health) == Status.SERVING
            assert (await http.get(f"{services.urls[0]}/readyz")).status_code == 200
            assert (tmp_path / "ready-0").exists()
            first.send(signal.SIGTERM)
            assert await anext(health) == Status.NOT_SERVING
            assert not (tmp_path / "ready-0").exists()
            assert (await http.get(f"{services.urls[0]}/readyz")).status_code == 503
            live = await http.get(f"{services.urls[0]}/livez")
            assert (live.status_code, live.headers["connection"]) == (200, "close")
            # All else is as before: new connections are taken, and calls are answered.
            async with WorkerClient(f"127.0.0.1:{services.ports[0]}", tenant_id=tenant) as new:
                assert (await new.task(task.workflow_id).status()).status is TaskState.RUNNING
            await load.more()
            await web.more(2)
            assert {each.status for each in seen} == {TaskState.RUNNING}

            # A second one ends the delay.
            first.send(signal.SIGTERM)
            assert await asyncio.to_thread(first.wait) == 0, first.output
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await anext(health)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
            await load.more()
            await web.more(2)
            load.end()
            web.end()
            await task.terminate()
        # The watch went on at the second service, which repeats nothing.
        assert seen[-1].status is TaskState.TERMINATED
        assert len({each.resume_token for each in seen}) == len(seen)
    # Ctrl-C is a person's, who does not wait.
    second.send(signal.SIGINT)
    assert await asyncio.to_thread(second.wait) == 0, second.output
    assert "Traceback" not in first.output + second.output


@asynccontextmanager
async def _serving(temporal: EmbeddedServer, grace: float) -> AsyncIterator[RunningServer]:
    _, registry = boot()
    client = await connect(Settings(), address=temporal.address, workflows=registry.workflows)
    settings = Settings(host="127.0.0.1", port=0, shutdown_grace=grace)
    service = WorkerService(client, registry, rpc_timeout=timedelta(seconds=60))
    async with running_server(service, settings, authenticator_for(settings)) as server:
        yield server


async def _under_way(server: RunningServer) -> None:
    """Wait until the service answers a call."""
    async with asyncio.timeout(30):
        while not server.calls.tasks:  # noqa: ASYNC110 - it is asyncio's own set
            await asyncio.sleep(0)


async def test_what_outlasts_the_grace_period_ends_as_stopping(temporal_server: EmbeddedServer, tenant: str) -> None:
    stack = AsyncExitStack()
    server = await stack.enter_async_context(_serving(temporal_server, grace=0.2))
    once = RetryPolicy(attempts=1)
    async with stack, WorkerClient(server.target, tenant_id=tenant, timeout=60, retry=once) as client:
        payload = {
            "workflow_type": "harvest",
            "tenant_id": tenant,
            "supplier_code": "camping-trade",
            "task_queue": f"harvest/{tenant}",
        }
        started = await client.call(START_WORKFLOW, payload=payload)
        task = client.task(started.body.workflow_id)
        # No worker answers it, so that it lasts.
        query = asyncio.create_task(task.query("get_progress"))
        await _under_way(server)
        health = _health(server.port)
        assert await anext(health) == Status.SERVING
        await server.drain(0, asyncio.Event())
        assert await anext(health) == Status.NOT_SERVING
        assert not query.done()
        with pytest.raises(WorkerServiceError) as new:
            await task.status()
        assert (new.value.reason, new.value.retry_after) == ("STOPPING", 1)
        await stack.aclose()
        with pytest.raises(WorkerServiceError, match="grace period") as outlasted:
            await query
        assert (outlasted.value.reason, outlasted.value.retry_after) == ("STOPPING", 1)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await anext(health)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    client = await connect(Settings(), address=temporal_server.address)
    await client.get_workflow_handle(task.workflow_id).terminate()


async def test_what_ends_within_the_grace_period_is_answered(temporal_server: EmbeddedServer, tenant: str) -> None:
    stack = AsyncExitStack()
    server = await stack.enter_async_context(_serving(temporal_server, grace=60))
    async with stack, WorkerClient(server.target, tenant_id=tenant, retry=RetryPolicy(attempts=1)) as client:
        call = asyncio.create_task(client.start("harvest", {"supplier_code": "camping-trade"}))
        await _under_way(server)
        await stack.aclose()
        started = await call
    temporal = await connect(Settings(), address=temporal_server.address)
    await temporal.get_workflow_handle(started.workflow_id, run_id=started.run_id).terminate()


def test_a_ready_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ready_file = .*no such file or directory; set CONTEXTWORKER_READY_FILE"):
        Readiness("s", file=tmp_path / "nowhere" / "ready")
