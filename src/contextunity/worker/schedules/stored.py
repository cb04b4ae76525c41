"""Read, write and compare schedules on the Temporal server."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

import betterproto2
from contextunity.gen.contextunity.worker import (
    ScheduleDifference,
    ScheduleEntry,
    ScheduleOverlap,
    ScheduleRun,
    ScheduleStatus,
    TaskContext,
)
from google.protobuf import text_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from temporalio import converter
from temporalio.api.common.v1 import Payload, Priority
from temporalio.api.enums.v1 import ScheduleOverlapPolicy
from temporalio.api.schedule.v1 import (
    Schedule,
    SchedulePatch,
    SchedulePolicies,
    ScheduleSpec,
    StructuredCalendarSpec,
    TriggerImmediatelyRequest,
)
from temporalio.api.workflow.v1 import NewWorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    DescribeScheduleRequest,
    DescribeScheduleResponse,
    ListSchedulesRequest,
    PatchScheduleRequest,
    UpdateScheduleRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core import codec
from contextunity.core.context import HEADER
from contextunity.core.errors import CodecError
from contextunity.worker.temporal.converter import KEY_ID, without_storage
from contextunity.worker.temporal.errors import UnreadablePayloadError, is_not_found, missing_namespace
from contextunity.worker.temporal.search_attributes import bound_attributes
from contextunity.worker.temporal.tenancy import write_priority
from python_temporal.contract import WorkflowContract

from .check import ID_LIMIT, CheckedEntry, ScheduleName, list_query
from .cron import CronError, compile_cron, cron_text
from .errors import ScheduleError

__all__ = ["MEMO", "ScheduleServer", "Stored", "differences", "read_schedule", "write_schedule"]

T = TypeVar("T")

_AT_ONCE = 16
_PAGE = 1000
# Seconds for which the server's list may lack a new schedule; mostly about one.
_LAG = 60.0


class ScheduleServer:
    """The schedules on a Temporal server.

    Every method raises `temporalio.service.RPCError` if the server rejects a request.

    Args:
        client: Temporal client with the contract's data converter.
        timeout: timeout of one call.
    """

    def __init__(self, client: Client, timeout: timedelta) -> None:
        self.client = client
        self._service = client.workflow_service
        self._timeout = timeout
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._created = dict[ScheduleName, float]()

    async def describe(self, name: ScheduleName) -> Stored | None:
        """Return a schedule; None if it does not exist or is not ours."""
        temporal_id = name.temporal_id
        if len(temporal_id) > ID_LIMIT:
            return None
        try:
            description = await self._service.describe_schedule(
                DescribeScheduleRequest(namespace=self.client.namespace, schedule_id=temporal_id),
                retry=True,
                timeout=self._timeout,
            )
        except RPCError as error:
            if is_not_found(error):
                return None
            raise
        return await read_schedule(self.client, temporal_id, description)

    async def create(self, name: ScheduleName, schedule: Schedule) -> bool:
        """Create a schedule; False if the id is taken."""
        request = CreateScheduleRequest(
            namespace=self.client.namespace,
            schedule_id=name.temporal_id,
            schedule=schedule,
            identity=self.client.identity,
            request_id=str(uuid.uuid4()),
        )
        created = await self._done(self._service.create_schedule, request, unless=RPCStatusCode.ALREADY_EXISTS)
        if created:
            self._created[name] = time.monotonic()
        return created

    async def update(self, stored: Stored, schedule: Schedule) -> None:
        """Change a schedule if it is unchanged since it was read; otherwise the server silently ignores the update."""
        schedule.state.CopyFrom(stored.description.schedule.state)
        request = UpdateScheduleRequest(
            namespace=self.client.namespace,
            schedule_id=stored.name.temporal_id,
            schedule=schedule,
            conflict_token=stored.description.conflict_token,
            identity=self.client.identity,
            request_id=str(uuid.uuid4()),
        )
        await self._done(self._service.update_schedule, request)

    async def delete(self, name: ScheduleName) -> bool:
        """Remove a schedule; False if it does not exist."""
        request = DeleteScheduleRequest(
            namespace=self.client.namespace, schedule_id=name.temporal_id, identity=self.client.identity
        )
        deleted = await self._done(self._service.delete_schedule, request)
        self._created.pop(name, None)
        return deleted

    async def pause(self, name: ScheduleName, note: str) -> bool:
        """Pause a schedule; False if it does not exist."""
        return await self._patch(name, SchedulePatch(pause=note))

    async def resume(self, name: ScheduleName, note: str) -> bool:
        """Resume a schedule; False if it does not exist."""
        return await self._patch(name, SchedulePatch(unpause=note))

    async def trigger(self, name: ScheduleName, due: datetime, overlap: int) -> bool:
        """Start a task of a schedule as if it were due at a time; False if the schedule does not exist."""
        trigger = TriggerImmediatelyRequest()
        trigger.overlap_policy = overlap  # type: ignore[assignment]  # the stubs want the enum's own type for its number
        trigger.scheduled_time.FromDatetime(due)
        return await self._patch(name, SchedulePatch(trigger_immediately=trigger))

    async def names(self, tenant_ids: Set[str] | None, project_id: str) -> list[ScheduleName]:
        """Return the sorted names of schedules that may be ours.

        The server's list lags behind creation and removal. Schedules created by this process are added, so that a
        registration with `prune` right after another one finds them.

        Args:
            tenant_ids: only these tenants; None means all.
            project_id: only this project; empty means all.
        """
        only = next(iter(tenant_ids)) if tenant_ids is not None and len(tenant_ids) == 1 else None
        request = ListSchedulesRequest(
            namespace=self.client.namespace, maximum_page_size=_PAGE, query=list_query(only, project_id)
        )
        found = set[ScheduleName]()
        while True:
            page = await self._service.list_schedules(request, retry=True, timeout=self._timeout)
            for each in page.schedules:
                name = ScheduleName.from_temporal_id(each.schedule_id)
                if name is not None and (tenant_ids is None or name.tenant_id in tenant_ids):
                    found.add(name)
            if not page.next_page_token:
                break
            request.next_page_token = page.next_page_token
        oldest = time.monotonic() - _LAG
        self._created = {name: at for name, at in self._created.items() if at > oldest}
        found.update(name for name in self._created if tenant_ids is None or name.tenant_id in tenant_ids)
        return sorted(name for name in found if not project_id or name.project_id == project_id)

    async def describe_all(self, names: Iterable[ScheduleName]) -> list[Stored]:
        """Read the schedules that exist and are ours, in the order of the names."""

        found = await self.all_of(self.describe(name) for name in names)
        return [stored for stored in found if stored is not None]

    async def all_of(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Run calls, a bounded number at once, and return their results.

        If one fails, start no more and raise its error after the running ones have ended: if the server does not
        answer, each further call would wait for its timeout.
        """
        first: list[BaseException] = []

        async def one(call: Coroutine[Any, Any, T]) -> T | None:
            async with self._slots:
                if first:
                    call.close()
                    return None
                try:
                    return await call
                except BaseException as error:
                    first.append(error)
                    raise

        given = await asyncio.gather(*map(one, calls), return_exceptions=True)
        if first:
            raise first[0]
        # None means that the call was not started, which happens only after an error.
        return cast("list[T]", given)

    async def _patch(self, name: ScheduleName, patch: SchedulePatch) -> bool:
        request = PatchScheduleRequest(
            namespace=self.client.namespace,
            schedule_id=name.temporal_id,
            patch=patch,
            identity=self.client.identity,
            request_id=str(uuid.uuid4()),
        )
        return await self._done(self._service.patch_schedule, request)

    async def _done(
        self,
        method: Callable[..., Awaitable[object]],
        request: object,
        *,
        unless: RPCStatusCode = RPCStatusCode.NOT_FOUND,
    ) -> bool:
        """Send a request; False if the server answers with the status `unless`."""
        try:
            await method(request, retry=True, timeout=self._timeout)
        except RPCError as error:
            if error.status is unless and not missing_namespace(error):
                return False
            raise
        return True


MEMO = "ContextUnitySchedule"
"""Memo of a scheduled task: the ScheduleEntry, without its input."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """One of our schedules on the server.

    Attributes:
        name: name of the schedule.
        entry: what it starts and when, as currently in force.
        input: input of its tasks; None for none, or for a message that no module here knows.
        context: context of its tasks.
        description: the server's full description.
    """

    name: ScheduleName
    entry: ScheduleEntry
    input: betterproto2.Message | None
    context: TaskContext
    description: DescribeScheduleResponse

    def to_status(self) -> ScheduleStatus:
        """Convert to the message of ListSchedules."""
        info = self.description.info
        return ScheduleStatus(
            project_id=self.name.project_id,
            tenant_id=self.name.tenant_id,
            schedule=self.entry,
            next_runs=[codec.timestamp_to_datetime(each) for each in info.future_action_times[:10]],
            recent_runs=[
                ScheduleRun(
                    scheduled_at=codec.timestamp_to_datetime(each.schedule_time),
                    started_at=codec.timestamp_to_datetime(each.actual_time),
                    workflow_id=each.start_workflow_result.workflow_id,
                    run_id=each.start_workflow_result.run_id,
                )
                for each in info.recent_actions
            ],
            note=self.description.schedule.state.notes,
        )


async def write_schedule(client: Client, checked: CheckedEntry) -> Schedule:
    """Build the Temporal schedule for a checked entry."""
    entry, schedule = checked.entry, Schedule()
    schedule.spec.structured_calendar.append(checked.calendar)
    schedule.spec.timezone_name = entry.timezone
    if entry.jitter is not None:
        schedule.spec.jitter.FromTimedelta(entry.jitter)
    schedule.policies.overlap_policy = ScheduleOverlapPolicy.ValueType(int(entry.overlap))
    if entry.catchup_window is not None:
        schedule.policies.catchup_window.FromTimedelta(entry.catchup_window)
    schedule.state.paused = entry.paused
    schedule.action.start_workflow.CopyFrom(await _write_action(client, checked))
    return schedule


async def read_schedule(client: Client, temporal_id: str, description: DescribeScheduleResponse) -> Stored | None:
    """Read a schedule from the server's description; None if it is not ours."""
    name, action = ScheduleName.from_temporal_id(temporal_id), description.schedule.action.start_workflow
    if name is None or MEMO not in action.memo.fields:
        return None
    try:
        (kept,) = await client.data_converter.decode([action.memo.fields[MEMO]], [ScheduleEntry])
        context = _read_context(client, action)
        request = await _read_input(client, action)
    except UnreadablePayloadError as error:
        raise ScheduleError(f"schedule {temporal_id}: {error}") from None
    except CodecError:
        return None
    schedule = description.schedule
    entry = ScheduleEntry(
        schedule_id=name.schedule_id,
        workflow_type=action.workflow_type.name,
        task_queue=action.task_queue.name,
        cron=_read_cron(schedule.spec, kept.cron),
        timezone=schedule.spec.timezone_name or "UTC",
        args=None
        if request is None
        else codec.dict_to_struct(codec.to_dict(request, preserving_proto_field_name=True)),
        description=kept.description,
        overlap=ScheduleOverlap(schedule.policies.overlap_policy),
        catchup_window=_timedelta(schedule.policies.catchup_window),
        jitter=_timedelta(schedule.spec.jitter) or None,
        paused=schedule.state.paused,
    )
    return Stored(name=name, entry=entry, input=request, context=context, description=description)


async def _write_action(client: Client, checked: CheckedEntry) -> NewWorkflowExecutionInfo:
    entry, contract, name = checked.entry, checked.contract, checked.name
    action = NewWorkflowExecutionInfo(workflow_id=name.workflow_id)
    action.workflow_type.name = contract.name
    action.task_queue.name = entry.task_queue
    # A schedule may last for years, longer than stored payloads are kept.
    lasting = without_storage(client.data_converter)
    if checked.input is not None:
        action.input.payloads.extend(await lasting.encode([checked.input]))
    _write_options(action, contract, name.tenant_id)
    others = contract.search_attributes(checked.input) if contract.search_attributes else None
    converter.encode_search_attributes(bound_attributes(name.tenant_id, "", others), action.search_attributes)
    (kept,) = await lasting.encode([_kept(entry)])
    action.memo.fields[MEMO].CopyFrom(kept)
    context = TaskContext(tenant_id=name.tenant_id, provenance=[f"schedule:{name.schedule_id}"])
    action.header.fields[HEADER].CopyFrom(_payload(client, context))
    return action


def _write_options(action: NewWorkflowExecutionInfo, contract: WorkflowContract, tenant_id: str) -> None:
    for field, timeout in (
        (action.workflow_execution_timeout, contract.execution_timeout),
        (action.workflow_run_timeout, contract.run_timeout),
        (action.workflow_task_timeout, contract.task_timeout),
    ):
        if timeout is not None:
            field.FromTimedelta(timeout)
    if contract.retry_policy is not None:
        contract.retry_policy.apply_to_proto(action.retry_policy)
    write_priority(action.priority, tenant_id, contract.priority)


def _kept(entry: ScheduleEntry) -> ScheduleEntry:
    """Return the part of an entry for the memo, without `paused`, which changes independently."""
    return ScheduleEntry(
        schedule_id=entry.schedule_id,
        workflow_type=entry.workflow_type,
        cron=entry.cron,
        timezone=entry.timezone,
        description=entry.description,
    )


def _payload(client: Client, message: betterproto2.Message) -> Payload:
    return client.data_converter.payload_converter.to_payload(message)


def _read_context(client: Client, action: NewWorkflowExecutionInfo) -> TaskContext:
    if HEADER not in action.header.fields:
        return TaskContext()
    read: TaskContext = client.data_converter.payload_converter.from_payload(action.header.fields[HEADER], TaskContext)
    return read


async def _read_input(client: Client, action: NewWorkflowExecutionInfo) -> betterproto2.Message | None:
    try:
        decoded = await client.data_converter.decode(action.input.payloads)
    except CodecError:
        return None
    first = decoded[0] if decoded else None
    return first if isinstance(first, betterproto2.Message) else None


def _read_cron(spec: ScheduleSpec, kept: str) -> str:
    """Return the registered expression, or the one in force if somebody changed it directly in Temporal."""
    calendars = list(spec.structured_calendar)
    beyond = (
        spec.interval or spec.exclude_structured_calendar or spec.HasField("start_time") or spec.HasField("end_time")
    )
    if len(calendars) != 1 or beyond:
        return "(not a cron expression)"
    try:
        same = _without_comment(compile_cron(kept)) == _without_comment(calendars[0])
    except CronError:
        same = False
    return kept if same else cron_text(calendars[0])


def _without_comment(calendar: StructuredCalendarSpec) -> StructuredCalendarSpec:
    copy = StructuredCalendarSpec()
    copy.CopyFrom(calendar)
    copy.comment = ""
    return copy


def _timedelta(duration: Duration) -> timedelta:
    return duration.ToTimedelta()


_FIELDS = ("workflow_type", "task_queue", "cron", "timezone", "description", "overlap", "catchup_window", "jitter")


def differences(stored: Stored, wanted: CheckedEntry, schedule: Schedule) -> list[ScheduleDifference]:
    """Return what has to change; nothing if the schedule is up to date.

    Args:
        stored: the current schedule.
        wanted: the wanted entry.
        schedule: the wanted entry as a Temporal schedule.

    Returns:
        The fields of the entry that differ; then, under the server's names, differences from the contract and changes
        made directly in Temporal.
    """
    found = [
        (field, _text(getattr(stored.entry, field)), _text(getattr(wanted.entry, field)))
        for field in _FIELDS
        if getattr(stored.entry, field) != getattr(wanted.entry, field)
    ]
    if _bytes(stored.input) != _bytes(wanted.input):
        found.append(("args", _json(stored.input), _json(wanted.input)))
    there = stored.description.schedule
    keys = _key_of(there.action.start_workflow), _key_of(schedule.action.start_workflow)
    if keys[0] != keys[1]:
        # The content is the same; it is written anew with the key of today.
        found.append(("encryption_key", *keys))
    found += _differing(_plain_action(there.action.start_workflow), _plain_action(schedule.action.start_workflow))
    found += _differing(_plain_policies(there.policies), _plain_policies(schedule.policies))
    return [
        ScheduleDifference(schedule_id=wanted.name.schedule_id, field=field, before=before, after=after)
        for field, before, after in found
    ]


def _key_of(action: NewWorkflowExecutionInfo) -> str:
    """Id of the key that an action's payloads are encrypted with; empty where they are in clear."""
    return action.memo.fields[MEMO].metadata.get(KEY_ID, b"").decode(errors="replace")


def _differing(before: Message, after: Message) -> Iterator[tuple[str, str, str]]:
    """Return the fields that differ between two messages of one type, each with its values as text."""
    for field in before.DESCRIPTOR.fields:
        first, second = getattr(before, field.name), getattr(after, field.name)
        if first != second:
            yield field.name, _proto_text(first), _proto_text(second)


def _plain_action(action: NewWorkflowExecutionInfo) -> NewWorkflowExecutionInfo:
    """Return a copy without the parts compared as an entry and those that the server fills in."""
    copy = NewWorkflowExecutionInfo()
    copy.CopyFrom(action)
    copy.ClearField("input")
    copy.ClearField("workflow_type")
    copy.ClearField("task_queue")
    copy.memo.fields.pop(MEMO, None)
    if copy.priority == Priority():
        copy.ClearField("priority")
    if not copy.memo.fields:
        copy.ClearField("memo")
    return copy


def _plain_policies(policies: SchedulePolicies) -> SchedulePolicies:
    copy = SchedulePolicies()
    copy.CopyFrom(policies)
    copy.ClearField("overlap_policy")
    copy.ClearField("catchup_window")
    return copy


def _bytes(message: betterproto2.Message | None) -> bytes:
    # Otherwise the order of map entries is undefined.
    return b"" if message is None else codec.to_proto(message).SerializeToString(deterministic=True)


def _json(message: betterproto2.Message | None) -> str:
    return "" if message is None else codec.to_json(message)


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case ScheduleOverlap():
            return (value.name or str(int(value))).lower()
        case timedelta():
            return f"{value.total_seconds():g} s"
        case _:
            return str(value)


def _proto_text(value: object) -> str:
    return text_format.MessageToString(value, as_one_line=True) if isinstance(value, Message) else str(value)
