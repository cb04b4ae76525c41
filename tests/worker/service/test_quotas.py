"""What a tenant may take at once and a second, each refused with the quota's name and a time to come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.modules.code.plugin import module as code_module
from contextunity.worker import file_changes
from contextunity.worker.auth import authenticator_for
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.errors import SettingsError
from contextunity.worker.metrics import QUOTA_REFUSALS_TOTAL
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.quotas import Quotas
from contextunity.worker.schedules import ScheduleManager
from contextunity.worker.server import running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings, TenantQuotas
from contextunity.worker.temporal.client import connect

from .conftest import SECRET, Desk, Refusal, refusal_of


class _Service:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)
        self.channel = channel

    async def start(self, tenant: str, workflow_type: str = "idle") -> str:
        unit = ContextUnit(payload={"workflow_type": workflow_type, "name": "a"})
        try:
            answer = await self.stub.StartWorkflow(unit.to_protobuf(worker_pb2), metadata=_as(tenant), timeout=20)
        except grpc.RpcError as error:
            raise refusal_of(error) from None
        return str(ContextUnit.from_protobuf(answer).payload["workflow_id"])

    async def register(self, tenant: str, *ids: str, project: str = "default", prune: bool = False) -> int:
        entries: Any = [{"schedule_id": each, **_SCHEDULED} for each in ids]
        unit = ContextUnit(payload={"project_id": project, "schedules": entries, "prune": prune})
        token = Desk.token(tenant, permissions=("worker:schedule",))
        metadata = [("authorization", f"Bearer {token}")]
        try:
            answer = await self.stub.RegisterSchedules(unit.to_protobuf(worker_pb2), metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            raise refusal_of(error) from None
        return int(cast("int", ContextUnit.from_protobuf(answer).payload["registered_count"]))

    def execute(self, tenant: str, *, timeout: float = 60) -> Any:
        """A program that nobody waits for to end; the call waits until it is its turn."""
        unit = ContextUnit(payload={"code": "1", "wait": False})
        return self.stub.ExecuteCode(unit.to_protobuf(worker_pb2), metadata=_as(tenant), timeout=timeout)

    async def terminate(self, tenant: str, workflow_id: str) -> None:
        unit = ContextUnit(payload={"workflow_id": workflow_id})
        await self.stub.TerminateTask(unit.to_protobuf(worker_pb2), metadata=_as(tenant), timeout=20)

    def watch(self, tenant: str, workflow_id: str) -> Any:
        unit = ContextUnit(payload={"workflow_id": workflow_id})
        return self.stub.WatchTask(unit.to_protobuf(worker_pb2), metadata=_as(tenant), timeout=60)


def _as(tenant: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {Desk.token(tenant)}")]


@contextlib.asynccontextmanager
async def serving(temporal: EmbeddedServer, registry: WorkerRegistry, quotas: Quotas) -> AsyncGenerator[_Service]:
    """A service for tasks that no worker takes, so that they stay open."""
    settings = Settings.model_validate({"host": "127.0.0.1", "port": 0, "auth": "token", "token_secret": SECRET})
    client = await connect(settings, address=temporal.address)
    service = WorkerService(client, registry, quotas=quotas)
    async with (
        running_server(service, settings, authenticator_for(settings)) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        yield _Service(channel)


async def test_starts_have_a_rate(temporal_server: EmbeddedServer, registry: WorkerRegistry) -> None:
    quotas = Quotas(TenantQuotas(starts_per_second=0.01, starts_burst=2))
    async with serving(temporal_server, registry, quotas) as service:
        for _ in range(2):
            await service.start("rate")
        with pytest.raises(Refusal) as caught:
            await service.start("rate")
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA")
        assert (caught.value.metadata["quota"], caught.value.metadata["limit"]) == ("starts_per_second", "0.01")
        assert caught.value.retry_after is not None
        assert 90 <= caught.value.retry_after <= 100
        await service.start("another")


async def test_a_start_over_the_rate_is_rejected_before_its_unit_is_read(
    temporal_server: EmbeddedServer, registry: WorkerRegistry
) -> None:
    quotas = Quotas(TenantQuotas(starts_per_second=0.01, starts_burst=1))
    async with serving(temporal_server, registry, quotas) as service:
        await service.start("rate")
        with pytest.raises(Refusal):
            await service.start("rate")
        never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def half_sent() -> AsyncIterator[bytes]:
            yield await never

        # Calls whose unit never comes: only what is rejected by its headers ends before its deadline.
        over, late = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED
        for method, tenant, code in (
            ("StartWorkflow", "rate", over),
            ("ExecuteCode", "rate", over),
            ("GetTaskStatus", "rate", late),
            ("StartWorkflow", "another", late),
        ):
            call: Any = service.channel.stream_unary(f"/contextunity.worker.WorkerService/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(half_sent(), metadata=_as(tenant), timeout=20 if code is over else 0.5)
            assert caught.value.code() is code, method


def test_a_burst_of_starts_is_paced_at_the_average_rate() -> None:
    quotas = Quotas(TenantQuotas(starts_per_second=0.01, starts_burst=1000))
    pauses = [quotas.pause_after_start("acme") for _ in range(40)]
    assert pauses[:20] == [0.0] * 20
    assert all(90 <= pause <= 100 for pause in pauses[20:])
    assert quotas.pause_after_start("another") == 0.0


async def test_a_tenants_burst_waits_while_another_starts(
    temporal_server: EmbeddedServer, registry: WorkerRegistry
) -> None:
    # The pause is longer than the test: only its first twenty starts of a tenant come through once the other calls.
    async with serving(temporal_server, registry, Quotas(TenantQuotas(starts_per_second=0.001))) as service:
        for _ in range(20):
            await service.start("paced")
        await service.start("other-tenant")
        starts = [asyncio.create_task(service.start("paced")) for _ in range(2)]
        done, waiting = await asyncio.wait(starts, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(waiting)) == (1, 1)
        await service.start("other-tenant")
        assert not any(each.done() for each in waiting)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_open_tasks_are_counted_after_a_restart_too(
    temporal_server: EmbeddedServer, registry: WorkerRegistry
) -> None:
    client = await connect(Settings(), address=temporal_server.address)
    started = list[str]()
    for _ in range(2):
        async with serving(temporal_server, registry, Quotas(TenantQuotas(open_tasks=2))) as service:
            while len(started) < 2:
                started.append(await service.start("open"))
            with pytest.raises(Refusal) as caught:
                await service.start("open")
            assert (caught.value.metadata["quota"], caught.value.metadata["limit"]) == ("open_tasks", "2")
            await service.start("another-open", "idle")
        query = "ContextUnityTenant = 'open' AND ExecutionStatus = 'Running'"
        async with asyncio.timeout(20):
            # The server's lists follow a moment behind, and there is no event to wait for.
            while (await client.count_workflows(query)).count < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    async with serving(temporal_server, registry, Quotas(TenantQuotas(open_tasks=2))) as service:
        await client.get_workflow_handle(started[0]).terminate()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(Refusal):
                    await service.start("open")
                    break
                await asyncio.sleep(0.05)


async def test_watches_have_a_number(temporal_server: EmbeddedServer, registry: WorkerRegistry) -> None:
    async with serving(temporal_server, registry, Quotas(TenantQuotas(watches=2))) as service:
        task = await service.start("watches")
        watches = [service.watch("watches", task) for _ in range(2)]
        for each in watches:
            await each.read()
        with pytest.raises(grpc.RpcError) as caught:
            await service.watch("watches", task).read()
        refusal = refusal_of(caught.value)
        assert (refusal.reason, refusal.metadata["quota"]) == ("QUOTA", "watches")
        watches[0].cancel()
        async with asyncio.timeout(20):
            # It is left as soon as the server has heard of it, which nothing tells.
            while isinstance(await _first(service.watch("watches", task)), Refusal):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.fixture
def code_registry() -> WorkerRegistry:
    """The code module, for which no worker is there: its programs stay where they are."""
    registry = WorkerRegistry()
    registry.register(code_module)
    return registry


async def test_a_tenants_programs_wait_here_and_another_tenants_starts_next(
    temporal_server: EmbeddedServer, code_registry: WorkerRegistry
) -> None:
    quotas = Quotas(TenantQuotas(running_programs=1, concurrent_calls=200))
    async with serving(temporal_server, code_registry, quotas) as service:
        calls = [service.execute("held") for _ in range(101)]
        done, waiting = await asyncio.wait(
            [asyncio.ensure_future(_told(each)) for each in calls], return_when=asyncio.FIRST_COMPLETED
        )
        assert len(done) == 1
        other = await _told(service.execute("another"))
        assert len([each for each in waiting if each.done()]) == 0, "the hundred still wait"
        (first,) = done
        await service.terminate("held", first.result())
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1, "one that has ended makes room for one"
        for call in calls:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for each in done:
            await service.terminate("held", each.result())
        await service.terminate("another", other)


async def test_a_program_whose_turn_does_not_come_is_refused_before_the_deadline(
    temporal_server: EmbeddedServer, code_registry: WorkerRegistry
) -> None:
    async with serving(temporal_server, code_registry, Quotas(TenantQuotas(running_programs=1))) as service:
        # Who goes away after the start takes its turn along, until the program has ended.
        running = await _told(service.execute("patient"))
        with pytest.raises(grpc.RpcError) as caught:
            await service.execute("patient", timeout=1.5)
        refusal = refusal_of(caught.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA")
        assert (refusal.metadata["quota"], refusal.metadata["limit"]) == ("running_programs", "1")
        assert refusal.retry_after is not None
        await service.terminate("patient", running)


async def test_a_start_of_a_program_waits_for_the_same_turn(
    temporal_server: EmbeddedServer, code_registry: WorkerRegistry
) -> None:
    async with serving(temporal_server, code_registry, Quotas(TenantQuotas(running_programs=1))) as service:
        running = await _told(service.execute("mixed"))
        unit = ContextUnit(payload={"workflow_type": "execute_code", "code": "1"}).to_protobuf(worker_pb2)
        start = asyncio.ensure_future(_told(service.stub.StartWorkflow(unit, metadata=_as("mixed"), timeout=30)))
        await _told(service.execute("another-mixed"))
        assert not start.done()
        await service.terminate("mixed", running)
        await service.terminate("mixed", await start)


async def _told(call: Any) -> str:
    """The workflow_id that an answer tells."""
    return str(ContextUnit.from_protobuf(await call).payload["workflow_id"])


async def _first(call: Any) -> Any:
    try:
        return await call.read()
    except grpc.RpcError as error:
        return refusal_of(error)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricBuffer]:
    """What this process's runtime of the SDK is told by counters of ours."""
    buffer = MetricBuffer(10_000)
    telemetry = TelemetryConfig(metrics=buffer, metric_prefix="")
    before = Runtime.default()
    Runtime.set_default(Runtime(telemetry=telemetry), error_if_already_set=False)
    yield buffer
    Runtime.set_default(before, error_if_already_set=False)


async def test_what_is_over_a_quota_is_counted_by_quota_and_method_and_in_the_log(
    temporal_server: EmbeddedServer,
    registry: WorkerRegistry,
    metrics: MetricBuffer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    quotas = Quotas(TenantQuotas(starts_per_second=0.01, starts_burst=1, schedules=0))
    async with serving(temporal_server, registry, quotas) as service:
        task = await service.start("metric")
        for _ in range(2):
            with pytest.raises(Refusal):
                await service.start("metric")
        with pytest.raises(Refusal):
            await service.register("metric", "one")
    async with serving(temporal_server, registry, Quotas(TenantQuotas(watches=1))) as service:
        watch = service.watch("metric", task)
        await watch.read()
        assert isinstance(await _first(service.watch("metric", task)), Refusal)
        watch.cancel()
    counted = Counter[tuple[tuple[str, str | int | float | bool], ...]]()
    for update in metrics.retrieve_updates():
        if update.metric.name == QUOTA_REFUSALS_TOTAL.name:
            counted[tuple(sorted(update.attributes.items()))] += int(update.value)
    told = {tuple(value for key, value in labels if key != "service_name"): n for labels, n in counted.items()}
    assert told == {
        ("StartWorkflow", "starts_per_second"): 2,
        ("RegisterSchedules", "schedules"): 1,
        ("WatchTask", "watches"): 1,
    }
    assert "metric" not in str(told), "tenants are no label: there may be any number of them"
    for line in (
        "StartWorkflow: over the quota starts_per_second of 0.01, tenant 'metric'",
        "RegisterSchedules: over the quota schedules of 0, tenant 'metric'",
        "WatchTask: over the quota watches of 1, tenant 'metric'",
    ):
        assert line in caplog.text


def test_a_file_of_quotas_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_changes, "_PAUSE", 0.0)
    path = tmp_path / "quotas.toml"
    path.write_text("[tenants.one]\nwatches = 3\n", encoding="utf-8")
    quotas = Quotas(TenantQuotas(watches=5), path)
    assert (quotas.of("one").watches, quotas.of("one").programs, quotas.of("two").watches) == (3, 100, 5)
    path.write_text("[tenants.two]\nwatches = 44\n", encoding="utf-8")
    assert (quotas.of("one").watches, quotas.of("two").watches) == (5, 44)
    path.write_text("[tenants.two]\nwatches = -100\nprogramms = 1\n", encoding="utf-8")
    assert quotas.of("two").watches == 44
    assert "tenants.two.programms: unknown setting" in caplog.text
    assert "tenants.two.watches" in caplog.text
    os.unlink(path)
    assert (quotas.of("two").watches, quotas.of("two").watches) == (44, 44)
    # Of the invalid file and of the missing one, once each.
    assert caplog.text.count("quotas file not reloaded") == 2


@pytest.mark.parametrize("text", ["[tenants.one]\nwatches = 0", "[tenant.one]", "[["])
def test_a_file_of_quotas_that_is_wrong_ends_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "quotas.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"quotas\.toml"):
        Quotas(path=path)


_SCHEDULED = {"workflow_type": "ping", "cron": "0 3 * * *", "paused": True}


async def test_schedules_have_a_number(temporal_server: EmbeddedServer, registry: WorkerRegistry) -> None:
    async with serving(temporal_server, registry, Quotas(TenantQuotas(schedules=2))) as service:
        assert await service.register("planned", "one", "two") == 2
        # What is there is not counted again.
        assert await service.register("planned", "two", "one") == 2
        for project in ("default", "other"):
            with pytest.raises(Refusal) as caught:
                await service.register("planned", "three", project=project)
            assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA")
            assert (caught.value.metadata["quota"], caught.value.metadata["limit"]) == ("schedules", "2")
            assert caught.value.retry_after is not None
        assert await service.register("another-planned", "three") == 1
    client = await connect(Settings(), address=temporal_server.address)
    manager = ScheduleManager(client, registry)
    async with asyncio.timeout(20):
        # The server's list follows a moment behind, and there is no event to wait for.
        while len(await manager.names("planned")) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    async with serving(temporal_server, registry, Quotas(TenantQuotas(schedules=2))) as service:
        with pytest.raises(Refusal, match="2 are registered, and 1 would be added"):
            await service.register("planned", "one", "two", "three")
        # What is pruned makes room.
        assert await service.register("planned", "one", "three", prune=True) == 2
