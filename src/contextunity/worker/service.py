"""What the methods of WorkerService do, on generated dataclasses; server.py brings the bytes in and the errors out."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
from contextunity.gen.contextunity.core import ContextUnit
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.exceptions import ActivityError, ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.service import RPCError

from contextunity.core import codec
from contextunity.core.errors import CodecError
from python_temporal.contract import ContractError, WorkflowContract, start_arguments

from .core.registry import WorkerRegistry
from .status import FieldViolation, ServiceError, from_rpc_error

__all__ = ["WorkerService"]

_ROUTING_KEYS = frozenset({"workflow_type", "tenant_id", "task_queue", "args"})
_DEFAULT_TENANT = "default"
_QUERY_TIMEOUT = timedelta(seconds=2)
_PROGRESS_QUERY = "GetProgress"
"""Proto name of the query that tells a workflow's progress, by convention of the contracts."""

_STATUS_WORDS = {
    WorkflowExecutionStatus.RUNNING: "running",
    WorkflowExecutionStatus.COMPLETED: "completed",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.TIMED_OUT: "timed_out",
    # The run ended only to go on as another; GetTaskStatus follows it there unless a run_id was asked for.
    WorkflowExecutionStatus.CONTINUED_AS_NEW: "running",
}


class WorkerService:
    """The methods of WorkerService.

    Args:
        client: Temporal client with the contract's data converter.
        registry: the workflow contracts by workflow_type.
    """

    def __init__(self, client: Client, registry: WorkerRegistry) -> None:
        self._client = client
        self._registry = registry

    async def start_workflow(self, unit: ContextUnit) -> ContextUnit:
        """Starts the workflow of a workflow_type; see StartWorkflow in worker.proto."""
        payload = _payload(unit)
        contract = self._contract(_text(payload, "workflow_type", required=True))
        request = _input(contract, payload)
        workflow_id = _workflow_id(contract, request, unit)
        _check_task_queue(contract, _text(payload, "task_queue"))
        arguments = start_arguments(contract, request, id=workflow_id)
        try:
            handle = await self._client.start_workflow(contract.name, **arguments)
        except WorkflowAlreadyStartedError as error:
            raise ServiceError(
                grpc.StatusCode.ALREADY_EXISTS,
                "TASK_EXISTS",
                f"a task with the workflow_id {workflow_id!r} exists, and the contract of {contract.name!r} "
                "does not allow another",
                metadata={"workflow_id": workflow_id, "run_id": error.run_id or ""},
            ) from None
        except RPCError as error:
            raise from_rpc_error(error, workflow_id=workflow_id) from error
        return _answer(
            unit,
            "start_workflow",
            {"workflow_id": workflow_id, "run_id": handle.result_run_id or "", "status": "started"},
        )

    async def get_task_status(self, unit: ContextUnit) -> ContextUnit:
        """Tells how a workflow goes; see GetTaskStatus in worker.proto."""
        payload = _payload(unit)
        workflow_id = _text(payload, "workflow_id", required=True)
        handle = self._client.get_workflow_handle(workflow_id, run_id=_text(payload, "run_id") or None)
        try:
            description = await handle.describe()
        except RPCError as error:
            raise from_rpc_error(error, workflow_id=workflow_id) from error
        contract = self._registry.workflows.get(description.workflow_type)
        status = _STATUS_WORDS.get(description.status, "unknown") if description.status is not None else "unknown"
        answer: dict[str, Any] = {
            "workflow_id": workflow_id,
            "run_id": description.run_id,
            "workflow_type": description.workflow_type,
            "status": status,
        }
        if status == "running":
            answer |= await self._progress(description, contract)
        elif status != "unknown":
            answer |= await self._outcome(description, contract)
        return _answer(unit, "get_task_status", answer)

    async def execute_code(self, unit: ContextUnit) -> ContextUnit:
        """Refuses: this deployment has no sandbox."""
        raise ServiceError(
            grpc.StatusCode.UNIMPLEMENTED, "NO_SANDBOX", "ExecuteCode: this deployment has no sandbox to run code in"
        )

    async def register_schedules(self, unit: ContextUnit) -> ContextUnit:
        """Refuses: this deployment does not manage schedules."""
        raise ServiceError(
            grpc.StatusCode.UNIMPLEMENTED,
            "NO_SCHEDULES",
            "RegisterSchedules: this deployment does not manage schedules; use Temporal's own",
        )

    def _contract(self, workflow_type: str) -> WorkflowContract:
        contract = self._registry.workflows.get(workflow_type)
        if contract is None:
            known = ", ".join(sorted(self._registry.workflows)) or "none"
            raise ServiceError(
                grpc.StatusCode.NOT_FOUND,
                "WORKFLOW_TYPE_UNKNOWN",
                f"there is no workflow_type {workflow_type!r}; known ones: {known}",
                metadata={"workflow_type": workflow_type, "known": known},
            )
        return contract

    async def _progress(
        self, description: WorkflowExecutionDescription, contract: WorkflowContract | None
    ) -> dict[str, Any]:
        """The workflow's own progress; nothing where it has none, or no worker answers in time."""
        reference = contract.queries.get(_PROGRESS_QUERY) if contract else None
        if reference is None or reference.contract.input_type is not None or reference.contract.output_type is None:
            return {}
        handle = self._client.get_workflow_handle(description.id, run_id=description.run_id)
        query = reference.contract
        try:
            progress = await handle.query(query.name, result_type=query.output_type, rpc_timeout=_QUERY_TIMEOUT)
        except (RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError):
            return {}
        return {"progress": codec.to_dict(progress, preserving_proto_field_name=True)}

    async def _outcome(
        self, description: WorkflowExecutionDescription, contract: WorkflowContract | None
    ) -> dict[str, Any]:
        if contract is None:
            # Started by somebody else: what its result is made of is not ours to know.
            return {}
        output_type = contract.output_type
        handle = self._client.get_workflow_handle(description.id, run_id=description.run_id, result_type=output_type)
        try:
            result = await handle.result(follow_runs=False)
        except WorkflowFailureError as error:
            return {"error": _what_failed(error)}
        except RPCError as error:
            raise from_rpc_error(error, workflow_id=description.id) from error
        if result is None:
            return {}
        return {"result": codec.to_dict(result, preserving_proto_field_name=True) if output_type else result}


def _payload(unit: ContextUnit) -> dict[str, Any]:
    return {} if unit.payload is None else dict(codec.struct_to_dict(unit.payload))


def _text(payload: Mapping[str, Any], key: str, *, required: bool = False) -> str:
    value = payload.get(key, "")
    if not isinstance(value, str) or (required and not value):
        wrong = "is required" if value in ("", None) else f"must be a string, not {value!r}"
        raise _invalid([FieldViolation(field=f"payload.{key}", description=wrong)])
    return value


def _invalid(violations: list[FieldViolation]) -> ServiceError:
    text = "; ".join(f"{each.field}: {each.description}" for each in violations)
    return ServiceError(grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_INVALID", text, violations=violations)


def _input(contract: WorkflowContract, payload: Mapping[str, Any]) -> Any:
    """The workflow's typed input; parameters stand beside the routing keys, or together under `args`."""
    parameters = _parameters(payload)
    if contract.input_type is None:
        if parameters:
            reason = f"the workflow {contract.name!r} takes no parameters"
            raise _invalid([FieldViolation(field=f"payload.{key}", description=reason) for key in sorted(parameters)])
        return None
    fields = codec.proto_class(contract.input_type).DESCRIPTOR.fields_by_name
    if "tenant_id" in fields and not parameters.keys() & {"tenant_id", "tenantId"}:
        parameters["tenant_id"] = _text(payload, "tenant_id") or _DEFAULT_TENANT
    try:
        return codec.from_dict(contract.input_type, parameters)
    except CodecError as error:
        raise _invalid(
            [FieldViolation(field=f"payload.{each.path}", description=each.reason) for each in error.violations]
        ) from None


def _parameters(payload: Mapping[str, Any]) -> dict[str, Any]:
    arguments = payload.get("args")
    if arguments is not None and not isinstance(arguments, dict):
        raise _invalid([FieldViolation(field="payload.args", description=f"must be an object, not {arguments!r}")])
    parameters = dict(cast("dict[str, Any]", arguments or {}))
    beside = {key: value for key, value in payload.items() if key not in _ROUTING_KEYS}
    twice = sorted(beside.keys() & parameters.keys())
    if twice:
        reason = "is given twice, here and in args"
        raise _invalid([FieldViolation(field=f"payload.{key}", description=reason) for key in twice])
    return parameters | beside


def _workflow_id(contract: WorkflowContract, request: Any, unit: ContextUnit) -> str:
    if contract.workflow_id is not None:
        try:
            return contract.workflow_id(request)
        except ContractError as error:
            raise _invalid([FieldViolation(field=f"payload.{error.field}", description=error.reason)]) from None
    return f"{contract.name}/{unit.unit_id or uuid.uuid4()}"


def _check_task_queue(contract: WorkflowContract, task_queue: str) -> None:
    if task_queue and task_queue != contract.task_queue:
        description = f"{task_queue!r} is not the task queue of {contract.name!r}, which is {contract.task_queue!r}"
        raise _invalid([FieldViolation(field="payload.task_queue", description=description)])


def _what_failed(error: BaseException) -> str:
    """What the application itself said: the wrappers around it only say that an activity or child failed."""
    while isinstance(error, WorkflowFailureError | ActivityError | ChildWorkflowError) and error.__cause__ is not None:
        error = error.__cause__
    kind = getattr(error, "type", None)
    text = getattr(error, "message", None) or str(error)
    return f"{kind}: {text}" if kind else text


def _answer(request: ContextUnit, method: str, payload: Mapping[str, Any]) -> ContextUnit:
    return ContextUnit(
        unit_id=str(uuid.uuid4()),
        trace_id=request.trace_id or str(uuid.uuid4()),
        parent_unit_id=request.unit_id,
        payload=codec.dict_to_struct(payload),
        created_at=datetime.now(UTC),
        provenance=[*request.provenance, f"worker:{method}"],
    )
