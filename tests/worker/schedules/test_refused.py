"""Mistakes that would otherwise show when a schedule is due, at night: each is refused when it is registered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.worker import ScheduleOverlap

from contextunity.core import codec
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.schedules import RejectedEntry
from contextunity.worker.schedules.manager import check_entries

_LONG = timedelta(days=400)


@pytest.fixture
def faults(registry: WorkerRegistry) -> Callable[..., list[str]]:
    """What is wrong with an entry."""

    def check(entry: Any) -> list[str]:
        _, found = check_entries([entry], registry.workflows, tenant_id="acme", project_id="default")
        return [str(violation) for fault in found for violation in fault.violations]

    return check


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({"schedule_id": ""}, ["schedule_id: is required"], id="no-id"),
        pytest.param(
            {"schedule_id": "x" * 201}, ["schedule_id: must be at most 200 characters, not 201"], id="long-id"
        ),
        pytest.param(
            {"schedule_id": "ü" * 200},
            ["schedule_id: is too long with its project and tenant; letters outside ASCII count more"],
            id="long-id-in-other-letters",
        ),
        pytest.param(
            {"schedule_id": "a\x1b[2J"},
            ["schedule_id: has the control character U+001B, which no id may have"],
            id="control-character-in-id",
        ),
        pytest.param(
            {"workflow_type": "repotr"},
            ["workflow_type: 'repotr' does not exist; known types: report, report.v0, sweep"],
            id="unknown-workflow",
        ),
        pytest.param({"cron": ""}, ["cron: is required"], id="no-cron"),
        pytest.param({"cron": "0 25 * * *"}, ["cron: hour '25': 25 is not from 0 to 23"], id="cron"),
        pytest.param(
            {"timezone": "Europe/berlin"}, ["timezone: 'Europe/berlin' is written 'Europe/Berlin'"], id="case"
        ),
        pytest.param(
            {"timezone": "CET+1"},
            ["timezone: 'CET+1' is not a time zone of the IANA database, such as 'Europe/Berlin' or 'UTC'"],
            id="unknown-zone",
        ),
        pytest.param(
            {"timezone": "Local"},
            ["timezone: 'Local' is not a time zone of the IANA database, such as 'Europe/Berlin' or 'UTC'"],
            id="zone-of-the-machine",
        ),
        pytest.param(
            {"timezone": "../etc/passwd"},
            ["timezone: '../etc/passwd' is not a time zone of the IANA database, such as 'Europe/Berlin' or 'UTC'"],
            id="zone-that-is-a-path",
        ),
        pytest.param(
            {"task_queue": "harvest"},
            [
                "task_queue: 'harvest' is not the task queue of 'report', which is 'reports', or 'reports/acme' for "
                "this tenant; leave it out"
            ],
            id="queue",
        ),
        pytest.param({"task_queue": "reports/acme"}, [], id="queue-of-the-tenant"),
        pytest.param({"args": {}}, ["args.name: is required"], id="rule-of-the-proto"),
        pytest.param({"args": None}, ["args.name: is required"], id="no-args"),
        pytest.param(
            {"args": {"name": "n", "max_rows": -1}},
            ["args.max_rows: must be greater than or equal to 0, not -1"],
            id="out-of-bounds",
        ),
        pytest.param({"args": {"nam": "n"}}, ["args.nam: no such field; did you mean name?"], id="misspelt-parameter"),
        pytest.param(
            {"args": {"name": 5, "max_rows": 2.5}},
            ["args.name: expected text, got the number 5", "args.max_rows: expected an integer, got 2.5"],
            id="wrong-types",
        ),
        pytest.param(
            {"args": {"name": "n", "tenantId": "evil"}},
            ["args.tenant_id: 'evil' is not the tenant of the schedule, 'acme'; leave it out"],
            id="other-tenant",
        ),
        pytest.param({"args": {"name": "n", "tenant_id": "acme"}}, [], id="same-tenant"),
        pytest.param(
            {"workflow_type": "sweep"}, ["args.name: 'sweep' takes no parameters"], id="parameters-for-nothing"
        ),
        pytest.param(
            {"catchup_window": timedelta(seconds=5)},
            ["catchup_window: must be greater than or equal to 10s and less than or equal to 31622400s"],
            id="catchup-too-short",
        ),
        pytest.param(
            {"catchup_window": _LONG},
            ["catchup_window: must be greater than or equal to 10s and less than or equal to 31622400s"],
            id="catchup-too-long",
        ),
        pytest.param(
            {"jitter": timedelta(days=2)},
            ["jitter: must be greater than or equal to 0s and less than or equal to 86400s"],
            id="jitter",
        ),
        pytest.param(
            {"overlap": ScheduleOverlap(77)},
            ["overlap: value must be one of the defined enum values, not 77"],
            id="overlap",
        ),
        pytest.param(
            {"description": "x" * 1001}, ["description: must be at most 1000 characters, not 1001"], id="description"
        ),
    ],
)
def test_it_is_named(
    faults: Callable[..., list[str]], entry: Callable[..., Any], changes: dict[str, Any], expected: list[str]
) -> None:
    assert faults(entry(**changes)) == expected


def test_a_typed_input_must_be_the_contracts(
    faults: Callable[..., list[str]], entry: Callable[..., Any], reports: Any
) -> None:
    good = codec.pack_any(reports.ReportRequest(name="n"))
    assert faults(entry(args=None, input=good)) == []
    assert faults(entry(args=None, input=codec.pack_any(reports.ReportRequest()))) == ["input.name: is required"]
    assert faults(entry(input=good)) == ["args: `input` is set too; give only one of the two"]
    other = codec.pack_any(ContextUnit())
    wrong = "input: is a contextunity.core.ContextUnit, but"
    assert faults(entry(args=None, input=other)) == [f"{wrong} 'report' takes a acme.reports.v1.ReportRequest"]
    assert faults(entry(workflow_type="sweep", args=None, input=other)) == [f"{wrong} 'sweep' takes nothing"]


def test_a_fault_is_told_with_its_place_where_there_is_no_id() -> None:
    fault = RejectedEntry(place="schedules[3]", schedule_id="", violations=())
    assert fault.to_proto().schedule_id == "schedules[3]"
