"""Lock a child in permanently, before it reads a byte of the program.

In this order: `missing` lists what the kernel or this process lacks; `enter` locks a child in; `probe` tests the walls
from inside, in a first child that runs no program.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import math
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import kernel, landlock, seccomp
from .syscall_policy import NUMBERS, policy

__all__ = [
    "JAILED",
    "NOT_JAILED",
    "REQUEST",
    "RESULT",
    "ChildLimits",
    "Confinement",
    "Descriptors",
    "enter",
    "missing",
    "probe",
]

RESULT, REQUEST = 3, 4
"""Descriptors of a child in addition to 0, 1 and 2: for its report, and for the program to run."""
JAILED, NOT_JAILED = b"J", b"E"
"""First byte that a child reports. J: it is locked in, and everything that follows is untrusted. E: it could not be
locked in, and the reason follows."""
_SHUFFLE = 50
_OPEN_FILES = 64
_STACK_BYTES = 8 << 20
_NICENESS = 5
"""Programs run at a lower priority than the worker."""
_CAPABILITIES_VERSION = 0x20080522
_CAPABILITIES_BYTES = 24
_LAST_CAPABILITY = 63
_NEEDED_CAPABILITIES = {0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER", 5: "KILL", 6: "SETGID", 7: "SETUID"}
"""Capabilities that root needs to run a program as another user, to kill it, and to remove its files."""
_CLOSE_RANGE = NUMBERS["x86_64"]["close_range"]
"""The same on all machines."""
_CLONE3 = NUMBERS["x86_64"]["clone3"]
"""The same on all machines."""
_LAST_DESCRIPTOR = 0x7FFFFFFF
_UNUSUAL_MODULE = "pyclbr"
"""A module that is not loaded in advance."""
_SCRATCH_FILE = "probe"


def missing(root: bool, uid: int) -> list[str]:
    """List what the jail needs and this machine or process lacks. Programs run only if the list is empty.

    Args:
        root: whether this process runs as root.
        uid: the user of the programs in that case.
    """
    if sys.platform != "linux":
        return [f"Linux (this is {sys.platform})"]
    machine = kernel.architecture()
    faults: list[str] = []
    if machine not in NUMBERS:
        faults.append(f"a processor of the kinds {' and '.join(sorted(NUMBERS))} (this one is {machine})")
    if landlock.abi() < 1:
        faults.append(
            "Landlock (Linux 5.13 or newer, with landlock among the enabled security modules; "
            "the seccomp profile of a container may hide it)"
        )
    if not seccomp.available():
        faults.append("seccomp filters (CONFIG_SECCOMP_FILTER)")
    if not _has_pidfd():
        faults.append("descriptors of processes (pidfd_open, Linux 5.3 or newer)")
    if not os.path.exists("/proc/self/statm"):
        faults.append("the proc file system at /proc")
    elif root and (lacking := _lacking_capabilities()):
        faults.append(f"{' and '.join(lacking)}, for root to run programs as uid {uid}; or a worker that is not root")
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
    return [f"CAP_{name}" for number, name in _NEEDED_CAPABILITIES.items() if not effective >> number & 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Confinement:
    """The settings that all children of a zygote share.

    Attributes:
        machine: key of the machine in the tables of system calls.
        landlock_abi: version of Landlock.
        rules: what may be read, as Landlock rules; the scratch folder is added.
        keep: a descriptor that stays open, or None: the folder of the standard library, if not every user can reach it.
        user: user and group that a child becomes, or None to keep them.
        zygote: process id of the zygote.
    """

    machine: str
    landlock_abi: int
    rules: Sequence[tuple[int, int]]
    keep: int | None
    user: tuple[int, int] | None
    zygote: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildLimits:
    """Limits that the kernel enforces for one child, in seconds and bytes."""

    cpu: float
    memory_bytes: int
    file_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptors:
    """The open descriptors that the worker passes to a child."""

    request: int
    stdout: int
    stderr: int
    result: int
    scratch: int


def enter(confinement: Confinement, descriptors: Descriptors, limits: ChildLimits) -> None:
    """Lock this process in, a child that was just forked.

    Raises:
        OSError: the kernel rejected a step. The process must exit.
        RuntimeError: the kernel accepted a step without effect. The process must exit.
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
        _drop_privileges(*confinement.user)
    _clear_capabilities()
    _set_limits(limits, own_bytes)
    # Set it after the change of user, which clears it.
    kernel.prctl("PR_SET_PDEATHSIG", kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != confinement.zygote:
        raise RuntimeError("the zygote ended")
    kernel.prctl("PR_SET_NO_NEW_PRIVS", kernel.PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict([*confinement.rules, (scratch, landlock.SCRATCH)], confinement.landlock_abi)
    _close_all_but(confinement.keep)
    seccomp.install(seccomp.compile_filter(policy(os.getpid()), confinement.machine))


def _drop_privileges(uid: int, gid: int) -> None:
    """Become an ordinary user permanently."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            kernel.prctl("PR_CAPBSET_DROP", kernel.PR_CAPBSET_DROP, capability)
        except OSError:
            # After the kernel's last capability. Or not permitted: then only an exec could restore one, and seccomp
            # denies that.
            break
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise RuntimeError("the user did not change")


def _offer_to_the_oom_killer() -> None:
    """Let the kernel kill this process first if the machine runs out of memory."""
    descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, b"1000")
    os.close(descriptor)


def _arrange(descriptors: Descriptors) -> int:
    """Move each descriptor to its number, and return that of the scratch folder."""
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    sources = (null, descriptors.stdout, descriptors.stderr, descriptors.result, descriptors.request)
    # Move all away first: one may have the number that another needs.
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


def _set_limits(limits: ChildLimits, own_bytes: int) -> None:
    # Equal soft and hard limits: the kernel then sends SIGKILL at once instead of a signal that can be caught.
    seconds = max(1, math.ceil(limits.cpu))
    space = own_bytes + limits.memory_bytes
    for limit, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NPROC, 0),
        # No core file is that small. With 0, a crash handler would still be called; with 1 it is not (man 5 core).
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_STACK, _STACK_BYTES),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        ceiling = resource.getrlimit(limit)[1]
        value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        resource.setrlimit(limit, (value, value))


def probe() -> list[str]:
    """Test the walls from inside a jailed child: return what a program can do and must not, or cannot do and should."""
    return [fault for wall in _WALLS if (fault := _tried(*wall))] + _missing_within()


def _tried(what: str, attempt: Callable[[], object], expected: tuple[int, ...]) -> str:
    try:
        attempt()
    except OSError as error:
        return "" if error.errno in expected else f"a program that {what} gets the error {error.strerror}"
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
_WALLS: tuple[tuple[str, Callable[[], object], tuple[int, ...]], ...] = (
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


def _missing_within() -> list[str]:
    """Return what a program needs and cannot use."""
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
