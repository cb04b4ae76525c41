"""Converts a failure of Temporal to the chain of causes that callers get."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from contextunity.gen.contextunity.worker import FailureCause, FailureCauseKind
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter

from contextunity.worker.temporal.errors import UnreadablePayloadError

__all__ = ["chain_of", "decode_texts", "one_line"]

_MESSAGE_LIMIT = 4000
"""Maximum characters of a message, so that one failure does not fill an answer."""


_WRAPPERS = (FailureCauseKind.ACTIVITY, FailureCauseKind.CHILD_WORKFLOW, FailureCauseKind.SERVER)
"""Failures that do not contain the cause. The server's own failure says that the original was too large."""


async def decode_texts(failure: Failure, converter: DataConverter) -> None:
    """Decode messages that a payload codec encoded; the failure is changed in place.

    If that fails, the message says why.
    """
    chain = [failure]
    while chain[-1].HasField("cause"):
        chain.append(chain[-1].cause)
    encoded = [each for each in chain if each.HasField("encoded_attributes")]
    if not encoded:
        return
    try:
        # This decodes the payloads in place; the returned exception is not needed.
        await converter.decode_failure(failure)
    except UnreadablePayloadError as error:
        for each in encoded:
            each.message = str(error)
        return
    for each in encoded:
        (attributes,) = converter.payload_converter.from_payloads([each.encoded_attributes])
        each.message = str(attributes.get("message", each.message))


async def chain_of(
    failure: Failure, converter: DataConverter, events: Iterable[HistoryEvent] = ()
) -> list[FailureCause]:
    """Return the chain of a failure, outermost first.

    Args:
        failure: the failure in the history.
        converter: decodes what a payload codec encoded, in place.
        events: events of the history, which contain the attempt of an activity.
    """
    await decode_texts(failure, converter)
    attempts = {
        event.event_id: event.activity_task_started_event_attributes.attempt
        for event in events
        if event.HasField("activity_task_started_event_attributes")
    }
    chain = list[FailureCause]()
    current = failure
    while True:
        chain.append(_cause(current, attempts))
        if not current.HasField("cause"):
            return chain
        current = current.cause


def one_line(chain: Sequence[FailureCause]) -> str:
    """Return the application's own error; the wrappers only say that an activity or child failed."""
    if not chain:
        return ""
    told = next((cause for cause in chain if cause.kind not in _WRAPPERS), chain[-1])
    return f"{told.type}: {told.message}" if told.type else told.message


def _cause(failure: Failure, attempts: dict[int, int]) -> FailureCause:
    cause = FailureCause(message=failure.message[:_MESSAGE_LIMIT])
    match failure.WhichOneof("failure_info"):
        case "application_failure_info":
            info = failure.application_failure_info
            cause.kind, cause.type, cause.non_retryable = FailureCauseKind.APPLICATION, info.type, info.non_retryable
        case "activity_failure_info":
            activity = failure.activity_failure_info
            cause.kind, cause.activity_type = FailureCauseKind.ACTIVITY, activity.activity_type.name
            cause.retry_state = RetryState.Name(activity.retry_state).removeprefix("RETRY_STATE_")
            cause.attempt = attempts.get(activity.started_event_id, 0)
        case "child_workflow_execution_failure_info":
            child = failure.child_workflow_execution_failure_info
            cause.kind, cause.workflow_type = FailureCauseKind.CHILD_WORKFLOW, child.workflow_type.name
            cause.workflow_id = child.workflow_execution.workflow_id
            cause.retry_state = RetryState.Name(child.retry_state).removeprefix("RETRY_STATE_")
        case "timeout_failure_info":
            cause.kind = FailureCauseKind.TIMEOUT
            cause.type = TimeoutType.Name(failure.timeout_failure_info.timeout_type).removeprefix("TIMEOUT_TYPE_")
        case "canceled_failure_info":
            cause.kind = FailureCauseKind.CANCELLED
        case "terminated_failure_info":
            cause.kind = FailureCauseKind.TERMINATED
        case "server_failure_info":
            cause.kind = FailureCauseKind.SERVER
            cause.non_retryable = failure.server_failure_info.non_retryable
        case _:
            pass
    return cause
