"""Define what a backend is, which runs programs that nobody trusts."""

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
    """Bounds on one program; all are above zero.

    Attributes:
        wall: seconds of wall-clock time.
        cpu: seconds of processor time.
        memory_bytes: memory of the program, on top of what the interpreter itself needs.
        output_bytes: standard output and standard error together; what is beyond is cut, and the program goes on.
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
        code: source; its result is the value of the variable `result`, else of its last expression.
        limits: the bounds.
        inputs: variables that it finds, by name; names are identifiers.
        files: files that it finds in its folder, by relative path.
        tools: names of the tools that it may call; only a ToolBackend has any.
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
        status: in which way.
        has_result: whether it gave a result; None is one.
        result: that result; None where there is none.
        stdout: what it wrote to standard output, as text.
        stderr: what it wrote to standard error, with the traceback of an exception.
        exit_code: as of a process: 0 where the status is OK, else not; 128 and the number of a signal that ended it.
        duration_ms: wall-clock milliseconds.
        truncated: whether output was cut.
        error: what went wrong, in one line of at most 2,000 characters; empty where nothing did.
        error_type: type of the exception, such as ValueError; empty where there was none.
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
        positional: its arguments by place.
        named: its arguments by name.
        snapshot: the program as it stands, for `resume` in any process.
        stdout: what it wrote since it began, or was last gone on with.
        stderr: the same of standard error.
        duration_ms: wall-clock milliseconds of that time.
        truncated: whether output of that time was cut.
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
    """What a tool gave: a result, or an error, which the program sees as an exception.

    Attributes:
        result: the result; of no meaning where there is an error.
        error: why the tool refused; empty where it did not.
        error_type: name of a builtin exception, such as ValueError; RuntimeError where it is empty or unknown.
    """

    result: JsonValue = None
    error: str = ""
    error_type: str = ""


class Backend(Protocol):
    """Run programs.

    What a program does wrong is in its Outcome. An exception means that the sandbox failed, and that trying again may
    help; SandboxUnavailable, that it will not. Cancelling a run ends its program before the cancellation is raised.
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
        """End what runs. Closing twice is no error; running afterwards is."""
        ...


@runtime_checkable
class ToolBackend(Backend, Protocol):
    """A backend whose programs can call tools."""

    async def resume(self, program: Program, snapshot: bytes, reply: ToolReply) -> Outcome | ToolCall:
        """Resume a program that stopped at a tool.

        Args:
            program: as it was given to `run`, its limits less what it has used.
            snapshot: where it stopped.
            reply: what the tool gave.

        Raises:
            SandboxUnavailable: the sandbox cannot work here.
        """
        ...
