"""Schedules as the Temporal server keeps them: writing one from a checked entry, and reading it back.

The memo of the tasks carries the entry, since the server lets nobody change the memo of a schedule itself. What can
also be seen in the schedule is read from there, so that a change made past us shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import betterproto2
from contextunity.gen.contextunity.worker import (
    ScheduleEntry,
    ScheduleOverlap,
    ScheduleRun,
    ScheduleStatus,
    TaskContext,
)
from google.protobuf.duration_pb2 import Duration
from temporalio import common, converter
from temporalio.api.common.v1 import Payload, Priority
from temporalio.api.enums.v1 import ScheduleOverlapPolicy
from temporalio.api.schedule.v1 import Schedule, ScheduleSpec, StructuredCalendarSpec
from temporalio.api.workflow.v1 import NewWorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import DescribeScheduleResponse
from temporalio.client import Client

from contextunity.core import codec
from contextunity.core.context import HEADER
from contextunity.core.errors import CodecError
from contextunity.worker.tenancy import bound_attributes, fair_priority
from python_temporal.contract import WorkflowContract

from ._check import CheckedEntry
from ._cron import CronError, compile_cron, cron_text
from ._names import ScheduleName

__all__ = ["MEMO", "Stored", "read_schedule", "write_schedule"]

MEMO = "ContextUnitySchedule"
"""Memo of a scheduled task: the ScheduleEntry, without its input."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A schedule of ours as the server has it.

    Attributes:
        name: under which name it is kept.
        entry: what it does when, as it is in force.
        input: what its tasks are started with; None for nothing, or for a message that no module here knows.
        context: what travels with its tasks.
        description: all that the server told.
    """

    name: ScheduleName
    entry: ScheduleEntry
    input: betterproto2.Message | None
    context: TaskContext
    description: DescribeScheduleResponse

    def to_status(self) -> ScheduleStatus:
        """The schedule as ListSchedules tells it."""
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
    """The schedule that a checked entry asks for, as one to create."""
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
    """A schedule as the server describes it; None where it was not made by us."""
    name, action = ScheduleName.from_temporal_id(temporal_id), description.schedule.action.start_workflow
    if name is None or MEMO not in action.memo.fields:
        return None
    try:
        (kept,) = await client.data_converter.decode([action.memo.fields[MEMO]], [ScheduleEntry])
        context = _read_context(client, action)
    except CodecError:
        return None
    request = await _read_input(client, action)
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
    if checked.input is not None:
        action.input.payloads.extend(await client.data_converter.encode([checked.input]))
    _write_options(action, contract, name.tenant_id)
    others = contract.search_attributes(checked.input) if contract.search_attributes else None
    converter.encode_search_attributes(bound_attributes(name.tenant_id, "", others), action.search_attributes)
    (kept,) = await client.data_converter.encode([_kept(entry)])
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
    priority = fair_priority(tenant_id, contract.priority)
    if priority is not None:
        action.priority.CopyFrom(_priority(priority))


def _kept(entry: ScheduleEntry) -> ScheduleEntry:
    """What of an entry the memo holds: whether it is paused changes without us."""
    return ScheduleEntry(
        schedule_id=entry.schedule_id,
        workflow_type=entry.workflow_type,
        cron=entry.cron,
        timezone=entry.timezone,
        description=entry.description,
    )


def _priority(priority: common.Priority) -> Priority:
    return Priority(
        priority_key=priority.priority_key or 0,
        fairness_key=priority.fairness_key or "",
        fairness_weight=priority.fairness_weight or 0.0,
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
    """The expression that was registered, or the one that says what is in force where somebody changed it past us."""
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
