"""How long the buf plugins take on trees of many files: ours beside protoc-gen-mypy, each as the program buf runs.

A file has ten annotated methods: a workflow, five activities, a query, a signal and two updates, with comments and
options.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2

from ._model import Goal, Measurement, Options, Result
from ._rounds import interleave

_ROOT = Path(__file__).resolve().parents[1]
_METHODS = 10
_ROUNDS = 3
_SIZES = [1, 25, 100]
_OURS, _MYPY = "protoc-gen-python_temporal", "protoc-gen-mypy"
_PLUGINS = {
    _OURS: ([sys.executable, "-m", "protoc_gen_python_temporal"], "package=gen,docs=all.md"),
    _MYPY: ([str(Path(sys.executable).parent / "protoc-gen-mypy")], ""),
}


def _proto(number: int) -> str:
    activities = "\n".join(
        f"""
  // Does step {step} of job {number}, which takes a while.
  rpc Step{step}(Request) returns (Response) {{
    option (temporal.v1.activity) = {{
      name: "job{number}.step{step}"
      start_to_close_timeout: {{seconds: 30}}
      retry_policy: {{initial_interval: {{seconds: 1}} max_attempts: 5 non_retryable_error_types: "Wrong"}}
    }};
  }}"""
        for step in range(5)
    )
    return f"""syntax = "proto3";
package acme.job{number}.v1;
import "google/protobuf/empty.proto";
import "temporal/v1/temporal.proto";

// The contract of job {number}.
service JobService {{
  option (temporal.v1.service) = {{task_queue: "job{number}"}};

  // Runs job {number}.
  rpc Run(Request) returns (Response) {{
    option (temporal.v1.workflow) = {{
      name: "job{number}"
      id: "job{number}/${{! tenantId }}/${{! code }}"
      query: {{ref: "GetState"}}
      signal: {{ref: "Stop" start: true}}
      update: [{{ref: "Change" start: true}}, {{ref: "Check"}}]
      workflow_id_conflict_policy: WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
    }};
  }}
{activities}

  // Tells the state.
  rpc GetState(google.protobuf.Empty) returns (Response) {{ option (temporal.v1.query) = {{name: "state"}}; }}

  // Stops.
  rpc Stop(google.protobuf.Empty) returns (google.protobuf.Empty) {{ option (temporal.v1.signal) = {{name: "stop"}}; }}

  // Changes something.
  rpc Change(Request) returns (Response) {{ option (temporal.v1.update) = {{name: "change" validate: true}}; }}

  // Checks something.
  rpc Check(Request) returns (Response) {{ option (temporal.v1.update) = {{name: "check"}}; }}
}}

// What to do.
message Request {{
  string tenant_id = 1;
  string code = 2;
  repeated string tags = 3;
}}

// What was done.
message Response {{
  string text = 1;
  map<string, int64> counts = 2;
}}
"""


def _request(files: int, parameter: str) -> bytes:
    spec = importlib.util.find_spec("temporalio")
    assert spec is not None
    assert spec.submodule_search_locations
    api = f"{spec.submodule_search_locations[0]}/bridge/sdk-core/crates/protos/protos/api_upstream"
    with tempfile.TemporaryDirectory() as folder:
        names = [f"acme/job{number}/v1/job.proto" for number in range(files)]
        for number, name in enumerate(names):
            path = Path(folder) / name
            path.parent.mkdir(parents=True)
            path.write_text(_proto(number), encoding="utf-8")
        out = Path(folder) / "set.binpb"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{_ROOT}/proto", f"-I{api}"]
        command += ["--include_imports", "--include_source_info", f"--descriptor_set_out={out}"]
        subprocess.run([*command, *names], check=True)
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    request = plugin_pb2.CodeGeneratorRequest(file_to_generate=names, parameter=parameter, proto_file=descriptors.file)
    return request.SerializeToString()


def run(options: Options) -> Result:
    """Runs both plugins on small and large trees in turn."""
    rounds = options.rounds_or(_ROUNDS)
    sizes = _SIZES[:2] if options.quick else _SIZES
    measurements = [measured for files in sizes for measured in _measure(files, rounds)]
    result = Result(
        title="generator: a plugin's run, start of the interpreter included",
        reference=_MYPY,
        measurements=tuple(measurements),
    )
    largest = _case(sizes[-1])
    goal = Goal(name=f"{_OURS} to {_MYPY}, {largest}", value=result.ratio(largest, _OURS, _MYPY, "time"), limit=10)
    return dataclasses.replace(result, goals=(goal,))


def _measure(files: int, rounds: int) -> list[Measurement]:
    runs = {
        name: functools.partial(_run, command, _request(files, parameter))
        for name, (command, parameter) in _PLUGINS.items()
    }
    measurements: list[Measurement] = []
    for name, found in interleave(rounds, runs).items():
        measure = functools.partial(Measurement, case=_case(files), subject=name)
        measurements += [
            measure(quantity="time", unit="s", values=tuple(seconds for seconds, _ in found)),
            measure(quantity="lines written", unit="", values=tuple(lines for _, lines in found)),
        ]
    return measurements


def _case(files: int) -> str:
    return f"{files * _METHODS:,} methods in {files:,} files"


def _run(command: list[str], request: bytes) -> tuple[float, int]:
    """Wall time in seconds, and lines written."""
    began = time.perf_counter()
    done = subprocess.run(command, input=request, capture_output=True, check=True)
    seconds = time.perf_counter() - began
    response = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    assert not response.error, response.error
    return seconds, sum(file.content.count("\n") for file in response.file)
