"""What the plugin reads of a request: its options, its files, and annotations that it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2

from protoc_gen_python_messages.imports import select
from protoc_gen_python_messages.plugin import generate
from protoc_gen_python_messages.request import Options

_PLAIN = {"plain/v1/a.proto": 'syntax = "proto3";\npackage plain.v1;\nmessage A { string name = 1; }\n'}
_ANNOTATED = {
    "own/v1/options.proto": """syntax = "proto2";
package own.v1;
import "google/protobuf/descriptor.proto";
message Rule { optional string text = 1; }
extend google.protobuf.FieldOptions { optional Rule rule = 50001; }
extend google.protobuf.MethodOptions { optional string note = 50002; }
""",
    "shop/v1/shop.proto": """syntax = "proto3";
package shop.v1;
import "google/protobuf/empty.proto";
import "own/v1/options.proto";
import "temporal/v1/temporal.proto";
import public "google/protobuf/timestamp.proto";
message Order {
  string id = 1 [(own.v1.rule) = {text: "not empty"}, (temporal.v1.field) = {cli: {name: "order"}}, deprecated = true];
}
service Shop {
  option (temporal.v1.service) = {task_queue: "shop"};
  option deprecated = true;
  rpc Buy(Order) returns (Order) {
    option (temporal.v1.workflow) = {name: "buy"};
    option (own.v1.note) = "kept";
  }
  rpc Stop(google.protobuf.Empty) returns (google.protobuf.Empty) { option (temporal.v1.signal) = {}; }
}
""",
}


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        pytest.param("pakage=a.b", "unknown option 'pakage'; the one option is package=dotted.name", id="unknown"),
        pytest.param("package", "option package='' is not a dotted Python package name", id="no-value"),
        pytest.param("package=", "option package='' is not a dotted Python package name", id="empty"),
        pytest.param("package=a/b", "option package='a/b' is not a dotted Python package name", id="slash"),
        pytest.param("package=a..b", "option package='a..b' is not a dotted Python package name", id="two-dots"),
        pytest.param("package=1a", "option package='1a' is not a dotted Python package name", id="digit"),
        pytest.param("package=a.class", "option package='a.class' is not a dotted Python package name", id="keyword"),
        pytest.param("package=a,package=b", "option 'package' is set twice", id="repeated"),
    ],
)
def test_wrong_options_are_errors_by_name(run: Callable[..., Any], parameter: str, message: str) -> None:
    assert run(_PLAIN, parameter=parameter).error == f"protoc-gen-python_messages: {message}"


@pytest.fixture
def stripped(request_for: Callable[..., plugin_pb2.CodeGeneratorRequest]) -> descriptor_pb2.FileDescriptorProto:
    files = select(request_for(_ANNOTATED), Options()).files
    return next(file for file in files if file.name == "shop/v1/shop.proto")


def test_annotations_are_stripped_with_their_imports(
    request_for: Callable[..., plugin_pb2.CodeGeneratorRequest], stripped: descriptor_pb2.FileDescriptorProto
) -> None:
    names = [file.name for file in select(request_for(_ANNOTATED), Options()).files]
    assert not [name for name in names if name.startswith("temporal/")]
    stripped.ClearField("source_code_info")
    assert "temporal" not in str(stripped)
    # 7233 to 7237 are the annotations' numbers; a field that a class does not know is printed by its number.
    assert "723" not in str(stripped)


def test_public_imports_are_still_the_same_files(stripped: descriptor_pb2.FileDescriptorProto) -> None:
    assert [stripped.dependency[index] for index in stripped.public_dependency] == ["google/protobuf/timestamp.proto"]


def test_all_other_options_stay(stripped: descriptor_pb2.FileDescriptorProto) -> None:
    service = stripped.service[0]
    assert service.options.deprecated
    assert b"kept" in service.method[0].options.SerializeToString()
    assert service.method[1].options.SerializeToString() == b""
    field = stripped.message_type[0].field[0].options
    assert field.deprecated
    assert b"not empty" in field.SerializeToString()


def test_annotated_services_import_without_the_annotations(
    build: Callable[..., Any], errors: Callable[..., dict[str, list[str]]]
) -> None:
    folder, texts = build(_ANNOTATED)
    assert not [path for path in texts if path.startswith("temporal/")]
    assert "shop/v1/shop_pb2_grpc.py" in texts
    assert errors(folder, "acme.gen.shop.v1") == {"acme.gen.shop.v1": []}


_SCHEDULED = {
    "contextunity/worker/options.proto": """syntax = "proto3";
package contextunity.worker;
import "google/protobuf/descriptor.proto";
message ScheduleOption { string id = 1; }
extend google.protobuf.MethodOptions { repeated ScheduleOption schedule = 50001; }
""",
    "shop/v1/nightly.proto": """syntax = "proto3";
package shop.v1;
import "contextunity/worker/options.proto";
import "google/protobuf/empty.proto";
service Nightly {
  rpc Sweep(google.protobuf.Empty) returns (google.protobuf.Empty) {
    option (contextunity.worker.schedule) = {id: "nightly"};
  }
}
""",
}
_SCHEDULE_OPTIONS, _NIGHTLY = _SCHEDULED


def test_options_of_the_worker_stay_without_an_import(
    request_for: Callable[..., plugin_pb2.CodeGeneratorRequest], run: Callable[..., Any]
) -> None:
    (file,) = (
        file
        for file in select(request_for(_SCHEDULED, [_NIGHTLY]), Options()).files
        if file.package.startswith(("shop", "contextunity"))
    )
    assert list(file.dependency) == ["google/protobuf/empty.proto"]
    assert b"nightly" in file.service[0].method[0].options.SerializeToString()
    assert not [path for path in run(_SCHEDULED, [_NIGHTLY]).files if path.startswith("contextunity/")]


def test_options_of_the_worker_have_a_module_where_they_are_asked_for(
    request_for: Callable[..., plugin_pb2.CodeGeneratorRequest], run: Callable[..., Any]
) -> None:
    file = next(file for file in select(request_for(_SCHEDULED), Options()).files if file.name == _NIGHTLY)
    assert list(file.dependency) == [_SCHEDULE_OPTIONS, "google/protobuf/empty.proto"]
    assert "contextunity/worker/options_pb2.py" in run(_SCHEDULED).files


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param([], id="nothing"),
        pytest.param(["temporal/v1/temporal.proto"], id="annotations-alone"),
    ],
)
def test_nothing_is_written_where_nothing_is_asked_for(run: Callable[..., Any], targets: list[str]) -> None:
    assert run(_ANNOTATED, targets).files == {}


def test_google_files_that_are_asked_for_become_dataclasses_alone(run: Callable[..., Any]) -> None:
    asked = ["google/protobuf/empty.proto", "google/protobuf/timestamp.proto"]
    texts = run(_ANNOTATED, asked).files
    assert "class Empty(betterproto2.Message)" in texts["google/protobuf/__init__.py"]
    assert not [path for path in texts if "_pb2" in path]


def test_a_file_that_the_request_does_not_hold_is_named(run: Callable[..., Any]) -> None:
    error = run(_PLAIN, ["other.proto"]).error
    assert error == "protoc-gen-python_messages: the request asks for other.proto, but does not contain it"


def test_a_descriptor_that_cannot_be_is_named() -> None:
    request = plugin_pb2.CodeGeneratorRequest(file_to_generate=["a.proto"])
    request.proto_file.add(name="a.proto", dependency=["missing.proto"])
    assert generate(request).error.startswith("protoc-gen-python_messages: a.proto: its descriptor is not valid")
