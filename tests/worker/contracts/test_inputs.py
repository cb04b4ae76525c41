"""What inputs accept, followed from methods through messages: what breaks, for whom, and what only looks like it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import protovalidate
import pytest
from google.protobuf import descriptor_pb2, message_factory

from contextunity.worker.contracts import Finding, IncomparableError, Schema, compare
from contextunity.worker.contracts.inputs import _oneofs as oneofs

from .conftest import OTHERS, build

_HEAD = """\
syntax = "proto3";
package acme.%s.v1;
import "buf/validate/validate.proto";
import "google/protobuf/descriptor.proto";
import "google/protobuf/empty.proto";
import "temporal/v1/temporal.proto";
"""
_RUN = """
service S {
  rpc Run(In) returns (Out) { option (temporal.v1.workflow) = {name: "%s"}; }
}
"""
_OUT = "message Out {}"
_CEL = '{id: "a" expression: "this.size > 0"}'
_PART = "message Part { int32 size = 1; }"
_SMALL = "[(buf.validate.field).int32.lt = 9]"

CASES: dict[str, tuple[str, str, set[str]]] = {
    "an expression moves from a field into its message": (
        f"message In {{ Part part = 1 [(buf.validate.field).cel = {_CEL}]; }} {_PART} {_OUT}",
        "message In { Part part = 1; }\n"
        f"message Part {{ option (buf.validate.message).cel = {_CEL}; int32 size = 1; }} {_OUT}",
        set(),
    ),
    "an expression moves from a message to its one field": (
        "message In { Part part = 1; }\n"
        f"message Part {{ option (buf.validate.message).cel = {_CEL}; int32 size = 1; }} {_OUT}",
        f"message In {{ Part part = 1 [(buf.validate.field).cel = {_CEL}]; }} {_PART} {_OUT}",
        set(),
    ),
    "an expression moves from the items of a list into their message": (
        f"message In {{ repeated Part part = 1 [(buf.validate.field).repeated.items.cel = {_CEL}]; }} {_PART} {_OUT}",
        "message In { repeated Part part = 1; }\n"
        f"message Part {{ option (buf.validate.message).cel = {_CEL}; int32 size = 1; }} {_OUT}",
        set(),
    ),
    "an expression moves into a message that is reached another way, too": (
        f"message In {{ Part part = 1 [(buf.validate.field).cel = {_CEL}]; Part other = 2; }} {_PART} {_OUT}",
        "message In { Part part = 1; Part other = 2; }\n"
        f"message Part {{ option (buf.validate.message).cel = {_CEL}; int32 size = 1; }} {_OUT}",
        {"INPUT_EXPRESSION_ADDED"},
    ),
    "an expression is added to the values of a map": (
        f"message In {{ map<string, Part> parts = 1; }} {_PART} {_OUT}",
        f"message In {{ map<string, Part> parts = 1 [(buf.validate.field).map.values.cel = {_CEL}]; }} {_PART} {_OUT}",
        {"INPUT_EXPRESSION_ADDED"},
    ),
    "a message takes the place of another one with the same rules": (
        f"message In {{ Part part = 1; }} message Part {{ int32 size = 1 {_SMALL}; }} {_OUT}",
        f"message In {{ Shared part = 1; }} message Shared {{ int32 size = 1 {_SMALL}; }} message Part {{}} {_OUT}",
        set(),
    ),
    "a message takes the place of another one with narrower rules": (
        f"message In {{ Part part = 1; }} {_PART} {_OUT}",
        f"message In {{ Shared part = 1; }} message Shared {{ int32 size = 1 {_SMALL}; }} {_PART} {_OUT}",
        {"INPUT_RANGE_NARROWED"},
    ),
    "what was not validated is": (
        f"message In {{ Part part = 1 [(buf.validate.field).ignore = IGNORE_ALWAYS]; }}\n"
        f"message Part {{ int32 size = 1 {_SMALL}; }} {_OUT}",
        f"message In {{ Part part = 1; }} message Part {{ int32 size = 1 {_SMALL}; }} {_OUT}",
        {"INPUT_RANGE_NARROWED"},
    ),
    "what was validated is no longer": (
        f"message In {{ Part part = 1; }} message Part {{ int32 size = 1 {_SMALL}; }} {_OUT}",
        f"message In {{ Part part = 1 [(buf.validate.field).ignore = IGNORE_ALWAYS]; }}\n"
        f"message Part {{ int32 size = 1 {_SMALL}; }} {_OUT}",
        set(),
    ),
    "a message that holds itself": (
        f"message In {{ In more = 1; int32 size = 2; }} {_OUT}",
        f"message In {{ In more = 1; int32 size = 2 {_SMALL}; }} {_OUT}",
        {"INPUT_RANGE_NARROWED"},
    ),
    "a narrower message that is an output, too": (
        "message In { Out out = 1; } message Out { int32 size = 1; }",
        f"message In {{ Out out = 1; }} message Out {{ int32 size = 1 {_SMALL}; }}",
        {"INPUT_RANGE_NARROWED"},
    ),
    "a wider message that is an input, too": (
        f"message In {{ Out out = 1; }} message Out {{ int32 size = 1 {_SMALL}; }}",
        "message In { Out out = 1; } message Out { int32 size = 1; }",
        {"OUTPUT_WIDENED"},
    ),
    "a new field whose message has to be whole": (
        f"message In {{}} message Part {{ int32 size = 1 [(buf.validate.field).required = true]; }} {_OUT}",
        "message In { Part part = 1; }\n"
        f"message Part {{ int32 size = 1 [(buf.validate.field).required = true]; }} {_OUT}",
        set(),
    ),
    "a new field that an expression may refuse": (
        f"message In {{}} {_OUT}",
        'message In { string name = 1 [(buf.validate.field).cel = {id: "a" expression: "this != \'\'"}]; }' + _OUT,
        {"INPUT_EXPRESSION_CHANGED"},
    ),
    "a new field whose pattern matches nothing": (
        f"message In {{}} {_OUT}",
        f'message In {{ string name = 1 [(buf.validate.field).string.pattern = "^[a-z]*$"]; }} {_OUT}',
        set(),
    ),
    "a pattern that matches all that is in the list": (
        f'message In {{ string name = 1 [(buf.validate.field).string = {{in: ["a", "b"]}}]; }} {_OUT}',
        'message In { string name = 1 [(buf.validate.field).string = {in: ["a", "b"] pattern: "^[ab]$"}]; }' + _OUT,
        set(),
    ),
    "a predefined rule": (
        f"extend buf.validate.Int32Rules {{ optional bool even = 80001 [(buf.validate.predefined).cel = {_CEL}]; }}\n"
        f"message In {{ int32 size = 1; }} {_OUT}",
        f"extend buf.validate.Int32Rules {{ optional bool even = 80001 [(buf.validate.predefined).cel = {_CEL}]; }}\n"
        f"message In {{ int32 size = 1 [(buf.validate.field).int32.(acme.PACKAGE.v1.even) = true]; }} {_OUT}",
        {"INPUT_EXPRESSION_ADDED"},
    ),
    "an example of a value": (
        f"message In {{ int32 size = 1 {_SMALL}; }} {_OUT}",
        f"message In {{ int32 size = 1 [(buf.validate.field).int32 = {{lt: 9 example: 3}}]; }} {_OUT}",
        set(),
    ),
}


@pytest.fixture(scope="module")
def found(imports: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """What is found in each case's package."""
    schemas: list[Schema] = []
    for side in (0, 1):
        files: dict[str, str] = {}
        for number, (before, after, _) in enumerate(CASES.values()):
            text = (_HEAD % f"c{number}") + (_RUN % f"c{number}") + (before, after)[side]
            if "extend" in text:
                # Extensions of proto3 are for options alone, so rules are extended in proto2.
                text = text.replace("proto3", "proto2").replace("{ int32 size", "{ optional int32 size")
            files[f"c{number}.proto"] = text.replace("PACKAGE", f"c{number}")
        image = build(tmp_path_factory.mktemp("side"), files, imports)
        schemas.append(Schema(image, is_other=lambda name: name.startswith(OTHERS)))
    groups = defaultdict[str, list[Finding]](list)
    for finding in compare(*schemas):
        groups[list(CASES)[int(finding.path.split(".")[1][1:])]].append(finding)
    return groups


@pytest.mark.parametrize("name", CASES)
def test_it_is_judged_by_meaning(name: str, found: dict[str, list[Finding]]) -> None:
    assert {each.rule.id for each in found.get(name, [])} == CASES[name][2], found.get(name)


_RULES = [
    "",
    'option (buf.validate.message).oneof = {fields: ["a", "b"]};',
    'option (buf.validate.message).oneof = {fields: ["a", "b"] required: true};',
    'option (buf.validate.message).oneof = {fields: ["a", "b", "c"]};',
    'option (buf.validate.message).oneof = {fields: ["a", "b", "c"] required: true};',
    'option (buf.validate.message).oneof = {fields: ["b", "c"] required: true};',
]


def test_oneofs_of_messages_are_as_protovalidate_takes_them(
    imports: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    messages = [
        f"message M{number} {{ {rule} int32 a = 1; int32 b = 2; int32 c = 3; }}" for number, rule in enumerate(_RULES)
    ]
    text = (_HEAD % "oneofs") + "\n".join(messages)
    schema = Schema(build(tmp_path_factory.mktemp("oneofs"), {"oneofs.proto": text}, imports))
    descriptors = [schema.message(f"acme.oneofs.v1.M{number}") for number in range(len(_RULES))]
    values = [dict(zip("abc", each, strict=True)) for each in itertools.product((0, 1), repeat=3)]
    accepted: list[list[bool]] = []
    for each in descriptors:
        make: Any = message_factory.GetMessageClass(each)
        accepted.append([not protovalidate.collect_violations(make(**value)) for value in values])
    for before, after in itertools.product(range(len(_RULES)), repeat=2):
        lost = any(held and not holds for held, holds in zip(accepted[before], accepted[after], strict=True))
        was, now = oneofs(schema, descriptors[before]), oneofs(schema, descriptors[after])
        assert bool(was.lost_required(now) or was.lost_single(now, set("abc"))) is lost, (_RULES[before], _RULES[after])


def test_an_image_without_its_imports_is_told(imports: Path, tmp_path: Path) -> None:
    image = build(tmp_path, {"a.proto": (_HEAD % "a") + "message A {}"}, imports)
    files = descriptor_pb2.FileDescriptorSet.FromString(image)
    alone = descriptor_pb2.FileDescriptorSet(file=[each for each in files.file if each.name == "a.proto"])
    with pytest.raises(IncomparableError, match=r"lacks buf/validate/validate\.proto, which others import"):
        Schema(alone.SerializeToString())
    with pytest.raises(IncomparableError, match="not an image of protos"):
        Schema(b"\xff")
