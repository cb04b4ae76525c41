"""Fork a child for each program from a warm process without threads, the zygote, and enforce its limits.

The zygote never sees a program, its inputs or its result: they go between worker and child, through descriptors that it
only passes on. So its memory, which each later child copies, contains no data of a run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import sysconfig
import time
from dataclasses import dataclass
from typing import NoReturn, cast

from . import kernel, landlock, program, scratch
from .confinement import JAILED, NOT_JAILED, RESULT, ChildLimits, Confinement, Descriptors, enter, missing, probe

__all__ = ["main"]

_TICK = 0.025
"""Seconds between two checks of a child's usage."""
_LOOK_SHARE = 8
"""After a check of the files, wait this many times as long as it took, so that large folders cost little."""
_MESSAGE_BYTES = 1 << 16
_DESCRIPTORS = 5
_NAMESPACES = 0x40000000 | 0x08000000 | 0x04000000
"""CLONE_NEWNET, CLONE_NEWIPC and CLONE_NEWUTS: no network, no foreign shared memory, no host name."""
_HOST_NAME = "sandbox"
_EXTENSIONS_LEFT_OUT = (
    *("_test", "_xx", "xx", "_curses", "_tkinter", "_dbm", "_gdbm", "_crypt"),
    *("nis", "ossaudiodev", "readline", "spwd", "syslog"),
)
"""Extension modules that are useless in a jail; a program cannot load them later."""
_MODULES = """
    abc argparse array ast asyncio base64 binascii bisect bz2 calendar cmath codecs collections collections.abc colorsys
    concurrent.futures configparser contextlib contextvars copy csv ctypes dataclasses datetime decimal difflib dis
    email.message encodings.idna encodings.latin_1 enum errno fnmatch fractions functools gc getpass glob graphlib gzip
    hashlib heapq hmac html html.parser importlib.metadata inspect io ipaddress itertools json keyword linecache locale
    logging lzma math mimetypes numbers operator os pathlib pickle platform pprint queue random re sched secrets select
    selectors shlex shutil signal socket sqlite3 statistics string struct subprocess tarfile tempfile textwrap threading
    time timeit tokenize tomllib traceback types typing unicodedata unittest urllib.parse uuid warnings weakref
    xml.etree.ElementTree zipfile zlib zoneinfo
"""


@dataclass(kw_only=True, slots=True)
class _Child:
    """A running child.

    Attributes:
        run: the worker's number for it.
        pid: its process id.
        process: descriptor of its process.
        folder: descriptor of its scratch folder.
        started: start, in seconds of the monotonic clock.
        wall: limit of seconds.
        cpu: limit of processor seconds.
        quota: limit of bytes that its files occupy.
        looked: time of the last check of its files.
        pause: seconds until the next check.
        reason: why it was killed; empty if it was not.
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
        """Fork and watch children until the worker is gone; then kill those that still run."""
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
        """Return the milliseconds until a child must be checked; None if no child runs."""
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
            # Now only the child has them, so that their other ends notice when it exits.
            for descriptor in (request, stdout, stderr, result):
                os.close(descriptor)

    def _become_child(self, message: dict[str, int | float | bool], descriptors: Descriptors) -> NoReturn:
        try:
            limits = ChildLimits(
                cpu=message["cpu"], memory_bytes=int(message["memory"]), file_bytes=int(message["file"])
            )
            self._children.clear()
            enter(self._confinement, descriptors, limits)
        except BaseException as error:  # noqa: BLE001 - no code of the program ran, and none will
            _refuse(descriptors.result, f"{type(error).__name__}: {error}")
        os.write(RESULT, JAILED)
        if message["probe"]:
            os.write(RESULT, json.dumps(probe()).encode("ascii"))
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
    told = NOT_JAILED + reason.encode("utf-8", "replace")[:1000]
    try:
        os.write(result, told)
    except OSError:
        # The descriptor was already moved to its number.
        os.write(RESULT, told)
    finally:
        os._exit(1)


def main() -> None:
    """Serve the worker that started this process.

    `sys.argv` has the descriptor of one end of a pair of SOCK_SEQPACKET sockets, the worker's process id, and the user
    and group of the programs if this process runs as root. The first message lists what is missing here.
    """
    control_descriptor, worker, uid, gid = (int(argument) for argument in sys.argv[1:5])
    kernel.prctl("PR_SET_PDEATHSIG", kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=kernel.keep(control_descriptor))
    root = os.geteuid() == 0
    if lacking := missing(root, uid):
        control.send(json.dumps({"missing": lacking}).encode("ascii"))
        return
    user = (uid, gid) if root else None
    keep = _keep_library_open(user)
    rules = landlock.readable()
    _load_modules()
    if kernel.unshare(_NAMESPACES):
        socket.sethostname(_HOST_NAME)
    confinement = Confinement(
        machine=kernel.architecture(),
        landlock_abi=landlock.abi(),
        rules=rules,
        keep=keep,
        user=user,
        zygote=os.getpid(),
    )
    control.send(json.dumps({"missing": []}).encode("ascii"))
    # Freeze all objects: children share their memory as long as no process writes to it.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _Zygote(control, confinement).serve()


def _load_modules() -> None:
    """Import modules that programs often use, and each extension module: a jailed child cannot load machine code."""
    for name in _MODULES.split():
        importlib.import_module(name)
    for name in _extensions():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _extensions() -> list[str]:
    folder = sysconfig.get_config_var("DESTSHARED")
    if not isinstance(folder, str) or not os.path.isdir(folder):
        return []
    names = sorted(entry.partition(".")[0] for entry in os.listdir(folder) if entry.endswith(".so"))
    return [name for name in names if not name.startswith(_EXTENSIONS_LEFT_OUT)]


def _keep_library_open(user: tuple[int, int] | None) -> int | None:
    """Keep the standard library readable for children that become another user.

    If that user cannot reach its path, such as root's interpreter in /root, import it through an open folder instead.

    Returns:
        That folder, which must stay open; None if none is needed.
    """
    folder = os.path.dirname(os.__file__)
    if user is None or scratch.open_to_all(folder):
        return None
    kept = kernel.keep(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    _move_imports(folder, f"/proc/self/fd/{kept}")
    return kept


def _move_imports(old: str, new: str) -> None:
    def moved(path: str) -> str:
        return new + path[len(old) :] if path == old or path.startswith(f"{old}/") else path

    sys.path[:] = [moved(path) for path in sys.path]
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        folders = getattr(module, "__path__", None)
        if isinstance(folders, list):
            module.__path__ = [moved(str(path)) for path in cast("list[object]", folders)]
