"""Define the interface of a backend, which runs untrusted programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from contextunity.gen.contextunity.code.v1 import ExecutionStatus

from contextunity.core.codec import JsonValue

__all__ = [
    "Backend",
    "Outcome",
    "Program",
    "ProgramLimits",
    "ToolBackend",
    "ToolCall",
    "ToolReply",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramLimits:
    """Limits of one program; all are positive.

    Attributes:
        wall: seconds of wall-clock time.
        cpu: seconds of processor time.
        memory_bytes: memory of the program, in addition to the interpreter's own.
        output_bytes: standard output and standard error together; the rest is cut, and the program continues.
        result_bytes: the result as JSON.
        scratch_bytes: files that the program writes, together.
    """

    wall: float
    cpu: float
    memory_bytes: int
    output_bytes: int
    result_bytes: int
    scratch_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What to run.

    Attributes:
        code: source; its result is the value of the variable `result`, otherwise of its last expression.
        limits: limits of the program.
        inputs: initial variables by name; names are identifiers.
        files: initial files in its folder by relative path.
        tools: names of the tools that it may call; only a ToolBackend supports them.
    """

    code: str
    limits: ProgramLimits
    inputs: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a program ended.

    Attributes:
        status: how the program ended.
        has_result: whether it has a result; None can be a result.
        result: the result; None without one.
        stdout: standard output, as text.
        stderr: standard error, with the traceback of an exception.
        exit_code: exit code like a process's: 0 if the status is OK, 128 plus the number of a signal that ended it,
            otherwise another number.
        duration_ms: wall-clock milliseconds.
        truncated: whether output was cut.
        error: what went wrong, in one line of at most 2,000 characters; empty on success.
        error_type: type of the exception, such as ValueError; empty without one.
    """

    status: ExecutionStatus
    has_result: bool = False
    result: JsonValue = None
    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    duration_ms: int = 0
    truncated: bool = False
    error: str = ""
    error_type: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A program that called a tool, and stopped there.

    Attributes:
        name: the tool.
        positional: positional arguments.
        named: keyword arguments.
        snapshot: state of the program, for `resume` in any process.
        stdout: standard output since the start or the last resume.
        stderr: standard error since then.
        duration_ms: wall-clock milliseconds since then.
        truncated: whether output since then was cut.
    """

    name: str
    positional: list[JsonValue]
    named: dict[str, JsonValue]
    snapshot: bytes
    stdout: str = ""
    stderr: str = ""
    duration_ms: int = 0
    truncated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolReply:
    """Answer of a tool: a result, or an error, which the program sees as an exception.

    Attributes:
        result: the result; ignored if there is an error.
        error: why the tool rejected the call; empty on success.
        error_type: name of a builtin exception, such as ValueError; empty or unknown means RuntimeError.
    """

    result: JsonValue = None
    error: str = ""
    error_type: str = ""


class Backend(Protocol):
    """Run programs.

    Errors of a program are in its Outcome. An exception means that the sandbox failed, and that a retry may help;
    SandboxUnavailable means that it does not. Cancelling a run ends its program before the cancellation is raised.
    """

    @property
    def name(self) -> str:
        """Name of the backend: monty or cpython."""
        ...

    async def run(self, program: Program) -> Outcome | ToolCall:
        """Run a program until it ends or, on a ToolBackend, calls a tool.

        Raises:
            SandboxUnavailable: the sandbox cannot work here.
        """
        ...

    async def aclose(self) -> None:
        """End running programs. Closing twice is allowed; running a program afterwards is an error."""
        ...


@runtime_checkable
class ToolBackend(Backend, Protocol):
    """A backend whose programs can call tools."""

    async def resume(self, program: Program, snapshot: bytes, reply: ToolReply) -> Outcome | ToolCall:
        """Resume a program that stopped at a tool.

        Args:
            program: the program given to `run`, its limits reduced by what it has used.
            snapshot: state where it stopped.
            reply: answer of the tool.

        Raises:
            SnapshotRetiredError: the state is from another version of the interpreter.
            SandboxUnavailable: the sandbox cannot work here.
        """
        ...
