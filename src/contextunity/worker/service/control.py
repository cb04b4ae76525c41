"""Handlers that control tasks: cancel, terminate, signal, query, update."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import betterproto2
from contextunity.gen.contextunity.worker import (
    CancelTaskRequest,
    QueryTaskRequest,
    SignalTaskRequest,
    TaskReference,
    TaskReply,
    TerminateTaskRequest,
    UpdateTaskRequest,
)
from contextunity.gen.google.protobuf import Any as PackedMessage
from temporalio import common
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import RequestCancelWorkflowExecutionRequest, SignalWorkflowExecutionRequest
from temporalio.client import (
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core import codec
from contextunity.core.context import HEADER, using
from contextunity.core.errors import CodecError
from contextunity.worker import tracing
from contextunity.worker.grpc_errors import (
    FieldViolation,
    Reason,
    ServiceError,
    from_rpc_error,
    invalid,
    too_large,
    unreadable,
)
from contextunity.worker.temporal.converter import for_workflow
from contextunity.worker.temporal.tenancy import id_violation
from python_temporal.contract import (
    ContractError,
    MethodContract,
    QueryBinding,
    SignalBinding,
    UpdateBinding,
    UpdateContract,
)

from .call import Call, Engine
from .inputs import handler_input
from .status import Run, find_run

__all__ = ["TaskControlHandlers"]

_Binding = TypeVar("_Binding", QueryBinding, SignalBinding, UpdateBinding)
_MAX_UPDATE = 2 * 1024 * 1024
"""Maximum bytes of an update's input. The server accepts more, but then the worker's SDK fails the workflow task
again and again, and the workflow makes no progress."""
_Request = SignalTaskRequest | QueryTaskRequest | UpdateTaskRequest


class TaskControlHandlers:
    """Handles the methods that control a task."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def cancel_task(self, call: Call, request: CancelTaskRequest) -> TaskReference:
        """Request the cancellation of a task; see CancelTask in worker.proto."""
        run = await self._running(call, request.workflow_id, request.run_id, request.tenant_id)
        client = self._engine.client
        wanted = RequestCancelWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=_execution(run),
            identity=client.identity,
            request_id=call.request_id,
            reason=request.reason,
        )
        try:
            await client.workflow_service.request_cancel_workflow_execution(
                wanted, retry=True, timeout=self._engine.rpc_timeout
            )
        except RPCError as error:
            raise from_rpc_error(error, workflow_id=run.workflow_id) from error
        return _reference(run)

    async def terminate_task(self, call: Call, request: TerminateTaskRequest) -> TaskReference:
        """Terminate a task; see TerminateTask in worker.proto."""
        run = await self._running(call, request.workflow_id, request.run_id, request.tenant_id)
        handle = self._engine.client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
        try:
            await handle.terminate(reason=request.reason or None, rpc_timeout=self._engine.rpc_timeout)
        except RPCError as error:
            raise from_rpc_error(error, workflow_id=run.workflow_id) from error
        return _reference(run)

    async def signal_task(self, call: Call, request: SignalTaskRequest) -> TaskReference:
        """Send a task a signal of its contract; see SignalTask in worker.proto."""
        run = await find_run(call, self._engine, request.workflow_id, request.run_id, request.tenant_id)
        signals = run.contract.signals if run.contract else dict[str, SignalBinding]()
        contract = _handler(run, "signal", request.signal, signals).contract
        value = handler_input(contract, _args(request), request.input)
        _check_running(run)
        client = self._engine.client
        wanted = SignalWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=_execution(run),
            signal_name=contract.name,
            identity=client.identity,
            # The server recognizes a retry by this id, so the signal arrives once.
            request_id=call.request_id,
        )
        if value is not None:
            workflow_type = run.description.workflow_execution_info.type.name
            storing = for_workflow(client.data_converter, client.namespace, run.workflow_id, workflow_type)
            wanted.input.payloads.extend(await storing.encode([value]))
        context = client.data_converter.payload_converter.to_payload(call.context(run.tenant_id))
        wanted.header.fields[HEADER].CopyFrom(context)
        if tracing.active is not None:
            tracing.active.write_header(wanted.header.fields)
        try:
            await client.workflow_service.signal_workflow_execution(
                wanted, retry=True, timeout=self._engine.rpc_timeout
            )
        except RPCError as error:
            raise from_rpc_error(error, workflow_id=run.workflow_id) from error
        return _reference(run)

    async def query_task(self, call: Call, request: QueryTaskRequest) -> TaskReply:
        """Send a task a query of its contract; see QueryTask in worker.proto."""
        run = await find_run(call, self._engine, request.workflow_id, request.run_id, request.tenant_id)
        queries = run.contract.queries if run.contract else dict[str, QueryBinding]()
        contract = _handler(run, "query", request.query, queries).contract
        value = handler_input(contract, _args(request), request.input)
        handle = self._engine.client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
        try:
            with using(call.context(run.tenant_id)):
                result: Any = await handle.query(
                    contract.name,
                    args=_arguments(value),
                    result_type=_result_type(contract),
                    rpc_timeout=self._engine.rpc_timeout,
                )
        except (WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
            raise ServiceError(
                Reason.QUERY_FAILED,
                f"the query {contract.name!r} failed: {error}",
                metadata={"workflow_id": run.workflow_id},
            ) from None
        except CodecError as error:
            raise unreadable(f"the query {contract.name!r}", run.workflow_id, error) from None
        except RPCError as error:
            raise self._unanswered(error, run, f"query {contract.name!r}") from error
        return _reply(run, contract, result)

    async def update_task(self, call: Call, request: UpdateTaskRequest) -> TaskReply:
        """Send a task an update of its contract; see UpdateTask in worker.proto."""
        run = await find_run(call, self._engine, request.workflow_id, request.run_id, request.tenant_id)
        updates = run.contract.updates if run.contract else dict[str, UpdateBinding]()
        contract = _handler(run, "update", request.update, updates).contract
        value = handler_input(contract, _args(request), request.input)
        is_stored = self._engine.stored_from is not None
        if value is not None and not is_stored and len(codec.encode(value)) > _MAX_UPDATE:
            raise too_large({"workflow_id": run.workflow_id})
        _check_running(run)
        update_id = call.request_id
        if contract.update_id is not None:
            update_id = _update_id(contract, value, "args" if request.input is None else "input")
        handle = self._engine.client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
        try:
            async with asyncio.timeout(call.remaining):
                with using(call.context(run.tenant_id)):
                    # Untyped here, because the SDK's overloads are not fully typed themselves.
                    result: Any = await cast("Any", handle).execute_update(
                        contract.name, args=_arguments(value), id=update_id, result_type=_result_type(contract)
                    )
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            kind = cause.type if isinstance(cause, ApplicationError) else ""
            raise ServiceError(
                Reason.UPDATE_REJECTED,
                f"the update {contract.name!r} was rejected or failed: {getattr(cause, 'message', None) or cause}",
                metadata={"workflow_id": run.workflow_id, "type": kind or ""},
            ) from None
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
            raise ServiceError(
                Reason.DEADLINE_PASSED,
                f"the update {contract.name!r} did not complete before the deadline; send the unit again to wait on",
                metadata={"workflow_id": run.workflow_id},
            ) from None
        except CodecError as error:
            raise unreadable(f"the update {contract.name!r}", run.workflow_id, error) from None
        except RPCError as error:
            raise self._unanswered(error, run, f"update {contract.name!r}") from error
        return _reply(run, contract, result)

    async def _running(self, call: Call, workflow_id: str, run_id: str, tenant_id: str) -> Run:
        run = await find_run(call, self._engine, workflow_id, run_id, tenant_id)
        _check_running(run)
        return run

    def _unanswered(self, error: RPCError, run: Run, what: str) -> ServiceError:
        # The server returns "failed precondition" if no worker has polled the queue lately.
        if error.status in (
            RPCStatusCode.DEADLINE_EXCEEDED,
            RPCStatusCode.CANCELLED,
            RPCStatusCode.FAILED_PRECONDITION,
        ):
            return ServiceError(
                Reason.NO_WORKER_ANSWERS,
                f"no worker answered the {what} in time; does one poll "
                f"{run.description.execution_config.task_queue.name!r}?",
                metadata={"workflow_id": run.workflow_id},
            )
        return from_rpc_error(error, workflow_id=run.workflow_id)


def _update_id(contract: UpdateContract[Any], value: betterproto2.Message | None, where: str) -> str:
    """Return the contract's id for an update.

    Raises:
        ServiceError: a field of the id is not set, or contains invalid characters.
    """
    assert contract.update_id is not None
    try:
        made = contract.update_id(value)
    except ContractError as error:
        raise invalid(FieldViolation(field=f"{where}.{error.field}", description=error.reason)) from None
    violation = id_violation(made)
    if violation:
        raise invalid(FieldViolation(field=where, description=f"the update's id {made!r} {violation}"))
    return made


def _handler(run: Run, what: str, name: str, bindings: Mapping[str, _Binding]) -> _Binding:
    """Return the handler by its Temporal name or its method's name in the proto, full or short."""
    for method, binding in bindings.items():
        if name in (binding.contract.name, binding.contract.method, method):
            if binding.contract.internal:
                text = f"the {what} {name!r} is internal: other workflows send it, and callers cannot"
                raise invalid(FieldViolation(field=what, description=text))
            return binding
    open_ones = (binding.contract.name for binding in bindings.values() if not binding.contract.internal)
    known = ", ".join(sorted(open_ones)) or "none"
    workflow_type = run.description.workflow_execution_info.type.name
    raise ServiceError(
        Reason.HANDLER_UNKNOWN,
        f"the contract of {workflow_type!r} has no {what} {name!r}; it has: {known}",
        metadata={"workflow_type": workflow_type, what: name[:200], "known": known},
    )


def _args(request: _Request) -> Mapping[str, Any] | None:
    return None if request.args is None else codec.struct_to_dict(request.args)


def _arguments(value: betterproto2.Message | None) -> list[Any]:
    return [] if value is None else [value]


def _result_type(contract: MethodContract) -> type[Any]:
    return contract.output_type or common.RawValue


def _check_running(run: Run) -> None:
    if not run.is_running:
        raise ServiceError(
            Reason.TASK_ENDED, f"the task {run.workflow_id!r} has ended", metadata={"workflow_id": run.workflow_id}
        )


def _execution(run: Run) -> WorkflowExecution:
    return WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id)


def _reference(run: Run) -> TaskReference:
    return TaskReference(workflow_id=run.workflow_id, run_id=run.run_id)


def _reply(run: Run, contract: MethodContract, result: Any) -> TaskReply:
    packed: PackedMessage | None = None if contract.output_type is None else codec.pack_any(result)
    return TaskReply(workflow_id=run.workflow_id, run_id=run.run_id, result=packed)
