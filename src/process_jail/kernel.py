"""Calls of the Linux kernel that Python has no function for."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import sys
import time
from typing import TypeAlias

__all__ = [
    "PR_CAPBSET_DROP",
    "PR_CAP_AMBIENT",
    "PR_CAP_AMBIENT_CLEAR_ALL",
    "PR_GET_SECCOMP",
    "PR_SET_NO_NEW_PRIVS",
    "PR_SET_PDEATHSIG",
    "PR_SET_SECCOMP",
    "Buffer",
    "architecture",
    "buffer",
    "check",
    "cpu_seconds",
    "keep",
    "libc",
    "prctl",
    "syscall",
    "unshare",
]

PR_SET_PDEATHSIG = 1
PR_GET_SECCOMP = 21
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_OUT_OF_THE_WAY = 100

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.prctl.restype = ctypes.c_int


Buffer: TypeAlias = "ctypes.Array[ctypes.c_char]"
"""Bytes that the kernel reads or writes."""


def buffer(data: bytes) -> Buffer:
    """Returns a buffer of exactly these bytes."""
    return ctypes.create_string_buffer(data, len(data))


def architecture() -> str:
    """The machine as the tables of system calls name it: x86_64 or aarch64; anything else has no table.

    A 32-bit interpreter on a 64-bit kernel, and one of the other byte order, count as something else.
    """
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    return machine if sys.maxsize > 2**32 and sys.byteorder == "little" else f"{machine} (32 bits or big-endian)"


def syscall(what: str, number: int, *arguments: int | Buffer | None) -> int:
    """Makes a system call.

    Args:
        what: its name, for the error.
        number: its number on this machine.
        arguments: whole numbers, buffers, or None for a null pointer.

    Raises:
        OSError: the call failed.
    """
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return check(what, libc.syscall(ctypes.c_long(number), *passed))


def prctl(what: str, option: int, *arguments: int | Buffer) -> int:
    """Makes a prctl call; the arguments that are not given are 0.

    Raises:
        OSError: the call failed.
    """
    passed = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    passed += [ctypes.c_ulong(0)] * (4 - len(passed))
    return check(what, libc.prctl(ctypes.c_int(option), *passed))


def check(what: str, result: int) -> int:
    """Returns what a function of libc gave.

    Raises:
        OSError: it gave -1.
    """
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def keep(descriptor: int) -> int:
    """Moves a descriptor out of the way of those that children get, and returns where it is now."""
    kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
    os.close(descriptor)
    return kept


def unshare(flags: int) -> bool:
    """Leaves namespaces for new ones; False where that is not allowed."""
    return int(libc.unshare(ctypes.c_int(flags))) == 0


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, exact to what the scheduler knows; 0 where it is gone."""
    try:
        # The clock of another process: its number is told by its bits (man 3 clock_getcpuclockid).
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0
