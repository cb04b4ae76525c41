"""From causes to gRPC: every error that the service answers, its status code and its google.rpc details.

docs/errors.md is the same table for callers; a test holds the two together.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]  # there are none
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core.errors import CodecError, ContextUnityError

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
    """Why a call was not answered: the gRPC status, the seconds after which to try again, and what it means.

    The names are what callers find in ErrorInfo; they are never changed.
    """

    UNIT_UNREADABLE = (_Code.INVALID_ARGUMENT, None, "the bytes are not a ContextUnit")
    PAYLOAD_INVALID = (_Code.INVALID_ARGUMENT, None, "the content does not fit; each violation is named")
    BODY_INVALID = (_Code.INVALID_ARGUMENT, None, "the body is not a message that the method takes")
    TENANT_UNCLEAR = (_Code.INVALID_ARGUMENT, None, "the caller has several tenants, and named none")
    PAGE_TOKEN_INVALID = (_Code.INVALID_ARGUMENT, None, "the page token is not one of this list")
    REFUSED_BY_TEMPORAL = (_Code.INVALID_ARGUMENT, None, "the Temporal server refused a value")
    TOKEN_REFUSED = (_Code.UNAUTHENTICATED, None, "there is no token, or not a good one")
    PERMISSION_MISSING = (
        _Code.PERMISSION_DENIED,
        None,
        "the token lacks the permission of the method, or of the workflow that it schedules",
    )
    SCOPE_MISSING = (_Code.PERMISSION_DENIED, None, "the token holds none of the unit's scopes, which are listed")
    PROJECT_REFUSED = (_Code.PERMISSION_DENIED, None, "the token is bound to another project than the request names")
    TENANT_REFUSED = (_Code.PERMISSION_DENIED, None, "the tenant is not among those of the token, or it has none")
    WORKFLOW_TYPE_UNKNOWN = (_Code.NOT_FOUND, None, "no module has this workflow_type; those known are listed")
    TASK_UNKNOWN = (_Code.NOT_FOUND, None, "no task of the caller's has this id, or its retention has ended")
    HANDLER_UNKNOWN = (_Code.NOT_FOUND, None, "the contract has no such signal, query or update; it has those listed")
    SCHEDULE_UNKNOWN = (_Code.NOT_FOUND, None, "no schedule of the caller's has this id")
    TASK_EXISTS = (_Code.ALREADY_EXISTS, None, "the id is taken, and the contract allows no second task under it")
    SCHEDULE_EXISTS = (_Code.ALREADY_EXISTS, None, "somebody else made the schedule at the same time")
    TASK_ENDED = (_Code.FAILED_PRECONDITION, None, "the task has ended, so it cannot be steered any more")
    QUERY_FAILED = (_Code.FAILED_PRECONDITION, None, "the workflow answered the query with an error")
    UPDATE_REJECTED = (_Code.FAILED_PRECONDITION, None, "the workflow rejected the update, or failed to do it")
    ANSWER_UNREADABLE = (
        _Code.FAILED_PRECONDITION,
        None,
        "the worker's answer is not what the contract here says",
    )
    TASK_FAILED = (
        _Code.FAILED_PRECONDITION,
        None,
        "the task that the call waited for failed; types of application errors that are names of statuses, such as "
        "NotFound, give those",
    )
    TASK_TIMED_OUT = (_Code.FAILED_PRECONDITION, None, "the time that the task had for itself is over")
    TASK_CANCELLED = (_Code.CANCELLED, None, "the task that the call waited for was cancelled")
    TASK_TERMINATED = (_Code.ABORTED, None, "the task that the call waited for was terminated")
    NOT_FOR_CALLERS = (_Code.UNIMPLEMENTED, None, "the method is for workers or other workflows alone")
    NO_CODE_MODULE = (_Code.FAILED_PRECONDITION, None, "this deployment has no module that runs code")
    CODE_REFUSED = (_Code.INVALID_ARGUMENT, None, "the program asks for a language, tool or limit that there is not")
    SANDBOX_FAILED = (_Code.FAILED_PRECONDITION, None, "the sandbox itself failed, however often it was tried")
    UNIT_TOO_LARGE = (_Code.RESOURCE_EXHAUSTED, None, "the unit, its answer or what it gives a task is over a limit")
    QUOTA = (_Code.RESOURCE_EXHAUSTED, 1, "the tenant, or the service, has as much as it may of what `quota` names")
    TEMPORAL_BUSY = (_Code.RESOURCE_EXHAUSTED, 2, "the Temporal server limits the rate of calls")
    UNIT_LATE = (_Code.DEADLINE_EXCEEDED, None, "the unit was not there in time after the headers of its call")
    DEADLINE_PASSED = (_Code.DEADLINE_EXCEEDED, None, "the caller's deadline passed before there was an answer")
    TEMPORAL_UNAVAILABLE = (_Code.UNAVAILABLE, 1, "the Temporal server cannot be reached")
    NO_WORKER_ANSWERS = (_Code.UNAVAILABLE, 2, "no worker answered the query or update in time")
    STOPPING = (_Code.UNAVAILABLE, 1, "the service is being stopped; another one, or the next one, answers")
    TEMPORAL_ERROR = (_Code.INTERNAL, None, "the Temporal server answered with an error of its own")
    INTERNAL = (_Code.INTERNAL, None, "a fault of the service; its log has it under the trace_id")

    def __init__(self, code: grpc.StatusCode, retry_after: int | None, meaning: str) -> None:
        self.code = code
        """The gRPC status."""
        self.retry_after = retry_after
        """Seconds after which to try again; None where waiting does not help."""
        self.meaning = meaning
        """What it means, for the table in the docs."""


_TEXT_LIMIT = 1000
"""Bytes of a text in an answer other than success."""
_VIOLATIONS_LIMIT = 2500
"""Bytes of all violations. gRPC clients take 8 KiB of metadata in all, in which the message stands twice, and what is
not ASCII is written with three characters a byte; beyond that they see a broken call instead of an answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldViolation:
    """One thing wrong with a request: `field` is a dotted path in it, `description` what is wrong."""

    field: str
    description: str


@dataclass(eq=False)
class ServiceError(ContextUnityError):
    """An answer other than success.

    Attributes:
        reason: which, for programs.
        message: what is wrong and the way out, for people.
        violations: what is wrong with single fields of the request.
        metadata: further facts for programs.
        retry_after: seconds after which to try again; the reason's own where it is None.
        status: the gRPC status where it is another than the reason's own.
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
    """The error for content that does not fit."""
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
_ENDED = "workflow execution already completed"
"""What the server says, with NOT_FOUND, where a run is there but has ended."""
_TOO_LARGE = ("larger than max", "exceeds limit", "payloads with size")
"""Of what the server, gRPC and the SDK say, with several statuses, where a message is too large."""


def from_rpc_error(error: RPCError, *, workflow_id: str = "") -> ServiceError:
    """What a failed call to the Temporal server means to a caller."""
    metadata = {"workflow_id": workflow_id} if workflow_id else {}
    if error.status is RPCStatusCode.NOT_FOUND:
        if _ENDED in error.message:
            return ServiceError(Reason.TASK_ENDED, f"the task {workflow_id!r} has ended", metadata=metadata)
        return task_unknown(workflow_id)
    reason = _BY_RPC_STATUS.get(error.status, Reason.TEMPORAL_ERROR)
    if reason in (Reason.REFUSED_BY_TEMPORAL, Reason.TEMPORAL_BUSY) and any(
        each in error.message for each in _TOO_LARGE
    ):
        return too_large(metadata)
    match reason:
        case Reason.REFUSED_BY_TEMPORAL:
            # Its words are about things that callers know by other names, or not at all.
            _LOG.warning("the Temporal server refused a value: %s", error.message)
            text = "the Temporal server refused a value of the request; an id or text in it may be too long"
            return ServiceError(reason, text, metadata=metadata)
        case Reason.TEMPORAL_ERROR:
            return ServiceError(reason, f"the Temporal server answered {error.status.name}", metadata=metadata)
        case _:
            return ServiceError(reason, f"{reason.meaning}; try again", metadata=metadata)


def unreadable(what: str, workflow_id: str, error: CodecError) -> ServiceError:
    """The error for an answer of a worker that goes by another contract than the service does.

    Args:
        what: that is answered, such as `the query 'progress'`.
        workflow_id: of the task.
        error: why it cannot be read.
    """
    return ServiceError(
        Reason.ANSWER_UNREADABLE,
        f"{what} was answered with something that its contract, as the service knows it, is not: {error}; the task's "
        "workers may be of another version",
        metadata={"workflow_id": workflow_id},
    )


def too_large(metadata: Mapping[str, str]) -> ServiceError:
    """The error for input that no Temporal server keeps."""
    return ServiceError(
        Reason.UNIT_TOO_LARGE,
        "this is more than the Temporal server keeps for a task, which is 2 MiB of input unless it is configured "
        "otherwise; pass a reference to the data instead",
        metadata=metadata,
    )


def task_unknown(workflow_id: str) -> ServiceError:
    """The error for a task that is not there, or not the caller's: the two look alike."""
    return ServiceError(
        Reason.TASK_UNKNOWN,
        f"no task has the workflow_id {workflow_id!r}; check it, or whether its retention has ended",
        metadata={"workflow_id": workflow_id},
    )


def to_status(error: ServiceError, trace_id: str) -> status_pb2.Status:
    """The google.rpc.Status that clients read: ErrorInfo always, BadRequest and RetryInfo where they apply."""
    # A call that is refused by its headers has no trace yet.
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
    """As many violations as an answer can carry; the last one tells how many there are beside."""
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
