"""Somebody else's project: nothing of this repository but the wheel, generated, checked as the docs say, and run."""

from __future__ import annotations

import os
import re
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


_GUIDE = (_ROOT / "docs/plugin.md").read_text(encoding="utf-8")

_NAMES = """\
syntax = "proto3";

package acme.names.v1;

import "acme/names/v1/rules.proto";
import "buf/validate/validate.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";
import "temporal/api/common/v1/message.proto";
import "temporal/v1/temporal.proto";

message Names {
  string self = 1 [(buf.validate.field).string.(acme.names.v1.short) = true];
  string str = 2;
  bytes bytes = 3;
  int32 int = 4;
  double float = 5;
  bool bool = 6;
  repeated string list = 7;
  map<string, int32> dict = 8;
  google.protobuf.Timestamp datetime = 9;
  google.protobuf.Duration timedelta = 10;
  string type = 11;
  string object = 12;
  string property = 13;
  string builtins = 14;
  string parse = 15;
  string dump = 16;
  string load = 17;
  string is_set = 18;
  string to_dict = 19;
  string from_json = 20;
  string class = 21;
  // buf:lint:ignore FIELD_LOWER_SNAKE_CASE
  string DESCRIPTOR = 22;
  // buf:lint:ignore FIELD_LOWER_SNAKE_CASE
  string __private = 23;
  // buf:lint:ignore FIELD_LOWER_SNAKE_CASE
  string HasField = 24;
  // buf:lint:ignore FIELD_LOWER_SNAKE_CASE
  string camelCase = 25;
  optional int32 number = 30;
  repeated bytes parts = 31;
  map<string, Names> more = 32;
  google.protobuf.Timestamp at = 33;
  google.protobuf.Duration lasts = 34;
  temporal.api.common.v1.Priority priority = 35;
  temporal.v1.RetryPolicy retry = 36;
  Kind kind = 37;
}

enum Kind {
  KIND_UNSPECIFIED = 0;
  // buf:lint:ignore ENUM_VALUE_UPPER_SNAKE_CASE
  KIND_int = 1;
  // buf:lint:ignore ENUM_VALUE_UPPER_SNAKE_CASE
  KIND_dict = 2;
  // buf:lint:ignore ENUM_VALUE_UPPER_SNAKE_CASE
  KIND_name = 3;
}

message Old {
  option deprecated = true;
  string str = 1 [deprecated = true];
}
"""

_RULES = """\
syntax = "proto2";

package acme.names.v1;

import "buf/validate/validate.proto";

extend buf.validate.StringRules {
  optional bool short = 70000002 [(buf.validate.predefined).cel = {
    id: "string.short"
    message: "must be short"
    expression: "!rule || this.size() < 5"
  }];
}
"""

_USE = """\
import datetime
from typing import assert_type

from acme.gen.acme.names.v1 import Kind, Names
from acme.gen.temporal.api.common.v1 import Priority
from acme.gen.temporal.v1 import RetryPolicy


def use(names: Names) -> None:
    assert_type(names.str, str)
    assert_type(names.bytes, bytes)
    assert_type(names.int, int)
    assert_type(names.float, float)
    assert_type(names.bool, bool)
    assert_type(names.list, list[str])
    assert_type(names.dict, dict[str, int])
    assert_type(names.datetime, datetime.datetime | None)
    assert_type(names.timedelta, datetime.timedelta | None)
    assert_type(names.parse, str)
    assert_type(names.to_dict, str)
    assert_type(names.class_, str)
    assert_type(names.number, int | None)
    assert_type(names.parts, list[bytes])
    assert_type(names.more, dict[str, Names])
    assert_type(names.at, datetime.datetime | None)
    assert_type(names.lasts, datetime.timedelta | None)
    assert_type(names.priority, Priority | None)
    assert_type(names.retry, RetryPolicy | None)
    assert_type(names.kind, Kind)
"""


def _published(language: str, text: str) -> str:
    (block,) = (block for block in re.findall(rf"```{language}\n(.*?)```", _GUIDE, re.DOTALL) if text in block)
    return str(block)


@pytest.fixture
def installed(unpacked_wheel: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has installed our wheel, and the tools that the guide names."""
    here = Path(sys.executable).parent
    place = tmp_path / "installed"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=60)
    folders = (unpacked_wheel, sysconfig.get_paths()["purelib"])
    (next(place.glob("lib/*/site-packages")) / "installed.pth").write_text("\n".join(map(str, folders)))
    commands = {name: f"{here / name}" for name in ("buf", "ruff")}
    modules = ("mypy", "pyright", "protoc_gen_python_messages", "protoc_gen_python_temporal")
    names = {module: module.replace("protoc_gen_", "protoc-gen-") for module in modules}
    commands |= {name: f"{place}/bin/python -m {module}" for module, name in names.items()}
    for name, command in commands.items():
        script = place / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON", "COV"))}
    # protoc-gen-mypy and its like are beside the Python of this repository.
    path = os.pathsep.join((str(place / "bin"), str(here), "/usr/bin", "/bin"))
    # What mypy found of the installed packages is the same in each run of this test.
    return {**keep, "PATH": path, "MYPY_CACHE_DIR": str(_ROOT / ".mypy_cache/other_repository")}


@pytest.mark.timeout(240)
def test_the_guides_project_is_clean_by_every_check(installed: dict[str, str], tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name, text in {
        "buf.yaml": _published("yaml", "modules:"),
        "buf.gen.yaml": _published("yaml", "plugins:"),
        "pyproject.toml": _published("toml", "[tool.ruff]"),
        "proto/acme/greet/v1/greet.proto": _published("proto", "package acme.greet.v1;"),
        "acme/__init__.py": "",
        "acme/greeter.py": _published("python", "activities=[say_hello]"),
        # Not of the guide: names and types that code of other generators has trouble with.
        "proto/acme/names/v1/names.proto": _NAMES,
        "proto/acme/names/v1/rules.proto": _RULES,
        "acme/use.py": _USE,
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    _run(project, installed, "python", "-m", "contextunity.worker", "protos", "imports")
    _run(project, installed, "buf", "generate")
    said = {command: _run(project, installed, *command.split()) for command in _published("sh", "mypy").splitlines()}
    assert "no issues found in 25 source files" in said["mypy acme"]
    assert "0 errors, 0 warnings" in said["pyright acme"]
