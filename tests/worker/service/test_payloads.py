"""What is written into payloads directly is what goes there by way of ProtoJSON."""

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
from contextunity.core.errors import CodecError
from contextunity.worker.service.payloads import NotPlainError, as_payload, payload_data
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
    "message",
    [
        pytest.param(_STATUS, id="everything"),
        pytest.param(TaskStatus(), id="nothing"),
        pytest.param(TaskStatus(status=TaskState(77)), id="a number that no word stands for"),
        pytest.param(StartWorkflowResult(workflow_id="w", run_id="r", status=TaskState.STARTED), id="a start"),
        pytest.param(StartWorkflowResult(), id="whole, and empty"),
        pytest.param(RegisterSchedulesResult(status="ok"), id="whole, with lists and objects"),
        pytest.param(TaskReply(result=codec.pack_any(ListTasksRequest(status=[TaskState.FAILED]))), id="packed words"),
        pytest.param(TaskReply(result=codec.pack_any(StartWorkflowResult())), id="packed, and so not whole"),
    ],
)
def test_answers_go_the_short_way(message: Any) -> None:
    assert _short(message) == _long(message)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(ExecuteCodeResult(result=codec.dict_to_struct({"a": 1}).fields["a"]), id="a value of JSON"),
        pytest.param(ExecuteCodeRequest(inputs=codec.dict_to_struct({"a": 1})), id="a Struct"),
        pytest.param(TaskReply(result=codec.pack_any(codec.dict_to_struct({"a": 1}))), id="a packed Struct"),
        pytest.param(
            TaskReply(result=codec.pack_any(TaskReply(result=codec.pack_any(TaskContext())))), id="packed twice"
        ),
    ],
)
def test_what_has_a_form_of_its_own_goes_the_long_way(message: Any) -> None:
    with pytest.raises(NotPlainError):
        _short(message)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "shape",
    ["Scalars", "Optionals", "Lists", "Nothing", "Enums", "Maps", "Oneofs", "Outer", "Node", "WellKnown", "Wrappers"],
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_both_ways_agree(shapes: Any, fill: Any, shape: str, packed: bool, data: st.DataObject) -> None:  # noqa: F811
    pb = codec.proto_class(getattr(shapes, shape))()
    fill(data, pb)
    message: Any = codec.from_proto(getattr(shapes, shape), pb)
    if packed:
        message = TaskReply(result=codec.pack_any(message))
    try:
        written = _short(message)
    except NotPlainError:
        return
    try:
        wanted = _long(message)
    except CodecError:
        pytest.fail("only the long way refuses it")
    assert written == wanted


def _short(message: Any) -> Any:
    return codec.to_proto(codec.dict_to_struct(payload_data(codec.to_proto(message))))


def _long(message: Any) -> Any:
    return codec.to_proto(codec.dict_to_struct(as_payload(message)))
