"""ExecuteWorkflow: run a program, and each tool that it calls as an activity while the program is put away."""

from __future__ import annotations

from typing import final

from contextunity.gen.contextunity.code.v1 import (
    CallToolRequest,
    CallToolResponse,
    ExecuteRequest,
    ExecuteResponse,
    ExecutionStatus,
    ProgramState,
    RunProgramRequest,
    RunProgramResponse,
    ToolCall,
)
from contextunity.gen.contextunity.code.v1 import code_temporal as contract
from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from contextunity.core import codec
from contextunity.worker.temporal.concurrency import retry_until_free
from contextunity.worker.temporal.tenancy import fair_priority

__all__ = ["MAX_TOOL_CALLS", "ExecuteWorkflow"]

MAX_TOOL_CALLS = 200
"""Calls of one program. Some 12 events each stay far below what a history may have, so that one run is enough."""
_MAX_STATE_BYTES = 16 * 1024 * 1024
"""What the states and answers of all calls may take; each is in the history twice, which may have 50 MB."""
_BUSY = "SandboxBusy"


@final
class ExecuteWorkflow(contract.ExecuteWorkflowBase):
    """Run one program to its end.

    A program that calls a tool stops there. Its state is the answer of the activity that ran it, so it lies in the
    history, and the program goes on from it on whichever worker is there; calls that were answered are not made again.
    """

    @workflow.init
    def __init__(self, request: ExecuteRequest) -> None:
        self._calls = list[ToolCall]()
        self._state_bytes = 0
        # Among the tenants whose programs wait for a worker, each has its turn.
        self._priority = fair_priority(request.tenant_id) or Priority.default

    async def run(self, request: ExecuteRequest) -> ExecuteResponse:
        """Run it, stretch by stretch."""
        came = await self._run_until_tool_call(RunProgramRequest(program=request))
        while came.ended is None:
            state, call = came.state or ProgramState(), came.tool_request or CallToolRequest()
            if fault := self._too_much(came):
                return self._stopped(state, fault)
            answer = await self._call(call)
            came = await self._run_until_tool_call(RunProgramRequest(state=state, tool_response=answer))
        came.ended.tool_calls = self._calls
        return came.ended

    async def _run_until_tool_call(self, request: RunProgramRequest) -> RunProgramResponse:
        """Run until the end or the next tool; try again a little later if all places are taken."""
        return await retry_until_free(lambda: contract.run_program(request, priority=self._priority), _BUSY)

    async def _call(self, call: CallToolRequest) -> CallToolResponse:
        info = workflow.info()
        call.call_id = f"{info.workflow_id}/{info.first_execution_run_id}/{len(self._calls)}"
        try:
            answer = await retry_until_free(lambda: contract.call_tool(call, priority=self._priority))
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            # After all its attempts; the program may know another way, so it is told.
            reason = str(error.cause) if isinstance(error.cause, ApplicationError) else "it did not answer in time"
            answer = CallToolResponse(error=f"{call.name or 'the tool'} failed: {reason}", error_type="RuntimeError")
        self._calls.append(ToolCall(name=call.name, ok=not answer.error))
        self._state_bytes += len(codec.encode(answer))
        return answer

    def _too_much(self, came: RunProgramResponse) -> str:
        self._state_bytes += len(codec.encode(came))
        if len(self._calls) >= MAX_TOOL_CALLS:
            return f"the program calls more than {MAX_TOOL_CALLS} tools, which is the most that one program may"
        if self._state_bytes > _MAX_STATE_BYTES:
            return (
                f"what the program held at its calls and got from them takes more than {_MAX_STATE_BYTES:,} bytes; "
                "hold less data across calls, or make fewer of them"
            )
        return ""

    def _stopped(self, state: ProgramState, fault: str) -> ExecuteResponse:
        return ExecuteResponse(
            status=ExecutionStatus.EXCEPTION,
            stdout=state.stdout,
            stderr=state.stderr,
            exit_code=1,
            duration_ms=state.duration_ms,
            truncated=state.truncated,
            error=fault,
            error_type="RuntimeError",
            backend=state.backend,
            tool_calls=self._calls,
            notice=state.notice,
        )
