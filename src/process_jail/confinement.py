"""How a child locks itself in, once and for good, before it reads a word of the program."""

from __future__ import annotations

import fcntl
import math
import os
import resource
import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from . import kernel, landlock, seccomp
from .syscall_numbers import NUMBERS
from .syscall_policy import policy

__all__ = ["REQUEST", "RESULT", "Confinement", "Descriptors", "Limits", "drop_privileges", "enter"]

RESULT, REQUEST = 3, 4
"""Descriptors of a child beside 0, 1 and 2: what it reports on, and what it is to run."""
_SHUFFLE = 50
_OPEN_FILES = 64
_STACK_BYTES = 8 << 20
_NICENESS = 5
"""The worker goes first where processors are short."""
_CAPABILITIES_VERSION = 0x20080522
_CAPABILITIES_BYTES = 24
_LAST_CAPABILITY = 63
_CLOSE_RANGE = NUMBERS["x86_64"]["close_range"]
"""The same on all machines."""
_LAST_DESCRIPTOR = 0x7FFFFFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Confinement:
    """What is the same for every child of a zygote.

    Attributes:
        machine: name of the tables of system calls.
        landlock_abi: version of Landlock's interface.
        rules: what may be read, as Landlock takes it; the scratch folder comes on top.
        keep: a descriptor that stays open, or None: the folder of the standard library, where its path cannot be gone.
        user: user and group that a child becomes, or None where it stays what it is.
        zygote: process id of the zygote.
    """

    machine: str
    landlock_abi: int
    rules: Sequence[tuple[int, int]]
    keep: int | None
    user: tuple[int, int] | None
    zygote: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one child may use: seconds and bytes."""

    cpu: float
    memory_bytes: int
    file_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptors:
    """What a child gets from the worker, open."""

    request: int
    stdout: int
    stderr: int
    result: int
    scratch: int


def enter(confinement: Confinement, descriptors: Descriptors, limits: Limits) -> None:
    """Locks this process in, a child just forked that has nothing to lose.

    Raises:
        OSError: the kernel refused a part of it. The process must then end.
        RuntimeError: a part was taken and yet has no effect. The process must then end.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.umask(0o077)
    os.nice(_NICENESS)
    _offer_to_the_oom_killer()
    scratch = _arrange(descriptors)
    os.fchdir(scratch)
    os.environ.clear()
    own_bytes = _address_space_bytes()
    if confinement.user is not None:
        drop_privileges(*confinement.user)
    _clear_capabilities()
    _set_limits(limits, own_bytes)
    # Only now: changing the user takes it back.
    kernel.prctl("PR_SET_PDEATHSIG", kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != confinement.zygote:
        raise RuntimeError("the zygote ended")
    kernel.prctl("PR_SET_NO_NEW_PRIVS", kernel.PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict([*confinement.rules, (scratch, landlock.SCRATCH)], confinement.landlock_abi)
    _close_all_but(confinement.keep)
    seccomp.install(seccomp.compile_filter(policy(os.getpid()), confinement.machine))


def drop_privileges(uid: int, gid: int) -> None:
    """Becomes an ordinary user for good.

    Raises:
        OSError: the kernel refused.
        RuntimeError: it did not, and yet there is a way back.
    """
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            kernel.prctl("PR_CAPBSET_DROP", kernel.PR_CAPBSET_DROP, capability)
        except OSError:
            # Past the last one that the kernel knows; or not allowed, and then there are none to lose by an exec, which
            # is denied besides.
            break
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise RuntimeError("the user did not change")


def _offer_to_the_oom_killer() -> None:
    """Should the machine run out of memory, this process goes first."""
    descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, b"1000")
    os.close(descriptor)


def _arrange(descriptors: Descriptors) -> int:
    """Puts each descriptor into its place, and returns that of the scratch folder."""
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    sources = (null, descriptors.stdout, descriptors.stderr, descriptors.result, descriptors.request)
    # First all away from the places: one of them may lie where another belongs.
    aside = [fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _SHUFFLE) for source in sources]
    scratch = fcntl.fcntl(descriptors.scratch, fcntl.F_DUPFD_CLOEXEC, _SHUFFLE)
    for place, source in enumerate(aside):
        os.dup2(source, place, inheritable=False)
    return scratch


def _close_all_but(keep: int | None) -> None:
    first = REQUEST + 1
    if keep is not None:
        kernel.syscall("close_range", _CLOSE_RANGE, first, keep - 1, 0)
        first = keep + 1
    kernel.syscall("close_range", _CLOSE_RANGE, first, _LAST_DESCRIPTOR, 0)


def _address_space_bytes() -> int:
    descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    pages = int(os.read(descriptor, 200).split()[0])
    os.close(descriptor)
    return pages * resource.getpagesize()


def _clear_capabilities() -> None:
    kernel.prctl("PR_CAP_AMBIENT", kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)
    header = kernel.buffer(struct.pack("=Ii", _CAPABILITIES_VERSION, 0))
    kernel.check("capset", kernel.libc.capset(header, kernel.buffer(bytes(_CAPABILITIES_BYTES))))
    left = kernel.buffer(b"\xff" * _CAPABILITIES_BYTES)
    kernel.check("capget", kernel.libc.capget(header, left))
    if any(left.raw):
        raise RuntimeError("capabilities are left")


def _set_limits(limits: Limits, own_bytes: int) -> None:
    # Soft and hard alike: the kernel then sends SIGKILL at once, and no signal that could be caught.
    seconds = max(1, math.ceil(limits.cpu))
    space = own_bytes + limits.memory_bytes
    for limit, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NPROC, 0),
        # No file is that small, and a handler of crashes is not called for 1, as it would be for 0 (man 5 core).
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_STACK, _STACK_BYTES),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        ceiling = resource.getrlimit(limit)[1]
        value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        resource.setrlimit(limit, (value, value))
