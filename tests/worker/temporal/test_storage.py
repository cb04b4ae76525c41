"""Large payloads outside of Temporal: the folder, S3, and what workflows send on a real server."""

from __future__ import annotations

import hashlib
import http.server
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from contextunity.gen.contextunity.harvest.v1 import HarvestResponse
from google.protobuf import json_format
from starlette.applications import Starlette
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RawValue
from temporalio.converter import (
    DataConverter,
    ExternalStorage,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
)
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker

from contextunity.core.errors import ContextUnityError
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.errors import SettingsError
from contextunity.worker.http.payload_codec import codec_routes
from contextunity.worker.settings import Settings, load_settings
from contextunity.worker.temporal.client import connect, payload_storage
from contextunity.worker.temporal.converter import (
    encoding_converter,
    for_workflow,
    without_storage,
)
from contextunity.worker.temporal.encryption import EncryptionCodec
from contextunity.worker.temporal.errors import PayloadStorageError, PayloadTooLargeError, StoredPayloadError
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from contextunity.worker.temporal.storage import folder_storage, open_storage, s3_storage
from tests.worker.temporal.test_encryption import write_keys

_THRESHOLD = 4096
_LARGE = 3 * 1024 * 1024
_READ = StorageDriverRetrieveContext()
_ID = "harvest/acme/camping-trade"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "payloads").mkdir()
    return tmp_path / "payloads"


def _in_folder(folder: Path, threshold: int = _THRESHOLD) -> DataConverter:
    return encoding_converter(None, folder_storage(folder, threshold=threshold))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _payload(size: int) -> Payload:
    """A payload with a size to the byte."""
    payload = Payload(metadata={"encoding": b"binary/plain"}, data=b"x" * size)
    payload.data = payload.data[: size - (payload.ByteSize() - size)]
    assert payload.ByteSize() == size
    return payload


async def _store(storage: ExternalStorage, *payloads: Payload, workflow_id: str | None = _ID) -> list[str]:
    target = StorageDriverWorkflowInfo(namespace="default", id=workflow_id)
    claims = await storage.drivers[0].store(StorageDriverStoreContext(target=target), payloads)
    return [claim.claim_data["path"] for claim in claims]


async def _read(storage: ExternalStorage, path: str) -> Payload:
    (payload,) = await storage.drivers[0].retrieve(_READ, [StorageDriverClaim(claim_data={"path": path})])
    return payload


@pytest.mark.parametrize(
    ("size", "stored"),
    [
        pytest.param(_THRESHOLD - 1, False, id="below"),
        pytest.param(_THRESHOLD, True, id="at"),
        pytest.param(_THRESHOLD + 1, True, id="above"),
    ],
)
async def test_the_threshold_is_the_first_size_that_is_stored(folder: Path, size: int, stored: bool) -> None:
    converter = _in_folder(folder)
    (payload,) = await converter.encode([RawValue(_payload(size))])
    assert bool(_files(folder)) is stored
    assert bool(payload.external_payloads) is stored
    (raw,) = await converter.decode([payload], [RawValue])
    assert raw.payload == _payload(size)


async def test_files_lie_by_namespace_and_workflow_under_their_hash(folder: Path) -> None:
    converter = for_workflow(_in_folder(folder), "shop.prod", _ID, "harvest")
    (payload,) = await converter.encode([b"x" * _LARGE])
    (path,) = _files(folder)
    assert path.parent.relative_to(folder).as_posix() == "shop.prod/harvest%2Facme%2Fcamping-trade"
    assert path.name == hashlib.sha256(path.read_bytes()).hexdigest()
    assert payload.ByteSize() < 1024
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    "workflow_id",
    ["..", ".", "../../etc", "/etc/passwd", "a\0b", "", None, "ü" * 100, "x" * 5000, "..\\..", "con%2F..", "~a"],
)
async def test_ids_never_lead_out_of_the_folder(folder: Path, workflow_id: str | None) -> None:
    storage, payload = folder_storage(folder), _payload(100)
    (path,) = await _store(storage, payload, workflow_id=workflow_id)
    (file,) = _files(folder)
    assert file == folder / path
    assert len(file.relative_to(folder).parts) == 3
    assert await _read(storage, path) == payload


async def test_long_ids_with_the_same_beginning_have_their_own_folders(folder: Path) -> None:
    for end in "ab":
        await _store(folder_storage(folder), _payload(100), workflow_id="x" * 500 + end)
    assert len({path.parent for path in _files(folder)}) == 2


async def test_the_same_payload_is_kept_once_and_its_age_begins_anew(folder: Path) -> None:
    storage = folder_storage(folder)
    await _store(storage, _payload(100), _payload(100))
    (path,) = _files(folder)
    os.utime(path, (1, 1))
    await _store(storage, _payload(100))
    assert path.stat().st_mtime > 1
    # What was damaged is written anew.
    path.write_bytes(b"damaged")
    (stored,) = await _store(storage, _payload(100))
    assert await _read(storage, stored) == _payload(100)
    assert _files(folder) == [path]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(Path.unlink, "is not in payload_storage: it was deleted before its history", id="missing"),
        pytest.param(lambda path: path.write_bytes(b"other"), "has changed since it was stored", id="changed"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), "has changed since", id="cut"),
        pytest.param(lambda path: path.write_bytes(b""), "has changed since", id="empty"),
        pytest.param(
            lambda path: (path.rename(path.with_name("real")), path.symlink_to("real")), "cannot be read", id="link"
        ),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "cannot be read", id="folder"),
    ],
)
async def test_what_is_not_as_it_was_stored_is_not_read(folder: Path, change: Any, says: str) -> None:
    converter = _in_folder(folder)
    (payload,) = await converter.encode([b"x" * _THRESHOLD])
    change(*_files(folder))
    with pytest.raises(StoredPayloadError, match=says):
        await converter.decode([payload])


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "a",
            "a/b",
            "/etc/passwd",
            "../../etc/passwd",
            "a/../" + "0" * 64,
            "./b/" + "0" * 64,
            "a/b/../" + "0" * 64,
        ),
        *("a//" + "0" * 64, "a/b/" + "0" * 63, "a/b/" + "0" * 64 + "\n", "a\0/b/" + "0" * 64, "a/.b/" + "0" * 64),
    ],
)
async def test_references_that_are_no_paths_of_payloads_open_nothing(
    folder: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it opened a file"))
    with pytest.raises(StoredPayloadError, match="is not a path of a payload"):
        await _read(folder_storage(folder), path)


async def test_a_file_that_is_no_payload_is_told(folder: Path) -> None:
    digest = hashlib.sha256(b"\xff").hexdigest()
    (folder / "a/b").mkdir(parents=True)
    (folder / f"a/b/{digest}").write_bytes(b"\xff")
    with pytest.raises(StoredPayloadError, match="is not a payload"):
        await _read(folder_storage(folder), f"a/b/{digest}")


async def test_a_folder_that_takes_nothing_fails_what_is_sent(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("a file")
    with pytest.raises(PayloadStorageError, match=r"cannot be written to payload_storage: not a directory; make room"):
        await _in_folder(folder).encode([b"x" * _THRESHOLD])


async def test_a_write_that_breaks_off_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PayloadStorageError, match="no space left on device"):
        await _in_folder(folder).encode([b"x" * _THRESHOLD])
    assert _files(folder) == []


async def test_storage_holds_ciphertext_only(folder: Path, tmp_path: Path) -> None:
    codec = EncryptionCodec(write_keys(tmp_path / "keys", "a", a=os.urandom(32)))
    converter = encoding_converter(codec, folder_storage(folder, threshold=_THRESHOLD))
    (payload,) = await converter.encode(["a secret of the supplier " * 1000])
    (path,) = _files(folder)
    assert b"secret" not in path.read_bytes()
    assert Payload.FromString(path.read_bytes()).metadata["encoding"] == b"binary/encrypted"
    assert await converter.decode([payload]) == ["a secret of the supplier " * 1000]
    # What grows over the threshold by encryption is stored too.
    (payload,) = await converter.encode([b"x" * (_THRESHOLD - 40)])
    assert payload.external_payloads


async def test_a_process_without_the_storage_says_which_setting_it_lacks(folder: Path) -> None:
    (payload,) = await _in_folder(folder).encode([b"x" * _THRESHOLD])
    with pytest.raises(StoredPayloadError, match="set CONTEXTWORKER_PAYLOAD_STORAGE"):
        await encoding_converter(None).decode([payload])


async def test_limits_are_those_of_what_is_sent(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contextunity.worker.temporal.converter.LARGEST_STORED", 2 * _LARGE)
    codec = EncryptionCodec(write_keys(tmp_path / "keys", "a", a=os.urandom(32)))
    for converter in (_in_folder(folder), encoding_converter(codec, folder_storage(folder, threshold=_THRESHOLD))):
        to_payloads = converter.payload_converter.to_payloads
        to_payloads([HarvestResponse(harvest_id="x" * _LARGE)] * 2)
        with pytest.raises(PayloadTooLargeError, match="the payload storage takes 6,291,456 at most"):
            to_payloads([HarvestResponse(harvest_id="x" * 2 * _LARGE)])
        with pytest.raises(PayloadTooLargeError, match="Temporal takes 2,096,128 at most"):
            to_payloads([HarvestResponse(harvest_id="x" * (_THRESHOLD - 500))] * 600)
        with pytest.raises(PayloadTooLargeError, match="Temporal takes 2,09"):
            without_storage(converter).payload_converter.to_payloads([HarvestResponse(harvest_id="x" * _LARGE)])


async def test_failures_with_large_details_are_stored(folder: Path) -> None:
    converter = _in_folder(folder)
    failure = Failure()
    await converter.encode_failure(ApplicationError("broken", "x" * 50_000), failure)
    assert failure.ByteSize() < 2048
    assert len(_files(folder)) == 1
    error = await converter.decode_failure(failure)
    assert isinstance(error, ApplicationError)
    assert error.details == ("x" * 50_000,)


def test_heartbeat_details_that_are_missing_are_waited_for() -> None:
    failure = Failure()
    error = ApplicationError("Failed decoding heartbeat details", non_retryable=True)
    error.__cause__ = StoredPayloadError("it is not there")
    converter = encoding_converter(None)
    converter.failure_converter.to_failure(error, converter.payload_converter, failure)
    assert failure.cause.message == "it is not there"
    assert not failure.application_failure_info.non_retryable


async def test_the_codec_endpoint_fetches_so_many_bytes_and_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contextunity.worker.http.payload_codec.LARGEST_STORED", 2 * _THRESHOLD)
    converter = _in_folder(folder)
    (payload,) = await converter.encode(["x" * (2 * _THRESHOLD + 1000)])
    client: Any = SimpleNamespace(namespace="default", data_converter=converter)
    request_admission: Any = SimpleNamespace(admit=AsyncMock(), body=lambda request: request.body(), max_values=1000)
    transport = httpx.ASGITransport(app=Starlette(routes=codec_routes(client, request_admission)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        sent = {"payloads": [json_format.MessageToDict(payload)] * 2}
        answer = (await http.post("/codec/default/decode", json=sent)).json()["payloads"]
    first, second = (json.loads(json_format.ParseDict(each, Payload()).data) for each in answer)
    assert first == "x" * (2 * _THRESHOLD + 1000)
    assert "not shown: the stored payloads before it have" in second


def test_without_the_setting_nothing_changes() -> None:
    assert payload_storage(Settings()) is None
    assert encoding_converter(None) is encoding_converter(None, None)
    code = (
        "import sys; from contextunity.worker.temporal import connect; print('temporalio.contrib.aws' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "url",
    [
        *("/srv/payloads", "file:payloads", "file://host/payloads", "ftp://a/b", "s3://", "s3:///a", "S3://bucket"),
        *("s3://key:a-secret@bucket/a", "s3://bucket/a?secret=a-secret", "s3://Bucket", "file:///a?b", "nothing"),
    ],
)
def test_a_setting_that_names_no_storage_is_an_error_that_does_not_show_it(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"CONTEXTWORKER_PAYLOAD_STORAGE": url}, tmp_path)
    assert "CONTEXTWORKER_PAYLOAD_STORAGE" in str(caught.value)
    assert "should be file:///FOLDER" in str(caught.value)
    assert "a-secret" not in str(caught.value)


@pytest.mark.parametrize("threshold", ["1023", "1048577", "0", "-1", "many"])
def test_a_threshold_that_no_payload_may_have_is_an_error(threshold: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CONTEXTWORKER_PAYLOAD_STORAGE_THRESHOLD = "):
        load_settings({"CONTEXTWORKER_PAYLOAD_STORAGE_THRESHOLD": threshold}, tmp_path)


def test_a_folder_has_to_be_there(folder: Path, tmp_path: Path) -> None:
    assert open_storage(folder.as_uri(), _THRESHOLD).payload_size_threshold == _THRESHOLD
    with pytest.raises(SettingsError, match="there is no such folder; create it, or mount it"):
        open_storage((tmp_path / "not mounted").as_uri(), _THRESHOLD)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "sandboxed"))
    return importlib.import_module("limit_steps")


async def _client(server: EmbeddedServer, folder: Path) -> Client:
    return await connect(Settings(payload_storage=folder.as_uri()), address=server.address)


async def test_what_workflows_send_is_stored_and_replays_where_the_folder_is_mounted_elsewhere(
    temporal_server: EmbeddedServer, steps: Any, folder: Path, tmp_path: Path
) -> None:
    client, queue = await _client(temporal_server, folder), f"storage-{uuid.uuid4()}"
    large = HarvestResponse(harvest_id="x" * _LARGE)
    histories = []
    async with Worker(client, task_queue=queue, workflows=steps.WORKFLOWS, activities=steps.ACTIVITIES):
        for way in ("activity", "activity result", "next run", "result", "details"):
            before, workflow_id = len(_files(folder)), f"{way}-{uuid.uuid4()}"
            handle = await client.start_workflow(
                "Sends", way, id=workflow_id, task_queue=queue, result_type=HarvestResponse
            )
            if way == "details":
                with pytest.raises(WorkflowFailureError):
                    await handle.result()
            else:
                assert await handle.result() == large
                assert len(_files(folder)) > before
            history = await handle.fetch_history()
            assert sum(event.ByteSize() for event in history.events) < 50_000
            histories.append(history)
        # An update's answer, and a signal's input.
        handle = await client.start_workflow("Receives", id=f"receives-{uuid.uuid4()}", task_queue=queue)
        assert await handle.execute_update("grow", _LARGE, result_type=HarvestResponse) == large
        asked = await client.get_workflow_handle(histories[0].workflow_id).query(
            "ask", _LARGE, result_type=HarvestResponse
        )
        assert asked == large
        await handle.terminate()
    assert {path.parent.parent.name for path in _files(folder)} == {"default"}
    elsewhere = tmp_path / "elsewhere"
    shutil.move(folder, elsewhere)
    plugin = ContextWorkerPlugin(external_storage=folder_storage(elsewhere))
    for history in histories:
        await Replayer(workflows=steps.WORKFLOWS, plugins=[plugin]).replay_workflow(history)


async def test_a_missing_input_is_waited_for(
    temporal_server: EmbeddedServer, steps: Any, folder: Path, tmp_path: Path
) -> None:
    client, queue = await _client(temporal_server, folder), f"storage-{uuid.uuid4()}"
    handle = await client.start_workflow(
        "Sends", "x" * _LARGE, id=f"missing-{uuid.uuid4()}", task_queue=queue, result_type=HarvestResponse
    )
    (path,) = _files(folder)
    path.rename(tmp_path / "kept")
    async with Worker(client, task_queue=queue, workflows=steps.WORKFLOWS, activities=steps.ACTIVITIES):
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.HasField("workflow_task_failed_event_attributes"):
                message = event.workflow_task_failed_event_attributes.failure.message
                assert "is not in payload_storage: it was deleted" in message
                break
        else:
            pytest.fail("it ended without its input")
        (tmp_path / "kept").rename(path)
        assert await handle.result() == HarvestResponse(harvest_id="x" * _LARGE)


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small S3 server with the bucket `payloads`; its folder."""
    root = tmp_path / "s3"
    (root / "payloads").mkdir(parents=True)
    # Its command line cannot take a free port.
    handler: Any = type("Handler", (importlib.import_module("localbucket").S3Handler,), {"data_root": root})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        yield root / "payloads"
        server.shutdown()
        thread.join()


async def test_s3_keeps_payloads_below_the_prefix(s3: Path) -> None:
    converter = encoding_converter(None, open_storage("s3://payloads/temporal/prod/", _THRESHOLD))
    storing = for_workflow(converter, "default", _ID, "harvest")
    (payload,) = await storing.encode([b"x" * _LARGE])
    (path,) = _files(s3)
    assert path.relative_to(s3).as_posix().startswith("temporal/prod/v0/ns/default/wt/harvest/wi/")
    assert await converter.decode([payload], [bytes]) == [b"x" * _LARGE]
    path.write_bytes(b"other")
    with pytest.raises(StoredPayloadError, match="has changed since it was stored"):
        await converter.decode([payload])
    path.unlink()
    with pytest.raises(StoredPayloadError, match="is not in payload_storage: it was deleted"):
        await converter.decode([payload])
    (driver,) = s3_storage("payloads").drivers
    with pytest.raises(StoredPayloadError, match="is in the bucket 'others', and payload_storage is 'payloads'"):
        await driver.retrieve(_READ, [StorageDriverClaim(claim_data={"bucket": "others", "key": "a"})])


async def test_a_bucket_that_is_not_there_fails_what_is_sent_and_shows_no_credentials(s3: Path) -> None:
    converter = encoding_converter(None, s3_storage("nowhere", threshold=_THRESHOLD))
    with pytest.raises(PayloadStorageError, match="the bucket 'nowhere': NoSuchBucket; check its name") as caught:
        await converter.encode([b"x" * _THRESHOLD])
    error: BaseException | None = caught.value
    while error is not None:
        assert "a secret" not in str(error)
        error = error.__cause__


def test_a_missing_client_of_s3_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SettingsError, match=r"run pip install 'contextworker\[s3\]'"):
        open_storage("s3://bucket", _THRESHOLD)


def test_its_errors_are_ours() -> None:
    for error in (StoredPayloadError, PayloadStorageError):
        assert issubclass(error, ContextUnityError)
        assert not issubclass(error, ApplicationError)
