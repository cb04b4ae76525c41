"""Map errors to gRPC: every error of the service, its status code and its google.rpc details.

docs/errors.md is the same table for callers; a test keeps both equal.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]  # it has none
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core.errors import CodecError, ContextUnityError
from contextunity.worker.errors import namespace_unknown
from contextunity.worker.temporal.errors import missing_namespace

__all__ = [
    "DOMAIN",
    "FieldViolation",
    "Reason",
    "ServiceError",
    "from_rpc_error",
    "invalid",
    "to_status",
    "too_large",
    "unreadable",
]

_LOG = logging.getLogger(__name__)

DOMAIN = "worker.contextunity"
"""Domain of the google.rpc.ErrorInfo in error answers."""

_Code = grpc.StatusCode


class Reason(Enum):
    """Reason of an error: gRPC status, seconds to wait before a retry, and meaning.

    Callers find the names in ErrorInfo, so they never change.
    """

    UNIT_UNREADABLE = (_Code.INVALID_ARGUMENT, None, "the bytes are not a ContextUnit")
    PAYLOAD_INVALID = (_Code.INVALID_ARGUMENT, None, "the content is invalid; each violation is listed")
    BODY_INVALID = (_Code.INVALID_ARGUMENT, None, "the body is not a message of the method")
    TENANT_UNCLEAR = (_Code.INVALID_ARGUMENT, None, "the caller has several tenants, and the request names none")
    PAGE_TOKEN_INVALID = (_Code.INVALID_ARGUMENT, None, "the page token is not from this list")
    REFUSED_BY_TEMPORAL = (_Code.INVALID_ARGUMENT, None, "the Temporal server rejected a value; the error quotes it")
    TOKEN_REFUSED = (_Code.UNAUTHENTICATED, None, "the token is missing or invalid")
    TOKEN_UNCHECKED = (
        _Code.UNAVAILABLE,
        1,
        "the service cannot check tokens now: it lacks the issuer's keys, or the list of revoked tokens",
    )
    PERMISSION_MISSING = (
        _Code.PERMISSION_DENIED,
        None,
        "the token lacks the permission of the method, or of the workflow that it schedules",
    )
    SCOPE_MISSING = (_Code.PERMISSION_DENIED, None, "the token holds none of the unit's scopes, which are listed")
    PROJECT_REFUSED = (_Code.PERMISSION_DENIED, None, "the token is bound to a project other than the request's")
    TENANT_REFUSED = (_Code.PERMISSION_DENIED, None, "the token does not have the tenant, or has none")
    WORKFLOW_TYPE_UNKNOWN = (_Code.NOT_FOUND, None, "no module has this workflow_type; the known ones are listed")
    TASK_UNKNOWN = (_Code.NOT_FOUND, None, "the caller has no task with this id, or its retention has ended")
    HANDLER_UNKNOWN = (_Code.NOT_FOUND, None, "the contract has no such signal, query or update; its own are listed")
    SCHEDULE_UNKNOWN = (_Code.NOT_FOUND, None, "the caller has no schedule with this id")
    TASK_EXISTS = (_Code.ALREADY_EXISTS, None, "the id is taken, and the contract allows no second task with it")
    SCHEDULE_EXISTS = (_Code.ALREADY_EXISTS, None, "another client created the schedule at the same time")
    TASK_ENDED = (_Code.FAILED_PRECONDITION, None, "the task has ended, so it cannot be controlled any more")
    QUERY_FAILED = (_Code.FAILED_PRECONDITION, None, "the workflow answered the query with an error")
    UPDATE_REJECTED = (_Code.FAILED_PRECONDITION, None, "the workflow rejected the update, or failed during it")
    ANSWER_UNREADABLE = (
        _Code.FAILED_PRECONDITION,
        None,
        "the worker's answer does not match the service's contract",
    )
    PAYLOAD_UNREADABLE = (
        _Code.FAILED_PRECONDITION,
        None,
        "the service lacks the key of a payload, or cannot read it in the payload storage; the error says which",
    )
    NAMESPACE_UNKNOWN = (_Code.FAILED_PRECONDITION, None, "the Temporal server lacks the namespace of this deployment")
    TASK_FAILED = (
        _Code.FAILED_PRECONDITION,
        None,
        "the awaited task failed; an error type that names a status, such as NotFound, gives that status",
    )
    TASK_TIMED_OUT = (_Code.FAILED_PRECONDITION, None, "the awaited task exceeded its own time limit")
    TASK_CANCELLED = (_Code.CANCELLED, None, "the awaited task was cancelled")
    TASK_TERMINATED = (_Code.ABORTED, None, "the awaited task was terminated")
    NOT_FOR_CALLERS = (_Code.UNIMPLEMENTED, None, "only workers or other workflows may call the method")
    NO_CODE_MODULE = (_Code.FAILED_PRECONDITION, None, "this deployment has no module that runs code")
    CODE_REFUSED = (_Code.INVALID_ARGUMENT, None, "the program requires an unavailable language, tool or limit")
    SANDBOX_FAILED = (_Code.FAILED_PRECONDITION, None, "the sandbox itself failed on every attempt")
    UNIT_TOO_LARGE = (_Code.RESOURCE_EXHAUSTED, None, "the unit, its answer or a task's input is over a limit")
    QUOTA = (_Code.RESOURCE_EXHAUSTED, 1, "the tenant or the service has reached the limit of `quota`")
    TEMPORAL_BUSY = (_Code.RESOURCE_EXHAUSTED, 2, "the Temporal server limits the rate of calls")
    UNIT_LATE = (_Code.DEADLINE_EXCEEDED, None, "the unit did not arrive in time after the headers of its call")
    DEADLINE_PASSED = (_Code.DEADLINE_EXCEEDED, None, "the caller's deadline passed before there was an answer")
    TEMPORAL_UNAVAILABLE = (_Code.UNAVAILABLE, 1, "the Temporal server cannot be reached")
    PAYLOAD_STORAGE_UNAVAILABLE = (
        _Code.UNAVAILABLE,
        2,
        "the payload storage does not take the input; nothing was sent",
    )
    NO_WORKER_ANSWERS = (_Code.UNAVAILABLE, 2, "no worker answered the query or update in time")
    STOPPING = (_Code.UNAVAILABLE, 1, "the service is stopping; retry with another instance or after its restart")
    TEMPORAL_ERROR = (_Code.INTERNAL, None, "the Temporal server had an internal error")
    INTERNAL = (_Code.INTERNAL, None, "an error in the service; its log has it with the trace_id")

    def __init__(self, code: grpc.StatusCode, retry_after: int | None, meaning: str) -> None:
        self.code = code
        """The gRPC status."""
        self.retry_after = retry_after
        """Seconds to wait before a retry; None if a retry does not help."""
        self.meaning = meaning
        """Meaning, for the table in the docs."""


_TEXT_LIMIT = 1000
"""Maximum bytes of a text in an error answer."""
_VIOLATIONS_LIMIT = 2500
"""Maximum bytes of all violations. gRPC clients accept 8 KiB of metadata, which contains the message twice, with three
characters per byte outside ASCII; above that they see a broken call instead of the answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldViolation:
    """One violation of a request: `field` is a dotted path, `description` what is wrong."""

    field: str
    description: str


@dataclass(eq=False)
class ServiceError(ContextUnityError):
    """An error answer.

    Attributes:
        reason: reason, for programs.
        message: what is wrong and the way out, for people.
        violations: violations of single fields of the request.
        metadata: details for programs.
        retry_after: seconds to wait before a retry; None means the reason's own.
        status: the gRPC status, if it is not the reason's own.
        details: further messages for programs.
    """

    reason: Reason
    message: str
    violations: Sequence[FieldViolation] = ()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    retry_after: float | None = None
    status: grpc.StatusCode | None = None
    details: Sequence[Message] = ()

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status."""
        return self.reason.code if self.status is None else self.status

    def __str__(self) -> str:
        return f"{self.code.name} {self.reason.name}: {self.message}"


def invalid(*violations: FieldViolation) -> ServiceError:
    """Return the error for invalid content."""
    text = "; ".join(f"{each.field}: {each.description}" if each.field else each.description for each in violations)
    return ServiceError(Reason.PAYLOAD_INVALID, text, violations=violations)


_BY_RPC_STATUS = {
    RPCStatusCode.UNAVAILABLE: Reason.TEMPORAL_UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED: Reason.TEMPORAL_UNAVAILABLE,
    RPCStatusCode.CANCELLED: Reason.TEMPORAL_UNAVAILABLE,
    RPCStatusCode.UNKNOWN: Reason.TEMPORAL_UNAVAILABLE,
    RPCStatusCode.RESOURCE_EXHAUSTED: Reason.TEMPORAL_BUSY,
    RPCStatusCode.INVALID_ARGUMENT: Reason.REFUSED_BY_TEMPORAL,
}
_REFUSALS = (
    RPCStatusCode.ALREADY_EXISTS,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.OUT_OF_RANGE,
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNAUTHENTICATED,
    RPCStatusCode.UNIMPLEMENTED,
)
"""Statuses with which the server rejects a request; others are errors of the server itself."""
_ENDED = "workflow execution already completed"
"""The server's text with NOT_FOUND if a run exists but has ended."""
_TOO_LARGE = ("larger than max", "exceeds limit", "payloads with size")
"""Parts of the texts of the server, gRPC and the SDK, with several statuses, if a message is too large."""


def from_rpc_error(error: RPCError, *, workflow_id: str = "", run_id: str = "") -> ServiceError:
    """Convert a failed call to the Temporal server into an error for the caller."""
    metadata = {"workflow_id": workflow_id} if workflow_id else {}
    namespace = missing_namespace(error)
    if namespace:
        return ServiceError(Reason.NAMESPACE_UNKNOWN, namespace_unknown(namespace), metadata={"namespace": namespace})
    if error.status is RPCStatusCode.NOT_FOUND:
        if _ENDED in error.message:
            return ServiceError(Reason.TASK_ENDED, f"the task {workflow_id!r} has ended", metadata=metadata)
        return task_unknown(workflow_id, run_id)
    reason = _BY_RPC_STATUS.get(error.status, Reason.TEMPORAL_ERROR)
    if reason in (Reason.REFUSED_BY_TEMPORAL, Reason.TEMPORAL_BUSY) and any(
        each in error.message for each in _TOO_LARGE
    ):
        return too_large(metadata)
    match reason:
        case Reason.REFUSED_BY_TEMPORAL:
            # Only the server knows which value it is, and why.
            return ServiceError(reason, f"the Temporal server rejected the request: {error.message}", metadata=metadata)
        case Reason.TEMPORAL_ERROR:
            text = f"the Temporal server answered {error.status.name}"
            if error.status in _REFUSALS:
                text += f": {error.message}"
            else:
                # Internal details are only of use to operators.
                _LOG.error("%s: %s", text, error.message)
            return ServiceError(reason, text, metadata=metadata)
        case _:
            return ServiceError(reason, f"{reason.meaning}; try again", metadata=metadata)


def unreadable(what: str, workflow_id: str, error: CodecError) -> ServiceError:
    """Return the error for an answer from a worker whose contract differs from the service's.

    Args:
        what: what was answered, such as `the query 'progress'`.
        workflow_id: id of the task.
        error: why the answer is unreadable.
    """
    return ServiceError(
        Reason.ANSWER_UNREADABLE,
        f"the answer to {what} does not match the contract of the service: {error}; the task's workers may have "
        "another version",
        metadata={"workflow_id": workflow_id},
    )


def too_large(metadata: Mapping[str, str]) -> ServiceError:
    """Return the error for input that is too large for the Temporal server."""
    return ServiceError(
        Reason.UNIT_TOO_LARGE,
        "the input is larger than the Temporal server's limit, by default 2 MiB; pass a reference to the data instead, "
        "or have the operator set payload_storage",
        metadata=metadata,
    )


def task_unknown(workflow_id: str, run_id: str = "") -> ServiceError:
    """Return the error for a task that does not exist or is not the caller's: both look alike."""
    run = f" and a run {run_id!r}" if run_id else ""
    return ServiceError(
        Reason.TASK_UNKNOWN,
        f"no task has the workflow_id {workflow_id!r}{run}; check the id, or whether its retention has ended",
        metadata={"workflow_id": workflow_id},
    )


def to_status(error: ServiceError, trace_id: str) -> status_pb2.Status:
    """Build the google.rpc.Status for clients: ErrorInfo always, BadRequest and RetryInfo if they apply."""
    # A call rejected by its headers has no trace yet.
    known = {**error.metadata, "trace_id": trace_id} if trace_id else error.metadata
    metadata = {key: _cut(value, _TEXT_LIMIT) for key, value in known.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason.name, domain=DOMAIN, metadata=metadata)
    details: list[Message] = [info]
    if error.violations:
        details.append(_bad_request(error.violations))
    retry_after = error.reason.retry_after if error.retry_after is None else error.retry_after
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(retry_after * 1000))
        details.append(retry)
    packed = list[any_pb2.Any]()
    for detail in [*details, *error.details]:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    code: int = error.code.value[0]
    return status_pb2.Status(code=code, message=_cut(error.message, _TEXT_LIMIT), details=packed)


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    """Return as many violations as fit into an answer; the last one counts the rest."""
    request = error_details_pb2.BadRequest()
    for number, violation in enumerate(violations):
        request.field_violations.add(
            field=_cut(violation.field, _TEXT_LIMIT), description=_cut(violation.description, _TEXT_LIMIT)
        )
        if request.ByteSize() > _VIOLATIONS_LIMIT and number + 1 < len(violations):
            del request.field_violations[-1]
            request.field_violations.add(description=f"and {len(violations) - number} more")
            break
    return request


def _cut(text: str, limit: int) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= limit else f"{encoded[:limit].decode(errors='ignore')} …"
