"""Methods of the contracts' own services: typed messages, with the envelope's fields in metadata.

`/acme.billing.v1.Billing/Charge` takes a ChargeRequest and returns a ChargeResponse. A workflow is started or joined,
and the call waits for its result; queries, signals and updates reach a task by its id. The handlers are those of
WorkerService's methods.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import grpc
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.worker import (
    CancelTaskRequest,
    FailureCause,
    FailureCauseKind,
    QueryTaskRequest,
    SignalTaskRequest,
    TaskReply,
    TaskState,
    TaskStatus,
    UpdateTaskRequest,
)
from contextunity.gen.google.protobuf import Any as PackedMessage
from google.protobuf.message import Message

from contextunity.core import codec
from contextunity.core.errors import CodecError
from contextunity.worker.grpc_errors import FieldViolation, Reason, ServiceError, invalid, unreadable
from contextunity.worker.modules.registry import FAILURE_STATUSES
from python_temporal.contract import MethodContract, ServiceContract, WorkflowContract

from .call import Call, Engine, Method, admit, note_about, provenance_label
from .control import TaskControlHandlers
from .results import End, Results
from .start import StartWorkflowHandler
from .status import TaskStatusHandler, follow_run, packed

__all__ = ["ContractCall", "ContractMethod", "ContractMethods", "in_own_names", "read_options"]

WORKFLOW_ID, RUN_ID = "contextunity-workflow-id", "contextunity-run-id"
_REQUEST_ID, _TENANT = "contextunity-request-id", "contextunity-tenant"
_DETACH, _ON_CANCEL = "contextunity-detach", "contextunity-on-cancel"
_PREFIX = "contextunity-"
_BINARY = "-bin"
"""Suffix of metadata keys with bytes; ids with non-ASCII characters need it."""
_ALIKE = 0.5
"""A call that ends within these seconds before its deadline counts as one that exceeded it."""
_DETAIL_LIMIT, _TEXT_LIMIT = 2000, 300
"""Maximum bytes of the detail about a failed task, and characters of each text in it. See `grpc_errors`."""

_STATUSES = {
    "InvalidInput": "INVALID_ARGUMENT",
    **{"".join(word.capitalize() for word in name.split("_")): name for name in FAILURE_STATUSES},
}
"""Statuses of failed tasks by the type of the application error, such as NotFound, unless the module defines them. All
other types are FAILED_PRECONDITION."""
_ENDS = {
    TaskState.CANCELLED: (Reason.TASK_CANCELLED, "was cancelled"),
    TaskState.TERMINATED: (Reason.TASK_TERMINATED, "was terminated"),
    TaskState.TIMED_OUT: (Reason.TASK_TIMED_OUT, "timed out"),
}
_WRAPPERS = (FailureCauseKind.ACTIVITY, FailureCauseKind.CHILD_WORKFLOW)

_Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CallOptions:
    """Metadata of a call, besides its message.

    Attributes:
        workflow_id: task of a query, signal or update.
        run_id: its run; empty for the newest.
        request_id: id of the request; a call with the same id is a retry. Empty if there is none.
        tenant_id: tenant, if the message has none.
        detach: whether to answer after the start instead of waiting for the result.
        on_cancel: whether to cancel the task if the call is cancelled.
    """

    workflow_id: str = ""
    run_id: str = ""
    request_id: str = ""
    tenant_id: str = ""
    detach: bool = False
    on_cancel: bool = False


@dataclass(kw_only=True, slots=True)
class ContractCall(Call):
    """A call of a contract's method.

    Attributes:
        message: bytes of the request message.
        options: options from the metadata.
        announce: sends the ids of the task to the caller at once.
        is_recorded: whether the call is in the audit log already.
    """

    message: bytes
    options: CallOptions
    announce: Callable[[Mapping[str, str | bytes]], Awaitable[None]]
    is_recorded: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ContractMethod(Method):
    """A method of a contract's service.

    Attributes:
        contract: its contract.
        serve: answers a call with the bytes of the response.
        takes: accepted metadata keys.
    """

    contract: MethodContract
    serve: Callable[[ContractMethod, ContractCall], Awaitable[bytes]]
    takes: frozenset[str]

    @property
    def takes_unit(self) -> bool:
        """Whether it takes a ContextUnit: no, the contract's own message."""
        return False

    @property
    def is_watch(self) -> bool:
        """Whether it counts as a watch: calls that wait for a task use as little as watches do, and last as long."""
        return isinstance(self.contract, WorkflowContract)

    @property
    def label(self) -> str:
        """Label of its steps in the provenance, such as `worker:harvest`."""
        return provenance_label(self.name.rpartition("/")[2])

    @property
    def path(self) -> str:
        """Its path, such as `/acme.billing.v1.Billing/Charge`."""
        return f"/{self.name}"

    async def answer(self, call: ContractCall) -> bytes:
        """Answer a call with the bytes of the contract's output message.

        Raises:
            ServiceError: the caller lacks a permission, the call is invalid, or the task did not succeed.
        """
        admit(self, call)
        return await self.serve(self, call)


class ContractMethods:
    """Methods of the services of all modules.

    Args:
        engine: the engine.
        table: methods of WorkerService; methods here need the same permissions.
        start: starts workflows.
        control: queries, signals and updates tasks.
        results: waits for the end of tasks.
    """

    def __init__(
        self,
        engine: Engine,
        table: Mapping[str, Method],
        start: StartWorkflowHandler,
        control: TaskControlHandlers,
        results: Results,
    ) -> None:
        self._engine, self._start, self._control, self._results = engine, start, control, results
        self._status = TaskStatusHandler(engine)
        self._cancelling = set[asyncio.Task[None]]()
        modules = engine.registry.select(None)
        self._statuses = {each.full_name: module.config.statuses for module in modules for each in module.contracts}
        services = {each.full_name: each for module in modules for each in module.contracts}
        self.services: Mapping[str, ServiceContract] = MappingProxyType(services)
        """The services by full name."""
        methods = [method for service in services.values() for method in self._methods(service, table)]
        self.methods: Mapping[str, ContractMethod] = MappingProxyType({method.path: method for method in methods})
        """The methods by path."""

    async def close(self) -> None:
        """Wait until the tasks of cancelled calls are cancelled."""
        await asyncio.gather(*self._cancelling, return_exceptions=True)

    def _methods(self, service: ServiceContract, table: Mapping[str, Method]) -> Iterable[ContractMethod]:
        task = {WORKFLOW_ID, RUN_ID, _TENANT}
        kinds = (
            (service.workflows, "StartWorkflow", self._run, {_REQUEST_ID, _TENANT, _DETACH, _ON_CANCEL}),
            (service.queries, "QueryTask", self._query, task),
            (service.signals, "SignalTask", self._signal, {*task, _REQUEST_ID}),
            (service.updates, "UpdateTask", self._update, {*task, _REQUEST_ID}),
            (service.activities, "StartWorkflow", _refuse, set[str]()),
        )
        for contracts, same, serve, takes in kinds:
            for name, contract in contracts.items():
                yield ContractMethod(
                    name=f"{service.full_name}/{name}",
                    permissions=table[same].permissions,
                    access=table[same].access,
                    subject=table[same].subject,
                    contract=contract,
                    serve=_refuse if contract.internal else serve,
                    takes=frozenset(takes),
                )

    async def _run(self, method: ContractMethod, call: ContractCall) -> bytes:
        """Start or join a task, and wait for its result."""
        contract, options = method.contract, call.options
        assert isinstance(contract, WorkflowContract)
        call.payload = {"workflow_type": contract.name, "tenant_id": options.tenant_id}
        call.unit.body = _packed_input(contract, call)
        starting = asyncio.ensure_future(self._start.start_workflow(call))
        try:
            started = await (asyncio.shield(starting) if options.on_cancel else starting)
        except asyncio.CancelledError:
            self._cancelled(call, starting)
            raise
        # The task has its input now, so do not keep the message while waiting.
        call.unit.body, call.message = None, b""
        note_about(call, started)
        method.record(call.caller, call)
        call.is_recorded = True
        workflow_id, run_id = started.workflow_id, started.run_id
        await call.announce({**_entry(WORKFLOW_ID, workflow_id), RUN_ID: run_id})
        if options.detach:
            return b""
        call.rest_for_long()
        waiter = ",".join(sorted(call.caller.tenants or ()))
        within = asyncio.timeout(call.remaining)
        try:
            async with within:
                end = await self._results.end(waiter, workflow_id, run_id)
        except TimeoutError:
            if not within.expired():
                raise
            raise ServiceError(
                Reason.DEADLINE_PASSED,
                f"the task {workflow_id!r} continues; send the same call again to wait for it",
                metadata={"workflow_id": workflow_id, "run_id": run_id},
            ) from None
        except asyncio.CancelledError:
            self._cancelled(call, starting)
            raise
        except ServiceError as error:
            raise self._not_repeatable(error, contract, options) from None
        return await self._result(contract, workflow_id, end)

    async def _result(self, contract: WorkflowContract, workflow_id: str, end: End) -> bytes:
        completed = end.event.workflow_execution_completed_event_attributes
        if end.event.HasField("workflow_execution_completed_event_attributes"):
            try:
                result = await packed(self._engine, completed.result.payloads, contract.output_type)
            except CodecError as error:
                raise unreadable(f"the task {workflow_id!r}", workflow_id, error) from None
            return result.value if result is not None else b""
        run = await follow_run(self._engine, workflow_id, end.run_id)
        raise _ended(await self._status.status(run), self._statuses[contract.service.full_name])

    def _not_repeatable(self, error: ServiceError, contract: WorkflowContract, options: CallOptions) -> ServiceError:
        """Return an error that clients do not retry by themselves, if a retry would start another task."""
        if error.code is not grpc.StatusCode.UNAVAILABLE or options.request_id or contract.workflow_id is not None:
            return error
        text = f"{error.message}; ask for the task by its id, since another call would start another one"
        return dataclasses.replace(error, message=text, status=grpc.StatusCode.ABORTED)

    def _cancelled(self, call: ContractCall, starting: asyncio.Future[Any]) -> None:
        """Cancel the task of a cancelled call, if its caller wants that."""
        remaining = call.remaining
        if not call.options.on_cancel or (remaining is not None and remaining < _ALIKE):
            return
        cancelling = asyncio.create_task(self._cancel(call, starting))
        self._cancelling.add(cancelling)
        cancelling.add_done_callback(self._cancelling.discard)

    async def _cancel(self, call: ContractCall, starting: asyncio.Future[Any]) -> None:
        started = await starting
        request = CancelTaskRequest(
            workflow_id=started.workflow_id, run_id=started.run_id, reason="the call that waited for it was cancelled"
        )
        await self._control.cancel_task(call, request)

    async def _query(self, method: ContractMethod, call: ContractCall) -> bytes:
        request = QueryTaskRequest(query=method.contract.method, **_task(method, call))
        return _bytes(await self._control.query_task(call, request))

    async def _signal(self, method: ContractMethod, call: ContractCall) -> bytes:
        request = SignalTaskRequest(signal=method.contract.method, **_task(method, call))
        await self._control.signal_task(call, request)
        return b""

    async def _update(self, method: ContractMethod, call: ContractCall) -> bytes:
        request = UpdateTaskRequest(update=method.contract.method, **_task(method, call))
        return _bytes(await self._control.update_task(call, request))


def read_options(method: ContractMethod, metadata: _Metadata) -> CallOptions:
    """Read the options in the metadata of a call.

    Raises:
        ServiceError: a key is unknown or not accepted by this method, or a value is invalid; each is named.
    """
    found, violations = dict[str, str](), list[FieldViolation]()
    for key, value in metadata:
        name = key.lower().removesuffix(_BINARY)
        if not name.startswith(_PREFIX):
            continue
        try:
            text = value if isinstance(value, str) else value.decode()
        except UnicodeDecodeError:
            violations.append(FieldViolation(field=key, description="is not UTF-8"))
            continue
        if name not in method.takes:
            takes = ", ".join(sorted(method.takes)) or "none"
            text = f"is no key that {method.name} has a use for; it takes: {takes}"
            violations.append(FieldViolation(field=name, description=text))
        elif found.setdefault(name, text) != text:
            violations.append(FieldViolation(field=name, description="is given twice, with different values"))
    for name, allowed in ((_DETACH, ("true", "false", "")), (_ON_CANCEL, ("cancel", ""))):
        if found.get(name, "") not in allowed:
            words = " or ".join(repr(each) for each in allowed if each)
            violations.append(FieldViolation(field=name, description=f"is {words}, not {found[name][:100]!r}"))
    if WORKFLOW_ID in method.takes and not found.get(WORKFLOW_ID):
        text = "is required: it says which task is meant"
        violations.append(FieldViolation(field=WORKFLOW_ID, description=text))
    if violations:
        raise invalid(*violations)
    return CallOptions(
        workflow_id=found.get(WORKFLOW_ID, ""),
        run_id=found.get(RUN_ID, ""),
        request_id=found.get(_REQUEST_ID, ""),
        tenant_id=found.get(_TENANT, ""),
        detach=found.get(_DETACH) == "true",
        on_cancel=found.get(_ON_CANCEL) == "cancel",
    )


def empty_unit(options: CallOptions) -> ContextUnit:
    """Return a unit for a call, with the fields that identify retries."""
    return ContextUnit(unit_id=options.request_id)


_PLACES = ("body", "payload", "input")
"""Path of the message in the requests of WorkerService's handlers."""


def in_own_names(method: ContractMethod, error: ServiceError) -> ServiceError:
    """Return an error with the fields of its violations as callers of the contract's own service know them."""
    if not error.violations:
        return error
    violations = [dataclasses.replace(each, field=_own_name(method, each.field)) for each in error.violations]
    if error.reason is Reason.PAYLOAD_INVALID:
        return invalid(*violations)
    text = error.message
    for place in _PLACES:
        text = text.removeprefix(f"{place}: ")
    return dataclasses.replace(error, message=text, violations=violations)


def _own_name(method: ContractMethod, field: str) -> str:
    if field == "unit_id":
        return _REQUEST_ID
    if field == "payload.tenant_id" and "tenant_id" not in getattr(
        method.contract.input_type, "__dataclass_fields__", ()
    ):
        return _TENANT
    place, _, rest = field.partition(".")
    return rest if place in _PLACES else field


def _packed_input(contract: MethodContract, call: ContractCall) -> PackedMessage | None:
    if contract.input_type is None:
        return None
    return PackedMessage(type_url=codec.type_url(codec.full_name(contract.input_type)), value=call.message)


def _task(method: ContractMethod, call: ContractCall) -> dict[str, Any]:
    """Fields that all requests about a task have in common."""
    options = call.options
    call.about["workflow_id"] = options.workflow_id
    return {
        "workflow_id": options.workflow_id,
        "run_id": options.run_id,
        "tenant_id": options.tenant_id,
        "input": _packed_input(method.contract, call),
    }


def _bytes(reply: TaskReply) -> bytes:
    return reply.result.value if reply.result is not None else b""


async def _refuse(method: ContractMethod, call: ContractCall) -> bytes:
    what = "is an activity: workers run it for workflows" if _is_activity(method.contract) else "is for workflows alone"
    raise ServiceError(Reason.NOT_FOR_CALLERS, f"{method.name} {what}, and callers cannot call it")


def _is_activity(contract: MethodContract) -> bool:
    return contract in contract.service.activities.values()


def _entry(key: str, value: str) -> dict[str, str | bytes]:
    """Return a metadata entry; a value that is not ASCII becomes bytes, under a key with the suffix for them."""
    if value.isascii() and value.isprintable() and value == value.strip():
        return {key: value}
    return {key + _BINARY: value.encode()}


def _ended(status: TaskStatus, statuses: Mapping[str, str]) -> ServiceError:
    """Return the error for a task that ended without a result.

    Args:
        status: status of the task.
        statuses: the module's statuses by type of application error.
    """
    reason, what = _ENDS.get(status.status, (Reason.TASK_FAILED, "failed"))
    metadata = {"workflow_id": status.workflow_id, "run_id": status.run_id}
    code = None
    cause = next((each for each in status.failure if each.kind not in _WRAPPERS), None)
    if cause is not None and cause.type:
        metadata["type"] = cause.type
        name = statuses.get(cause.type) or _STATUSES.get(cause.type, "")
        code = grpc.StatusCode[name] if name and cause.kind is FailureCauseKind.APPLICATION else None
    said = status.reason if reason is not Reason.TASK_TIMED_OUT and status.reason else status.error
    text = f"the task {status.workflow_id!r} {what}" + (f": {said}" if said else "")
    return ServiceError(reason, text, metadata=metadata, status=code, details=[_brief(status)])


def _brief(status: TaskStatus) -> Message:
    """Return the status of a task, shortened to fit into trailers: of a long chain, the first and last failures."""
    brief = TaskStatus(
        workflow_id=status.workflow_id,
        run_id=status.run_id,
        status=status.status,
        workflow_type=status.workflow_type,
        error=status.error[:_TEXT_LIMIT],
        reason=status.reason[:_TEXT_LIMIT],
    )
    brief.failure = [_short(each) for each in status.failure]
    while len(codec.encode(brief)) > _DETAIL_LIMIT and len(brief.failure) > 1:
        del brief.failure[len(brief.failure) // 2]
    return codec.to_proto(brief)


def _short(cause: FailureCause) -> FailureCause:
    made = codec.decode(FailureCause, codec.encode(cause))
    made.message = made.message[:_TEXT_LIMIT]
    return made
