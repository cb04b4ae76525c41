"""Run untrusted programs in a jail of the Linux kernel: Landlock, seccomp and limits, without root.

README.md in this folder says what it promises and what it needs. The package uses only the standard library. Read it in
the order of a run:

- jail: the worker's side; starts a zygote and sends it programs
- zygote: the warm process that forks a child for each program and enforces its limits
- confinement: what the jail needs, how a child locks itself in, and a probe that tests the jail
- landlock, seccomp, syscall_policy: the files and system calls that a child may still use
- program: how a program is passed to the child, run, and its outcome reported; values: what a result may be
- scratch: the folders that programs write into
"""

from __future__ import annotations

from .confinement import missing
from .jail import Jail, JailError, JailFailedError, JailUnavailableError
from .program import Limits, Outcome, Program, Status
from .values import EXACT_INTEGERS, MAX_DEPTH, CannotCarry, JsonValue, encode

__all__ = [
    "EXACT_INTEGERS",
    "MAX_DEPTH",
    "CannotCarry",
    "Jail",
    "JailError",
    "JailFailedError",
    "JailUnavailableError",
    "JsonValue",
    "Limits",
    "Outcome",
    "Program",
    "Status",
    "encode",
    "missing",
]
