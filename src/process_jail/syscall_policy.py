"""The system calls that a program may make, as data: the rules, and the call numbers of each machine.

A call without a rule fails with EPERM. The allowed calls access the program's own memory, its open files, and files,
which Landlock protects. Landlock does not protect everything: the owner of a file can change its mode, owner, times and
extended attributes through a read-only path or descriptor, and before version 3 can truncate it. So those calls are
never made.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import termios
from dataclasses import dataclass

__all__ = ["AUDIT_ARCHITECTURES", "DONE", "NUMBERS", "Anything", "Fails", "If", "Rule", "Test", "policy"]


@dataclass(frozen=True)
class Test:
    """Compare one masked argument with a value: its lower 32 bits, or all 64 if `wide`."""

    argument: int
    value: int
    mask: int = 0xFFFFFFFF
    wide: bool = False


@dataclass(frozen=True)
class Anything:
    """Make the call."""


@dataclass(frozen=True)
class Fails:
    """Do not make the call: return this error; 0 pretends success."""

    code: int


@dataclass(frozen=True)
class If:
    """Make the call if all tests of one alternative match; otherwise fail with EPERM."""

    alternatives: tuple[tuple[Test, ...], ...]


Rule = Anything | Fails | If

DONE = Fails(0)
"""Pretend success and do nothing: code that copies files also sets modes and times, and fails if that fails."""
_NOT_THERE = Fails(errno.ENOSYS)
"""Fail as on an older kernel: libraries then fall back to the older call."""
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
    """Leave opening to Landlock, which checks only the access mode: so truncating must request write access.

    Access mode 3 needs no right, but opens a device for its ioctls. Unnamed files (O_TMPFILE) escape the quota.
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
    """Return the rules for the process `pid` by call name, for the calls of all machines."""
    of_itself = If(((Test(0, pid),),))
    not_executable = If(((Test(2, 0, _PROT_EXEC),),))
    return {
        **dict.fromkeys(_ANYTHING.split(), Anything()),
        "open": _opening(1),
        "openat": _opening(2),
        # Machine code comes with the interpreter; no more is loaded or created.
        "mmap": not_executable,
        "mprotect": not_executable,
        "kill": of_itself,
        "tgkill": of_itself,
        # F_SETOWN and F_SETSIG would make the kernel signal other processes; F_SETPIPE_SZ could use much memory.
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
        # asyncio wakes itself through a pair of connected sockets. An address in sendto could reach other sockets.
        "socketpair": If(((Test(0, socket.AF_UNIX), Test(1, socket.SOCK_STREAM, _SOCKET_TYPE)),)),
        "sendto": If(((Test(4, 0, wide=True),),)),
        # Reads the process's own limits, and sets none.
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


AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The kernel's number for the machine of a call. A call for another machine, such as a 32-bit call on x86-64, has
different call numbers."""

# A table leaves out the calls that its machine does not have. The kernel never changes a number.
_X86_64 = """
    read=0 write=1 open=2 close=3 stat=4 fstat=5 lstat=6 poll=7 lseek=8 mmap=9 mprotect=10 munmap=11 brk=12
    rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 ioctl=16 pread64=17 pwrite64=18 readv=19 writev=20 access=21
    pipe=22 select=23 sched_yield=24 mremap=25 msync=26 madvise=28 dup=32 dup2=33 pause=34 nanosleep=35 getitimer=36
    alarm=37 setitimer=38 getpid=39 sendfile=40 sendto=44 recvfrom=45 shutdown=48 getsockname=51 getpeername=52
    socketpair=53 getsockopt=55 exit=60 kill=62 uname=63 fcntl=72 fsync=74 fdatasync=75 ftruncate=77 getdents=78
    getcwd=79 chdir=80 fchdir=81 rename=82 mkdir=83 rmdir=84 unlink=87 symlink=88 readlink=89 chmod=90 fchmod=91
    umask=95 gettimeofday=96 getrlimit=97 getrusage=98 times=100 getuid=102 getgid=104 geteuid=107 getegid=108
    getppid=110 getpgrp=111 getgroups=115 getresuid=118 getresgid=120 getpgid=121 getsid=124 rt_sigpending=127
    rt_sigtimedwait=128 rt_sigsuspend=130 sigaltstack=131 utime=132 getpriority=140 gettid=186 setxattr=188
    lsetxattr=189 fsetxattr=190 getxattr=191 lgetxattr=192 fgetxattr=193 listxattr=194 llistxattr=195 flistxattr=196
    removexattr=197 lremovexattr=198 fremovexattr=199 time=201 futex=202 sched_getaffinity=204 epoll_create=213
    getdents64=217 restart_syscall=219 fadvise64=221 clock_gettime=228 clock_getres=229 clock_nanosleep=230
    exit_group=231 epoll_wait=232 epoll_ctl=233 tgkill=234 utimes=235 openat=257 mkdirat=258 futimesat=261
    newfstatat=262 unlinkat=263 renameat=264 symlinkat=266 readlinkat=267 fchmodat=268 faccessat=269 pselect6=270
    ppoll=271 utimensat=280 epoll_pwait=281 epoll_create1=291 dup3=292 pipe2=293 prlimit64=302 getcpu=309
    renameat2=316 getrandom=318 statx=332 rseq=334 clone3=435 close_range=436 openat2=437 faccessat2=439
    futex_waitv=449 fchmodat2=452
"""

_AARCH64 = """
    setxattr=5 lsetxattr=6 fsetxattr=7 getxattr=8 lgetxattr=9 fgetxattr=10 listxattr=11 llistxattr=12 flistxattr=13
    removexattr=14 lremovexattr=15 fremovexattr=16 getcwd=17 epoll_create1=20 epoll_ctl=21 epoll_pwait=22 dup=23
    dup3=24 fcntl=25 ioctl=29 mkdirat=34 unlinkat=35 symlinkat=36 renameat=38 ftruncate=46 faccessat=48 chdir=49
    fchdir=50 fchmod=52 fchmodat=53 openat=56 close=57 pipe2=59 getdents64=61 lseek=62 read=63 write=64 readv=65
    writev=66 pread64=67 pwrite64=68 sendfile=71 pselect6=72 ppoll=73 readlinkat=78 newfstatat=79 fstat=80 fsync=82
    fdatasync=83 utimensat=88 exit=93 exit_group=94 futex=98 nanosleep=101 getitimer=102 setitimer=103
    clock_gettime=113 clock_getres=114 clock_nanosleep=115 sched_getaffinity=123 sched_yield=124 restart_syscall=128
    kill=129 tgkill=131 sigaltstack=132 rt_sigsuspend=133 rt_sigaction=134 rt_sigprocmask=135 rt_sigpending=136
    rt_sigtimedwait=137 rt_sigreturn=139 getpriority=141 getresuid=148 getresgid=150 times=153 getpgid=155 getsid=156
    getgroups=158 uname=160 getrlimit=163 getrusage=165 umask=166 getcpu=168 gettimeofday=169 getpid=172 getppid=173
    getuid=174 geteuid=175 getgid=176 getegid=177 gettid=178 socketpair=199 getsockname=204 getpeername=205 sendto=206
    recvfrom=207 getsockopt=209 shutdown=210 brk=214 munmap=215 mremap=216 mmap=222 fadvise64=223 mprotect=226
    msync=227 madvise=233 prlimit64=261 renameat2=276 getrandom=278 statx=291 rseq=293 clone3=435 close_range=436
    openat2=437 faccessat2=439 futex_waitv=449 fchmodat2=452
"""


def _numbers(table: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (entry.partition("=") for entry in table.split())}


NUMBERS = {"x86_64": _numbers(_X86_64), "aarch64": _numbers(_AARCH64)}
"""Number of each call, by machine and name."""
