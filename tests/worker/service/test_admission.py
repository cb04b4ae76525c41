"""What is refused before it costs anything: strangers by their headers, units by their time and their room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.worker import rejected_calls
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.server import RunningServer

from .conftest import Desk, Refusal, ask, refusal_of, serving
from .raw_http2 import RawConnection

_PATH = "/contextunity.worker.WorkerService/DescribeContracts"
_MIB = 1024 * 1024
_LARGE = 4 * _MIB


@contextlib.asynccontextmanager
async def _raw(server: RunningServer) -> AsyncGenerator[RawConnection]:
    connection = await RawConnection.connect("127.0.0.1", server.port)
    async with asyncio.timeout(20):
        yield connection
    await connection.close()


@pytest.mark.parametrize("token", ["", "a.b.c"])
async def test_half_sent_units_of_strangers_are_refused_by_their_headers(registry: WorkerRegistry, token: str) -> None:
    async with serving(registry) as server, _raw(server) as connection:
        streams = range(1, 129, 2)
        for stream in streams:
            connection.call(stream, _PATH, declared=_LARGE, sends=_LARGE - 1, token=token)
        await connection.until_ended(*streams)
        # What a stream's window lets through before there is an answer.
        assert max(connection.sent.values()) <= 64 * 1024


@pytest.mark.parametrize(
    "method",
    [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_half_sent_requests_that_need_no_token_end_soon(registry: WorkerRegistry, method: str) -> None:
    async with serving(registry) as server, _raw(server) as connection:
        connection.call(1, method, declared=_MIB, sends=1000)
        await connection.until_ended(1)
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


async def test_a_unit_that_does_not_come_is_late(registry: WorkerRegistry) -> None:
    async with serving(registry, body_timeout=0.3) as server, _raw(server) as connection:
        connection.call(1, _PATH, declared=_LARGE, sends=1000, token=Desk.token("one"))
        await connection.until_ended(1)
        await ask(server, Desk.token("one"))


async def test_units_on_their_way_take_the_room_of_their_tenant(
    registry: WorkerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    token = Desk.token("one")
    with caplog.at_level(logging.WARNING):
        async with serving(registry, max_tenant_bytes_in_flight=2 * _LARGE) as server, _raw(server) as connection:
            for stream in (1, 3, 5, 7):
                connection.call(stream, _PATH, declared=_LARGE, sends=_LARGE - 1, token=token)
            await connection.until_so_many_ended(2)
            (first, second) = {1, 3, 5, 7} - connection.ended
            # What was let in goes on, units that are sent at once need no room, and other tenants have their own.
            await connection.until_sent(first, _LARGE)
            await connection.until_sent(second, _LARGE)
            await ask(server, token)
            await ask(server, Desk.token("two"), size=_MIB)
    assert "over the quota bytes_in_flight" in caplog.text


async def test_a_call_without_a_unit_is_told_so(registry: WorkerRegistry) -> None:
    async with serving(registry) as server, grpc.aio.insecure_channel(server.target) as channel:
        call: Any = channel.stream_unary(_PATH)
        with pytest.raises(grpc.RpcError) as caught:
            await call(iter(()), metadata=[("authorization", f"Bearer {Desk.token('one')}")], timeout=20)
        assert refusal_of(caught.value).reason == "UNIT_UNREADABLE"


async def test_what_a_caller_lacks_is_told_with_the_trace(registry: WorkerRegistry) -> None:
    async with serving(registry) as server:
        with pytest.raises(Refusal) as caught:
            await ask(server, Desk.token("one", permissions=("worker:none",)))
        assert caught.value.reason == "PERMISSION_MISSING"
        assert caught.value.metadata["trace_id"]
        with pytest.raises(Refusal) as caught:
            await ask(server, "a.b.c")
        assert caught.value.reason == "TOKEN_REFUSED"
        assert "trace_id" not in caught.value.metadata


async def test_what_no_temporal_server_takes_is_not_sent_there(registry: WorkerRegistry) -> None:
    """Nothing listens where it would be, and asking there would be told as UNAVAILABLE."""
    unit = ContextUnit(payload={"workflow_type": "join", "name": "x" * _LARGE}).to_protobuf(worker_pb2)
    options = [("grpc.max_send_message_length", -1)]
    async with (
        serving(registry, max_unit_bytes=2 * _LARGE) as server,
        grpc.aio.insecure_channel(server.target, options=options) as channel,
    ):
        stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            await stub.StartWorkflow(unit, metadata=[("authorization", f"Bearer {Desk.token('one')}")], timeout=60)
    assert refusal_of(caught.value).reason == "UNIT_TOO_LARGE"


async def test_a_large_unit_that_comes_to_nothing_counts_as_many_small_ones() -> None:
    small, large = rejected_calls.Turns(), rejected_calls.Turns()
    context = object()
    assert [small.take(context) for _ in range(50)] == [0] * 50, "the first come at once"
    assert [large.take(context, _LARGE) == 0 for _ in range(2)] == [True, False]
