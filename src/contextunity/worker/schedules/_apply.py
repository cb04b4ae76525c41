"""Registering schedules: what is asked for is compared with what is there, and only the difference is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from contextunity.gen.contextunity.worker import RegisterSchedulesResult, ScheduleDifference, ScheduleEntry
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core.errors import Violation
from python_temporal.contract import WorkflowContract

from ._check import CheckedEntry, EntryError, check_entry
from ._differences import differences
from ._errors import EntryFault, ScheduleConflictError, SchedulesRefusedError
from ._server import ScheduleServer
from ._stored import write_schedule

__all__ = ["apply", "check_entries"]

_ATTEMPTS = 5
"""Times that a change is tried where somebody else changes the same schedule at the same time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Done:
    """What became of one entry: created, updated or unchanged; or why the server refused it."""

    outcome: str
    differences: Sequence[ScheduleDifference] = ()
    refusal: str = ""


async def apply(
    server: ScheduleServer,
    workflows: Mapping[str, WorkflowContract],
    entries: Sequence[ScheduleEntry | EntryFault],
    *,
    tenant_id: str,
    project_id: str,
    prune: bool,
    partial: bool,
    dry_run: bool,
    skippable: Collection[int] = (),
) -> RegisterSchedulesResult:
    """Makes the schedules of a project those that are asked for; see `ScheduleManager.apply`."""
    checked, faults = check_entries(entries, workflows, tenant_id=tenant_id, project_id=project_id)
    skippable_places = {f"schedules[{place}]" for place in skippable}
    skipped = [fault for fault in faults if fault.place in skippable_places and _lacks_input_alone(fault)]
    skipped_places = {fault.place for fault in skipped}
    faults = [fault for fault in faults if fault.place not in skipped_places]
    if faults and not partial:
        raise SchedulesRefusedError(faults)
    nameless = [fault.place for fault in faults if not fault.schedule_id]
    done = await server.all_of(_put(server, each, partial=partial, dry_run=dry_run) for each in checked)
    result = RegisterSchedulesResult(skipped=[fault.schedule_id for fault in skipped])
    for each, what in zip(checked, done, strict=True):
        schedule_id = each.name.schedule_id
        if what.refusal:
            violations = (Violation("", f"the Temporal server refuses it: {what.refusal}"),)
            place = next(place for place, entry in _places(entries) if entry.schedule_id == schedule_id)
            faults.append(EntryFault(place=place, schedule_id=schedule_id, violations=violations))
            continue
        {"created": result.created, "updated": result.updated, "unchanged": result.unchanged}[what.outcome].append(
            schedule_id
        )
        result.differences.extend(what.differences)
    # A faulty entry is asked for all the same, so what is there under its id stays. Where it has none, nobody knows
    # which that is, and nothing goes.
    if prune and not nameless:
        asked = {entry.schedule_id for _, entry in _places(entries)}
        result.removed = await _prune(server, tenant_id, project_id, asked, dry_run=dry_run)
    result.registered_count = len(result.created) + len(result.updated) + len(result.unchanged)
    result.faults = [fault.to_fault() for fault in faults]
    if prune and nameless:
        for fault in result.faults:
            if fault.schedule_id in nameless:
                fault.reasons.append("nothing was pruned, because nobody knows which schedule this one is")
    result.status = "partial" if faults else "ok"
    return result


def check_entries(
    entries: Sequence[ScheduleEntry | EntryFault],
    workflows: Mapping[str, WorkflowContract],
    *,
    tenant_id: str,
    project_id: str,
) -> tuple[list[CheckedEntry], list[EntryFault]]:
    """Sorts entries into those that can be, and the faults of the others."""
    counts = Counter(entry.schedule_id for _, entry in _places(entries) if entry.schedule_id)
    checked, faults = list[CheckedEntry](), list[EntryFault]()
    for place, entry in enumerate(entries):
        if isinstance(entry, EntryFault):
            faults.append(entry)
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
            faults.append(
                EntryFault(place=f"schedules[{place}]", schedule_id=entry.schedule_id, violations=tuple(violations))
            )
        else:
            checked.append(good)
    return checked, faults


def _lacks_input_alone(fault: EntryFault) -> bool:
    """Whether an entry without input has no other fault than that its workflow needs more than it can default."""
    return all(each.path == "args" or each.path.startswith(("args.", "args[")) for each in fault.violations)


def _places(entries: Sequence[ScheduleEntry | EntryFault]) -> list[tuple[str, ScheduleEntry | EntryFault]]:
    return [(f"schedules[{place}]", entry) for place, entry in enumerate(entries)]


async def _put(server: ScheduleServer, wanted: CheckedEntry, *, partial: bool, dry_run: bool) -> _Done:
    try:
        return await _create_or_update(server, wanted, dry_run=dry_run)
    except RPCError as error:
        if partial and error.status is RPCStatusCode.INVALID_ARGUMENT:
            return _Done(outcome="", refusal=error.message)
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
