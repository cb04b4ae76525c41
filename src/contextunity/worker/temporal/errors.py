"""How input is refused that a workflow or an activity cannot take, so that nobody repeats it in vain; and what the
server means where it finds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core.errors import CodecError, Violation

__all__ = ["INVALID_INPUT", "UndecodableInputError", "invalid_input", "is_not_found", "missing_namespace"]

INVALID_INPUT = "InvalidInput"
"""Type of the failure of a workflow, update or activity whose input cannot be decoded or breaks the rules of its proto.

Its one detail is a list of all that is wrong, each as an object with `field`, the dotted path in proto names, and
`description`.
"""


def invalid_input(text: str, violations: Sequence[Violation] = ()) -> ApplicationError:
    """The error that refuses an input; it is not retried."""
    return ApplicationError(text, _details(violations), type=INVALID_INPUT, non_retryable=True)


class UndecodableInputError(CodecError, ApplicationError):
    """A payload is not what the workflow expects. The SDK fails the workflow with it, not only the task."""

    def __init__(self, error: CodecError) -> None:
        CodecError.__init__(self, error.reason, path=error.path, message_type=error.message_type)
        self.violations = error.violations
        ApplicationError.__init__(self, str(error), _details(error.violations), type=INVALID_INPUT, non_retryable=True)


def _details(violations: Sequence[Violation]) -> list[dict[str, str]]:
    return [{"field": each.path, "description": each.reason} for each in violations]


def is_not_found(error: RPCError) -> bool:
    """Whether the server does not have what it was asked for. A namespace that is missing says nothing of that."""
    return error.status is RPCStatusCode.NOT_FOUND and not missing_namespace(error)


def missing_namespace(error: RPCError) -> str:
    """The namespace that the server does not have; empty where it complains of something else."""
    found = NamespaceNotFoundFailure()
    if error.status is RPCStatusCode.NOT_FOUND and any(each.Unpack(found) for each in error.grpc_status.details):
        return found.namespace
    return ""
