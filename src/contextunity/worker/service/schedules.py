"""Handlers of schedules: register, list and control them; `contextunity.worker.schedules` does the work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence, Set
from typing import Any, cast

from contextunity.gen.contextunity.worker import (
    ListSchedulesRequest,
    ListSchedulesResult,
    RegisterSchedulesRequest,
    RegisterSchedulesResult,
    ScheduleEntry,
    ScheduleRequest,
    ScheduleResult,
)
from temporalio.service import RPCError

from contextunity.core.errors import CodecError, Violation
from contextunity.worker.grpc_errors import FieldViolation, Reason, ServiceError, from_rpc_error, invalid
from contextunity.worker.quotas import Registered
from contextunity.worker.schedules import (
    Admit,
    RejectedEntry,
    ScheduleConflictError,
    ScheduleManager,
    ScheduleName,
    SchedulesRefusedError,
    ScheduleUnknownError,
    entry_shape,
    is_manifest_entry,
    request_shape,
)
from contextunity.worker.temporal.tenancy import id_violation

from .call import Call, Engine
from .code import STARTS_CODE, runs_code
from .payloads import from_payload, payload_of, read_payload, read_request

__all__ = ["ScheduleHandlers"]

_MAX_VIOLATIONS = 16
"""Maximum number of violations in an error, which travels in trailers; clients accept up to 8 KiB of these."""


class ScheduleHandlers:
    """Handles RegisterSchedules, ListSchedules, PauseSchedule, ResumeSchedule, TriggerSchedule and DeleteSchedule."""

    def __init__(self, engine: Engine) -> None:
        self._workflows = engine.registry.workflows
        self._manager = ScheduleManager(engine.client, engine.registry, rpc_timeout=engine.rpc_timeout)
        self._quotas = engine.quotas
        self._registered = Registered(self._ids)

    async def register_schedules(self, call: Call) -> RegisterSchedulesResult:
        """Register schedules; see RegisterSchedules in worker.proto."""
        request, entries, where, skippable = _read_registration(call)
        tenant_id = call.acting_tenant(request.tenant_id)
        project_id = call.project(request.project_id)
        if not call.caller.sees_project(project_id):
            raise _other_project(call, project_id)
        violation = id_violation(project_id)
        if violation:
            raise invalid(FieldViolation(field=f"{where.partition('.')[0]}.project_id", description=violation))
        with _errors(where):
            return await self._manager.apply(
                self._only_what_may_be_started(call, entries, partial=request.partial),
                project_id=project_id,
                tenant_id=tenant_id,
                prune=request.prune,
                partial=request.partial,
                dry_run=request.dry_run,
                skippable=skippable,
                # Without tokens, tenants are only labels.
                admit=None if call.caller.tenants is None else self._quota_check(call, tenant_id, project_id),
            )

    async def _ids(self, tenant_id: str) -> set[str]:
        return {name.temporal_id for name in await self._manager.names(tenant_id)}

    def _quota_check(self, call: Call, tenant_id: str, project_id: str) -> Admit:
        """Check a registration against the tenant's quota of schedules."""

        async def admit(names: Sequence[ScheduleName], kept: Set[str] | None) -> None:
            wanted = {name.temporal_id: name for name in names}

            def pruned(temporal_id: str) -> bool:
                there = ScheduleName.from_temporal_id(temporal_id)
                return (
                    kept is not None
                    and there is not None
                    and there.project_id == project_id
                    and there.schedule_id not in kept
                )

            await self._registered.take(
                tenant_id,
                wanted.keys(),
                self._quotas.of(tenant_id).schedules,
                pruned=pruned,
                exists=lambda temporal_id: self._manager.exists(wanted[temporal_id]),
                method=call.method,
            )

        return admit

    async def list_schedules(self, call: Call, request: ListSchedulesRequest) -> ListSchedulesResult:
        """List schedules; see ListSchedules in worker.proto."""
        tenants = call.visible_tenants(request.tenant_id)
        project_id = request.project_id
        if call.caller.bound_project is not None:
            project_id = call.project(project_id)
            if not call.caller.sees_project(project_id):
                # Do not reveal whether other projects have schedules.
                return ListSchedulesResult()
        with _errors():
            found = await self._manager.list_schedules(project_id=project_id, tenant_ids=tenants)
        return ListSchedulesResult(schedules=found)

    async def pause_schedule(self, call: Call, request: ScheduleRequest) -> ScheduleResult:
        """Pause a schedule; see PauseSchedule in worker.proto."""
        name = _name(call, request)
        with _errors():
            return await self._manager.pause_schedule(
                name.schedule_id, project_id=name.project_id, tenant_id=name.tenant_id, note=request.note
            )

    async def resume_schedule(self, call: Call, request: ScheduleRequest) -> ScheduleResult:
        """Resume a paused schedule; see ResumeSchedule in worker.proto."""
        name = _name(call, request)
        with _errors():
            return await self._manager.resume_schedule(
                name.schedule_id,
                project_id=name.project_id,
                tenant_id=name.tenant_id,
                note=request.note,
                check=self._check_of(call),
            )

    async def trigger_schedule(self, call: Call, request: ScheduleRequest) -> ScheduleResult:
        """Run a schedule once, now; see TriggerSchedule in worker.proto."""
        name = _name(call, request)
        with _errors():
            return await self._manager.trigger_schedule(
                name.schedule_id,
                project_id=name.project_id,
                tenant_id=name.tenant_id,
                check=self._check_of(call),
            )

    async def delete_schedule(self, call: Call, request: ScheduleRequest) -> ScheduleResult:
        """Delete a schedule; see DeleteSchedule in worker.proto."""
        name = _name(call, request)
        with _errors():
            return await self._manager.delete_schedule(
                name.schedule_id, project_id=name.project_id, tenant_id=name.tenant_id
            )

    def _only_what_may_be_started(
        self, call: Call, entries: list[ScheduleEntry | RejectedEntry], *, partial: bool
    ) -> list[ScheduleEntry | RejectedEntry]:
        """Return the entries; with `partial`, entries that start what the caller may not start become violations.

        Raises:
            ServiceError: there is such an entry, and `partial` is not set.
        """
        if call.caller.may(*STARTS_CODE):
            return entries
        checked = list[ScheduleEntry | RejectedEntry]()
        for place, entry in enumerate(entries):
            contract = self._workflows.get(entry.workflow_type) if isinstance(entry, ScheduleEntry) else None
            if contract is None or not runs_code(contract):
                checked.append(entry)
                continue
            error = _not_to_be_started(entry.schedule_id, contract.name)
            if not partial:
                raise error
            violations = (Violation("workflow_type", error.message),)
            checked.append(
                RejectedEntry(place=f"schedules[{place}]", schedule_id=entry.schedule_id, violations=violations)
            )
        return checked

    def _check_of(self, call: Call) -> Callable[[ScheduleEntry], None]:
        """Reject a caller who may not start the workflow of a schedule, whoever registered the schedule."""

        def check(entry: ScheduleEntry) -> None:
            contract = self._workflows.get(entry.workflow_type)
            # An unknown workflow may run code too.
            if not call.caller.may(*STARTS_CODE) and (contract is None or runs_code(contract)):
                raise _not_to_be_started(entry.schedule_id, entry.workflow_type)

        return check


def _read_registration(
    call: Call,
) -> tuple[RegisterSchedulesRequest, list[ScheduleEntry | RejectedEntry], str, list[int]]:
    """Decode a registration: the request, its entries or their errors, their path in the unit, and what may be skipped.

    Raises:
        ServiceError: a part other than single entries is invalid.
    """
    if call.unit.body is not None:
        request = read_request(call, RegisterSchedulesRequest)
        return request, list(request.schedules), "body.", []
    try:
        rest, entries, alone = request_shape(payload_of(call))
    except CodecError as error:
        raise invalid(FieldViolation(field=f"payload.{error.path}", description=error.reason)) from None
    request = read_payload({**rest, "schedules": [{}] * len(entries)}, RegisterSchedulesRequest)
    read = [_read_entry(entry, f"schedules[{place}]") for place, entry in enumerate(entries)]
    # A manifest also lists workflows that only callers can start; its sender expects a count and not an error.
    skippable = [place for place, entry in enumerate(entries) if is_manifest_entry(entry)]
    return request, read, "payload" if alone else "payload.", skippable


def _read_entry(data: Any, place: str) -> ScheduleEntry | RejectedEntry:
    try:
        return from_payload(entry_shape(data), ScheduleEntry)
    except CodecError as error:
        return RejectedEntry(place=place, schedule_id=_id_of(data), violations=error.violations)


def _id_of(data: Any) -> str:
    """Return the id of an invalid entry; empty if that is invalid too."""
    if not isinstance(data, dict):
        return ""
    entry = {key: value for key, value in cast("dict[str, Any]", data).items() if key != "args"}
    try:
        named = entry_shape(entry).get("schedule_id", entry.get("scheduleId", ""))
    except CodecError:
        return ""
    return named if isinstance(named, str) else ""


def _name(call: Call, request: ScheduleRequest) -> ScheduleName:
    name = ScheduleName(
        tenant_id=call.acting_tenant(request.tenant_id),
        project_id=call.project(request.project_id),
        schedule_id=request.schedule_id,
    )
    if not call.caller.sees_project(name.project_id):
        raise _unknown(name)
    return name


def _other_project(call: Call, project_id: str) -> ServiceError:
    bound = call.caller.bound_project
    # A token may be bound without naming a project; a key of all projects then authenticates no project.
    binding = f"to the project {bound!r}" if bound else "to a project that it does not name"
    return ServiceError(
        Reason.PROJECT_REFUSED,
        f"the token is bound {binding}, and registers no schedules of the project {project_id!r}; leave project_id "
        "out, or show a token that is bound to that project, or one of the kind `platform`",
        metadata={"project_id": project_id, "bound_project": bound or ""},
    )


def _not_to_be_started(schedule_id: str, workflow_type: str) -> ServiceError:
    return ServiceError(
        Reason.PERMISSION_MISSING,
        f"the schedule {schedule_id!r} starts {workflow_type!r}, which runs code that callers bring, or is not known "
        f"here; that needs a token with the permission {' or '.join(STARTS_CODE)}",
        metadata={"permissions": ",".join(STARTS_CODE), "schedule_id": schedule_id, "workflow_type": workflow_type},
    )


def _unknown(name: ScheduleName) -> ServiceError:
    return ServiceError(
        Reason.SCHEDULE_UNKNOWN,
        f"there is no schedule {name.schedule_id!r} in the project {name.project_id!r}; "
        "ListSchedules lists the existing ones",
        metadata={"schedule_id": name.schedule_id, "project_id": name.project_id},
    )


@contextlib.contextmanager
def _errors(where: str = "") -> Generator[None]:
    """Convert errors about schedules to errors of the service.

    Args:
        where: prefix of the entries' paths, such as `payload.`; without a dot at its end, the path of the one entry.
    """
    try:
        yield
    except SchedulesRefusedError as error:
        raise _rejected(error, where) from None
    except ScheduleUnknownError as error:
        raise _unknown(error.name) from None
    except ScheduleConflictError as error:
        raise ServiceError(
            Reason.SCHEDULE_EXISTS, str(error), metadata={"schedule_id": error.name.schedule_id}
        ) from None
    except RPCError as error:
        raise from_rpc_error(error) from error


def _rejected(error: SchedulesRefusedError, where: str) -> ServiceError:
    violations = list[FieldViolation]()
    for rejected in error.faults:
        place = f"{where}{rejected.place}" if where.endswith(".") else where
        for violation in rejected.violations:
            # The id is for people, the path for programs.
            named = f"schedule {rejected.schedule_id!r}: " if rejected.schedule_id and where.endswith(".") else ""
            field = f"{place}.{violation.path}" if violation.path else place
            violations.append(FieldViolation(field=field, description=named + violation.reason))
    left = len(violations) - _MAX_VIOLATIONS
    if left > 0:
        del violations[_MAX_VIOLATIONS:]
        more = FieldViolation(field=f"{where}schedules", description=f"and {left} more; `partial` lists them all")
        violations.append(more)
    return invalid(*violations)
