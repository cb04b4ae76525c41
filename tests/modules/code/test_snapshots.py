"""States of stopped programs: what is not as a worker with the same keys made it is never loaded."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.code.v1 import ExecuteRequest, ExecutionStatus, Limits, ProgramState, code_temporal
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError

from contextunity.modules.code.errors import SnapshotUntrustedError
from contextunity.modules.code.plugin import module
from contextunity.modules.code.resources import current
from contextunity.modules.code.snapshots import SnapshotKeys, open_snapshot_keys
from contextunity.worker.errors import SettingsError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.worker import running_workers

from .test_tools import _section, _until, _value, journal

__all__ = ["journal"]

_STATE = ProgramState(
    snapshot=b"dump", backend="monty", limits=Limits(memory_bytes=1), tools=["ask"], tenant_id="acme", stdout="one\n"
)


def _file(path: Path, current: str, **keys: bytes) -> Path:
    lines = [f'{name} = "{base64.b64encode(key).decode()}"' for name, key in keys.items()]
    path.write_text("\n".join([f'current = "{current}"', "[keys]", *lines]))
    return path


def _keys(tmp_path: Path, current: str = "a", **keys: bytes) -> SnapshotKeys:
    return open_snapshot_keys(_file(tmp_path / "keys.toml", current, **(keys or {"a": b"a" * 32})), tmp_path)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    keys = _keys(tmp_path)
    sealed = keys.seal("w", _STATE)
    assert sealed.snapshot != _STATE.snapshot
    assert keys.open("w", sealed) == _STATE


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: {"snapshot": s.snapshot[:-1] + b"?"}, id="the last byte"),
        pytest.param(lambda s: {"snapshot": s.snapshot + b"?"}, id="a byte more"),
        pytest.param(lambda s: {"snapshot": s.snapshot[:-1]}, id="a byte less"),
        pytest.param(lambda s: {"snapshot": s.snapshot[:6] + bytes(32) + s.snapshot[38:]}, id="a MAC of zeros"),
        pytest.param(lambda s: {"tenant_id": "globex"}, id="tenant"),
        pytest.param(lambda s: {"tools": ["ask", "http_get"]}, id="tools"),
        pytest.param(lambda s: {"limits": Limits(memory_bytes=2)}, id="limits"),
        pytest.param(lambda s: {"backend": "cpython"}, id="backend"),
        pytest.param(lambda s: {"stdout": "two\n"}, id="output"),
        pytest.param(lambda s: {"duration_ms": -1}, id="time used"),
    ],
)
def test_a_changed_state_is_not_opened(tmp_path: Path, change: Callable[[ProgramState], dict[str, Any]]) -> None:
    keys = _keys(tmp_path)
    sealed = keys.seal("w", _STATE)
    with pytest.raises(SnapshotUntrustedError, match="was changed after a worker made it"):
        keys.open("w", dataclasses.replace(sealed, **change(sealed)))


@pytest.mark.parametrize(
    "snapshot",
    [b"", b"dump", b"cws1", b"cws1\x01", b"cws1\x01a", b"cws1\x01a" + bytes(31), b"cws1\xff" + bytes(200)],
)
def test_a_state_without_a_mac_is_not_opened(tmp_path: Path, snapshot: bytes) -> None:
    with pytest.raises(SnapshotUntrustedError, match="has no MAC"):
        _keys(tmp_path).open("w", dataclasses.replace(_STATE, snapshot=snapshot))


def test_a_state_of_another_workflow_is_not_opened(tmp_path: Path) -> None:
    keys = _keys(tmp_path)
    with pytest.raises(SnapshotUntrustedError, match="was changed"):
        keys.open("v", keys.seal("w", _STATE))


def test_keys_are_rotated_by_id(tmp_path: Path) -> None:
    old, new = b"a" * 32, b"b" * 32
    sealed = _keys(tmp_path, a=old).seal("w", _STATE)
    # First all workers learn the new key, then they seal with it, then the old one goes.
    assert _keys(tmp_path, "a", a=old, b=new).open("w", sealed) == _STATE
    rotated = _keys(tmp_path, "b", a=old, b=new)
    assert rotated.open("w", sealed) == _STATE
    assert _keys(tmp_path, "b", b=new).open("w", rotated.seal("w", _STATE)) == _STATE
    with pytest.raises(SnapshotUntrustedError, match=r"sealed with the key 'a', and .*keys.toml has only 'b'"):
        _keys(tmp_path, "b", b=new).open("w", sealed)
    with pytest.raises(SnapshotUntrustedError, match="has another key of the id 'a'"):
        _keys(tmp_path, "a", a=new).open("w", sealed)


def test_a_key_is_made_once_for_a_data_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), ThreadPoolExecutor(8) as threads:
        several = list(threads.map(lambda _: open_snapshot_keys(None, tmp_path), range(8)))
    sealed = several[0].seal("w", _STATE)
    assert all(keys.open("w", sealed) == _STATE for keys in several)
    (made,) = (tmp_path / "code").iterdir()
    assert made.stat().st_mode & 0o777 == 0o600
    assert caplog.messages[0].startswith(f"states of programs are sealed with the key in {made}; ")
    with pytest.raises(SnapshotUntrustedError, match="sealed with the key 'made-"):
        open_snapshot_keys(None, tmp_path / "other").open("w", sealed)


def test_a_file_without_a_current_key_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"snapshot_key_file = .*current: should name the key that seals"):
        _keys(tmp_path, "", a=b"a" * 32)
    with pytest.raises(SettingsError, match=r"snapshot_key_file: .*no such file"):
        open_snapshot_keys(tmp_path / "nowhere", tmp_path)


@contextlib.asynccontextmanager
async def _working(temporal: Client, folder: Path, key_file: Path | None, **section: Any) -> AsyncIterator[Any]:
    registry = WorkerRegistry(module_settings={"code": section})
    registry.register(dataclasses.replace(module, passthrough_modules=["contextunity.modules.code"]))
    settings = Settings(data_folder=folder, snapshot_key_file=key_file, shutdown_grace=0)
    async with running_workers(temporal, registry.select(None), settings):
        yield code_temporal.CodeServiceClient(temporal)


_HELD = "result = [count(1, then='hold'), count(2)]"


@pytest.mark.parametrize("shared", [False, True], ids=["keys of their own", "one file"])
async def test_a_program_goes_on_in_another_data_folder_with_the_same_keys_alone(
    temporal: Client, journal: Any, tmp_path: Path, shared: bool
) -> None:
    keys = _file(tmp_path / "keys.toml", "a", a=os.urandom(32)) if shared else None
    section = _section(tmp_path)
    async with _working(temporal, tmp_path / "one", keys, **section) as client:
        handle = await client.start_execute(ExecuteRequest(code=_HELD, tools=["count"]))
        await _until(_reached(journal, "begin", 1))
    journal.gate.touch()
    async with _working(temporal, tmp_path / "two", keys, **section):
        if shared:
            assert [each["argument"] for each in _value(await handle.result())] == [1, 2]
            return
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
    assert isinstance(failed.value.cause, ActivityError)
    assert isinstance(failed.value.cause.cause, ApplicationError)
    assert failed.value.cause.cause.type == "SnapshotUntrusted"
    assert "CONTEXTWORKER_SNAPSHOT_KEY_FILE" in failed.value.cause.cause.message
    assert journal.count("begin", 2) == 0


def _reached(journal: Any, event: str, argument: int) -> Any:
    async def reached() -> bool:
        return bool(journal.count(event, argument))

    return reached


@contextlib.asynccontextmanager
async def _upgraded(
    temporal: Client, journal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> AsyncIterator[Any]:
    """Runs a program whose interpreter gets another version while its first call is held."""
    # As often as the contract says, but sooner.
    monkeypatch.setattr(code_temporal.run_program.contract.retry_policy, "initial_interval", timedelta(seconds=0.01))
    async with _working(temporal, tmp_path / "data", None, **_section(tmp_path)) as client:
        handle = await client.start_execute(ExecuteRequest(code=code, tools=["count"]))
        await _until(_reached(journal, "begin", 1))
        monkeypatch.setattr(current().backends.named("monty"), "_version", "99.0")
        journal.gate.touch()
        yield handle


async def test_a_program_of_a_version_that_is_gone_is_repeated_without_its_calls(
    temporal: Client, journal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "print('begun')\n" + _HELD
    async with _upgraded(temporal, journal, tmp_path, monkeypatch, code) as handle:
        response = await handle.result()
        history = await handle.raw.fetch_history()
    assert response.status is ExecutionStatus.OK, response
    assert [each["argument"] for each in _value(response)] == [1, 2]
    assert response.stdout == "begun\n"
    assert [(call.name, call.ok) for call in response.tool_calls] == [("count", True), ("count", True)]
    assert "it was repeated with the tools' answers" in response.notice
    assert {argument: journal.count("begin", argument) for argument in (1, 2)} == {1: 1, 2: 1}
    assert len({entry[2] for entry in journal.read()}) == 2
    begun = [each for each in history.events if each.HasField("activity_task_started_event_attributes")]
    assert max(each.activity_task_started_event_attributes.attempt for each in begun) == 5


async def test_a_program_that_takes_another_way_when_it_is_repeated_is_retired(
    temporal: Client, journal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import datetime\ncount(str(datetime.datetime.now()), then='hold')"
    # The argument is another one each time.
    monkeypatch.setattr(journal, "count", lambda event, _: sum(entry[0] == event for entry in journal.read()))
    async with _upgraded(temporal, journal, tmp_path, monkeypatch, code) as handle:
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type == "SnapshotRetired"
    assert "its call 1, of count, was another one than before" in failed.value.cause.message
    assert len(journal.read()) == 2
