"""Registers, lists and steers schedules for callers; `contextunity.worker.schedules` does the work."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

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

from contextunity.core.errors import CodecError
from contextunity.worker.schedules import (
    DEFAULT_PROJECT,
    EntryFault,
    ScheduleConflictError,
    ScheduleManager,
    ScheduleName,
    SchedulesRefusedError,
    ScheduleUnknownError,
    entry_shape,
    request_shape,
)
from contextunity.worker.status import FieldViolation, Reason, ServiceError, from_rpc_error, invalid

from ._call import Call, Engine
from ._requests import from_payload, payload_of, read_payload, read_request, unpack

__all__ = ["Scheduling"]

_MAX_VIOLATIONS = 16
"""Violations that an error names: it travels in the trailers, which clients take up to 8 KiB of."""


class Scheduling:
    """RegisterSchedules, ListSchedules, PauseSchedule, ResumeSchedule, TriggerSchedule and DeleteSchedule."""

    def __init__(self, engine: Engine) -> None:
        self._manager = ScheduleManager(engine.client, engine.registry, rpc_timeout=engine.rpc_timeout)

    async def register_schedules(self, call: Call) -> RegisterSchedulesResult:
        """Makes schedules what is asked for; see RegisterSchedules in worker.proto."""
        request, entries, where = _read_registration(call)
        tenant_id = call.tenant(request.tenant_id)
        with _errors(where):
            return await self._manager.apply(
                entries,
                project_id=_project(call, request.project_id),
                tenant_id=tenant_id,
                prune=request.prune,
                partial=request.partial,
                dry_run=request.dry_run,
            )

    async def list_schedules(self, call: Call, request: ListSchedulesRequest) -> ListSchedulesResult:
        """Lists schedules; see ListSchedules in worker.proto."""
        tenants = call.tenants(request.tenant_id)
        with _errors():
            found = await self._manager.list_schedules(project_id=request.project_id, tenant_ids=tenants)
        return ListSchedulesResult(schedules=found)

    async def pause_schedule(self, call: Call, request: ScheduleRequest) -> ScheduleResult:
        """Pauses a schedule; see PauseSchedule in worker.proto."""
        name = _name(call, request)
        with _errors():
            return await self._manager.pause_schedule(
                name.schedule_id, project_id=name.project_id, tenant_id=name.tenant_id, note=request.note
            )

    async def resume_schedule(self, call: Call, request: ScheduleRequest) -> ScheduleResult:
        """Has a paused schedule go on; see ResumeSchedule in worker.proto."""
        name = _name(call, request)
        with _errors():
            return await self._manager.resume_schedule(
                name.schedule_id, project_id=name.project_id, tenant_id=name.tenant_id, note=request.note
            )

    async def trigger_schedule(self, call: Call, request: ScheduleRequest) -> ScheduleResult:
        """Has a schedule run once, now; see TriggerSchedule in worker.proto."""
        name = _name(call, request)
        with _errors():
            return await self._manager.trigger_schedule(
                name.schedule_id, project_id=name.project_id, tenant_id=name.tenant_id
            )

    async def delete_schedule(self, call: Call, request: ScheduleRequest) -> ScheduleResult:
        """Removes a schedule; see DeleteSchedule in worker.proto."""
        name = _name(call, request)
        with _errors():
            return await self._manager.delete_schedule(
                name.schedule_id, project_id=name.project_id, tenant_id=name.tenant_id
            )


def _read_registration(call: Call) -> tuple[RegisterSchedulesRequest, list[ScheduleEntry | EntryFault], str]:
    """The request, its entries or why they cannot be read, and where in the unit they stand.

    Raises:
        ServiceError: what is not about single entries does not fit.
    """
    if unpack(call.unit) is not None:
        request = read_request(call, RegisterSchedulesRequest)
        return request, list(request.schedules), "body."
    try:
        rest, entries, alone = request_shape(payload_of(call))
    except CodecError as error:
        raise invalid(FieldViolation(field=f"payload.{error.path}", description=error.reason)) from None
    request = read_payload({**rest, "schedules": [{}] * len(entries)}, RegisterSchedulesRequest)
    read = [_read_entry(entry, f"schedules[{place}]") for place, entry in enumerate(entries)]
    return request, read, "payload" if alone else "payload."


def _read_entry(data: Any, place: str) -> ScheduleEntry | EntryFault:
    try:
        return from_payload(entry_shape(data), ScheduleEntry)
    except CodecError as error:
        return EntryFault(place=place, schedule_id=_id_of(data), violations=error.violations)


def _id_of(data: Any) -> str:
    """The id of an entry that cannot be read; empty where not even that can."""
    try:
        named = entry_shape(data).get("schedule_id", data.get("scheduleId", ""))
    except CodecError:
        return ""
    return named if isinstance(named, str) else ""


def _project(call: Call, named: str) -> str:
    return named or call.caller.project_id or DEFAULT_PROJECT


def _name(call: Call, request: ScheduleRequest) -> ScheduleName:
    return ScheduleName(
        tenant_id=call.tenant(request.tenant_id),
        project_id=_project(call, request.project_id),
        schedule_id=request.schedule_id,
    )


@contextlib.contextmanager
def _errors(where: str = "") -> Generator[None]:
    """Makes errors about schedules those of the service.

    Args:
        where: what the places of entries follow, such as `payload.`; without a dot at its end it is the one entry.
    """
    try:
        yield
    except SchedulesRefusedError as error:
        raise _refused(error, where) from None
    except ScheduleUnknownError as error:
        metadata = {"schedule_id": error.name.schedule_id, "project_id": error.name.project_id}
        raise ServiceError(
            Reason.SCHEDULE_UNKNOWN,
            f"there is no schedule {error.name.schedule_id!r} in the project {error.name.project_id!r}; "
            "ListSchedules tells those that there are",
            metadata=metadata,
        ) from None
    except ScheduleConflictError as error:
        raise ServiceError(
            Reason.SCHEDULE_EXISTS, str(error), metadata={"schedule_id": error.name.schedule_id}
        ) from None
    except RPCError as error:
        raise from_rpc_error(error) from error


def _refused(error: SchedulesRefusedError, where: str) -> ServiceError:
    violations = list[FieldViolation]()
    for fault in error.faults:
        place = f"{where}{fault.place}" if where.endswith(".") else where
        for violation in fault.violations:
            # The id tells people which one it is, the place programs.
            named = f"schedule {fault.schedule_id!r}: " if fault.schedule_id and where.endswith(".") else ""
            field = f"{place}.{violation.path}" if violation.path else place
            violations.append(FieldViolation(field=field, description=named + violation.reason))
    left = len(violations) - _MAX_VIOLATIONS
    if left > 0:
        del violations[_MAX_VIOLATIONS:]
        more = FieldViolation(field=f"{where}schedules", description=f"and {left} more; `partial` lists them all")
        violations.append(more)
    return invalid(*violations)
