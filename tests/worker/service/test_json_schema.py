"""A schema accepts what the service accepts, and refuses what it refuses, but for what a `$comment` says."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from contextunity.gen.contextunity.code.v1 import ExecuteRequest
from contextunity.gen.contextunity.harvest.v1 import HarvestRequest, ListRejectedRequest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from contextunity.core import codec
from contextunity.worker.grpc_errors import ServiceError
from contextunity.worker.json_schema import message_schema
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
    *("COLOR_DARK", "color_red", "ALIAS_EINS", "NULL_VALUE"),
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


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "pattern" and isinstance(value, str):
                yield value
            elif key != "not":
                yield from _patterns(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from _patterns(each)


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
