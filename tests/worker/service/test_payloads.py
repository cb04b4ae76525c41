"""Answers as the plain data of payloads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from contextunity.gen.contextunity.worker import (
    ExecuteCodeRequest,
    ExecuteCodeResult,
    FailureCause,
    FailureCauseKind,
    ListTasksRequest,
    PendingActivity,
    PendingActivityState,
    RegisterSchedulesResult,
    StartWorkflowResult,
    TaskContext,
    TaskReply,
    TaskState,
    TaskStatus,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contextunity.core import codec
from contextunity.worker.service.payloads import as_payload
from tests.betterproto2_codec.conftest import fill, shapes, tree  # noqa: F401 - fixtures

_TIME = datetime(2030, 1, 31, 12, 0, 0, 5000, tzinfo=UTC)
_STATUS = TaskStatus(
    workflow_id="w",
    run_id="r",
    status=TaskState.FAILED,
    tenant_id="one",
    started_at=_TIME,
    closed_at=_TIME + timedelta(seconds=1),
    result=codec.pack_any(TaskContext(trace_id="t", provenance=["a", "b"])),
    progress=codec.pack_any(PendingActivity(state=PendingActivityState.STARTED, attempt=3, last_started_at=_TIME)),
    failure=[FailureCause(kind=FailureCauseKind.TIMEOUT, type="START_TO_CLOSE"), FailureCause(non_retryable=True)],
    pending_activities=[PendingActivity(activity_type="a", state=PendingActivityState.SCHEDULED)],
)


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        pytest.param(
            _STATUS,
            {
                "workflow_id": "w",
                "run_id": "r",
                "status": "failed",
                "tenant_id": "one",
                "started_at": "2030-01-31T12:00:00.005Z",
                "closed_at": "2030-01-31T12:00:01.005Z",
                "result": {"trace_id": "t", "provenance": ["a", "b"]},
                "progress": {"state": "STATE_STARTED", "attempt": 3, "last_started_at": "2030-01-31T12:00:00.005Z"},
                "failure": [{"kind": "timeout", "type": "START_TO_CLOSE"}, {"non_retryable": True}],
                "pending_activities": [{"activity_type": "a", "state": "scheduled"}],
            },
            id="everything",
        ),
        pytest.param(TaskStatus(), {}, id="nothing"),
        pytest.param(TaskStatus(status=TaskState(77)), {"status": 77}, id="a number that no word stands for"),
        pytest.param(
            StartWorkflowResult(workflow_id="w", run_id="r", status=TaskState.STARTED),
            {"workflow_id": "w", "run_id": "r", "status": "started"},
            id="a start",
        ),
        pytest.param(
            StartWorkflowResult(), {"workflow_id": "", "run_id": "", "status": "unspecified"}, id="whole, and empty"
        ),
        pytest.param(
            RegisterSchedulesResult(status="ok"),
            {
                "status": "ok",
                "registered_count": 0,
                **{name: [] for name in ("created", "updated", "unchanged", "removed", "skipped")},
                **{name: [] for name in ("faults", "differences")},
            },
            id="whole, with lists and objects",
        ),
        pytest.param(
            TaskReply(result=codec.pack_any(ListTasksRequest(status=[TaskState.FAILED]))),
            {"result": {"status": ["TASK_STATE_FAILED"]}},
            id="packed words",
        ),
        pytest.param(
            TaskReply(result=codec.pack_any(StartWorkflowResult())), {"result": {}}, id="packed, and so not whole"
        ),
        pytest.param(ExecuteCodeRequest(inputs=codec.dict_to_struct({"a": 1})), {"inputs": {"a": 1}}, id="a Struct"),
        pytest.param(
            TaskReply(result=codec.pack_any(codec.dict_to_struct({"a": 1}))), {"result": {"a": 1}}, id="a packed Struct"
        ),
        pytest.param(
            TaskReply(result=codec.pack_any(TaskReply(result=codec.pack_any(TaskContext(trace_id="t"))))),
            {"result": {"result": {"@type": "type.googleapis.com/contextunity.worker.TaskContext", "trace_id": "t"}}},
            id="packed twice",
        ),
    ],
)
def test_answers_as_payloads(message: Any, payload: dict[str, Any]) -> None:
    assert as_payload(message) == payload


def test_a_value_of_json_is_written_as_it_is() -> None:
    value = codec.dict_to_struct({"a": {"b": [1, None]}}).fields["a"]
    assert as_payload(ExecuteCodeResult(status="ok", result=value))["result"] == {"b": [1, None]}


@pytest.mark.parametrize("shape", ["Scalars", "Optionals", "Lists", "Enums", "Maps", "Oneofs", "Outer", "Node"])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_what_is_packed_is_told_in_protojson(shapes: Any, fill: Any, shape: str, data: st.DataObject) -> None:  # noqa: F811
    pb = codec.proto_class(getattr(shapes, shape))()
    fill(data, pb)
    message: Any = codec.from_proto(getattr(shapes, shape), pb)
    written = as_payload(TaskReply(result=codec.pack_any(message)))
    assert written == {"result": codec.to_dict(message, preserving_proto_field_name=True)}
