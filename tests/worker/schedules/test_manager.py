"""What the manager does with single schedules, on a real server with a real worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from contextunity.gen.contextunity.worker import ScheduleOverlap
from temporalio.client import Client, Schedule, ScheduleActionStartWorkflow, ScheduleSpec
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core import codec
from contextunity.worker.schedules import (
    ScheduleError,
    ScheduleExistsError,
    ScheduleManager,
    ScheduleName,
    SchedulesRefusedError,
    ScheduleUnknownError,
)
from contextunity.worker.temporal.search_attributes import TENANT_ATTRIBUTE

Eventually = Callable[..., Awaitable[Any]]


async def _create(manager: ScheduleManager, tenant: str, **changes: Any) -> None:
    usual: dict[str, Any] = {
        "schedule_id": "nightly",
        "workflow_type": "report",
        "cron": "0 3 * * *",
        "payload": {"name": "n"},
        "tenant_id": tenant,
    }
    await manager.create_schedule(**{**usual, **changes})


async def _only(manager: ScheduleManager, tenant: str, eventually: Eventually) -> Any:
    (status,) = await eventually(lambda: manager.list_schedules(tenant_ids={tenant}), lambda found: len(found) == 1)
    return status


async def test_a_schedule_is_listed_as_it_was_created(
    manager: ScheduleManager, tenant: str, eventually: Eventually
) -> None:
    await _create(
        manager,
        tenant,
        project_id="shop",
        payload={"name": "n", "maxRows": 5, "limits": {"b": "9007199254740993", "a": 1}},
        overlap=ScheduleOverlap.ALLOW_ALL,
        catchup_window=timedelta(hours=2),
        jitter=timedelta(seconds=1.5),
        description="for the ünit",
        paused=True,
    )
    status = await _only(manager, tenant, eventually)
    assert (status.tenant_id, status.project_id) == (tenant, "shop")
    assert codec.to_dict(status.schedule, preserving_proto_field_name=True) == {
        "schedule_id": "nightly",
        "workflow_type": "report",
        "task_queue": "reports",
        "cron": "0 3 * * *",
        "timezone": "UTC",
        "args": {
            "tenant_id": tenant,
            "name": "n",
            "max_rows": 5.0,
            "limits": {"a": "1", "b": "9007199254740993"},
        },
        "description": "for the ünit",
        "overlap": "SCHEDULE_OVERLAP_ALLOW_ALL",
        "catchup_window": "7200s",
        "jitter": "1.500s",
        "paused": True,
    }
    assert len(status.next_runs) == 10
    assert status.recent_runs == []


async def test_an_alias_and_a_typed_payload_will_do(
    manager: ScheduleManager, tenant: str, reports: Any, eventually: Eventually
) -> None:
    await _create(manager, tenant, workflow_type="report.v0", payload=reports.ReportRequest(name="typed", max_rows=7))
    schedule = (await _only(manager, tenant, eventually)).schedule
    assert schedule.workflow_type == "report"
    assert codec.struct_to_dict(schedule.args) == {"tenant_id": tenant, "name": "typed", "max_rows": 7}


async def test_its_tasks_wait_under_the_tenants_key_with_the_contracts_priority(
    manager: ScheduleManager, client: Client, tenant: str
) -> None:
    await _create(manager, tenant)
    temporal_id = ScheduleName(tenant_id=tenant, project_id="default", schedule_id="nightly").temporal_id
    described = await client.get_schedule_handle(temporal_id).describe()
    priority = described.raw_description.schedule.action.start_workflow.priority
    assert (priority.priority_key, priority.fairness_key) == (2, tenant)


async def test_a_workflow_that_takes_nothing_needs_no_payload(
    manager: ScheduleManager, tenant: str, eventually: Eventually
) -> None:
    await _create(manager, tenant, workflow_type="sweep", payload=None)
    assert (await _only(manager, tenant, eventually)).schedule.args is None


async def test_a_second_one_of_the_same_name_is_an_error(manager: ScheduleManager, tenant: str) -> None:
    await _create(manager, tenant)
    with pytest.raises(
        ScheduleExistsError, match=f"'nightly' in project 'default' of tenant '{tenant}' exists already"
    ):
        await _create(manager, tenant)


async def test_faults_are_named_and_nothing_is_created(manager: ScheduleManager, tenant: str) -> None:
    with pytest.raises(SchedulesRefusedError, match="nightly: cron: hour '25'"):
        await _create(manager, tenant, cron="0 25 * * *")
    with pytest.raises(ScheduleUnknownError):
        await manager.delete_schedule("nightly", tenant_id=tenant)


async def test_no_schedule_is_made_for_what_is_no_tenant(manager: ScheduleManager) -> None:
    with pytest.raises(ScheduleError, match="tenant_id 'a b' is not a tenant id"):
        await _create(manager, "a b")


async def test_times_are_those_of_the_zone_in_summer_and_winter(
    manager: ScheduleManager, tenant: str, eventually: Eventually
) -> None:
    await _create(manager, tenant, cron="30 6 1 * *", timezone="Europe/Berlin")
    runs = (await _only(manager, tenant, eventually)).next_runs
    local = [each.astimezone(ZoneInfo("Europe/Berlin")) for each in runs]
    assert {(each.day, each.hour, each.minute) for each in local} == {(1, 6, 30)}
    assert {each.astimezone(UTC).hour for each in runs} == {4, 5}


async def test_a_paused_schedule_goes_on_when_it_is_resumed(
    manager: ScheduleManager, tenant: str, eventually: Eventually
) -> None:
    await _create(manager, tenant)
    paused = await manager.pause_schedule("nightly", tenant_id=tenant, note="supplier on strike")
    assert (paused.schedule_id, paused.project_id, paused.tenant_id, paused.status) == (
        "nightly",
        "default",
        tenant,
        "paused",
    )
    status = await _only(manager, tenant, eventually)
    assert status.schedule.paused
    assert status.note == "supplier on strike"
    assert (await manager.resume_schedule("nightly", tenant_id=tenant)).status == "active"
    status = await _only(manager, tenant, eventually)
    assert not status.schedule.paused
    assert status.note == "resumed"


@pytest.mark.usefixtures("worker")
async def test_a_trigger_starts_a_task_with_the_typed_input_of_the_tenant(
    manager: ScheduleManager, client: Client, tenant: str, reports: Any, eventually: Eventually
) -> None:
    await _create(manager, tenant, payload={"name": "n", "limits": {"a": 9007199254740993 // 2}}, paused=True)
    triggered = await manager.trigger_schedule("nightly", tenant_id=tenant)
    assert triggered.status == "triggered"
    handle = client.get_workflow_handle(triggered.workflow_id, result_type=reports.ReportResponse)
    status = await eventually(
        lambda: _only(manager, tenant, eventually), lambda status: [run.workflow_id for run in status.recent_runs]
    )
    response = await handle.result()
    assert response.request == reports.ReportRequest(tenant_id=tenant, name="n", limits={"a": 9007199254740993 // 2})
    assert response.context_tenant_id == tenant
    assert response.provenance[0] == "schedule:nightly"
    assert response.trace_id
    description = await handle.describe()
    assert description.workflow_type == "report"
    assert description.typed_search_attributes.get(TENANT_ATTRIBUTE) == tenant
    raw = description.raw_description.execution_config
    assert raw.workflow_run_timeout.ToTimedelta() == timedelta(minutes=10)
    assert description.raw_description.workflow_execution_info.priority.priority_key == 2
    (run,) = status.recent_runs
    assert (run.workflow_id, run.run_id) == (triggered.workflow_id, description.run_id)
    assert run.scheduled_at.strftime("%Y-%m-%dT%H:%M:%SZ") == triggered.workflow_id[-20:]


@pytest.mark.usefixtures("worker")
async def test_a_trigger_waits_for_the_task_before_and_is_not_lost(
    manager: ScheduleManager, client: Client, tenant: str, reports: Any, eventually: Eventually
) -> None:
    await _create(manager, tenant, payload={"name": "n", "wait": True})
    first = await manager.trigger_schedule("nightly", tenant_id=tenant)
    await eventually(lambda: _only(manager, tenant, eventually), lambda status: len(status.recent_runs) == 1)
    # Triggers of one second share their id, so the next second has to begin.
    await asyncio.sleep(1 - datetime.now(UTC).microsecond / 1e6 + 0.05)
    second = await manager.trigger_schedule("nightly", tenant_id=tenant)
    assert second.workflow_id != first.workflow_id
    for each in (first, second):
        handle = client.get_workflow_handle(each.workflow_id)

        async def release(handle: Any = handle) -> bool:
            try:
                await handle.signal("release")
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                return False
            return True

        await eventually(release, bool)
        assert (await client.get_workflow_handle(each.workflow_id, result_type=reports.ReportResponse).result()).request


async def test_a_deleted_schedule_is_gone(manager: ScheduleManager, tenant: str, eventually: Eventually) -> None:
    await _create(manager, tenant)
    await _only(manager, tenant, eventually)
    assert (await manager.delete_schedule("nightly", tenant_id=tenant)).status == "deleted"
    assert await manager.list_schedules(tenant_ids={tenant}) == []
    await _create(manager, tenant)


@pytest.mark.parametrize("verb", ["pause_schedule", "resume_schedule", "trigger_schedule", "delete_schedule"])
@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"schedule_id": "weekly"}, id="id"),
        pytest.param({"project_id": "other"}, id="project"),
        pytest.param({"tenant_id": "somebody-else"}, id="tenant"),
    ],
)
async def test_schedules_of_others_do_not_exist(
    manager: ScheduleManager, tenant: str, verb: str, other: dict[str, str], eventually: Eventually
) -> None:
    await _create(manager, tenant)
    which = {"schedule_id": "nightly", "tenant_id": tenant, **other}
    with pytest.raises(ScheduleUnknownError, match="does not exist"):
        await getattr(manager, verb)(**which)
    status = await _only(manager, tenant, eventually)
    assert not status.schedule.paused
    assert status.recent_runs == []


async def test_lists_are_of_a_project_or_of_tenants(
    manager: ScheduleManager, tenant: str, eventually: Eventually
) -> None:
    other = f"{tenant}.2"
    await asyncio.gather(
        _create(manager, tenant, project_id="one"),
        _create(manager, tenant, project_id="two"),
        _create(manager, other, project_id="one"),
    )

    async def listed(**options: Any) -> list[tuple[str, str]]:
        return [(each.tenant_id, each.project_id) for each in await manager.list_schedules(**options)]

    both = [(tenant, "one"), (tenant, "two"), (other, "one")]
    assert await eventually(lambda: listed(tenant_ids=[tenant, other]), lambda found: len(found) == 3) == both
    assert await listed(tenant_ids=[tenant]) == both[:2]
    assert await listed(tenant_ids=[other, tenant], project_id="one") == [both[0], both[2]]
    assert await listed(tenant_ids=[]) == []
    assert [each for each in await listed() if each[0] in (tenant, other)] == both


async def test_schedules_of_others_hands_are_neither_listed_nor_touched(
    manager: ScheduleManager, client: Client, tenant: str, entry: Callable[..., Any], eventually: Eventually
) -> None:
    action = ScheduleActionStartWorkflow("report", id="by-hand", task_queue="reports")
    spec = ScheduleSpec(cron_expressions=["0 3 * * *"])
    prefix = f"contextunity/{tenant.replace('/', '%2F')}/default"
    handles = [
        await client.create_schedule(f"{prefix}/{name}", Schedule(action=action, spec=spec))
        for name in ("by-hand", "nightly")
    ]
    await _create(manager, tenant, schedule_id="ours")
    assert (await _only(manager, tenant, eventually)).schedule.schedule_id == "ours"
    with pytest.raises(ScheduleUnknownError):
        await manager.delete_schedule("by-hand", tenant_id=tenant)
    with pytest.raises(ScheduleExistsError):
        await _create(manager, tenant)
    result = await manager.apply([entry(schedule_id="ours")], tenant_id=tenant, prune=True)
    assert (result.unchanged, result.removed) == (["ours"], [])
    with pytest.raises(ScheduleError, match="changed by another client"):
        await manager.apply([entry()], tenant_id=tenant)
    for handle in handles:
        assert (await handle.describe()).schedule.spec.cron_expressions == []
        await handle.delete()


async def test_a_run_in_the_past_is_told_by_its_time_in_utc(
    manager: ScheduleManager, tenant: str, eventually: Eventually
) -> None:
    before = datetime.now(UTC)
    await _create(manager, tenant, cron="* * * * *")
    status = await _only(manager, tenant, eventually)
    assert timedelta(0) < status.next_runs[0] - before <= timedelta(minutes=1, seconds=5)
