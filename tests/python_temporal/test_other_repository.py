"""Somebody else's project: nothing of this repository but the wheel, generated, type-checked by use, and run."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]

_PROTO = """\
syntax = "proto3";
package acme.greet.v1;
import "temporal/v1/temporal.proto";
service GreetService {
  option (temporal.v1.service) = {task_queue: "greet"};
  rpc Greet(GreetRequest) returns (GreetResponse) {
    option (temporal.v1.workflow) = {name: "greet" id: "greet/${! name }"};
  }
  rpc Compose(GreetRequest) returns (GreetResponse) {
    option (temporal.v1.activity) = {
      name: "compose" start_to_close_timeout: {seconds: 5} retry_policy: {max_attempts: 2}
    };
  }
}
message GreetRequest { string name = 1; map<string, string> titles = 2; }
message GreetResponse { string text = 1; }
"""

_WORKFLOWS = """\
from datetime import timedelta
from greetings.gen.acme.greet.v1 import GreetRequest, GreetResponse, greet_temporal as greet
from temporalio import workflow

class Greet(greet.GreetWorkflowBase):
    async def run(self, request: GreetRequest) -> GreetResponse:
        await workflow.sleep(timedelta(days=30))
        return await greet.compose(request)
"""

_TESTS = """\
import contextunity.worker, process_jail, protoc_gen_python_temporal, python_temporal
from greetings.gen.acme.greet.v1 import GreetRequest, GreetResponse, greet_temporal as greet
from greetings.workflows import Greet

class Activities(greet.GreetServiceActivities):
    def compose(self, request: GreetRequest) -> GreetResponse:
        return GreetResponse(text=f"hello {request.titles['short']} {request.name}")

def test_only_the_wheel_is_there():
    for module in (contextunity.worker, process_jail, protoc_gen_python_temporal, python_temporal):
        assert "/wheel/" in module.__file__

async def test_it_runs(workflows):
    request = GreetRequest(name="ann", titles={"short": "Dr"})
    async with workflows.running(Greet, activities=Activities().activities()):
        handle = await greet.GreetServiceClient(workflows.client).start_greet(request)
        assert handle.id == "greet/ann"
        assert (await handle.result()).text == "hello Dr ann"

async def test_it_runs_on_a_stand_in(workflows):
    workflows.fakes.returns(greet.compose, GreetResponse(text="hi"))
    async with workflows.running(Greet):
        assert (await greet.GreetServiceClient(workflows.client).greet(GreetRequest(name="bob"))).text == "hi"
"""

_PYTEST = """\
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("package", ["process_jail", "python_temporal"])
def test_the_wheel_has_all_of_a_package(unpacked_wheel: Path, package: str) -> None:
    files = (path for path in (_ROOT / "src" / package).rglob("*") if path.is_file() and path.suffix != ".pyc")
    names = {path.relative_to(_ROOT / "src") for path in files}
    assert Path(package, "py.typed") in names
    assert {name for name in names if not (unpacked_wheel / name).is_file()} == set()


def _environment(project: Path, unpacked_wheel: Path) -> dict[str, str]:
    # Without `site`, as -S has it, this repository's editable install is not on the path; its dependencies are.
    folders = (project, unpacked_wheel, sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"])
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON", "COV"))}
    return {**keep, "PYTHONPATH": os.pathsep.join(map(str, folders))}


def _generate(project: Path, environment: dict[str, str]) -> None:
    _run(project, environment, sys.executable, "-S", "-m", "contextunity.worker", "protos", "imports")
    command = [sys.executable, "-S", "-m", "grpc_tools.protoc", "-Iproto", "-Iimports"]
    for name in ("python_messages", "python_temporal"):
        script = project / f"protoc-gen-{name}"
        script.write_text(f"#!/bin/sh\nexec {sys.executable} -S -m protoc_gen_{name}\n")
        script.chmod(0o755)
        command += [f"--plugin={script}", f"--{name}_out=package=greetings.gen:greetings/gen"]
    _run(project, environment, *command, "acme/greet/v1/greet.proto")


def _run(project: Path, environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(180)
def test_a_service_is_generated_and_run_from_the_wheel_alone(unpacked_wheel: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name, text in {
        "proto/acme/greet/v1/greet.proto": _PROTO,
        "greetings/__init__.py": "",
        "greetings/workflows.py": _WORKFLOWS,
        "greetings/gen/keep": "",
        "test_greetings.py": _TESTS,
        "conftest.py": 'pytest_plugins = ["contextunity.worker.testing"]\n',
        "pytest.ini": _PYTEST,
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    environment = _environment(project, unpacked_wheel)
    _generate(project, environment)
    output = _run(project, environment, sys.executable, "-S", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "3 passed" in output
