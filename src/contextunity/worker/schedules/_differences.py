"""What differs between a schedule that is asked for and the one that is there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import betterproto2
from contextunity.gen.contextunity.worker import ScheduleDifference, ScheduleOverlap
from google.protobuf import text_format
from google.protobuf.message import Message
from temporalio.api.common.v1 import Priority
from temporalio.api.schedule.v1 import Schedule, SchedulePolicies
from temporalio.api.workflow.v1 import NewWorkflowExecutionInfo

from contextunity.core import codec

from ._check import CheckedEntry
from ._stored import MEMO, Stored

__all__ = ["differences"]

_FIELDS = ("workflow_type", "task_queue", "cron", "timezone", "description", "overlap", "catchup_window", "jitter")


def differences(stored: Stored, wanted: CheckedEntry, schedule: Schedule) -> list[ScheduleDifference]:
    """What has to change; nothing where the schedule is there just so.

    Args:
        stored: the one that is there.
        wanted: the one that is asked for.
        schedule: the same as the server takes it.

    Returns:
        The fields of the entry that differ; then, under the server's own names, what the contract brings along and
        what somebody changed past us.
    """
    found = [
        (field, _text(getattr(stored.entry, field)), _text(getattr(wanted.entry, field)))
        for field in _FIELDS
        if getattr(stored.entry, field) != getattr(wanted.entry, field)
    ]
    if _bytes(stored.input) != _bytes(wanted.input):
        found.append(("args", _json(stored.input), _json(wanted.input)))
    there = stored.description.schedule
    found += _differing(_plain_action(there.action.start_workflow), _plain_action(schedule.action.start_workflow))
    found += _differing(_plain_policies(there.policies), _plain_policies(schedule.policies))
    return [
        ScheduleDifference(schedule_id=wanted.name.schedule_id, field=field, before=before, after=after)
        for field, before, after in found
    ]


def _differing(before: Message, after: Message) -> Iterator[tuple[str, str, str]]:
    """Fields that differ between two messages of one type, each with its values as text."""
    for field in before.DESCRIPTOR.fields:
        first, second = getattr(before, field.name), getattr(after, field.name)
        if first != second:
            yield field.name, _proto_text(first), _proto_text(second)


def _plain_action(action: NewWorkflowExecutionInfo) -> NewWorkflowExecutionInfo:
    """A copy without what is compared as an entry, and without what the server fills in."""
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
    # Maps are written in any order otherwise.
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
