"""Registering schedules declaratively: only the difference is made, however often and by however many."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from contextunity.gen.contextunity.worker import RegisterSchedulesResult, ScheduleOverlap
from temporalio.client import Client, ScheduleUpdate, ScheduleUpdateInput

from contextunity.core import codec
from contextunity.core.errors import Violation
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.schedules import (
    RejectedEntry,
    ScheduleManager,
    ScheduleName,
    SchedulesRefusedError,
)
from contextunity.worker.schedules.manager import check_entries
from contextunity.worker.schedules.stored import ScheduleServer, write_schedule

MakeEntry = Callable[..., Any]
Eventually = Callable[..., Awaitable[Any]]


def _told(result: RegisterSchedulesResult) -> dict[str, Any]:
    told = codec.to_dict(result, preserving_proto_field_name=True)
    told.pop("differences", None)
    return told


def _differences(result: RegisterSchedulesResult) -> list[tuple[str, str, str, str]]:
    return [(each.schedule_id, each.field, each.before, each.after) for each in result.differences]


async def test_it_is_there_afterwards_and_the_same_again_changes_nothing(
    manager: ScheduleManager, tenant: str, entry: MakeEntry
) -> None:
    entries = [
        entry(args={"name": "n", "limits": {"a": "1", "b": 2}}, jitter=timedelta(seconds=2), timezone="Asia/Tokyo"),
        entry(schedule_id="sweep", workflow_type="sweep", args=None, overlap=ScheduleOverlap.BUFFER_ALL),
    ]
    first = await manager.apply(entries, tenant_id=tenant)
    assert _told(first) == {"status": "ok", "registered_count": 2, "created": ["nightly", "sweep"]}
    for _ in range(2):
        again = await manager.apply(entries, tenant_id=tenant)
        assert _told(again) == {"status": "ok", "registered_count": 2, "unchanged": ["nightly", "sweep"]}


async def test_what_is_listed_can_be_registered_again(
    manager: ScheduleManager, tenant: str, entry: MakeEntry, eventually: Eventually
) -> None:
    await manager.apply([entry(args={"name": "n", "limits": {"a": "1", "b": 2}})], tenant_id=tenant)
    (status,) = await eventually(lambda: manager.list_schedules(tenant_ids={tenant}), bool)
    result = await manager.apply([status.schedule], tenant_id=tenant)
    assert result.unchanged == ["nightly"]


async def test_defaults_may_be_spelt_out(manager: ScheduleManager, tenant: str, entry: MakeEntry, reports: Any) -> None:
    await manager.apply([entry()], tenant_id=tenant)
    spelt = entry(
        workflow_type="report.v0",
        task_queue="reports",
        cron=" 0  3 * * * ",
        timezone="UTC",
        args=None,
        input=codec.pack_any(reports.ReportRequest(name="n", tenant_id=tenant)),
        overlap=ScheduleOverlap.SKIP,
        catchup_window=timedelta(minutes=1),
        jitter=timedelta(0),
    )
    assert (await manager.apply([spelt], tenant_id=tenant)).unchanged == ["nightly"]


async def test_what_differs_is_changed_and_told(manager: ScheduleManager, tenant: str, entry: MakeEntry) -> None:
    await manager.apply([entry(), entry(schedule_id="same")], tenant_id=tenant)
    changed = entry(
        cron="0 4 * * *",
        timezone="Europe/Berlin",
        args={"name": "m"},
        overlap=ScheduleOverlap.ALLOW_ALL,
        catchup_window=timedelta(hours=1),
        jitter=timedelta(seconds=5),
        description="why",
        task_queue=f"reports/{tenant}",
    )
    result = await manager.apply([changed, entry(schedule_id="same")], tenant_id=tenant)
    assert _told(result) == {"status": "ok", "registered_count": 2, "updated": ["nightly"], "unchanged": ["same"]}
    assert _differences(result) == [
        ("nightly", "task_queue", "reports", f"reports/{tenant}"),
        ("nightly", "cron", "0 3 * * *", "0 4 * * *"),
        ("nightly", "timezone", "UTC", "Europe/Berlin"),
        ("nightly", "description", "", "why"),
        ("nightly", "overlap", "skip", "allow_all"),
        ("nightly", "catchup_window", "60 s", "3600 s"),
        ("nightly", "jitter", "", "5 s"),
        ("nightly", "args", f'{{"tenantId": "{tenant}", "name": "n"}}', f'{{"tenantId": "{tenant}", "name": "m"}}'),
    ]
    again = await manager.apply([changed], tenant_id=tenant)
    assert again.unchanged == ["nightly"]
    assert (await manager.apply([entry(workflow_type="sweep", args=None)], tenant_id=tenant)).updated == ["nightly"]


async def test_a_pause_outlives_the_next_registration(
    manager: ScheduleManager, tenant: str, entry: MakeEntry, eventually: Eventually
) -> None:
    await manager.apply([entry()], tenant_id=tenant)
    await manager.pause_schedule("nightly", tenant_id=tenant, note="strike")
    assert (await manager.apply([entry()], tenant_id=tenant)).unchanged == ["nightly"]
    assert (await manager.apply([entry(cron="0 4 * * *")], tenant_id=tenant)).updated == ["nightly"]
    (status,) = await eventually(lambda: manager.list_schedules(tenant_ids={tenant}), bool)
    assert status.schedule.paused
    assert (status.note, status.schedule.cron) == ("strike", "0 4 * * *")


async def test_what_is_not_asked_for_goes_only_where_pruning_is(
    manager: ScheduleManager, tenant: str, entry: MakeEntry
) -> None:
    await manager.apply([entry(), entry(schedule_id="old")], tenant_id=tenant)
    await manager.apply([entry()], tenant_id=tenant, project_id="other")
    # The server's list lags; what this manager created is pruned and listed at once all the same.
    assert len(await manager.list_schedules(tenant_ids={tenant})) == 3
    assert (await manager.apply([entry()], tenant_id=tenant)).removed == []
    result = await manager.apply([entry()], tenant_id=tenant, prune=True)
    assert _told(result) == {"status": "ok", "registered_count": 1, "unchanged": ["nightly"], "removed": ["old"]}
    assert (await manager.apply([entry()], tenant_id=tenant, prune=True)).removed == []
    left = await manager.list_schedules(tenant_ids={tenant})
    assert [each.project_id for each in left] == ["default", "other"]
    emptied = await manager.apply([], tenant_id=tenant, prune=True)
    assert _told(emptied) == {"status": "ok", "removed": ["nightly"]}


async def test_a_dry_run_tells_and_does_nothing(
    manager: ScheduleManager, tenant: str, entry: MakeEntry, eventually: Eventually
) -> None:
    await manager.apply([entry(), entry(schedule_id="old")], tenant_id=tenant)
    before = await eventually(lambda: manager.list_schedules(tenant_ids={tenant}), lambda found: len(found) == 2)
    wanted = [entry(cron="0 4 * * *"), entry(schedule_id="new")]
    result = await manager.apply(wanted, tenant_id=tenant, prune=True, dry_run=True)
    assert _told(result) == {
        "status": "ok",
        "registered_count": 2,
        "created": ["new"],
        "updated": ["nightly"],
        "removed": ["old"],
    }
    assert _differences(result) == [("nightly", "cron", "0 3 * * *", "0 4 * * *")]
    after = await manager.list_schedules(tenant_ids={tenant})
    assert [each.schedule for each in after] == [each.schedule for each in before]


async def test_none_is_applied_where_one_is_faulty(manager: ScheduleManager, tenant: str, entry: MakeEntry) -> None:
    await manager.apply([entry(schedule_id="old")], tenant_id=tenant)
    entries = [entry(), entry(schedule_id="bad", cron="0 25 * * *", timezone="Mars"), entry(schedule_id="")]
    with pytest.raises(SchedulesRefusedError) as caught:
        await manager.apply(entries, tenant_id=tenant, prune=True)
    assert [(fault.place, fault.schedule_id) for fault in caught.value.faults] == [
        ("schedules[1]", "bad"),
        ("schedules[2]", ""),
    ]
    assert [each.path for each in caught.value.faults[0].violations] == ["cron", "timezone"]
    assert (await manager.apply([entry(), entry(schedule_id="old")], tenant_id=tenant)).created == ["nightly"]


async def test_the_others_are_applied_where_that_is_asked(
    manager: ScheduleManager, tenant: str, entry: MakeEntry, eventually: Eventually
) -> None:
    await manager.apply([entry(schedule_id="bad"), entry(schedule_id="old")], tenant_id=tenant)
    await eventually(lambda: manager.list_schedules(tenant_ids={tenant}), lambda found: len(found) == 2)
    entries = [
        entry(),
        entry(schedule_id="bad", cron="0 25 * * *"),
        RejectedEntry(place="schedules[2]", schedule_id="unread", violations=(Violation("cron", "expected a string"),)),
        entry(schedule_id="twice"),
        entry(schedule_id="twice", cron="0 4 * * *"),
    ]
    result = await manager.apply(entries, tenant_id=tenant, prune=True, partial=True)
    assert _told(result) == {
        "status": "partial",
        "registered_count": 1,
        "created": ["nightly"],
        "removed": ["old"],
        "faults": [
            {"schedule_id": "bad", "reasons": ["cron: hour '25': 25 is not from 0 to 23"]},
            {"schedule_id": "unread", "reasons": ["cron: expected a string"]},
            {"schedule_id": "twice", "reasons": ["schedule_id: is given 2 times; give each once"]},
            {"schedule_id": "twice", "reasons": ["schedule_id: is given 2 times; give each once"]},
        ],
    }


async def test_nothing_is_pruned_while_a_faulty_one_has_no_name(
    manager: ScheduleManager, tenant: str, entry: MakeEntry, eventually: Eventually
) -> None:
    await manager.apply([entry(schedule_id="old")], tenant_id=tenant)
    await eventually(lambda: manager.list_schedules(tenant_ids={tenant}), bool)
    result = await manager.apply([entry(), entry(schedule_id="")], tenant_id=tenant, prune=True, partial=True)
    assert (result.created, result.removed) == (["nightly"], [])
    (fault,) = result.faults
    assert fault.schedule_id == "schedules[1]"
    assert fault.reasons[-1] == "nothing was pruned, because the id of this schedule is unknown"


async def test_tenants_and_projects_do_not_meet(manager: ScheduleManager, tenant: str, entry: MakeEntry) -> None:
    places = [(tenant, "a"), (tenant, "a/b"), (f"{tenant}/a", "b"), (f"{tenant}/a", "b%2F")]
    for tenant_id, project_id in places:
        result = await manager.apply([entry()], tenant_id=tenant_id, project_id=project_id, prune=True)
        assert _told(result) == {"status": "ok", "registered_count": 1, "created": ["nightly"]}
    for tenant_id, project_id in places:
        again = await manager.apply([entry()], tenant_id=tenant_id, project_id=project_id, prune=True)
        assert again.unchanged == ["nightly"]


async def test_many_at_once_leave_one_whole_schedule(
    manager: ScheduleManager, tenant: str, entry: MakeEntry, eventually: Eventually
) -> None:
    same = await asyncio.gather(*(manager.apply([entry()], tenant_id=tenant) for _ in range(6)))
    assert [each.registered_count for each in same] == [1] * 6
    assert sum(len(each.created) for each in same) == 1
    wanted = [entry(cron=f"{minute} 3 * * *", args={"name": f"n{minute}"}) for minute in range(3)]
    await asyncio.gather(*(manager.apply([each], tenant_id=tenant) for each in wanted))
    (status,) = await eventually(lambda: manager.list_schedules(tenant_ids={tenant}), bool)
    minute = status.schedule.cron.split()[0]
    assert codec.struct_to_dict(status.schedule.args)["name"] == f"n{minute}"
    assert {each.minute for each in status.next_runs} == {int(minute)}


async def test_a_change_made_from_what_is_no_more_is_not_carried_out(
    manager: ScheduleManager, client: Client, registry: WorkerRegistry, tenant: str, entry: MakeEntry
) -> None:
    await manager.apply([entry()], tenant_id=tenant)
    server = ScheduleServer(client, timedelta(seconds=10))
    (wanted,), _ = check_entries([entry(cron="0 4 * * *")], registry.workflows, tenant_id=tenant, project_id="default")
    stored = await server.describe(wanted.name)
    assert stored is not None
    await manager.pause_schedule("nightly", tenant_id=tenant, note="in between")
    await server.update(stored, await write_schedule(client, wanted))
    after = await server.describe(wanted.name)
    assert after is not None
    assert (after.entry.cron, after.entry.paused) == ("0 3 * * *", True)
    assert (await manager.apply([entry(cron="0 4 * * *")], tenant_id=tenant)).updated == ["nightly"]
    after = await server.describe(wanted.name)
    assert after is not None
    assert (after.entry.cron, after.entry.paused) == ("0 4 * * *", True)


async def test_what_somebody_changed_past_us_shows_and_is_put_right(
    manager: ScheduleManager, client: Client, tenant: str, entry: MakeEntry, eventually: Eventually
) -> None:
    await manager.apply([entry()], tenant_id=tenant)
    name = ScheduleName(tenant_id=tenant, project_id="default", schedule_id="nightly")
    handle = client.get_schedule_handle(name.temporal_id)

    def meddle(read: ScheduleUpdateInput) -> ScheduleUpdate:
        schedule: Any = read.description.schedule
        schedule.action.run_timeout = timedelta(seconds=5)
        schedule.policy.pause_on_failure = True
        schedule.spec = dataclasses.replace(schedule.spec, calendars=[], cron_expressions=["*/20 5 * * 1-3"])
        return ScheduleUpdate(schedule)

    await handle.update(meddle)

    async def listed() -> Any:
        (status,) = await eventually(lambda: manager.list_schedules(tenant_ids={tenant}), bool)
        return status.schedule.cron

    assert await eventually(listed, lambda cron: cron != "0 3 * * *") == "0-40/20 5 * * 1-3"
    result = await manager.apply([entry()], tenant_id=tenant)
    assert result.updated == ["nightly"]
    assert [each[1:] for each in _differences(result)] == [
        ("cron", "0-40/20 5 * * 1-3", "0 3 * * *"),
        ("workflow_run_timeout", "seconds: 5", "seconds: 600"),
        ("pause_on_failure", "True", "False"),
    ]
    assert (await manager.apply([entry()], tenant_id=tenant)).unchanged == ["nightly"]
