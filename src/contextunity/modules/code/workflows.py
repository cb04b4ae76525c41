"""ExecuteWorkflow: run a program, and each tool call as an activity while the program is suspended."""

from __future__ import annotations

from dataclasses import replace
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
"""Maximum tool calls of one program. With about 12 events each, the history stays far below its limit in one run."""
_MAX_STATE_BYTES = 16 * 1024 * 1024
"""Maximum bytes of the states and answers of all calls; each is in the history twice, whose limit is 50 MB."""
_MAX_REPEATS = 3
"""Maximum repeats of a program whose interpreter's version is gone: between workers of two versions, each call could
cause one."""
_BUSY, _RETIRED = "SandboxBusy", "SnapshotRetired"
"""Types of the errors of run_program that the workflow handles."""


@final
class ExecuteWorkflow(contract.ExecuteWorkflowBase):
    """Run one program to its end.

    A program stops at a tool call. Its state is the answer of its activity, so it is in the history, and any worker can
    resume the program; answered calls are not repeated.
    """

    @workflow.init
    def __init__(self, request: ExecuteRequest) -> None:
        self._calls = list[ToolCall]()
        self._answered = list[tuple[CallToolRequest, CallToolResponse]]()
        self._state_bytes = 0
        # Tenants whose programs wait for a worker take turns.
        self._priority = fair_priority(request.tenant_id) or Priority.default

    async def run(self, request: ExecuteRequest) -> ExecuteResponse:
        """Run the program from call to call."""
        came = await self._run_until_tool_call(RunProgramRequest(program=request))
        repeats = step = 0
        while came.ended is None:
            state, call = came.state or ProgramState(), came.tool_request or CallToolRequest()
            if fault := self._too_much(came, step):
                return self._stopped(state, fault)
            answer = await self._call(call, step)
            try:
                came = await self._run_until_tool_call(RunProgramRequest(state=state, tool_response=answer))
                step += 1
            except ActivityError as error:
                # No worker has the interpreter's version any more. What a program does outside of itself are its calls,
                # so it can be repeated as long as those are not.
                if not _has_type(error, _RETIRED) or repeats == _MAX_REPEATS:
                    raise
                came = await self._run_until_tool_call(RunProgramRequest(program=request))
                repeats, step = repeats + 1, 0
        came.ended.tool_calls = self._calls
        if repeats:
            notice = "no worker had the version of its interpreter any more, so it was repeated with the tools' answers"
            came.ended.notice = "; ".join(filter(None, (came.ended.notice, notice)))
        return came.ended

    async def _run_until_tool_call(self, request: RunProgramRequest) -> RunProgramResponse:
        """Run until the end or the next tool call; retry later if all places are taken."""
        return await retry_until_free(lambda: contract.run_program(request, priority=self._priority), _BUSY)

    async def _call(self, call: CallToolRequest, step: int) -> CallToolResponse:
        """Call a tool, or return the answer that it gave before the program was repeated."""
        if step < len(self._answered):
            asked, answer = self._answered[step]
            if call != asked:
                raise ApplicationError(
                    f"no worker has the version of the interpreter in which the program stopped, and when it was "
                    f"repeated its call {step + 1}, of {call.name}, was another one than before; run the program again",
                    type=_RETIRED,
                    non_retryable=True,
                )
            return answer
        info = workflow.info()
        sent = replace(call, call_id=f"{info.workflow_id}/{info.first_execution_run_id}/{step}")
        try:
            answer = await retry_until_free(lambda: contract.call_tool(sent, priority=self._priority))
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            # All attempts failed. Return the error to the program, which may have an alternative.
            reason = str(error.cause) if isinstance(error.cause, ApplicationError) else "it did not answer in time"
            answer = CallToolResponse(error=f"{call.name or 'the tool'} failed: {reason}", error_type="RuntimeError")
        self._answered.append((call, answer))
        self._calls.append(ToolCall(name=call.name, ok=not answer.error))
        self._state_bytes += len(codec.encode(answer))
        return answer

    def _too_much(self, came: RunProgramResponse, step: int) -> str:
        self._state_bytes += len(codec.encode(came))
        if step >= MAX_TOOL_CALLS:
            return f"the program calls more than {MAX_TOOL_CALLS} tools, the maximum of one program"
        if self._state_bytes > _MAX_STATE_BYTES:
            return (
                f"the program's states and answers at its calls take more than {_MAX_STATE_BYTES:,} bytes; "
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


def _has_type(error: ActivityError, kind: str) -> bool:
    return isinstance(error.cause, ApplicationError) and error.cause.type == kind
