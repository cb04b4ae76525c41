"""Callers in other languages: built and run as their pages say, against a service that asks for tokens."""

from __future__ import annotations

import functools
import http.server
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contextunity.core.tokens import ContextToken, mint
from contextunity.worker.embedded import usual_or_free_port

from ..conftest import run_python
from .pages import ROOT, blocks, page, section

pytestmark = [pytest.mark.polyglot, pytest.mark.timeout(1500)]

_SECRET = "a secret of more than thirty-two bytes, for tests"
_BUILD_SECONDS, _RUN_SECONDS = 1200, 180


@dataclass(frozen=True, kw_only=True)
class Service:
    """What callers reach, the token that they show, and the port of pages that may call from a browser."""

    target: str
    http_target: str
    token: str
    page_port: int


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    port, http_port, page_port = (usual_or_free_port(0) for _ in range(3))
    process = run_python(
        tmp_path_factory.mktemp("service"),
        *("-m", "contextunity.worker", "dev", "--temporal-port", "0", "--ui-port", "0"),
        WORKER_PORT=str(port),
        WORKER_HTTP_PORT=str(http_port),
        WORKER_HTTP_ORIGINS=f"http://127.0.0.1:{page_port}",
        CONTEXTWORKER_AUTH="token",
        CONTEXTWORKER_TOKEN_SECRET=_SECRET,
    )
    try:
        process.wait_for("ContextWorker runs")
        token = ContextToken(
            token_id="callers", permissions=("worker:execute", "worker:read"), allowed_tenants=("my_project",)
        )
        shown = mint(token, kid="my_project:hmac-001", secret=_SECRET.encode())
        yield Service(
            target=f"127.0.0.1:{port}", http_target=f"127.0.0.1:{http_port}", token=shown, page_port=page_port
        )
        process.send(signal.SIGINT)
        assert process.wait() == 0, process.output
    finally:
        process.end()


def _plain(output: str) -> str:
    """What was printed without its colours, which Maven has even where nobody sees them."""
    return re.sub(r"\x1b\[[0-9;]*m", "", output)


def _need(command: str, version: str, *arguments: str) -> None:
    """Skips the test where a program is missing, or older than its client needs."""
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed; this client needs {version} or newer")
    told = subprocess.run([command, *arguments], capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"\d+(\.\d+)*", _plain(told.stdout + told.stderr))
    assert found is not None, f"{command} does not tell its version: {told}"
    if [int(part) for part in found[0].split(".")] < [int(part) for part in version.split(".")]:
        pytest.skip(f"{command} is {found[0]}; this client needs {version} or newer")


def _sh(script: str, folder: Path, seconds: float, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONTEXTWORKER_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # Compilers of the version at hand, and none that they would download instead.
    environment = {**inherited, "PATH": path, "GOTOOLCHAIN": "local", **variables}
    command = ["sh", "-euc", script]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=seconds
    )


def _build(language: str) -> Path:
    """Builds a client as its page says; twice where the first try fails, since registries may be slow to answer."""
    folder = ROOT / "clients" / language
    [script] = blocks(section(language, "Generate and build"), "sh")
    done = _sh(script, folder, _BUILD_SECONDS)
    if done.returncode:
        done = _sh(script, folder, _BUILD_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _run(language: str, folder: Path, service: Service, token: str) -> subprocess.CompletedProcess[str]:
    [script] = blocks(section(language, "Run"), "sh")[:1]
    assert "localhost:50052" in script
    script = script.replace("localhost:50052", service.target)
    return _sh(script, folder, _RUN_SECONDS, **({"CONTEXTWORKER_TOKEN": token} if token else {}))


def _shape(output: str) -> list[str]:
    """What was printed without what differs from run to run: how often a watch tells that the task runs."""
    return [line for line in _plain(output).splitlines() if line and "RUNNING" not in line]


def _check(language: str, folder: Path, service: Service) -> None:
    done = _run(language, folder, service, service.token)
    assert done.returncode == 0, done.stdout + done.stderr
    [published] = blocks(section(language, "Run"), "text")
    assert _shape(done.stdout) == _shape(published)
    stranger = _run(language, folder, service, "")
    assert stranger.returncode != 0
    assert re.search("unauthenticated", stranger.stdout + stranger.stderr, re.IGNORECASE), stranger


def test_go(service: Service) -> None:
    _need("go", "1.26", "version")
    _check("go", _build("go"), service)


@pytest.fixture(scope="module")
def typescript() -> Path:
    """The folder of the client, built."""
    _need("node", "20", "--version")
    _need("npm", "9", "--version")
    return _build("typescript")


def test_typescript_in_node(service: Service, typescript: Path) -> None:
    _check("typescript", typescript, service)
    lock = (ROOT / "clients/typescript/package-lock.json").read_text(encoding="utf-8")
    assert "resolved" not in lock


def test_typescript_for_browsers(service: Service, typescript: Path) -> None:
    """The bundle does in Node, by the fetch that both have, what it does in a page."""
    program = """
        import { harvest } from "./dist/browser.js";
        await harvest(process.env.URL, process.env.CONTEXTWORKER_TOKEN, console.log);
    """
    done = _sh(
        'node --input-type=module --eval "$PROGRAM"',
        typescript,
        _RUN_SECONDS,
        PROGRAM=program,
        URL=f"http://{service.http_target}",
        CONTEXTWORKER_TOKEN=service.token,
    )
    assert done.returncode == 0, done.stderr
    [published] = blocks(section("typescript", "Run"), "text")
    assert _shape(done.stdout) == _shape(published)
    assert 'from "node:' not in (typescript / "dist/browser.js").read_text(encoding="utf-8")


_PAGE = """\
<!doctype html>
<script type="module">
  import { harvest } from "./browser.js";
  const lines = [];
  const say = (line) => lines.push(line);
  await harvest("http://TARGET", "TOKEN", say).catch((error) => say(String(error)));
  await fetch("/said", { method: "POST", body: lines.join("\\n") });
</script>
"""


class _Site(http.server.SimpleHTTPRequestHandler):
    """Serves the page, and hears what it says in the end."""

    said: queue.Queue[str]

    def do_POST(self) -> None:
        self.said.put(self.rfile.read(int(self.headers["content-length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_typescript_in_a_browser(service: Service, typescript: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed, in which the page would be opened")
    shutil.copy(typescript / "dist/browser.js", tmp_path)
    page_text = _PAGE.replace("TARGET", service.http_target).replace("TOKEN", service.token)
    (tmp_path / "index.html").write_text(page_text, encoding="utf-8")
    site = type("Site", (_Site,), {"said": queue.Queue()})
    handler = functools.partial(site, directory=str(tmp_path))
    url = f"http://127.0.0.1:{service.page_port}/index.html"
    # Its sandbox wants what containers do not have.
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", service.page_port), handler) as server,
        # A group of its own, so that all of the browser's processes end with it.
        subprocess.Popen(
            [chromium, *flags, "--remote-debugging-port=0", url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as browser,
    ):
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            said = site.said.get(timeout=_RUN_SECONDS)
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            server.shutdown()
            serving.join()
    [published] = blocks(section("typescript", "Run"), "text")
    assert _shape(said) == _shape(published)


def test_java(service: Service) -> None:
    _need("javac", "17", "-version")
    _need("mvn", "3.8", "--version")
    _check("java", _build("java"), service)


def test_rust(service: Service) -> None:
    _need("cargo", "1.88", "--version")
    _check("rust", _build("rust"), service)


def test_python(service: Service) -> None:
    _check("python", _build("python"), service)


_SHOW_A_TOKEN = """
curl() { command curl --silent --show-error --fail-with-body ${token:+--header "$token"} "$@"; }
buf() { command=$1; shift; command buf "$command" ${token:+--header "$token"} "$@"; }
contextworker protos protos >/dev/null
"""


def test_the_commands_of_the_page_about_curl(service: Service, tmp_path: Path) -> None:
    _need("curl", "7.76", "--version")
    found = [block for block in blocks(page("curl"), "sh") if block.startswith(("curl ", "buf "))]
    assert len(found) == 5
    for block in found:
        script = block.replace("localhost:50080", service.http_target).replace("/default/", "/my_project/")
        # Where the page shows none, the service that is called here wants one all the same.
        shown = "" if "authorization" in block else f"authorization: Bearer {service.token}"
        done = _sh(_SHOW_A_TOKEN + script, tmp_path, _RUN_SECONDS, CONTEXTWORKER_TOKEN=service.token, token=shown)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert re.search(r'"(harvestId|stage|status)": ?"', done.stdout), f"{block}\n{done.stdout}"


def test_the_script_for_curl(service: Service) -> None:
    _need("curl", "7", "--version")
    [script] = blocks(section("curl", "Run"), "sh")[:1]
    assert "localhost:50080" in script
    script = script.replace("localhost:50080", service.http_target)
    done = _sh(script, ROOT / "clients/curl", _RUN_SECONDS, CONTEXTWORKER_TOKEN=service.token)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    detached, harvested, refused, started, again, status = answers
    assert detached == {}
    assert int(harvested["counts"]["synced"]) > 0
    ids = re.findall(r"(?im)^contextunity-run-id: (\S+)", done.stdout)
    assert len(ids) == 2
    assert ids[0] == ids[1]
    assert refused["code"] == "invalid_argument"
    assert "google.rpc.BadRequest" in [detail["type"] for detail in refused["details"]]
    assert started["payload"]["workflow_id"] == "harvest/my_project/camping-trade"
    assert started["payload"]["run_id"] == again["payload"]["run_id"] == status["payload"]["run_id"]
    assert status["payload"]["status"] in ("running", "completed")
    stranger = _sh(script, ROOT / "clients/curl", _RUN_SECONDS)
    assert '"code": "unauthenticated"' in stranger.stdout
