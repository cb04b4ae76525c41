"""The backend `cpython`: the real interpreter, in a jail of the Linux kernel's that needs no root and no namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from contextunity.gen.contextunity.code.v1 import ExecutionStatus

from process_jail import request
from process_jail.requirements import JAILED
from process_jail.scratch import BLOCK

from ..errors import SandboxFailedError
from ._cpython_folder import ScratchRoot
from ._cpython_report import REPORT_BYTES, outcome_of
from ._protocol import Outcome, Program, ProgramLimits, SandboxUnavailable
from ._streams import Budget, Stream
from ._zygote import ChildEnd, Zygote

__all__ = ["CPythonBackend"]

_NOBODY = 65534
_GRACE = 10.0
"""Seconds after a program's time in which the zygote must have ended it."""
_PROBE = Program(
    code="",
    limits=ProgramLimits(
        wall=20.0, cpu=20.0, memory_bytes=64 << 20, output_bytes=4096, result_bytes=REPORT_BYTES, scratch_bytes=1 << 20
    ),
)


@dataclass(frozen=True, slots=True)
class _Run:
    """What came of a child: how it ended, what it reported after the marker, and its output."""

    end: ChildEnd
    report: bytes
    report_cut: bool
    stdout: str
    stderr: str
    truncated: bool


class CPythonBackend:
    """Runs each program in a child of its own, which a warm zygote forks.

    It takes as many programs at once as it is given. It belongs to the event loop that it is first used in. What the
    kernel lacks is found out at the first run.
    """

    def __init__(self, *, folder: Path | None = None, uid: int = _NOBODY, gid: int = _NOBODY) -> None:
        """Makes a backend; nothing is started before the first run.

        Args:
            folder: where scratch folders are made. The folder for temporary files where none is given, or where the
                user that programs run as could not get there.
            uid: user that programs run as where this process is root's; not 0.
            gid: group that they run as then; not 0.

        Raises:
            ValueError: the user or the group is root's.
        """
        if uid <= 0 or gid <= 0:
            raise ValueError(f"programs must not run as root; got uid {uid} and gid {gid}, choose others")
        self._folder = folder
        self._user = (uid, gid)
        self._starting = asyncio.Lock()
        self._zygote: Zygote | None = None
        self._root: ScratchRoot | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """`cpython`."""
        return "cpython"

    async def start(self) -> None:
        """Starts the zygote, and tries whether the jail holds; else the first run does.

        Raises:
            SandboxUnavailable: the kernel, or this process, lacks what the jail needs.
            SandboxFailedError: it did not start.
        """
        await self._ready()

    async def run(self, program: Program) -> Outcome:
        """Runs a program to its end.

        Raises:
            SandboxUnavailable: the kernel, or this process, lacks what the jail needs.
            SandboxFailedError: the sandbox failed, and may not the next time.
        """
        if program.tools:
            return Outcome(
                status=ExecutionStatus.UNSUPPORTED,
                exit_code=1,
                error="programs of the cpython backend cannot call tools; those of the monty backend can",
            )
        try:
            zygote, root = await self._ready()
            run = await self._run(zygote, root, program, probe=False)
        except _NotJailed as error:
            raise SandboxFailedError(f"a program was not let run, for its jail could not be closed: {error}") from None
        outcome = outcome_of(program, run.end, run.report, run.report_cut)
        return replace(
            outcome,
            stdout=run.stdout,
            stderr=run.stderr,
            truncated=run.truncated,
            duration_ms=round(run.end.wall * 1000),
        )

    async def aclose(self) -> None:
        """Ends what runs, and removes the scratch folders."""
        self._closed = True
        async with self._starting:
            if self._zygote is not None:
                await self._zygote.aclose()
                self._zygote = None
            if self._root is not None:
                await asyncio.to_thread(self._root.close)
                self._root = None

    async def _ready(self) -> tuple[Zygote, ScratchRoot]:
        async with self._starting:
            if self._closed:
                raise SandboxFailedError("the cpython backend is closed")
            if sys.platform != "linux":
                raise SandboxUnavailable(
                    f"the cpython backend cannot work here: it needs Linux, and this is {sys.platform}"
                )
            if self._root is None:
                self._root = await asyncio.to_thread(ScratchRoot, self._folder, self._user if _is_root() else None)
            if self._zygote is not None and not self._zygote.alive:
                await self._zygote.aclose()
                self._zygote = None
            if self._zygote is None:
                zygote = await Zygote.start(self._user)
                try:
                    await self._try_the_bars(zygote, self._root)
                except BaseException:
                    await zygote.aclose()
                    raise
                self._zygote = zygote
            return self._zygote, self._root

    async def _try_the_bars(self, zygote: Zygote, root: ScratchRoot) -> None:
        """Has a first child find out whether the jail holds: what the kernel has taken it may yet not do."""
        try:
            run = await self._run(zygote, root, _PROBE, probe=True)
        except _NotJailed as error:
            raise SandboxUnavailable(f"the cpython backend cannot work here: {error}") from None
        try:
            faults = json.loads(run.report)
        except ValueError:
            faults = [f"the probe ended with code {run.end.code}, and wrote {run.stderr[-500:]!r}"]
        if faults:
            raise SandboxUnavailable(f"the cpython backend cannot work here: {'; '.join(map(str, faults))}")

    async def _run(self, zygote: Zygote, root: ScratchRoot, program: Program, *, probe: bool) -> _Run:
        with contextlib.ExitStack() as stack:
            limits = program.limits
            asked = request.Request(
                code=program.code,
                inputs=dict(program.inputs),
                files=[(path, len(content)) for path, content in program.files.items()],
                result_bytes=limits.result_bytes,
                error_bytes=limits.output_bytes,
            )
            packed = request.pack(asked, program.files)
            release = stack.enter_context(contextlib.ExitStack())
            release.callback(os.close, packed)
            path, folder = root.make()
            release.callback(os.close, folder)
            output = Budget(limits.output_bytes)
            streams = (Stream(output), Stream(output), Stream(Budget(limits.result_bytes + REPORT_BYTES)))
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
                raise _NotJailed(report.decode("utf-8", "replace") or f"the child ended with code {end.code}")
            truncated = stdout.truncated or stderr.truncated
            return _Run(end, report, result.truncated, stdout.text, stderr.text, truncated)


class _NotJailed(Exception):  # noqa: N818 - it says what the child is
    """A child could not lock itself in; the text says why. It has run nothing."""


async def _end_of(zygote: Zygote, number: int, ended: asyncio.Future[ChildEnd], wall: float) -> ChildEnd:
    try:
        async with asyncio.timeout(wall + _GRACE):
            return await asyncio.shield(ended)
    except TimeoutError:
        await zygote.aclose()
        raise SandboxFailedError(
            "the zygote of the cpython backend did not end a program in time, and was ended"
        ) from None
    except asyncio.CancelledError:
        with contextlib.suppress(SandboxFailedError, TimeoutError):
            await zygote.end(number)
            async with asyncio.timeout(_GRACE):
                await asyncio.shield(ended)
        raise


def _message(program: Program, *, probe: bool) -> dict[str, float | bool]:
    """The limits as the zygote takes them. What the program was given does not count as what it wrote."""
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


def _is_root() -> bool:
    return os.geteuid() == 0
