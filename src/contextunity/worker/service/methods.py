"""The table of RPCs: what each method needs of its caller, and which handler does its work."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
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
from contextunity.worker.access import Access, Subject
from contextunity.worker.core.registry import WorkerRegistry
from contextunity.worker.quotas import Quotas

from .call import Call, Engine, Method, respond
from .code import STARTS_CODE, Executing, without_sandbox
from .contracts import Describing
from .control import Steering
from .schedules import Scheduling
from .start import Starting
from .status import Telling
from .tasks import Listing
from .watch import Watching

__all__ = ["WorkerService"]

_READ = ("worker:read",)
_EXECUTE = ("worker:execute",)
_SCHEDULE = ("worker:schedule", "worker:execute")
_READS, _WRITES = Access.READ, Access.WRITE

_DEFAULT_RPC_TIMEOUT = timedelta(seconds=10)


class WorkerService:
    """The methods of WorkerService.

    Args:
        client: Temporal client with the contract's data converter.
        registry: the workflow contracts by workflow_type.
        rpc_timeout: how long one call to the Temporal server may take.
        quotas: what tenants may take; the defaults of TenantQuotas unless given.
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
        """What tenants may take."""
        engine = Engine(client=client, registry=registry, rpc_timeout=rpc_timeout, quotas=self.quotas)
        self.client = client
        """The Temporal client that it works through."""
        self._watching = Watching(engine)
        self.methods: Mapping[str, Method] = MappingProxyType(
            {method.name: method for method in _methods(engine, self._watching)}
        )
        """The methods by name."""

    async def call(self, method: Method, call: Call) -> ContextUnit:
        """Answers a call.

        Raises:
            ServiceError: the caller may not, or it cannot be done.
        """
        return codec.from_proto(ContextUnit, await respond(method, call))

    def stop(self) -> None:
        """Ends what would otherwise go on for long."""
        self._watching.stop()


def _methods(engine: Engine, watching: Watching) -> list[Method]:
    telling, steering = Telling(engine), Steering(engine)
    return [
        Method(
            name="StartWorkflow",
            permissions=_EXECUTE,
            access=_WRITES,
            subject=Subject.NEW_TASK,
            handle=Starting(engine).start_workflow,
        ),
        Method(
            name="GetTaskStatus",
            permissions=_READ,
            access=_READS,
            subject=Subject.TASK,
            request_type=GetTaskStatusRequest,
            handle=telling.get_task_status,
        ),
        Method(
            name="WatchTask",
            permissions=_READ,
            access=_READS,
            subject=Subject.TASK,
            request_type=WatchTaskRequest,
            watch=watching.watch_task,
        ),
        Method(
            name="ListTasks",
            permissions=_READ,
            access=_READS,
            subject=Subject.TASKS,
            request_type=ListTasksRequest,
            handle=Listing(engine).list_tasks,
        ),
        Method(
            name="CancelTask",
            permissions=_EXECUTE,
            access=_WRITES,
            subject=Subject.TASK,
            request_type=CancelTaskRequest,
            handle=steering.cancel_task,
        ),
        Method(
            name="TerminateTask",
            permissions=_EXECUTE,
            access=_WRITES,
            subject=Subject.TASK,
            request_type=TerminateTaskRequest,
            handle=steering.terminate_task,
        ),
        Method(
            name="SignalTask",
            permissions=_EXECUTE,
            access=_WRITES,
            subject=Subject.TASK,
            request_type=SignalTaskRequest,
            handle=steering.signal_task,
        ),
        Method(
            name="QueryTask",
            permissions=_READ,
            access=_READS,
            subject=Subject.TASK,
            request_type=QueryTaskRequest,
            handle=steering.query_task,
        ),
        Method(
            name="UpdateTask",
            permissions=_EXECUTE,
            access=_WRITES,
            subject=Subject.TASK,
            request_type=UpdateTaskRequest,
            handle=steering.update_task,
        ),
        Method(
            name="DescribeContracts",
            permissions=(*_READ, *_SCHEDULE),
            access=_READS,
            subject=Subject.CONTRACTS,
            request_type=DescribeContractsRequest,
            handle=Describing(engine).describe_contracts,
        ),
        Method(
            name="ExecuteCode",
            permissions=_EXECUTE,
            access=_WRITES,
            subject=Subject.NEW_TASK,
            request_type=ExecuteCodeRequest,
            handle=Executing(engine).execute_code,
            prepare=without_sandbox,
        ),
        *_schedule_methods(Scheduling(engine)),
    ]


def _schedule_methods(scheduling: Scheduling) -> list[Method]:
    steps = {
        "PauseSchedule": (scheduling.pause_schedule, ()),
        # These have something started: only what their caller could start.
        "ResumeSchedule": (scheduling.resume_schedule, STARTS_CODE),
        "TriggerSchedule": (scheduling.trigger_schedule, STARTS_CODE),
        "DeleteSchedule": (scheduling.delete_schedule, ()),
    }
    return [
        # Its entries are read one by one, so that a faulty one can be left out.
        Method(
            name="RegisterSchedules",
            permissions=_SCHEDULE,
            access=_WRITES,
            subject=Subject.NEW_SCHEDULES,
            code_permissions=STARTS_CODE,
            handle=scheduling.register_schedules,
        ),
        Method(
            name="ListSchedules",
            permissions=(*_READ, *_SCHEDULE),
            access=_READS,
            subject=Subject.SCHEDULES,
            request_type=ListSchedulesRequest,
            handle=scheduling.list_schedules,
        ),
        *(
            Method(
                name=name,
                permissions=_SCHEDULE,
                access=_WRITES,
                subject=Subject.SCHEDULE,
                code_permissions=code_permissions,
                request_type=ScheduleRequest,
                handle=handle,
            )
            for name, (handle, code_permissions) in steps.items()
        ),
    ]
