"""The system calls that a program may make, as data; whatever is not listed fails with EPERM.

What is listed reaches nothing but the program's own memory, its own open files, and files, which Landlock guards.
Landlock does not guard everything about files: modes, owners, times and extended attributes can be changed by their
owner through a path or a descriptor that may only be read, and a version before 3 lets a file be emptied. Those calls
are therefore not made, whatever they name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import termios
from dataclasses import dataclass

__all__ = ["DONE", "Anything", "Fails", "If", "Rule", "Test", "policy"]


@dataclass(frozen=True)
class Test:
    """One argument, masked, has a value; the lower 32 bits of the argument, or all 64 where `wide`."""

    argument: int
    value: int
    mask: int = 0xFFFFFFFF
    wide: bool = False


@dataclass(frozen=True)
class Anything:
    """The call is made."""


@dataclass(frozen=True)
class Fails:
    """The call is not made; it gives an error, or seems to succeed where the code is 0."""

    code: int


@dataclass(frozen=True)
class If:
    """The call is made if all tests of one of the alternatives hold, else it fails with EPERM."""

    alternatives: tuple[tuple[Test, ...], ...]


Rule = Anything | Fails | If

DONE = Fails(0)
"""Seems to succeed and does nothing: what copies files sets their modes and times, and fails as a whole where that
does."""
_NOT_THERE = Fails(errno.ENOSYS)
"""As on an older kernel: libraries then do with the older call."""
_NO_ATTRIBUTES = Fails(errno.ENOTSUP)

_ANYTHING = """
    brk munmap mremap madvise msync futex restart_syscall
    read write readv writev pread64 pwrite64 lseek close close_range dup dup2 dup3 pipe pipe2 sendfile
    fstat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir umask
    getdents getdents64 mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 symlink symlinkat
    ftruncate fsync fdatasync fadvise64
    poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
    recvfrom shutdown getsockname getpeername getsockopt
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack
    pause alarm setitimer getitimer nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times
    getpid getppid gettid getpgrp getpgid getsid getuid geteuid getgid getegid getresuid getresgid getgroups
    getrlimit getrusage getpriority uname sched_yield sched_getaffinity getcpu getrandom exit exit_group
"""

_O_TMPFILE = 0o20000000
_O_ASYNC = 0o20000
_F_GETPIPE_SZ = 1032
_PROT_EXEC = 4
_SOCKET_TYPE = 0xF


def _one_of(argument: int, *values: int) -> If:
    return If(tuple((Test(argument, value),) for value in values))


def _opening(flags: int) -> If:
    """Opening is up to Landlock, which looks at the access mode alone: emptying needs one that writes.

    The access mode 3 gives no right and needs none, yet opens a device for its ioctls; files without a name cannot be
    counted against the quota.
    """
    mode = os.O_ACCMODE | _O_TMPFILE
    return If(
        (
            (Test(flags, os.O_RDONLY, mode | os.O_TRUNC),),
            (Test(flags, os.O_WRONLY, mode),),
            (Test(flags, os.O_RDWR, mode),),
        )
    )


def policy(pid: int) -> dict[str, Rule]:
    """Returns the rules of a process, by the name of the call; the names are of all machines."""
    of_itself = If(((Test(0, pid),),))
    not_executable = If(((Test(2, 0, _PROT_EXEC),),))
    return {
        **dict.fromkeys(_ANYTHING.split(), Anything()),
        "open": _opening(1),
        "openat": _opening(2),
        # Machine code comes with the interpreter, and no further is loaded or made.
        "mmap": not_executable,
        "mprotect": not_executable,
        "kill": of_itself,
        "tgkill": of_itself,
        # F_SETOWN and F_SETSIG would have the kernel send signals to others; pipes could be made to hold much memory.
        "fcntl": If(
            (
                *_one_of(
                    1,
                    *(fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL),
                    *(fcntl.F_GETLK, fcntl.F_SETLK, _F_GETPIPE_SZ),
                ).alternatives,
                (Test(1, fcntl.F_SETFL), Test(2, 0, _O_ASYNC)),
            )
        ),
        "ioctl": _one_of(
            1, termios.FIOCLEX, termios.FIONCLEX, termios.FIONBIO, termios.FIONREAD, termios.TCGETS, termios.TIOCGWINSZ
        ),
        # asyncio wakes itself through a pair of sockets that lead nowhere else. With an address it could lead there.
        "socketpair": If(((Test(0, socket.AF_UNIX), Test(1, socket.SOCK_STREAM, _SOCKET_TYPE)),)),
        "sendto": If(((Test(4, 0, wide=True),),)),
        # Reads a limit of its own, and sets none.
        "prlimit64": If(((Test(0, 0), Test(2, 0, wide=True)),)),
        **dict.fromkeys(
            ("chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat", "utimensat"), DONE
        ),
        **dict.fromkeys(
            (
                *("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"),
                *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
            ),
            _NO_ATTRIBUTES,
        ),
        **dict.fromkeys(("clone3", "openat2", "rseq", "futex_waitv"), _NOT_THERE),
    }
