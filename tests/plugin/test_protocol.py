"""The plugin as a program: under protoc, under buf, and with what is no request at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.compiler import plugin_pb2

_SERVICE = """
service S {
  rpc Work(In) returns (Out) { option (temporal.v1.workflow) = {name: "work"}; }
  rpc Act(In) returns (Out) { option (temporal.v1.activity) = {start_to_close_timeout: {seconds: 1}}; }
}
"""
_BIN = Path(sys.executable).parent


@pytest.fixture
def request_bytes(
    request_for: Callable[..., plugin_pb2.CodeGeneratorRequest], framed: Callable[[str], dict[str, str]]
) -> bytes:
    return request_for(framed(_SERVICE)).SerializeToString()


def _run(stdin: bytes, *command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param((str(_BIN / "protoc-gen-python_temporal"),), id="script"),
        pytest.param((sys.executable, "-m", "protoc_gen_python_temporal"), id="module"),
    ],
)
def test_it_answers_on_stdout_and_warns_on_stderr(request_bytes: bytes, command: tuple[str, ...]) -> None:
    if not Path(command[0]).exists():
        pytest.skip("the script is not installed")
    done = _run(request_bytes, *command)
    assert done.returncode == 0
    response = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    assert [file.name for file in response.file] == ["acme/v1/acme_temporal.py"]
    assert response.supported_features & plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    assert b"activity Act is tried without end" in done.stderr


def test_what_is_no_request_is_said_in_one_line() -> None:
    done = _run(b"\xff\xff", sys.executable, "-m", "protoc_gen_python_temporal")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(b"protoc-gen-python_temporal is run by buf or protoc; stdin holds no request")
    assert b"Traceback" not in done.stderr


def test_an_empty_request_has_an_empty_answer() -> None:
    done = _run(b"", sys.executable, "-m", "protoc_gen_python_temporal")
    assert done.returncode == 0
    assert not plugin_pb2.CodeGeneratorResponse.FromString(done.stdout).file


def test_a_descriptor_that_cannot_be_is_no_traceback() -> None:
    request = plugin_pb2.CodeGeneratorRequest(file_to_generate=["a.proto"])
    request.proto_file.add(name="a.proto", dependency=["missing.proto"])
    done = _run(request.SerializeToString(), sys.executable, "-m", "protoc_gen_python_temporal")
    assert done.returncode == 0
    response = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    assert "a.proto: its descriptor is not valid" in response.error


def test_a_file_that_the_request_does_not_hold_is_named(run: Callable[..., Any]) -> None:
    done = _run(
        plugin_pb2.CodeGeneratorRequest(file_to_generate=["a.proto"]).SerializeToString(),
        sys.executable,
        "-m",
        "protoc_gen_python_temporal",
    )
    assert plugin_pb2.CodeGeneratorResponse.FromString(done.stdout).error.endswith(
        "the request asks for a.proto, but does not hold it"
    )


def test_it_imports_neither_the_runtime_nor_our_packages() -> None:
    program = (
        "import sys, protoc_gen_python_temporal\n"
        "print([name for name in sys.modules if name.partition('.')[0] in "
        "('temporalio', 'betterproto2', 'contextunity', 'python_temporal')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_buf_runs_it_for_each_folder(framed: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    buf = shutil.which("buf", path=f"{_BIN}{os.pathsep}{os.environ['PATH']}")
    assert buf is not None
    [(name, text)] = framed(_SERVICE).items()
    root = Path(__file__).parents[2]
    (tmp_path / "proto/acme/v1").mkdir(parents=True)
    (tmp_path / "proto" / name).write_text(text)
    shutil.copytree(root / "proto/temporal", tmp_path / "proto/temporal")
    subprocess.run([sys.executable, root / "tools/third_party_protos.py", tmp_path / "api"], check=True)
    (tmp_path / "buf.yaml").write_text("version: v2\nmodules: [{path: proto}, {path: api}]\n")
    (tmp_path / "buf.gen.yaml").write_text(
        "version: v2\ninputs: [{directory: ., paths: [proto/acme]}]\nplugins:\n"
        f"  - local: [{sys.executable}, -m, protoc_gen_python_temporal]\n"
        "    out: out\n    opt: [package=gen, docs=all.md]\n"
    )
    done = subprocess.run([buf, "generate"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "activity Act is tried without end" in done.stderr
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert written == {"acme/v1/acme_temporal.py", "all.md"}
    (tmp_path / "proto" / name).write_text(text.replace('{name: "work"}', '{namespace: "x"}'))
    failed = subprocess.run([buf, "generate"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert f"{name}:" in failed.stderr
    assert "option (temporal.v1.workflow).namespace is not supported" in failed.stderr
