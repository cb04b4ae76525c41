"""A module from outside this repository's packages: written, generated, installed, discovered and run."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import JsonValue
from temporalio.client import Client
from temporalio.common import RawValue

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.worker.embedded import EmbeddedServer, usual_or_free_port
from contextunity.worker.protos import export
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_FILES = {
    "proto/acme/greet/v1/greet.proto": """\
syntax = "proto3";
package acme.greet.v1;
import "temporal/v1/temporal.proto";
// Greets.
service GreetService {
  option (temporal.v1.service) = {task_queue: "greet"};
  rpc Greet(GreetRequest) returns (GreetResponse) {
    option (temporal.v1.workflow) = {name: "greet" id: "greet/${! name }"};
  }
  rpc Compose(GreetRequest) returns (GreetResponse) {
    option (temporal.v1.activity) = {
      name: "compose"
      start_to_close_timeout: {seconds: 5}
      retry_policy: {max_attempts: 2}
    };
  }
}
message GreetRequest {
  string name = 1;
  map<string, string> titles = 2;
  string tenant_id = 3;
}
message GreetResponse { string text = 1; }
""",
    "buf.yaml": "version: v2\nmodules:\n  - path: proto\n  - path: imported\n",
    "buf.gen.yaml": """\
version: v2
inputs:
  - directory: .
    paths: [proto/acme]
plugins:
  - local: protoc-gen-python_messages
    out: src/acme_greet/gen
    opt: package=acme_greet.gen
    strategy: all
  - local: protoc-gen-python_temporal
    out: src/acme_greet/gen
    opt: package=acme_greet.gen
    strategy: all
""",
    "src/acme_greet/__init__.py": "",
    "src/acme_greet/plugin.py": """\
from contextunity.worker.core.registry import ModuleConfig
from pydantic import BaseModel

from .activities import compose, lifespan
from .workflows import Greet

class Settings(BaseModel):
    greeting: str = "hello"

def module() -> ModuleConfig:
    return ModuleConfig(name="greet", workflows=[Greet], activities=[compose], settings=Settings, lifespan=lifespan)
""",
    "src/acme_greet/activities.py": """\
import contextlib
from acme_greet.gen.acme.greet.v1 import GreetRequest, GreetResponse, greet_temporal as greet

greeting = ""

@contextlib.asynccontextmanager
async def lifespan(context):
    global greeting
    greeting = context.settings.greeting
    yield

@greet.compose.defn
def compose(request: GreetRequest) -> GreetResponse:
    return GreetResponse(text=f"{greeting} {request.titles.get('short', '')} {request.name} of {request.tenant_id}")
""",
    "src/acme_greet/workflows.py": """\
from acme_greet.gen.acme.greet.v1 import GreetRequest, GreetResponse, greet_temporal as greet

class Greet(greet.GreetWorkflowBase):
    async def run(self, request: GreetRequest) -> GreetResponse:
        return await greet.compose(request)
""",
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "acme-greet"
version = "1"
[project.entry-points."contextunity.worker.modules"]
greet = "acme_greet.plugin:module"
[tool.hatch.build.targets.wheel]
packages = ["src/acme_greet"]
""",
}


_FOR_CALLERS = """\
syntax = "proto3";

package acme.greet.v1;

// Greets.
service GreetService {
  rpc Greet(GreetRequest) returns (GreetResponse);
}

message GreetRequest {
  string name = 1;
  map<string, string> titles = 2;
  string tenant_id = 3;
}

message GreetResponse {
  string text = 1;
}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the module is installed into, as pip would, with its entry point."""
    project = tmp_path_factory.mktemp("acme")
    for name, text in _FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    tools = Path(sys.executable).parent
    (project / "src/acme_greet/gen").mkdir()
    for command in (
        [sys.executable, "-m", "contextunity.worker", "protos", "imported"],
        [str(tools / "buf"), "generate"],
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
    ):
        path = {"PATH": f"{tools}:/usr/bin:/bin"}
        done = subprocess.run(command, cwd=project, env=path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (project / "dist").glob("*.whl")
    shutil.unpack_archive(wheel, project / "installed", "zip")
    return project / "installed"


def test_it_is_discovered_and_runs_beside_the_others(
    spawn: Any, temporal_server: EmbeddedServer, installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "contextworker.toml").write_text('[modules.greet]\ngreeting = "good day"\n')
    port = usual_or_free_port(0)
    variables = {"TEMPORAL_ADDRESS": temporal_server.address, "PYTHONPATH": str(installed)}
    service = spawn("-m", "contextunity.worker", WORKER_HOST="127.0.0.1", WORKER_PORT=str(port), **variables)
    worker = spawn("-m", "contextunity.worker", "--temporal", "--modules", "greet", **variables)
    service.wait_for("WorkerService listens on")
    assert worker.wait_for("Temporal workers run for modules:").split("modules: ")[1].startswith("greet;")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        arguments: JsonValue = {"name": "ann", "titles": {"short": "Dr"}}
        unit = ContextUnit(payload={"workflow_type": "greet", "tenant_id": "acme", "args": arguments})
        workflow_id = str(stub.StartWorkflow(unit.to_protobuf(worker_pb2)).payload["workflow_id"])
        assert workflow_id == "greet/ann"
        ask = ContextUnit(payload={"workflow_id": workflow_id}).to_protobuf(worker_pb2)
        answer = ContextUnit.from_protobuf(stub.GetTaskStatus(ask)).payload
        while answer["status"] == "running":
            answer = ContextUnit.from_protobuf(stub.GetTaskStatus(ask)).payload
    assert answer["status"] == "completed", answer
    assert answer["result"] == {"text": "good day Dr ann of acme"}


def test_its_callers_get_its_proto_without_annotations(spawn: Any, installed: Path, tmp_path: Path) -> None:
    written = spawn("-m", "contextunity.worker", "protos", "--client", "protos", PYTHONPATH=str(installed))
    assert written.wait() == 0, written.output
    assert "  acme/greet/v1/greet.proto\n" in written.output
    assert (tmp_path / "protos/acme/greet/v1/greet.proto").read_text(encoding="utf-8") == _FOR_CALLERS
    done = subprocess.run(
        [Path(sys.executable).parent / "buf", "lint"],
        cwd=tmp_path / "protos",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_all_modules_are_run_where_none_is_named(spawn: Any, temporal_server: EmbeddedServer, installed: Path) -> None:
    variables = {"TEMPORAL_ADDRESS": temporal_server.address, "PYTHONPATH": str(installed)}
    worker = spawn("-m", "contextunity.worker", "--temporal", **variables)
    assert "greet, harvest" in worker.wait_for("Temporal workers run for modules:")


def test_it_can_come_by_its_import_path_instead(
    spawn: Any, temporal_server: EmbeddedServer, installed: Path, tmp_path: Path
) -> None:
    shutil.copytree(installed / "acme_greet", tmp_path / "acme_greet")
    variables = {"TEMPORAL_ADDRESS": temporal_server.address, "PYTHONPATH": str(tmp_path)}
    worker = spawn("-m", "contextunity.worker", "--temporal", WORKER_MODULES="acme_greet.plugin", **variables)
    assert "harvest, greet" in worker.wait_for("Temporal workers run for modules:")


def test_one_that_does_not_implement_its_contract_stops_the_boot(
    spawn: Any, temporal_server: EmbeddedServer, installed: Path, tmp_path: Path
) -> None:
    shutil.copytree(installed / "acme_greet", tmp_path / "acme_greet")
    plugin = tmp_path / "acme_greet/plugin.py"
    plugin.write_text(plugin.read_text().replace("activities=[compose]", "activities=[]"))
    variables = {"TEMPORAL_ADDRESS": temporal_server.address, "PYTHONPATH": str(tmp_path)}
    worker = spawn("-m", "contextunity.worker", "--temporal", WORKER_MODULES="acme_greet.plugin", **variables)
    assert worker.wait() == 2
    assert "module 'greet'" in worker.output
    assert "compose" in worker.output


_ONCE = """\
import builtins

if hasattr(builtins, "once_is_there"):
    raise ImportError("cannot load module more than once per process")
builtins.once_is_there = True
"""
"""A library such as numpy: it keeps state outside of Python's modules, so that it cannot be imported again."""


def test_a_library_that_the_sandbox_cannot_import_is_named_with_the_line_to_add(
    spawn: Any, temporal_server: EmbeddedServer, installed: Path, tmp_path: Path
) -> None:
    shutil.copytree(installed / "acme_greet", tmp_path / "acme_greet")
    (tmp_path / "once").mkdir()
    (tmp_path / "once/__init__.py").write_text("from . import core\n")
    (tmp_path / "once/core.py").write_text(_ONCE)
    workflows = tmp_path / "acme_greet/workflows.py"
    workflows.write_text("import once.core\n" + workflows.read_text())
    variables = {"TEMPORAL_ADDRESS": temporal_server.address, "PYTHONPATH": str(tmp_path)}
    worker = spawn("-m", "contextunity.worker", "--temporal", WORKER_MODULES="acme_greet.plugin", **variables)
    assert worker.wait() == 2
    assert "Traceback" not in worker.output
    assert (
        f"  - module 'greet': {workflows}:1 imports once, which the workflow sandbox cannot import again for each run "
        "(ImportError: cannot load module more than once per process); add passthrough_modules=['once'] to the "
        "ModuleConfig"
    ) in worker.output
    plugin = tmp_path / "acme_greet/plugin.py"
    plugin.write_text(plugin.read_text().replace('name="greet",', 'name="greet", passthrough_modules=["once"],'))
    worker = spawn("-m", "contextunity.worker", "--temporal", WORKER_MODULES="acme_greet.plugin", **variables)
    assert worker.wait_for("Temporal workers run for modules:")


def test_a_lifespan_that_fails_is_told_in_one_line(
    spawn: Any, temporal_server: EmbeddedServer, installed: Path, tmp_path: Path
) -> None:
    shutil.copytree(installed / "acme_greet", tmp_path / "acme_greet")
    activities = tmp_path / "acme_greet/activities.py"
    text = activities.read_text().replace("    greeting = context", "    greeting = {}['word'] or context")
    activities.write_text(text)
    line = text.splitlines().index("    greeting = {}['word'] or context.settings.greeting") + 1
    variables = {"TEMPORAL_ADDRESS": temporal_server.address, "PYTHONPATH": str(tmp_path)}
    worker = spawn("-m", "contextunity.worker", "--temporal", WORKER_MODULES="acme_greet.plugin", **variables)
    assert worker.wait() == 2
    assert "Traceback" not in worker.output
    assert f"  - module 'greet': its lifespan failed: {activities}:{line}: KeyError: 'word'" in worker.output


_TEAM = """syntax = "proto3";
package NAME.v1;
import "shared/v1/shared.proto";
import "temporal/v1/temporal.proto";
message Order { shared.v1.Money price = 1; }
service NAMEService {
  option (temporal.v1.service) = {task_queue: "NAME"};
  rpc Pay(Order) returns (Order) { option (temporal.v1.workflow) = {name: "NAME_pay"}; }
}
"""
_TEAM_MODULE = """
from contextunity.worker.core.registry import ModuleConfig
from NAME.gen.NAME.v1 import Order, NAME_temporal as temporal

class Pay(temporal.PayWorkflowBase):
    async def run(self, request: Order) -> Order:
        return request

module = ModuleConfig(name="NAME", workflows=[Pay])
"""
_MONEY = 'syntax = "proto3";\npackage shared.v1;\nmessage Money { int64 units = 1; %s }\n'


def _write_team(folder: Path, name: str, fields: str) -> None:
    """Generates a module of that name, which has a copy of a proto that teams share."""
    texts = {f"{name}/v1/{name}.proto": _TEAM.replace("NAME", name), "shared/v1/shared.proto": _MONEY % fields}
    for path, text in texts.items():
        (folder / f"protos_{name}" / path).parent.mkdir(parents=True)
        (folder / f"protos_{name}" / path).write_text(text)
    (folder / name / "gen").mkdir(parents=True)
    (folder / name / "module.py").write_text(_TEAM_MODULE.replace("NAME", name))
    export(folder / "imports")
    tools = Path(sys.executable).parent
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}/protos_{name}", f"-I{folder}/imports"]
    for plugin in ("python_messages", "python_temporal"):
        command += [f"--plugin={tools}/protoc-gen-{plugin}", f"--{plugin}_out=package={name}.gen:{folder}/{name}/gen"]
    subprocess.run([*command, *texts], check=True, timeout=60)


def test_copies_of_a_proto_that_differ_stop_the_boot_in_one_line(spawn: Any, tmp_path: Path) -> None:
    _write_team(tmp_path, "anna", "")
    _write_team(tmp_path, "bert", "int32 nanos = 2;")
    service = spawn("-m", "contextunity.worker", WORKER_MODULES="anna.module,bert.module", WORKER_PORT="0")
    assert service.wait() == 2
    (line,) = service.output.splitlines()
    for word in ("anna.gen.shared.v1", "bert.gen.shared.v1", "shared/v1/shared.proto", "shared.v1.Money.nanos"):
        assert word in line


_SLOW = """\
import pathlib, time
from acme_greet.gen.acme.greet.v1 import GreetRequest, GreetResponse, greet_temporal as greet
from temporalio import activity

@greet.compose.defn
def compose(request: GreetRequest) -> GreetResponse:
    attempt = activity.info().attempt
    print(f"composing {request.name}", flush=True)
    while attempt == 1 and not pathlib.Path("may_end").exists():
        time.sleep(0.02)  # Nothing tells of a file.
    if attempt == 1 and request.name == "stuck":
        time.sleep(300)  # As a call that hears of no cancellation; it is what is tested.
    return GreetResponse(text=f"attempt {attempt}")
"""


async def test_the_grace_of_a_stop_holds_for_synchronous_activities(
    spawn: Any, temporal_server: EmbeddedServer, installed: Path, tmp_path: Path
) -> None:
    shutil.copytree(installed / "acme_greet", tmp_path / "acme_greet")
    (tmp_path / "acme_greet/activities.py").write_text(_SLOW)
    plugin = tmp_path / "acme_greet/plugin.py"
    plugin.write_text(
        plugin.read_text().replace("import compose, lifespan", "import compose").replace(", lifespan=lifespan", "")
    )
    variables = {"TEMPORAL_ADDRESS": temporal_server.address, "PYTHONPATH": str(tmp_path)}
    variables |= {"WORKER_MODULES": "acme_greet.plugin", "CONTEXTWORKER_SHUTDOWN_GRACE": "1"}
    command = ("-m", "contextunity.worker", "--temporal", "-m", "greet")
    worker = spawn(*command, **variables)
    worker.wait_for("Temporal workers run for modules:")
    client = await Client.connect(temporal_server.address, plugins=[ContextWorkerPlugin()])
    handles = {
        name: await client.start_workflow(
            "greet", {"name": name}, id=f"grace-{name}", task_queue="greet", result_type=RawValue
        )
        for name in ("quick", "stuck")
    }
    for name in handles:
        worker.wait_for(f"composing {name}")
    worker.send(signal.SIGTERM)
    worker.wait_for("Beginning worker shutdown")
    (tmp_path / "may_end").touch()
    assert worker.wait() == 0, worker.output
    assert "activity compose of workflow grace-stuck did not end within the grace period of 1 s" in worker.output
    assert "grace-quick" not in worker.output
    # What ended within the grace was told, although its worker was on its way out.
    history = await handles["quick"].fetch_history()
    assert any(event.HasField("activity_task_completed_event_attributes") for event in history.events)
    # The other is repeated elsewhere, at once.
    spawn(*command, **variables)
    for name, attempt in (("quick", 1), ("stuck", 2)):
        result = await handles[name].result()
        assert result.payload.data.decode().endswith(f"attempt {attempt}")
    started = [
        event.activity_task_started_event_attributes
        for event in (await handles["stuck"].fetch_history()).events
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert [(each.attempt, each.last_failure.application_failure_info.type) for each in started] == [
        (2, "WorkerShutdown")
    ]
