"""What is too large for Temporal goes through every door where there is a payload storage, encrypted."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import DataConverter

from contextunity.core import ContextUnit, codec, worker_pb2, worker_pb2_grpc
from contextunity.worker.auth import authenticator_for
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.schedules import ScheduleManager
from contextunity.worker.server import RunningServer, running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from contextunity.worker.temporal.storage import folder_storage
from contextunity.worker.temporal.worker import running_workers
from tests.worker.service.conftest import Refusal, refusal_of
from tests.worker.temporal.test_encryption import write_keys

_LARGE = 5 * 1024 * 1024
_TEXT = "a secret " * (_LARGE // 9)
_TENANT = "large"
"""Has workers with the storage; those of the other tests have none."""
_NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass
class _Deployment:
    server: RunningServer
    client: Client
    folder: Path
    registry: WorkerRegistry
    channel: grpc.aio.Channel

    async def call(self, method: str, unit_id: str = "", **payload: Any) -> dict[str, Any]:
        unit = ContextUnit(payload={"tenant_id": _TENANT, **payload}, unit_id=unit_id or str(uuid.uuid4()))
        stub: Any = worker_pb2_grpc.WorkerServiceStub(self.channel)
        try:
            answer = await getattr(stub, method)(unit.to_protobuf(worker_pb2), timeout=40)
        except grpc.RpcError as error:
            raise refusal_of(error) from None
        return dict(ContextUnit.from_protobuf(answer).payload)

    async def typed(self, request_id: str, message: Any) -> bytes:
        call: Any = self.channel.unary_unary("/acme.desk.v1.Away/Idle")
        metadata = (("contextunity-request-id", request_id), ("contextunity-tenant", _TENANT))
        return bytes(await call(codec.encode(message), metadata=metadata, timeout=40))

    async def watch(self, workflow_id: str) -> dict[str, Any]:
        unit, last = ContextUnit(payload={"workflow_id": workflow_id, "tenant_id": _TENANT}), dict[str, Any]()
        async for each in worker_pb2_grpc.WorkerServiceStub(self.channel).WatchTask(unit.to_protobuf(worker_pb2)):
            last = dict(ContextUnit.from_protobuf(each).payload)
        return last

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    async def seen_by_temporal(self, workflow_id: str) -> int:
        history = await self.client.get_workflow_handle(workflow_id).fetch_history()
        seen = b"".join(event.SerializeToString() for event in history.events)
        assert b"a secret" not in seen
        return len(seen)


@pytest.fixture
async def deployment(
    temporal_server: EmbeddedServer, registry: WorkerRegistry, tmp_path: Path
) -> AsyncIterator[_Deployment]:
    folder = tmp_path / "payloads"
    folder.mkdir()
    settings = Settings(
        host="127.0.0.1",
        port=0,
        http_port=0,
        payload_storage=folder.as_uri(),
        payload_keys_file=write_keys(tmp_path / "keys", "a", a=os.urandom(32)),
    )
    async with AsyncExitStack() as stack:
        client = await connect(settings, address=temporal_server.address)
        modules = registry.select(["away", "desk"])
        await stack.enter_async_context(running_workers(client, modules, settings, tenant=_TENANT))
        service = WorkerService(client, registry)
        server = await stack.enter_async_context(running_server(service, settings, authenticator_for(settings)))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.target, options=_NO_LIMIT))
        yield _Deployment(server, client, folder, registry, channel)


async def test_large_inputs_and_results_pass_every_door(
    deployment: _Deployment, desk_messages: SimpleNamespace
) -> None:
    unit_id = str(uuid.uuid4())
    task = {"workflow_type": "idle", "name": _TEXT, "task_queue": f"away/{_TENANT}"}
    workflow_id = (await deployment.call("StartWorkflow", unit_id, **task))["workflow_id"]
    assert (await deployment.watch(workflow_id))["result"]["text"] == _TEXT
    status = await deployment.call("GetTaskStatus", workflow_id=workflow_id)
    assert (status["status"], status["result"]["text"]) == ("completed", _TEXT)
    assert len(deployment.files) == 2
    written = max(deployment.files, key=lambda path: path.stat().st_mtime_ns)
    request = desk_messages.NamedRequest(name=_TEXT)
    # The same request again joins the task.
    answer = await deployment.typed(unit_id, request)
    assert codec.decode(desk_messages.WorkResponse, answer) == desk_messages.WorkResponse(text=_TEXT)
    assert await deployment.seen_by_temporal(workflow_id) < 20_000
    # Both are in the task's own folder, as ciphertext.
    assert {path.parent.name for path in deployment.files} == {workflow_id.replace("/", "%2F")}
    for path in deployment.files:
        assert Payload.FromString(path.read_bytes()).metadata["encoding"] == b"binary/encrypted"

    decoded = await _shown(deployment, workflow_id)
    assert [json.loads(each.data)[key] for each, key in zip(decoded, ("name", "text"), strict=True)] == [_TEXT] * 2
    # The input stays; the result was lost.
    written.unlink()
    status = await deployment.call("GetTaskStatus", workflow_id=workflow_id)
    assert status["status"] == "completed"
    assert "its result cannot be read here: the payload 'default/" in status["notice"]
    assert "is not in payload_storage: it was deleted before its history" in status["notice"]
    with pytest.raises(grpc.RpcError) as caught:
        await deployment.typed(unit_id, request)
    refusal = refusal_of(caught.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAYLOAD_UNREADABLE")
    shown = await _shown(deployment, workflow_id)
    assert json.loads(shown[0].data)["name"] == _TEXT
    assert "not shown: the payload" in json.loads(shown[1].data)


async def _shown(deployment: _Deployment, workflow_id: str) -> list[Payload]:
    """What the web UI gets for the input and the result of a task."""
    history = await deployment.client.get_workflow_handle(workflow_id).fetch_history()
    first = history.events[0].workflow_execution_started_event_attributes.input
    last = history.events[-1].workflow_execution_completed_event_attributes.result
    sent = [json_format.MessageToDict(each) for each in (*first.payloads, *last.payloads)]
    async with httpx.AsyncClient(base_url=f"http://{deployment.server.http_target}", timeout=30) as http:
        answer = await http.post("/codec/default/decode", json={"payloads": sent})
    return [json_format.ParseDict(each, Payload()) for each in answer.json()["payloads"]]


async def test_signals_queries_and_updates_may_be_large(deployment: _Deployment) -> None:
    started = await deployment.call(
        "StartWorkflow", workflow_type="work", name="a", mode="wait", task_queue=f"desk/{_TENANT}"
    )
    task: dict[str, Any] = {"workflow_id": started["workflow_id"]}
    assert deployment.files == []
    await deployment.call("SignalTask", **task, signal="note", args={"text": _TEXT})
    recalled = await deployment.call("QueryTask", **task, query="recall", args={"index": 0})
    assert recalled["result"]["text"] == _TEXT
    renamed = await deployment.call("UpdateTask", **task, update="rename", args={"name": _TEXT})
    assert renamed["result"]["before"] == "a"
    status = await deployment.call("GetTaskStatus", **task)
    assert status["progress"]["name"] == _TEXT
    await deployment.call("SignalTask", **task, signal="finish", args={})
    assert (await deployment.watch(started["workflow_id"]))["result"]["notes"] == [_TEXT]
    assert await deployment.seen_by_temporal(started["workflow_id"]) < 30_000


async def test_a_storage_that_takes_nothing_rejects_the_start(deployment: _Deployment) -> None:
    deployment.folder.rmdir()
    task: dict[str, Any] = {"workflow_type": "idle", "task_queue": f"away/{_TENANT}"}
    with pytest.raises(Refusal) as caught:
        await deployment.call("StartWorkflow", **task, name=_TEXT)
    refusal = caught.value
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PAYLOAD_STORAGE_UNAVAILABLE")
    assert "cannot be written to payload_storage: no such file or directory" in refusal.message
    assert refusal.retry_after == 2
    # What is small needs no storage.
    assert await deployment.call("StartWorkflow", **task, name="small")


async def test_schedules_stay_in_temporal(deployment: _Deployment, desk_messages: SimpleNamespace) -> None:
    manager = ScheduleManager(deployment.client, deployment.registry)
    entry: dict[str, Any] = {"workflow_type": "idle", "cron": "0 3 * * *", "tenant_id": _TENANT}
    name = "n" * 1024 * 1024
    await manager.create_schedule(
        schedule_id=f"large-{uuid.uuid4()}", **entry, payload=desk_messages.NamedRequest(name=name)
    )
    assert deployment.files == []


async def test_small_starts_do_not_go_through_the_data_converter(
    temporal_server: EmbeddedServer, registry: WorkerRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextunity.worker.service import Call

    client = await connect(Settings(payload_storage=tmp_path.as_uri()), address=temporal_server.address)
    assert client.data_converter.external_storage is not None
    service = WorkerService(client, registry)
    unit = ContextUnit(payload={"workflow_type": "idle", "name": "a" * 200_000, "tenant_id": _TENANT}).to_dataclass()
    with monkeypatch.context() as patched:
        patched.setattr(DataConverter, "encode", lambda *_: pytest.fail("it was encoded by the data converter"))
        answer = await service.call(service.methods["StartWorkflow"], Call(unit=unit))
    assert answer.payload is not None
    started = codec.struct_to_dict(answer.payload)
    handle = client.get_workflow_handle(str(started["workflow_id"]))
    history = await handle.fetch_history()
    assert history.events[0].ByteSize() > 200_000
    await handle.terminate()
    assert folder_storage(tmp_path).payload_size_threshold == 256 * 1024
