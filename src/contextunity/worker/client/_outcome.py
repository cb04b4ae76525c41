"""How a task ends: following its states to the last one, and reading its result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

import betterproto2
import grpc
from contextunity.gen.contextunity.worker import TaskState, TaskStatus, WatchTaskRequest
from contextunity.gen.google import protobuf

from contextunity.core import codec
from contextunity.core.errors import CodecError

from ._channel import Deadline, Reconnects, RetryPolicy
from ._requests import Answer, TaskAddress
from .errors import TaskFailedError, WorkerServiceError

M = TypeVar("M", bound=betterproto2.Message)

_UNDER_WAY = {TaskState.UNSPECIFIED, TaskState.STARTED, TaskState.RUNNING, TaskState.UNKNOWN}


def has_ended(state: TaskState) -> bool:
    """Says whether a task in this state will not change any more."""
    return state not in _UNDER_WAY


@dataclass(slots=True)
class Watching:
    """A watch over several streams, each going on where the one before broke.

    Attributes:
        request: what the next stream asks for.
        reconnects: how often and how long that is done.
        timeout: seconds for all of it; None for no end.
        ended: whether the task has.
    """

    request: WatchTaskRequest
    reconnects: Reconnects
    timeout: float | None = None
    ended: bool = False

    @classmethod
    def of(cls, task: TaskAddress, after: str, policy: RetryPolicy, timeout: float | None) -> Watching:
        """A watch that nothing has come of yet."""
        return cls(WatchTaskRequest(**task.fields(), after=after), Reconnects(policy, Deadline(timeout)), timeout)

    def saw(self, answer: Answer[TaskStatus]) -> None:
        """Notes what a stream told."""
        self.reconnects.arrived()
        self.request = replace(self.request, after=answer.body.resume_token or self.request.after)
        self.ended = has_ended(answer.body.status)

    def broke(self, failure: WorkerServiceError | None) -> float:
        """Seconds until the next stream.

        Args:
            failure: what broke it; None where the service just ended it, as one does that stops.

        Raises:
            WorkerServiceError: the watch is given up.
        """
        answering = self.reconnects.began and not self.reconnects.failures
        if failure is not None and self.timeout is not None and answering and _is_over(failure):
            raise WorkerServiceError(
                failure.code,
                f"task {self.request.workflow_id} had not ended within {self.timeout:g} s",
                trace_id=failure.trace_id,
                method=failure.method,
                target=failure.target,
            ) from failure
        return self.reconnects.delay_after(
            failure
            or WorkerServiceError(
                grpc.StatusCode.UNAVAILABLE, "the service ended the watch before the task", method="WatchTask"
            )
        )


def _is_over(failure: WorkerServiceError) -> bool:
    return failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and not failure.reason


@overload
def result_of(answer: Answer[TaskStatus], result_type: None) -> Any: ...
@overload
def result_of(answer: Answer[TaskStatus], result_type: type[M]) -> M: ...
def result_of(answer: Answer[TaskStatus], result_type: type[M] | None) -> M | Any:
    """The result of a task that has ended.

    Args:
        answer: its last status.
        result_type: class of the result; betterproto2.Message stands for whichever it is. None gives plain data.

    Raises:
        TaskFailedError: it ended otherwise.
        CodecError: the result is of another type, or of one that no loaded package has.
    """
    if answer.body.status is not TaskState.COMPLETED:
        raise TaskFailedError(answer.body)
    return typed_or_plain(answer.body.result, answer.payload.get("result"), result_type)


def typed_or_plain(message: betterproto2.Message | None, plain: Any, result_type: type[M] | None) -> M | Any:
    """One of the two forms in which the service gives a typed message; see `result_of`.

    Args:
        message: in an Any, or as it was unpacked.
        plain: the same as plain data.
        result_type: as with `result_of`.
    """
    if result_type is None:
        return plain
    if message is None:
        raise CodecError("there is none: the contract has no output", path="result")
    if not isinstance(message, protobuf.Any) and isinstance(message, result_type):
        return message
    packed = message if isinstance(message, protobuf.Any) else codec.pack_any(message)
    if issubclass(betterproto2.Message, result_type):
        return codec.unpack_any(packed)
    name = packed.type_url.rpartition("/")[2]
    if name != codec.full_name(result_type):
        raise CodecError(f"it is a {name}, not a {codec.full_name(result_type)}", path="result")
    return codec.decode(result_type, packed.value)
