"""The schedules of a deployment, for Python code; the service and its callers come here too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import betterproto2
from contextunity.gen.contextunity.worker import (
    RegisterSchedulesResult,
    ScheduleEntry,
    ScheduleOverlap,
    ScheduleResult,
    ScheduleStatus,
)
from temporalio.client import Client

from contextunity.core import codec
from contextunity.worker.tenancy import tenant_fault

from ._apply import apply, check_entries
from ._contracts import Contracts
from ._errors import (
    EntryFault,
    ScheduleError,
    ScheduleExistsError,
    SchedulesRefusedError,
    ScheduleUnknownError,
)
from ._names import DEFAULT_PROJECT, DEFAULT_TENANT, ScheduleName
from ._server import ScheduleServer
from ._stored import Stored, write_schedule

__all__ = ["ScheduleManager"]

_ONE_AFTER_ANOTHER = (ScheduleOverlap.SKIP, ScheduleOverlap.BUFFER_ONE)


class ScheduleManager:
    """Creates, lists and steers schedules; each belongs to a project of a tenant, and starts one workflow.

    Every method raises `temporalio.service.RPCError` where the Temporal server cannot be reached or refuses.

    Args:
        client: Temporal client with the contract's data converter, as `contextunity.worker.temporal.connect` gives it.
        registry: the workflow contracts by workflow_type.
        rpc_timeout: how long one call to the Temporal server may take.

    Example:
        manager = ScheduleManager(client, registry)
        await manager.create_schedule(
            schedule_id="nightly", workflow_type="harvest", cron="0 3 * * *", timezone="Europe/Berlin",
            payload={"supplier_code": "camping-trade"}, tenant_id="my_project",
        )
    """

    def __init__(self, client: Client, registry: Contracts, *, rpc_timeout: timedelta = timedelta(seconds=10)) -> None:
        self._server = ScheduleServer(client, rpc_timeout)
        self._registry = registry

    async def create_schedule(
        self,
        *,
        schedule_id: str,
        workflow_type: str,
        cron: str,
        payload: Mapping[str, Any] | betterproto2.Message | None = None,
        timezone: str = "UTC",
        project_id: str = DEFAULT_PROJECT,
        tenant_id: str = DEFAULT_TENANT,
        task_queue: str = "",
        overlap: ScheduleOverlap = ScheduleOverlap.SKIP,
        catchup_window: timedelta | None = None,
        jitter: timedelta | None = None,
        description: str = "",
        paused: bool = False,
    ) -> None:
        """Creates a schedule that is not there yet.

        Args:
            schedule_id: its name within the project.
            workflow_type: the workflow that it starts.
            cron: when, as five fields; see `docs/schedules.md`.
            payload: the workflow's parameters, or its input message; None where there are none.
            timezone: IANA name of the zone that `cron` is read in.
            project_id: the project that it belongs to.
            tenant_id: whose it is, and whose the tasks are that it starts.
            task_queue: the contract's, or that of the tenant's own workers; empty means the contract's.
            overlap: what to do when a run is due while the one before still runs.
            catchup_window: how late a missed run may start, 10 seconds to a year; None means one minute.
            jitter: up to how much later each run starts, at random; None means not at all.
            description: what it is for, for people.
            paused: whether it waits for `resume_schedule`.

        Raises:
            SchedulesRefusedError: something of it cannot be; everything that is wrong is named.
            ScheduleExistsError: there is one of this name.
        """
        entry = ScheduleEntry(
            schedule_id=schedule_id,
            workflow_type=workflow_type,
            task_queue=task_queue,
            cron=cron,
            timezone=timezone,
            description=description,
            overlap=overlap,
            catchup_window=catchup_window,
            jitter=jitter,
            paused=paused,
        )
        if isinstance(payload, betterproto2.Message):
            entry.input = codec.pack_any(payload)
        elif payload is not None:
            entry.args = codec.dict_to_struct(payload)
        name = _name(schedule_id, project_id, tenant_id)
        checked, faults = check_entries(
            [entry], self._registry.workflows, tenant_id=name.tenant_id, project_id=name.project_id
        )
        if faults:
            raise SchedulesRefusedError(faults)
        if not await self._server.create(name, await write_schedule(self._server.client, checked[0])):
            raise ScheduleExistsError(name)

    async def apply(
        self,
        entries: Sequence[ScheduleEntry | EntryFault],
        *,
        project_id: str = DEFAULT_PROJECT,
        tenant_id: str = DEFAULT_TENANT,
        prune: bool = False,
        partial: bool = False,
        dry_run: bool = False,
        skippable: Collection[int] = (),
    ) -> RegisterSchedulesResult:
        """Makes schedules what is asked for, however often that is asked.

        Whether a schedule that is there is paused stays as it is. Several of these may run at once: the later one wins,
        schedule by schedule.

        Args:
            entries: the schedules that there should be; a fault stands for one that could not even be read.
            project_id: the project that they belong to.
            tenant_id: whose they are.
            prune: whether schedules of the project that are not among them are removed.
            partial: whether the others are applied where some are faulty.
            dry_run: whether to tell only what would be done.
            skippable: places of entries without input that are left out, and named in `skipped`, where their workflow
                needs more than it can default.

        Raises:
            SchedulesRefusedError: entries are faulty, and `partial` is not set; nothing was changed.
            ScheduleConflictError: somebody else changes the same schedule all the time.
        """
        name = _name("", project_id, tenant_id)
        return await apply(
            self._server,
            self._registry.workflows,
            entries,
            tenant_id=name.tenant_id,
            project_id=name.project_id,
            prune=prune,
            partial=partial,
            dry_run=dry_run,
            skippable=skippable,
        )

    async def list_schedules(
        self, *, project_id: str = "", tenant_ids: Collection[str] | None = None
    ) -> list[ScheduleStatus]:
        """Schedules by tenant, project and id. One that was created just now may be missing for a moment.

        Args:
            project_id: of this project; empty means of all.
            tenant_ids: of these tenants; None means of all.
        """
        names = await self._server.names(None if tenant_ids is None else frozenset(tenant_ids), project_id)
        return [stored.to_status() for stored in await self._server.describe_all(names)]

    async def pause_schedule(
        self, schedule_id: str, *, project_id: str = DEFAULT_PROJECT, tenant_id: str = DEFAULT_TENANT, note: str = ""
    ) -> ScheduleResult:
        """Keeps a schedule from starting anything until it is resumed; tasks under way go on.

        Args:
            schedule_id: which schedule.
            project_id: the project that it belongs to.
            tenant_id: whose it is.
            note: why, for people.

        Raises:
            ScheduleUnknownError: there is no such schedule.
        """
        stored = await self._stored(schedule_id, project_id, tenant_id)
        return _result(stored.name, "paused", await self._server.pause(stored.name, note or "paused"))

    async def resume_schedule(
        self,
        schedule_id: str,
        *,
        project_id: str = DEFAULT_PROJECT,
        tenant_id: str = DEFAULT_TENANT,
        note: str = "",
        check: Callable[[ScheduleEntry], None] | None = None,
    ) -> ScheduleResult:
        """Has a paused schedule go on; what was due in between is not made up for. See `pause_schedule`.

        Args:
            schedule_id: which schedule.
            project_id: the project that it belongs to.
            tenant_id: whose it is.
            note: why, for people.
            check: is given the schedule as it stands, and raises where it is not to go on.

        Raises:
            ScheduleUnknownError: there is no such schedule.
        """
        stored = await self._stored(schedule_id, project_id, tenant_id)
        if check is not None:
            check(stored.entry)
        return _result(stored.name, "active", await self._server.resume(stored.name, note or "resumed"))

    async def trigger_schedule(
        self,
        schedule_id: str,
        *,
        project_id: str = DEFAULT_PROJECT,
        tenant_id: str = DEFAULT_TENANT,
        check: Callable[[ScheduleEntry], None] | None = None,
    ) -> ScheduleResult:
        """Has a schedule start a task now, also while it is paused.

        Where the task before still runs and the schedule does not let them run side by side, the new one begins when
        that has ended. Two triggers within one second share their workflow id, and may be one.

        Args:
            schedule_id: which schedule.
            project_id: the project that it belongs to.
            tenant_id: whose it is.
            check: is given the schedule as it stands, and raises where it is not to start anything.

        Returns:
            The schedule, with the workflow id that the task has or will have.

        Raises:
            ScheduleUnknownError: there is no such schedule.
        """
        stored = await self._stored(schedule_id, project_id, tenant_id)
        if check is not None:
            check(stored.entry)
        due = datetime.now(UTC).replace(microsecond=0)
        # Skipped, or dropped from a full buffer, a trigger would be lost without a word.
        wait = stored.entry.overlap in _ONE_AFTER_ANOTHER
        overlap = ScheduleOverlap.BUFFER_ALL if wait else stored.entry.overlap
        result = _result(stored.name, "triggered", await self._server.trigger(stored.name, due, int(overlap)))
        result.workflow_id = stored.name.task_id(due)
        return result

    async def delete_schedule(
        self, schedule_id: str, *, project_id: str = DEFAULT_PROJECT, tenant_id: str = DEFAULT_TENANT
    ) -> ScheduleResult:
        """Removes a schedule; tasks that it started go on. See `pause_schedule`."""
        stored = await self._stored(schedule_id, project_id, tenant_id)
        return _result(stored.name, "deleted", await self._server.delete(stored.name))

    async def _stored(self, schedule_id: str, project_id: str, tenant_id: str) -> Stored:
        name = _name(schedule_id, project_id, tenant_id)
        stored = await self._server.describe(name)
        if stored is None:
            raise ScheduleUnknownError(name)
        return stored


def _name(schedule_id: str, project_id: str, tenant_id: str) -> ScheduleName:
    """The name of a schedule.

    Raises:
        ScheduleError: the tenant's id cannot be one.
    """
    fault = tenant_fault(tenant_id)
    if fault:
        raise ScheduleError(f"tenant_id {tenant_id[:200]!r} {fault}")
    return ScheduleName(tenant_id=tenant_id, project_id=project_id or DEFAULT_PROJECT, schedule_id=schedule_id)


def _result(name: ScheduleName, status: str, done: bool) -> ScheduleResult:
    """The answer about a schedule.

    Raises:
        ScheduleUnknownError: it was removed just before.
    """
    if not done:
        raise ScheduleUnknownError(name)
    return ScheduleResult(
        schedule_id=name.schedule_id, project_id=name.project_id, tenant_id=name.tenant_id, status=status
    )
