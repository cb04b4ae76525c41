"""The worker's side of a zygote: starts it, has it fork children, and learns how they ended."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import process_jail

from ..errors import SandboxFailedError
from ._protocol import SandboxUnavailable

__all__ = ["ChildEnd", "Zygote"]

_START_TIMEOUT = 30.0
_MESSAGE_BYTES = 1 << 16
_BOOTSTRAP = """
import sys, types
package = sys.modules["process_jail"] = types.ModuleType("process_jail")
package.__path__ = [sys.argv.pop()]
from process_jail.zygote import main
main()
"""
"""Imports the package's modules from its own folder alone: what lies beside it is not put on the path, and its face,
which is for the worker, is not run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildEnd:
    """How a child ended.

    Attributes:
        reason: why the zygote ended it: wall, cpu, scratch or asked; empty where it ended by itself.
        code: its exit code, or the negative number of the signal that ended it.
        cpu: processor seconds that it used.
        wall: seconds that it took.
    """

    reason: str
    code: int
    cpu: float
    wall: float


class Zygote:
    """A zygote that runs. It ends with this process, however this process ends."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._runs: dict[int, asyncio.Future[ChildEnd]] = {}
        self._sending = asyncio.Lock()
        self._room = asyncio.Event()
        self._count = 0
        self._closed = False

    @classmethod
    async def start(cls, user: tuple[int, int]) -> Zygote:
        """Starts a zygote and waits until it is warm.

        Args:
            user: user and group that programs run as, where this process is root's.

        Raises:
            SandboxUnavailable: something that the jail needs is missing here.
            SandboxFailedError: it did not start.
        """
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = _spawn(theirs, user)
        control.setblocking(False)
        zygote = cls(process, control)
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                told = await zygote._loop.sock_recv(control, _MESSAGE_BYTES)
        except BaseException as error:
            await zygote.aclose()
            if isinstance(error, TimeoutError):
                raise SandboxFailedError(
                    f"the zygote of the cpython backend was not ready in {_START_TIMEOUT:.0f} s"
                ) from None
            raise
        if not told or "missing" in json.loads(told):
            await zygote.aclose()
            if not told:
                raise SandboxFailedError(f"the zygote of the cpython backend ended with code {process.returncode}")
            raise SandboxUnavailable(
                f"the cpython backend cannot work here; it needs {'; '.join(json.loads(told)['missing'])}"
            )
        zygote._loop.add_reader(control, zygote._receive)
        return zygote

    @property
    def alive(self) -> bool:
        """Whether it takes runs."""
        return not self._closed

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def fork(
        self, message: dict[str, float | bool], descriptors: Sequence[int]
    ) -> tuple[int, asyncio.Future[ChildEnd]]:
        """Has a child forked.

        Args:
            message: its limits, as the zygote takes them.
            descriptors: of the request, standard output, standard error, the result and the scratch folder.

        Returns:
            Its number, and its end, which is an error where there was no child, or the zygote ended.

        Raises:
            SandboxFailedError: the zygote ended.
        """
        self._count += 1
        ended: asyncio.Future[ChildEnd] = self._loop.create_future()
        self._runs[self._count] = ended
        run = self._count
        try:
            await self._send({"run": run, **message}, descriptors)
        except BaseException:
            del self._runs[run]
            raise
        return run, ended

    async def end(self, run: int) -> None:
        """Has a child ended, where it has not yet."""
        if run in self._runs:
            await self._send({"end": run}, ())

    async def aclose(self) -> None:
        """Ends it, and all its children."""
        self._fail("the backend was closed")
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
        raise SandboxFailedError("the zygote of the cpython backend ended")

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
            ended.set_exception(SandboxFailedError(f"no child for the program: {message['failed']}"))
        else:
            ended.set_result(
                ChildEnd(reason=message["reason"], code=message["code"], cpu=message["cpu"], wall=message["wall"])
            )

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
                ended.set_exception(SandboxFailedError(f"the zygote of the cpython backend: {reason}"))
        self._runs.clear()


def _spawn(control: socket.socket, user: tuple[int, int]) -> subprocess.Popen[bytes]:
    # Isolated, without site-packages, with an environment of nothing but where to find libpython.
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    folder = str(Path(process_jail.__file__).parent)
    options = ["-I", "-S", "-B", "-X", "utf8", "-c", _BOOTSTRAP]
    arguments = [str(control.fileno()), str(os.getpid()), *map(str, user), folder]
    return subprocess.Popen(
        [sys.executable, *options, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        pass_fds=(control.fileno(),),
        # Ctrl-C reaches the whole foreground group, and the worker shuts down in order.
        start_new_session=True,
    )
