"""Pass a program to a jailed child, run it there, and read its report.

In this order: the worker packs a program into an unnamed file that no other process reads; the child unpacks and runs
it, and reports; the worker reads the report. Every byte of the report may come from a hostile program.
"""

from __future__ import annotations

import ast
import enum
import errno
import io
import json
import linecache
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .confinement import REQUEST, RESULT
from .values import CannotCarry, JsonValue, carry, encode

__all__ = ["REPORT_BYTES", "ChildEnd", "Limits", "Outcome", "Program", "Status", "outcome_of", "pack", "run"]

REPORT_BYTES = 32 << 10
"""Maximum bytes of a report without the result: its texts, with at most six JSON characters per character."""
_FILE_NAME = "<program>"
_ERROR_CHARACTERS, _NAME_CHARACTERS = 2000, 200
_LENGTH_BYTES = 8
_CHUNK = 1 << 16
_OUT_OF_MEMORY = b'{"status":"MEMORY_LIMIT","error":"the program ran out of memory","error_type":"MemoryError"}'
_TIMEOUT_CODE = 124
"""As of the command `timeout`. The other codes are those of a shell for the signal of a limit."""
_CPU_CODE, _MEMORY_CODE, _SCRATCH_CODE = 128 + signal.SIGXCPU, 128 + signal.SIGKILL, 128 + signal.SIGXFSZ

# Keep references, since the program may replace these functions before they are needed.
_write, _exit, _stderr_lines = os.write, os._exit, traceback.TracebackException


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of one program; all are positive.

    Attributes:
        wall: seconds of wall-clock time.
        cpu: seconds of processor time.
        memory_bytes: memory in addition to the interpreter's own; address space counts.
        output_bytes: standard output and standard error together; the rest is dropped, and the program continues.
        result_bytes: the result as JSON.
        scratch_bytes: all files that the program writes.
    """

    wall: float = 5.0
    cpu: float = 5.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 64 << 10
    result_bytes: int = 256 << 10
    scratch_bytes: int = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A program with its inputs and limits.

    Attributes:
        code: the source. Its result is the value of the variable `result`, or else of the last expression.
        limits: its limits.
        inputs: variables of the program, by name; JSON types.
        files: files in the program's folder, by relative path.
    """

    code: str
    limits: Limits = Limits()
    inputs: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


class Status(enum.StrEnum):
    """How a program ended."""

    OK = "OK"
    SYNTAX_ERROR = "SYNTAX_ERROR"
    EXCEPTION = "EXCEPTION"
    RESULT_ERROR = "RESULT_ERROR"
    """Its result cannot be encoded as JSON."""
    TIMEOUT = "TIMEOUT"
    CPU_LIMIT = "CPU_LIMIT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    SCRATCH_LIMIT = "SCRATCH_LIMIT"
    CRASHED = "CRASHED"
    """It was killed by a signal, exited its process, or forged its report."""


_REPORTED = frozenset(Status) - {Status.TIMEOUT, Status.CPU_LIMIT, Status.CRASHED}
"""Statuses that a child may report; the worker detects the others."""
_EXIT_CODES = {Status.MEMORY_LIMIT: _MEMORY_CODE, Status.SCRATCH_LIMIT: _SCRATCH_CODE}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a program ended.

    Attributes:
        status: the kind of end.
        has_result: whether it has a result; None counts as one.
        result: the result; None if there is none.
        stdout: its standard output.
        stderr: its standard error, with the traceback of an exception.
        truncated: whether output was dropped.
        exit_code: as of a process: 0 if the status is OK; 128 plus the number of a signal.
        wall: seconds that it took.
        error: what went wrong, in one line of at most 2,000 characters; empty if nothing did.
        error_type: type of the exception, such as ValueError; empty if there was none.
    """

    status: Status
    has_result: bool = False
    result: JsonValue = None
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    exit_code: int = 0
    wall: float = 0.0
    error: str = ""
    error_type: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildEnd:
    """How a child ended, as the zygote reports it.

    Attributes:
        reason: why the zygote killed it: wall, cpu, scratch or asked; empty if it was not killed.
        code: its exit code, or the negative number of the signal that ended it.
        cpu: processor seconds that it used.
        wall: seconds that it took.
    """

    reason: str
    code: int
    cpu: float
    wall: float


# 1. The worker packs a program.


def pack(program: Program) -> int:
    """Return an open file with a program and its files, for the child.

    Raises:
        OSError: there is not enough memory.
        TypeError, ValueError: an input is not of a JSON type.
    """
    header = json.dumps(
        {
            "code": program.code,
            "inputs": dict(program.inputs),
            "files": [(path, len(content)) for path, content in program.files.items()],
            "result_bytes": program.limits.result_bytes,
            "error_bytes": program.limits.output_bytes,
        }
    ).encode("ascii")
    descriptor = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        _send(descriptor, len(header).to_bytes(_LENGTH_BYTES, "little") + header)
        for content in program.files.values():
            _send(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


# 2. The child unpacks and runs it, and reports.


@dataclass(frozen=True, slots=True)
class _Asked:
    code: str
    inputs: dict[str, JsonValue]
    result_bytes: int
    error_bytes: int


def run() -> None:
    """Run the program of the request, report, and exit the process without atexit handlers and finalisers."""
    try:
        report = _run()
    except MemoryError:
        report = _OUT_OF_MEMORY
    except BaseException as error:  # noqa: BLE001 - the process ends here
        # Describing the exception raised another, such as from its `__str__`.
        report = _report("EXCEPTION", error="the exception cannot be described", error_type=_name(error))
    try:
        _send(RESULT, report)
    finally:
        _exit(0)


def _run() -> bytes:
    try:
        asked = _unpack(REQUEST)
    except (OSError, ValueError) as error:
        return _report("EXCEPTION", error=_line(error), error_type=_name(error))
    output = (_open_output(1), _open_output(2))
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - it is the program's until the process ends
    sys.stdout, sys.stderr = output
    try:
        body, last = _compile(asked.code)
    except MemoryError:
        # The parser raises MemoryError for source that is nested too deeply; it needs little memory itself.
        return _report("SYNTAX_ERROR", error="the source is nested too deeply to be compiled", error_type="MemoryError")
    except (SyntaxError, ValueError, RecursionError, OverflowError) as error:
        _tell(error.with_traceback(None), asked.error_bytes)
        return _report("SYNTAX_ERROR", error=_line(error), error_type=_name(error))
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.argv = [_FILE_NAME]
    linecache.cache[_FILE_NAME] = (len(asked.code), None, asked.code.splitlines(True), _FILE_NAME)
    try:
        return _execute(main, asked, body, last)
    finally:
        for stream in output:
            _flush(stream)


def _unpack(descriptor: int) -> _Asked:
    """Read a request, put its files into the current folder, and close the descriptor.

    Raises:
        OSError: a file cannot be written.
        ValueError: a file's path leads out of the folder.
    """
    length = int.from_bytes(_read(descriptor, _LENGTH_BYTES), "little")
    header: dict[str, Any] = json.loads(_read(descriptor, length))
    for path, size in header.pop("files"):
        _place(descriptor, path, size)
    os.close(descriptor)
    return _Asked(**header)


def _place(descriptor: int, path: str, size: int) -> None:
    parts = path.split("/")
    if not all(parts) or not {".", ".."}.isdisjoint(parts) or "\0" in path:
        raise ValueError(f"the path of a file must be relative and inside the folder, such as data/a.csv; got {path!r}")
    if len(parts) > 1:
        os.makedirs("/".join(parts[:-1]), exist_ok=True)
    with open(path, "xb") as file:
        while size > 0:
            chunk = os.read(descriptor, min(size, _CHUNK))
            size -= file.write(chunk)


def _read(descriptor: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        part = os.read(descriptor, size)
        if not part:
            raise EOFError("the request is cut off")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _execute(main: types.ModuleType, asked: _Asked, body: types.CodeType, last: types.CodeType | None) -> bytes:
    space: dict[str, object] = main.__dict__
    space.update(asked.inputs)
    try:
        exec(body, space)  # noqa: S102 - that is what the jail is for
        value = eval(last, space) if last is not None else None  # noqa: S307
    except SystemExit as error:
        return _exited(error, space, asked)
    except MemoryError as error:
        space.clear()
        _tell(error, asked.error_bytes)
        return _OUT_OF_MEMORY
    except BaseException as error:  # noqa: BLE001 - any exception is an outcome of the program
        _tell(error, asked.error_bytes)
        too_large = isinstance(error, OSError) and error.errno == errno.EFBIG
        return _report("SCRATCH_LIMIT" if too_large else "EXCEPTION", error=_line(error), error_type=_name(error))
    if "result" in space:
        return _with_result(space["result"], asked)
    return _with_result(value, asked) if last is not None else _report("OK")


def _with_result(value: object, asked: _Asked) -> bytes:
    try:
        return b'{"status":"OK","has_result":true,"result":' + encode(value, asked.result_bytes) + b"}"
    except CannotCarry as error:
        return _report("RESULT_ERROR", error=_cut(str(error), _ERROR_CHARACTERS))


def _exited(error: SystemExit, space: dict[str, object], asked: _Asked) -> bytes:
    """Treat SystemExit as the interpreter does: None and 0 are success, other numbers are not, text is an error."""
    code = error.code
    if code is None or (isinstance(code, int) and code & 0xFF == 0):
        return _with_result(space["result"], asked) if "result" in space else _report("OK")
    if not isinstance(code, int):
        _send(2, _encoded(_cut(str(code), asked.error_bytes) + "\n"))
        code = 1
    return _report("EXCEPTION", error=_line(error), error_type="SystemExit", exit_code=code & 0xFF)


def _compile(code: str) -> tuple[types.CodeType, types.CodeType | None]:
    """Compile the program's statements and, if its last statement is an expression, that separately."""
    tree = ast.parse(code, _FILE_NAME)
    last: ast.Expression | None = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body[-1].value)
        del tree.body[-1]
    body = compile(tree, _FILE_NAME, "exec", dont_inherit=True)
    return body, compile(last, _FILE_NAME, "eval", dont_inherit=True) if last is not None else None


def _tell(error: BaseException, limit: int) -> None:
    """Write a traceback to standard error, without its outermost frame, which is in this file."""
    left = limit
    traced = error.__traceback__.tb_next if error.__traceback__ is not None else None
    for line in _stderr_lines(type(error), error, traced, compact=True).format():
        data = _encoded(line[:left])
        _send(2, data)
        left -= len(data)
        if left <= 0:
            break


def _report(status: str, **values: object) -> bytes:
    return json.dumps({"status": status, **values}).encode("ascii")


def _line(error: BaseException) -> str:
    name, text = _name(error), " ".join(str(error)[: 2 * _ERROR_CHARACTERS].split())
    return _cut(f"{name}: {text}" if text else name, _ERROR_CHARACTERS)


def _name(error: BaseException) -> str:
    return _cut(str(type(error).__name__), _NAME_CHARACTERS)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _send(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[_write(descriptor, view) :]


def _open_output(descriptor: int) -> io.TextIOWrapper:
    # Flush each line, so that output before a limit is not lost.
    raw = io.BufferedWriter(io.FileIO(descriptor, "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _flush(stream: Any, flush: Callable[[io.TextIOWrapper], None] = io.TextIOWrapper.flush) -> None:
    try:
        flush(stream)
    except (OSError, ValueError):
        # The program closed the stream or its descriptor.
        return


# 3. The worker reads the report.


def outcome_of(limits: Limits, end: ChildEnd, report: bytes, cut: bool) -> Outcome:
    """Return the outcome of a program, without its output.

    Args:
        limits: limits of the program.
        end: how its process ended.
        report: the bytes that it reported.
        cut: whether it reported more bytes than allowed.
    """
    if end.reason == "wall":
        return _ended(Status.TIMEOUT, _TIMEOUT_CODE, f"the program took longer than {limits.wall:g} s")
    if end.reason == "cpu" or (end.code == -signal.SIGKILL and end.cpu >= limits.cpu):
        return _ended(Status.CPU_LIMIT, _CPU_CODE, f"the program used more than {limits.cpu:g} s of a processor")
    if end.reason == "scratch":
        text = f"the files of the program occupied more than {limits.scratch_bytes:,} bytes, or were nested too deeply"
        return _ended(Status.SCRATCH_LIMIT, _SCRATCH_CODE, text)
    if end.code < 0:
        name = signal.Signals(-end.code).name if -end.code in set(signal.Signals) else f"signal {-end.code}"
        return _ended(Status.CRASHED, 128 - end.code, f"the program was killed by {name}")
    if end.code != 0 or not report:
        return _ended(Status.CRASHED, end.code or 1, f"the program exited its process with code {end.code}")
    if cut:
        return _forged()
    return _reported(report, limits.result_bytes)


def _reported(report: bytes, result_bytes: int) -> Outcome:
    try:
        told: Any = json.loads(report)
        status = Status(told["status"])
        if status not in _REPORTED:
            return _forged()
        if status is Status.OK and told.get("has_result") is True:
            return Outcome(status=status, has_result=True, result=carry(told["result"], result_bytes))
        if status is Status.OK:
            return Outcome(status=status)
        return Outcome(
            status=status,
            exit_code=_EXIT_CODES.get(status) or _exit_code(told.get("exit_code")),
            error=" ".join(_text(told.get("error"), _ERROR_CHARACTERS).split()),
            error_type=_text(told.get("error_type", ""), _NAME_CHARACTERS),
        )
    except CannotCarry as error:
        return _ended(Status.RESULT_ERROR, 1, str(error))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return _forged()


def _text(value: object, length: int) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value[:length].encode("utf-8", "replace").decode("utf-8")


def _exit_code(value: object) -> int:
    return value if type(value) is int and 0 < value < 256 else 1


def _forged() -> Outcome:
    return _ended(Status.CRASHED, 1, "the program wrote to the descriptor on which its result is reported")


def _ended(status: Status, exit_code: int, error: str) -> Outcome:
    return Outcome(status=status, exit_code=exit_code, error=error)
