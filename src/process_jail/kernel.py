"""System calls for which Python has no function."""

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
    """Return a buffer of exactly these bytes."""
    return ctypes.create_string_buffer(data, len(data))


def architecture() -> str:
    """Return the name of the machine in the tables of system calls: x86_64 or aarch64; other names have no table.

    A 32-bit interpreter on a 64-bit kernel, or a big-endian one, has another name.
    """
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    return machine if sys.maxsize > 2**32 and sys.byteorder == "little" else f"{machine} (32 bits or big-endian)"


def syscall(what: str, number: int, *arguments: int | Buffer | None) -> int:
    """Make a system call.

    Args:
        what: its name, for the error.
        number: its number on this machine.
        arguments: integers, buffers, or None for a null pointer.

    Raises:
        OSError: the call failed.
    """
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return check(what, libc.syscall(ctypes.c_long(number), *passed))


def prctl(what: str, option: int, *arguments: int | Buffer) -> int:
    """Make a prctl call; omitted arguments are 0.

    Raises:
        OSError: the call failed.
    """
    passed = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    passed += [ctypes.c_ulong(0)] * (4 - len(passed))
    return check(what, libc.prctl(ctypes.c_int(option), *passed))


def check(what: str, result: int) -> int:
    """Return the result of a libc function.

    Raises:
        OSError: it is -1.
    """
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def keep(descriptor: int) -> int:
    """Move a descriptor above the range that children use, and return its new number."""
    kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
    os.close(descriptor)
    return kept


def unshare(flags: int) -> bool:
    """Move this process to new namespaces; return False if the kernel does not allow it."""
    return int(libc.unshare(ctypes.c_int(flags))) == 0


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds of a process, with the scheduler's precision; 0 if the process is gone."""
    try:
        # The clock id of another process: see man 3 clock_getcpuclockid.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0
