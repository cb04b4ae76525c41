"""The embedded Temporal server: it starts, keeps its state, ends, and says what is wrong."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import sqlite3
from pathlib import Path

import psutil
import pytest
from temporalio.api.workflowservice.v1 import ListNamespacesRequest
from temporalio.client import Client, WorkflowExecutionStatus

from contextunity.worker import embedded
from contextunity.worker.embedded import embedded_server, usual_or_free_port
from contextunity.worker.errors import PortTakenError, SettingsError, WorkerError


async def test_it_serves_while_the_context_is_open_and_ends_with_it(tmp_path: Path) -> None:
    async with embedded_server(tmp_path, port=0, ui_port=0) as server:
        client = await Client.connect(server.address)
        namespaces = await client.workflow_service.list_namespaces(ListNamespacesRequest())
        assert "default" in [each.namespace_info.name for each in namespaces.namespaces]
        assert server.database.exists()
        assert psutil.pid_exists(server.pid)
    assert not psutil.pid_exists(server.pid)


async def test_what_was_answered_is_still_there_after_the_server_was_killed(tmp_path: Path) -> None:
    async with embedded_server(tmp_path, port=0, ui_port=0) as server:
        client = await Client.connect(server.address)
        await client.start_workflow("of_nobody", id="kept", task_queue="polled-by-nobody")
        os.kill(server.pid, signal.SIGKILL)
    async with embedded_server(tmp_path, port=0, ui_port=0) as server:
        client = await Client.connect(server.address)
        described = await client.get_workflow_handle("kept").describe()
        assert described.status is WorkflowExecutionStatus.RUNNING
    with contextlib.closing(sqlite3.connect(server.database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_port_that_was_lost_to_others_in_between_is_chosen_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        lost = [other.getsockname()[1]]
        free_port = embedded._free_port
        monkeypatch.setattr(embedded, "_free_port", lambda: lost.pop() if lost else free_port())
        async with embedded_server(tmp_path, port=0, ui_port=0) as server:
            assert lost == []
            await Client.connect(server.address)
            assert psutil.pid_exists(server.pid)


@pytest.mark.parametrize("which", ["port", "ui_port"])
async def test_a_port_that_is_taken_is_named_with_the_way_out(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken: int = other.getsockname()[1]
        ports = {"port": 0, "ui_port": 0, which: taken}
        option = "--temporal-port" if which == "port" else "--ui-port"
        with pytest.raises(PortTakenError, match=rf"127\.0\.0\.1:{taken}.*in use.*{option}"):
            async with embedded_server(tmp_path, port=ports["port"], ui_port=ports["ui_port"]):
                pass


def test_the_usual_port_gives_way_to_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken: int = other.getsockname()[1]
        assert usual_or_free_port(taken) != taken
    assert usual_or_free_port(taken) == taken


async def test_two_servers_in_one_folder_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who waited for it would wait for ever.
    monkeypatch.setattr("contextunity.worker.embedded._LOCK_TIMEOUT", float("inf"))
    async with embedded_server(tmp_path, port=0, ui_port=0):
        with pytest.raises(WorkerError, match=r"another ContextWorker runs.*CONTEXTWORKER_DATA_FOLDER"):
            async with embedded_server(tmp_path, port=0, ui_port=0):
                pass
    async with embedded_server(tmp_path, port=0, ui_port=0) as server:
        assert psutil.pid_exists(server.pid)


async def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"cannot write to the data folder .*file/data.*CONTEXTWORKER_DATA_FOLDER"):
        async with embedded_server(tmp_path / "file" / "data", port=0, ui_port=0):
            pass


def test_the_server_knows_each_key_of_its_dynamic_configuration() -> None:
    # It ignores a key that it does not know, so a version that renames one would only be slower, or unfair.
    with Path(embedded._executable()).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
        unknown = [
            key for key in (each.partition("=")[0] for each in embedded._DYNAMIC_CONFIG) if code.find(key.encode()) < 0
        ]
    assert unknown == []
