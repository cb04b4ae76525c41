"""What the jail needs of the kernel and of this process; where one is missing, no program is run."""

from __future__ import annotations

import os
import sys

from . import kernel, landlock, seccomp
from .syscall_numbers import NUMBERS

__all__ = ["JAILED", "NOT_JAILED", "missing"]

JAILED, NOT_JAILED = b"J", b"E"
"""First byte that a child reports: it is in its jail, and all that follows is the program's; or it could not be
locked in, and the reason follows."""
_CAPABILITIES = {0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER", 5: "KILL", 6: "SETGID", 7: "SETUID"}
"""What root needs to have a program run as another user, to end it, and to remove its files."""


def missing(root: bool, uid: int) -> list[str]:
    """What is missing here, in words; empty where all is there.

    Args:
        root: whether this process is root's.
        uid: the user to become then.
    """
    if sys.platform != "linux":
        return [f"Linux (this is {sys.platform})"]
    machine = kernel.architecture()
    faults: list[str] = []
    if machine not in NUMBERS:
        faults.append(f"a processor of the kinds {' and '.join(sorted(NUMBERS))} (this one is {machine})")
    if landlock.abi() < 1:
        faults.append(
            "Landlock (Linux 5.13 or newer, with landlock among the security modules that are switched on; "
            "the seccomp profile of a container may hide it)"
        )
    if not seccomp.available():
        faults.append("seccomp filters (CONFIG_SECCOMP_FILTER)")
    if not _has_pidfd():
        faults.append("descriptors of processes (pidfd_open, Linux 5.3 or newer)")
    if not os.path.exists("/proc/self/statm"):
        faults.append("the proc file system at /proc")
    elif root and (lacking := _lacking_capabilities()):
        faults.append(f"{' and '.join(lacking)}, for root to run programs as uid {uid}; or another user than root")
    return faults


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def _lacking_capabilities() -> list[str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        fields = dict(line.split(":", 1) for line in status if ":" in line)
    effective = int(fields["CapEff"], 16)
    return [f"CAP_{name}" for number, name in _CAPABILITIES.items() if not effective >> number & 1]
