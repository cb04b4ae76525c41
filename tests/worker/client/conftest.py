"""Both clients behind one face, so that each test holds for both; and a service that answers what a test tells it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import betterproto2
import grpc
import pytest
from contextunity.gen.contextunity import core as gen

from contextunity.core import ContextUnit, codec
from contextunity.worker.client import RetryPolicy, SyncWorkerClient, WorkerClient

Client = Any
"""WorkerClient or SyncWorkerClient; what they give goes through `settle` or `collect`."""

QUICK = RetryPolicy(attempts=3, initial_delay=0.001, maximum_delay=0.002)


async def settle(given: Any) -> Any:
    """What a method gives, of either client."""
    return await given if inspect.isawaitable(given) else given


async def collect(given: Any) -> list[Any]:
    """All that an iterator of either client gives."""
    return [each async for each in given] if hasattr(given, "__aiter__") else list(given)


@pytest.fixture(params=[WorkerClient, SyncWorkerClient], ids=["async", "sync"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Client]]:
    """Makes clients of either kind; they are closed after the test."""
    made: list[Client] = []

    def make(target: str, **options: Any) -> Client:
        made.append(request.param(target, **options))
        return made[-1]

    yield make
    for client in made:
        await settle(client.close())


@pytest.fixture
def client(connect: Callable[..., Client], service_target: str, tenant: str) -> Client:
    """A client of the real service, for a tenant of the test's own."""
    return connect(service_target, tenant_id=tenant)


@dataclass
class Script:
    """A service that answers what it is told, and remembers what it was sent.

    Attributes:
        answers: what each call gets, in turn, the last one for all further calls: functions of the call's context
            that give messages, bytes or exceptions of grpc's own.
        units: the units that came.
        metadata: the metadata of each call.
    """

    target: str = ""
    answers: list[Callable[[Any], Any]] = field(default_factory=list)
    units: list[ContextUnit] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)

    def next(self, data: bytes, context: Any) -> Any:
        self.raw.append(data)
        self.units.append(ContextUnit.from_dataclass(codec.decode(gen.ContextUnit, data)))
        self.metadata.append(dict(context.invocation_metadata() or ()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(context)


def packed(message: betterproto2.Message, payload: dict[str, Any] | None = None) -> bytes:
    """The unit that answers with a message."""
    return codec.encode(ContextUnit(body=message, payload=payload or {}).to_dataclass())


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, script: Script) -> None:
        self._script = script

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method.endswith("/WatchTask"):
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, data: bytes, context: Any) -> bytes:
        return await settle(self._script.next(data, context))  # type: ignore[no-any-return]  # as scripted

    async def _stream(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        async for message in self._script.next(data, context):
            yield message


@pytest.fixture
def script() -> Iterator[Script]:
    """A service to tell what to answer; it runs in a thread of its own, so that the sync client may block."""
    script, loop, ready = Script(), asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handlers(script),))
        script.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        ready.set()
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="script")
    thread.start()
    assert ready.wait(30)
    yield script
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
