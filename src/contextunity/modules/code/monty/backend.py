"""Run programs in Monty, an interpreter for a subset of Python, in its own worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from contextunity.gen.contextunity.code.v1 import ExecutionStatus

from contextunity.core.codec import JsonValue
from process_jail import CannotCarry, encode
from process_jail.scratch import remove

from ..backend import Outcome, Program, ToolCall, ToolReply
from ..errors import SandboxUnavailable, SnapshotRetiredError
from .files import FolderFullError, Snapshot, fill_folder, pack, read_folder, unpack
from .guest import CALL_HOOK, LAST, keep_last_expression, report_source, simple_report_source, tools_source
from .outcome import EXIT_CODES, Ending, ending_of
from .output import Output, WriteCounter

if TYPE_CHECKING:
    from pydantic_monty import (
        AsyncFunctionSnapshot,
        AsyncMonty,
        AsyncMontySession,
        AsyncSnapshot,
        ExternalResult,
        MountDir,
    )

__all__ = ["MontyBackend"]

_ARGUMENT_BYTES = 64 * 1024
"""Maximum bytes of the arguments of one tool call, as JSON."""
_FOLDER = "/program"
_GRACE = 0.25
"""Seconds that Monty has to notice a timeout itself; then its process is killed."""
_SUSPENSIONS = 10_000_000
"""Maximum calls of the system, such as uses of a file and sleeps; the time limits stop them earlier."""
_SLEEPS = ("time.sleep", "asyncio.sleep", "system.sleep")
_LONG_SOURCE = 20_000
_CHECKOUT_TIMEOUT = 30.0
_SETTLING = 0.05
"""Seconds for the threads of Monty's library to release our objects. They release them some time after the answer to
their last call, without a signal, and abort the process if its interpreter ends before."""
_READABLE_BYTES = 8 << 20
"""Maximum bytes of an exception's text; a longer one is not read. Printing writes slightly more than its text."""


@dataclass(slots=True)
class _Run:
    """One part of a run: from the start or a tool's answer to the end or the next call."""

    program: Program
    output: Output
    began: float = field(default_factory=time.monotonic)
    out_of_time: bool = False
    written: WriteCounter = field(default_factory=lambda: WriteCounter(None))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        return self.program.limits.wall - self.seconds


class _OutOfTimeError(Exception):
    """A program sleeps longer than its timeout."""


class MontyBackend:
    """Run programs in a pool of Monty's processes, which start when the backend is opened.

    Args:
        processes: number of concurrent programs.
        runs_per_process: programs after which a process is replaced; with more than one, a run takes 3 ms less, but a
            program that broke into the interpreter could affect the next one.
        folder: parent of the programs' folders; None means the system's folder for temporary files.

    Example:
        async with MontyBackend(processes=2) as backend:
            outcome = await backend.run(program)
    """

    def __init__(self, *, processes: int, runs_per_process: int = 1, folder: Path | None = None) -> None:
        self._processes = processes
        self._runs_per_process = runs_per_process
        self._folder = folder
        self._pool: AsyncMonty | None = None
        self._stack = contextlib.AsyncExitStack()
        self._empty = ""
        self._version = ""

    @property
    def name(self) -> str:
        """`monty`."""
        return "monty"

    async def __aenter__(self) -> Self:
        """Start the processes.

        Raises:
            SandboxUnavailable: Monty is not installed, or its processes do not start.
        """
        try:
            # Import it here: it loads slowly, and only a worker that runs programs needs it.
            import pydantic_monty

            pool = pydantic_monty.AsyncMonty(
                min_processes=self._processes,
                max_processes=self._processes,
                max_checkouts_per_worker=self._runs_per_process,
                checkout_timeout=_CHECKOUT_TIMEOUT,
            )
            self._pool = await self._stack.enter_async_context(pool)
        except (ImportError, OSError, RuntimeError) as error:
            raise SandboxUnavailable(
                f"the backend monty cannot start: {type(error).__name__}: {error}; install pydantic-monty==1.4.0"
            ) from error
        self._version = pydantic_monty.__version__
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._empty = tempfile.mkdtemp(prefix="empty-", dir=self._folder)
        self._stack.callback(os.rmdir, self._empty)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the processes; closing twice is allowed."""
        opened, self._pool = self._pool is not None, None
        await self._stack.aclose()
        if opened:
            await asyncio.sleep(_SETTLING)

    async def run(self, program: Program) -> Outcome | ToolCall:
        """Run a program until it ends or calls a tool.

        Raises:
            SandboxUnavailable: the backend is not open.
        """

        async def begin(session: AsyncMontySession, mount: MountDir, output: Output) -> AsyncSnapshot:
            if program.tools:
                await session.feed_start(tools_source(program.tools, _ARGUMENT_BYTES), print_callback=output)
            return await session.feed_start(
                source, inputs=dict(program.inputs), print_callback=output, mount=mount, cwd=_FOLDER
            )

        if len(program.code) < _LONG_SOURCE:
            source = keep_last_expression(program.code, LAST)
        else:
            source = await asyncio.to_thread(keep_last_expression, program.code, LAST)
        async with self._mounted(program, program.files) as (mount, folder):
            return await self._attempt(program, begin, mount, folder)

    async def resume(self, program: Program, snapshot: bytes, reply: ToolReply) -> Outcome | ToolCall:
        """Resume a program that stopped at a tool.

        Raises:
            ValueError: the snapshot is invalid.
            SnapshotRetiredError: it is from another version of Monty.
            SandboxUnavailable: the backend is not open.
        """
        stopped = await asyncio.to_thread(unpack, snapshot)
        if stopped.version != self._version:
            raise SnapshotRetiredError(
                f"the program stopped in Monty {stopped.version}, and this worker has {self._version}, which cannot "
                "resume it; keep a worker with the old version until its programs have ended, or run it again"
            )

        async def go_on(session: AsyncMontySession, mount: MountDir, output: Output) -> AsyncSnapshot:
            found = await session.load_snapshot(stopped.dump, mount=mount, print_callback=output)
            return await cast("AsyncFunctionSnapshot", found).resume(_answer(reply))

        async with self._mounted(program, stopped.files) as (mount, folder):
            return await self._attempt(program, go_on, mount, folder)

    async def _attempt(
        self,
        program: Program,
        start: Callable[[AsyncMontySession, MountDir, Output], Awaitable[AsyncSnapshot]],
        mount: MountDir,
        folder: Path | None,
    ) -> Outcome | ToolCall:
        """Run one part; retry once if Monty's process crashed, because the program may not be the cause."""
        from pydantic_monty import MontyCrashedError

        for last in (False, True):
            run = _Run(program, Output(program.limits.output_bytes, _message_bytes(program)))
            try:
                return await self._run_once(run, start, mount, folder)
            except MontyCrashedError as error:
                if run.out_of_time or error.timed_out:
                    return _outcome(run, Ending(status=ExecutionStatus.TIMEOUT, error="the program timed out"))
                # The first attempt may have changed its folder.
                if last or folder is not None:
                    text = f"the interpreter crashed: {str(error)[:500]}"
                    return _outcome(run, Ending(status=ExecutionStatus.CRASHED, error=text))
        raise AssertionError("unreachable")

    async def _run_once(
        self,
        run: _Run,
        start: Callable[[AsyncMontySession, MountDir, Output], Awaitable[AsyncSnapshot]],
        mount: MountDir,
        folder: Path | None,
    ) -> Outcome | ToolCall:
        from pydantic_monty import MontyRuntimeError, MontySyntaxError

        limits, tools = run.program.limits, bool(run.program.tools)
        assert self._pool is not None
        session = self._pool.checkout(
            limits={
                "max_feed_duration_secs": min(limits.cpu, limits.wall),
                "max_memory": limits.memory_bytes,
                "max_suspensions": _SUSPENSIONS,
            },
            os_policy={"sleep": "call_host"},
        )
        async with session:
            run.began = time.monotonic()
            run.written = WriteCounter(session.worker_pid)
            with _bounded(session, run):
                try:
                    try:
                        call = await _drive(await start(session, mount, run.output), run)
                    except MontyRuntimeError as error:
                        if size := _too_long(run):
                            return _outcome(run, _unreadable_exception(size))
                        ending = ending_of(error, syntax=False, cpu_first=limits.cpu < limits.wall, tools=tools)
                        if ending.status is not ExecutionStatus.OK:
                            return _outcome(run, ending)
                        call = None
                    if call is not None:
                        return await self._stop(run, call, folder)
                    return await self._report_result(run, session)
                except MontySyntaxError as error:
                    return _outcome(run, ending_of(error, syntax=True, tools=tools))
                except MontyRuntimeError as error:
                    return _outcome(
                        run, ending_of(error, syntax=False, cpu_first=limits.cpu < limits.wall, tools=tools)
                    )
                except _OutOfTimeError:
                    return _outcome(run, Ending(status=ExecutionStatus.TIMEOUT, error="the program timed out"))

    async def _report_result(self, run: _Run, session: AsyncMontySession) -> Outcome:
        await _drive(await session.feed_start(simple_report_source(), print_callback=run.output), run)
        outcome = _read_result(run)
        if outcome is None:
            source = report_source(run.program.limits.result_bytes)
            await _drive(await session.feed_start(source, print_callback=run.output), run)
            outcome = _read_result(run)
        return outcome or _outcome(run, Ending(status=ExecutionStatus.RESULT_ERROR, error="the result cannot be read"))

    async def _stop(self, run: _Run, call: AsyncFunctionSnapshot, folder: Path | None) -> ToolCall | Outcome:
        """Read from the message which tool the program calls, and pack the program."""
        name, positional, named = _read_tool_call(run)
        dump = call.dump()

        def put_away() -> bytes:
            files = read_folder(folder, limit) if folder is not None else {}
            return pack(Snapshot(version=self._version, dump=dump, files=files))

        limit = run.program.limits.scratch_bytes
        try:
            snapshot = await asyncio.to_thread(put_away)
        except FolderFullError:
            error = f"the program's files take more than {limit:,} bytes when it calls {name}"
            return _outcome(run, Ending(status=ExecutionStatus.SCRATCH_LIMIT, error=error, error_type="OSError"))
        stdout, stderr = run.output.streams
        return ToolCall(
            name=name,
            positional=positional,
            named=named,
            snapshot=snapshot,
            stdout=stdout,
            stderr=stderr,
            duration_ms=round(run.seconds * 1000),
            truncated=run.output.truncated,
        )

    @contextlib.asynccontextmanager
    async def _mounted(self, program: Program, files: Any) -> AsyncGenerator[tuple[MountDir, Path | None], None]:
        """Mount the folder of a program: in memory if it runs through, on disk if it may stop at a tool."""
        if self._pool is None:
            raise SandboxUnavailable("the backend monty is not open")
        if not files and not program.tools:
            with self._mount(self._empty, "overlay", program.limits.scratch_bytes) as mount:
                yield mount, None
            return
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="run-", dir=self._folder))
        try:
            await asyncio.to_thread(fill_folder, folder, files)
            mode = "read-write" if program.tools else "overlay"
            with self._mount(str(folder), mode, program.limits.scratch_bytes) as mount:
                yield mount, folder if program.tools else None
        finally:
            await asyncio.to_thread(remove, str(folder))

    def _mount(self, folder: str, mode: Any, scratch_bytes: int) -> MountDir:
        from pydantic_monty import MountDir

        return MountDir(
            host_path=folder,
            virtual_path=_FOLDER,
            mode=mode,
            write_bytes_limit=scratch_bytes,
            memory_usage_limit=max(2 * scratch_bytes, 1 << 20),
        )


@contextlib.contextmanager
def _bounded(session: AsyncMontySession, run: _Run) -> Any:
    """Kill the process of a session when the program times out, or its run is cancelled.

    The interpreter checks its limits itself; this is for when it does not, and for time that its clock does not count.
    """
    process = session.worker_pid

    def end() -> None:
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def over() -> None:
        run.out_of_time = True
        end()

    timer = asyncio.get_running_loop().call_later(run.left + _GRACE, over)
    try:
        yield
    except asyncio.CancelledError:
        end()
        raise
    finally:
        timer.cancel()


def _too_long(run: _Run) -> int:
    """Return the size of the current exception if it is too large to read; otherwise 0."""
    size = run.written.unprinted_bytes(run.output.seen_bytes)
    return size if size > _READABLE_BYTES + run.output.seen_bytes // 8 else 0


def _unreadable_exception(size: int) -> Ending:
    error = f"the program raised an exception whose text is too long to read, about {size:,} bytes"
    return Ending(status=ExecutionStatus.EXCEPTION, error=error)


async def _drive(snapshot: AsyncSnapshot, run: _Run) -> AsyncFunctionSnapshot | None:
    """Answer a program's system calls until it calls a tool; return None if it ends.

    Do not read the arguments of its calls, except of sleeps, whose argument is a number.
    """
    from pydantic_monty import AsyncFunctionSnapshot, AsyncNameLookupSnapshot, MontyComplete

    while not isinstance(snapshot, MontyComplete):
        # Its system calls take bytes too, such as data that it writes into a file.
        run.written.skip_printed(run.output.seen_bytes)
        if isinstance(snapshot, AsyncNameLookupSnapshot):
            snapshot = await snapshot.resume()
            continue
        # Only the host creates futures, and this one creates none.
        assert isinstance(snapshot, AsyncFunctionSnapshot), snapshot
        if snapshot.is_os_function and snapshot.function_name in _SLEEPS:
            await _sleep(float(snapshot.args[0]), run)
            snapshot = await snapshot.resume({"return_value": None})
        elif snapshot.is_os_function:
            snapshot = await snapshot.resume_auto()
        elif snapshot.function_name == CALL_HOOK and run.program.tools:
            return snapshot
        else:
            text = f"name {snapshot.function_name!r} is not defined"
            snapshot = await snapshot.resume({"exc_type": "NameError", "message": text})
    return None


async def _sleep(seconds: float, run: _Run) -> None:
    if seconds > run.left:
        await asyncio.sleep(max(0.0, run.left))
        raise _OutOfTimeError
    await asyncio.sleep(max(0.0, seconds))


def _read_tool_call(run: _Run) -> tuple[str, list[JsonValue], dict[str, JsonValue]]:
    """Read the call from the program's last message; an invalid forged message calls nothing."""
    try:
        told = json.loads(run.output.take_message() or "")
        name, (positional, named) = told["tool"], told["arguments"]
        encode([positional, named], _ARGUMENT_BYTES)
    except (ValueError, TypeError, KeyError, RecursionError, CannotCarry):
        return "", [], {}
    if not (isinstance(name, str) and isinstance(positional, list) and isinstance(named, dict)):
        return "", [], {}
    return name[:100], cast("list[JsonValue]", positional), cast("dict[str, JsonValue]", named)


def _answer(reply: ToolReply) -> ExternalResult:
    if not reply.error:
        return {"return_value": reply.result}
    kind: Any = reply.error_type if reply.error_type in _EXCEPTIONS else "RuntimeError"
    return {"exc_type": kind, "message": reply.error}


_EXCEPTIONS: Sequence[str] = (
    *("ArithmeticError", "IndexError", "KeyError", "LookupError", "NotImplementedError", "OSError", "OverflowError"),
    *("PermissionError", "RuntimeError", "TimeoutError", "TypeError", "ValueError", "FileNotFoundError"),
)


def _message_bytes(program: Program) -> int:
    # Text may take six times its length if JSON has to escape it.
    return max(program.limits.result_bytes, _ARGUMENT_BYTES) * 6 + 1024


def _read_result(run: _Run) -> Outcome | None:
    """Read the result from the program's last message; return None if the full result must be requested."""
    text = run.output.take_message()
    limit = run.program.limits.result_bytes
    try:
        told = json.loads(text or "")
        if "more" in told:
            return None
        if "error" in told:
            return _outcome(run, Ending(status=ExecutionStatus.RESULT_ERROR, error=str(told["error"])[:2000]))
        if "value" not in told:
            return _outcome(run, Ending(status=ExecutionStatus.OK, error=""))
        # Encode it again, because the program may have forged the message.
        value = json.loads(encode(told["value"], limit))
    except CannotCarry as error:
        return _outcome(run, Ending(status=ExecutionStatus.RESULT_ERROR, error=str(error)[:2000]))
    except (ValueError, TypeError, RecursionError):
        return _outcome(run, Ending(status=ExecutionStatus.RESULT_ERROR, error="the result cannot be read"))
    return _outcome(run, Ending(status=ExecutionStatus.OK, error=""), value, has_result=True)


def _outcome(run: _Run, ending: Ending, result: JsonValue = None, *, has_result: bool = False) -> Outcome:
    run.output("stderr", ending.traceback)
    stdout, stderr = run.output.streams
    return Outcome(
        status=ending.status,
        has_result=has_result,
        result=result,
        stdout=stdout,
        stderr=stderr,
        exit_code=EXIT_CODES.get(ending.status, 1),
        duration_ms=round(run.seconds * 1000),
        truncated=run.output.truncated,
        error=ending.error,
        error_type=ending.error_type,
    )
