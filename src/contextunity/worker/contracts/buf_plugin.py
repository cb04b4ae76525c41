"""The check plugin `contextworker-buf-plugin`: add the rules of this gate to `buf breaking`.

buf calls it over pluginrpc: the procedure is an argument, the request is read from standard input, and the answer is
written to standard output. The few messages are declared here, with the names and numbers that buf uses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError

from .compare import compare
from .findings import RULES, Family, Finding, Place, Rule, Severity
from .schema import IncomparableError, Schema

__all__ = ["main"]

_CHECK = "buf.plugin.check.v1"
_SERVICE = f"/{_CHECK}.CheckService"
_BREAKING = 2
"""RULE_TYPE_BREAKING."""
_INVALID, _UNIMPLEMENTED = 3, 12
"""Codes of pluginrpc, the same as gRPC's."""

_CATEGORIES = {
    "CONTEXTWORKER": "Finds what breaks a contract of Temporal, of buf.validate rules or of ContextWorker's options.",
    "CONTEXTWORKER_STRICT": "Finds the same, and what may break it.",
}

_Fields = Mapping[str, tuple[int, str]]
_MESSAGES: Mapping[str, Mapping[str, _Fields]] = {
    "pluginrpc.v1": {
        "Procedure": {"path": (1, "string"), "args": (2, "*string")},
        "Spec": {"procedures": (1, "*pluginrpc.v1.Procedure")},
        "Request": {"value": (1, "google.protobuf.Any")},
        "Error": {"code": (1, "int32"), "message": (2, "string")},
        "Response": {"value": (1, "google.protobuf.Any"), "error": (2, "pluginrpc.v1.Error")},
    },
    "buf.plugin.descriptor.v1": {
        "FileDescriptor": {
            "file_descriptor_proto": (1, "google.protobuf.FileDescriptorProto"),
            "is_import": (2, "bool"),
        },
        "FileLocation": {"file_name": (1, "string"), "source_path": (2, "*int32")},
    },
    _CHECK: {
        "CheckRequest": {
            "file_descriptors": (1, "*buf.plugin.descriptor.v1.FileDescriptor"),
            "against_file_descriptors": (2, "*buf.plugin.descriptor.v1.FileDescriptor"),
            "rule_ids": (4, "*string"),
        },
        "Annotation": {
            "rule_id": (1, "string"),
            "message": (2, "string"),
            "file_location": (3, "buf.plugin.descriptor.v1.FileLocation"),
            "against_file_location": (4, "buf.plugin.descriptor.v1.FileLocation"),
        },
        "CheckResponse": {"annotations": (1, f"*{_CHECK}.Annotation")},
        "Rule": {
            "id": (1, "string"),
            "category_ids": (2, "*string"),
            "default": (3, "bool"),
            "purpose": (4, "string"),
            "type": (5, "int32"),
        },
        "ListRulesRequest": {},
        "ListRulesResponse": {"rules": (2, f"*{_CHECK}.Rule")},
        "Category": {"id": (1, "string"), "purpose": (2, "string")},
        "ListCategoriesRequest": {},
        "ListCategoriesResponse": {"categories": (2, f"*{_CHECK}.Category")},
    },
}
"""Fields by package and message: number and type, with a star if repeated."""


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for known in (descriptor_pb2, any_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    imports = ["google/protobuf/any.proto", "google/protobuf/descriptor.proto"]
    for package, messages in _MESSAGES.items():
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
        file.dependency.extend(imports)
        imports.append(file.name)
        for name, fields in messages.items():
            message = file.message_type.add(name=name)
            for field, (number, kind) in fields.items():
                _add_field(message, field, number, kind)
        pool.Add(file)
    return pool


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    types = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number)
    field.label = types.LABEL_REPEATED if kind.startswith("*") else types.LABEL_OPTIONAL
    kind = kind.removeprefix("*")
    if "." in kind:
        field.type, field.type_name = types.TYPE_MESSAGE, f".{kind}"
    else:
        field.type = types.Type.Value(f"TYPE_{kind.upper()}")


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))


def rules() -> Iterator[Rule]:
    """Return the plugin's rules, without buf's own and those about exceptions."""
    return (each for each in RULES.values() if each.family in (Family.TEMPORAL, Family.RULES, Family.OPTIONS))


def _list_rules(_: Any) -> Any:
    response = _class(f"{_CHECK}.ListRulesResponse")()
    for each in rules():
        is_error = each.severity is Severity.ERROR
        response.rules.add(
            id=each.id,
            category_ids=_CATEGORIES if is_error else ["CONTEXTWORKER_STRICT"],
            default=is_error,
            purpose=f"{each.severity.value.capitalize()}: {each.what}",
            type=_BREAKING,
        )
    return response


def _list_categories(_: Any) -> Any:
    response = _class(f"{_CHECK}.ListCategoriesResponse")()
    for name, purpose in _CATEGORIES.items():
        response.categories.add(id=name, purpose=purpose)
    return response


def _check(request: Any) -> Any:
    response = _class(f"{_CHECK}.CheckResponse")()
    wanted = set(request.rule_ids) or {each.id for each in rules() if each.severity is Severity.ERROR}
    if not request.against_file_descriptors:
        return response  # There is no earlier version.
    for finding in compare(_schema(request.against_file_descriptors), _schema(request.file_descriptors)):
        if finding.rule.id in wanted:
            _annotate(response.annotations.add(), finding)
    return response


def _schema(files: Sequence[Any]) -> Schema:
    imported = {each.file_descriptor_proto.name for each in files if each.is_import}
    image = descriptor_pb2.FileDescriptorSet()
    for each in files:
        image.file.add().ParseFromString(each.file_descriptor_proto.SerializeToString())
    return Schema(image.SerializeToString(), is_other=lambda name: name in imported)


def _annotate(annotation: Any, finding: Finding) -> None:
    annotation.rule_id = finding.rule.id
    annotation.message = f"{finding.path}: {finding.text}. {finding.rule.way_out}"
    for place, location in ((finding.new, "file_location"), (finding.old, "against_file_location")):
        if place is not None:
            _locate(getattr(annotation, location), place)


def _locate(location: Any, place: Place) -> None:
    location.file_name = place.file
    location.source_path.extend(place.path)


_PROCEDURES = {"Check": _check, "ListRules": _list_rules, "ListCategories": _list_categories}


def main() -> None:
    """Answer one call from buf."""
    parser = argparse.ArgumentParser(
        prog="contextworker-buf-plugin",
        description="A check plugin for buf: name it in buf.yaml under `plugins`, and CONTEXTWORKER under `use`.",
    )
    parser.add_argument("--protocol", action="store_true", help="print the version of pluginrpc")
    parser.add_argument("--spec", action="store_true", help="print the procedures")
    parser.add_argument("--format", choices=["binary", "json"], default="binary", help="format of input and output")
    parser.add_argument("procedure", nargs="?", help="procedure to call; its request is read from standard input")
    arguments = parser.parse_args()
    if arguments.protocol:
        _write(b"1\n")
    elif arguments.spec:
        spec = _class("pluginrpc.v1.Spec")()
        for name in _PROCEDURES:
            spec.procedures.add(path=f"{_SERVICE}/{name}")
        _write(_encode(spec, arguments.format))
    elif arguments.procedure:
        _write(_encode(_answer(arguments.procedure, sys.stdin.buffer.read(), arguments.format), arguments.format))
    else:
        parser.error("buf calls this program; name it in buf.yaml under `plugins`")


def _answer(procedure: str, content: bytes, form: str) -> Any:
    response = _class("pluginrpc.v1.Response")()
    service, _, name = procedure.rpartition("/")
    call = _PROCEDURES.get(name) if service == _SERVICE else None
    if call is None:
        response.error.code, response.error.message = _UNIMPLEMENTED, f"there is no procedure {procedure}"
    elif form == "json" and call is _check:
        # JSON omits the custom options, which the rules need.
        response.error.code, response.error.message = _UNIMPLEMENTED, "Check accepts only binary requests"
    else:
        try:
            value = call(_decode(content, form, f"{_CHECK}.{name}Request"))
            response.value.type_url = f"type.googleapis.com/{value.DESCRIPTOR.full_name}"
            response.value.value = value.SerializeToString()
        except (DecodeError, IncomparableError, json_format.ParseError) as error:
            response.error.code, response.error.message = _INVALID, str(error)
    return response


def _decode(content: bytes, form: str, name: str) -> Any:
    request = _class("pluginrpc.v1.Request")()
    if form == "json":
        if content.strip():
            json_format.Parse(content, request, ignore_unknown_fields=True, descriptor_pool=_pool())
    else:
        request.ParseFromString(content)
    return _class(name).FromString(request.value.value)


def _encode(message: Any, form: str) -> bytes:
    if form == "json":
        return json_format.MessageToJson(message, descriptor_pool=_pool()).encode()
    return bytes(message.SerializeToString())


def _write(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
