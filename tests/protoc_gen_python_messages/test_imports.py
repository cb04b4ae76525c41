"""Imports among generated modules: they begin with the option's package, and what is not generated keeps its name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Build = Callable[[Mapping[str, str]], tuple[Path, Mapping[str, str]]]

_HEAD = 'syntax = "proto3";\n'
_FILES = {
    "shop/v1/item.proto": f"{_HEAD}package shop.v1;\nmessage Item {{ string name = 1; }}",
    "shop/v1/two-words.proto": (
        f'{_HEAD}package shop.v1;\nimport "shop/v1/item.proto";\n'
        "message Box { Item item = 1; } service Boxes { rpc Get(Item) returns (Box); }"
    ),
    "shop/v1/dotted.name.proto": f"{_HEAD}package shop.v1;\nmessage Dotted {{ string name = 1; }}\n"
    "service DottedService { rpc Get(Dotted) returns (Dotted); }",
    "shop/v1/handed.on.proto": (
        f'{_HEAD}package shop.v1;\nimport public "shop/v1/item.proto";\nimport "shop/v1/dotted.name.proto";\n'
        "message HandedOn { Item item = 1; Dotted dotted = 2; }"
    ),
    "shop/v1/user.proto": (
        f'{_HEAD}package shop.v1;\nimport "shop/v1/handed.on.proto";\nimport "google/protobuf/timestamp.proto";\n'
        "message User { Item item = 1; google.protobuf.Timestamp at = 2; }"
    ),
    # Two packages, each with messages of the other.
    "mutual/a/one.proto": f"{_HEAD}package mutual.a;\nmessage One {{ string name = 1; }}",
    "mutual/b/two.proto": (
        f'{_HEAD}package mutual.b;\nimport "mutual/a/one.proto";\nmessage Two {{ mutual.a.One one = 1; }}'
    ),
    "mutual/a/three.proto": (
        f'{_HEAD}package mutual.a;\nimport "mutual/b/two.proto";\nmessage Three {{ mutual.b.Two two = 1; }}'
    ),
    # No folder and no package.
    "bare.proto": f"{_HEAD}message Bare {{ string name = 1; }}",
    "bare-user.proto": (
        f'{_HEAD}import "bare.proto";\nmessage BareUser {{ Bare bare = 1; }}\n'
        "service BareService { rpc Get(Bare) returns (BareUser); }"
    ),
    # One proto package out of two folders, neither of which has its name.
    "folder-one/a.proto": f"{_HEAD}package both.v1;\nmessage First {{ string name = 1; }}",
    "folder-two/a.proto": (
        f'{_HEAD}package both.v1;\nimport "folder-one/a.proto";\nmessage Second {{ First first = 1; }}'
    ),
}


@pytest.fixture(scope="module")
def tree(build: Build) -> tuple[Path, Mapping[str, str]]:
    return build(_FILES)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param("shop/v1/two_words_pb2.py", "from acme.gen.shop.v1 import item_pb2 as ", id="module"),
        pytest.param("shop/v1/two_words_pb2.pyi", "from acme.gen.shop.v1 import item_pb2 as ", id="stub"),
        pytest.param("shop/v1/two_words_pb2_grpc.py", "from acme.gen.shop.v1 import two_words_pb2 as ", id="grpc"),
        pytest.param("shop/v1/two_words_pb2_grpc.pyi", "from acme.gen.shop.v1 import item_pb2 as ", id="grpc-stub"),
        pytest.param("shop/v1/handed/on_pb2.py", "from acme.gen.shop.v1.dotted import name_pb2 as ", id="dots"),
        pytest.param("shop/v1/handed/on_pb2.pyi", "from acme.gen.shop.v1.dotted import name_pb2 as ", id="dots-stub"),
        pytest.param("shop/v1/handed/on_pb2.py", "from acme.gen.shop.v1.item_pb2 import *", id="public"),
        pytest.param(
            "shop/v1/handed/on_pb2.pyi", "from acme.gen.shop.v1.item_pb2 import Item as Item", id="public-stub"
        ),
        pytest.param("bare_user_pb2.py", "from acme.gen import bare_pb2 as ", id="no-folder"),
        pytest.param("bare_user_pb2.pyi", "from acme.gen import bare_pb2 as ", id="no-folder-stub"),
        pytest.param("bare_user_pb2_grpc.py", "from acme.gen import bare_user_pb2 as ", id="no-folder-grpc"),
        pytest.param("folder_two/a_pb2.py", "from acme.gen.folder_one import a_pb2 as ", id="folders"),
        pytest.param("mutual/b/two_pb2.py", "from acme.gen.mutual.a import one_pb2 as ", id="mutual-b"),
        pytest.param("mutual/a/three_pb2.py", "from acme.gen.mutual.b import two_pb2 as ", id="mutual-a"),
    ],
)
def test_imports_begin_with_the_package(tree: tuple[Path, Mapping[str, str]], path: str, line: str) -> None:
    assert f"\n{line}" in tree[1][path]


def test_no_import_goes_by_the_name_of_the_file(tree: tuple[Path, Mapping[str, str]]) -> None:
    roots = ("shop", "mutual", "bare", "folder")
    lines = [line.strip() for text in tree[1].values() for line in text.splitlines()]
    assert [
        line
        for line in lines
        if line.startswith(tuple(f"{word} {root}" for word in ("from", "import") for root in roots))
    ] == []


def test_google_modules_are_those_of_google(tree: tuple[Path, Mapping[str, str]]) -> None:
    _folder, texts = tree
    assert "from google.protobuf import timestamp_pb2 as " in texts["shop/v1/user_pb2.py"]
    assert "class Timestamp(betterproto2.Message)" in texts["google/protobuf/__init__.py"]
    assert [path for path in texts if path.startswith("google/") and "_pb2" in path] == []


def test_descriptors_keep_the_names_of_their_files(tree: tuple[Path, Mapping[str, str]]) -> None:
    assert "shop/v1/two-words.proto" in tree[1]["shop/v1/two_words_pb2.py"]
    assert "acme/gen" not in tree[1]["shop/v1/two_words_pb2.py"]


def test_only_files_with_services_get_a_grpc_module(tree: tuple[Path, Mapping[str, str]]) -> None:
    assert {path for path in tree[1] if "_pb2_grpc" in path} == {
        f"{stem}_pb2_grpc.{suffix}"
        for stem in ("shop/v1/two_words", "shop/v1/dotted/name", "bare_user")
        for suffix in ("py", "pyi")
    }


def test_everything_imports_and_round_trips(
    tree: tuple[Path, Mapping[str, str]], errors: Callable[..., dict[str, list[str]]]
) -> None:
    packages = ["acme.gen.shop.v1", "acme.gen.mutual.a", "acme.gen.mutual.b", "acme.gen.both.v1", "acme.gen"]
    assert errors(tree[0], *packages) == {package: [] for package in packages}


def test_without_the_option_imports_go_by_the_name_of_the_file(run: Callable[..., object]) -> None:
    names = ("mutual/a/one.proto", "mutual/b/two.proto")
    answer = run({name: _FILES[name] for name in names}, parameter="")
    texts: Mapping[str, str] = answer.files  # type: ignore[attr-defined]  # conftest's class cannot be imported here
    assert "\nfrom mutual.a import one_pb2 as " in texts["mutual/b/two_pb2.py"]


_BORROWED = {
    "shop/v1/rules.proto": """syntax = "proto2";
package shop.v1;
import "buf/validate/validate.proto";
extend buf.validate.StringRules {
  // Two capital letters.
  optional bool country = 70000001 [(buf.validate.predefined).cel = {
    id: "string.country"
    message: "must be two capital letters"
    expression: "!rule || this.matches('^[A-Z][A-Z]$')"
  }];
}
""",
    "shop/v1/shipment.proto": """syntax = "proto3";
package shop.v1;
import "buf/validate/validate.proto";
import "google/rpc/status.proto";
import "shop/v1/rules.proto";
import "temporal/api/common/v1/message.proto";
import "temporal/v1/temporal.proto";
message Shipment {
  string country = 1 [(buf.validate.field).string.(shop.v1.country) = true];
  temporal.api.common.v1.Priority priority = 2;
  temporal.v1.RetryPolicy retry = 3;
  repeated google.rpc.Status trouble = 4;
  buf.validate.FieldRules rules = 5;
}
service ShipmentService {
  option (temporal.v1.service) = {task_queue: "shipments"};
  rpc Ship(Shipment) returns (Shipment) { option (temporal.v1.workflow) = {name: "ship"}; }
}
""",
}


@pytest.fixture(scope="module")
def borrowing(build: Build) -> tuple[Path, Mapping[str, str]]:
    return build(_BORROWED)


def test_types_of_installed_packages_are_used_from_there(
    borrowing: tuple[Path, Mapping[str, str]], errors: Callable[..., dict[str, list[str]]]
) -> None:
    folder, texts = borrowing
    module = texts["shop/v1/shipment_pb2.py"]
    for line in (
        "from temporalio.api.common.v1 import message_pb2 as ",
        "from contextunity.gen.temporal.v1 import temporal_pb2 as ",
        "from contextunity.gen.buf.validate import validate_pb2 as ",
        "from google.rpc import status_pb2 as ",
    ):
        assert f"\n{line}" in module
    assert "from contextunity.gen.buf.validate import validate_pb2 as " in texts["shop/v1/rules_pb2.py"]
    assert {path for path in texts if "_pb2" in path} == {
        f"shop/v1/{stem}.{suffix}"
        for stem in ("rules_pb2", "shipment_pb2", "shipment_pb2_grpc")
        for suffix in ("py", "pyi")
    }
    packages = ("shop.v1", "temporal.v1", "temporal.api.common.v1", "google.rpc", "buf.validate")
    assert errors(folder, *(f"acme.gen.{package}" for package in packages)) == {
        f"acme.gen.{package}": [] for package in packages
    }


def test_a_predefined_rule_is_enforced(borrowing: tuple[Path, Mapping[str, str]]) -> None:
    program = """
from acme.gen.shop.v1 import Shipment
from contextunity.core import validation
print(validation.violations(Shipment(country="no")), validation.violations(Shipment(country="NO")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=borrowing[0], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == """[Violation(path='country', reason="must be two capital letters, not 'no'")] []\n"""


_ELSEWHERE = {
    "other/v1/other.proto": """syntax = "proto3";
package other.v1;
import "google/protobuf/descriptor.proto";
message Other { string name = 1; }
extend google.protobuf.FieldOptions { string note = 50001; }
""",
    "shop/v1/order.proto": """syntax = "proto3";
package shop.v1;
import "other/v1/other.proto";
message Order {
  string id = 1 [(other.v1.note) = "kept"];
  map<string, other.v1.Other> others = 2;
}
service OrderService {
  rpc Get(other.v1.Other) returns (Order);
}
""",
}


def test_a_type_that_nobody_generated_is_an_error_with_its_places(run: Callable[..., Any]) -> None:
    reason = (
        "other.v1.Other is declared in other/v1/other.proto, which is neither among the files to generate nor "
        "installed as other.v1.other_pb2; add it to `inputs`, or set `include_imports: true`"
    )
    assert run(_ELSEWHERE, ["shop/v1/order.proto"]).error.removeprefix("protoc-gen-python_messages: ").splitlines() == [
        f"shop/v1/order.proto:{line}: {reason}" for line in (6, 9)
    ]


def test_an_import_for_options_alone_needs_no_module(
    run: Callable[..., Any], write: Callable[..., None], tmp_path: Path, errors: Callable[..., dict[str, list[str]]]
) -> None:
    order = _ELSEWHERE["shop/v1/order.proto"].replace("other.v1.Other", "string", 1).partition("service")[0]
    texts = run(_ELSEWHERE | {"shop/v1/order.proto": order}, ["shop/v1/order.proto"]).files
    assert "other_pb2" not in texts["shop/v1/order_pb2.py"]
    assert "kept" in texts["shop/v1/order_pb2.py"]
    write(tmp_path, texts)
    assert errors(tmp_path, "acme.gen.shop.v1") == {"acme.gen.shop.v1": []}


def test_types_that_an_earlier_run_generated_are_used(
    run: Callable[..., Any],
    write: Callable[..., None],
    tmp_path: Path,
    errors: Callable[..., dict[str, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "src", run(_ELSEWHERE, ["other/v1/other.proto"]).files)
    texts = run(_ELSEWHERE, ["shop/v1/order.proto"]).files
    assert "from acme.gen.other.v1 import other_pb2 as " in texts["shop/v1/order_pb2.py"]
    assert not [path for path in texts if path.startswith("other/")]
    write(tmp_path / "src", texts)
    assert errors(tmp_path / "src", "acme.gen.shop.v1") == {"acme.gen.shop.v1": []}
