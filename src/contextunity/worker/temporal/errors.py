"""How input is refused that a workflow or an activity cannot take, so that nobody repeats it in vain."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.exceptions import ApplicationError

from contextunity.core.errors import CodecError, ContextUnityError, Violation

__all__ = ["INVALID_INPUT", "PayloadKeyError", "UndecodableInputError", "invalid_input"]

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


class PayloadKeyError(ContextUnityError):
    """A payload cannot be decrypted with the keys that this process has.

    It is no CodecError: nothing is wrong with the payload. What needs it is retried until the key is there.
    """


def _details(violations: Sequence[Violation]) -> list[dict[str, str]]:
    return [{"field": each.path, "description": each.reason} for each in violations]
