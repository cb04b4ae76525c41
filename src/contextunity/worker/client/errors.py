"""Errors for callers: the service's errors with their google.rpc details, and failed tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
from contextunity.gen.contextunity.worker import TaskState, TaskStatus
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2  # pyright: ignore[reportMissingTypeStubs]  # there are none
from grpc_status import rpc_status

from contextunity.core.errors import ContextUnityError

__all__ = ["FieldViolation", "TaskFailedError", "WorkerServiceError"]

_TLS_FAILED, _NO_TLS, _UNTRUSTED = "Tls handshake failed", "WRONG_VERSION_NUMBER", "CERTIFICATE_VERIFY_FAILED"
"""Parts of grpcio's details if a handshake fails; the latter two are OpenSSL's own names."""
_OWN_CANCELLATIONS = ("Locally cancelled by application!", "Channel closed!")
"""grpcio's details if this process cancelled the call itself."""
_TRANSPORT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldViolation:
    """One violation of a request.

    Attributes:
        field: dotted path in the request, such as `payload.args.supplier_code`.
        description: what is wrong.
    """

    field: str
    description: str

    def __str__(self) -> str:
        """Return the path and the description."""
        return f"{self.field}: {self.description}" if self.field else self.description


class WorkerServiceError(ContextUnityError):
    """A call failed.

    Attributes:
        code: the gRPC status.
        reason: the service's stable word in capitals, such as `TASK_UNKNOWN`; empty if the error has none.
        message: what is wrong and the way out, for people.
        violations: violations of single fields of the request.
        metadata: details for programs.
        trace_id: trace of the request, which is also in the service's log.
        retry_after: seconds to wait before a retry, if the service names them; otherwise None.
        method: name of the called method.
        target: address that was called.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: Sequence[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        trace_id: str = "",
        retry_after: float | None = None,
        method: str = "",
        target: str = "",
    ) -> None:
        """Create the error; its text begins with the status and the reason."""
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.trace_id = trace_id
        self.retry_after = retry_after
        self.method = method
        self.target = target
        self._lasting = self._dropped = False
        super().__init__(f"{' '.join(filter(None, (code.name, reason)))}: {message}")

    @property
    def unreachable(self) -> bool:
        """Whether no service answered, or only one that cannot reach what it needs."""
        if self.reason:
            return self.reason in ("TEMPORAL_UNAVAILABLE", "STOPPING")
        return self.code in _TRANSPORT

    @property
    def transient(self) -> bool:
        """Whether a retry with the same unit can succeed."""
        if self._lasting:
            return False
        return self.code is grpc.StatusCode.UNAVAILABLE or self.retry_after is not None or self._dropped

    @classmethod
    def from_rpc_error(
        cls, error: grpc.RpcError, *, method: str, target: str, trace_id: str = ""
    ) -> WorkerServiceError:
        """Convert an error of grpcio, sync or async.

        Args:
            error: the error of a call.
            method: name of the method.
            target: address that was called.
            trace_id: trace of the request; the answer's trace_id takes precedence.
        """
        call = cast("Any", error)
        code: grpc.StatusCode = call.code()
        info, bad, retry = _details(call)
        if not info.reason:
            details = call.details() or ""
            made = cls(
                code,
                _transport_message(code, details, method, target),
                trace_id=trace_id,
                method=method,
                target=target,
            )
            # A retry may use another address of the name, where nothing listens, and would report that instead.
            made._lasting = _TLS_FAILED in details and (_NO_TLS in details or _UNTRUSTED in details)
            # A server that stops drops calls that reach it in the same moment, without a word.
            made._dropped = code is grpc.StatusCode.CANCELLED and details not in _OWN_CANCELLATIONS
            return made
        metadata = dict(info.metadata)
        return cls(
            code,
            call.details() or "",
            reason=info.reason,
            violations=[
                FieldViolation(field=each.field, description=each.description) for each in bad.field_violations
            ],
            metadata=metadata,
            trace_id=metadata.pop("trace_id", "") or trace_id,
            retry_after=None if retry is None else retry.retry_delay.ToTimedelta().total_seconds(),
            method=method,
            target=target,
        )


class TaskFailedError(ContextUnityError):
    """A task ended without a result.

    Attributes:
        workflow_id: id of the task.
        state: FAILED, CANCELLED, TERMINATED or TIMED_OUT.
        status: its last status, including the chain of causes.
    """

    def __init__(self, status: TaskStatus) -> None:
        """Create the error from a task's last status."""
        self.workflow_id = status.workflow_id
        self.state = status.status
        self.status = status
        # For cancelled, terminated and timed out tasks, the status' error only repeats the state.
        ended = status.status in (TaskState.CANCELLED, TaskState.TERMINATED)
        said = status.reason if ended else status.error
        word = (TaskState(status.status).name or "").lower()
        super().__init__(f"task {status.workflow_id} {word}" + (f": {said}" if said else ""))


def _details(call: Any) -> tuple[Any, Any, Any]:
    """Return ErrorInfo and BadRequest, empty if missing, and RetryInfo or None."""
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), None
    try:
        status = cast("Any", rpc_status).from_call(call)
    except (ValueError, DecodeError):
        # Ignore details that contradict the status or are not a google.rpc.Status, such as a proxy's.
        status = None
    for packed in status.details if status is not None else ():
        _unpack(packed, info)
        _unpack(packed, bad)
        found = error_details_pb2.RetryInfo()
        if _unpack(packed, found):
            retry = found
    return info, bad, retry


def _unpack(packed: Any, into: Message) -> bool:
    try:
        return bool(packed.Unpack(into))
    except DecodeError:
        return False


def _transport_message(code: grpc.StatusCode, details: str, method: str, target: str) -> str:
    """Return a message for an error without an answer from a service; grpcio's own text quotes its internals."""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            if _TLS_FAILED in details:
                return f"no WorkerService can be reached at {target} over TLS: {_tls_error(details)}"
            # The last part is the system's error, such as "Connection refused (111)".
            said = details.rpartition(": ")[2] or "no connection"
            if "(" not in said:
                said = said.rstrip("])")  # of the surrounding text
            return f"no WorkerService can be reached at {target} ({said})"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{method} was not answered in time at {target}"
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"{target} has no method {method}: it is not a WorkerService, or an older one"
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return f"{method} at {target}: a unit is larger than the limit ({details})"
        case _:
            return f"{method} at {target}: {details or 'no details'}"


def _tls_error(details: str) -> str:
    if _NO_TLS in details:
        return "it is a service without TLS: use http:// or no scheme"
    if _UNTRUSTED in details:
        return f"its certificate is not trusted ({details.rpartition(_UNTRUSTED)[2].strip(': ').partition(': ')[0]})"
    return "the handshake failed"
