"""Holds an entry against its rules and the contract of its workflow, so that nothing of it can fail when it is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import betterproto2
from contextunity.gen.contextunity.worker import ScheduleEntry, ScheduleOverlap
from google.protobuf.descriptor import FieldDescriptor
from temporalio.api.schedule.v1 import StructuredCalendarSpec

from contextunity.core import codec, validation
from contextunity.core.errors import CodecError, Violation
from contextunity.worker.internal_fields import internal_in_data, internal_in_message
from contextunity.worker.tenancy import resolved_queue, tenant_queue
from python_temporal.contract import ContractError, WorkflowContract

from ._cron import CronError, compile_cron
from ._names import ID_LIMIT, ScheduleName
from ._zones import zone_fault

__all__ = ["DEFAULT_CATCHUP_WINDOW", "CheckedEntry", "EntryError", "check_entry", "normal_entry"]

DEFAULT_CATCHUP_WINDOW = timedelta(minutes=1)
"""How late a missed run may start where an entry does not say."""

_TENANT_FIELD = "tenant_id"
_MAX_SHOWN = 60


class EntryError(ValueError):
    """An entry is faulty; `violations` has everything that is wrong."""

    def __init__(self, violations: list[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(map(str, violations)))


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedEntry:
    """An entry that nothing is wrong with.

    Attributes:
        name: under which name it is kept.
        entry: with what was left open filled in, and without its input.
        contract: the workflow that it starts.
        input: what that is started with; None where it takes nothing.
        calendar: when.
    """

    name: ScheduleName
    entry: ScheduleEntry
    contract: WorkflowContract
    input: betterproto2.Message | None
    calendar: StructuredCalendarSpec


def check_entry(
    entry: ScheduleEntry, workflows: Mapping[str, WorkflowContract], *, tenant_id: str, project_id: str
) -> CheckedEntry:
    """Checks an entry and reads its input.

    Raises:
        EntryError: something is wrong with it; everything is named.
    """
    try:
        found = validation.violations(entry)
    except CodecError as error:
        raise EntryError(list(error.violations)) from None
    name = ScheduleName(tenant_id=tenant_id, project_id=project_id, schedule_id=entry.schedule_id)
    if len(name.temporal_id) > ID_LIMIT:
        found.append(
            Violation("schedule_id", "is too long with its project and tenant: letters that ASCII lacks count more")
        )
    calendar = _calendar(entry, found)
    fault = zone_fault(entry.timezone) if entry.timezone else ""
    if fault:
        found.append(Violation("timezone", fault))
    contract = workflows.get(entry.workflow_type)
    request: betterproto2.Message | None = None
    if contract is not None and contract.internal:
        found.append(
            Violation("workflow_type", f"{_shown(entry.workflow_type)} is internal: other workflows start it alone")
        )
    elif contract is not None:
        _check_task_queue(entry, contract, tenant_id, found)
        request = _input(entry, contract, tenant_id, found)
    elif entry.workflow_type:
        known = ", ".join(sorted(name for name, each in workflows.items() if not each.internal)) or "none"
        found.append(Violation("workflow_type", f"there is no {_shown(entry.workflow_type)}; known ones: {known}"))
    if found or contract is None or calendar is None:
        raise EntryError(found)
    return CheckedEntry(
        name=name, entry=normal_entry(entry, contract, tenant_id), contract=contract, input=request, calendar=calendar
    )


def normal_entry(entry: ScheduleEntry, contract: WorkflowContract, tenant_id: str) -> ScheduleEntry:
    """A copy with what was left open filled in, and without its input."""
    unspecified = entry.overlap == ScheduleOverlap.UNSPECIFIED
    return ScheduleEntry(
        schedule_id=entry.schedule_id,
        workflow_type=contract.name,
        task_queue=resolved_queue(contract.task_queue or "", entry.task_queue, tenant_id) or entry.task_queue,
        cron=" ".join(entry.cron.split()),
        timezone=entry.timezone or "UTC",
        description=entry.description,
        overlap=ScheduleOverlap.SKIP if unspecified else entry.overlap,
        catchup_window=DEFAULT_CATCHUP_WINDOW if entry.catchup_window is None else entry.catchup_window,
        jitter=entry.jitter or None,
        paused=entry.paused,
    )


def _calendar(entry: ScheduleEntry, found: list[Violation]) -> StructuredCalendarSpec | None:
    if not entry.cron or any(each.path == "cron" for each in found):
        return None
    try:
        return compile_cron(" ".join(entry.cron.split()))
    except CronError as error:
        found.extend(Violation("cron", fault) for fault in error.faults)
        return None


def _check_task_queue(entry: ScheduleEntry, contract: WorkflowContract, tenant_id: str, found: list[Violation]) -> None:
    queue = contract.task_queue or ""
    if resolved_queue(queue, entry.task_queue, tenant_id) is None:
        own = tenant_queue(queue, tenant_id)
        found.append(
            Violation(
                "task_queue",
                f"{_shown(entry.task_queue)} is not the task queue of {contract.name!r}, which is {queue!r}, or "
                f"{own!r} for this tenant; leave it out",
            )
        )


def _input(
    entry: ScheduleEntry, contract: WorkflowContract, tenant_id: str, found: list[Violation]
) -> betterproto2.Message | None:
    """The typed input, with the tenant in it where it has a field for that."""
    try:
        where, request = _read_input(entry, contract)
    except EntryError as error:
        found.extend(error.violations)
        return None
    if request is None:
        return None
    if _has_tenant(contract):
        # The message's class is generated, so that it has the field is known to its descriptor alone.
        given = cast("Any", request)
        if given.tenant_id not in ("", tenant_id):
            reason = f"{_shown(given.tenant_id)} is not the tenant of the schedule, {tenant_id!r}; leave it out"
            found.append(Violation(f"{where}.{_TENANT_FIELD}", reason))
            return None
        given.tenant_id = tenant_id
    found.extend(_below(where, validation.violations(request)))
    if not _can_be_listed(request):
        reason = "cannot be told in a list of schedules: it is nested too deep, or packs what nobody here knows"
        found.append(Violation(where, reason))
    try:
        if contract.search_attributes is not None:
            contract.search_attributes(request)
    except ContractError as error:
        found.append(Violation(f"{where}.{error.field}" if error.field else where, error.reason))
    return request


def _read_input(entry: ScheduleEntry, contract: WorkflowContract) -> tuple[str, betterproto2.Message | None]:
    """Where in the entry the input stands, and what it is.

    Raises:
        EntryError: it is not what the workflow takes.
    """
    args: Mapping[str, Any] = {}
    try:
        if entry.args is not None:
            args = codec.struct_to_dict(entry.args)
    except CodecError as error:
        raise EntryError(_below("args", error.violations)) from None
    if entry.input is not None:
        if args:
            raise EntryError([Violation("args", "the input stands in `input` already; give one of the two")])
        return "input", _unpack(entry.input, contract)
    if contract.input_type is None:
        if args:
            reason = f"{contract.name!r} takes no parameters"
            raise EntryError([Violation(f"args.{key}", reason) for key in sorted(args)])
        return "args", None
    internal = internal_in_data(args, codec.proto_class(contract.input_type).DESCRIPTOR)
    if internal:
        raise EntryError(_below("args", internal))
    try:
        return "args", codec.from_dict(contract.input_type, args)
    except CodecError as error:
        raise EntryError(_below("args", error.violations)) from None


def _unpack(packed: betterproto2.Message, contract: WorkflowContract) -> betterproto2.Message:
    try:
        request = codec.unpack_any(packed)
    except CodecError as error:
        raise EntryError([Violation("input", str(error))]) from None
    fits = contract.input_type is not None and isinstance(request, contract.input_type)
    if not fits:
        takes = "nothing" if contract.input_type is None else f"a {codec.full_name(contract.input_type)}"
        reason = f"is a {codec.full_name(request)}, but {contract.name!r} takes {takes}"
        raise EntryError([Violation("input", reason)])
    internal = internal_in_message(request)
    if internal:
        raise EntryError(_below("input", internal))
    return request


def _has_tenant(contract: WorkflowContract) -> bool:
    if contract.input_type is None:
        return False
    field = codec.proto_class(contract.input_type).DESCRIPTOR.fields_by_name.get(_TENANT_FIELD)
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


def _can_be_listed(request: betterproto2.Message) -> bool:
    try:
        args = codec.to_dict(request, preserving_proto_field_name=True)
        # As the payload of ListSchedules has it, in the envelope.
        codec.dict_to_struct({"payload": {"schedules": [{"schedule": {"args": args}}]}})
    except CodecError:
        return False
    return True


def _below(where: str, violations: tuple[Violation, ...] | list[Violation]) -> list[Violation]:
    return [Violation(f"{where}.{each.path}" if each.path else where, each.reason) for each in violations]


def _shown(value: str) -> str:
    return repr(value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}…")
