"""The activities of the code module: check a request, and pass it to a backend or a tool."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from datetime import timedelta
from typing import cast

from contextunity.gen.contextunity.code.v1 import (
    CallToolRequest,
    CallToolResponse,
    ExecuteRequest,
    ExecuteResponse,
    ExecutionStatus,
    ProgramState,
    RunProgramRequest,
    RunProgramResponse,
)
from contextunity.gen.contextunity.code.v1 import code_temporal as contract
from contextunity.gen.google.protobuf import ListValue, Struct, Value
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from contextunity.core.codec import CodecError, JsonValue, dict_to_struct, encode, struct_to_dict
from contextunity.worker import tracing
from contextunity.worker.metrics import PROGRAMS_TOTAL
from contextunity.worker.quotas import EgressBudgetError, on_budget

from .backend import Backend, Outcome, Program, ToolBackend, ToolCall, ToolReply
from .errors import (
    CodeError,
    RequestInvalidError,
    SandboxBusyError,
    SandboxFailedError,
    SandboxUnavailable,
    SnapshotRetiredError,
    ToolFailedError,
    ToolRefusedError,
)
from .limits import check_files, lower_timeout, remaining_limits, resolve_limits, to_limits
from .resources import Resources, current
from .tools import ToolCaller

__all__ = ["call_tool", "from_value", "run_program"]

_ANSWER_BYTES = 1024 * 1024
"""Maximum bytes of a tool's answer."""
_ERROR_CHARACTERS = 2000
_MAX_RETRY_SECONDS = 60.0
"""Longest Retry-After that a program waits for between two calls of a tool."""

_SNAPSHOT_BYTES = 512 * 1024
"""Maximum compressed bytes of a program with its files while a tool runs: the workflow's history stores them."""


@contract.run_program.defn
async def run_program(request: RunProgramRequest) -> RunProgramResponse:
    """Run or resume a program until it ends or calls a tool."""
    resources = current()
    with _as_application_error():
        if request.state is not None:
            return await _resume(resources, request.state, request.tool_response or CallToolResponse())
        if request.program is None:
            raise RequestInvalidError("the request has neither a program nor the state of one")
        return await _start(resources, request.program)


async def _start(resources: Resources, asked: ExecuteRequest) -> RunProgramResponse:
    wanted, notice = lower_timeout(asked.limits, resources.settings) if asked.lower_timeout else (asked.limits, "")
    limits = resolve_limits(wanted, resources.settings)
    backend = resources.backends.for_language(asked.language)
    tools = tuple(dict.fromkeys(asked.tools))
    resources.tools.check(tools)
    if tools and not isinstance(backend, ToolBackend):
        raise RequestInvalidError(f"programs of the backend {backend.name} cannot call tools; use the language monty")
    program = Program(
        code=asked.code, limits=limits, inputs=_inputs(asked), files=check_files(asked.files, limits), tools=tools
    )
    state = ProgramState(
        backend=backend.name,
        limits=to_limits(limits),
        tools=list(tools),
        tenant_id=asked.tenant_id,
        notice=notice,
    )
    async with resources.program_slots.hold(asked.tenant_id):
        found = await _run_backend(backend, program)
    return _response(resources, state, found)


async def _resume(resources: Resources, state: ProgramState, response: CallToolResponse) -> RunProgramResponse:
    # Nothing of a state is believed before.
    state = resources.snapshot_keys.open(activity.info().workflow_id or "", state)
    backend = resources.backends.named(state.backend)
    if not isinstance(backend, ToolBackend):
        raise RequestInvalidError(f"programs of the backend {backend.name} cannot call tools")
    program = Program(code="", limits=remaining_limits(state), tools=tuple(state.tools))
    result = None if response.result is None else from_value(response.result)
    reply = ToolReply(result=result, error=response.error, error_type=response.error_type)
    async with resources.program_slots.hold(state.tenant_id):
        found = await _run_backend(backend, program, state.snapshot, reply)
    return _response(resources, state, found)


async def _run_backend(
    backend: Backend, program: Program, snapshot: bytes = b"", reply: ToolReply | None = None
) -> Outcome | ToolCall:
    """Run, and convert unexpected errors of the backend into SandboxFailedError, so that the run is retried."""
    try:
        with tracing.span("run program", contextunity_backend=backend.name):
            if reply is None:
                return await backend.run(program)
            return await cast("ToolBackend", backend).resume(program, snapshot, reply)
    except (SandboxUnavailable, SnapshotRetiredError):
        raise
    except Exception as error:
        raise SandboxFailedError(f"the backend {backend.name} failed: {type(error).__name__}: {error}") from error


def _response(resources: Resources, before: ProgramState, found: Outcome | ToolCall) -> RunProgramResponse:
    if isinstance(found, Outcome):
        return RunProgramResponse(ended=_ended_response(before, found))
    if len(found.snapshot) > _SNAPSHOT_BYTES:
        return RunProgramResponse(ended=_ended_response(before, _too_large(found)))
    state = ProgramState(
        snapshot=found.snapshot,
        backend=before.backend,
        limits=before.limits,
        tools=before.tools,
        tenant_id=before.tenant_id,
        stdout=before.stdout + found.stdout,
        stderr=before.stderr + found.stderr,
        duration_ms=before.duration_ms + found.duration_ms,
        truncated=before.truncated or found.truncated,
        notice=before.notice,
    )
    request = CallToolRequest(
        name=found.name,
        positional=_to_list_value(found.positional),
        named=dict_to_struct(found.named),
        tenant_id=before.tenant_id,
    )
    sealed = resources.snapshot_keys.seal(activity.info().workflow_id or "", state)
    return RunProgramResponse(tool_request=request, state=sealed)


def _too_large(found: ToolCall) -> Outcome:
    return Outcome(
        status=ExecutionStatus.MEMORY_LIMIT,
        stdout=found.stdout,
        stderr=found.stderr,
        exit_code=1,
        duration_ms=found.duration_ms,
        truncated=found.truncated,
        error=f"the program holds {len(found.snapshot):,} compressed bytes when it calls {found.name}; at most "
        f"{_SNAPSHOT_BYTES:,} can be kept while a tool runs; hold less data across calls",
    )


def _ended_response(before: ProgramState, outcome: Outcome) -> ExecuteResponse:
    status = (outcome.status.name or "").lower()
    PROGRAMS_TOTAL.add(1, backend=before.backend, outcome=status, tenant=before.tenant_id)
    return ExecuteResponse(
        status=outcome.status,
        result=_to_value(outcome.result) if outcome.has_result else None,
        stdout=before.stdout + outcome.stdout,
        stderr=before.stderr + outcome.stderr,
        exit_code=outcome.exit_code,
        duration_ms=before.duration_ms + outcome.duration_ms,
        truncated=before.truncated or outcome.truncated,
        error=outcome.error,
        error_type=outcome.error_type,
        backend=before.backend,
        notice=before.notice,
    )


def _inputs(asked: ExecuteRequest) -> dict[str, JsonValue]:
    inputs = {} if asked.inputs is None else struct_to_dict(asked.inputs)
    wrong = [name for name in inputs if not name.isidentifier() or name.startswith("__")]
    if wrong:
        raise RequestInvalidError(
            f"inputs become variables, but these are not identifiers: {', '.join(repr(name[:100]) for name in wrong)}"
        )
    return inputs


@contract.call_tool.defn
async def call_tool(request: CallToolRequest) -> CallToolResponse:
    """Call a tool; a rejected call is an answer, which the program sees as an exception."""
    resources = current()
    caller = ToolCaller(tenant_id=request.tenant_id, call_id=request.call_id)
    positional = [] if request.positional is None else _from_list_value(request.positional)
    named = {} if request.named is None else struct_to_dict(request.named)
    with (
        resources.tool_calls.hold(tenant=request.tenant_id),
        _as_application_error(),
        on_budget(resources.quotas, request.tenant_id, "call_tool"),
    ):
        try:
            result = _to_value(await resources.tools.call(request.name, caller, positional, named))
        except ToolRefusedError as error:
            return CallToolResponse(error=str(error)[:_ERROR_CHARACTERS], error_type=error.error_type)
        except EgressBudgetError as error:
            # The budget may be free again only after hours, so let the program decide whether it can continue without.
            return CallToolResponse(error=str(error), error_type="OSError")
        except CodecError as error:
            return CallToolResponse(error=f"{request.name} returned an unusable value: {error}"[:_ERROR_CHARACTERS])
    response = CallToolResponse(result=result)
    if (size := len(encode(response))) > _ANSWER_BYTES:
        # Temporal would reject it, and the tool would be called again without need.
        return CallToolResponse(error=f"{request.name} returned {size:,} bytes; the limit is {_ANSWER_BYTES:,}")
    return response


@contextlib.contextmanager
def _as_application_error() -> Generator[None, None, None]:
    """Convert errors to ApplicationErrors with stable types, which retry policies and callers of all languages use."""
    try:
        yield
    except CodeError as error:
        # It is normal that all places are taken, so do not log it.
        busy = isinstance(error, SandboxBusyError)
        asked = min(error.retry_after, _MAX_RETRY_SECONDS) if isinstance(error, ToolFailedError) else 0.0
        raise ApplicationError(
            str(error),
            type=error.type,
            non_retryable=not error.retryable,
            next_retry_delay=timedelta(seconds=asked) if asked else None,
            category=ApplicationErrorCategory.BENIGN if busy else ApplicationErrorCategory.UNSPECIFIED,
        ) from error


def _to_value(value: JsonValue) -> Value:
    """Return a Value.

    Raises:
        CodecError: the object does not fit into one.
    """
    return dict_to_struct({"value": value}).fields["value"]


def from_value(value: Value) -> JsonValue:
    """Return the content of a Value, integers up to 2^53 as int."""
    return struct_to_dict(Struct(fields={"value": value}))["value"]


def _to_list_value(values: list[JsonValue]) -> ListValue:
    return ListValue(values=[_to_value(value) for value in values])


def _from_list_value(values: ListValue) -> list[JsonValue]:
    return cast("list[JsonValue]", from_value(Value(list_value=values)))
