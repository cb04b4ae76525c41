"""Start a zygote, send it programs, and read their output: the worker's side of the jail."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .confinement import JAILED
from .program import REPORT_BYTES, ChildEnd, Limits, Outcome, Program, outcome_of, pack
from .scratch import BLOCK, ScratchRoot

__all__ = ["Jail", "JailError", "JailFailedError", "JailUnavailableError"]

_NOBODY = 65534
_START_TIMEOUT = 30.0
_GRACE = 10.0
"""Seconds after a program's time limit within which the zygote must end it."""
_MESSAGE_BYTES = 1 << 16
_CHUNK = 1 << 16
_DISCARDED_AT_ONCE = 1 << 20
_PROBE = Program(
    code="",
    limits=Limits(
        wall=20.0, cpu=20.0, memory_bytes=64 << 20, output_bytes=4096, result_bytes=REPORT_BYTES, scratch_bytes=1 << 20
    ),
)
_BOOTSTRAP = """
import sys, types
package = sys.modules["process_jail"] = types.ModuleType("process_jail")
package.__path__ = [sys.argv.pop()]
from process_jail.zygote import main
main()
"""
"""Import modules from this package's folder only: its parent, perhaps site-packages, must not be on the path. The
package's `__init__`, which is for the worker, does not run."""


class JailError(Exception):
    """Base class: a program did not run to its end, for a reason outside the program."""


class JailUnavailableError(JailError):
    """The jail cannot work here. The text lists everything that is missing; no program was run. Do not retry."""


class JailFailedError(JailError):
    """The jail failed, or is closed. You may retry the program."""


class _NotJailedError(Exception):
    """A child could not lock itself in, and ran nothing. The text says why."""


@dataclass(frozen=True, slots=True)
class _Run:
    """The result of a child: how it ended, its report after the marker, and its output."""

    end: ChildEnd
    report: bytes
    report_cut: bool
    stdout: str
    stderr: str
    truncated: bool


class Jail:
    """Run each program in a separate child of a warm zygote.

    Any number of programs run at once. A jail belongs to the event loop in which it is first used. Cancelling `run`
    ends its program first. A killed zygote is replaced.

    Example:
        async with Jail() as jail:
            outcome = await jail.run(Program(code="sum(range(10))"))
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        uid: int = _NOBODY,
        gid: int = _NOBODY,
        name: str = "jail",
        prefix: str = "process-jail-",
    ) -> None:
        """Create a jail. It starts when it is entered, or with its first program.

        Args:
            folder: where to create scratch folders. None, or a folder that the programs' user cannot access, means the
                system's folder for temporary files.
            uid: user of the programs if this process runs as root; not 0.
            gid: group of the programs then; not 0.
            name: name of this jail in errors, without an article.
            prefix: prefix of the scratch folders' names. Folders of this prefix that killed processes left are removed.

        Raises:
            ValueError: the user or the group is root.
        """
        if uid <= 0 or gid <= 0:
            raise ValueError(f"programs must not run as root; got uid {uid} and gid {gid}, choose others")
        self._folder = folder
        self._user = (uid, gid)
        self._name = name
        self._prefix = prefix
        self._starting = asyncio.Lock()
        self._zygote: _Zygote | None = None
        self._root: ScratchRoot | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        """Start it."""
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    async def start(self) -> None:
        """Start the zygote and test the jail. If you do not call it, the first run does.

        Raises:
            JailUnavailableError: the kernel or this process lacks something that the jail needs.
            JailFailedError: it did not start, or is closed.
        """
        await self._ready()

    async def run(self, program: Program) -> Outcome:
        """Run a program to its end.

        Raises:
            JailUnavailableError: the kernel or this process lacks something that the jail needs.
            JailFailedError: the jail failed, or is closed.
            TypeError, ValueError: an input is not of a JSON type.
        """
        try:
            zygote, root = await self._ready()
            run = await self._run(zygote, root, program, probe=False)
        except _NotJailedError as error:
            raise JailFailedError(f"the program was not run, because its jail could not be closed: {error}") from None
        return replace(
            outcome_of(program.limits, run.end, run.report, run.report_cut),
            stdout=run.stdout,
            stderr=run.stderr,
            truncated=run.truncated,
            wall=run.end.wall,
        )

    async def aclose(self) -> None:
        """End all programs and remove the scratch folders. You may call it twice."""
        self._closed = True
        async with self._starting:
            if self._zygote is not None:
                await self._zygote.aclose()
                self._zygote = None
            if self._root is not None:
                await asyncio.to_thread(self._root.close)
                self._root = None

    async def _ready(self) -> tuple[_Zygote, ScratchRoot]:
        async with self._starting:
            if self._closed:
                raise JailFailedError(f"the {self._name} is closed")
            if sys.platform != "linux":
                raise JailUnavailableError(
                    f"the {self._name} cannot work here: it needs Linux, and this is {sys.platform}"
                )
            if self._root is None:
                self._root = await asyncio.to_thread(
                    ScratchRoot, self._folder, self._user if os.geteuid() == 0 else None, prefix=self._prefix
                )
            if self._zygote is not None and not self._zygote.alive:
                await self._zygote.aclose()
                self._zygote = None
            if self._zygote is None:
                zygote = await _Zygote.start(self._user, self._name)
                try:
                    await self._probe(zygote, self._root)
                except BaseException:
                    await zygote.aclose()
                    raise
                self._zygote = zygote
            return self._zygote, self._root

    async def _probe(self, zygote: _Zygote, root: ScratchRoot) -> None:
        """Test the jail from inside a first child: the kernel may accept a restriction without enforcing it."""
        try:
            run = await self._run(zygote, root, _PROBE, probe=True)
        except _NotJailedError as error:
            raise JailUnavailableError(f"the {self._name} cannot work here: {error}") from None
        try:
            faults = json.loads(run.report)
        except ValueError:
            faults = [f"the probe ended with code {run.end.code}, and wrote {run.stderr[-500:]!r}"]
        if faults:
            raise JailUnavailableError(f"the {self._name} cannot work here: {'; '.join(map(str, faults))}")

    async def _run(self, zygote: _Zygote, root: ScratchRoot, program: Program, *, probe: bool) -> _Run:
        with contextlib.ExitStack() as stack:
            limits = program.limits
            packed = pack(program)
            release = stack.enter_context(contextlib.ExitStack())
            release.callback(os.close, packed)
            path, folder = root.make()
            release.callback(os.close, folder)
            output = _Budget(limits.output_bytes)
            streams = (_Stream(output), _Stream(output), _Stream(_Budget(limits.result_bytes + REPORT_BYTES)))
            for stream in streams:
                stack.callback(stream.close)
            try:
                number, ended = await zygote.fork(
                    _message(program, probe=probe), (packed, *(stream.writer for stream in streams), folder)
                )
                release.close()
                for stream in streams:
                    stream.release_writer()
                end = await _end_of(zygote, number, ended, limits.wall)
                for stream in streams:
                    await stream.end()
            finally:
                await asyncio.shield(asyncio.to_thread(root.remove, path))
            stdout, stderr, result = streams
            marker, report = result.data[:1], result.data[1:]
            if marker != JAILED and not end.reason:
                raise _NotJailedError(report.decode("utf-8", "replace") or f"the child ended with code {end.code}")
            truncated = stdout.truncated or stderr.truncated
            return _Run(end, report, result.truncated, stdout.text, stderr.text, truncated)


async def _end_of(zygote: _Zygote, number: int, ended: asyncio.Future[ChildEnd], wall: float) -> ChildEnd:
    try:
        async with asyncio.timeout(wall + _GRACE):
            return await asyncio.shield(ended)
    except TimeoutError:
        await zygote.aclose()
        raise JailFailedError(f"the zygote of the {zygote.name} did not end a program in time, and was ended") from None
    except asyncio.CancelledError:
        with contextlib.suppress(JailFailedError, TimeoutError):
            await zygote.end(number)
            async with asyncio.timeout(_GRACE):
                await asyncio.shield(ended)
        raise


def _message(program: Program, *, probe: bool) -> dict[str, float | bool]:
    """Return the limits for the zygote. The program's input files do not count towards its quota."""
    limits = program.limits
    given = sum(
        (len(content) // BLOCK + 1 + path.count("/")) * BLOCK + BLOCK for path, content in program.files.items()
    )
    return {
        "wall": limits.wall,
        "cpu": limits.cpu,
        "memory": limits.memory_bytes,
        "file": max(limits.scratch_bytes, *map(len, program.files.values()), 1),
        "quota": limits.scratch_bytes + given,
        "probe": probe,
    }


class _Zygote:
    """The worker's end of a zygote. The zygote dies with this process, even if this process is killed."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, name: str) -> None:
        self.name = name
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._runs: dict[int, asyncio.Future[ChildEnd]] = {}
        self._sending = asyncio.Lock()
        self._room = asyncio.Event()
        self._count = 0
        self._closed = False

    @classmethod
    async def start(cls, user: tuple[int, int], name: str) -> _Zygote:
        """Start a zygote, and wait until it is warm.

        Args:
            user: user and group of the programs if this process runs as root.
            name: name of the jail in errors.

        Raises:
            JailUnavailableError: the jail cannot work here; the text lists what is missing.
            JailFailedError: it did not start.
        """
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = _spawn(theirs, user)
        control.setblocking(False)
        zygote = cls(process, control, name)
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                told = await zygote._loop.sock_recv(control, _MESSAGE_BYTES)
        except BaseException as error:
            await zygote.aclose()
            if isinstance(error, TimeoutError):
                raise JailFailedError(f"the zygote of the {name} was not ready in {_START_TIMEOUT:.0f} s") from None
            raise
        if not told:
            await zygote.aclose()
            raise JailFailedError(f"the zygote of the {name} ended with code {process.returncode}")
        if missing := json.loads(told)["missing"]:
            await zygote.aclose()
            raise JailUnavailableError(f"the {name} cannot work here; it needs {'; '.join(missing)}")
        zygote._loop.add_reader(control, zygote._receive)
        return zygote

    @property
    def alive(self) -> bool:
        """Whether it is still running."""
        return not self._closed

    async def fork(
        self, message: dict[str, float | bool], descriptors: Sequence[int]
    ) -> tuple[int, asyncio.Future[ChildEnd]]:
        """Ask the zygote to fork a child.

        Args:
            message: its limits, from `_message`.
            descriptors: of the request, standard output, standard error, the result and the scratch folder.

        Returns:
            Its number, and a future of its end, which fails if there was no child or the zygote ended.

        Raises:
            JailFailedError: the zygote ended.
        """
        self._count += 1
        ended: asyncio.Future[ChildEnd] = self._loop.create_future()
        self._runs[self._count] = ended
        run = self._count
        try:
            await self._send({"run": run, **message}, descriptors)
        except BaseException:
            # If the zygote ended meanwhile, its runs were already failed and removed.
            if self._runs.pop(run, None) is None and ended.done():
                ended.exception()
            raise
        return run, ended

    async def end(self, run: int) -> None:
        """Ask the zygote to end a child, unless it has ended."""
        if run in self._runs:
            await self._send({"end": run}, ())

    async def aclose(self) -> None:
        """End the zygote and all its children."""
        self._fail(f"the {self.name.rpartition(' ')[2]} was closed")
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    async def _send(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        data = json.dumps(message).encode("ascii")
        async with self._sending:
            while not self._closed:
                try:
                    socket.send_fds(self._control, [data], descriptors)
                except BlockingIOError:
                    await self._wait_for_room()
                except OSError as error:
                    self._fail(f"it ended ({error.strerror})")
                else:
                    return
        raise JailFailedError(f"the zygote of the {self.name} ended")

    async def _wait_for_room(self) -> None:
        self._room.clear()
        self._loop.add_writer(self._control, self._room.set)
        try:
            await self._room.wait()
        finally:
            if not self._closed:
                self._loop.remove_writer(self._control)

    def _receive(self) -> None:
        while not self._closed:
            try:
                data = self._control.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._fail("it ended")
                return
            self._take(json.loads(data))

    def _take(self, message: dict[str, Any]) -> None:
        ended = self._runs.pop(message["run"], None)
        if ended is None or ended.done():
            return
        if "failed" in message:
            ended.set_exception(JailFailedError(f"no child for the program: {message['failed']}"))
        else:
            ended.set_result(ChildEnd(**{key: message[key] for key in ("reason", "code", "cpu", "wall")}))

    def _fail(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._room.set()
        self._control.close()
        for ended in self._runs.values():
            if not ended.done():
                ended.set_exception(JailFailedError(f"the zygote of the {self.name}: {reason}"))
        self._runs.clear()


def _spawn(control: socket.socket, user: tuple[int, int]) -> subprocess.Popen[bytes]:
    # Isolated mode, without site-packages. The environment has only the path to libpython.
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    folder = str(Path(__file__).parent)
    options = ["-I", "-S", "-B", "-X", "utf8", "-c", _BOOTSTRAP]
    arguments = [str(control.fileno()), str(os.getpid()), *map(str, user), folder]
    return subprocess.Popen(
        [sys.executable, *options, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        pass_fds=(control.fileno(),),
        # Ctrl-C goes to the whole foreground group; in a separate one, the worker decides when to end the zygote.
        start_new_session=True,
    )


class _Budget:
    """A limit on the bytes that several streams keep together."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, data: bytes) -> bytes:
        """Return the part of the data that fits into the limit."""
        kept = data[: self._left]
        self._left -= len(kept)
        return kept


class _Stream:
    """The reading end of a pipe whose other end a child has."""

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self.truncated = False
        self._null: int | None = None
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._read)

    @property
    def data(self) -> bytes:
        """The bytes that were kept."""
        return bytes(self._kept)

    @property
    def text(self) -> str:
        """The kept bytes as text, without an incomplete character at the end."""
        return codecs.getincrementaldecoder("utf-8")("replace").decode(self.data, final=not self.truncated)

    def release_writer(self) -> None:
        """Close the writing end after the child received it."""
        if self.writer != -1:
            os.close(self.writer)
            self.writer = -1

    async def end(self) -> None:
        """Wait until the child closed the other end or ended."""
        await asyncio.shield(self._ended)

    def close(self) -> None:
        """Close both ends if they are open."""
        self.release_writer()
        if not self._ended.done():
            self._close_reader()
            self._ended.cancel()

    def _read(self) -> None:
        try:
            if self.truncated:
                size = self._discard()
            else:
                chunk = os.read(self._reader, _CHUNK)
                size = len(chunk)
                kept = self._budget.take(chunk)
                self._kept += kept
                self.truncated = len(kept) < size
        except BlockingIOError:
            return
        if size == 0:
            self._close_reader()
            self._ended.set_result(None)

    def _discard(self) -> int:
        """Discard the pipe's content without copying it, so that a flood costs the worker less than the program."""
        if self._null is None:
            self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        return os.splice(self._reader, self._null, _DISCARDED_AT_ONCE)

    def _close_reader(self) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        if self._null is not None:
            os.close(self._null)
            self._null = None
