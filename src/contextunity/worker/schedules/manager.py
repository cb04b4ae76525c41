"""Registers and steers the schedules of a project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import betterproto2
from contextunity.gen.contextunity.worker import (
    RegisterSchedulesResult,
    ScheduleDifference,
    ScheduleEntry,
    ScheduleOverlap,
    ScheduleResult,
    ScheduleStatus,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core import codec
from contextunity.core.errors import Violation
from contextunity.worker.temporal.tenancy import tenant_violation
from python_temporal.contract import WorkflowContract

from .check import DEFAULT_PROJECT, DEFAULT_TENANT, CheckedEntry, Contracts, EntryError, ScheduleName, check_entry
from .errors import (
    RejectedEntry,
    ScheduleConflictError,
    ScheduleError,
    ScheduleExistsError,
    SchedulesRefusedError,
    ScheduleUnknownError,
)
from .stored import ScheduleServer, Stored, differences, write_schedule

__all__ = ["Admit", "ScheduleManager", "apply", "check_entries"]

Admit: TypeAlias = Callable[[Sequence[ScheduleName], AbstractSet[str] | None], Awaitable[None]]
"""Is given the names of what is about to be registered, and the ids that are kept where others of the project are
removed, else None; raises where it may not be."""

_ATTEMPTS = 5
"""Times that a change is tried where somebody else changes the same schedule at the same time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Done:
    """What became of one entry: created, updated or unchanged; or why the server refused it."""

    outcome: str
    differences: Sequence[ScheduleDifference] = ()
    error: str = ""


async def apply(
    server: ScheduleServer,
    workflows: Mapping[str, WorkflowContract],
    entries: Sequence[ScheduleEntry | RejectedEntry],
    *,
    tenant_id: str,
    project_id: str,
    prune: bool,
    partial: bool,
    dry_run: bool,
    skippable: Collection[int] = (),
    admit: Admit | None = None,
) -> RegisterSchedulesResult:
    """Makes the schedules of a project those that are asked for; see `ScheduleManager.apply`."""
    checked, rejections = check_entries(entries, workflows, tenant_id=tenant_id, project_id=project_id)
    skippable_places = {f"schedules[{place}]" for place in skippable}
    skipped = [
        rejected for rejected in rejections if rejected.place in skippable_places and _lacks_input_alone(rejected)
    ]
    skipped_places = {rejected.place for rejected in skipped}
    rejections = [rejected for rejected in rejections if rejected.place not in skipped_places]
    if rejections and not partial:
        raise SchedulesRefusedError(rejections)
    nameless = [rejected.place for rejected in rejections if not rejected.schedule_id]
    asked = {entry.schedule_id for _, entry in _places(entries)}
    if admit is not None:
        await admit([each.name for each in checked], asked if prune and not nameless else None)
    done = await server.all_of(_put(server, each, partial=partial, dry_run=dry_run) for each in checked)
    result = RegisterSchedulesResult(skipped=[rejected.schedule_id for rejected in skipped])
    for each, what in zip(checked, done, strict=True):
        schedule_id = each.name.schedule_id
        if what.error:
            violations = (Violation("", f"the Temporal server refuses it: {what.error}"),)
            place = next(place for place, entry in _places(entries) if entry.schedule_id == schedule_id)
            rejections.append(RejectedEntry(place=place, schedule_id=schedule_id, violations=violations))
            continue
        {"created": result.created, "updated": result.updated, "unchanged": result.unchanged}[what.outcome].append(
            schedule_id
        )
        result.differences.extend(what.differences)
    # A faulty entry is asked for all the same, so what is there under its id stays. Where it has none, nobody knows
    # which that is, and nothing goes.
    if prune and not nameless:
        result.removed = await _prune(server, tenant_id, project_id, asked, dry_run=dry_run)
    result.registered_count = len(result.created) + len(result.updated) + len(result.unchanged)
    result.faults = [rejected.to_proto() for rejected in rejections]
    if prune and nameless:
        for rejected in result.faults:
            if rejected.schedule_id in nameless:
                rejected.reasons.append("nothing was pruned, because nobody knows which schedule this one is")
    result.status = "partial" if rejections else "ok"
    return result


def check_entries(
    entries: Sequence[ScheduleEntry | RejectedEntry],
    workflows: Mapping[str, WorkflowContract],
    *,
    tenant_id: str,
    project_id: str,
) -> tuple[list[CheckedEntry], list[RejectedEntry]]:
    """Sorts entries into those that can be, and the faults of the others."""
    counts = Counter(entry.schedule_id for _, entry in _places(entries) if entry.schedule_id)
    checked, rejections = list[CheckedEntry](), list[RejectedEntry]()
    for place, entry in enumerate(entries):
        if isinstance(entry, RejectedEntry):
            rejections.append(entry)
            continue
        violations = list[Violation]()
        try:
            good = check_entry(entry, workflows, tenant_id=tenant_id, project_id=project_id)
        except EntryError as error:
            good = None
            violations += error.violations
        if counts[entry.schedule_id] > 1:
            violations.append(Violation("schedule_id", f"is given {counts[entry.schedule_id]} times; name each once"))
        if violations or good is None:
            rejections.append(
                RejectedEntry(place=f"schedules[{place}]", schedule_id=entry.schedule_id, violations=tuple(violations))
            )
        else:
            checked.append(good)
    return checked, rejections


def _lacks_input_alone(rejected: RejectedEntry) -> bool:
    """Whether an entry without input has no other fault than that its workflow needs more than it can default."""
    return all(each.path == "args" or each.path.startswith(("args.", "args[")) for each in rejected.violations)


def _places(entries: Sequence[ScheduleEntry | RejectedEntry]) -> list[tuple[str, ScheduleEntry | RejectedEntry]]:
    return [(f"schedules[{place}]", entry) for place, entry in enumerate(entries)]


async def _put(server: ScheduleServer, wanted: CheckedEntry, *, partial: bool, dry_run: bool) -> _Done:
    try:
        return await _create_or_update(server, wanted, dry_run=dry_run)
    except RPCError as error:
        if partial and error.status is RPCStatusCode.INVALID_ARGUMENT:
            return _Done(outcome="", error=error.message)
        raise


async def _create_or_update(server: ScheduleServer, wanted: CheckedEntry, *, dry_run: bool) -> _Done:
    """Brings one schedule to where it should be, and looks whether it is.

    The server passes over an update of something that somebody else changed in between, and says nothing; so what is
    there afterwards tells.

    Raises:
        ScheduleConflictError: somebody else changes it all the time, or has something of his own under the id.
    """
    changes: list[ScheduleDifference] = []
    outcome = "unchanged"
    for _ in range(_ATTEMPTS):
        schedule = await write_schedule(server.client, wanted)
        stored = await server.describe(wanted.name)
        if stored is None:
            if dry_run or await server.create(wanted.name, schedule):
                return _Done(outcome="created")
            continue
        found = differences(stored, wanted, schedule)
        if not found:
            return _Done(outcome=outcome, differences=changes)
        outcome, changes = "updated", changes or found
        if dry_run:
            return _Done(outcome=outcome, differences=changes)
        await server.update(stored, schedule)
    raise ScheduleConflictError(wanted.name)


async def _prune(
    server: ScheduleServer, tenant_id: str, project_id: str, asked: set[str], *, dry_run: bool
) -> list[str]:
    """Removes the schedules of a project that are not asked for, and names them."""
    names = [name for name in await server.names({tenant_id}, project_id) if name.schedule_id not in asked]
    there = [stored.name for stored in await server.describe_all(names)]
    if dry_run:
        return [name.schedule_id for name in there]
    gone = await server.all_of(server.delete(name) for name in there)
    return [name.schedule_id for name, removed in zip(there, gone, strict=True) if removed]


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
        checked, rejections = check_entries(
            [entry], self._registry.workflows, tenant_id=name.tenant_id, project_id=name.project_id
        )
        if rejections:
            raise SchedulesRefusedError(rejections)
        if not await self._server.create(name, await write_schedule(self._server.client, checked[0])):
            raise ScheduleExistsError(name)

    async def apply(
        self,
        entries: Sequence[ScheduleEntry | RejectedEntry],
        *,
        project_id: str = DEFAULT_PROJECT,
        tenant_id: str = DEFAULT_TENANT,
        prune: bool = False,
        partial: bool = False,
        dry_run: bool = False,
        skippable: Collection[int] = (),
        admit: Admit | None = None,
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
            admit: is asked before anything is changed, and raises where there would be too many.

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
            admit=admit,
        )

    async def list_schedules(
        self, *, project_id: str = "", tenant_ids: Collection[str] | None = None
    ) -> list[ScheduleStatus]:
        """Schedules by tenant, project and id. One that another process created just now may be missing for a moment.

        Args:
            project_id: of this project; empty means of all.
            tenant_ids: of these tenants; None means of all.
        """
        names = await self._server.names(None if tenant_ids is None else frozenset(tenant_ids), project_id)
        return [stored.to_status() for stored in await self._server.describe_all(names)]

    async def names(self, tenant_id: str) -> list[ScheduleName]:
        """Names of a tenant's schedules of all projects. See `list_schedules`."""
        return await self._server.names({tenant_id}, "")

    async def exists(self, name: ScheduleName) -> bool:
        """Whether there is such a schedule now."""
        return await self._server.describe(name) is not None

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
    violation = tenant_violation(tenant_id)
    if violation:
        raise ScheduleError(f"tenant_id {tenant_id[:200]!r} {violation}")
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
