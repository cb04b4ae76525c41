"""A service with workers for the modules that come with it, for all tests here."""

from __future__ import annotations

import http.server
import signal
import threading
import uuid
from collections.abc import Iterator

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
