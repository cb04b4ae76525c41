"""What the methods of WorkerService do, on generated dataclasses; server.py brings the bytes in and the errors out.

A call takes this way: `_call` says who calls and for which tenants, `_requests` reads the typed request, the class of
the method does the work, `_forms` writes the answer.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import betterproto2
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.core.context_unit_pb2 import ContextUnit as UnitMessage
from contextunity.gen.contextunity.worker import (
    CancelTaskRequest,
    DescribeContractsRequest,
    ExecuteCodeRequest,
    GetTaskStatusRequest,
    ListSchedulesRequest,
    ListTasksRequest,
    QueryTaskRequest,
    RegisterSchedulesResult,
    ScheduleRequest,
    SignalTaskRequest,
    TerminateTaskRequest,
    UpdateTaskRequest,
    WatchTaskRequest,
)
from google.protobuf.message import Message
from temporalio.client import Client

from contextunity.core import codec
from contextunity.worker.access import Access, Subject
from contextunity.worker.auth import Caller
from contextunity.worker.core.registry import WorkerRegistry
from contextunity.worker.quotas import Quotas
from contextunity.worker.status import Reason, ServiceError

from ._call import Call, Engine, aside
from ._code import STARTS_CODE, Executing, without_sandbox
from ._contracts import Describing
from ._forms import answered
from ._listing import Listing
from ._requests import read_request
from ._schedules import Scheduling
from ._start import Starting
from ._status import Telling
from ._steering import Steering
from ._watch import Watching

__all__ = ["Call", "Method", "WorkerService", "aside", "require_permission"]

_READ = ("worker:read",)
_EXECUTE = ("worker:execute",)
_SCHEDULE = ("worker:schedule", "worker:execute")
_READS, _WRITES = Access.READ, Access.WRITE

_SCOPES_SHOWN = 16
"""Scopes that an error names: it travels in the trailers."""

_DEFAULT_RPC_TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method of the service.

    Attributes:
        name: as the proto has it.
        permissions: of which the caller needs one.
        access: whether it reads or writes, and so which scopes of the unit the caller has to satisfy.
        subject: what it is about, and so whose the caller has to be.
        code_permissions: of which the caller needs one as well where what it schedules runs code that callers bring.
        request_type: what its unit holds; None where the method reads the unit by itself.
        handle: does the work, and gives the typed answer: a dataclass, or Google's message where calls are frequent.
        watch: the same for a method that answers with a stream.
        prepare: brings a payload of a deployed client into today's names.
    """

    name: str
    permissions: tuple[str, ...]
    access: Access
    subject: Subject
    code_permissions: tuple[str, ...] = ()
    request_type: type[betterproto2.Message] | None = None
    handle: Callable[..., Awaitable[betterproto2.Message | Message]] | None = None
    watch: Callable[..., AsyncIterator[betterproto2.Message]] | None = None
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    @property
    def label(self) -> str:
        """What a unit's provenance says of it, such as `worker:start_workflow`."""
        return _label(self.name)


@functools.cache
def _label(name: str) -> str:
    return "worker:" + "".join(f"_{each.lower()}" if each.isupper() else each for each in name).lstrip("_")


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
        return codec.from_proto(ContextUnit, await self.respond(method, call))

    async def respond(self, method: Method, call: Call) -> UnitMessage:
        """Answers a call, in Google's message.

        Raises:
            ServiceError: the caller may not, or it cannot be done.
        """
        request = await call.read(_admit, method, call)
        assert method.handle is not None
        _note(call, request)
        answer = await (method.handle(call, request) if request is not None else method.handle(call))
        _note(call, answer)
        return answered(call, answer)

    async def stream(self, method: Method, call: Call) -> AsyncGenerator[UnitMessage, None]:
        """Answers a call of a method that streams, in Google's messages.

        Raises:
            ServiceError: the caller may not, or it cannot be done.
        """
        request = await call.read(_admit, method, call)
        assert method.watch is not None
        async for message in method.watch(call, request):
            yield answered(call, message)

    def stop(self) -> None:
        """Ends what would otherwise go on for long."""
        self._watching.stop()


def _admit(method: Method, call: Call) -> betterproto2.Message | None:
    """Lets a call in: what its caller may, and then what it asks."""
    call.label = method.label
    require_permission(method, call.caller)
    _check_scopes(method, call)
    call.check_envelope()
    return None if method.request_type is None else read_request(call, method.request_type, method.prepare)


def require_permission(method: Method, caller: Caller) -> None:
    """Refuses callers that may not call a method.

    Raises:
        ServiceError: the caller holds none of its permissions.
    """
    if not caller.may(*method.permissions):
        raise ServiceError(
            Reason.PERMISSION_MISSING,
            f"{method.name} needs a token with the permission {' or '.join(method.permissions)}",
            metadata={"permissions": ",".join(method.permissions)},
        )


def _check_scopes(method: Method, call: Call) -> None:
    """Holds the caller against the unit's SecurityScopes, which its sender has put upon it."""
    security = call.unit.security
    if security is None:
        return
    scopes = security.write if method.access is Access.WRITE else security.read
    if not call.caller.satisfies(scopes):
        kind, named = method.access.value, ", ".join(scopes[:_SCOPES_SHOWN])
        raise ServiceError(
            Reason.SCOPE_MISSING,
            f"{method.name} {kind}s, and the unit's security.{kind} asks for a token with one of: {named}",
            metadata={"access": kind, "scopes": ",".join(scopes[:_SCOPES_SHOWN])},
        )


_ABOUT = ("workflow_id", "run_id", "schedule_id", "project_id")
_ABOUT_SCHEDULES = ("created", "updated", "removed")


def _note(call: Call, message: object) -> None:
    """Notes what a request or an answer is about."""
    for name in _ABOUT:
        value = getattr(message, name, "")
        if value:
            # The project of a schedule is not the one that vouches for the caller.
            call.about["schedule_project_id" if name == "project_id" else name] = value
    if isinstance(message, RegisterSchedulesResult):
        for name in _ABOUT_SCHEDULES:
            call.about[name] = getattr(message, name)


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
