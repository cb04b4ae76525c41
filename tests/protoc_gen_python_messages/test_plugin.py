"""The plugin as a program: under protoc, under buf, in any folder, and with what is no request at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.compiler import plugin_pb2

_BIN = Path(sys.executable).parent
_NAME = "protoc-gen-python_messages"
_MODULE = (sys.executable, "-m", "protoc_gen_python_messages")
_FILES = {
    "shop/v1/item.proto": """syntax = "proto3";
package shop.v1;
import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";
// What is sold.
message Item {
  string name = 1 [json_name = "called"];
  string two_words = 6;
  string _odd__9name_ = 7;
  google.protobuf.Timestamp since = 2;
  google.protobuf.Duration lasts = 3;
  map<string, int32> prices = 4;
  Kind kind = 5;
}
enum Kind { KIND_UNSPECIFIED = 0; KIND_NEW = 1; }
""",
    "stock/v1/stock.proto": """syntax = "proto3";
package stock.v1;
import "shop/v1/item.proto";
message Stock { repeated shop.v1.Item items = 1; }
service StockService { rpc Count(Stock) returns (Stock); }
""",
}
_PACKAGES = ("acme.gen.shop.v1", "acme.gen.stock.v1")

Compile = Callable[..., plugin_pb2.CodeGeneratorRequest]


def _run(stdin: bytes, *command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=stdin, capture_output=True, check=False, **options)


def _texts(done: subprocess.CompletedProcess[bytes]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    response = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    assert not response.error
    return {file.name: file.content for file in response.file}


def _read(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.*") if path.is_file()}


@pytest.mark.parametrize(
    "stdin",
    [
        pytest.param(b"\xff\xff", id="bytes"),
        pytest.param(b'syntax = "proto3";\nmessage M {}\n', id="proto"),
    ],
)
def test_what_is_no_request_is_said_in_one_line(stdin: bytes) -> None:
    done = _run(stdin, *_MODULE)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(b"protoc-gen-python_messages is run by buf or protoc; stdin has no valid request")
    assert b"Traceback" not in done.stderr


def test_an_empty_request_has_an_empty_answer() -> None:
    assert _texts(_run(b"", *_MODULE)) == {}


def test_a_fault_of_the_user_is_an_answer_and_no_failure(request_for: Compile) -> None:
    done = _run(request_for(_FILES, parameter="colour=red").SerializeToString(), *_MODULE)
    assert (done.returncode, done.stderr) == (0, b"")
    error = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout).error
    assert error == "protoc-gen-python_messages: unknown option 'colour'; the one option is package=dotted.name"


def test_it_knows_optional_fields() -> None:
    response = plugin_pb2.CodeGeneratorResponse.FromString(_run(b"", *_MODULE).stdout)
    assert response.supported_features == plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL


def test_missing_programs_are_named(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(_FILES).error == (
        "protoc-gen-python_messages: not installed: protoc-gen-mypy, protoc-gen-mypy_grpc, ruff; "
        "pip install 'contextworker[generate]'"
    )


def test_missing_packages_are_named(request_for: Compile) -> None:
    # None in sys.modules is how Python notes that a module is not to be had.
    program = (
        "import sys; sys.modules.update(betterproto2_compiler=None, grpc_tools=None)\n"
        "import protoc_gen_python_messages; protoc_gen_python_messages.main()"
    )
    done = _run(request_for(_FILES).SerializeToString(), sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    assert plugin_pb2.CodeGeneratorResponse.FromString(done.stdout).error == (
        "protoc-gen-python_messages: not installed: betterproto2_compiler, grpcio-tools; "
        "pip install 'contextworker[generate]'"
    )


@pytest.fixture
def awkward(tmp_path: Path) -> Path:
    """A folder whose files could mislead the generators: configurations, packages, and modules named as theirs."""
    folder = tmp_path / "awkward"
    for name in ("__init__.py", "shop/v1/__init__.py", "google/protobuf/__init__.py", "ruff.py", "jinja2.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("raise RuntimeError('imported from the current folder')\n")
    (folder / "ruff.toml").write_text('line-length = 40\n[format]\nquote-style = "single"\n')
    (folder / "pyproject.toml").write_text("[tool.ruff]\nno-such-setting = true\n")
    return folder


def test_the_answer_is_the_same_in_any_folder_and_run(request_for: Compile, awkward: Path, tmp_path: Path) -> None:
    request = request_for(_FILES).SerializeToString()
    script = str(_BIN / _NAME)
    answers = [
        _run(request, script, cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": "1"}),
        _run(request, script, cwd=awkward, env={**os.environ, "PYTHONHASHSEED": "2"}),
        # The folder for temporary files in the awkward one, and its ruff.toml as that of the user.
        _run(request, script, env={**os.environ, "TMPDIR": str(awkward), "XDG_CONFIG_HOME": str(awkward.parent)}),
    ]
    texts = [_texts(answer) for answer in answers]
    assert answers[0].stdout == answers[1].stdout == answers[2].stdout
    assert {"shop/v1/__init__.py", "google/protobuf/__init__.py", "stock/v1/stock_pb2_grpc.py"} < set(texts[0])
    assert sorted(_read(awkward)) == [
        *("__init__.py", "google/protobuf/__init__.py", "jinja2.py", "pyproject.toml", "ruff.py", "ruff.toml"),
        "shop/v1/__init__.py",
    ]


def test_protoc_runs_the_installed_program(
    request_for: Compile, tmp_path: Path, errors: Callable[..., dict[str, list[str]]]
) -> None:
    request = request_for(_FILES)
    out = tmp_path / "acme" / "gen"
    out.mkdir(parents=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path / 'proto'}"),
            *(f"--plugin={_NAME}={_BIN / _NAME}", f"--python_messages_out=package=acme.gen:{out}", *_FILES),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert _read(out) == _texts(_run(request.SerializeToString(), *_MODULE))
    assert errors(tmp_path, *_PACKAGES) == {package: [] for package in _PACKAGES}


def test_buf_runs_it_in_somebody_elses_repository(
    request_for: Compile, tmp_path: Path, errors: Callable[..., dict[str, list[str]]]
) -> None:
    request = request_for(_FILES)
    buf = shutil.which("buf", path=f"{_BIN}{os.pathsep}{os.environ['PATH']}")
    assert buf is not None
    (tmp_path / "buf.yaml").write_text("version: v2\nmodules: [{path: proto}]\n")
    (tmp_path / "buf.gen.yaml").write_text(
        "version: v2\nclean: true\ninputs: [{directory: .}]\nplugins:\n"
        f"  - local: {_NAME}\n    out: acme/gen\n    opt: package=acme.gen\n    strategy: all\n"
    )
    environment = {**os.environ, "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"}

    def generate() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [buf, "generate"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    done = generate()
    assert done.returncode == 0, done.stderr
    written = _read(tmp_path / "acme" / "gen")
    expected = _texts(_run(request.SerializeToString(), *_MODULE))
    assert written.keys() == expected.keys()
    # buf and protoc write descriptors with differences that mean nothing; the dataclasses show none of them.
    assert written["shop/v1/__init__.py"] == expected["shop/v1/__init__.py"]
    assert errors(tmp_path, *_PACKAGES) == {package: [] for package in _PACKAGES}
    # Once more over what is there.
    assert generate().returncode == 0
    assert _read(tmp_path / "acme" / "gen").keys() >= expected.keys()
    path = tmp_path / "proto/shop/v1/item.proto"
    path.write_text(path.read_text().replace("KIND_NEW", "KIND_mro"))
    failed = generate()
    assert failed.returncode != 0
    assert "shop/v1/item.proto:15: enum shop.v1.Kind: value KIND_mro becomes mro" in failed.stderr


def test_modules_stand_beside_anothers_copy_of_the_same_protos(
    build: Callable[..., tuple[Path, Mapping[str, str]]], compiled: Compile
) -> None:
    folder, _texts_by_path = build(_FILES)
    own = folder / "own"
    own.mkdir()
    compiled(own, _FILES)
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{own}", f"--python_out={own}", f"--grpc_python_out={own}", *_FILES),
        ],
        check=True,
    )
    program = """
import sys
sys.path[:0] = sys.argv[1:]
import shop.v1.item_pb2, stock.v1.stock_pb2_grpc
import acme.gen.stock.v1.stock_pb2_grpc
from acme.gen.shop.v1 import Item, item_pb2
from contextunity.core import codec
assert item_pb2 is not shop.v1.item_pb2
assert item_pb2.DESCRIPTOR is shop.v1.item_pb2.DESCRIPTOR
item = codec.decode(Item, shop.v1.item_pb2.Item(name="axe").SerializeToString())
assert shop.v1.item_pb2.Item.FromString(codec.encode(item)).name == "axe"
print("both")
"""
    done = _run(b"", sys.executable, "-c", program, str(folder), str(own))
    assert done.stdout == b"both\n", done.stderr.decode()
