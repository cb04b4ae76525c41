"""The errors of the code module, each with the stable type that callers see in Temporal.

What a program does wrong is no error but the status of its answer. These are requests that cannot be, and sandboxes
and tools that fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from contextunity.core.errors import ContextUnityError

__all__ = [
    "CodeError",
    "LanguageUnknownError",
    "LimitExceededError",
    "RequestInvalidError",
    "SandboxBusyError",
    "SandboxFailedError",
    "SandboxUnavailable",
    "ToolFailedError",
    "ToolRefusedError",
    "ToolUnknownError",
]


class CodeError(ContextUnityError):
    """A program is not run, or not on.

    Attributes:
        type: the word that goes into `ApplicationError.type`. It is part of the contract and stays although a class may
            be renamed.
        retryable: whether the same attempt may succeed later without anybody doing something.
    """

    type: ClassVar[str] = "Code"
    retryable: ClassVar[bool] = False


class LimitExceededError(CodeError):
    """A caller asks for more than the deployment allows."""

    type = "LimitExceeded"

    def __init__(self, excesses: Iterable[str]) -> None:
        """Say each limit that is above its maximum."""
        self.excesses = tuple(excesses)
        super().__init__(f"{'; '.join(self.excesses)}; ask for less, or raise [modules.code.maximum] in the settings")


class RequestInvalidError(CodeError):
    """A request that no sandbox could run, such as a file outside the program's folder."""

    type = "RequestInvalid"


class LanguageUnknownError(CodeError):
    """No backend runs this language, or not with what is asked for."""

    type = "LanguageUnknown"


class SandboxBusyError(CodeError):
    """All places are taken; the workflow asks again later."""

    type = "SandboxBusy"


class SandboxFailedError(CodeError):
    """The sandbox broke down; another attempt may find it well."""

    type = "SandboxFailed"
    retryable = True


class SandboxUnavailable(CodeError):  # noqa: N818 - its name is the error type that contracts list
    """The sandbox cannot work here. The text says what is missing; no program was run."""

    type = "SandboxUnavailable"


class ToolUnknownError(CodeError):
    """No tool of this name is offered."""

    type = "ToolUnknown"

    def __init__(self, names: Iterable[str], *, known: Iterable[str]) -> None:
        """Say which tools were asked for, and which there are."""
        self.names, self.known = tuple(names), sorted(known)
        asked = ", ".join(repr(name) for name in self.names)
        super().__init__(f"there is no tool {asked}; this deployment offers: {', '.join(self.known) or 'none'}")


class ToolRefusedError(CodeError):
    """A tool refuses what it is asked; asking again is of no use. The program sees an exception.

    Attributes:
        error_type: name of that exception, a builtin one such as ValueError.
    """

    type = "ToolRefused"

    def __init__(self, reason: str, *, error_type: str = "ValueError") -> None:
        """Say why, for the program's author to read."""
        self.error_type = error_type
        super().__init__(reason)


class ToolFailedError(CodeError):
    """A tool could not do it this time; it is called again, and the program waits.

    Attributes:
        retry_after: seconds that whom it asked wants to be left alone for; 0 where nobody does.
    """

    type = "ToolFailed"
    retryable = True

    def __init__(self, reason: str, *, retry_after: float = 0.0) -> None:
        """Say what failed."""
        self.retry_after = retry_after
        super().__init__(reason)
