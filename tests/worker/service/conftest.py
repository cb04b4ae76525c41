"""A service with workers of its own in this process, once for all tests here: one open, one that asks for tokens."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from contextunity.gen.contextunity import core as gen
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pydantic import SecretStr
from temporalio.client import Client

from contextunity.core import ContextUnit, codec, worker_pb2, worker_pb2_grpc
from contextunity.core.tokens import ContextToken, mint
from contextunity.worker.auth import Authenticator, authenticator_for
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.protos import export
from contextunity.worker.server import RunningServer, running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from contextunity.worker.temporal.worker import running_workers

_HERE = Path(__file__).parent
ORIGIN = "https://shop.example.com"
"""Of pages that may call over HTTP."""
SECRET = "a secret of more than thirty-two bytes, for tests"


@dataclass
class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer other than success, as a client reads it."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]
    violations: dict[str, str] = field(default_factory=dict)
    retry_after: int | None = None


def refusal_of(error: grpc.RpcError) -> Refusal:
    status = rpc_status.from_call(cast("Any", error))
    assert status is not None, f"no details: {error}"
    refusal = Refusal(error.code(), "", error.details() or "", {})
    for detail in status.details:
        for message in (error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()):
            if not detail.Is(message.DESCRIPTOR):
                continue
            detail.Unpack(message)
            if isinstance(message, error_details_pb2.ErrorInfo):
                assert message.domain == "worker.contextunity"
                refusal.reason, refusal.metadata = message.reason, dict(message.metadata)
            elif isinstance(message, error_details_pb2.BadRequest):
                refusal.violations = {each.field: each.description for each in message.field_violations}
            else:
                refusal.retry_after = message.retry_delay.seconds
    return refusal


class Desk:
    """Calls the service as any client would."""

    def __init__(self, opened: RunningServer, guarded: RunningServer, temporal: EmbeddedServer) -> None:
        self.temporal = temporal
        self.target, self.guarded_target = opened.target, guarded.target
        self.http, self.guarded_http = (f"http://127.0.0.1:{each.http_port}" for each in (opened, guarded))
        self._channels = [grpc.insecure_channel(target) for target in (self.target, self.guarded_target)]
        self._open, self._guarded = (worker_pb2_grpc.WorkerServiceStub(channel) for channel in self._channels)

    def send(self, method: str, unit: Any, token: str | None = None, timeout: float = 30) -> Any:
        """Sends Google's form of a unit; the answer comes the same way, a stream as an iterator."""
        stub = self._open if token is None else self._guarded
        metadata = [("authorization", f"Bearer {token}")] if token else []
        return getattr(stub, method)(unit, metadata=metadata, timeout=timeout)

    def call(
        self,
        method: str,
        payload: dict[str, Any] | None = None,
        *,
        body: Any = None,
        unit: ContextUnit | None = None,
        token: str | None = None,
        timeout: float = 30,
    ) -> Any:
        unit = unit or ContextUnit(payload=payload or {}, body=body, provenance=["test:caller"])
        try:
            answer = self.send(method, unit.to_protobuf(worker_pb2), token, timeout)
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            assert refusal.metadata["trace_id"] == unit.trace_id
            raise refusal from None
        face = ContextUnit.from_protobuf(answer)
        assert face.unit_id not in ("", unit.unit_id)
        assert face.parent_unit_id == unit.unit_id
        assert face.trace_id == unit.trace_id
        assert face.provenance[:-1] == unit.provenance
        assert face.provenance[-1].startswith("worker:")
        return face

    def watch(self, payload: dict[str, Any], token: str | None = None, timeout: float = 30) -> Iterator[Any]:
        unit = ContextUnit(payload=payload)
        try:
            for answer in self.send("WatchTask", unit.to_protobuf(worker_pb2), token, timeout):
                yield ContextUnit.from_protobuf(answer)
        except grpc.RpcError as error:
            raise refusal_of(error) from None

    def start(self, workflow_type: str = "work", *, token: str | None = None, **parameters: Any) -> str:
        payload = {"workflow_type": workflow_type, **parameters}
        return str(self.call("StartWorkflow", payload, token=token).payload["workflow_id"])

    def status(self, workflow_id: str, *, token: str | None = None) -> dict[str, Any]:
        return dict(self.call("GetTaskStatus", {"workflow_id": workflow_id}, token=token).payload)

    def wait(self, workflow_id: str, token: str | None = None) -> dict[str, Any]:
        last: dict[str, Any] = {}
        for answer in self.watch({"workflow_id": workflow_id}, token):
            last = dict(answer.payload)
        return last

    @staticmethod
    def eventually(found: Callable[[], Any], wanted: Any) -> None:
        """Asks until it is so: the server's lists follow a moment behind, and there is no event to wait for."""
        deadline = time.monotonic() + 20
        while (last := found()) != wanted:
            assert time.monotonic() < deadline, f"{last} never became {wanted}"
            time.sleep(0.05)

    def wait_until(self, workflow_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for answer in self.watch({"workflow_id": workflow_id}):
            if reached(dict(answer.payload)):
                return dict(answer.payload)
        raise AssertionError(f"{workflow_id} ended before it was so")

    @staticmethod
    def body(answer: Any) -> Any:
        assert answer.body is not None
        return codec.unpack_any(answer.body)

    @staticmethod
    def token(*tenants: str, permissions: tuple[str, ...] = ("worker:execute", "worker:read")) -> str:
        token = ContextToken(token_id="for a test", permissions=permissions, allowed_tenants=tenants)
        return mint(token, kid="acme:hmac-001", secret=SECRET.encode())

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


def _generate(target: Path) -> None:
    output = target / "desk_gen"
    output.mkdir(parents=True)
    imported = target / "imported"
    export(imported)
    protos = _HERE / "desk/proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", *(f"-I{folder}" for folder in (protos, imported))]
    for name in ("python_messages", "python_temporal"):
        script = target / f"protoc-gen-{name}"
        script.write_text(f"#!/bin/sh\nexec {sys.executable} -m protoc_gen_{name}\n")
        script.chmod(0o755)
        command += [f"--plugin=protoc-gen-{name}={script}", f"--{name}_out=package=desk_gen:{output}"]
    names = [path.relative_to(protos).as_posix() for path in sorted(protos.rglob("*.proto"))]
    done = subprocess.run([*command, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = (_HERE / "desk/desk_module.py").read_text(encoding="utf-8")
    # The first line is for pyright in this repository, where desk_gen does not exist.
    (target / "desk_module.py").write_text(text.partition("\n")[2], encoding="utf-8")


@pytest.fixture(scope="session")
def desk_messages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The dataclasses of the desk's proto package, and its module as `module`."""
    target = tmp_path_factory.mktemp("desk")
    _generate(target)
    sys.path.insert(0, str(target))
    import desk_gen.acme.desk.v1 as messages  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    import desk_module  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

    yield SimpleNamespace(**vars(messages), modules=[desk_module.module, desk_module.sealed, desk_module.away])
    sys.path.remove(str(target))


@pytest.fixture(scope="session")
def registry(desk_messages: SimpleNamespace) -> WorkerRegistry:
    registry = WorkerRegistry()
    registry.register_all(desk_messages.modules)
    return registry


@pytest.fixture(scope="session")
def desk(
    temporal_server: EmbeddedServer, registry: WorkerRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    started: queue.Queue[tuple[RunningServer, RunningServer] | BaseException] = queue.Queue()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    folder = tmp_path_factory.mktemp("desk-data")
    listening: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "http_port": 0, "data_folder": folder}
    plain = Settings(**listening, max_unit_bytes=1024 * 1024, http_origins=(ORIGIN,))
    guarded = Settings(**listening, auth="token", token_secret=SecretStr(SECRET))

    async def serve() -> None:
        try:
            async with AsyncExitStack() as stack:
                client = await connect(plain, address=temporal_server.address)
                # The tenant's own workers take work by what the machine has left.
                tuned = plain.model_copy(update={"target_memory_usage": 0.95})
                for tenant, settings in (("", plain), ("one", tuned)):
                    await stack.enter_async_context(
                        running_workers(client, registry.select(["desk", "sealed"]), settings, tenant=tenant)
                    )
                service = WorkerService(client, registry)
                one = await stack.enter_async_context(running_server(service, plain, authenticator_for(plain)))
                two = await stack.enter_async_context(
                    running_server(WorkerService(client, registry), guarded, authenticator_for(guarded))
                )
                started.put((one, two))
                await stop.wait()
        except BaseException as error:
            started.put(error)
            raise

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="desk")
    thread.start()
    outcome = started.get(timeout=90)
    if isinstance(outcome, BaseException):
        raise outcome
    desk = Desk(*outcome, temporal_server)
    yield desk
    desk.close()
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


_GUARDED: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 0,
    "auth": "token",
    "token_secret": SECRET,
    "max_unit_bytes": 4 * 1024 * 1024,
}


@contextlib.asynccontextmanager
async def serving(
    registry: WorkerRegistry, authenticator: Authenticator | None = None, **settings: Any
) -> AsyncGenerator[RunningServer]:
    """A service that asks for tokens. What is called here needs no Temporal, and nothing listens where it would be."""
    made = Settings.model_validate({**_GUARDED, **settings})
    client = await Client.connect("127.0.0.1:1", lazy=True, plugins=[ContextWorkerPlugin()])
    async with running_server(
        WorkerService(client, registry), made, authenticator or authenticator_for(made)
    ) as server:
        yield server


async def ask(server: RunningServer, token: str, *, size: int = 0) -> Any:
    unit = ContextUnit(payload={"workflow_type": ["ping"]}, provenance=["test:caller"]).to_protobuf(worker_pb2)
    unit.chain_of_thought.add(action="x" * size)
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)
        try:
            return await stub.DescribeContracts(unit, metadata=[("authorization", f"Bearer {token}")], timeout=20)
        except grpc.RpcError as error:
            raise refusal_of(error) from None


def raw_unit(**fields: Any) -> Any:
    """Google's form of a unit with just these fields."""
    return codec.to_proto(gen.ContextUnit(**fields))
