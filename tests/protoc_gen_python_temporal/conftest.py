"""Compiles inline proto text and runs the plugin on it, in this process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc  # pyright: ignore[reportMissingTypeStubs]  # the package has none

from protoc_gen_python_temporal import generate

_ROOT = Path(__file__).parents[2]

HEADER = """syntax = "proto3";
package acme.v1;
import "google/protobuf/empty.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "temporal/v1/temporal.proto";
"""

MESSAGES = """
message In {
  string name = 1; int32 number = 2; int64 big = 3; bool flag = 4; bytes blob = 5; double ratio = 6;
  Inner inner = 7; repeated string tags = 8; map<string, string> labels = 9; Kind kind = 10;
  google.protobuf.Timestamp at = 11; google.protobuf.StringValue wrapped = 12; repeated Inner inners = 13;
  optional string maybe = 14; google.protobuf.Duration span = 15; string class = 16; string some_name = 17;
}
message Inner { string name = 1; Inner inner = 2; }
message Out { string text = 1; }
enum Kind { KIND_UNSPECIFIED = 0; KIND_GOOD = 1; }
"""


def _folder(package: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return str(spec.submodule_search_locations[0])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the plugin said."""

    files: Mapping[str, str]
    error: str
    warnings: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        """The one generated module with a Temporal side."""
        assert not self.error, self.error
        [text] = [text for name, text in self.files.items() if not name.endswith("_descriptors.py")]
        return text


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., plugin_pb2.CodeGeneratorRequest]:
    """Makes the request that protoc would send for some files."""

    def make(
        files: Mapping[str, str], parameter: str = "package=gen", schema: Path | None = None
    ) -> plugin_pb2.CodeGeneratorRequest:
        for name, text in files.items():
            path = tmp_path / "proto" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        out = tmp_path / "set.binpb"
        api = _folder("temporalio") + "/bridge/sdk-core/crates/protos/protos/api_upstream"
        folders = [tmp_path / "proto", schema or _ROOT / "proto", api, _folder("grpc_tools") + "/_proto"]
        arguments = [f"-I{folder}" for folder in folders]
        flags = [f"--descriptor_set_out={out}", "--include_imports", "--include_source_info"]
        assert cast("Any", protoc).main(["protoc", *arguments, *flags, *files]) == 0, (
            "protoc refuses the proto of this test"
        )
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
        return plugin_pb2.CodeGeneratorRequest(
            file_to_generate=list(files), parameter=parameter, proto_file=descriptors.file
        )

    return make


@pytest.fixture
def framed() -> Callable[[str], dict[str, str]]:
    """Makes a whole file of some services, with imports before and messages after them."""
    return lambda body: {"acme/v1/acme.proto": HEADER + body + MESSAGES}


@pytest.fixture
def run(request_for: Callable[..., plugin_pb2.CodeGeneratorRequest]) -> Callable[..., Answer]:
    """Runs the plugin on the body of a file `acme/v1/acme.proto`, or on whole files by name."""

    def run_plugin(body: str | Mapping[str, str], parameter: str = "package=gen", schema: Path | None = None) -> Answer:
        files = {"acme/v1/acme.proto": HEADER + body + MESSAGES} if isinstance(body, str) else body
        warnings = list[str]()
        response = generate(request_for(files, parameter, schema), warnings.append)
        return Answer(
            files={file.name: file.content for file in response.file}, error=response.error, warnings=warnings
        )

    return run_plugin
