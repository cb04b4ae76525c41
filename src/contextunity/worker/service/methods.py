"""The table of RPCs: the permissions and the handler of each method."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from types import MappingProxyType

from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.worker import (
    CancelTaskRequest,
    DescribeContractsRequest,
    ExecuteCodeRequest,
    GetTaskStatusRequest,
    ListSchedulesRequest,
    ListTasksRequest,
    QueryTaskRequest,
    ScheduleRequest,
    SignalTaskRequest,
    TerminateTaskRequest,
    UpdateTaskRequest,
    WatchTaskRequest,
)
from temporalio.client import Client

from contextunity.core import codec
from contextunity.worker.auth import Access, Subject
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.quotas import Quotas

from .call import Call, Engine, Method, respond
from .code import STARTS_CODE, ExecuteCodeHandler, without_sandbox
from .contract_methods import ContractMethods
from .contracts import DescribeContractsHandler
from .control import TaskControlHandlers
from .results import Results
from .schedules import ScheduleHandlers
from .start import StartWorkflowHandler
from .status import TaskStatusHandler
from .tasks import ListTasksHandler
from .watch import Polls, WatchTaskHandler

__all__ = ["WorkerService"]

_READ = ("worker:read",)
_EXECUTE = ("worker:execute",)
_SCHEDULE = ("worker:schedule", "worker:execute")

_DEFAULT_RPC_TIMEOUT = timedelta(seconds=10)


class WorkerService:
    """The methods of WorkerService and of the contracts' own services.

    Args:
        client: Temporal client with the contract's data converter.
        registry: the workflow contracts by workflow_type.
        rpc_timeout: timeout of one call to the Temporal server.
        quotas: quotas of tenants; default: those of TenantQuotas.
    """

    def __init__(
        self,
        client: Client,
        registry: WorkerRegistry,
        *,
        rpc_timeout: timedelta = _DEFAULT_RPC_TIMEOUT,
        quotas: Quotas | None = None,
    ) -> None:
        self.quotas = quotas or Quotas()
        """Quotas of tenants."""
        engine = Engine(client=client, registry=registry, rpc_timeout=rpc_timeout, quotas=self.quotas)
        self.client = client
        """The Temporal client."""
        polls = Polls()
        self._watch_task, self._results = WatchTaskHandler(engine, polls), Results(engine, polls)
        start_workflow, task_control = StartWorkflowHandler(engine), TaskControlHandlers(engine)
        self._programs = start_workflow.programs
        self.methods: Mapping[str, Method] = MappingProxyType(
            {method.name: method for method in _methods(engine, self._watch_task, start_workflow, task_control)}
        )
        """The methods by name."""
        self.contracts = ContractMethods(engine, self.methods, start_workflow, task_control, self._results)
        """The methods of the contracts' own services."""

    async def call(self, method: Method, call: Call) -> ContextUnit:
        """Answer a call.

        Raises:
            ServiceError: the caller lacks the permission, or the call fails.
        """
        return codec.from_proto(ContextUnit, await respond(method, call))

    def stop(self) -> None:
        """End watches and waiting programs, which would otherwise take long."""
        self._watch_task.stop()
        self._results.stop()
        self._programs.stop()

    async def close(self) -> None:
        """End background work: followers of tasks, and waiting programs."""
        await asyncio.gather(
            self._programs.close(), self._watch_task.close(), self._results.close(), self.contracts.close()
        )


def _methods(
    engine: Engine,
    watch_task: WatchTaskHandler,
    start_workflow: StartWorkflowHandler,
    task_control: TaskControlHandlers,
) -> list[Method]:
    task_status, schedule_handlers = TaskStatusHandler(engine), ScheduleHandlers(engine)
    reads = partial(Method, permissions=_READ, access=Access.READ)
    executes = partial(Method, permissions=_EXECUTE, access=Access.WRITE)
    # A caller who only manages schedules must see what can be scheduled.
    looks = partial(Method, permissions=(*_READ, *_SCHEDULE), access=Access.READ)
    schedules = partial(Method, permissions=_SCHEDULE, access=Access.WRITE)
    steps = partial(schedules, subject=Subject.SCHEDULE, request_type=ScheduleRequest)
    new, task = Subject.NEW_TASK, Subject.TASK
    return [
        executes(name="StartWorkflow", subject=new, handle=start_workflow.start_workflow),
        reads(
            name="GetTaskStatus", subject=task, request_type=GetTaskStatusRequest, handle=task_status.get_task_status
        ),
        reads(name="WatchTask", subject=task, request_type=WatchTaskRequest, watch=watch_task.watch_task),
        reads(
            name="ListTasks",
            subject=Subject.TASKS,
            request_type=ListTasksRequest,
            handle=ListTasksHandler(engine).list_tasks,
        ),
        executes(name="CancelTask", subject=task, request_type=CancelTaskRequest, handle=task_control.cancel_task),
        executes(
            name="TerminateTask", subject=task, request_type=TerminateTaskRequest, handle=task_control.terminate_task
        ),
        executes(name="SignalTask", subject=task, request_type=SignalTaskRequest, handle=task_control.signal_task),
        reads(name="QueryTask", subject=task, request_type=QueryTaskRequest, handle=task_control.query_task),
        executes(name="UpdateTask", subject=task, request_type=UpdateTaskRequest, handle=task_control.update_task),
        looks(
            name="DescribeContracts",
            subject=Subject.CONTRACTS,
            request_type=DescribeContractsRequest,
            handle=DescribeContractsHandler(engine).describe_contracts,
        ),
        executes(
            name="ExecuteCode",
            subject=new,
            request_type=ExecuteCodeRequest,
            handle=ExecuteCodeHandler(engine, start_workflow).execute_code,
            prepare=without_sandbox,
        ),
        # The handler decodes the entries one by one, so that an invalid one can be skipped.
        schedules(
            name="RegisterSchedules",
            subject=Subject.NEW_SCHEDULES,
            code_permissions=STARTS_CODE,
            handle=schedule_handlers.register_schedules,
        ),
        looks(
            name="ListSchedules",
            subject=Subject.SCHEDULES,
            request_type=ListSchedulesRequest,
            handle=schedule_handlers.list_schedules,
        ),
        steps(name="PauseSchedule", handle=schedule_handlers.pause_schedule),
        # These start the schedule's workflow, so the caller must be allowed to start it.
        steps(name="ResumeSchedule", code_permissions=STARTS_CODE, handle=schedule_handlers.resume_schedule),
        steps(name="TriggerSchedule", code_permissions=STARTS_CODE, handle=schedule_handlers.trigger_schedule),
        steps(name="DeleteSchedule", handle=schedule_handlers.delete_schedule),
    ]
