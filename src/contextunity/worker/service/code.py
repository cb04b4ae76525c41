"""ExecuteCode: start the task of the code module's contract, and wait for its end."""

from __future__ import annotations

import asyncio
from typing import Any

from contextunity.gen.contextunity.code.v1 import ExecuteRequest, ExecuteResponse, Limits
from contextunity.gen.contextunity.worker import ExecuteCodeRequest, ExecuteCodeResult
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError

from contextunity.core import codec
from contextunity.core.errors import CodecError
from contextunity.worker.grpc_errors import FieldViolation, Reason, ServiceError, from_rpc_error, invalid, unreadable
from python_temporal.contract import WorkflowContract

from .call import Call, Engine
from .inputs import StartRequest
from .payloads import check_rules
from .programs import ANSWER_MARGIN, Running
from .start import StartWorkflowHandler

__all__ = ["STARTS_CODE", "ExecuteCodeHandler", "runs_code", "without_sandbox"]

STARTS_CODE = ("worker:execute",)
"""A caller needs one of these permissions to run code, also by a schedule."""
_WORKFLOW_TYPE = "execute_code"
_REJECTIONS = frozenset({"InvalidInput", "LanguageUnknown", "LimitExceeded", "RequestInvalid", "ToolUnknown"})
"""Types of application errors with which the code module rejects a request; other types are failures."""


class ExecuteCodeHandler:
    """Handles ExecuteCode."""

    def __init__(self, engine: Engine, starting: StartWorkflowHandler) -> None:
        self._engine, self._starting = engine, starting

    async def execute_code(self, call: Call, request: ExecuteCodeRequest) -> ExecuteCodeResult:
        """Run a small program in a sandbox; see ExecuteCode in worker.proto."""
        contract = self._contract()
        tenant_id = call.acting_tenant(request.tenant_id)
        program = _program(request, tenant_id)
        checked = check_rules(program, "payload" if call.unit.body is None else "body")
        start = StartRequest(
            contract=contract,
            input=program,
            message=checked,
            tenant_id=tenant_id,
            workflow_id="",
            task_queue=contract.task_queue or "",
        )
        running = await self._starting.send(call, start)
        # The caller may disconnect; its program still counts until it has ended.
        workflow_id, run_id = await asyncio.shield(running.started)
        result = ExecuteCodeResult(workflow_id=workflow_id, run_id=run_id, status="started")
        if request.wait is False:
            return result
        response = await _wait(call, running, workflow_id)
        if response is None:
            result.status = "running"
            return result
        return _result(result, response)

    def _contract(self) -> WorkflowContract:
        contract = self._engine.registry.workflows.get(_WORKFLOW_TYPE)
        if contract is None or contract.input_type is not ExecuteRequest:
            raise ServiceError(
                Reason.NO_CODE_MODULE, "this deployment has no module that runs code; install the module `code`"
            )
        return contract


async def _wait(call: Call, running: Running, workflow_id: str) -> ExecuteResponse | None:
    """Return the result of a program; None if the caller's deadline comes first."""
    call.rest()
    remaining = call.remaining
    try:
        async with asyncio.timeout(None if remaining is None else max(0.0, remaining - ANSWER_MARGIN)):
            return await asyncio.shield(running.ended)
    except TimeoutError:
        return None
    except WorkflowFailureError as error:
        raise _failed(error, workflow_id) from None
    except CodecError as error:
        raise unreadable("the program", workflow_id, error) from None
    except RPCError as error:
        raise from_rpc_error(error, workflow_id=workflow_id) from error


def runs_code(contract: WorkflowContract) -> bool:
    """Return whether a workflow runs callers' code: the code module's, or any other with the same input."""
    return contract.name == _WORKFLOW_TYPE or contract.input_type is ExecuteRequest


def without_sandbox(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload of ExecuteCode without `sandbox`, which deployed clients always send.

    Raises:
        ServiceError: it is not true: programs always run in a sandbox.
    """
    if "sandbox" not in payload:
        return payload
    if payload["sandbox"] is not True:
        text = "must be true or left out: every program runs in a sandbox"
        raise invalid(FieldViolation(field="payload.sandbox", description=text))
    return {key: value for key, value in payload.items() if key != "sandbox"}


def _program(request: ExecuteCodeRequest, tenant_id: str) -> ExecuteRequest:
    limits = request.limits
    lower_timeout = False
    if request.timeout is not None:
        if limits is not None and limits.timeout is not None and limits.timeout != request.timeout:
            text = "is set in limits.timeout too, with another value"
            raise invalid(FieldViolation(field="payload.timeout", description=text))
        # A caller that sets it in the limits too prefers an error to a lowered timeout.
        lower_timeout = limits is None or limits.timeout is None
        limits = codec.decode(Limits, codec.encode(limits or Limits()))
        limits.timeout = request.timeout
    return ExecuteRequest(
        code=request.code,
        language=request.language,
        limits=limits,
        inputs=request.inputs,
        files=request.files,
        tools=request.tools,
        tenant_id=tenant_id,
        lower_timeout=lower_timeout,
    )


def _result(result: ExecuteCodeResult, response: ExecuteResponse) -> ExecuteCodeResult:
    result.status = (response.status.name or "unspecified").lower()
    result.execution_status = response.status
    result.result = response.result
    result.stdout, result.stderr = response.stdout, response.stderr
    result.exit_code, result.duration_ms = response.exit_code, response.duration_ms
    result.truncated = response.truncated
    result.error, result.error_type, result.backend = response.error, response.error_type, response.backend
    result.notice = response.notice
    return result


def _failed(error: WorkflowFailureError, workflow_id: str) -> ServiceError:
    cause: BaseException | None = error.cause
    while isinstance(cause, ActivityError) and cause.__cause__ is not None:
        cause = cause.__cause__
    metadata = {"workflow_id": workflow_id}
    if isinstance(cause, ApplicationError):
        metadata["type"] = cause.type or ""
        reason = Reason.CODE_REFUSED if cause.type in _REJECTIONS else Reason.SANDBOX_FAILED
        return ServiceError(reason, cause.message, metadata=metadata)
    return ServiceError(Reason.SANDBOX_FAILED, f"the task {workflow_id!r} failed: {cause}", metadata=metadata)
