"""Who did what: a line of JSON for every call that changes something, with its outcome."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from contextunity.core import ContextUnit

from .conftest import Desk, Refusal


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, logger="contextunity.worker.audit")

    def read() -> list[dict[str, Any]]:
        return [json.loads(each.getMessage()) for each in caplog.records if each.name == "contextunity.worker.audit"]

    return read


def test_who_did_what_is_told_with_its_outcome(desk: Desk, lines: Any) -> None:
    token = Desk.token("one")
    unit = ContextUnit(payload={"workflow_type": "work", "name": "a", "mode": "MODE_WAIT"})
    started = desk.call("StartWorkflow", unit=unit, token=token).payload
    desk.call("GetTaskStatus", {"workflow_id": started["workflow_id"]}, token=token)
    desk.call("TerminateTask", {"workflow_id": started["workflow_id"]}, token=token)
    (start, end) = lines()
    who = {"token_id": "for a test", "principal": "for a test", "project_id": "", "tenant_id": "one"}
    assert start == {
        **who,
        "method": "StartWorkflow",
        "outcome": "OK",
        "workflow_id": started["workflow_id"],
        "run_id": started["run_id"],
        "unit_id": unit.unit_id,
        "trace_id": unit.trace_id,
    }
    assert end.items() >= {**who, "method": "TerminateTask", "workflow_id": started["workflow_id"]}.items()


@pytest.mark.parametrize(
    ("token", "payload", "outcome", "reason"),
    [
        pytest.param(Desk.token("one"), {"workflow_id": "nobody"}, "NOT_FOUND", "TASK_UNKNOWN", id="unknown"),
        pytest.param(
            Desk.token("one", permissions=("worker:read",)),
            {"workflow_id": "nobody"},
            "PERMISSION_DENIED",
            "PERMISSION_MISSING",
            id="by_the_headers",
        ),
        pytest.param(Desk.token("one"), {}, "INVALID_ARGUMENT", "PAYLOAD_INVALID", id="invalid"),
    ],
)
def test_what_was_refused_is_told_too(
    desk: Desk, lines: Any, token: str, payload: dict[str, Any], outcome: str, reason: str
) -> None:
    with pytest.raises(Refusal):
        desk.call("CancelTask", payload, token=token)
    (line,) = lines()
    assert (line["tenant_id"], line["method"], line["outcome"], line["reason"]) == (
        "one",
        "CancelTask",
        outcome,
        reason,
    )
    assert "Bearer" not in str(line)


def test_schedules_are_told_by_their_ids(desk: Desk, lines: Any) -> None:
    token = Desk.token("one", permissions=("worker:schedule",))
    entry = {"schedule_id": "audited", "workflow_type": "ping", "cron": "0 3 * * *"}
    desk.call("RegisterSchedules", {"project_id": "shop", "schedules": [entry]}, token=token)
    desk.call("DeleteSchedule", {"project_id": "shop", "schedule_id": "audited"}, token=token)
    (registered, deleted) = lines()
    assert (registered["method"], registered["created"]) == ("RegisterSchedules", ["audited"])
    assert deleted.items() >= {"schedule_id": "audited", "schedule_project_id": "shop", "outcome": "OK"}.items()
