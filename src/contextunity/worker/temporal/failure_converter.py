"""Converts exceptions to failures: final if a retry does not help, and no larger than the server accepts."""

from __future__ import annotations

from temporalio import activity
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import ApplicationError

from contextunity.core.errors import CodecError

from .errors import PayloadTooLargeError, UndecodableInputError, UnreadablePayloadError

__all__ = ["EncodingFailureConverter", "FailureConverter"]

_SDK_CANNOT_DECODE = "Failed decoding arguments"
_LARGEST_FAILURE = 1024 * 1024
_LONGEST_TEXT = 4096
_LONGEST_FAILURE = 3000
"""Maximum bytes of an activity's failure. Above 4 KiB, the server truncates it, and keeps it as the cause of its own
failure; its limit is configurable, and a codec makes payloads longer."""
_SHORTER = (((1500, 1000), (1000, 500)), ((1500, 700), (300, 200)), ((1500, 500), (200, 0)), ((1000, 300), (100, 0)))
"""Limits in bytes, tried in this order, for the message and the stack trace of an error and of its causes."""


class FailureConverter(DefaultFailureConverter):
    """Converts exceptions like the SDK, except two kinds that would be retried forever.

    - An activity that cannot decode its input fails without retries.
    - A failure that is too large for the server is truncated; that of an activity that is retried to what the server
      keeps of an attempt, some KiB.
    """

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Fill in the failure of an exception."""
        try:
            self._to_failure(exception, payload_converter, failure)
        except PayloadTooLargeError as error:
            failure.Clear()
            self._to_failure(_without_details(exception, error), payload_converter, failure)
        if failure.ByteSize() > _LARGEST_FAILURE:
            _cut(failure)

    def _to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        cause = exception.__cause__
        undecodable = isinstance(exception, ApplicationError) and exception.message == _SDK_CANNOT_DECODE
        if undecodable and isinstance(cause, CodecError):
            super().to_failure(UndecodableInputError(cause), payload_converter, failure)
        else:
            super().to_failure(exception, payload_converter, failure)
        if isinstance(cause, UnreadablePayloadError) and failure.HasField("application_failure_info"):
            # The SDK's error for heartbeat details is final, but they can be read later.
            failure.application_failure_info.non_retryable = False
        if activity.in_activity() and not failure.application_failure_info.non_retryable:
            _shorten(failure)


class EncodingFailureConverter(FailureConverter):
    """Moves messages and stack traces to where a payload codec encodes them, after truncating them."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Fill in the failure of an exception."""
        super().to_failure(exception, payload_converter, failure)
        texts = {"message": failure.message, "stack_trace": failure.stack_trace}
        (payload,) = payload_converter.to_payloads([texts])
        failure.encoded_attributes.CopyFrom(payload)
        # The SDKs' own text, which the web UI recognizes.
        failure.message, failure.stack_trace = "Encoded failure", ""


def _shorten(failure: Failure) -> None:
    """Truncate messages and stack traces, and finally drop causes; details are data of the program, and stay."""
    chain = [failure]
    while chain[-1].HasField("cause"):
        chain.append(chain[-1].cause)
    for own, of_causes in _SHORTER:
        if failure.ByteSize() <= _LONGEST_FAILURE:
            return
        for each in chain:
            message, trace = own if each is failure else of_causes
            each.message = _beginning(each.message, message)
            each.stack_trace = _end(each.stack_trace, trace)
    for each in reversed(chain[:-1]):
        if failure.ByteSize() <= _LONGEST_FAILURE:
            return
        each.ClearField("cause")


def _beginning(text: str, limit: int) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= limit else f"{encoded[: limit - 4].decode(errors='ignore')} …"


def _end(trace: str, limit: int) -> str:
    """Return the last lines of a stack trace, which are nearest to the error."""
    encoded = trace.encode(errors="replace")
    if len(encoded) <= limit:
        return trace
    _, _, lines = encoded[len(encoded) - limit :].decode(errors="ignore").partition("\n")
    return f"…\n{lines}" if lines else ""


def _without_details(exception: BaseException, error: PayloadTooLargeError) -> ApplicationError:
    """Return an exception whose details are too large without its details."""
    left = ApplicationError(
        f"{exception} (without its details: {error.message})",
        type=(exception.type if isinstance(exception, ApplicationError) else None) or type(exception).__name__,
        non_retryable=isinstance(exception, ApplicationError) and exception.non_retryable,
    )
    left.__cause__, left.__traceback__ = exception.__cause__, exception.__traceback__
    return left


def _cut(failure: Failure) -> None:
    """Truncate the texts of a failure and its causes, and drop their details."""
    size = failure.ByteSize()
    while True:
        if len(failure.message) > _LONGEST_TEXT:
            failure.message = f"{failure.message[:_LONGEST_TEXT]} … (cut: the failure had {size:,} bytes)"
        failure.stack_trace = failure.stack_trace[-_LONGEST_TEXT:]
        if failure.HasField("application_failure_info"):
            failure.application_failure_info.ClearField("details")
        if not failure.HasField("cause"):
            return
        failure = failure.cause
