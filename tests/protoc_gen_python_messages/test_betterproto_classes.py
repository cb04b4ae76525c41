"""Names and forms that look as if they could break a dataclass, and do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

_WELL_KNOWN = (
    "any",
    "api",
    "duration",
    "empty",
    "field_mask",
    "source_context",
    "struct",
    "timestamp",
    "type",
    "wrappers",
)
_TYPES = (
    *("Any", "Api", "Duration", "Empty", "FieldMask", "SourceContext", "Struct", "Value", "ListValue", "Timestamp"),
    *("Type", "BoolValue", "BytesValue", "DoubleValue", "FloatValue", "Int32Value", "Int64Value", "StringValue"),
    *("UInt32Value", "UInt64Value", "NullValue"),
)
_IMPORTS = "".join(f'import "google/protobuf/{name}.proto";\n' for name in _WELL_KNOWN)
_FIELDS_OF_ALL_KINDS = (
    "bool b1 = 11; string s1 = 12; bytes b2 = 13; double d = 14; repeated string r = 15; map<string, int32> m = 16;"
    "google.protobuf.Timestamp t = 17; google.protobuf.StringValue w = 18; Kind k = 19; N n = 20;"
    "repeated Kind ks = 21; map<string, N> mn = 22; oneof o { string o1 = 23; int32 o2 = 24; } optional int32 op = 25;"
)


def _beside(name: str, kind: str = "int32") -> str:
    """A message with a field of that name before fields of all other kinds."""
    return (
        f"enum Kind {{ ZERO = 0; ONE = 1; }} message N {{}} message M {{ {kind} {name} = 1; {_FIELDS_OF_ALL_KINDS} }}"
    )


_BODIES = {
    "enum_name": "enum E { ZERO = 0; name = 1; value = 2; names = 3; } message M { E e = 1; repeated E es = 2; }",
    "enum_int": "enum E { ZERO = 0; real = 1; to_bytes = 2; bit_length = 3; } message M { E e = 1; }",
    "enum_types": "enum E { E_ZERO = 0; E_int = 1; E_str = 2; E_property = 3; E_dict = 4; } message M { E e = 1; }",
    "enum_keyword": "enum E { E_ZERO = 0; E_None = 1; E_class = 2; E_1 = 3; } message M { map<int32, E> e = 1; }",
    "enum_alias": "enum E { option allow_alias = true; ZERO = 0; ONE = 1; UNO = 1; } message M { E e = 1; }",
    "enum_negative": "enum E { ZERO = 0; LESS = -1; } message M { oneof o { E e = 1; E f = 2; } }",
    "field_betterproto2_last": "message M { int32 other = 1; int32 betterproto2 = 2; }",
    **{
        f"field_{name}": _beside(name)
        for name in ("datetime", "typing", "builtins", "warnings", "dataclass", "int", "str", "bool", "bytes", "list")
    },
    **{f"field_{name}": _beside(name) for name in ("dict", "float", "self", "cls", "None", "class", "parse", "is_set")},
    "field_private_names": (
        "message M { int32 __doc__x = 1; repeated M __list = 2; map<string, M> __map = 3; string x__ = 4; "
        "oneof o { string __a = 5; M _b = 6; } N n = 7; message N { string __doc__x = 1; } } message P { int32 a = 1; }"
    ),
    "field_message": _beside("N", "N").replace("N n = 20;", ""),
    "field_kind": _beside("Kind", "Kind"),
    "field_lists": "message M { repeated string list = 1; map<string, int32> dict = 2; bytes bytes = 3; bytes b = 4; }",
    "oneof_names": "message M { oneof betterproto2 { int32 a = 1; string b = 2; } oneof class { int32 c = 3; } }",
    "class_names": "".join(
        f"message {name} {{ int32 a = 1; {name} again = 2; }}\n"
        for name in ("Message", "Enum", "Any", "Type", "Iterable", "Self", "Exception", "Datetime", "List", "_Start")
    ),
    "not_a_map": "message M { repeated FooEntry foo = 1; message FooEntry { string key = 1; string value = 2; } }",
    "nested": "message A { message B { message C { A a = 1; } C c = 1; enum D { ZERO = 0; } } B.C c = 1; B.D d = 2; }",
    "well_known": "message M {"
    + "".join(f"google.protobuf.{name} f{index} = {index};" for index, name in enumerate(_TYPES, 1))
    + "}",
    "comments": '// "quoted"\nmessage M {\n  // ends in a quote"\n  int32 a = 1;  // and a backslash \\ in between\n'
    '\n  // """ three\n  string b = 2;\n}',
}

_FILES = {
    **{
        f"{name}/v1/a.proto": f'syntax = "proto3";\npackage {name}.v1;\n{_IMPORTS}{body}'
        for name, body in _BODIES.items()
    },
    "proto2/v1/a.proto": """syntax = "proto2";
package proto2.v1;
enum E { ONE = 1; TWO = 2; }
message M {
  optional int32 a = 1; optional int32 five = 2 [default = 5]; optional string s = 3; optional E e = 4;
  optional M m = 5; repeated int32 r = 6; repeated E es = 7; map<string, int32> map = 8;
  oneof o { int32 o1 = 9; E o2 = 10; }
  extensions 100 to 200;
}
extend M { optional int32 extra = 100; }
""",
    # A folder that is a keyword, and a file that is no identifier, which nothing imports.
    "alone/class/v1/1st.proto": 'syntax = "proto3"; package alone.v1; message M { int32 a = 1; }',
    "keyword_package/v1/a.proto": 'syntax = "proto3"; package keyword_package.lambda; message M { int32 a = 1; }',
    "keyword_file/v1/import.proto": 'syntax = "proto3"; package keyword_file.v1; message M { int32 a = 1; }',
    "keyword_file/v1/b.proto": (
        'syntax = "proto3"; package keyword_file.v1; import "keyword_file/v1/import.proto"; message N { M m = 1; }'
    ),
    # The names are a module's, but no class of the package above needs it.
    "unused/b.proto": 'syntax = "proto3"; package unused.datetime.v1; message T { int32 a = 1; }',
    "plain_types/b.proto": 'syntax = "proto3"; package plain_types.builtins.v1; message T { int32 a = 1; }',
    "plain_types/a.proto": (
        'syntax = "proto3"; package plain_types; import "plain_types/b.proto"; '
        "message M { builtins.v1.T t = 1; int32 int = 2; int32 other = 3; }"
    ),
    "unused/a.proto": 'syntax = "proto3"; package unused; import "unused/b.proto"; message M { datetime.v1.T t = 1; }',
}
_PACKAGES = [
    *(f"{name}.v1" for name in (*_BODIES, "proto2", "alone", "keyword_file")),
    *("keyword_package.lambda", "plain_types", "unused"),
]

Build = Callable[[Mapping[str, str]], tuple[Path, Mapping[str, str]]]


@pytest.fixture(scope="module")
def found(build: Build, errors: Callable[..., dict[str, list[str]]]) -> dict[str, list[str]]:
    folder, _texts = build(_FILES)
    return errors(folder, *(f"acme.gen.{package}" for package in _PACKAGES))


@pytest.mark.parametrize("package", _PACKAGES)
def test_it_imports_and_round_trips(found: dict[str, list[str]], package: str) -> None:
    assert found[f"acme.gen.{package}"] == []
