"""The end of a task: watch it to its last state, and decode its result."""

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
    """Return whether this state is final."""
    return state not in _UNDER_WAY


@dataclass(slots=True)
class Watching:
    """A watch over several streams, each of which resumes where the previous one broke.

    Attributes:
        request: request of the next stream.
        reconnects: retries of the streams.
        timeout: seconds for the whole watch; None for no limit.
        ended: whether the task has ended.
    """

    request: WatchTaskRequest
    reconnects: Reconnects
    timeout: float | None = None
    ended: bool = False

    @classmethod
    def of(cls, task: TaskAddress, after: str, policy: RetryPolicy, timeout: float | None) -> Watching:
        """Return a new watch."""
        return cls(WatchTaskRequest(**task.fields(), after=after), Reconnects(policy, Deadline(timeout)), timeout)

    def saw(self, answer: Answer[TaskStatus]) -> None:
        """Record an answer of a stream."""
        self.reconnects.arrived()
        self.request = replace(self.request, after=answer.body.resume_token or self.request.after)
        self.ended = has_ended(answer.body.status)

    def broke(self, failure: WorkerServiceError | None) -> float:
        """Return the seconds until the next stream.

        Args:
            failure: the error that broke the stream; None if the service ended it, as it does when it stops.

        Raises:
            WorkerServiceError: the watch is not retried.
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
    """Return the result of a task that has ended.

    Args:
        answer: the last answer of its watch.
        result_type: class of the result; betterproto2.Message for its own class. None returns plain data.

    Raises:
        TaskFailedError: the task did not complete.
        CodecError: the result is of another type, or of a type that no loaded package has.
    """
    if answer.body.status is not TaskState.COMPLETED:
        raise TaskFailedError(answer.body)
    return typed_or_plain(answer.body.result, answer.payload.get("result"), result_type)


def typed_or_plain(message: betterproto2.Message | None, plain: Any, result_type: type[M] | None) -> M | Any:
    """Return a typed message or its plain data; see `result_of`.

    Args:
        message: the message, unpacked or in an Any.
        plain: the plain data of the message.
        result_type: as with `result_of`.
    """
    if result_type is None:
        return plain
    if message is None:
        raise CodecError("there is no result: the contract has no output", path="result")
    if not isinstance(message, protobuf.Any) and isinstance(message, result_type):
        return message
    packed = message if isinstance(message, protobuf.Any) else codec.pack_any(message)
    if issubclass(betterproto2.Message, result_type):
        return codec.unpack_any(packed)
    name = packed.type_url.rpartition("/")[2]
    if name != codec.full_name(result_type):
        raise CodecError(f"it is a {name}, not a {codec.full_name(result_type)}", path="result")
    return codec.decode(result_type, packed.value)
