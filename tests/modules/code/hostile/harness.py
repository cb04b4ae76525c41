"""Runs a hostile program with traps laid all around it, and says what it got hold of."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from contextunity.gen.contextunity.code.v1 import ExecutionStatus

import contextunity.worker
from contextunity.modules.code.backend import Backend, Outcome, Program, ProgramLimits

from .programs import Hostile

_SHORT, _LONG = 0.3, 5.0
"""Seconds for programs that are to run into their limit of time, and for those that are not."""
_WALL_SLACK = 1.5
_MEMORY_SLACK = 200 << 20
_OUTSIDE_TIMEOUT = 60.0
_ESCAPED = "ESCAPED"
_OF_MONTY = "monty"
_OF_PASSWD = "root:x:0:0"


@dataclass
class Traps:
    """What a program must not reach: a secret in the environment and in a file, listeners, a folder open to all."""

    canary: str
    secret: Path
    outside: Path
    tcp: socket.socket
    udp: socket.socket
    unix: socket.socket
    abstract: socket.socket
    marks: tuple[object, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.marks = self._state()

    def fill_in(self, code: str) -> str:
        """The program with what is between two @ put in."""
        values = {
            "SECRET": str(self.secret),
            "SECRET_FOLDER": str(self.secret.parent),
            "OUTSIDE": str(self.outside),
            "TCP": str(self.tcp.getsockname()[1]),
            "UDP": str(self.udp.getsockname()[1]),
            "UNIX": str(self.unix.getsockname()),
            "ABSTRACT": self.abstract.getsockname()[1:].decode(),
            "WORKER": str(os.getpid()),
            "SOURCE": str(Path(contextunity.worker.__file__)),
            "CANARY_LENGTH": str(len(self.canary)),
        }
        for name, value in values.items():
            code = code.replace(f"@{name}@", value)
        return code

    def sprung(self) -> list[str]:
        """What happened to them."""
        faults = []
        for name, listener in (("TCP", self.tcp), ("unix", self.unix), ("abstract", self.abstract)):
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                faults.append(f"connected to the {name} listener")
        with contextlib.suppress(BlockingIOError):
            faults.append(f"sent {self.udp.recv(100)!r} to the UDP listener")
        if self._state() != self.marks:
            faults.append(f"changed files outside: {self._state()}, was {self.marks}")
        return faults

    def _state(self) -> tuple[object, ...]:
        status = self.secret.stat()
        return (
            sorted(os.listdir(self.outside)),
            sorted(os.listdir(self.secret.parent)),
            self.secret.read_text(),
            stat.filemode(status.st_mode),
            (status.st_uid, status.st_mtime_ns, status.st_nlink),
            (os.stat(os.__file__).st_mode, os.stat(os.__file__).st_size, os.stat(os.__file__).st_mtime_ns),
        )


@contextlib.contextmanager
def laid() -> Iterator[Traps]:
    """Lays the traps in a folder that everybody gets to."""
    with tempfile.TemporaryDirectory(prefix="traps-") as folder:
        yield from _laid(Path(folder))


def _laid(folder: Path) -> Iterator[Traps]:
    canary = secrets.token_hex(24)
    secret = folder / "secret" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text(canary)
    outside = folder / "outside"
    outside.mkdir()
    for path, mode in ((folder, 0o755), (secret.parent, 0o777), (secret, 0o666), (outside, 0o777)):
        path.chmod(mode)
    with contextlib.ExitStack() as stack:
        tcp, udp = (
            stack.enter_context(socket.socket(socket.AF_INET, kind)) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        )
        unix, abstract = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        abstract.bind(f"\0{secrets.token_hex(8)}")
        for listener in (tcp, unix, abstract):
            listener.listen()
        for trap in (tcp, udp, unix, abstract):
            trap.setblocking(False)
        os.environ["CANARY"] = canary
        stack.callback(os.environ.pop, "CANARY")
        yield Traps(canary, secret, outside, tcp, udp, unix, abstract)


def limits_of(hostile: Hostile) -> ProgramLimits:
    """The limits that a program is run with."""
    seconds = _SHORT if ExecutionStatus.TIMEOUT in hostile.ends else _LONG
    return ProgramLimits(
        wall=seconds,
        cpu=seconds,
        memory_bytes=128 << 20,
        output_bytes=64 << 10,
        result_bytes=64 << 10,
        scratch_bytes=4 << 20,
    )


async def examine(backend: Backend, hostile: Hostile, traps: Traps) -> list[str]:
    """Runs a program, and returns all that is not as it must be afterwards; nothing, where it was contained."""
    before = left_behind(set())
    async with _watched_memory() as memory:
        faults = await examine_alone(backend, hostile, traps)
    if memory.peak > memory.base + limits_of(hostile).memory_bytes + _MEMORY_SLACK:
        faults.append(f"took {(memory.peak - memory.base) >> 20} MiB of memory")
    if left := left_behind(before):
        faults.append(f"left processes {left}")
    return [*faults, *traps.sprung(), *await still_works(backend)]


async def examine_alone(backend: Backend, hostile: Hostile, traps: Traps) -> list[str]:
    """The part of `examine` that looks at the outcome alone, for programs that run at the same time."""
    limits = limits_of(hostile)
    async with asyncio.timeout(_OUTSIDE_TIMEOUT):
        outcome = await backend.run(Program(code=traps.fill_in(hostile.code), limits=limits))
    assert isinstance(outcome, Outcome)
    faults = _faults_of(outcome, limits, traps)
    if backend.name == "cpython" and hostile.ends and outcome.status not in hostile.ends:
        faults.append(f"ended as {outcome.status.name} ({outcome.error}) {outcome.stderr[-300:]}")
    return faults


async def still_works(backend: Backend) -> list[str]:
    """Whether the next program finds all as it should be."""
    limits = ProgramLimits(
        wall=20.0, cpu=20.0, memory_bytes=64 << 20, output_bytes=1000, result_bytes=1000, scratch_bytes=1 << 20
    )
    following = await backend.run(Program(code="1 + 1", limits=limits))
    assert isinstance(following, Outcome)
    as_it_should = following.status is ExecutionStatus.OK and following.result == 2
    return [] if as_it_should else [f"the next program was harmed: {following}"]


def _faults_of(outcome: Outcome, limits: ProgramLimits, traps: Traps) -> list[str]:
    texts = (outcome.stdout, outcome.stderr, outcome.error, outcome.error_type, json.dumps(outcome.result))
    faults = [
        f"brought out {what!r}: {text[-500:]}"
        for text in texts
        for what in (traps.canary, _ESCAPED, _OF_PASSWD)
        if what in text
    ]
    if outcome.duration_ms > (limits.wall + _WALL_SLACK) * 1000:
        faults.append(f"took {outcome.duration_ms} ms")
    if sum(len(text.encode()) for text in (outcome.stdout, outcome.stderr)) > 3 * limits.output_bytes:
        faults.append("wrote more than it may")
    if len(outcome.error) > 2000 or "\n" in outcome.error:
        faults.append(f"has an error of {len(outcome.error)} characters")
    if (outcome.exit_code == 0) != (outcome.status is ExecutionStatus.OK):
        faults.append(f"has exit code {outcome.exit_code} and status {outcome.status.name}")
    return faults


def left_behind(before: set[int]) -> set[int]:
    """The processes below this one that were not there before. Monty replaces its own, so those do not count."""
    found = set[int]()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and child.name() != _OF_MONTY:
                found.add(child.pid)
    return found - before


@dataclass
class _Memory:
    base: int
    peak: int


@contextlib.asynccontextmanager
async def _watched_memory() -> AsyncIterator[_Memory]:
    """Looks at the memory of this process and all below it while the context is open."""
    base = _resident_bytes()
    memory = _Memory(base, base)
    own = psutil.Process().memory_info().rss
    _forget_own_peak()

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.03)
            memory.peak = max(memory.peak, _resident_bytes())

    watching = asyncio.create_task(watch())
    try:
        yield memory
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        # What was there for a moment between two looks, the kernel knows of this process.
        memory.peak = max(memory.peak, base + _own_peak_bytes() - own)


def _forget_own_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _own_peak_bytes() -> int:
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


def _resident_bytes() -> int:
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total
