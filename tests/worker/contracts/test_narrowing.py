"""Whether rules accept less, held against protovalidate: every pair of rules of a type, over values of all kinds.

A value that one accepts and the other refuses must be found; where there is none among the values, nothing may be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import protovalidate
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor

from contextunity.worker.contracts import Schema
from contextunity.worker.contracts.narrowing import narrowed, side_of

from .conftest import build

_HEAD = """\
syntax = "proto3";
package acme.rules.v1;
import "buf/validate/validate.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; COLOUR_BLUE = 2; }
"""

_NUMBERS = [
    "",
    "gte: 0",
    "gt: -1",
    "gt: 0",
    "gte: 1",
    "lte: 5",
    "lt: 6",
    "lt: 5",
    "gte: 0 lte: 5",
    "gt: -1 lt: 6",
    "gt: 5 lt: 0",
    "gte: 5 lte: 0",
    "gt: 5 lt: 5",
    "gte: 5 lte: 5",
    "const: 5",
    "in: [5]",
    "in: [0, 1, 5]",
    "in: [1, 5]",
    "not_in: [0]",
    "not_in: [3, 4]",
    "gte: 0 lte: 5 not_in: [3]",
    "in: [0, 1, 2, 3, 4, 5]",
    "const: 0",
    "gt: 2 lt: 4",
    "in: [3]",
    "const: 3 in: [1, 5]",
]

_FLOATS = [
    "",
    "finite: true",
    "gte: 0",
    "gt: 0",
    "lt: 1",
    "lte: 1",
    "gte: 0 lte: 1",
    "gt: 1 lt: 0",
    "const: 1",
    "in: [0, 1]",
    "not_in: [0]",
    "gte: -1 finite: true",
]

_TEXTS = [
    "",
    "min_len: 1",
    "min_len: 2",
    "max_len: 2",
    'in: ["ab", "b"]',
    'in: ["ab", "b", ""]',
    'const: "ab"',
    'not_in: [""]',
    "max_len: 3",
    "len: 2",
    "min_bytes: 2",
    "max_bytes: 2",
    "len_bytes: 3",
    "max_bytes: 12",
    'prefix: "a"',
    'prefix: "ab"',
    'suffix: "b"',
    'contains: "b"',
    'contains: "ab"',
    'prefix: "a" suffix: "b"',
    'not_contains: "b"',
    'not_contains: "ab"',
    'not_in: ["ab"]',
    'in: ["ab"] max_len: 1',
    'prefix: "a" max_len: 3',
]

_LETTERS = ("".join(letters) for size in range(5) for letters in itertools.product("abc", repeat=size))
_STRINGS = [*_LETTERS, *("é" * size for size in range(1, 5)), "aé", "abé", "éb", "aéb", "€", "€€", "€b", "b€", "€a"]
_LONG = [
    "c" * 13,
    "bc" * 7,
    "ab" * 7,
    "a" + "c" * 12,
    "𐍈",
    "𐍈𐍈",
    "𐍈𐍈𐍈",
    "𐍈𐍈𐍈𐍈",
    "a𐍈",
    "a𐍈𐍈𐍈",
    "b𐍈",
    "𐍈b",
    "𐍈𐍈b",
    "ab𐍈",
    "𐍈ab",
]

_FORMATS = [
    "",
    "min_len: 1",
    "email: true",
    "hostname: true",
    "ip: true",
    "ipv4: true",
    "ipv6: true",
    "uri: true",
    "uri_ref: true",
    "address: true",
    "uuid: true",
    "tuuid: true",
    "ip_prefix: true",
    "ipv4_prefix: true",
    "ip_with_prefixlen: true",
    "host_and_port: true",
    "ulid: true",
]

_DURATIONS = [
    "",
    "gte: {seconds: 1}",
    "gt: {nanos: 999999999}",
    "gt: {seconds: 1}",
    "lte: {seconds: 5}",
    "lt: {seconds: 1}",
    "const: {seconds: 1}",
    "in: [{seconds: 1}, {seconds: 2}]",
    "not_in: [{seconds: 1}]",
]

_SIZES = [
    "",
    "min_items: 1",
    "max_items: 2",
    "min_items: 2",
    "min_items: 1 max_items: 3",
    "unique: true",
    "items: {int32: {gt: 0}}",
    "items: {int32: {gte: 1}}",
    "items: {int32: {lt: 9}}",
    "items: {ignore: IGNORE_IF_ZERO_VALUE int32: {gt: 0}}",
    "min_items: 1 items: {int32: {in: [1, 2]}}",
]

_PAIRS = [
    "",
    "min_pairs: 1",
    "max_pairs: 1",
    "keys: {string: {min_len: 1}}",
    "values: {int32: {gt: 0}}",
    "values: {int32: {gte: 0}}",
]


@dataclass(frozen=True)
class Case:
    """A type, rules for it by the name of their field in FieldRules, and values that tell them apart.

    Attributes:
        exact: whether there are values for every difference, so that a finding without one is wrong.
    """

    type: str
    kind: str
    rules: list[str]
    values: list[Any]
    extra: tuple[str, ...] = ("", "required: true", "ignore: IGNORE_IF_ZERO_VALUE", "ignore: IGNORE_ALWAYS")
    exact: bool = True


_MESSAGE = ("", "required: true")


def _seconds(*values: float) -> list[Any]:
    return [{"seconds": math.floor(value), "nanos": round(value % 1 * 1e9)} for value in values]


def _paths(*values: str) -> list[Any]:
    return [{"paths": value.split()} for value in values]


_REALS = [0.0, 0.25, 0.5, 1.0, 1.5, -0.5, -1.0, -2.0, 2.0, math.inf, -math.inf, math.nan]

CASES = {
    "int32": Case("int32", "int32", _NUMBERS, list(range(-3, 10))),
    "optional int64": Case("optional int64", "int64", _NUMBERS, [None, *range(-3, 10)]),
    "uint32": Case("uint32", "uint32", [each for each in _NUMBERS if "-1" not in each], list(range(10))),
    "float": Case("float", "float", _FLOATS, _REALS),
    "double": Case("double", "double", _FLOATS, [*_REALS, 1e-300]),
    "bool": Case("bool", "bool", ["", "const: true", "const: false"], [False, True]),
    "enum": Case(
        "Colour",
        "enum",
        ["", "defined_only: true", "in: [0, 1]", "const: 1", "not_in: [2]", "not_in: [0]", "in: [0, 1, 2]"],
        [0, 1, 2, 3, -1],
    ),
    "string": Case("string", "string", _TEXTS, _STRINGS + _LONG),
    "optional string": Case("optional string", "string", _TEXTS[:8], [None, *_STRINGS]),
    "bytes": Case(
        "bytes",
        "bytes",
        ["", "min_len: 1", "max_len: 2", "len: 2", 'prefix: "a"', 'in: ["ab"]', 'contains: "b"'],
        [text.encode() for text in _STRINGS],
    ),
    "format": Case(
        "string",
        "string",
        _FORMATS,
        [
            *("", "a@b.example", "a.example", "192.0.2.1", "2001:db8::1", "https://a.example/", "/path", "a b", "x"),
            *("a.example:80", "00000000-0000-4000-8000-000000000000", "00000000000040008000000000000000"),
            *("192.0.2.0/24", "192.0.2.1/24", "2001:db8::/32", "2001:db8::1/32", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ],
        exact=False,
    ),
    "wrapper": Case(
        "google.protobuf.Int32Value",
        "int32",
        _NUMBERS[:12],
        [None, *({"value": each} for each in range(-3, 10))],
        _MESSAGE,
    ),
    "duration": Case(
        "google.protobuf.Duration", "duration", _DURATIONS, [None, *_seconds(-1, 0, 0.5, 1, 1.5, 2, 5, 6)], _MESSAGE
    ),
    "timestamp": Case(
        "google.protobuf.Timestamp", "timestamp", _DURATIONS[:7], [None, *_seconds(0, 0.5, 1, 1.5, 2, 5, 6)], _MESSAGE
    ),
    "list": Case(
        "repeated int32",
        "repeated",
        _SIZES,
        [list(each) for size in range(5) for each in itertools.product((0, 1, 2, 3, 9, -1), repeat=min(size, 3))]
        + [[1, 2, 3, 4], [1, 2, 1, 2], [0, 0, 0, 0]],
    ),
    "map": Case(
        "map<string, int32>",
        "map",
        _PAIRS,
        [{}, *({key: value} for key in ("", "a") for value in (-1, 0, 1))]
        + [{"": first, "a": second} for first in (-1, 0, 1) for second in (-1, 0, 1)]
        + [{"a": first, "b": second} for first in (-1, 0, 1) for second in (-1, 0, 1)],
    ),
    "field mask": Case(
        "google.protobuf.FieldMask",
        "field_mask",
        ["", 'in: ["a"]', 'in: ["a", "b"]', 'not_in: ["b"]', 'not_in: ["a.c"]', 'const: {paths: ["a"]}'],
        [None, *_paths("a", "b", "c", "a.c", "b.c", "a b", "a c")],
        ("",),
    ),
    "any": Case(
        "google.protobuf.Any",
        "any",
        ["", 'in: ["x/a"]', 'in: ["x/a", "x/b"]', 'not_in: ["x/b"]'],
        [None, {"type_url": "x/a"}, {"type_url": "x/b"}, {"type_url": "x/c"}],
        ("",),
    ),
}


def _options(case: Case) -> list[str]:
    found = []
    for rules, extra in itertools.product(case.rules, case.extra):
        parts = [extra] if extra else []
        if rules:
            parts.append(f"{case.kind}: {{{rules}}}")
        found.append(f"(buf.validate.field) = {{{' '.join(parts)}}}")
    return found


@pytest.fixture(scope="module")
def schema(imports: Path, tmp_path_factory: pytest.TempPathFactory) -> Schema:
    lines = [_HEAD]
    for number, case in enumerate(CASES.values()):
        lines.append(f"message M{number} {{")
        lines += [f"  {case.type} f{index} = {index + 1} [{each}];" for index, each in enumerate(_options(case))]
        lines.append("}")
    return Schema(build(tmp_path_factory.mktemp("rules"), {"rules.proto": "\n".join(lines)}, imports))


def _accepting(schema: Schema, message: str, values: list[Any]) -> dict[str, list[bool]]:
    """By protovalidate: for each field, which of the values it accepts."""
    make: Callable[..., Any] = message_factory.GetMessageClass(schema.message(message))
    fields = [each.name for each in schema.message(message).fields]
    found: dict[str, list[bool]] = {name: [] for name in fields}
    for value in values:
        filled = make(**dict.fromkeys(fields, value)) if value is not None else make()
        violations: list[Any] = protovalidate.collect_violations(filled)
        refused = {each.proto.field.elements[0].field_name for each in violations}
        for name in fields:
            found[name].append(name not in refused)
    return found


@pytest.mark.parametrize("name", CASES)
def test_less_is_found_where_protovalidate_refuses_more(name: str, schema: Schema) -> None:
    case = CASES[name]
    message = f"acme.rules.v1.M{list(CASES).index(name)}"
    accepted = _accepting(schema, message, case.values)
    options = _options(case)

    def side(each: FieldDescriptor) -> Any:
        declared = schema.declarations[each.full_name][2]
        return side_of(each, schema.option(declared.options, "buf.validate.field"))

    sides = {each.name: side(each) for each in schema.message(message).fields}
    missed, invented = [], []
    for (before, was), (after, now) in itertools.product(enumerate(sides.values()), enumerate(sides.values())):
        pairs = zip(case.values, accepted[was.field.name], accepted[now.field.name], strict=True)
        lost = [value for value, held, holds in pairs if held and not holds]
        found = narrowed(was, now)
        if lost and not found:
            missed.append(f"{options[before]} → {options[after]} refuses {lost[0]!r}")
        if found and not lost and case.exact:
            invented.append(f"{options[before]} → {options[after]}: {found}")
    assert missed == []
    assert invented == [], "\n".join(invented)
