"""Errors that fail workflows and activities without retries: input that they reject, and payloads that Temporal
rejects; and the meaning of the server's NOT_FOUND.
"""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core.errors import CodecError, ContextUnityError, Violation

__all__ = [
    "INVALID_INPUT",
    "PAYLOAD_TOO_LARGE",
    "PayloadKeyError",
    "PayloadStorageError",
    "PayloadTooLargeError",
    "StoredPayloadError",
    "UndecodableInputError",
    "UnreadablePayloadError",
    "invalid_input",
    "is_not_found",
    "missing_namespace",
]

INVALID_INPUT = "InvalidInput"
"""Type of the failure of a workflow, update or activity whose input cannot be decoded or violates the rules of its
proto.

Its one detail is a list of all violations, each as an object with `field`, the dotted path in proto names, and
`description`.
"""


PAYLOAD_TOO_LARGE = "PayloadTooLarge"
"""Type of the failure of a workflow or activity whose input or result exceeds the Temporal server's limit."""


def invalid_input(text: str, violations: Sequence[Violation] = ()) -> ApplicationError:
    """Return the error for invalid input; it is not retried."""
    return ApplicationError(text, _details(violations), type=INVALID_INPUT, non_retryable=True)


class UndecodableInputError(CodecError, ApplicationError):
    """A payload does not match the workflow. The SDK fails the workflow with it, not only the task."""

    def __init__(self, error: CodecError) -> None:
        CodecError.__init__(self, error.reason, path=error.path, message_type=error.message_type)
        self.violations = error.violations
        ApplicationError.__init__(self, str(error), _details(error.violations), type=INVALID_INPUT, non_retryable=True)


class PayloadTooLargeError(ContextUnityError, ApplicationError):
    """An input or a result exceeds the limit of the Temporal server, or of the payload storage. A retry does not help.

    Attributes:
        size: its size in bytes.
        limit: the limit in bytes.
        largest: its largest part: `the field 'harvest_id' of HarvestResponse, with 3,000,004 bytes`.
        taker: what has the limit.
    """

    def __init__(self, size: int, limit: int, largest: str, where: str = "", taker: str = "Temporal") -> None:
        self.size, self.limit, self.largest, self.taker = size, limit, largest, taker
        ApplicationError.__init__(
            self,
            f"{where or 'a payload'} has {size:,} bytes, and {taker} takes {limit:,} at most; the largest part is "
            f"{largest}. Keep it in a database or file, and pass on where it is",
            type=PAYLOAD_TOO_LARGE,
            non_retryable=True,
        )

    def of(self, where: str) -> PayloadTooLargeError:
        """Return the same error with the owner of the payload: `the input of activity 'fetch'`."""
        return PayloadTooLargeError(self.size, self.limit, self.largest, where, self.taker)


class UnreadablePayloadError(ContextUnityError):
    """A payload cannot be read by this process, but by another, or later.

    It is not a CodecError, because the payload is valid. Tasks are retried until it can be read.
    """


class PayloadKeyError(UnreadablePayloadError):
    """A payload cannot be decrypted with the keys of this process."""


class StoredPayloadError(UnreadablePayloadError):
    """A payload is not in the payload storage, cannot be read there, or has changed since it was stored."""


class PayloadStorageError(ContextUnityError):
    """The payload storage does not take a payload. The task is retried."""


def _details(violations: Sequence[Violation]) -> list[dict[str, str]]:
    return [{"field": each.path, "description": each.reason} for each in violations]


def is_not_found(error: RPCError) -> bool:
    """Return whether the server lacks the requested object; a missing namespace is another error."""
    return error.status is RPCStatusCode.NOT_FOUND and not missing_namespace(error)


def missing_namespace(error: RPCError) -> str:
    """Return the name of the missing namespace; empty for other errors."""
    found = NamespaceNotFoundFailure()
    if error.status is RPCStatusCode.NOT_FOUND and any(each.Unpack(found) for each in error.grpc_status.details):
        return found.namespace
    return ""
