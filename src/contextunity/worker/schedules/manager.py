"""Register and control the schedules of a project."""

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
"""Receives the names to register, and the ids to keep if others of the project are removed, otherwise None; raises to
reject the registration."""

_ATTEMPTS = 5
"""Attempts to change a schedule that another client changes at the same time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Done:
    """Result of one entry: created, updated or unchanged; or why the server rejected it."""

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
    """Make the schedules of a project match a request. See `ScheduleManager.apply`."""
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
            violations = (Violation("", f"the Temporal server rejects it: {what.error}"),)
            place = next(place for place, entry in _places(entries) if entry.schedule_id == schedule_id)
            rejections.append(RejectedEntry(place=place, schedule_id=schedule_id, violations=violations))
            continue
        {"created": result.created, "updated": result.updated, "unchanged": result.unchanged}[what.outcome].append(
            schedule_id
        )
        result.differences.extend(what.differences)
    # Keep the schedule with the id of an invalid entry. If the entry has no id, that schedule is unknown, so remove
    # nothing.
    if prune and not nameless:
        result.removed = await _prune(server, tenant_id, project_id, asked, dry_run=dry_run)
    result.registered_count = len(result.created) + len(result.updated) + len(result.unchanged)
    result.faults = [rejected.to_proto() for rejected in rejections]
    if prune and nameless:
        for rejected in result.faults:
            if rejected.schedule_id in nameless:
                rejected.reasons.append("nothing was pruned, because the id of this schedule is unknown")
    result.status = "partial" if rejections else "ok"
    return result


def check_entries(
    entries: Sequence[ScheduleEntry | RejectedEntry],
    workflows: Mapping[str, WorkflowContract],
    *,
    tenant_id: str,
    project_id: str,
) -> tuple[list[CheckedEntry], list[RejectedEntry]]:
    """Split entries into valid ones and the faults of the others."""
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
            violations.append(Violation("schedule_id", f"is given {counts[entry.schedule_id]} times; give each once"))
        if violations or good is None:
            rejections.append(
                RejectedEntry(place=f"schedules[{place}]", schedule_id=entry.schedule_id, violations=tuple(violations))
            )
        else:
            checked.append(good)
    return checked, rejections


def _lacks_input_alone(rejected: RejectedEntry) -> bool:
    """Whether an entry without input is only invalid because its workflow requires parameters."""
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
    """Create or update one schedule, and verify the result.

    The server silently ignores an update if another client changed the schedule in between, so read it again.

    Raises:
        ScheduleConflictError: another client keeps changing it, or uses the id for something else.
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
    """Remove the schedules of a project that are not in the request, and return their names."""
    names = [name for name in await server.names({tenant_id}, project_id) if name.schedule_id not in asked]
    there = [stored.name for stored in await server.describe_all(names)]
    if dry_run:
        return [name.schedule_id for name in there]
    gone = await server.all_of(server.delete(name) for name in there)
    return [name.schedule_id for name, removed in zip(there, gone, strict=True) if removed]


_ONE_AFTER_ANOTHER = (ScheduleOverlap.SKIP, ScheduleOverlap.BUFFER_ONE)


class ScheduleManager:
    """Create, list and control schedules; each belongs to a project of a tenant, and starts one workflow.

    Every method raises `temporalio.service.RPCError` if the Temporal server is unreachable or rejects a request.

    Args:
        client: Temporal client with the contract's data converter, from `contextunity.worker.temporal.connect`.
        registry: workflow contracts by workflow_type.
        rpc_timeout: timeout of one call to the Temporal server.

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
        """Create a schedule that does not exist yet.

        Args:
            schedule_id: name of the schedule within the project.
            workflow_type: workflow to start.
            cron: five fields; see `docs/schedules.md`.
            payload: the workflow's parameters, or its input message; None without any.
            timezone: IANA name of the time zone of `cron`.
            project_id: project that owns the schedule.
            tenant_id: tenant that owns the schedule and its tasks.
            task_queue: the contract's, or that of the tenant's own workers; empty means the contract's.
            overlap: what to do if a run is due while the one before still runs.
            catchup_window: how late a missed run may start, 10 seconds to a year; None means one minute.
            jitter: maximum random delay of each run; None means no delay.
            description: purpose, for people.
            paused: whether to create it paused, until `resume_schedule`.

        Raises:
            SchedulesRefusedError: the schedule is invalid; everything that is wrong is named.
            ScheduleExistsError: the schedule exists already.
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
        """Make schedules match the entries. The call is idempotent.

        A paused schedule stays paused. If several calls run at once, the last one wins for each schedule.

        Args:
            entries: wanted schedules; a fault replaces one that could not be read.
            project_id: project that owns them.
            tenant_id: tenant that owns them.
            prune: whether to remove the project's other schedules.
            partial: whether to apply the valid entries if some are invalid.
            dry_run: whether to only return what would be done.
            skippable: places of entries without input, to skip and list in `skipped` if their workflow requires
                parameters.
            admit: called before any change; raises if there would be too many.

        Raises:
            SchedulesRefusedError: entries are invalid, and `partial` is not set; nothing was changed.
            ScheduleConflictError: another client keeps changing the same schedule.
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
        """List schedules by tenant, project and id. One that another process has just created may be missing briefly.

        Args:
            project_id: only this project; empty means all.
            tenant_ids: only these tenants; None means all.
        """
        names = await self._server.names(None if tenant_ids is None else frozenset(tenant_ids), project_id)
        return [stored.to_status() for stored in await self._server.describe_all(names)]

    async def names(self, tenant_id: str) -> list[ScheduleName]:
        """List the names of a tenant's schedules of all projects. See `list_schedules`."""
        return await self._server.names({tenant_id}, "")

    async def exists(self, name: ScheduleName) -> bool:
        """Whether the schedule exists now."""
        return await self._server.describe(name) is not None

    async def pause_schedule(
        self, schedule_id: str, *, project_id: str = DEFAULT_PROJECT, tenant_id: str = DEFAULT_TENANT, note: str = ""
    ) -> ScheduleResult:
        """Pause a schedule until it is resumed; running tasks continue.

        Args:
            schedule_id: id of the schedule.
            project_id: project that owns it.
            tenant_id: tenant that owns it.
            note: reason, for people.

        Raises:
            ScheduleUnknownError: the schedule does not exist.
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
        """Resume a paused schedule, without the runs that it missed. See `pause_schedule`.

        Args:
            schedule_id: id of the schedule.
            project_id: project that owns it.
            tenant_id: tenant that owns it.
            note: reason, for people.
            check: receives the current schedule; raises to reject the call.

        Raises:
            ScheduleUnknownError: the schedule does not exist.
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
        """Start a task of a schedule now, even if it is paused.

        If the last task still runs and the schedule does not allow overlap, the new one begins after it. Two triggers
        within one second have the same workflow id, and may become one.

        Args:
            schedule_id: id of the schedule.
            project_id: project that owns it.
            tenant_id: tenant that owns it.
            check: receives the current schedule; raises to reject the trigger.

        Returns:
            The schedule, and the workflow id that the task has or will have.

        Raises:
            ScheduleUnknownError: the schedule does not exist.
        """
        stored = await self._stored(schedule_id, project_id, tenant_id)
        if check is not None:
            check(stored.entry)
        due = datetime.now(UTC).replace(microsecond=0)
        # With Skip, or with a full buffer, a trigger would be lost silently.
        wait = stored.entry.overlap in _ONE_AFTER_ANOTHER
        overlap = ScheduleOverlap.BUFFER_ALL if wait else stored.entry.overlap
        result = _result(stored.name, "triggered", await self._server.trigger(stored.name, due, int(overlap)))
        result.workflow_id = stored.name.task_id(due)
        return result

    async def delete_schedule(
        self, schedule_id: str, *, project_id: str = DEFAULT_PROJECT, tenant_id: str = DEFAULT_TENANT
    ) -> ScheduleResult:
        """Remove a schedule; its running tasks continue. See `pause_schedule`."""
        stored = await self._stored(schedule_id, project_id, tenant_id)
        return _result(stored.name, "deleted", await self._server.delete(stored.name))

    async def _stored(self, schedule_id: str, project_id: str, tenant_id: str) -> Stored:
        name = _name(schedule_id, project_id, tenant_id)
        stored = await self._server.describe(name)
        if stored is None:
            raise ScheduleUnknownError(name)
        return stored


def _name(schedule_id: str, project_id: str, tenant_id: str) -> ScheduleName:
    """Return the name of a schedule.

    Raises:
        ScheduleError: the tenant's id is invalid.
    """
    violation = tenant_violation(tenant_id)
    if violation:
        raise ScheduleError(f"tenant_id {tenant_id[:200]!r} {violation}")
    return ScheduleName(tenant_id=tenant_id, project_id=project_id or DEFAULT_PROJECT, schedule_id=schedule_id)


def _result(name: ScheduleName, status: str, done: bool) -> ScheduleResult:
    """Return the answer about a schedule.

    Raises:
        ScheduleUnknownError: it has just been removed.
    """
    if not done:
        raise ScheduleUnknownError(name)
    return ScheduleResult(
        schedule_id=name.schedule_id, project_id=name.project_id, tenant_id=name.tenant_id, status=status
    )
