"""The errors of the code module, each with the stable type that callers see in Temporal.

A program's own errors are in the status of its answer. These errors are for invalid requests, and for failures of
sandboxes and tools.
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
    "SnapshotRetiredError",
    "SnapshotUntrustedError",
    "ToolFailedError",
    "ToolRefusedError",
    "ToolUnknownError",
]


class CodeError(ContextUnityError):
    """A program is not run or not resumed.

    Attributes:
        type: value of `ApplicationError.type`. It is part of the contract, and stays even if the class is renamed.
        retryable: whether a retry may succeed.
    """

    type: ClassVar[str] = "Code"
    retryable: ClassVar[bool] = False


class LimitExceededError(CodeError):
    """A caller asks for more than the deployment allows."""

    type = "LimitExceeded"

    def __init__(self, excesses: Iterable[str]) -> None:
        """Initialize with each limit above its maximum."""
        self.excesses = tuple(excesses)
        super().__init__(f"{'; '.join(self.excesses)}; ask for less, or raise [modules.code.maximum] in the settings")


class RequestInvalidError(CodeError):
    """A request that no sandbox can run, such as a file outside the program's folder."""

    type = "RequestInvalid"


class LanguageUnknownError(CodeError):
    """No backend runs this language, or not with these features."""

    type = "LanguageUnknown"


class SandboxBusyError(CodeError):
    """All places are taken; the workflow retries later."""

    type = "SandboxBusy"


class SandboxFailedError(CodeError):
    """The sandbox failed; a retry may help."""

    type = "SandboxFailed"
    retryable = True


class SandboxUnavailable(CodeError):  # noqa: N818 - its name is the error type that contracts list
    """The sandbox is not supported here. The text says what is missing; no program was run."""

    type = "SandboxUnavailable"


class SnapshotUntrustedError(CodeError):
    """The state of a stopped program is not loaded, because no worker with these keys made it like this."""

    type = "SnapshotUntrusted"


class SnapshotRetiredError(CodeError):
    """The state of a stopped program is from another version of the interpreter.

    Another worker may have that version; if none takes a retry, the workflow repeats the program.
    """

    type = "SnapshotRetired"
    retryable = True


class ToolUnknownError(CodeError):
    """The tool does not exist."""

    type = "ToolUnknown"

    def __init__(self, names: Iterable[str], *, known: Iterable[str]) -> None:
        """Initialize with the requested and the known tools."""
        self.names, self.known = tuple(names), sorted(known)
        asked = ", ".join(repr(name) for name in self.names)
        super().__init__(f"there is no tool {asked}; this deployment offers: {', '.join(self.known) or 'none'}")


class ToolRefusedError(CodeError):
    """A tool rejects a call; a retry does not help. The program sees an exception.

    Attributes:
        error_type: name of that exception, a builtin one such as ValueError.
    """

    type = "ToolRefused"

    def __init__(self, reason: str, *, error_type: str = "ValueError") -> None:
        """Initialize with the reason, for the program's author."""
        self.error_type = error_type
        super().__init__(reason)


class ToolFailedError(CodeError):
    """A tool failed; it is called again, and the program waits.

    Attributes:
        retry_after: seconds to wait before a retry, from the server that it called; 0 without any.
    """

    type = "ToolFailed"
    retryable = True

    def __init__(self, reason: str, *, retry_after: float = 0.0) -> None:
        """Initialize with what failed."""
        self.retry_after = retry_after
        super().__init__(reason)
