"""A module from outside that is generated once, a manager for it on the real server, and a worker in this process."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.worker import ScheduleEntry
from temporalio.client import Client

from contextunity.core import codec
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.protos import export
from contextunity.worker.schedules import ScheduleManager
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from contextunity.worker.temporal.search_attributes import register_attributes
from contextunity.worker.temporal.worker import running_workers

PROTO = """\
syntax = "proto3";
package acme.reports.v1;
import "buf/validate/validate.proto";
import "contextunity/worker/options.proto";
import "google/protobuf/empty.proto";
import "temporal/v1/temporal.proto";
service ReportService {
  option (temporal.v1.service) = {task_queue: "reports"};
  rpc Report(ReportRequest) returns (ReportResponse) {
    option (temporal.v1.workflow) = {
      name: "report"
      aliases: "report.v0"
      run_timeout: {seconds: 600}
      retry_policy: {max_attempts: 2}
      priority: {priority_key: 2}
      signal: {ref: "Release"}
    };
    option (contextunity.worker.schedule) = {
      id: "weekly"
      cron: "0 6 * * MON"
      timezone: "Europe/Berlin"
      input_json: '{"name": "weekly", "maxRows": 5}'
      description: "for the meeting"
      overlap: SCHEDULE_OVERLAP_BUFFER_ONE
      catchup_window: {seconds: 3600}
      jitter: {seconds: 90}
    };
    option (contextunity.worker.schedule) = {id: "hourly" cron: "@hourly" input_json: '{"name": "hourly"}'};
  }
  rpc Sweep(google.protobuf.Empty) returns (google.protobuf.Empty) {
    option (temporal.v1.workflow) = {name: "sweep"};
    option (contextunity.worker.schedule) = {id: "sweep" cron: "30 2 * * *"};
  }
  rpc Release(google.protobuf.Empty) returns (google.protobuf.Empty) {
    option (temporal.v1.signal) = {name: "release"};
  }
}
message ReportRequest {
  string tenant_id = 1;
  string name = 2 [(buf.validate.field).string.min_len = 1];
  int32 max_rows = 3 [(buf.validate.field).int32.gte = 0];
  map<string, int64> limits = 4;
  bool wait = 5;
}
message ReportResponse {
  ReportRequest request = 1;
  repeated string provenance = 2;
  string context_tenant_id = 3;
  string trace_id = 4;
}
"""
_MODULE = """\
from contextunity.core.context import current
from contextunity.worker.core.registry import ModuleConfig
from temporalio import workflow

from acme_reports.acme.reports.v1 import ReportRequest, ReportResponse, reports_temporal as reports

class Report(reports.ReportWorkflowBase):
    def __init__(self) -> None:
        self.released = False
    async def run(self, request: ReportRequest) -> ReportResponse:
        if request.wait:
            await workflow.wait_condition(lambda: self.released)
        context = current()
        return ReportResponse(
            request=request, provenance=list(context.provenance), context_tenant_id=context.tenant_id,
            trace_id=context.trace_id,
        )
    def release(self) -> None:
        self.released = True

class Sweep(reports.SweepWorkflowBase):
    async def run(self) -> None:
        pass

module = ModuleConfig(name="reports", workflows=[Report, Sweep])
"""


def _generate(folder: Path, files: dict[str, str], package: str) -> None:
    """Generates protos into a Python package below a folder, as protoc runs the plugins."""
    protos, output = folder / "protos", folder / package
    export(protos)
    output.mkdir()
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}"]
    for name in ("python_messages", "python_temporal"):
        script = folder / f"protoc-gen-{name}"
        script.write_text(f"#!/bin/sh\nexec {sys.executable} -m protoc_gen_{name}\n")
        script.chmod(0o755)
        command += [f"--plugin=protoc-gen-{name}={script}", f"--{name}_out=package={package}:{output}"]
    for name, text in files.items():
        (protos / name).parent.mkdir(parents=True, exist_ok=True)
        (protos / name).write_text(text, encoding="utf-8")
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def generate() -> Callable[[Path, dict[str, str], str], None]:
    return _generate


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module `acme_reports_module`, importable; its messages are in `acme_reports.acme.reports.v1`."""
    folder = tmp_path_factory.mktemp("reports")
    _generate(folder, {"acme/reports/v1/reports.proto": PROTO}, "acme_reports")
    (folder / "acme_reports_module.py").write_text(_MODULE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("acme_reports_module")
    sys.path.remove(str(folder))


@pytest.fixture
def registry(reports: Any) -> WorkerRegistry:
    registry = WorkerRegistry()
    registry.register(reports.module)
    return registry


@pytest.fixture
async def client(temporal_server: EmbeddedServer) -> Client:
    client = await Client.connect(temporal_server.address, plugins=[ContextWorkerPlugin()])
    await register_attributes(client)
    return client


@pytest.fixture
def manager(client: Client, registry: WorkerRegistry) -> ScheduleManager:
    return ScheduleManager(client, registry)


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own, so that its schedules are alone."""
    return f"tenant/{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def worker(client: Client, registry: WorkerRegistry) -> AsyncIterator[None]:
    """Runs the module's workflows."""
    async with running_workers(client, registry.select(None), Settings()):
        yield


MakeEntry = Callable[..., ScheduleEntry]


@pytest.fixture
def entry() -> MakeEntry:
    """Makes an entry that nothing is wrong with, with changes; `args` is plain data."""

    def make(**changes: Any) -> ScheduleEntry:
        args = changes.pop("args", {"name": "n"})
        usual: dict[str, Any] = {"schedule_id": "nightly", "workflow_type": "report", "cron": "0 3 * * *"}
        return ScheduleEntry(**{**usual, "args": None if args is None else codec.dict_to_struct(args), **changes})

    return make


@pytest.fixture
def eventually() -> Callable[..., Awaitable[Any]]:
    """Gives an answer once it fits: the server's list of schedules lags, and nothing tells when it is up to date."""

    async def ask_again(ask: Callable[[], Awaitable[Any]], fits: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(30):
            while not fits(answer := await ask()):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.02)
            return answer

    return ask_again
