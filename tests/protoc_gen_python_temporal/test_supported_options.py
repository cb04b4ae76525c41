"""Every field of the options schema is either obeyed or refused: the whole schema is walked, field by field."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpc_tools import protoc  # pyright: ignore[reportMissingTypeStubs]  # the package has none

from protoc_gen_python_temporal import generate
from protoc_gen_python_temporal.supported_options import SUPPORTED

_BODY = """
service S {
  rpc Work(In) returns (Out) { option (temporal.v1.workflow) = {
    query: {ref: "Ask"} signal: {ref: "Tell"} update: {ref: "Change"} }; }
  rpc Act(In) returns (Out) { option (temporal.v1.activity) = {
    start_to_close_timeout: {seconds: 1} retry_policy: {max_attempts: 7} }; }
  rpc Ask(In) returns (Out) { option (temporal.v1.query) = {}; }
  rpc Tell(In) returns (google.protobuf.Empty) { option (temporal.v1.signal) = {}; }
  rpc Change(In) returns (Out) { option (temporal.v1.update) = {}; }
}
"""
_METHODS = {"workflow": 0, "activity": 1, "query": 2, "signal": 3, "update": 4}
_TEXTS = {
    "search_attributes": "Name = name",
    "typed_search_attributes": "keyword.Name = name",
    "ref": "acme.v1.S.{}",
}
# What must be set beside a field for it to mean anything.
_BESIDE = {"update.workflow_id_conflict_policy": ("update.start",)}

# Fields that the services of the test of older schemas use.
_IN_BODY = {
    "temporal.api.common.v1.Priority.priority_key",
    "temporal.v1.ActivityOptions.priority",
    "temporal.v1.ActivityOptions.retry_policy",
    "temporal.v1.ActivityOptions.start_to_close_timeout",
    "temporal.v1.RetryPolicy.max_attempts",
    "temporal.v1.WorkflowOptions.query",
    "temporal.v1.WorkflowOptions.signal",
    "temporal.v1.WorkflowOptions.update",
    "temporal.v1.WorkflowOptions.Query.ref",
    "temporal.v1.WorkflowOptions.Signal.ref",
    "temporal.v1.WorkflowOptions.Update.ref",
}


@dataclass(frozen=True)
class Case:
    """One field of an annotation, by its path."""

    annotation: str
    path: str

    def __str__(self) -> str:
        return f"{self.annotation}:{self.path}"


def _schema() -> descriptor_pool.DescriptorPool:
    """The options as this repository's own schema declares them."""
    root = Path(__file__).parents[2]
    spec = importlib.util.find_spec("temporalio")
    assert spec is not None
    assert spec.submodule_search_locations
    api = Path(spec.submodule_search_locations[0]) / "bridge/sdk-core/crates/protos/protos/api_upstream"
    includes = Path(str(protoc.__file__)).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        command = ["protoc", *(f"-I{each}" for each in (root / "proto", api, includes)), f"--descriptor_set_out={out}"]
        run: Any = protoc
        assert run.main([*command, "--include_imports", "temporal/v1/temporal.proto"]) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


def _paths(message: Descriptor, prefix: str = "") -> Iterator[str]:
    for field in message.fields:
        yield f"{prefix}{field.name}"
        if field.message_type is not None and field.message_type.full_name != "google.protobuf.Duration":
            yield from _paths(field.message_type, f"{prefix}{field.name}.")


def _cases() -> list[Case]:
    pool = _schema()
    cases = list[Case]()
    for annotation in ("service", "cli", *_METHODS, "field"):
        extension = pool.FindExtensionByName(f"temporal.v1.{annotation}")
        assert extension.message_type is not None
        cases += [Case(annotation, path) for path in _paths(extension.message_type)]
    return cases


_CASES = _cases()


def _set(message: Any, path: str) -> None:
    """Gives the field at a path, and the messages that lead to it, a value that is valid and not its default."""
    name, _, rest = path.partition(".")
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.message_type is not None:
        target = getattr(message, name)
        if field.is_repeated:
            target = target[0] if target else target.add()
        target.SetInParent()
        if rest:
            _set(target, rest)
        elif field.message_type.full_name == "google.protobuf.Duration":
            target.seconds = 1234
        return
    value = _value(field, name)
    if field.is_repeated:
        getattr(message, name).append(value)
    else:
        setattr(message, name, value)


def _value(field: FieldDescriptor, name: str) -> Any:
    if field.type == field.TYPE_STRING:
        return _TEXTS.get(name, f"some-{name}")
    if field.type == field.TYPE_BOOL:
        return True
    if field.type == field.TYPE_ENUM:
        assert field.enum_type is not None
        return field.enum_type.values[2].number if name.startswith("wait") else field.enum_type.values[1].number
    return 3


def _mutated(request: plugin_pb2.CodeGeneratorRequest, case: Case) -> plugin_pb2.CodeGeneratorRequest:
    """The request with one field of one annotation set."""
    pool = descriptor_pool.DescriptorPool()
    for file in request.proto_file:
        pool.Add(file)
    extension = pool.FindExtensionByName(f"temporal.v1.{case.annotation}")
    for name in ("google.protobuf.ServiceOptions", "google.protobuf.MethodOptions", "google.protobuf.FieldOptions"):
        message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    cls: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto"))
    mutated = plugin_pb2.CodeGeneratorRequest.FromString(request.SerializeToString())
    file = cls.FromString(mutated.proto_file[-1].SerializeToString())
    if case.annotation in _METHODS:
        options = file.service[0].method[_METHODS[case.annotation]].options
    else:
        options = file.message_type[0].field[0].options if case.annotation == "field" else file.service[0].options
    annotation = options.Extensions[extension]
    annotation.SetInParent()
    for path in (case.path, *_BESIDE.get(case.path, ())):
        if path.endswith(".ref"):
            entry = getattr(annotation, path.partition(".")[0])[0]
            entry.ref = f"acme.v1.S.{entry.ref}"
        else:
            _set(annotation, path)
    mutated.proto_file[-1].ParseFromString(file.SerializeToString())
    return mutated


@pytest.fixture
def base(
    request_for: Callable[..., plugin_pb2.CodeGeneratorRequest], framed: Callable[[str], dict[str, str]]
) -> plugin_pb2.CodeGeneratorRequest:
    return request_for(framed(_BODY))


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in _CASES])
def test_each_field_is_obeyed_or_refused(base: plugin_pb2.CodeGeneratorRequest, case: Case) -> None:
    before, after = generate(base), generate(_mutated(base, case))
    assert not before.error
    if case.path in SUPPORTED.get(case.annotation, ()):
        assert not after.error, "it is in the ledger, and refused"
        if case.path.endswith(".ref"):
            return  # The same reference in its other form comes to the same.
        if case.annotation == "activity" and case.path == "retry_policy":
            return  # It is there already; its fields are cases of their own.
        if case.path in ("query", "signal", "update", "retry_policy", "priority") and case.annotation == "workflow":
            # An empty message says nothing, or is there already; its fields are cases of their own.
            return
        assert _module(after) != _module(before), "it changes nothing"
    else:
        assert "is not supported: " in after.error
        assert "acme/v1/acme.proto:" in after.error


def test_the_ledger_names_no_field_that_is_not_there() -> None:
    known = {(case.annotation, case.path) for case in _CASES}
    assert {(annotation, path) for annotation, paths in SUPPORTED.items() for path in paths} <= known


@pytest.mark.parametrize("family", ["cli", "nexus", "patches", "xns"])
def test_other_generators_annotations_can_be_passed_over(base: plugin_pb2.CodeGeneratorRequest, family: str) -> None:
    cases = [case for case in _CASES if family in (case.annotation, *case.path.split("."))]
    assert cases
    plain = _module(generate(base))
    for case in cases:
        mutated = _mutated(base, case)
        assert family in generate(mutated).error
        mutated.parameter += f",ignore={family}"
        passed = generate(mutated)
        assert not passed.error
        assert _module(passed)[4:] == plain[4:]


def test_a_schema_that_lacks_a_field_serves_whoever_does_not_use_it(
    request_for: Callable[..., plugin_pb2.CodeGeneratorRequest], framed: Callable[[str], dict[str, str]]
) -> None:
    used = "start_to_close_timeout: {seconds: 1} retry_policy: {max_attempts: 7}"
    request = request_for(framed(_BODY.replace(used, f"{used} priority: {{priority_key: 2}}")))
    before = _module(generate(request))
    schema = [file.name for file in request.proto_file].index("temporal/v1/temporal.proto")
    tried = 0
    for number, file in enumerate(request.proto_file):
        if number != schema and file.package != "temporal.api.common.v1":
            continue
        for index, (full_name, message) in enumerate(_messages(file)):
            for field in message.field:
                if f"{full_name}.{field.name}" in _IN_BODY or (number != schema and message.name != "Priority"):
                    continue
                older = plugin_pb2.CodeGeneratorRequest.FromString(request.SerializeToString())
                _remove(list(_messages(older.proto_file[number]))[index][1], field.name)
                after = generate(older)
                assert not after.error, f"{full_name}.{field.name}"
                assert _module(after) == before, f"{full_name}.{field.name}"
                tried += 1
    assert tried >= 90


def _module(response: plugin_pb2.CodeGeneratorResponse) -> list[str]:
    """The lines of the one module with a Temporal side."""
    [text] = [file.content for file in response.file if file.name.endswith("_temporal.py")]
    return text.split("\n")


def _remove(message: Any, name: str) -> None:
    field = next(field for field in message.field if field.name == name)
    if field.proto3_optional:
        # The oneof that stands for its presence goes with it.
        del message.oneof_decl[field.oneof_index]
    message.field.remove(field)


def _messages(holder: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every message of a file by its full name."""
    package = f"{holder.package}." if isinstance(holder, descriptor_pb2.FileDescriptorProto) else f"{prefix}."
    own = holder.message_type if isinstance(holder, descriptor_pb2.FileDescriptorProto) else holder.nested_type
    for message in own:
        yield f"{package}{message.name}", message
        yield from _messages(message, f"{package}{message.name}")


def test_an_option_of_a_later_schema_is_refused(
    request_for: Callable[..., plugin_pb2.CodeGeneratorRequest], tmp_path: Path
) -> None:
    original = (Path(__file__).parents[2] / "proto/temporal/v1/temporal.proto").read_text(encoding="utf-8")
    schema = tmp_path / "schema/temporal/v1/temporal.proto"
    schema.parent.mkdir(parents=True)
    schema.write_text(original.replace("message QueryOptions {", "message QueryOptions {\n  bool brand_new = 99;"))
    text = """syntax = "proto3"; package acme.v1; import "temporal/v1/temporal.proto"; message M {}
    service S { rpc Ask(M) returns (M) { option (temporal.v1.query) = {brand_new: true}; } }"""
    error = generate(request_for({"acme/v1/acme.proto": text}, schema=tmp_path / "schema")).error
    assert "acme/v1/acme.proto:2: option (temporal.v1.query).brand_new is not supported" in error
    assert "this version of the plugin does not know it" in error
