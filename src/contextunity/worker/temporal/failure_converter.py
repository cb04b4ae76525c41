"""The failures that exceptions become: final where a retry is of no use, and no larger than the server keeps."""

from __future__ import annotations

from temporalio import activity
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import ApplicationError

from contextunity.core.errors import CodecError

from .errors import PayloadTooLargeError, UndecodableInputError

__all__ = ["EncodingFailureConverter", "FailureConverter"]

_SDK_CANNOT_DECODE = "Failed decoding arguments"
_LARGEST_FAILURE = 1024 * 1024
_LONGEST_TEXT = 4096
_LONGEST_FAILURE = 3000
"""Bytes of an activity's failure. Where one has more than 4 KiB, the server keeps of it what it pleases, as the cause
of a failure of its own; it is configurable there, and a codec makes payloads longer."""
_SHORTER = (((1500, 1000), (1000, 500)), ((1500, 700), (300, 200)), ((1500, 500), (200, 0)), ((1000, 300), (100, 0)))
"""Bytes that the message and the stack trace of an error, and those of its causes, may have, step by step."""


class FailureConverter(DefaultFailureConverter):
    """Converts exceptions as the SDK does, but for two kinds that it would have retried for ever.

    - An activity that cannot read its input fails, without retries.
    - A failure that is too large for the server is cut; one of an activity that is retried to what the server keeps of
      an attempt, some KiB.
    """

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Fills in the failure that an exception becomes."""
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
        if activity.in_activity() and not failure.application_failure_info.non_retryable:
            _shorten(failure)


class EncodingFailureConverter(FailureConverter):
    """Moves messages and stack traces to where a payload codec encodes them, after they were cut."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Fills in the failure that an exception becomes."""
        super().to_failure(exception, payload_converter, failure)
        texts = {"message": failure.message, "stack_trace": failure.stack_trace}
        (payload,) = payload_converter.to_payloads([texts])
        failure.encoded_attributes.CopyFrom(payload)
        # The words of the SDKs, which the web UI knows.
        failure.message, failure.stack_trace = "Encoded failure", ""


def _shorten(failure: Failure) -> None:
    """Cuts messages and stack traces, and lastly leaves out causes; details are data of the program's, and stay."""
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
    """The last lines of a stack trace: those are nearest to where it failed."""
    encoded = trace.encode(errors="replace")
    if len(encoded) <= limit:
        return trace
    _, _, lines = encoded[len(encoded) - limit :].decode(errors="ignore").partition("\n")
    return f"…\n{lines}" if lines else ""


def _without_details(exception: BaseException, error: PayloadTooLargeError) -> ApplicationError:
    """What is left of an exception whose details are too large."""
    left = ApplicationError(
        f"{exception} (without its details: {error.message})",
        type=(exception.type if isinstance(exception, ApplicationError) else None) or type(exception).__name__,
        non_retryable=isinstance(exception, ApplicationError) and exception.non_retryable,
    )
    left.__cause__, left.__traceback__ = exception.__cause__, exception.__traceback__
    return left


def _cut(failure: Failure) -> None:
    """Cuts what a failure and its causes say, and leaves out their details."""
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
