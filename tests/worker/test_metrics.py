"""The metrics of processes, as Prometheus reads them over HTTP."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from contextunity.core.tokens import ContextToken, mint
from contextunity.worker.client import SyncWorkerClient, TaskFailedError, WorkerServiceError
from contextunity.worker.errors import PortTakenError, SettingsError
from contextunity.worker.metrics import METRICS, RPC_TOTAL, serve_metrics
from contextunity.worker.settings import Settings, load_settings
from tests.conftest import ROOT, run_python
from tests.promql import used

_SECRET = "a secret of more than thirty-two bytes, for tests"
_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class _Deployment:
    """Everything in one process, which asks for tokens."""

    target: str
    http: str
    metrics: str

    def client(self, tenant: str) -> SyncWorkerClient:
        permissions = ("worker:execute", "worker:read")
        token = ContextToken(token_id="for a test", permissions=permissions, allowed_tenants=(tenant,))
        return SyncWorkerClient(
            self.target, tenant_id=tenant, token=mint(token, kid="acme:hmac-001", secret=_SECRET.encode())
        )

    def post(self, path: str, body: str, token: str = "") -> int:
        headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
        request = urllib.request.Request(f"{self.http}/{path}", body.encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of what has these labels, and possibly others; None where there is nothing."""
        found = [value for each, value in _read(self.metrics) if each[0] == name and labels.items() <= each[1].items()]
        return sum(found) if found else None

    def eventually(self, name: str, wanted: float, **labels: str) -> None:
        """Asks until it is so: a call that is refused is counted a moment after its caller knows."""
        deadline = time.monotonic() + 20
        while (found := self.value(name, **labels)) != wanted:
            assert time.monotonic() < deadline, f"{name} {labels} is {found}, never {wanted}"
            time.sleep(0.05)


def _read(url: str) -> list[tuple[tuple[str, dict[str, str]], float]]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    found = [_LINE.fullmatch(line) for line in text.splitlines() if line and not line.startswith("#")]
    assert all(found), text
    return [((match[1], dict(_LABEL.findall(match[2] or ""))), float(match[3])) for match in found if match is not None]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Deployment]:
    folder = tmp_path_factory.mktemp("metrics")
    (folder / "contextworker.toml").write_text(
        'http_port = 0\n[metric_tenants]\nacme = "gold"\n[modules.harvest]\nsample_products = 200\n'
    )
    process = run_python(
        *(folder, "-m", "contextunity.worker", "dev", "--temporal-port", "0", "--ui-port", "0"),
        WORKER_PORT="0",
        CONTEXTWORKER_METRICS_PORT="0",
        # So each workflow task is a replay, which counts nothing again.
        CONTEXTWORKER_MAX_CACHED_WORKFLOWS="0",
        CONTEXTWORKER_AUTH="token",
        CONTEXTWORKER_TOKEN_SECRET=_SECRET,
    )
    try:
        metrics = process.wait_for("metrics: ").split()[-1]
        target, http = (process.wait_for(text).split()[-1] for text in ("WorkerService ", "HTTP with JSON "))
        yield _Deployment(target, http, metrics)
        process.send(signal.SIGTERM)
        assert process.wait() == 0, process.output
    finally:
        process.end()


def test_work_is_counted_from_the_call_to_the_rows(deployment: _Deployment) -> None:
    gold, ended = {"tenant": "gold"}, "contextworker_workflows_total"
    started = "contextworker_start_to_first_task_seconds_count"
    counted: list[tuple[str, dict[str, str]]] = [
        (RPC_TOTAL.name, {"method": "StartWorkflow", "code": "OK", **gold}),
        (RPC_TOTAL.name, {"method": "ExecuteCode", "code": "OK", **gold}),
        ("contextworker_rpc_seconds_count", {"method": "StartWorkflow", **gold}),
        *((ended, {"workflow_type": each, "status": "completed"}) for each in ("harvest", "execute_code")),
        *((started, {"workflow_type": each, **gold}) for each in ("harvest", "execute_code")),
        ("contextworker_programs_total", {"backend": "monty", "outcome": "ok", **gold}),
    ]
    # The deployment is that of other tests too.
    before = [deployment.value(name, **labels) or 0 for name, labels in counted]
    with deployment.client("acme") as client:
        client.start("harvest", {"supplier_code": "camping-trade"}).result(timeout=60)
        assert client.execute_code("6 * 7").status == "ok"
    for (name, labels), value in zip(counted, before, strict=True):
        deployment.eventually(name, value + 1, **labels)
    assert (deployment.value("contextworker_rpc_request_bytes_sum", method="StartWorkflow", **gold) or 0) > 100
    assert (deployment.value("contextworker_rpc_response_bytes_sum", method="StartWorkflow", **gold) or 0) > 100
    deployment.eventually("contextworker_rpc_in_flight", 0, method="StartWorkflow")
    for workflow_type in ("harvest", "execute_code"):
        total = deployment.value("contextworker_start_to_first_task_seconds_sum", workflow_type=workflow_type)
        assert (total or 0) > 0, workflow_type
    rows = deployment.value("contextworker_feed_rows_total", supplier="camping-trade", **gold)
    rejects = deployment.value("contextworker_feed_rejects_total", supplier="camping-trade", **gold)
    assert rows is not None
    assert rejects is not None
    assert rows > rejects > 0
    assert (deployment.value("contextworker_fetched_bytes_total", activity_type="fetch_products", **gold) or 0) > 10_000
    deployment.eventually("contextworker_programs_running", 0)
    # What the SDK itself counts is at the same place.
    assert (deployment.value("temporal_workflow_completed", workflow_type="harvest") or 0) >= 1


def test_queries_find_what_a_worker_serves(deployment: _Deployment) -> None:
    """Those of the dashboard, the alerts and the documentation that use metrics of Temporal's SDK."""
    dashboard = json.loads((ROOT / "deploy/grafana/contextworker.json").read_text(encoding="utf-8"))
    rules = (ROOT / "deploy/prometheus/contextworker.rules.yaml").read_text(encoding="utf-8")
    page = (ROOT / "docs/how-to/metrics.md").read_text(encoding="utf-8")
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    queries += [json.loads(text) for text in re.findall(r"expr: (\".*\")", rules)]
    queries += re.findall(r"\| `(.+?)` \|$", page, re.MULTILINE)
    wanted = dict[str, set[str]]()
    for query in queries:
        for name, labels in used(query).items():
            if name.startswith("temporal_"):
                wanted.setdefault(name, set()).update(labels - {"job", "instance"})
    assert len(wanted) > 10
    with deployment.client("acme") as client:
        # A workflow whose history is asked for again, one that fails, and a task that Temporal does not know.
        task = client.start("gardener", {})
        task.status()
        with pytest.raises(TaskFailedError):
            client.start("harvest", {"supplier_code": "no-such"}).result(timeout=60)
        client.start("harvest", {"supplier_code": "camping-trade"}).result(timeout=60)
        with pytest.raises(WorkerServiceError):
            client.task("there-is-no-such-task").status()
        task.terminate()
    deadline = time.monotonic() + 20
    while True:
        served = dict[str, set[str]]()
        for (name, labels), _ in _read(deployment.metrics):
            served.setdefault(name, set()).update(labels)
        lacking = {name: labels - served.get(name, {"nothing"}) for name, labels in wanted.items()}
        missing = {name: labels for name, labels in lacking.items() if labels or name not in served}
        if not missing:
            break
        assert time.monotonic() < deadline, missing
        time.sleep(0.05)


def test_refused_calls_are_counted_by_either_door(deployment: _Deployment) -> None:
    before = deployment.value(RPC_TOTAL.name, method="ListTasks", code="UNAUTHENTICATED") or 0
    with SyncWorkerClient(deployment.target, token="no.good.token") as stranger, pytest.raises(WorkerServiceError):
        next(iter(stranger.list_tasks()), None)
    assert deployment.post("contextunity.worker.WorkerService/ListTasks", "{}") == 401
    deployment.eventually(RPC_TOTAL.name, before + 2, method="ListTasks", code="UNAUTHENTICATED", tenant="other")
    method = "contextunity.harvest.v1.HarvestService/Harvest"
    assert deployment.post(method, "{}") == 401
    deployment.eventually(RPC_TOTAL.name, 1, method=method, code="UNAUTHENTICATED")


def test_a_tenant_that_is_not_listed_is_named_nowhere(deployment: _Deployment) -> None:
    with deployment.client("secretive") as client:
        with pytest.raises(WorkerServiceError) as caught:
            client.task("there-is-no-such-task").status()
        assert caught.value.code is grpc.StatusCode.NOT_FOUND
        client.start("harvest", {"supplier_code": "camping-trade"}).result(timeout=60)
    deployment.eventually(RPC_TOTAL.name, 1, method="GetTaskStatus", code="NOT_FOUND", tenant="other")
    with urllib.request.urlopen(deployment.metrics, timeout=20) as answer:
        assert b"secretive" not in answer.read()


def test_a_watch_that_its_caller_ends_is_cancelled(deployment: _Deployment) -> None:
    # A workflow that waits for its signals as long as nobody ends it.
    with deployment.client("acme") as client:
        task = client.start("gardener", {})
        updates = task.watch()
        next(updates)
        assert deployment.value("contextworker_rpc_in_flight", method="WatchTask") == 1
        updates.close()
        deployment.eventually("contextworker_rpc_in_flight", 0, method="WatchTask")
        assert deployment.value(RPC_TOTAL.name, method="WatchTask", code="CANCELLED") == 1
        task.terminate()


_ALONE = """
import sys, urllib.request
from contextunity.worker import metrics
from contextunity.worker.settings import Settings

url = metrics.serve_metrics(Settings(metrics_port=eval(sys.argv[1])))
meter = metrics.call_meter()
metrics.QUOTA_REFUSALS_TOTAL.add(3, quota="starts", method="StartWorkflow", tenant="acme")
print(repr((url, meter is None)))
if url:
    print(urllib.request.urlopen(url).read().decode())
"""


def _alone(port: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, port], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    return done.stdout.splitlines()


def test_by_default_there_is_no_endpoint_and_nothing_is_measured() -> None:
    assert _alone("None") == ["('', True)"]


def test_by_default_metrics_have_no_label_for_tenants() -> None:
    lines = _alone("0")
    assert 'contextworker_quota_refusals_total{method="StartWorkflow",quota="starts"} 3' in lines


def test_a_taken_port_is_an_error_that_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError) as caught:
            serve_metrics(Settings(metrics_port=port))
    text = str(caught.value)
    assert text.startswith(f"cannot listen on 127.0.0.1:{port}: address already in use")
    assert "CONTEXTWORKER_METRICS_PORT" in text


def test_a_host_that_is_none_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(SettingsError, match=r"metrics_host = 'no such host'.*CONTEXTWORKER_METRICS_HOST"):
        serve_metrics(Settings(metrics_host="no such host", metrics_port=0))


def test_the_settings_are_read_from_environment_and_file(tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text('[metric_tenants]\nacme = "gold"\n')
    environ = {"CONTEXTWORKER_METRICS_PORT": "9464", "CONTEXTWORKER_METRICS_HOST": "0.0.0.0"}
    settings = load_settings(environ, tmp_path)
    assert (settings.metrics_host, settings.metrics_port) == ("0.0.0.0", 9464)
    assert settings.metric_tenants == {"acme": "gold"}


def test_metrics_are_named_as_prometheus_wants() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"contextworker_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind.value == "counter")
        assert bool(metric.buckets) == (metric.kind.value == "histogram")


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools/metrics_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
