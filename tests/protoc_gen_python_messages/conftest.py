"""Compiles inline proto text, runs the plugin on it in this process, and tries what it writes in another one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import betterproto2
import grpc_tools  # type: ignore[import-untyped]  # the package has no types
import pytest
import temporalio
from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc

from protoc_gen_python_messages.plugin import generate

_ROOT = Path(__file__).parents[2]
_ROUND_TRIP = Path(__file__).parent / "round_trip.py"

INCLUDES = (
    _ROOT / "proto",
    _ROOT / "third_party/protovalidate",
    Path(cast("str", grpc_tools.__file__)).parent / "_proto",
    Path(cast("str", betterproto2.__file__)).parents[1],
)
"""Folders of protos that tests import: temporal.v1, rules, Google's well-known types, and those of googleapis."""

Compile = Callable[..., plugin_pb2.CodeGeneratorRequest]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the plugin said."""

    texts: Mapping[str, str]
    error: str

    @property
    def files(self) -> Mapping[str, str]:
        """The generated files."""
        assert not self.error, self.error
        return self.texts


def _api() -> Path:
    folder = Path(temporalio.__file__).parent
    return folder / "bridge/sdk-core/crates/protos/protos/api_upstream"


def compile_protos(
    folder: Path, files: Mapping[str, str], targets: list[str] | None = None, parameter: str = "package=acme.gen"
) -> plugin_pb2.CodeGeneratorRequest:
    """The request that protoc would send for some files, by name, that are written to `folder`."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    out = folder / "set.binpb"
    arguments = [f"-I{include}" for include in (folder, *INCLUDES, _api())]
    flags = [f"--descriptor_set_out={out}", "--include_imports", "--include_source_info"]
    assert cast("Any", protoc).main(["protoc", *arguments, *flags, *files]) == 0, "protoc refuses the test's proto"
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return plugin_pb2.CodeGeneratorRequest(
        file_to_generate=list(files) if targets is None else targets, parameter=parameter, proto_file=descriptors.file
    )


def answer(request: plugin_pb2.CodeGeneratorRequest) -> Answer:
    """Runs the plugin."""
    response = generate(request)
    return Answer(texts={file.name: file.content for file in response.file}, error=response.error)


def write_tree(folder: Path, texts: Mapping[str, str], package: str = "acme.gen") -> None:
    """Writes generated files as the Python package `package` below `folder`."""
    root = folder.joinpath(*package.split("."))
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def faults_of(folder: Path, *packages: str) -> dict[str, list[str]]:
    """Imports generated packages in another process and sends their messages through the codec.

    Returns:
        What failed, by package; nothing where all is well.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(_ROUND_TRIP), *packages],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return cast("dict[str, list[str]]", json.loads(done.stdout))


@pytest.fixture
def request_for(tmp_path: Path) -> Compile:
    """Makes the request that protoc would send for some files."""
    return lambda files, targets=None, parameter="package=acme.gen": compile_protos(
        tmp_path / "proto", files, targets, parameter
    )


@pytest.fixture
def run(request_for: Compile) -> Callable[..., Answer]:
    """Runs the plugin on whole files by name."""
    return lambda *arguments, **options: answer(request_for(*arguments, **options))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, str]], tuple[Path, Mapping[str, str]]]:
    """Generates files as `acme.gen` into a folder; returns the folder and what was written, once for a module."""

    def generate_once(files: Mapping[str, str]) -> tuple[Path, Mapping[str, str]]:
        folder = tmp_path_factory.mktemp("tree")
        texts = answer(compile_protos(folder / "proto", files)).files
        write_tree(folder, texts)
        return folder, texts

    return generate_once


@pytest.fixture(scope="session")
def compiled() -> Compile:
    """Makes a request of files that are written to a folder of the caller's."""
    return compile_protos


@pytest.fixture(scope="session")
def errors() -> Callable[..., dict[str, list[str]]]:
    """Tries generated packages in another process."""
    return faults_of


@pytest.fixture(scope="session")
def write() -> Callable[..., None]:
    """Writes a tree of generated files."""
    return write_tree
