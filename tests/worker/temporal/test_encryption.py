"""Encrypted payloads: keys, their rotation, and what a Temporal server gets to see."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from contextunity.gen.contextunity.harvest.v1 import HarvestRequest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHandle

from contextunity.core import ContextUnit, codec
from contextunity.worker.embedded import embedded_server
from contextunity.worker.errors import SettingsError
from contextunity.worker.http.payload_codec import codec_routes
from contextunity.worker.modules.discovery import discover
from contextunity.worker.schedules import ScheduleManager
from contextunity.worker.service import Call, WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from contextunity.worker.temporal.converter import encoding_converter
from contextunity.worker.temporal.encryption import EncryptionCodec, read_payload_keys
from contextunity.worker.temporal.errors import PayloadKeyError
from contextunity.worker.temporal.worker import running_workers

_OLD, _NEW = os.urandom(32), os.urandom(32)
_PAYLOAD = Payload(metadata={"encoding": b"binary/plain"}, data=b"supplier")


def write_keys(path: Path, current: str, **keys: bytes) -> Path:
    lines = [f'current = "{current}"', "[keys]"]
    lines += [f'{name} = "{base64.b64encode(key).decode()}"' for name, key in keys.items()]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return path


async def test_it_writes_the_format_of_temporals_samples(tmp_path: Path) -> None:
    (encrypted,) = await EncryptionCodec(write_keys(tmp_path / "keys", "a", a=_OLD)).encode([_PAYLOAD])
    assert dict(encrypted.metadata) == {"encoding": b"binary/encrypted", "encryption-key-id": b"a"}
    plain = AESGCM(_OLD).decrypt(encrypted.data[:12], encrypted.data[12:], None)
    assert Payload.FromString(plain) == _PAYLOAD


async def test_the_same_payload_is_never_the_same_bytes(tmp_path: Path) -> None:
    first, second = await EncryptionCodec(write_keys(tmp_path / "keys", "a", a=_OLD)).encode([_PAYLOAD, _PAYLOAD])
    assert first.data != second.data


async def test_what_is_in_clear_is_read_as_it_is(tmp_path: Path) -> None:
    keys = EncryptionCodec(write_keys(tmp_path / "keys", "a", a=_OLD))
    assert await keys.decode([_PAYLOAD]) == [_PAYLOAD]


async def test_keys_change_without_a_restart(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys", "a", a=_OLD)
    reader, writer = EncryptionCodec(path), EncryptionCodec(path)
    before = await writer.encode([_PAYLOAD])
    write_keys(path, "b", a=_OLD, b=_NEW)
    after = await EncryptionCodec(path).encode([_PAYLOAD])
    assert after[0].metadata["encryption-key-id"] == b"b"
    # A key that is not known yet is looked for at once.
    assert await reader.decode([*before, *after]) == [_PAYLOAD, _PAYLOAD]
    assert (await reader.encode([_PAYLOAD]))[0].metadata["encryption-key-id"] == b"b"


async def test_encryption_can_end(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys", "a", a=_OLD)
    before = await EncryptionCodec(path).encode([_PAYLOAD])
    keys = EncryptionCodec(write_keys(path, "", a=_OLD))
    assert await keys.encode([_PAYLOAD]) == [_PAYLOAD]
    assert await keys.decode(before) == [_PAYLOAD]


async def test_a_wrong_file_is_logged_and_the_keys_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_keys(tmp_path / "keys", "a", a=_OLD)
    keys = EncryptionCodec(path)
    path.write_text("current = ")
    unknown = Payload(metadata={"encoding": b"binary/encrypted", "encryption-key-id": b"z"}, data=b"0" * 40)
    with caplog.at_level(logging.ERROR), pytest.raises(PayloadKeyError, match=r"key 'z'.* has only 'a'; add it there"):
        await keys.decode([unknown])
    assert "the payload keys stay unchanged" in caplog.text
    assert await keys.decode(await keys.encode([_PAYLOAD])) == [_PAYLOAD]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 1]), id="changed"),
        pytest.param(lambda data: data[:20], id="cut"),
        pytest.param(lambda data: b"", id="empty"),
    ],
)
async def test_bytes_that_were_changed_are_rejected(tmp_path: Path, change: Any) -> None:
    keys = EncryptionCodec(write_keys(tmp_path / "keys", "a", a=_OLD))
    (encrypted,) = await keys.encode([_PAYLOAD])
    encrypted.data = change(encrypted.data)
    with pytest.raises(PayloadKeyError, match="cannot be decrypted with the key 'a'"):
        await keys.decode([encrypted])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("current = ", "not a TOML file", id="no TOML"),
        pytest.param('current = "a"', "keys: is missing", id="no keys"),
        pytest.param('current = "a"\n[keys]\na = "c2hvcnQ="', "keys: 'a' is not a key", id="short key"),
        pytest.param('current = "a"\n[keys]\na = "!"', "keys: 'a' is not a key", id="not Base64"),
        pytest.param('current = "a"\n[keys]\na = 7', "keys: 'a' is not a key", id="a number"),
        pytest.param(f'[keys]\na = "{base64.b64encode(_OLD).decode()}"', "one of 'a'; or be empty", id="no current"),
        pytest.param(
            f'current = "b"\n[keys]\na = "{base64.b64encode(_OLD).decode()}"', "one of 'a'; or be empty", id="not there"
        ),
        pytest.param('colour = 1\ncurrent = ""\n[keys]', "colour: there is no such setting", id="unknown setting"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_without_its_keys(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_payload_keys(tmp_path / "keys")
    assert told in str(caught.value)
    assert f"payload_keys_file = '{tmp_path}/keys'" in str(caught.value)
    assert base64.b64encode(_OLD).decode() not in str(caught.value)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"payload_keys_file: .*keys: cannot be read: no such file"):
        EncryptionCodec(tmp_path / "keys")


class Deployment:
    """A Temporal server of its own, since keys are for all workers of a task queue."""

    def __init__(self, stack: AsyncExitStack, address: str, folder: Path) -> None:
        self._stack, self.address, self.folder = stack, address, folder
        self.registry = discover(self.settings(None))

    def settings(self, keys: Path | None) -> Settings:
        modules = {"harvest": {"sample_products": 20}}
        return Settings(data_folder=self.folder / "data", payload_keys_file=keys, modules=modules)

    async def client(self, keys: Path | None) -> Client:
        return await connect(self.settings(keys), address=self.address)

    async def work(self, client: Client, keys: Path | None) -> None:
        modules = self.registry.select(["harvest"])
        await self._stack.enter_async_context(running_workers(client, modules, self.settings(keys)))


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(embedded_server(tmp_path / "temporal", port=0, ui_port=0))
        yield Deployment(stack, server.address, tmp_path)


async def _ask(service: WorkerService, name: str, **payload: Any) -> Any:
    unit = ContextUnit(payload={"tenant_id": "acme", **payload}).to_dataclass()
    answer = await service.call(service.methods[name], Call(unit=unit))
    assert answer.payload is not None
    return codec.struct_to_dict(answer.payload)


async def test_the_server_sees_no_content(deployment: Deployment, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", "a", a=_OLD)
    client = await deployment.client(keys)
    service = WorkerService(client, deployment.registry)
    await deployment.work(client, keys)
    for supplier, status in (("camping-trade", "completed"), ("unheard-of", "failed")):
        started = await _ask(service, "StartWorkflow", workflow_type="harvest", supplier_code=supplier)
        handle = client.get_workflow_handle(started["workflow_id"], run_id=started["run_id"])
        result = handle.result()
        if status == "failed":
            with pytest.raises(Exception, match="Workflow execution failed"):
                await result
        else:
            await result
        told = await _ask(service, "GetTaskStatus", workflow_id=started["workflow_id"])
        assert told["status"] == status
        seen = b"".join([event.SerializeToString() async for event in handle.fetch_history_events()])
        assert b"binary/encrypted" in seen
        # The id of the task holds the code; nothing but ids does.
        assert supplier.encode() not in seen.replace(started["workflow_id"].encode(), b"")
        if status == "failed":
            assert "'unheard-of'" in told["error"]
            assert b"Encoded failure" in seen
        else:
            assert int(told["result"]["counts"]["synced"]) > 20


async def test_what_was_written_in_clear_goes_on(deployment: Deployment, tmp_path: Path) -> None:
    plain = await deployment.client(None)
    entry: dict[str, Any] = {
        "schedule_id": "nightly",
        "workflow_type": "harvest",
        "cron": "0 3 * * *",
        "tenant_id": "acme",
    }
    manager = ScheduleManager(plain, deployment.registry)
    await manager.create_schedule(**entry, payload=HarvestRequest(supplier_code="camping-trade", tenant_id="acme"))
    before = WorkerService(plain, deployment.registry)
    started = await _ask(before, "StartWorkflow", workflow_type="harvest", supplier_code="camping-trade")
    keys = write_keys(tmp_path / "keys", "a", a=_OLD)
    client = await deployment.client(keys)
    service = WorkerService(client, deployment.registry)
    await deployment.work(client, keys)
    with pytest.raises(PayloadKeyError, match=r"encrypted with the key 'a'.* has no keys; set CONTEXTWORKER_PAYLOAD"):
        await plain.get_workflow_handle(started["workflow_id"]).result()
    told = await _ask(service, "GetTaskStatus", workflow_id=started["workflow_id"])
    assert told["status"] == "completed"
    unread = await _ask(before, "GetTaskStatus", workflow_id=started["workflow_id"])
    assert "cannot be read here: the payload is encrypted with the key 'a'" in unread["notice"]
    args = {"supplier_code": "camping-trade"}
    again = {**entry, "args": args}
    again.pop("tenant_id")
    first = await _ask(service, "RegisterSchedules", schedules=[again])
    second = await _ask(service, "RegisterSchedules", schedules=[again])
    assert first["status"] == second["status"] == "ok"
    listed = [each async for each in await client.list_schedules()]
    described = await client.get_schedule_handle(listed[0].id).describe()
    (payload,) = described.raw_description.schedule.action.start_workflow.input.payloads
    assert payload.metadata["encryption-key-id"] == b"a"


async def _attempted(handle: WorkflowHandle[Any, Any]) -> None:
    """Returns once another attempt of a workflow task has failed: there is no event to wait for."""
    before = (await handle.describe()).raw_description.pending_workflow_task.attempt
    while (await handle.describe()).raw_description.pending_workflow_task.attempt <= max(before, 1):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_a_missing_key_loses_nothing(deployment: Deployment, tmp_path: Path) -> None:
    new = write_keys(tmp_path / "new", "b", a=_OLD, b=_NEW)
    client = await deployment.client(new)
    service = WorkerService(client, deployment.registry)
    started = await _ask(service, "StartWorkflow", workflow_type="harvest", supplier_code="camping-trade")
    handle = client.get_workflow_handle(started["workflow_id"])
    # Workers that were not given the key, or none at all, have the task come again instead of failing it.
    async with running_workers(
        await deployment.client(None), deployment.registry.select(["harvest"]), deployment.settings(None)
    ):
        await _attempted(handle)
    late = write_keys(tmp_path / "late", "a", a=_OLD)
    await deployment.work(await deployment.client(late), late)
    await _attempted(handle)
    write_keys(late, "a", a=_OLD, b=_NEW)
    await handle.result()
    assert (await _ask(service, "GetTaskStatus", workflow_id=started["workflow_id"]))["status"] == "completed"


async def test_the_codec_endpoint_decrypts_and_names_a_missing_key(tmp_path: Path) -> None:
    keys = EncryptionCodec(write_keys(tmp_path / "keys", "a", a=_OLD))
    client: Any = SimpleNamespace(namespace="default", data_converter=encoding_converter(keys))
    request_admission: Any = SimpleNamespace(
        admit=AsyncMock(),
        body=lambda request: request.body(),
        max_values=1000,
        refusal=lambda error: JSONResponse({"message": error.message}, status_code=400),
    )
    transport = httpx.ASGITransport(app=Starlette(routes=codec_routes(client, request_admission)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        sent = [json_format.MessageToDict(each) for each in await keys.encode([_PAYLOAD])]
        shown = await http.post("/codec/default/decode", json={"payloads": sent})
        assert shown.json() == {"payloads": [json_format.MessageToDict(_PAYLOAD)]}
        other = EncryptionCodec(write_keys(tmp_path / "other", "b", b=_NEW))
        sent = [json_format.MessageToDict(each) for each in await other.encode([_PAYLOAD])]
        rejected = await http.post("/codec/default/decode", json={"payloads": sent})
    assert rejected.status_code == 400
    assert "encrypted with the key 'b'; payload_keys_file has only 'a'" in rejected.json()["message"]
