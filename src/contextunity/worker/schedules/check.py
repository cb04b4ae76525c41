"""Check schedule entries against the contracts, and add what Temporal needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, cast
from urllib.parse import quote, unquote

import betterproto2
from contextunity.gen.contextunity.worker import ScheduleEntry, ScheduleOverlap
from google.protobuf.descriptor import FieldDescriptor
from temporalio.api.schedule.v1 import StructuredCalendarSpec

from betterproto2_codec.plain_data import is_list, to_protojson
from contextunity.core import codec, validation
from contextunity.core.errors import CodecError, ContextUnityError, Violation
from contextunity.worker.internal_fields import internal_in_data, internal_in_message
from contextunity.worker.temporal.tenancy import id_violation, resolved_queue, tenant_queue
from python_temporal.contract import ContractError, ServiceContract, WorkflowContract

from .cron import CronError, compile_cron, zone_violation

__all__ = [
    "DEFAULT_CATCHUP_WINDOW",
    "DEFAULT_PROJECT",
    "DEFAULT_TENANT",
    "ID_LIMIT",
    "CheckedEntry",
    "Contracts",
    "EntryError",
    "Implementation",
    "ScheduleName",
    "check_entry",
    "entry_shape",
    "is_manifest_entry",
    "list_query",
    "normal_entry",
    "object_of_args",
    "request_shape",
]

DEFAULT_PROJECT = "default"
"""Default project of schedules."""
DEFAULT_TENANT = "default"
"""Default tenant of schedules."""
ID_LIMIT = 960
"""Maximum length of an escaped id, in characters: Temporal allows 1000, and appends the time for task ids."""

_PREFIX = "contextunity/"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class ScheduleName:
    """Name of a schedule; its id is unique within a project of a tenant."""

    tenant_id: str
    project_id: str
    schedule_id: str

    @property
    def temporal_id(self) -> str:
        """Unique id of the schedule on the Temporal server."""
        # No escaped part contains a slash, so the parts stay apart.
        return _PREFIX + "/".join(quote(part, safe="") for part in (self.tenant_id, self.project_id, self.schedule_id))

    @property
    def workflow_id(self) -> str:
        """Prefix of the workflow ids of its tasks."""
        return "schedule/" + self.temporal_id.removeprefix(_PREFIX)

    def task_id(self, due: datetime) -> str:
        """Return the workflow id of the task that is due at a time, UTC."""
        return f"{self.workflow_id}-{due:%Y-%m-%dT%H:%M:%SZ}"

    @classmethod
    def from_temporal_id(cls, temporal_id: str) -> ScheduleName | None:
        """Parse an id on the Temporal server; None if it is not ours."""
        parts = temporal_id.removeprefix(_PREFIX).split("/")
        if not temporal_id.startswith(_PREFIX) or len(parts) != 3:
            return None
        tenant_id, project_id, schedule_id = map(unquote, parts)
        name = cls(tenant_id=tenant_id, project_id=project_id, schedule_id=schedule_id)
        return name if name.temporal_id == temporal_id else None


def list_query(tenant_id: str | None, project_id: str) -> str:
    """Return the Temporal server's list filter for our schedules, of one tenant if given.

    The list may contain others too, so check the names in the answer.
    """
    prefix = _PREFIX
    if tenant_id is not None:
        prefix += quote(tenant_id, safe="") + "/"
        if project_id:
            prefix += quote(project_id, safe="") + "/"
    return f"ScheduleId STARTS_WITH '{prefix}'"


class Implementation(Protocol):
    """A registered module."""

    @property
    def contracts(self) -> Sequence[ServiceContract]:
        """Service contracts that the module implements."""
        ...


class Contracts(Protocol):
    """Registered modules and workflows, such as a `WorkerRegistry`."""

    @property
    def workflows(self) -> Mapping[str, WorkflowContract]:
        """Workflow contracts by workflow_type."""
        ...

    def select(self, names: Sequence[str] | None) -> Sequence[Implementation]:
        """Return modules by name; all for None."""
        ...


_REQUEST_KEYS = frozenset(
    {"project_id", "projectId", "tenant_id", "tenantId", "schedules", "prune", "partial", "dry_run", "dryRun"}
)
_ENTRY_KEYS = frozenset({"id", "schedule_id", "scheduleId", "workflow_name", "workflow_type", "workflowType", "cron"})
_OLDER_NAMES = {"id": "schedule_id", "workflow_name": "workflow_type"}
_JSON_NAMES = {"schedule_id": "scheduleId", "workflow_type": "workflowType"}


def request_shape(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any], bool]:
    """Split a registration into request and entries.

    Args:
        data: keys of RegisterSchedulesRequest, or keys of one entry together with other keys of the request.

    Returns:
        The request without its entries; the unchanged entries; and whether it was a single entry.

    Raises:
        CodecError: `schedules` is not a list.
    """
    if "schedules" not in data and data.keys() & _ENTRY_KEYS:
        request = {key: value for key, value in data.items() if key in _REQUEST_KEYS}
        return request, [{key: value for key, value in data.items() if key not in _REQUEST_KEYS}], True
    entries = data.get("schedules", [])
    if not is_list(entries):
        raise CodecError("expected a list of schedules", path="schedules")
    return {key: value for key, value in data.items() if key != "schedules"}, entries, False


def entry_shape(data: Any) -> dict[str, Any]:
    """Rename an entry's keys to those of ScheduleEntry; older clients send `id` and `workflow_name`.

    Raises:
        CodecError: the entry is not an object, or has two names of a key with different values.
    """
    if not isinstance(data, Mapping):
        raise CodecError("expected an object with schedule_id, workflow_type and cron")
    entry = dict(cast("Mapping[str, Any]", data))
    for older, name in _OLDER_NAMES.items():
        if older not in entry:
            continue
        value = entry.pop(older)
        for other in (name, _JSON_NAMES[name]):
            if other in entry and entry[other] != value:
                raise CodecError(f"differs from {older}; give only one of the two", path=name)
        if _JSON_NAMES[name] not in entry:
            entry[name] = value
    if is_list(entry.get("args")):
        args = object_of_args(entry.pop("args"))
        if args is not None:
            entry["args"] = args
    return entry


def is_manifest_entry(data: Any) -> bool:
    """Whether an entry has the shape of manifests: with `id` and without input."""
    if not isinstance(data, Mapping):
        return False
    entry = cast("Mapping[str, Any]", data)
    return "id" in entry and not entry.get("args") and "input" not in entry


def object_of_args(args: object) -> dict[str, Any] | None:
    """Return a workflow's parameters as one object; None without parameters.

    Deployed clients send a list of positional arguments: empty, or with the one input.

    Raises:
        CodecError: the parameters are neither an object nor a list of at most one; the path is below `args`.
    """
    if is_list(args):
        if len(args) > 1:
            raise CodecError(f"has {len(args)} elements; a workflow takes at most one input", path="args")
        if not args:
            return None
        args, path = args[0], "args[0]"
    else:
        path = "args"
    if not isinstance(args, dict):
        text = repr(args)
        raise CodecError(f"must be an object, not {text if len(text) <= 100 else text[:100] + '…'}", path=path)
    return cast("dict[str, Any]", args)


DEFAULT_CATCHUP_WINDOW = timedelta(minutes=1)
"""Default of how late a missed run may start."""

_TENANT_FIELD = "tenant_id"
_MAX_SHOWN = 60


class EntryError(ContextUnityError):
    """An entry is invalid; `violations` has everything that is wrong."""

    def __init__(self, violations: list[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(map(str, violations)))


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedEntry:
    """A valid entry.

    Attributes:
        name: name of the schedule.
        entry: the entry with defaults filled in, without its input.
        contract: contract of the workflow that it starts.
        input: input of the workflow; None if it takes none.
        calendar: times of the schedule.
    """

    name: ScheduleName
    entry: ScheduleEntry
    contract: WorkflowContract
    input: betterproto2.Message | None
    calendar: StructuredCalendarSpec


def check_entry(
    entry: ScheduleEntry, workflows: Mapping[str, WorkflowContract], *, tenant_id: str, project_id: str
) -> CheckedEntry:
    """Check an entry and read its input.

    Raises:
        EntryError: the entry is invalid; everything that is wrong is named.
    """
    try:
        found = validation.violations(entry)
    except CodecError as error:
        raise EntryError(list(error.violations)) from None
    name = ScheduleName(tenant_id=tenant_id, project_id=project_id, schedule_id=entry.schedule_id)
    if len(name.temporal_id) > ID_LIMIT:
        found.append(
            Violation("schedule_id", "is too long with its project and tenant; letters outside ASCII count more")
        )
    violation = id_violation(entry.schedule_id)
    if violation:
        found.append(Violation("schedule_id", violation))
    calendar = _calendar(entry, found)
    violation = zone_violation(entry.timezone) if entry.timezone else ""
    if violation:
        found.append(Violation("timezone", violation))
    contract = workflows.get(entry.workflow_type)
    request: betterproto2.Message | None = None
    if contract is not None and contract.internal:
        found.append(
            Violation("workflow_type", f"{_shown(entry.workflow_type)} is internal: only other workflows can start it")
        )
    elif contract is not None:
        _check_task_queue(entry, contract, tenant_id, found)
        request = _input(entry, contract, tenant_id, found)
    elif entry.workflow_type:
        known = ", ".join(sorted(name for name, each in workflows.items() if not each.internal)) or "none"
        found.append(Violation("workflow_type", f"{_shown(entry.workflow_type)} does not exist; known types: {known}"))
    if found or contract is None or calendar is None:
        raise EntryError(found)
    return CheckedEntry(
        name=name, entry=normal_entry(entry, contract, tenant_id), contract=contract, input=request, calendar=calendar
    )


def normal_entry(entry: ScheduleEntry, contract: WorkflowContract, tenant_id: str) -> ScheduleEntry:
    """Return a copy with defaults filled in, without its input."""
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
        found.extend(Violation("cron", violation) for violation in error.faults)
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
    """Return the typed input, with the tenant set if it has a field for it."""
    try:
        where, request = _read_input(entry, contract)
    except EntryError as error:
        found.extend(error.violations)
        return None
    if request is None:
        return None
    if _has_tenant(contract):
        # The message class is generated, so only its descriptor knows whether it has the field.
        given = cast("Any", request)
        if given.tenant_id not in ("", tenant_id):
            reason = f"{_shown(given.tenant_id)} is not the tenant of the schedule, {tenant_id!r}; leave it out"
            found.append(Violation(f"{where}.{_TENANT_FIELD}", reason))
            return None
        given.tenant_id = tenant_id
    found.extend(_below(where, validation.violations(request)))
    if not _can_be_listed(request):
        reason = "cannot be shown in a list of schedules: it is nested too deep, or packs an unknown message"
        found.append(Violation(where, reason))
    try:
        if contract.search_attributes is not None:
            contract.search_attributes(request)
    except ContractError as error:
        found.append(Violation(f"{where}.{error.field}" if error.field else where, error.reason))
    return request


def _read_input(entry: ScheduleEntry, contract: WorkflowContract) -> tuple[str, betterproto2.Message | None]:
    """Return the path and value of the input in the entry.

    Raises:
        EntryError: the input does not match the workflow's.
    """
    args: Mapping[str, Any] = {}
    try:
        if entry.args is not None:
            args = codec.struct_to_dict(entry.args)
    except CodecError as error:
        raise EntryError(_below("args", error.violations)) from None
    if entry.input is not None:
        if args:
            raise EntryError([Violation("args", "`input` is set too; give only one of the two")])
        return "input", _unpack(entry.input, contract)
    if contract.input_type is None:
        if args:
            reason = f"{contract.name!r} takes no parameters"
            raise EntryError([Violation(f"args.{key}", reason) for key in sorted(args)])
        return "args", None
    descriptor = codec.proto_class(contract.input_type).DESCRIPTOR
    internal = internal_in_data(args, descriptor)
    if internal:
        raise EntryError(_below("args", internal))
    convert = to_protojson(descriptor)
    try:
        return "args", codec.from_dict(contract.input_type, args if convert is None else convert(args))
    except CodecError as error:
        raise EntryError(_below("args", error.violations)) from None


def _unpack(packed: betterproto2.Message, contract: WorkflowContract) -> betterproto2.Message:
    takes = "nothing" if contract.input_type is None else f"a {codec.full_name(contract.input_type)}"
    try:
        request = codec.unpack_any(packed)
    except CodecError as error:
        raise EntryError([Violation("input", f"{error}; {contract.name!r} takes {takes}")]) from None
    fits = contract.input_type is not None and isinstance(request, contract.input_type)
    if not fits:
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
        # As in the envelope of ListSchedules' payload.
        codec.dict_to_struct({"payload": {"schedules": [{"schedule": {"args": args}}]}})
    except CodecError:
        return False
    return True


def _below(where: str, violations: tuple[Violation, ...] | list[Violation]) -> list[Violation]:
    return [Violation(f"{where}.{each.path}" if each.path else where, each.reason) for each in violations]


def _shown(value: str) -> str:
    return repr(value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}…")
