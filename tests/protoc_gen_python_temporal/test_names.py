"""Names: as betterproto2 gives them, and never two things under one."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import pytest
from betterproto2_compiler.compile.naming import pythonize_class_name, pythonize_field_name
from hypothesis import given
from hypothesis import strategies as st

from protoc_gen_python_temporal.python_text import Namespace, dataclass_name, field_name, snake_case

_IDENTIFIER = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
_BOUNDS = "start_to_close_timeout: {seconds: 1} schedule_to_close_timeout: {seconds: 2}"


@given(st.lists(_IDENTIFIER, min_size=1, max_size=3).map(".".join))
def test_dataclass_names_are_betterproto2s(name: str) -> None:
    assert dataclass_name(name) == pythonize_class_name(name)


@given(_IDENTIFIER)
def test_field_names_are_betterproto2s(name: str) -> None:
    assert field_name(name) == pythonize_field_name(name)


@given(st.lists(st.lists(_IDENTIFIER, min_size=1, max_size=2), max_size=12))
def test_a_namespace_never_gives_a_name_twice(wishes: list[list[str]]) -> None:
    namespace = Namespace({"reserved"})
    given_names = [namespace.take(*each) for each in wishes]
    assert len({*given_names, "reserved"}) == len(given_names) + 1
    assert all(name.isidentifier() and name != "import" for name in given_names)


@pytest.mark.parametrize(
    ("proto", "python"),
    [
        pytest.param("SyncToBrain", "sync_to_brain", id="pascal"),
        pytest.param("GetHTTPPage", "get_http_page", id="acronym"),
        pytest.param("get_page", "get_page", id="snake"),
        pytest.param("V2Start", "v2_start", id="digit"),
        pytest.param("_Hidden", "hidden", id="underscore"),
    ],
)
def test_method_names_are_in_snake_case(proto: str, python: str) -> None:
    assert snake_case(proto) == python


def _names(text: str) -> set[str]:
    """Public names at the top level of a module."""
    names = set[str]()
    for node in ast.parse(text).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.ClassDef(name=name):
                assert name not in names, f"{name} is there twice"
                names.add(name)
            case _:
                pass
    return names


def _methods(text: str, name: str) -> list[str]:
    [found] = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name]
    return [node.name for node in found.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_two_services_may_have_methods_of_one_name(run: Callable[..., Any]) -> None:
    method = f"rpc Do(In) returns (Out) {{ option (temporal.v1.activity) = {{ {_BOUNDS} }}; }}"
    names = _names(run(f"service First {{ {method} }} service Second {{ {method} }}").text)
    assert {"do", "second_do", "DO_ACTIVITY_NAME", "SECOND_DO_ACTIVITY_NAME"} <= names


def test_methods_that_differ_in_case_alone_stay_apart(run: Callable[..., Any]) -> None:
    methods = "".join(
        f"rpc {name}(In) returns (Out) {{ option (temporal.v1.activity) = {{ {_BOUNDS} }}; }}"
        for name in ("GetURL", "GetUrl", "get_url")
    )
    text = run(f"service S {{ {methods} }}").text
    assert len(set(_methods(text, "SActivities"))) == 3
    assert {"get_url", "s_get_url", "s_get_url_"} <= _names(text)


def test_keywords_and_builtins_are_escaped(run: Callable[..., Any]) -> None:
    methods = "".join(
        f"rpc {name}(In) returns (Out) {{ option (temporal.v1.activity) = {{ {_BOUNDS} }}; }}"
        for name in ("Import", "Print", "Str", "Activities")
    )
    text = run(f"service S {{ {methods} }}").text
    assert {"s_import", "s_print", "s_str"} <= _names(text)
    assert _methods(text, "SActivities") == ["import_", "print", "str", "activities_"]


def test_messages_never_hide_what_handles_have(run: Callable[..., Any]) -> None:
    body = """
    service S {
      rpc Run(In) returns (Out) { option (temporal.v1.workflow) = {
        signal: [{ref: "Cancel" start: true}, {ref: "Result"}, {ref: "Raw"}]
        query: {ref: "Id"}
        update: {ref: "Describe"}
      }; }
      rpc Cancel(In) returns (google.protobuf.Empty) { option (temporal.v1.signal) = {}; }
      rpc Result(In) returns (google.protobuf.Empty) { option (temporal.v1.signal) = {}; }
      rpc Raw(In) returns (google.protobuf.Empty) { option (temporal.v1.signal) = {}; }
      rpc Id(In) returns (Out) { option (temporal.v1.query) = {}; }
      rpc Describe(In) returns (Out) { option (temporal.v1.update) = {}; }
    }"""
    text = run(body).text
    assert _methods(text, "RunHandle") == ["id_", "cancel_", "result_", "raw_", "describe_", "start_describe"]
    assert _methods(text, "RunChild") == ["cancel_", "result_", "raw_"]
    assert _methods(text, "RunWorkflowBase") == ["run", "id", "cancel", "result", "raw", "describe"]
    assert _methods(text, "SClient") == ["run", "start_run", "get_run", "start_run_with_cancel"]


def test_a_query_may_be_called_run_and_a_signal_validate(run: Callable[..., Any]) -> None:
    body = """
    service S {
      rpc Work(In) returns (Out) { option (temporal.v1.workflow) = {
        query: {ref: "Run"} signal: {ref: "ValidatePay"} update: {ref: "Pay"}
      }; }
      rpc Run(In) returns (Out) { option (temporal.v1.query) = {}; }
      rpc ValidatePay(In) returns (google.protobuf.Empty) { option (temporal.v1.signal) = {}; }
      rpc Pay(In) returns (Out) { option (temporal.v1.update) = {validate: true}; }
    }"""
    text = run(body).text
    methods = _methods(text, "WorkWorkflowBase")
    assert methods == ["run", "run_", "validate_pay", "pay", "validate_pay_"]
    assert "handler='run_'" in text
    assert "validator='validate_pay_'" in text


def test_workflow_names_are_not_doubled(run: Callable[..., Any]) -> None:
    body = """
    service S {
      rpc OrderWorkflow(In) returns (Out) { option (temporal.v1.workflow) = {}; }
      rpc Order(In) returns (Out) { option (temporal.v1.workflow) = {}; }
    }"""
    names = _names(run(body).text)
    assert {"order_workflow", "OrderWorkflowBase", "OrderHandle"} <= names
    assert {"s_order_workflow", "SOrderWorkflowBase", "SOrderHandle"} <= names


def test_default_names_are_full_method_names(run: Callable[..., Any]) -> None:
    text = run(f"service S {{ rpc Do(In) returns (Out) {{ option (temporal.v1.activity) = {{ {_BOUNDS} }}; }} }}").text
    assert "DO_ACTIVITY_NAME: _Final = 'acme.v1.S.Do'" in text


def test_nested_and_foreign_messages_are_found(run: Callable[..., Any]) -> None:
    other = 'syntax = "proto3"; package other.pkg; message Outer { message inner_one { message Deep {} } }'
    main = f"""syntax = "proto3"; package acme.v1; import "other/pkg/a.proto"; import "temporal/v1/temporal.proto";
    service S {{ rpc Do(other.pkg.Outer.inner_one) returns (other.pkg.Outer.inner_one.Deep) {{
      option (temporal.v1.activity) = {{ {_BOUNDS} }}; }} }}"""
    text = run({"other/pkg/a.proto": other, "acme/v1/acme.proto": main}).text
    assert "import gen.other.pkg as _pkg\n" in text
    assert "_t.Activity[_pkg.OuterInnerOne, _pkg.OuterInnerOneDeep]" in text


def test_packages_that_end_alike_are_told_apart(run: Callable[..., Any]) -> None:
    files = {f"{name}/v1/a.proto": f'syntax = "proto3"; package {name}.v1; message M {{}}' for name in ("one", "two")}
    files["acme/v1/acme.proto"] = f"""syntax = "proto3"; package acme.v1;
    import "one/v1/a.proto"; import "two/v1/a.proto"; import "temporal/v1/temporal.proto";
    service S {{ rpc Do(one.v1.M) returns (two.v1.M) {{ option (temporal.v1.activity) = {{ {_BOUNDS} }}; }} }}"""
    text = run(files).text
    assert "import gen.one.v1 as _one__v1\n" in text
    assert "import gen.two.v1 as _v1\n" in text
    assert "_t.Activity[_one__v1.M, _v1.M]" in text


def test_a_package_that_python_cannot_import_is_refused(run: Callable[..., Any]) -> None:
    file = f"""syntax = "proto3"; package acme.import.v1; import "temporal/v1/temporal.proto"; message M {{}}
    service S {{ rpc Do(M) returns (M) {{ option (temporal.v1.activity) = {{ {_BOUNDS} }}; }} }}"""
    assert "Python cannot import gen.acme.import.v1, because import is a keyword" in run({"a.proto": file}).error


def test_odd_file_names_give_the_paths_that_pb2_modules_have(run: Callable[..., Any]) -> None:
    file = f"""syntax = "proto3"; package acme; import "temporal/v1/temporal.proto"; message M {{}}
    service S {{ rpc Do(M) returns (M) {{ option (temporal.v1.activity) = {{ {_BOUNDS} }}; }} }}"""
    names = ("some_dir/my/own_file_temporal.py", "some_dir/my/own_file_descriptors.py")
    assert set(run({"some-dir/my.own-file.proto": file}).files) == set(names)


def test_a_message_without_a_package_needs_the_plugins_own(run: Callable[..., Any]) -> None:
    file = f"""syntax = "proto3"; import "temporal/v1/temporal.proto"; message M {{}}
    service S {{ rpc Do(M) returns (M) {{ option (temporal.v1.activity) = {{ {_BOUNDS} }}; }} }}"""
    assert "import gen as _gen\n" in run({"a.proto": file}).text
    assert "a.proto:2: M is in no package; declare one, or give the plugin package=" in run({"a.proto": file}, "").error
