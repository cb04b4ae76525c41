"""The methods of WorkerService as a table: the name of each, and the typed message of its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import betterproto2
from contextunity.gen.contextunity.worker import (
    DescribeContractsResult,
    ExecuteCodeResult,
    ListSchedulesResult,
    ListTasksResult,
    RegisterSchedulesResult,
    ScheduleResult,
    StartWorkflowResult,
    TaskReference,
    TaskReply,
    TaskStatus,
)

A = TypeVar("A", bound=betterproto2.Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[A]):
    """A method of WorkerService.

    Attributes:
        name: name in the proto.
        answer: class of the answer's body.
    """

    name: str
    answer: type[A]

    @property
    def path(self) -> str:
        """The path of the method in HTTP/2."""
        return f"/contextunity.worker.WorkerService/{self.name}"

    @property
    def label(self) -> str:
        """The client's label in a unit's provenance, such as `client:start_workflow`."""
        return f"client:{re.sub('(?<!^)(?=[A-Z])', '_', self.name).lower()}"


START_WORKFLOW = Method("StartWorkflow", StartWorkflowResult)
GET_TASK_STATUS = Method("GetTaskStatus", TaskStatus)
WATCH_TASK = Method("WatchTask", TaskStatus)
LIST_TASKS = Method("ListTasks", ListTasksResult)
CANCEL_TASK = Method("CancelTask", TaskReference)
TERMINATE_TASK = Method("TerminateTask", TaskReference)
SIGNAL_TASK = Method("SignalTask", TaskReference)
QUERY_TASK = Method("QueryTask", TaskReply)
UPDATE_TASK = Method("UpdateTask", TaskReply)
DESCRIBE_CONTRACTS = Method("DescribeContracts", DescribeContractsResult)
EXECUTE_CODE = Method("ExecuteCode", ExecuteCodeResult)
REGISTER_SCHEDULES = Method("RegisterSchedules", RegisterSchedulesResult)
LIST_SCHEDULES = Method("ListSchedules", ListSchedulesResult)
PAUSE_SCHEDULE = Method("PauseSchedule", ScheduleResult)
RESUME_SCHEDULE = Method("ResumeSchedule", ScheduleResult)
TRIGGER_SCHEDULE = Method("TriggerSchedule", ScheduleResult)
DELETE_SCHEDULE = Method("DeleteSchedule", ScheduleResult)

_ALL: list[Method[Any]] = [each for each in [*globals().values()] if isinstance(each, Method)]  # pyright: ignore[reportUnknownVariableType]
_BY_NAME = {each.name: each for each in _ALL}


def method_named(name: str) -> Method[Any]:
    """Return the method with a name in the proto.

    Raises:
        ValueError: there is none.
    """
    found = _BY_NAME.get(name)
    if found is None:
        raise ValueError(f"WorkerService has no method {name!r}; it has {', '.join(_BY_NAME)}")
    return found
