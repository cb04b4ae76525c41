"""Tries the bars: what a jail must hold back is tried once from within, before the first program is let in."""

from __future__ import annotations

import errno
import importlib
import json
import mmap
import os
import socket
from collections.abc import Callable

from . import kernel
from .confinement import RESULT

__all__ = ["run"]

_CLONE3 = 435
_UNUSUAL_MODULE = "pyclbr"
"""One that is not loaded before."""
_SCRATCH_FILE = "probe"


def run() -> None:
    """Reports what is not as it must be, as a list of texts in JSON; an empty one where all holds."""
    faults = [fault for fault in map(_tried, _BARS) if fault]
    faults += _faults_within()
    os.write(RESULT, json.dumps(faults).encode("ascii"))


def _tried(bar: tuple[str, Callable[[], object], tuple[int, ...]]) -> str:
    what, attempt, expected = bar
    try:
        attempt()
    except OSError as error:
        return "" if error.errno in expected else f"a program that {what} is told {error.strerror}"
    return f"a program {what}"


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _execute() -> None:
    os.execv("/proc/self/exe", ["python"])  # noqa: S606 - it must fail


def _clone3() -> None:
    kernel.syscall("clone3", _CLONE3, None, 0)


def _executable_memory() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


_NOT_PERMITTED, _NO_ACCESS = (errno.EPERM,), (errno.EACCES,)
_BARS: tuple[tuple[str, Callable[[], object], tuple[int, ...]], ...] = (
    ("lists the root folder", lambda: os.listdir("/"), _NO_ACCESS),
    ("reads of itself in /proc", lambda: os.open("/proc/self/environ", os.O_RDONLY), _NO_ACCESS),
    ("writes to /tmp", lambda: os.open("/tmp", os.O_TMPFILE | os.O_WRONLY), (errno.EACCES, errno.EPERM)),  # noqa: S108
    ("leaves its scratch folder", lambda: os.mkdir("../probe"), _NO_ACCESS),
    ("opens a socket", socket.socket, _NOT_PERMITTED),
    ("forks", _fork, _NOT_PERMITTED),
    ("makes a thread or process by clone3", _clone3, (errno.ENOSYS,)),
    ("executes another", _execute, _NOT_PERMITTED),
    ("makes machine code", _executable_memory, _NOT_PERMITTED),
    ("signals its parent", lambda: os.kill(os.getppid(), 0), _NOT_PERMITTED),
    ("becomes root", lambda: os.setresuid(0, 0, 0), _NOT_PERMITTED),
)


def _faults_within() -> list[str]:
    """What a program needs and must have."""
    faults: list[str] = []
    try:
        descriptor = os.open(_SCRATCH_FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.close(descriptor)
        os.unlink(_SCRATCH_FILE)
    except OSError as error:
        faults.append(f"the scratch folder cannot be written to ({error.strerror})")
    try:
        importlib.import_module(_UNUSUAL_MODULE)
    except ImportError as error:
        faults.append(f"the standard library cannot be read ({error})")
    if os.geteuid() == 0:
        faults.append("it runs as root")
    return faults
