"""Traces as a collector of OpenTelemetry receives them, and the log of the same process, in JSON."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.worker.client import SyncWorkerClient
from contextunity.worker.errors import SettingsError
from contextunity.worker.tracing import start_tracing
from tests.conftest import ROOT, run_python

_TIMEOUT = 30.0
_SERVICE = "contextunity.worker.WorkerService"


@dataclass(frozen=True)
class Span:
    """A span as it was exported."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    is_error: bool
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    resource: dict[str, Any]


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@dataclass
class Collector:
    """What OTLP over HTTP is sent to."""

    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)
    url: str = ""

    def receive(self, body: bytes, headers: dict[str, str]) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        found = [
            Span(
                trace=each.trace_id.hex(),
                id=each.span_id.hex(),
                parent=each.parent_span_id.hex(),
                name=each.name,
                kind=each.kind,
                is_error=each.status.code == 2,
                attributes=_values(each.attributes),
                events=[{"name": event.name, **_values(event.attributes)} for event in each.events],
                resource=_values(some.resource.attributes),
            )
            for some in request.resource_spans
            for scope in some.scope_spans
            for each in scope.spans
        ]
        with self.arrived:
            self.spans += found
            self.bodies.append(body)
            self.headers.append(headers)
            self.arrived.notify_all()

    def trace(self, trace_id: str, *names: str) -> dict[str, Span]:
        """The spans of a trace by name, when all of these have come; the last one of a name."""
        trace = trace_id.replace("-", "")

        def found() -> dict[str, Span]:
            return {each.name: each for each in self.spans if each.trace == trace}

        with self.arrived:
            came = self.arrived.wait_for(lambda: set(names) <= found().keys(), _TIMEOUT)
            assert came, f"of {sorted(names)} only {sorted(found())} came"
            return found()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            collector.receive(body, {key.lower(): value for key, value in self.headers.items()})
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: object) -> None:
            """Writes nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, name="collector")
        thread.start()
        yield collector
        server.shutdown()
        thread.join()


class _Traced:
    """Everything in one process, with traces on and its log in JSON."""

    def __init__(self, lines: list[str], target: str, http: str) -> None:
        self._lines, self.target, self.http = lines, target, http

    def client(self) -> SyncWorkerClient:
        return SyncWorkerClient(self.target, tenant_id="acme")

    def log(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first line like this; every line is parsed on the way."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            for line in filter(None, [*self._lines]):
                if wanted(parsed := json.loads(line)):
                    return dict(parsed)
            assert time.monotonic() < deadline, "".join(self._lines)
            time.sleep(0.05)


@pytest.fixture(scope="module")
def traced(
    collector: Collector, desk_messages: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Traced]:
    folder = tmp_path_factory.mktemp("traces")
    (folder / "contextworker.toml").write_text("http_port = 0\n[modules.harvest]\nsample_products = 40\n")
    modules = Path(sys.modules["desk_module"].__file__ or "").parent
    process = run_python(
        *(folder, "-m", "contextunity.worker", "dev", "--temporal-port", "0", "--ui-port", "0"),
        PYTHONPATH=str(modules),
        WORKER_MODULES="desk_module:module,desk_module:sealed",
        WORKER_PORT="0",
        CONTEXTWORKER_LOG_FORMAT="json",
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="x-key=for a test",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        OTEL_BSP_SCHEDULE_DELAY="50",
    )
    try:
        words = json.loads(process.wait_for("WorkerService "))["message"].split()
        target = words[words.index("WorkerService") + 1]
        http = next(word for word in words if word.startswith("http://") and "JSON" in words[words.index(word) - 1])
        yield _Traced(process.lines, target, http)
        process.send(signal.SIGTERM)
        assert process.wait() == 0, process.output
    finally:
        process.end()
    for line in filter(None, process.lines):
        assert {"time", "level", "logger", "message"} <= json.loads(line).keys()


def _parent() -> tuple[str, str, dict[str, str]]:
    """A caller's trace and span, and the header that says so."""
    trace, span = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    return trace, span, {"traceparent": f"00-{trace}-{span}-01"}


def _call(traced: _Traced, method: str, unit: ContextUnit, headers: dict[str, str]) -> ContextUnit:
    with grpc.insecure_channel(traced.target) as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        answer = getattr(stub, method)(unit.to_protobuf(worker_pb2), metadata=[*headers.items()], timeout=60)
        return ContextUnit.from_protobuf(answer)


def test_a_harvest_is_one_trace_from_the_caller_to_the_catalogue(traced: _Traced, collector: Collector) -> None:
    trace, caller, headers = _parent()
    unit = ContextUnit(payload={"workflow_type": "harvest", "supplier_code": "camping-trade", "tenant_id": "acme"})
    started = _call(traced, "StartWorkflow", unit, headers)
    with traced.client() as client:
        client.task(str(started.payload["workflow_id"])).result(timeout=60)
    spans = collector.trace(
        trace, f"{_SERVICE}/StartWorkflow", "StartWorkflow:harvest", "RunWorkflow:harvest", "write catalogue"
    )
    server = spans[f"{_SERVICE}/StartWorkflow"]
    assert (server.parent, server.kind, server.is_error) == (caller, 2, False)
    assert server.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{_SERVICE}/StartWorkflow",
        "rpc.response.status_code": "OK",
        "contextunity.trace_id": unit.trace_id,
        "contextunity.tenant_id": "acme",
        "temporalWorkflowID": started.payload["workflow_id"],
        "temporalRunID": started.payload["run_id"],
    }
    assert server.resource["service.name"] == "contextworker"
    assert server.resource["deployment.environment.name"] == "test"
    start, run = spans["StartWorkflow:harvest"], spans["RunWorkflow:harvest"]
    assert (start.parent, run.parent) == (server.id, start.id)
    assert run.attributes["contextunity.status"] == "completed"
    assert run.attributes["contextunity.trace_id"] == unit.trace_id
    activities = {name: each for name, each in spans.items() if name.startswith("RunActivity:")}
    assert {"RunActivity:fetch_products", "RunActivity:sync_to_brain"} <= activities.keys()
    assert {each.parent for each in activities.values()} == {run.id}
    writing = spans["write catalogue"]
    assert writing.parent in {each.id for each in activities.values()}
    assert writing.attributes == {"db.system.name": "sqlite"}
    # No payload is in them.
    assert not any(b"camping-trade.example" in body or b"Quilt" in body for body in collector.bodies)
    assert collector.headers[0]["x-key"] == "for a test"


def test_a_child_belongs_to_its_parent(traced: _Traced, collector: Collector) -> None:
    trace, _, headers = _parent()
    unit = ContextUnit(payload={"workflow_type": "chain", "then": "child", "tenant_id": "acme"})
    _call(traced, "StartWorkflow", unit, headers)
    spans = collector.trace(trace, "RunWorkflow:chain", "RunWorkflow:hidden")
    assert spans["RunWorkflow:hidden"].parent == spans["RunWorkflow:chain"].id
    assert spans["RunWorkflow:chain"].parent == spans["StartWorkflow:chain"].id


def test_a_call_without_a_traceparent_begins_the_trace_of_its_unit(traced: _Traced, collector: Collector) -> None:
    unit = ContextUnit(payload={"code": "6 * 7", "tenant_id": "acme"})
    assert _call(traced, "ExecuteCode", unit, {}).payload["status"] == "ok"
    spans = collector.trace(unit.trace_id, f"{_SERVICE}/ExecuteCode", "run program")
    assert spans[f"{_SERVICE}/ExecuteCode"].parent == ""
    assert spans["run program"].parent == spans["RunActivity:run_program"].id
    assert spans["run program"].attributes == {"contextunity.backend": "monty"}


def test_a_unit_without_a_trace_takes_its_callers(traced: _Traced, collector: Collector) -> None:
    trace, _, headers = _parent()
    unit = ContextUnit(payload={"workflow_type": "ping"}, trace_id="")
    assert _call(traced, "StartWorkflow", unit, headers).trace_id.replace("-", "") == trace
    spans = collector.trace(trace, f"{_SERVICE}/StartWorkflow", "RunWorkflow:ping")
    assert spans["RunWorkflow:ping"].attributes["contextunity.trace_id"].replace("-", "") == trace


def test_the_typed_door_and_http_have_spans_too(traced: _Traced, collector: Collector) -> None:
    method = "acme.desk.v1.Desk/Ping"
    for path, body, status in ((method, b"{}", "OK"), (f"{_SERVICE}/GetTaskStatus", b"{}", "invalid_argument")):
        trace, caller, headers = _parent()
        request = urllib.request.Request(f"{traced.http}/{path}", body, {"content-type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            error.close()
        span = collector.trace(trace, path)[path]
        assert (span.parent, span.kind, span.is_error) == (caller, 2, False)
        assert span.attributes["rpc.system.name"] == "connectrpc"
        assert span.attributes.get("rpc.response.status_code", "OK") == status


def test_a_watch_is_a_span_until_its_end(traced: _Traced, collector: Collector) -> None:
    trace, caller, headers = _parent()
    with traced.client() as client:
        task = client.start("ping", {})
    unit = ContextUnit(payload={"workflow_id": task.workflow_id, "tenant_id": "acme"})
    with grpc.insecure_channel(traced.target) as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        assert list(stub.WatchTask(unit.to_protobuf(worker_pb2), metadata=tuple(headers.items()), timeout=30))
    span = collector.trace(trace, f"{_SERVICE}/WatchTask")[f"{_SERVICE}/WatchTask"]
    assert (span.parent, span.attributes["rpc.response.status_code"]) == (caller, "OK")


def test_failures_are_told_by_their_type_alone(traced: _Traced, collector: Collector) -> None:
    trace, _, headers = _parent()
    unit = ContextUnit(payload={"workflow_type": "work", "name": "a-secret", "mode": "FAIL_ACTIVITY"})
    _call(traced, "StartWorkflow", unit, headers)
    spans = collector.trace(trace, "RunActivity:step", "RunWorkflow:work")
    step, run = spans["RunActivity:step"], spans["RunWorkflow:work"]
    assert (step.is_error, step.attributes["error.type"], step.events) == (True, "StepBroke", [])
    assert (run.is_error, run.attributes["error.type"]) == (True, "ActivityError")
    assert run.attributes["contextunity.status"] == "failed"
    assert not any(b"the step of" in body for body in collector.bodies)


def test_a_call_that_is_refused_has_a_span(traced: _Traced, collector: Collector) -> None:
    unit = ContextUnit(payload={"workflow_type": "nothing of this name"})
    with pytest.raises(grpc.RpcError):
        _call(traced, "StartWorkflow", unit, {})
    span = collector.trace(unit.trace_id, f"{_SERVICE}/StartWorkflow")[f"{_SERVICE}/StartWorkflow"]
    # It is the caller's error.
    assert (span.is_error, span.attributes["error.type"]) == (False, "NOT_FOUND")


def test_an_update_reaches_the_workflow_in_its_callers_trace(traced: _Traced, collector: Collector) -> None:
    trace, _, headers = _parent()
    with traced.client() as client:
        task = client.start("work", {"name": "before", "mode": "WAIT"})
        unit = ContextUnit(
            payload={"workflow_id": task.workflow_id, "update": "rename", "args": {"name": "x"}, "tenant_id": "acme"}
        )
        _call(traced, "UpdateTask", unit, headers)
        task.terminate()
    assert f"{_SERVICE}/UpdateTask" in collector.trace(trace, f"{_SERVICE}/UpdateTask")


def test_every_line_of_the_log_is_json_with_its_trace(traced: _Traced) -> None:
    unit = ContextUnit(payload={"workflow_type": "work", "name": "n", "mode": "FAIL_ACTIVITY", "tenant_id": "acme"})
    _call(traced, "StartWorkflow", unit, {})
    line = traced.log(lambda line: line.get("activity_type") == "step" and line["trace_id"] == unit.trace_id)
    assert line["message"].startswith("activity failed: StepBroke: ")
    assert "exception" not in line
    assert line["otel_trace_id"] == unit.trace_id.replace("-", "")
    assert {"otel_span_id", "workflow_id", "run_id", "attempt", "tenant_id"} <= line.keys()
    assert line["error_type"] == "StepBroke"


def test_an_unexpected_error_has_its_traceback_in_one_field(traced: _Traced) -> None:
    with traced.client() as client:
        task = client.start("join", {"name": "broken"})
        line = traced.log(lambda line: "exception" in line and line.get("workflow_id") == task.workflow_id)
        task.terminate()
    assert line["exception"].startswith("Traceback ")
    assert "KeyError: 'a slip in the code'" in line["exception"]
    assert line["error_type"] == "KeyError"


_CLIENT = """
import sys
from contextunity.worker.client import SyncWorkerClient

with SyncWorkerClient(sys.argv[1], tenant_id="acme") as client:
    client.start("ping", {})
    assert not any(name.partition(".")[0] == "opentelemetry" for name in sys.modules)
    from opentelemetry import trace
    client.start("ping", {})
    context = trace.SpanContext(int(sys.argv[2], 16), int(sys.argv[3], 16), False, trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        client.start("ping", {})
"""


def test_clients_send_their_span_if_they_have_one(traced: _Traced, collector: Collector) -> None:
    trace, caller, _ = _parent()
    command = [sys.executable, "-c", _CLIENT, traced.target, trace, caller]
    subprocess.run(command, check=True, timeout=60, cwd=ROOT)
    spans = collector.trace(trace, f"{_SERVICE}/StartWorkflow", "RunWorkflow:ping")
    assert spans[f"{_SERVICE}/StartWorkflow"].parent == caller


_OFF = """
import sys, contextunity.worker.server, contextunity.worker.temporal.worker, contextunity.worker.client
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from contextunity.worker.tracing import span, start_tracing, traceparent

for variables in ({}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}):
    assert not start_tracing(variables)
ContextWorkerPlugin()
with span("nothing"):
    assert traceparent() == ()
print([name for name in sys.modules if name.partition(".")[0] == "opentelemetry"])
"""


def test_where_traces_are_off_nothing_of_them_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", _OFF], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_without_the_packages_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "contextunity.worker.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsError, match=r"OTEL_TRACES_EXPORTER = 'otlp'.*pip install 'contextworker\[otel\]'"):
        start_tracing({"OTEL_TRACES_EXPORTER": "otlp"})


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"OTEL_TRACES_EXPORTER": "carrier-pigeon"}, "'carrier-pigeon' is not installed; there are: .*otlp"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL = 'http/json': give grpc or http/protobuf",
        ),
    ],
)
def test_a_wrong_variable_is_an_error_with_the_way_out(variables: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        start_tracing(variables)
