"""Id expressions and search attributes: what is compiled, and how what is not is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from python_temporal import codegen

_TEXTS = st.text(alphabet="a2%/5Ü-ü", min_size=1, max_size=6)
"""Short ones of few characters, so that many would meet."""


def _workflow(option: str) -> str:
    return f"service S {{ rpc Work(In) returns (Out) {{\n option (temporal.v1.workflow) = {{ {option} }};\n }} }}"


def _id(run: Callable[..., Any], expression: str) -> Any:
    return run(_workflow(f"id: {expression!r}"))


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        pytest.param("plain", "'plain'", id="literal"),
        pytest.param("a $ {b} !", "'a $ {b} !'", id="no_expression"),
        pytest.param("a/${! name }", "'a/' + _t.text(request.name, 'name', WORK_WORKFLOW_NAME)", id="string"),
        pytest.param("${!this.name}", "_t.text(request.name, 'name', WORK_WORKFLOW_NAME)", id="this"),
        pytest.param("${! number }", "_t.text(request.number, 'number', WORK_WORKFLOW_NAME)", id="integer"),
        pytest.param("${! number.string() }", "_t.text(request.number, 'number', WORK_WORKFLOW_NAME)", id="conversion"),
        pytest.param("${! flag }", "_t.text(request.flag, 'flag', WORK_WORKFLOW_NAME)", id="bool"),
        pytest.param("${! blob }", "_t.text(request.blob, 'blob', WORK_WORKFLOW_NAME)", id="bytes"),
        pytest.param("${! kind }", "_t.text(request.kind, 'kind', WORK_WORKFLOW_NAME)", id="enum"),
        pytest.param("${! wrapped }", "_t.text(request.wrapped, 'wrapped', WORK_WORKFLOW_NAME)", id="wrapper"),
        pytest.param("${! class }", "_t.text(request.class_, 'class', WORK_WORKFLOW_NAME)", id="keyword"),
        pytest.param("${! someName }", "_t.text(request.some_name, 'some_name', WORK_WORKFLOW_NAME)", id="json_name"),
        pytest.param(
            "${! inner.inner.name }",
            "_t.text(_t.optional(request.inner, 'inner', 'name'), 'inner.inner.name', WORK_WORKFLOW_NAME)",
            id="nested",
        ),
        pytest.param(
            "a-${! name }-${! number }-b",
            "'a-' + _t.text(request.name, 'name', WORK_WORKFLOW_NAME, '-') + '-' + "
            "_t.text(request.number, 'number', WORK_WORKFLOW_NAME) + '-b'",
            id="separated",
        ),
    ],
)
def test_paths_are_compiled(run: Callable[..., Any], expression: str, code: str) -> None:
    text = _id(run, expression).text
    assert f"    return {code}\n" in text
    assert f"id_expression={expression!r}," in text


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        pytest.param("${! nme }", "acme.v1.In has no field nme; its fields are name, number", id="unknown"),
        pytest.param("${! some_name }", "some_name is written someName in expressions", id="proto_name"),
        pytest.param("${! name.x }", "name is not a message, so it has no x", id="into_scalar"),
        pytest.param("${! at.seconds }", "at is not a message, so it has no seconds", id="into_well_known"),
        pytest.param("${! inner }", "inner is a message, whose text differs", id="message"),
        pytest.param("${! ratio }", "ratio is a floating-point number", id="float"),
        pytest.param("${! at }", "at is a timestamp", id="timestamp"),
        pytest.param("${! tags }", "tags is a list", id="list"),
        pytest.param("${! inners.name }", "inners is a repeated field, into which no path leads", id="into_repeated"),
        pytest.param("${! labels.a }", "labels is a map, into which no path leads", id="into_map"),
        pytest.param("${! uuid_v4() }", "'uuid_v4()' is more than a path", id="function"),
        pytest.param("${! name.uppercase() }", "'name.uppercase()' is more than a path", id="method"),
        pytest.param('${! name.or("x") }', "is more than a path", id="or"),
        pytest.param("${! name + class }", "'name + class' is more than a path", id="operator"),
        pytest.param("${! }", "'' is more than a path", id="empty"),
        pytest.param("${! name", "a ${! has no closing }", id="open"),
        pytest.param("${! name }%-${! number }", "begin the text with another character", id="percent"),
    ],
)
def test_anything_else_is_refused_by_file_and_line(run: Callable[..., Any], expression: str, reason: str) -> None:
    error = _id(run, expression).error
    assert re.match(
        r"protoc-gen-python_temporal: acme/v1/acme\.proto:\d+: option \(temporal\.v1\.workflow\)\.id: ", error
    )
    assert reason in error


def test_values_that_run_together_are_warned_of(run: Callable[..., Any]) -> None:
    answer = _id(run, "a/${! name }${! number }")
    assert "_t.text(request.name, 'name', WORK_WORKFLOW_NAME, '') + _t.text(" in answer.text
    (warning,) = answer.warnings
    assert "(temporal.v1.workflow).id: two values follow each other" in warning
    assert _id(run, "a/${! name }/${! number }").warnings == []
    # What follows the last value is the same in every id, so anything may.
    assert _id(run, "${! name }%").warnings == []


@given(
    expression=st.sampled_from(["${! name }/${! other }", "a/${! name }25${! other }/b", "${! name }ü-${! other }"]),
    one=st.tuples(_TEXTS, _TEXTS),
    two=st.tuples(_TEXTS, _TEXTS),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_ids_of_unlike_inputs_are_unlike(
    run: Callable[..., Any], expression: str, one: tuple[str, str], two: tuple[str, str]
) -> None:
    code = _compiled(run, expression)

    def evaluated(pair: tuple[str, str]) -> Any:
        request = SimpleNamespace(name=pair[0], some_name=pair[1])
        return eval(code, {"_t": codegen, "request": request, "WORK_WORKFLOW_NAME": "work"})

    assert (evaluated(one) == evaluated(two)) == (one == two)


def _compiled(run: Callable[..., Any], expression: str) -> str:
    (line,) = re.findall(
        r"def _id_of_work_workflow.*\n    return (.*)", _id(run, expression.replace("other", "someName")).text
    )
    return str(line)


def test_the_line_is_the_options(run: Callable[..., Any]) -> None:
    # Seven lines of header, then the service, then the option.
    assert "acme/v1/acme.proto:9:" in _id(run, "${! nme }").error


def test_an_expression_over_an_empty_input_has_nothing_to_name(run: Callable[..., Any]) -> None:
    body = 'service S { rpc Work(google.protobuf.Empty) returns (Out) { option (temporal.v1.workflow) = {id: "%s"}; } }'
    assert "google.protobuf.Empty has no field name; its fields are none" in run(body % "${! name }").error
    assert "def _id_of_work_workflow(_request: None) -> str:\n    return 'all'\n" in run(body % "all").text


def test_update_ids_are_compiled_too(run: Callable[..., Any]) -> None:
    body = 'service S { rpc Pay(In) returns (Out) { option (temporal.v1.update) = {id: "pay/${! name }"}; } }'
    text = run(body).text
    assert "update_id=_id_of_pay_update," in text
    assert "option (temporal.v1.update).id: acme.v1.In has no field x" in run(body.replace("name", "x")).error


@pytest.mark.parametrize(
    ("line", "code"),
    [
        pytest.param("Name = name", "(_t.SearchAttributeKey.for_keyword('Name'), request.name)", id="string"),
        pytest.param("root.Name = this.kind", "(_t.SearchAttributeKey.for_keyword('Name'), request.kind)", id="enum"),
        pytest.param("Big = big.int64()", "(_t.SearchAttributeKey.for_int('Big'), request.big)", id="integer"),
        pytest.param("Ratio = ratio", "(_t.SearchAttributeKey.for_float('Ratio'), request.ratio)", id="float"),
        pytest.param("Flag = flag", "(_t.SearchAttributeKey.for_bool('Flag'), request.flag)", id="bool"),
        pytest.param(
            'At = at.ts_parse("2006-01-02T15:04:05Z")',
            "(_t.SearchAttributeKey.for_datetime('At'), request.at)",
            id="time",
        ),
        pytest.param("Tags = tags", "(_t.SearchAttributeKey.for_keyword_list('Tags'), request.tags)", id="list"),
        pytest.param('Fixed = "a \\"b\\""', "(_t.SearchAttributeKey.for_keyword('Fixed'), 'a \"b\"')", id="text"),
        pytest.param("Fixed = true", "(_t.SearchAttributeKey.for_bool('Fixed'), True)", id="true"),
        pytest.param("Fixed = -5", "(_t.SearchAttributeKey.for_int('Fixed'), -5)", id="number"),
        pytest.param(
            "Deep = inner.name",
            "(_t.SearchAttributeKey.for_keyword('Deep'), _t.optional(request.inner, 'name'))",
            id="nested",
        ),
    ],
)
def test_search_attributes_are_typed_by_their_fields(run: Callable[..., Any], line: str, code: str) -> None:
    escaped = line.replace("\\", "\\\\").replace('"', '\\"')
    assert code in run(_workflow(f'search_attributes: "# who\\n{escaped}\\n"')).text


def test_typed_search_attributes_name_their_type(run: Callable[..., Any]) -> None:
    text = run(_workflow('typed_search_attributes: "string.Name = name\\nkeyword.Other = name"')).text
    assert "_t.SearchAttributeKey.for_text('Name')" in text
    assert "_t.SearchAttributeKey.for_keyword('Other')" in text


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        pytest.param(
            'search_attributes: "Name"', "'Name' is not an assignment such as Name = path", id="no_assignment"
        ),
        pytest.param('search_attributes: "A = name\\nA = name"', "A is assigned twice", id="twice"),
        pytest.param(
            'search_attributes: "A = inner"', "inner is a message, which search attributes cannot hold", id="kind"
        ),
        pytest.param('search_attributes: "keyword.A = name"', "'keyword.A' should be a plain Name", id="typed"),
        pytest.param(
            'typed_search_attributes: "A = name"', "'A' should be type.Name, such as keyword.Name", id="untyped"
        ),
        pytest.param(
            'typed_search_attributes: "word.A = name"', "'word' is not a type; types are keyword, string", id="type"
        ),
        pytest.param(
            'typed_search_attributes: "int64.A = name"',
            "name is a string, which A, a int64 attribute, cannot hold",
            id="fit",
        ),
        pytest.param('search_attributes: "A = big.uppercase()"', "is more than a path", id="function"),
        pytest.param(
            'search_attributes: "A = name" typed_search_attributes: "keyword.A = name"',
            "keep only the typed ones",
            id="both",
        ),
    ],
)
def test_wrong_search_attributes_are_refused(run: Callable[..., Any], option: str, reason: str) -> None:
    assert reason in run(_workflow(option)).error
