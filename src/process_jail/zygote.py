"""The zygote: a warm process without threads that forks a child for each run, and holds it to its limits.

It never sees a program, its inputs or what comes of it: those go between the worker and the child, through descriptors
that it passes on. So nothing of one run is in its memory, which all later children have a copy of.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import NoReturn

from . import kernel, landlock, library, probe, program, requirements, scratch
from .confinement import RESULT, Confinement, Descriptors, Limits, enter

__all__ = ["main"]

_TICK = 0.025
"""Seconds between two looks at what a child has used."""
_LOOK_SHARE = 8
"""A look that takes long is only taken again after so many times as long."""
_MESSAGE_BYTES = 1 << 16
_DESCRIPTORS = 5
_NAMESPACES = 0x40000000 | 0x08000000 | 0x04000000
"""CLONE_NEWNET, CLONE_NEWIPC and CLONE_NEWUTS: no network, nobody's shared memory, and no name of the machine."""
_HOST_NAME = "sandbox"


@dataclass(kw_only=True, slots=True)
class _Child:
    """A child that runs.

    Attributes:
        run: number that the worker gave it.
        pid: its process.
        process: descriptor of that process.
        folder: descriptor of its scratch folder.
        started: when, in seconds of the monotonic clock.
        wall: seconds that it may take.
        cpu: processor seconds that it may use.
        quota: bytes that its files may occupy.
        looked: when its files were last looked at.
        pause: seconds until they are looked at again.
        reason: why it was ended, empty where it was not.
    """

    run: int
    pid: int
    process: int
    folder: int
    started: float
    wall: float
    cpu: float
    quota: int
    looked: float
    pause: float = _TICK
    reason: str = ""


class _Zygote:
    def __init__(self, control: socket.socket, confinement: Confinement) -> None:
        self._control = control
        self._confinement = confinement
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def serve(self) -> None:
        """Forks and watches until the worker is gone; then ends what still runs."""
        try:
            while True:
                for descriptor, _ in self._poll.poll(self._patience()):
                    if descriptor != self._control.fileno():
                        self._reap(self._children[descriptor])
                    elif not self._take():
                        return
                for child in self._children.values():
                    self._look_after(child)
        finally:
            for child in self._children.values():
                signal.pidfd_send_signal(child.process, signal.SIGKILL)

    def _patience(self) -> float | None:
        """Milliseconds until a child must be looked after; None where there is none."""
        deadlines = [child.started + child.wall for child in self._children.values() if not child.reason]
        if not deadlines:
            return None
        return 1000 * max(0.001, min(_TICK, min(deadlines) - time.monotonic()))

    def _take(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, _DESCRIPTORS)
        if not data:
            return False
        message = json.loads(data)
        if "end" in message:
            for child in self._children.values():
                if child.run == message["end"]:
                    self._end(child, "asked")
        else:
            self._start(message, descriptors)
        return True

    def _start(self, message: dict[str, int | float | bool], received: list[int]) -> None:
        request, stdout, stderr, result, folder = received
        descriptors = Descriptors(request=request, stdout=stdout, stderr=stderr, result=result, scratch=folder)
        started = time.monotonic()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(folder)
            self._tell(run=message["run"], failed=f"fork: {error.strerror}")
        else:
            if pid == 0:
                self._become_child(message, descriptors)
            process = os.pidfd_open(pid)
            self._poll.register(process, select.POLLIN)
            self._children[process] = _Child(
                run=int(message["run"]),
                pid=pid,
                process=process,
                folder=folder,
                started=started,
                wall=message["wall"],
                cpu=message["cpu"],
                quota=int(message["quota"]),
                looked=started,
            )
        finally:
            # Only the child holds them now, so that their other ends see its end.
            for descriptor in (request, stdout, stderr, result):
                os.close(descriptor)

    def _become_child(self, message: dict[str, int | float | bool], descriptors: Descriptors) -> NoReturn:
        try:
            limits = Limits(cpu=message["cpu"], memory_bytes=int(message["memory"]), file_bytes=int(message["file"]))
            self._children.clear()
            enter(self._confinement, descriptors, limits)
        except BaseException as error:  # noqa: BLE001 - nothing of the program has run, and nothing will
            _refuse(descriptors.result, f"{type(error).__name__}: {error}")
        os.write(RESULT, requirements.JAILED)
        if message["probe"]:
            probe.run()
        else:
            program.run()
        os._exit(0)

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.reason:
            return
        if now - child.started >= child.wall:
            self._end(child, "wall")
        elif kernel.cpu_seconds(child.pid) >= child.cpu:
            self._end(child, "cpu")
        elif now - child.looked >= child.pause:
            if scratch.occupied(child.folder, child.quota, child.pid) > child.quota:
                self._end(child, "scratch")
            child.looked = time.monotonic()
            child.pause = max(_TICK, _LOOK_SHARE * (child.looked - now))

    def _end(self, child: _Child, reason: str) -> None:
        child.reason = child.reason or reason
        signal.pidfd_send_signal(child.process, signal.SIGKILL)

    def _reap(self, child: _Child) -> None:
        _, status, usage = os.wait4(child.pid, 0)
        took = time.monotonic() - child.started
        self._poll.unregister(child.process)
        del self._children[child.process]
        os.close(child.process)
        os.close(child.folder)
        self._tell(
            run=child.run,
            reason=child.reason,
            code=os.waitstatus_to_exitcode(status),
            cpu=usage.ru_utime + usage.ru_stime,
            wall=took,
        )

    def _tell(self, **values: object) -> None:
        self._control.send(json.dumps(values).encode("ascii"))


def _refuse(result: int, reason: str) -> NoReturn:
    told = requirements.NOT_JAILED + reason.encode("utf-8", "replace")[:1000]
    try:
        os.write(result, told)
    except OSError:
        # It has come so far that the descriptor lies in its place already.
        os.write(RESULT, told)
    finally:
        os._exit(1)


def main() -> None:
    """Serves the worker that started it; `sys.argv` has what it needs to know.

    That is the descriptor of one end of a pair of SOCK_SEQPACKET sockets, the worker's process id, and the user and the
    group to become where it is root.
    """
    control_descriptor, worker, uid, gid = (int(argument) for argument in sys.argv[1:5])
    kernel.prctl("PR_SET_PDEATHSIG", kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=kernel.keep(control_descriptor))
    missing = requirements.missing(os.geteuid() == 0, uid)
    if missing:
        control.send(json.dumps({"missing": missing}).encode("ascii"))
        return
    user = (uid, gid) if os.geteuid() == 0 else None
    kept = library.reach(user)
    rules = library.readable()
    library.load()
    networkless = kernel.unshare(_NAMESPACES)
    if networkless:
        socket.sethostname(_HOST_NAME)
    confinement = Confinement(
        machine=kernel.architecture(),
        landlock_abi=landlock.abi(),
        rules=rules,
        keep=kept,
        user=user,
        zygote=os.getpid(),
    )
    control.send(json.dumps({"landlock": confinement.landlock_abi, "namespaces": networkless}).encode("ascii"))
    # What is there now is there for good: children share it as long as nobody writes to it.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _Zygote(control, confinement).serve()
