"""Quotas that several processes count together, in a real Redis; and what becomes of them without it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest

from contextunity.worker import shared_quotas
from contextunity.worker.doctor.findings import Status
from contextunity.worker.doctor.machine import check_quotas_redis
from contextunity.worker.doctor.run import Machine
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.errors import SettingsError
from contextunity.worker.grpc_errors import ServiceError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.quotas import EgressBudgetError, Quotas, counted_fetch, on_budget, open_quotas
from contextunity.worker.settings import Settings, TenantQuotas, load_settings
from contextunity.worker.shared_quotas import SharedCounts
from tests.worker.conftest import RedisServer

from .conftest import refusal_of
from .test_quotas import serving


@contextlib.asynccontextmanager
async def _two(redis: RedisServer, quotas: TenantQuotas) -> AsyncGenerator[tuple[Quotas, Quotas]]:
    """What two processes have."""
    async with SharedCounts(redis.url) as one, SharedCounts(redis.url) as other:
        yield Quotas(quotas, shared=one), Quotas(quotas, shared=other)


async def test_a_rate_is_that_of_all_processes_together(redis: RedisServer) -> None:
    async with _two(redis, TenantQuotas(starts_per_second=0.1, starts_burst=4)) as (one, other):
        for quotas in (one, other, one, other):
            await quotas.take_start("acme", "StartWorkflow")
        for quotas in (one, other):
            with pytest.raises(ServiceError) as caught:
                await quotas.take_start("acme", "StartWorkflow")
            assert caught.value.metadata == {"quota": "starts_per_second", "limit": "0.1"}
            assert caught.value.retry_after is not None
            assert 5 < caught.value.retry_after <= 10
        await one.take_start("another", "StartWorkflow")


async def test_a_rate_fills_up_again(redis: RedisServer) -> None:
    async with _two(redis, TenantQuotas(starts_per_second=50, starts_burst=1)) as (one, other):
        await one.take_start("acme")
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(ServiceError):
                    await other.take_start("acme")
                    break
                await asyncio.sleep(0.005)


async def test_calls_at_once_are_those_of_all_processes_together(redis: RedisServer) -> None:
    async with _two(redis, TenantQuotas()) as (one, other):
        async with one.holding("watches", 2, "acme", "WatchTask"), other.holding("watches", 2, "acme", "WatchTask"):
            for quotas in (one, other):
                with pytest.raises(ServiceError) as caught:
                    async with quotas.holding("watches", 2, "acme", "WatchTask"):
                        pass
                assert caught.value.metadata == {"quota": "watches", "limit": "2"}
            async with one.holding("watches", 2, "another", "WatchTask"):
                pass
            async with one.holding("concurrent_calls", 2, "acme", "GetTaskStatus"):
                pass
        async with asyncio.timeout(20):
            # Given back without anybody waiting for it.
            while True:
                with contextlib.suppress(ServiceError):
                    async with contextlib.AsyncExitStack() as stack:
                        for quotas in (one, other):
                            await stack.enter_async_context(quotas.holding("watches", 2, "acme", "WatchTask"))
                    break
                await asyncio.sleep(0.005)


async def test_watches_of_two_services_are_counted_together(
    redis: RedisServer, temporal_server: EmbeddedServer, registry: WorkerRegistry
) -> None:
    async with (
        _two(redis, TenantQuotas(watches=1)) as (one, other),
        serving(temporal_server, registry, one) as first,
        serving(temporal_server, registry, other) as second,
    ):
        task = await first.start("two-services")
        watch = first.watch("two-services", task)
        await watch.read()
        with pytest.raises(grpc.RpcError) as caught:
            await second.watch("two-services", task).read()
        refusal = refusal_of(caught.value)
        assert (refusal.reason, refusal.metadata["quota"], refusal.metadata["limit"]) == ("QUOTA", "watches", "1")
        assert "in all processes together" in refusal.message
        watch.cancel()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(grpc.RpcError):
                    again = second.watch("two-services", task)
                    await again.read()
                    break
                await asyncio.sleep(0.02)


_HOLDS = """
import asyncio, sys
from contextunity.worker import shared_quotas
shared_quotas._LEASE_SECONDS, shared_quotas._RENEW_SECONDS = 1.0, 0.2
async def main():
    async with shared_quotas.SharedCounts(sys.argv[1]) as shared:
        assert await shared.take_one("watches", "acme", 1)
        print("held", flush=True)
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"""


async def test_what_a_killed_process_held_is_free_again(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_quotas, "_LEASE_SECONDS", 1.0)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDS, redis.url, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60), SharedCounts(redis.url) as shared:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"held\n"
            # As long as it lives it holds on: these are looks over more than its lease lasts.
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                assert await shared.take_one("watches", "acme", 1) is False
                await asyncio.sleep(0.05)
            process.kill()
            await process.wait()
            assert await shared.take_one("watches", "acme", 1) is False
            while await shared.take_one("watches", "acme", 1) is False:  # noqa: ASYNC110 - expiry is no event
                await asyncio.sleep(0.05)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_budget_is_that_of_all_processes_together(redis: RedisServer) -> None:
    async with _two(redis, TenantQuotas(egress_bytes=1000)) as (one, other):
        for quotas in (one, other):
            with on_budget(quotas, "acme", "call_tool"):
                async with counted_fetch() as fetch:
                    assert fetch is not None
                    await fetch.count(499)
        # The first one hears of what the other fetched as it looks.
        with on_budget(one, "acme", "call_tool"):
            async with counted_fetch() as fetch:
                assert fetch is not None
                await fetch.count(1)
                with pytest.raises(EgressBudgetError) as caught:
                    await fetch.count(2)
        with on_budget(other, "acme", "call_tool"), pytest.raises(EgressBudgetError):
            async with counted_fetch():
                pass
        assert 86_000 < caught.value.frees_in <= 86_400


async def test_without_redis_each_process_counts_for_itself_and_says_so_once(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_quotas, "_AGAIN_SECONDS", 0.05)
    async with _two(redis, TenantQuotas(starts_per_second=0.1, starts_burst=2)) as (one, other):
        await one.take_start("acme")
        async with one.holding("watches", 1, "acme", "WatchTask"):
            redis.stop()
            for quotas in (one, other):
                for _ in range(2):
                    await quotas.take_start("acme")
                with pytest.raises(ServiceError):
                    await quotas.take_start("acme")
                async with quotas.holding("watches", 1, "acme", "WatchTask"):
                    pass
                assert await quotas.spend("acme", 10, 0.1, settle=True) is None
            away = [record for record in caplog.records if "Redis does not answer" in record.message]
            assert len(away) == 2, "one line a process"
            redis.start()
            async with asyncio.timeout(20):
                while sum("Redis answers again" in record.message for record in caplog.records) < 2:
                    for quotas in (one, other):
                        await quotas.spend("acme", 0, 0, settle=True)
                    await asyncio.sleep(0.01)


async def test_a_redis_that_does_not_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections and says nothing, for as long as they like."""
    monkeypatch.setattr(shared_quotas, "_AGAIN_SECONDS", 3600.0)
    gone = list[asyncio.Event]()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone.append(asyncio.Event())
        ended = gone[-1]
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with silent, SharedCounts(f"redis://127.0.0.1:{port}/0") as shared:
        quotas = Quotas(TenantQuotas(), shared=shared)
        began = time.monotonic()
        await asyncio.gather(*(quotas.take_start("acme") for _ in range(50)))
        await asyncio.gather(*(quotas.take_start("acme") for _ in range(50)))
        # Fifty wait once, together; without a bound this would be for ever.
        assert time.monotonic() - began < 30
    async with asyncio.timeout(20):
        for each in gone:
            await each.wait()


async def test_redis_is_opened_where_it_is_set(redis: RedisServer, tmp_path: Path) -> None:
    settings = load_settings({"CONTEXTWORKER_QUOTAS_REDIS_URL": redis.url}, tmp_path)
    async with open_quotas(settings) as quotas:
        assert quotas.is_shared
        await quotas.take_start("acme")
    async with open_quotas(load_settings({}, tmp_path)) as quotas:
        assert not quotas.is_shared


async def test_a_client_that_is_missing_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "contextunity.worker.shared_quotas")
    for name in [name for name in sys.modules if name == "redis" or name.startswith("redis.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    settings: Any = Settings.model_validate({"quotas_redis_url": "redis://127.0.0.1:1/0"})
    with pytest.raises(SettingsError, match=r"pip install 'contextworker\[redis\]'"):
        async with open_quotas(settings):
            pass


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:6379"])
def test_a_url_of_something_else_is_refused_and_not_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match="CONTEXTWORKER_QUOTAS_REDIS_URL: should be a URL such as redis://"
    ) as caught:
        load_settings({"CONTEXTWORKER_QUOTAS_REDIS_URL": f"{url}?password=hidden"}, tmp_path)
    assert "hidden" not in str(caught.value)


def test_a_url_with_its_password_does_not_stand_in_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text('quotas_redis_url = "redis://:hidden@127.0.0.1/0"\n')
    with pytest.raises(SettingsError, match="set CONTEXTWORKER_QUOTAS_REDIS_URL instead") as caught:
        load_settings({}, tmp_path)
    assert "hidden" not in str(caught.value)


def test_redis_is_imported_only_where_it_is_set() -> None:
    program = "import sys, contextunity.worker.server, contextunity.worker.temporal; print('redis' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "False\n"


async def test_the_doctor_asks_redis(redis: RedisServer, tmp_path: Path) -> None:
    machine = Machine(service="", timeout=10, environ={"CONTEXTWORKER_QUOTAS_REDIS_URL": redis.url}, folder=tmp_path)
    (finding,) = await check_quotas_redis(machine)
    assert (finding.status, finding.value) == (Status.OK, "answers")
    redis.stop()
    (finding,) = await check_quotas_redis(machine)
    assert (finding.status, finding.value) == (Status.FAIL, "does not answer: ConnectionError")
