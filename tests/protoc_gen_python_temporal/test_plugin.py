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

from contextunity.worker.protos import export_third_party
from protoc_gen_python_temporal import generate

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
    assert [file.name for file in response.file] == ["acme/v1/acme_descriptors.py", "acme/v1/acme_temporal.py"]
    assert response.supported_features & plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    assert b"activity Act is retried without limit" in done.stderr


def test_what_is_no_request_is_said_in_one_line() -> None:
    done = _run(b"\xff\xff", sys.executable, "-m", "protoc_gen_python_temporal")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(b"protoc-gen-python_temporal is run by buf or protoc; stdin has no valid request")
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


def _broken(request_bytes: bytes, change: Callable[[Any], None]) -> str:
    """What the plugin says of a request whose last file, the annotated one, was changed."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(request_bytes)
    change(request.proto_file[-1])
    return generate(request).error


def _set_input(file: Any) -> None:
    file.service[0].method[0].input_type = "In"


def _garble_options(file: Any) -> None:
    # Field 7233, the workflow's options, holding a name that is not UTF-8.
    file.service[0].method[0].options.MergeFromString(b"\x8a\xc4\x03\x03\x72\x01\xff")


def _break_name(file: Any) -> None:
    file.name = "acme/v1/acme\n.proto"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(_set_input, "the request names the message In, but does not contain it", id="type"),
        pytest.param(_garble_options, "acme/v1/acme.proto: its options do not match the options schema", id="options"),
        pytest.param(_break_name, "the request asks for acme/v1/acme.proto, but does not contain it", id="name"),
    ],
)
def test_a_request_that_no_compiler_sends_is_refused_in_words(
    request_bytes: bytes, change: Callable[[Any], None], reason: str
) -> None:
    assert reason in _broken(request_bytes, change)


def test_a_file_name_that_would_break_the_code_is_refused(request_bytes: bytes) -> None:
    request = plugin_pb2.CodeGeneratorRequest.FromString(request_bytes)
    request.proto_file[-1].name = request.file_to_generate[0] = "acme/v1/acme\nimport os.proto"
    assert "contains unprintable characters; rename the file" in generate(request).error


def test_a_comment_in_another_encoding_is_kept_as_far_as_it_can_be_read(
    framed: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    [(name, text)] = framed(_SERVICE.replace("service S {", "// F\u00fcr alle.\nservice S {")).items()
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text, encoding="latin-1")
    plugin = tmp_path / "protoc-gen-python_temporal"
    plugin.write_text(f"#!/bin/sh\nexec {sys.executable} -m protoc_gen_python_temporal\n")
    plugin.chmod(0o755)
    export_third_party(tmp_path / "api")
    folders = [f"-I{folder}" for folder in (tmp_path, Path(__file__).parents[2] / "proto", tmp_path / "api")]
    command = [sys.executable, "-m", "grpc_tools.protoc", *folders, f"--plugin={plugin}"]
    done = _run(b"", *command, f"--python_temporal_out=package=gen:{tmp_path}", name)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "acme/v1/acme_temporal.py").read_text(encoding="utf-8")
    assert "F\N{REPLACEMENT CHARACTER}r alle." in written


def test_a_file_that_the_request_does_not_hold_is_named(run: Callable[..., Any]) -> None:
    done = _run(
        plugin_pb2.CodeGeneratorRequest(file_to_generate=["a.proto"]).SerializeToString(),
        sys.executable,
        "-m",
        "protoc_gen_python_temporal",
    )
    assert plugin_pb2.CodeGeneratorResponse.FromString(done.stdout).error.endswith(
        "the request asks for a.proto, but does not contain it"
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
    assert "activity Act is retried without limit" in done.stderr
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert written == {"acme/v1/acme_descriptors.py", "acme/v1/acme_temporal.py", "all.md"}
    (tmp_path / "proto" / name).write_text(text.replace('{name: "work"}', '{namespace: "x"}'))
    failed = subprocess.run([buf, "generate"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert f"{name}:" in failed.stderr
    assert "option (temporal.v1.workflow).namespace is not supported" in failed.stderr
