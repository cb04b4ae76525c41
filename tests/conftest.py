"""Fixtures for all tests: a real Temporal server, and processes of ours that are started and surely ended."""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import betterproto2
import hypothesis
import pytest
from contextunity.gen.google import protobuf
from xdist.scheduler import LoadScopeScheduling

from contextunity.worker.embedded import EmbeddedServer, embedded_server

# How long examples take says how busy the machine is.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parents[1]
_LINE_TIMEOUT = 60.0


# Files whose module's fixture takes seconds: one process runs all tests of such a file, or each would make one.
# Marks for groups of pytest-xdist change node ids, which pytest 9.2 does not let them.
_TOGETHER = {
    "tests/tools/test_wheel.py": "wheel",
    "tests/python_temporal/test_other_repository.py": "wheel",
    "tests/python_temporal/test_types.py": "types",
    "tests/python_temporal/test_live.py": "live",
    "tests/worker/modules/test_outside_module.py": "outside module",
    "tests/worker/service/test_call_path.py": "call path",
}


class _Scheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return _TOGETHER.get(nodeid.partition("::")[0], nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Sends tests one by one to whichever process is free, and those of some files to one process."""
    return _Scheduling(config, log)


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A development server on free ports, one for each process that runs tests."""
    folder = tmp_path_factory.mktemp("temporal")
    started: queue.Queue[EmbeddedServer | BaseException] = queue.Queue()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        try:
            async with embedded_server(folder, port=0, ui_port=0) as server:
                started.put(server)
                await stop.wait()
        except BaseException as error:
            started.put(error)
            raise

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="temporal-server")
    thread.start()
    server = started.get(timeout=90)
    if isinstance(server, BaseException):
        raise server
    yield server
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our wheel, built of the files that git knows and of nothing else that lies about.

    Building compiles the codec, so tests that use it belong to the group `wheel`, which one process runs.
    """
    clean, out = tmp_path_factory.mktemp("clean"), tmp_path_factory.mktemp("built")
    unpacked = tmp_path_factory.mktemp("unpacked") / "wheel"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clean / name)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(build, cwd=clean, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    shutil.unpack_archive(built, unpacked, "zip")
    return unpacked


class Process:
    """A process of ours; its output is read as it comes."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._arrived:
                self.lines.append(line)
                self._arrived.notify_all()
        with self._arrived:
            self.lines.append("")
            self._arrived.notify_all()

    def wait_for(self, text: str) -> str:
        """The first line with the text in it; an error where the output ends, or a minute passes, without one."""
        seen = 0
        with self._arrived:
            while True:
                for line in self.lines[seen:]:
                    if text in line:
                        return line
                    assert line, f"{text!r} never came:\n{self.output}"
                seen = len(self.lines)
                assert self._arrived.wait(_LINE_TIMEOUT), f"{text!r} did not come in time:\n{self.output}"

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = 60.0) -> int:
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def run_python(folder: Path, *arguments: str, **variables: str) -> Process:
    """Runs `python ARGUMENTS` in a folder with variables added to a clean environment; whoever asks for it ends it."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CONTEXTWORKER_", "WORKER_", "TEMPORAL_"))
    }
    # Nothing is in front of the services of tests that would have to notice that they stop.
    quick = {"CONTEXTWORKER_SHUTDOWN_DELAY": "0"}
    environment = {**inherited, "PYTHONUNBUFFERED": "1", "COLUMNS": "120", **quick, **variables}
    return Process([sys.executable, *arguments], environment, folder)


Spawn = Callable[..., Process]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Starts `python ARGUMENTS` in `tmp_path` with variables added to a clean environment; ended after the test."""
    processes: list[Process] = []

    def start(*arguments: str, **variables: str) -> Process:
        processes.append(run_python(tmp_path, *arguments, **variables))
        return processes[-1]

    yield start
    for process in processes:
        process.end()


_CODEC_OF_BETTERPROTO2 = (
    *("FromString", "SerializeToString", "__bytes__", "dump", "load", "parse"),
    *("from_dict", "from_json", "to_dict", "to_json"),
    *("from_wrapped", "to_wrapped", "pack", "unpack"),
)


@pytest.fixture
def forbid_betterproto_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every use of betterproto2's own codec an error, in this process and until the end of the test."""

    def refuse(name: str) -> Callable[..., object]:
        def refused(*arguments: object, **options: object) -> object:
            raise AssertionError(f"betterproto2's own codec is used: {name}")

        return refused

    generated = [cls for cls in vars(protobuf).values() if isinstance(cls, type)]
    for cls in (betterproto2.Message, *(cls for cls in generated if issubclass(cls, betterproto2.Message))):
        for name in _CODEC_OF_BETTERPROTO2:
            if name in vars(cls):
                monkeypatch.setattr(cls, name, refuse(f"{cls.__name__}.{name}"))
