"""A service with workers for the modules that come with it, for all tests here."""

from __future__ import annotations

import http.server
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import run_python


class Site(http.server.ThreadingHTTPServer):
    """A web server on a loopback port that programs may fetch from; it keeps the paths that were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.asked: list[str] = []

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Site)
        self.server.asked.append(self.path)
        body = f"hello from {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Writes nothing."""


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, name="site")
        thread.start()
        yield site
        site.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def service_target(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a service with workers for `code` and `harvest` listens; the bundled feed has 200 products.

    It is a process with a Temporal server of its own: its workers would take the work of other tests' workers, and the
    processes of its sandboxes be taken for theirs.
    """
    folder = tmp_path_factory.mktemp("service")
    (folder / "contextworker.toml").write_text(
        f"""\
[modules.harvest]
sample_products = 200

[modules.code]
parallel = 4

[modules.code.tools.http_get]
allow = ["{site.origin}"]
"""
    )
    # Ports that are free: each process that runs tests starts one of these, at the same moment.
    process = run_python(
        folder,
        *("-m", "contextunity.worker", "dev", "--temporal-port", "0", "--ui-port", "0"),
        WORKER_PORT="0",
        WORKER_HTTP_PORT="0",
    )
    try:
        yield process.wait_for("WorkerService ").split()[-1]
        process.send(signal.SIGTERM)
        assert process.wait() == 0, process.output
    finally:
        process.end()


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own, so that its tasks are alone."""
    return f"tenant-{uuid.uuid4().hex[:12]}"


class RedisServer:
    """A server of our own on loopback, with nothing on disk."""

    def __init__(self, program: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, "redis-server does not start"
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    program = shutil.which("redis-server") or shutil.which("redis-server", path="/usr/bin")
    if program is None:
        pytest.skip("this machine has no redis-server; apt-get install redis-server")
    server = RedisServer(program, tmp_path)
    server.start()
    yield server
    server.stop()
