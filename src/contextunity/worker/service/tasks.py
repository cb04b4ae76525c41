"""Lists tasks, page by page."""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import UTC, datetime

from contextunity.gen.contextunity.worker import ListTasksRequest, ListTasksResult, TaskState, TaskSummary
from temporalio import converter
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import ListWorkflowExecutionsRequest
from temporalio.service import RPCError, RPCStatusCode

from contextunity.worker.grpc_errors import FieldViolation, Reason, ServiceError, from_rpc_error, invalid
from contextunity.worker.temporal.search_attributes import TENANT_ATTRIBUTE, quoted

from .call import Call, Engine
from .status import STATES, instant

__all__ = ["ListTasksHandler"]

_PAGE_SIZE = 100
_MARK = 8
_FILTER_WORDS = {
    TaskState.STARTED: "Running",
    TaskState.RUNNING: "Running",
    TaskState.COMPLETED: "Completed",
    TaskState.FAILED: "Failed",
    TaskState.CANCELLED: "Canceled",
    TaskState.TERMINATED: "Terminated",
    TaskState.TIMED_OUT: "TimedOut",
}


class ListTasksHandler:
    """Handles ListTasks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_tasks(self, call: Call, request: ListTasksRequest) -> ListTasksResult:
        """List tasks; see ListTasks in worker.proto."""
        tenants = call.visible_tenants(request.tenant_id)
        if tenants is not None and not tenants:
            return ListTasksResult()
        query = _query(request, tenants)
        client = self._engine.client
        wanted = ListWorkflowExecutionsRequest(
            namespace=client.namespace,
            query=query,
            page_size=request.page_size or _PAGE_SIZE,
            next_page_token=_open_token(request.page_token, query),
        )
        try:
            found = await client.workflow_service.list_workflow_executions(
                wanted, retry=True, timeout=self._engine.rpc_timeout
            )
        except RPCError as error:
            if request.page_token and error.status is RPCStatusCode.INVALID_ARGUMENT:
                raise _wrong_token() from None
            raise from_rpc_error(error) from error
        return ListTasksResult(
            tasks=[_summary(each) for each in found.executions],
            next_page_token=_seal_token(found.next_page_token, query) if found.next_page_token else "",
        )


def _query(request: ListTasksRequest, tenants: frozenset[str] | None) -> str:
    # A run that continued as new is not an ended task.
    conditions = ["ExecutionStatus != 'ContinuedAsNew'"]
    if tenants is not None:
        conditions.append(_one_of(TENANT_ATTRIBUTE.name, sorted(tenants)))
    if request.workflow_type:
        if any("\0" in name for name in request.workflow_type):
            raise invalid(FieldViolation(field="payload.workflow_type", description="must not contain NUL"))
        conditions.append(_one_of("WorkflowType", request.workflow_type))
    if request.status:
        unknown = [state for state in request.status if state not in _FILTER_WORDS]
        if unknown:
            text = f"cannot filter by {unknown[0].name}; use one of {', '.join(state.name for state in _FILTER_WORDS)}"
            raise invalid(FieldViolation(field="payload.status", description=text))
        conditions.append(_one_of("ExecutionStatus", [_FILTER_WORDS[state] for state in request.status]))
    for bound, operator in ((request.started_after, ">="), (request.started_before, "<")):
        if bound is not None:
            conditions.append(f"StartTime {operator} {quoted(_time(bound))}")
    return " AND ".join(conditions)


def _one_of(name: str, values: list[str]) -> str:
    return f"{name} IN ({', '.join(quoted(value) for value in dict.fromkeys(values))})"


def _time(bound: datetime) -> str:
    # SQL databases store starts with microseconds: a finer bound would exclude the very task that it was copied from.
    return bound.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _summary(info: WorkflowExecutionInfo) -> TaskSummary:
    attributes = converter.decode_typed_search_attributes(info.search_attributes)
    return TaskSummary(
        workflow_id=info.execution.workflow_id,
        run_id=info.execution.run_id,
        workflow_type=info.type.name,
        status=STATES.get(info.status, TaskState.UNKNOWN),
        tenant_id=attributes.get(TENANT_ATTRIBUTE) or "",
        started_at=instant(info.start_time),
        closed_at=instant(info.close_time),
    )


def _mark(token: bytes, query: str) -> bytes:
    """Return a token's checksum, which detects tokens of other lists and changed ones.

    The server answers a foreign token with an internal error.
    """
    return hashlib.sha256(query.encode() + b"\0" + token).digest()[:_MARK]


def _seal_token(token: bytes, query: str) -> str:
    return base64.urlsafe_b64encode(_mark(token, query) + token).decode()


def _open_token(text: str, query: str) -> bytes:
    if not text:
        return b""
    try:
        sealed = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _wrong_token() from None
    token = sealed[_MARK:]
    if sealed[:_MARK] != _mark(token, query):
        raise _wrong_token()
    return token


def _wrong_token() -> ServiceError:
    text = "is not the next_page_token of a list with the same conditions; begin again without it"
    violation = FieldViolation(field="payload.page_token", description=text)
    return ServiceError(Reason.PAGE_TOKEN_INVALID, f"page_token {text}", violations=[violation])
