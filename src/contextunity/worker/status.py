"""From causes to gRPC: every error that the service answers, its status code and its google.rpc details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]  # there are none
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core.errors import ContextUnityError

__all__ = ["DOMAIN", "FieldViolation", "ServiceError", "from_rpc_error", "to_status"]

DOMAIN = "worker.contextunity"
"""Domain of the google.rpc.ErrorInfo in error answers."""

_TRANSIENT = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.UNKNOWN,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldViolation:
    """One thing wrong with a request: `field` is a dotted path in it, `description` what is wrong."""

    field: str
    description: str


@dataclass(eq=False)
class ServiceError(ContextUnityError):
    """An answer other than success.

    Attributes:
        code: the gRPC status.
        reason: a stable word in capitals, for programs.
        message: what is wrong and the way out, for people.
        violations: what is wrong with single fields of the request.
        metadata: further facts for programs.
        retry_after: seconds after which to try again; None where waiting does not help.
    """

    code: grpc.StatusCode
    reason: str
    message: str
    violations: Sequence[FieldViolation] = ()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    retry_after: int | None = None

    def __str__(self) -> str:
        return f"{self.code.name} {self.reason}: {self.message}"


def from_rpc_error(error: RPCError, *, workflow_id: str = "") -> ServiceError:
    """What a failed call to the Temporal server means to a caller."""
    if error.status is RPCStatusCode.NOT_FOUND:
        return ServiceError(
            grpc.StatusCode.NOT_FOUND,
            "TASK_UNKNOWN",
            f"no task has the workflow_id {workflow_id!r}; check it, or whether its retention has ended",
            metadata={"workflow_id": workflow_id},
        )
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        return ServiceError(grpc.StatusCode.INVALID_ARGUMENT, "REFUSED_BY_TEMPORAL", error.message)
    if error.status in _TRANSIENT:
        return ServiceError(
            grpc.StatusCode.UNAVAILABLE,
            "TEMPORAL_UNAVAILABLE",
            "the Temporal server cannot be reached just now; try again",
            retry_after=1,
        )
    return ServiceError(
        grpc.StatusCode.INTERNAL, "TEMPORAL_ERROR", f"the Temporal server answered {error.status.name.lower()}"
    )


def to_status(error: ServiceError, trace_id: str) -> status_pb2.Status:
    """The google.rpc.Status that clients read: ErrorInfo always, BadRequest and RetryInfo where they apply."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata={**error.metadata, "trace_id": trace_id}
    )
    details: list[error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo] = [info]
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.description)
            for each in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = error.retry_after
        details.append(retry)
    packed = list[any_pb2.Any]()
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    code: int = error.code.value[0]
    return status_pb2.Status(code=code, message=error.message, details=packed)
