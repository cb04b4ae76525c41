"""Contradictions and mistakes in annotations: all are errors, each with file and line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

_BOUND = "start_to_close_timeout: {seconds: 1}"


def _method(option: str, signature: str = "(In) returns (Out)", name: str = "Do") -> str:
    return f"rpc {name}{signature} {{ option (temporal.v1.{option}; }}"


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        pytest.param(_method("activity) = {}"), "activity Do has no timeout of an attempt", id="unbounded"),
        pytest.param(
            _method("activity) = {start_to_close_timeout: {}}"),
            "activity Do has no timeout of an attempt",
            id="zero_bound",
        ),
        pytest.param(
            _method("activity) = {heartbeat_timeout: {seconds: 1} schedule_to_start_timeout: {seconds: 1}}"),
            "activity Do has no timeout of an attempt",
            id="other_bounds",
        ),
        pytest.param(_method("activity) = {start_to_close_timeout: {seconds: -1}}"), "it is negative", id="negative"),
        pytest.param(
            _method("activity) = {start_to_close_timeout: {nanos: 1}}"),
            "1 ns are more precise than a microsecond",
            id="nanos",
        ),
        pytest.param(
            _method(f"activity) = {{ {_BOUND} retry_policy: {{backoff_coefficient: 0.5}} }}"),
            "0.5 is below 1",
            id="backoff",
        ),
        pytest.param(
            _method(f"activity) = {{ {_BOUND} retry_policy: {{backoff_coefficient: inf}} }}"),
            "inf is below 1 or infinite",
            id="endless_backoff",
        ),
        pytest.param(
            _method(f"activity) = {{ {_BOUND} priority: {{fairness_weight: nan}} }}"),
            "nan is not a number above 0",
            id="weight",
        ),
        pytest.param(
            _method(f"activity) = {{ {_BOUND} retry_policy: {{max_attempts: -1}} }}"), "-1 is negative", id="attempts"
        ),
        pytest.param(
            _method(
                f"activity) = {{ {_BOUND} "
                "retry_policy: {initial_interval: {seconds: 9} max_interval: {seconds: 8} } }"
            ),
            "it is shorter than initial_interval",
            id="intervals",
        ),
        pytest.param(
            _method(f"activity) = {{ {_BOUND} priority: {{priority_key: -1}} }}"),
            "-1 is negative; 1 is the highest",
            id="key",
        ),
        pytest.param(
            _method("signal) = {}"), "Do is a signal, so it returns google.protobuf.Empty", id="signal_result"
        ),
        pytest.param(
            _method("workflow) = {}", "(stream In) returns (Out)"),
            "Do is a stream, which Temporal does not support",
            id="stream",
        ),
        pytest.param(
            "rpc Do(In) returns (Out) { option (temporal.v1.workflow) = {}; option (temporal.v1.query) = {}; }",
            "Do is a workflow and a query; a method is an activity and at most one of",
            id="two_kinds",
        ),
        pytest.param(
            _method('workflow) = {query: {ref: "Nothing"}}'), "ref 'Nothing' names no method of S, nor a full", id="ref"
        ),
        pytest.param(_method('workflow) = {query: {ref: ""}}'), "ref '' names", id="empty_ref"),
        pytest.param(
            _method('workflow) = {query: {ref: "Go"}}') + "rpc Go(In) returns (Out);",
            "ref 'Go' names a method without option (temporal.v1.query)",
            id="ref_kind",
        ),
        pytest.param(
            _method('workflow) = {query: [{ref: "Ask"}, {ref: "acme.v1.S.Ask"}]}') + _method("query) = {}", name="Ask"),
            "query 'acme.v1.S.Ask' is there twice",
            id="ref_twice",
        ),
        pytest.param(
            _method('workflow) = {update: {ref: "Pay" workflow_id_conflict_policy: WORKFLOW_ID_CONFLICT_POLICY_FAIL}}')
            + _method("update) = {}", name="Pay"),
            "Pay has a workflow_id_conflict_policy, which only its start: true uses",
            id="policy_without_start",
        ),
        pytest.param(
            _method(
                "workflow) = {id_reuse_policy: WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING "
                "workflow_id_conflict_policy: WORKFLOW_ID_CONFLICT_POLICY_FAIL}"
            ),
            "TERMINATE_IF_RUNNING contradicts any workflow_id_conflict_policy",
            id="policies",
        ),
        pytest.param(
            _method("workflow) = {run_timeout: {seconds: 9} execution_timeout: {seconds: 8}}"),
            "it is longer than execution_timeout",
            id="timeouts",
        ),
        pytest.param(_method('workflow) = {aliases: ""}'), "aliases: one of them is empty", id="empty_alias"),
        pytest.param(
            _method('workflow) = {name: "a"}') + _method('workflow) = {name: "b" aliases: "a"}', name="Other"),
            "workflow name 'a' is taken by Do; give Other another",
            id="same_name",
        ),
        pytest.param(
            _method("update) = {wait_policy: WAIT_POLICY_ACCEPTED wait_for_stage: WAIT_POLICY_COMPLETED}"),
            "it differs from wait_for_stage",
            id="stages",
        ),
        pytest.param(
            _method("update) = {wait_for_stage: WAIT_POLICY_ADMITTED}"),
            "WAIT_POLICY_ADMITTED is not supported: Python's SDK cannot wait for it",
            id="admitted",
        ),
    ],
)
def test_a_mistake_is_an_error_with_its_place(run: Callable[..., Any], methods: str, reason: str) -> None:
    answer = run(f"service S {{\n{methods}\n}}")
    assert "acme/v1/acme.proto:9: " in answer.error
    assert reason in answer.error
    assert answer.files == {}


def test_what_dataclasses_cannot_hold_is_an_error_as_for_the_messages(run: Callable[..., Any]) -> None:
    text = """syntax = "proto2";
package acme.v1;
import "temporal/v1/temporal.proto";
message In {
  message Part {
    required string name = 1;
  }
  optional group Lines = 2 {}
}
service S { rpc Do(In) returns (In) { option (temporal.v1.workflow) = {}; } }
"""
    assert run({"acme/v1/a.proto": text}).error.splitlines() == [
        "protoc-gen-python_temporal: acme/v1/a.proto:6: message acme.v1.In.Part: field name is required, which "
        'dataclasses cannot say; make it optional, or use syntax = "proto3"',
        "acme/v1/a.proto:8: message acme.v1.In: field lines is a group, which dataclasses cannot hold; use a message",
    ]


def test_all_mistakes_are_reported_at_once(run: Callable[..., Any]) -> None:
    error = run(
        f"service S {{\n{_method('activity) = {}', name='A')}\n{_method('activity) = {}', name='B')}\n"
        f"{_method('signal) = {}', name='C')}\n}}"
    ).error
    assert [line.partition(": ")[0] for line in error.removeprefix("protoc-gen-python_temporal: ").split("\n")] == [
        "acme/v1/acme.proto:9",
        "acme/v1/acme.proto:10",
        "acme/v1/acme.proto:11",
    ]


def test_a_reference_into_a_file_that_is_not_imported_says_so(run: Callable[..., Any]) -> None:
    other = """syntax = "proto3"; package other.v1; import "temporal/v1/temporal.proto"; message M {}
    service O { rpc Ask(M) returns (M) { option (temporal.v1.query) = {}; } }"""
    main = """syntax = "proto3"; package acme.v1; import "temporal/v1/temporal.proto"; message M {}
    service S { rpc Do(M) returns (M) { option (temporal.v1.workflow) = {query: {ref: "other.v1.O.Ask"}}; } }"""
    answer = run({"other/v1/o.proto": other, "acme/v1/a.proto": main})
    assert "ref 'other.v1.O.Ask' is declared in other/v1/o.proto; import it" in answer.error


@pytest.mark.parametrize(
    ("option", "warns"),
    [
        pytest.param(_BOUND, True, id="attempt_alone"),
        pytest.param(
            f"{_BOUND} retry_policy: {{initial_interval: {{seconds: 1}} }}", True, id="policy_without_attempts"
        ),
        pytest.param(f"{_BOUND} retry_policy: {{max_attempts: 3}}", False, id="attempts"),
        pytest.param("schedule_to_close_timeout: {seconds: 1}", False, id="total"),
    ],
)
def test_an_activity_that_is_tried_without_end_is_a_warning(run: Callable[..., Any], option: str, warns: bool) -> None:
    answer = run(f"service S {{\n{_method('activity) = {' + option + '}')}\n}}")
    assert answer.error == ""
    text = (
        "acme/v1/acme.proto:9: warning: activity Do is retried without limit; set schedule_to_close_timeout or "
        "retry_policy.max_attempts"
    )
    assert answer.warnings == ([text] if warns else [])
