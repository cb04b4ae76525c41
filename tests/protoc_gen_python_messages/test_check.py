"""What the generators below would write wrong is refused with its place, and would be wrong indeed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.compiler import plugin_pb2

from protoc_gen_python_messages import betterproto_classes, google_classes
from protoc_gen_python_messages.errors import UsageError
from protoc_gen_python_messages.imports import select
from protoc_gen_python_messages.request import Options

Compile = Callable[..., plugin_pb2.CodeGeneratorRequest]
Case = tuple[str | dict[str, str], str]

# Bodies follow two lines, of syntax and package; PKG is the name of the case, and of its package and folder.
_BREAKS: dict[str, Case] = {
    "enum_mro": (
        "enum E {\n  ZERO = 0;\n  mro = 1;\n}\nmessage M { E e = 1; }",
        "PKG/a.proto:5: enum PKG.E: value mro is a name that Python's Enum reserves; rename it",
    ),
    "enum_mro_behind_prefix": (
        "enum E { E_ZERO = 0; E_mro = 1; }\nmessage M { E e = 1; }",
        "PKG/a.proto:3: enum PKG.E: value E_mro becomes mro, which is a name that Python's Enum reserves; rename it",
    ),
    "enum_sunder": (
        "enum E { ZERO = 0; _order_ = 1; }\nmessage M { E e = 1; }",
        "PKG/a.proto:3: enum PKG.E: value _order_ is a name that Python's Enum reserves; rename it",
    ),
    "enum_private": (
        "enum E { ZERO = 0; __x = 1; }\nmessage M { E e = 1; }",
        "PKG/a.proto:3: enum PKG.E: value __x is a name that Python's Enum reserves; rename it",
    ),
    "enum_special": (
        "enum E { ZERO = 0; __hash__ = 1; }\nmessage M { repeated E e = 1; }",
        "PKG/a.proto:3: enum PKG.E: value __hash__ is a name that Python's Enum reserves; rename it",
    ),
    "enum_method": (
        "enum E { ZERO = 0; from_string = 1; }\nmessage M { E e = 1; }",
        "PKG/a.proto:3: enum PKG.E: value from_string replaces a method of betterproto2.Enum; rename it",
    ),
    "enum_names": (
        "enum E { ZERO = 0; betterproto_value_to_renamed_proto_names = 1; }\nmessage M { E e = 1; }",
        "PKG/a.proto:3: enum PKG.E: value betterproto_value_to_renamed_proto_names replaces a method of "
        "betterproto2.Enum; rename it",
    ),
    "enum_classmethod": (
        "enum E { E_ZERO = 0; E_classmethod = 1; }\nmessage M { E e = 1; }",
        "PKG/a.proto:3: enum PKG.E: value E_classmethod becomes classmethod, which hides Python's name from "
        "the rest of the enum's class; rename it",
    ),
    "field_betterproto2": (
        "message M {\n  int32 betterproto2 = 1;\n  int32 other = 2;\n}",
        "PKG/a.proto:4: message PKG.M: field betterproto2 hides the module betterproto2 from the fields after it; "
        "rename it, or declare it last",
    ),
    "field_private": (
        "message Outer { message M { int32 _betterproto = 1; } }",
        "PKG/a.proto:3: message PKG.Outer.M: field _betterproto replaces an attribute that the dataclass needs; "
        "rename it",
    ),
    "field_unknown_fields": (
        "message M { int32 _unknown_fields = 1; }",
        "PKG/a.proto:3: message PKG.M: field _unknown_fields replaces an attribute that the dataclass needs; rename it",
    ),
    "field_special": (
        "message M { int32 __slots__ = 1; }",
        "PKG/a.proto:3: message PKG.M: field __slots__ replaces an attribute that the dataclass needs; rename it",
    ),
    "field_mangled": (
        "message Outer { message M { int32 __x = 1; int32 _OuterM__x = 2; } }",
        "PKG/a.proto:3: message PKG.Outer.M: field _OuterM__x is what Python makes of __x in this class; rename one of "
        "them",
    ),
    "field_is_set": (
        "message M { bool is_set = 1; bool old = 2 [deprecated = true]; }",
        "PKG/a.proto:3: message PKG.M: field is_set hides the method that warns of the message's deprecated fields; "
        "rename it",
    ),
    "fields_meet": (
        "message M {\n  int32 fooBAR = 1;\n  int32 foo_bar = 2;\n}",
        "PKG/a.proto:4: message PKG.M: field fooBAR and foo_bar have the same name in Python, foo_bar; "
        "rename one of them\n"
        "PKG/a.proto:5: message PKG.M: field foo_bar and fooBAR have the same name in Python, foo_bar; "
        "rename one of them",
    ),
    "classes_meet": (
        "message Outer {\n  message Inner { int32 a = 1; }\n}\nmessage OuterInner { string b = 1; }",
        "PKG/a.proto:4: message PKG.Outer.Inner: it and PKG.OuterInner become one class, OuterInner; "
        "rename one of them\n"
        "PKG/a.proto:6: message PKG.OuterInner: it and PKG.Outer.Inner become one class, OuterInner; "
        "rename one of them",
    ),
    "classes_meet_by_case": (
        "message FOO { int32 a = 1; }\nmessage Foo { int32 a = 1; }",
        "PKG/a.proto:3: message PKG.FOO: it and PKG.Foo become one class, Foo; rename one of them\n"
        "PKG/a.proto:4: message PKG.Foo: it and PKG.FOO become one class, Foo; rename one of them",
    ),
    "enum_and_class_meet": (
        "message Outer { enum Kind { ZERO = 0; } Kind kind = 1; }\nmessage OuterKind { int32 a = 1; }",
        "PKG/a.proto:3: enum PKG.Outer.Kind: it and PKG.OuterKind become one class, OuterKind; rename one of them\n"
        "PKG/a.proto:4: message PKG.OuterKind: it and PKG.Outer.Kind become one class, OuterKind; rename one of them",
    ),
    "classes_meet_over_files": (
        {
            "PKG/a.proto": 'syntax = "proto3"; package PKG; message A_Bc { int32 a = 1; }',
            "PKG/b.proto": 'syntax = "proto3"; package PKG; message ABc { int32 a = 1; }',
        },
        "PKG/a.proto:1: message PKG.A_Bc: it and PKG.ABc become one class, ABc; rename one of them\n"
        "PKG/b.proto:1: message PKG.ABc: it and PKG.A_Bc become one class, ABc; rename one of them",
    ),
    "class_hides_warning": (
        "message DeprecationWarning { option deprecated = true; int32 a = 1; }",
        "PKG/a.proto:3: message PKG.DeprecationWarning: it hides Python's DeprecationWarning from deprecated "
        "messages; rename it",
    ),
    "package_hides_datetime": (
        {
            "PKG/t.proto": 'syntax = "proto3"; package PKG.datetime.v1; message T {}',
            "PKG/a.proto": 'syntax = "proto3"; package PKG; import "PKG/t.proto";'
            'import "google/protobuf/timestamp.proto";'
            "message M { datetime.v1.T t = 1; google.protobuf.Timestamp at = 2; }",
        },
        "PKG/a.proto: package PKG.datetime hides Python's module datetime from the messages of PKG; rename it",
    ),
    "package_hides_warnings": (
        {
            "PKG/t.proto": 'syntax = "proto3"; package PKG.warnings.v1; message T {}',
            "PKG/a.proto": 'syntax = "proto3"; package PKG; import "PKG/t.proto";'
            "message M { option deprecated = true; warnings.v1.T t = 1; }",
        },
        "PKG/a.proto: package PKG.warnings hides Python's module warnings from the messages of PKG; rename it",
    ),
    "package_is_taken_for_typing": (
        {
            "PKG/t.proto": 'syntax = "proto3"; package PKG.typing; message T {}',
            "PKG/a.proto": 'syntax = "proto3";\npackage PKG;\nimport "PKG/t.proto";\nmessage M { typing.T t = 1; }',
        },
        "PKG/a.proto:4: message PKG.M: package PKG.typing has the name of what its module imports as typing; "
        "rename the package",
    ),
    "package_is_taken_for_grpc": (
        {
            "PKG/t.proto": 'syntax = "proto3"; package PKG.grpc; message T {}',
            "PKG/a.proto": 'syntax = "proto3";\npackage PKG;\nimport "PKG/t.proto";\nmessage M { grpc.T t = 1; }',
        },
        "PKG/a.proto:4: message PKG.M: package PKG.grpc has the name of what its module imports as grpc; "
        "rename the package",
    ),
    "package_is_taken_for_datetime": (
        {
            "PKG/t.proto": 'syntax = "proto3"; package PKG.datetime; message T {}',
            "PKG/a.proto": 'syntax = "proto3";\npackage PKG;\nimport "PKG/t.proto";\nmessage M { datetime.T t = 1; }',
        },
        "PKG/a.proto:4: message PKG.M: package PKG.datetime has the name of what its module imports as datetime; "
        "rename the package",
    ),
    "package_hides_class": (
        {
            "PKG/t.proto": 'syntax = "proto3"; package PKG.Foo; message T {}',
            "PKG/a.proto": 'syntax = "proto3"; package PKG; import "PKG/t.proto"; message foo { Foo.T t = 1; }',
        },
        "PKG/a.proto:1: message PKG.foo: package PKG.Foo hides its class; rename one of them",
    ),
    "package_hides_module": (
        {
            "PKG/foo.proto": 'syntax = "proto3"; package PKG; message M { int32 a = 1; }',
            "PKG/u.proto": 'syntax = "proto3"; package PKG.foo_pb2; message U { int32 a = 1; }',
        },
        "PKG/foo.proto: its module PKG.foo_pb2 has the name of a package; rename the file or the package",
    ),
    "folder_is_keyword": (
        {"PKG/class/a.proto": 'syntax = "proto3"; package PKG; message M {} service S { rpc R(M) returns (M); }'},
        "PKG/class/a.proto: 'class' is not possible in a Python import; rename the file or its folder",
    ),
    "file_is_no_name": (
        {
            "PKG/2a.proto": 'syntax = "proto3"; package PKG; message M { int32 a = 1; }',
            "PKG/b.proto": 'syntax = "proto3"; package PKG; import "PKG/2a.proto"; message N { M m = 1; }',
        },
        "PKG/2a.proto: '2a_pb2' is not possible in a Python import; rename the file or its folder",
    ),
}
"""Cases that the generators answer with code, which then fails to import or to round trip."""

_STOPS: dict[str, Case] = {
    "class_none": (
        "message None { int32 a = 1; }",
        "PKG/a.proto:3: message PKG.None: it becomes 'None', which is not a valid class name; rename it",
    ),
    "class_empty": (
        "message _ { int32 a = 1; }",
        "PKG/a.proto:3: message PKG._: it becomes '', which is not a valid class name; rename it",
    ),
    "group": (
        {"PKG/a.proto": 'syntax = "proto2";\npackage PKG;\nmessage M { optional group G = 1 {} }'},
        "PKG/a.proto:3: message PKG.M: field g is a group, which dataclasses cannot hold; use a message",
    ),
    "package_is_keyword": (
        {
            "PKG/x.proto": 'syntax = "proto3"; package PKG.lambda.v1; message X {}',
            "PKG/a.proto": 'syntax = "proto3";\npackage PKG.v1;\nimport "PKG/x.proto";\n'
            "message M { map<string, PKG.lambda.v1.X> x = 1; }",
        },
        "PKG/a.proto:4: message PKG.v1.M: 'lambda' in package PKG.lambda.v1 is not possible in a Python import; "
        "rename the package",
    ),
    "modules_meet": (
        {
            "PKG/a-b.proto": 'syntax = "proto3"; package PKG; message A {}',
            "PKG/a_b.proto": 'syntax = "proto3"; package PKG; message B {}',
        },
        "PKG/a-b.proto: it and PKG/a_b.proto become one module, PKG/a_b_pb2.py; rename one of them\n"
        "PKG/a_b.proto: it and PKG/a-b.proto become one module, PKG/a_b_pb2.py; rename one of them",
    ),
}
"""Cases that the generators refuse themselves, without saying where."""

_MEANS_OTHERWISE: dict[str, Case] = {
    "required": (
        {"PKG/a.proto": 'syntax = "proto2";\npackage PKG;\nmessage M {\n  required int32 a = 1;\n}'},
        "PKG/a.proto:4: message PKG.M: field a is required, which dataclasses cannot say; make it optional, or use "
        'syntax = "proto3"',
    ),
    "edition": (
        {"PKG/a.proto": 'edition = "2023";\npackage PKG;\nmessage M { int32 a = 1; }'},
        'PKG/a.proto: editions are not supported; write syntax = "proto3"',
    ),
}
"""Cases that would become dataclasses with another meaning."""

_ALL = _BREAKS | _STOPS | _MEANS_OTHERWISE


def _files(name: str) -> dict[str, str]:
    body = _ALL[name][0]
    files = {"PKG/a.proto": f'syntax = "proto3";\npackage PKG;\n{body}'} if isinstance(body, str) else body
    return {path.replace("PKG", name): text.replace("PKG", name) for path, text in files.items()}


@pytest.mark.parametrize("name", _ALL)
def test_it_is_refused_with_its_place(run: Callable[..., Any], name: str) -> None:
    answer = run(_files(name))
    assert answer.error == f"protoc-gen-python_messages: {_ALL[name][1].replace('PKG', name)}"
    assert not answer.texts


def test_all_faults_are_told_at_once(run: Callable[..., Any]) -> None:
    names = ("enum_mro", "fields_meet", "classes_meet_over_files")
    error = run({path: text for name in names for path, text in _files(name).items()}).error
    assert error.removeprefix("protoc-gen-python_messages: ").splitlines() == sorted(
        line for name in names for line in _ALL[name][1].replace("PKG", name).splitlines()
    )


def test_without_source_info_the_file_is_named_alone(request_for: Compile) -> None:
    from protoc_gen_python_messages.plugin import generate

    request = request_for(_files("enum_mro"))
    for file in request.proto_file:
        file.ClearField("source_code_info")
    assert generate(request).error.startswith("protoc-gen-python_messages: enum_mro/a.proto: enum enum_mro.E:")


def test_what_no_target_shares_a_package_with_is_not_refused(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "acme/gen/enum_mro/a_pb2.py"
    there.parent.mkdir(parents=True)
    there.touch()
    monkeypatch.chdir(tmp_path)
    files = {
        **_files("enum_mro"),
        "user/a.proto": 'syntax = "proto3"; package user; import "enum_mro/a.proto"; message U { enum_mro.M m = 1; }',
    }
    assert not run(files, ["user/a.proto"]).error


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory: pytest.TempPathFactory, compiled: Compile, write: Callable[..., None]) -> Path:
    """The tree that the generators write of all cases where nobody checks."""
    folder = tmp_path_factory.mktemp("unchecked")
    files = {path: text for name in _BREAKS for path, text in _files(name).items()}
    selection = select(compiled(folder / "proto", files), Options(package="acme.gen"))
    write(folder, betterproto_classes.generate(selection) | google_classes.generate(selection))
    return folder


@pytest.fixture(scope="module")
def found(unchecked: Path, errors: Callable[..., Mapping[str, list[str]]]) -> Mapping[str, list[str]]:
    found = errors(unchecked, *(f"acme.gen.{name}" for name in _BREAKS if name != "folder_is_keyword"))
    return {**found, **errors(unchecked, "acme.gen.folder_is_keyword.class")}


@pytest.mark.parametrize("name", _BREAKS)
def test_it_would_break(found: Mapping[str, list[str]], name: str) -> None:
    assert any(found[package] for package in found if package.split(".")[2] == name)


@pytest.mark.parametrize("name", _STOPS)
def test_it_would_stop_the_generators(request_for: Compile, name: str) -> None:
    selection = select(request_for(_files(name)), Options())
    with pytest.raises(UsageError, match=r"betterproto2's generator failed|Google's generator rejected"):
        _ = betterproto_classes.generate(selection), google_classes.generate(selection)
