"""Run programs that nobody trusts in a jail of the Linux kernel: Landlock, seccomp and limits, without root.

README.md in this folder says what it promises and what it needs. The package stands on the standard library alone.
Read it in the order of time:

- jail: the worker's side, which starts a zygote and has it run programs
- zygote: the warm process that forks a child for each program and holds it to its limits
- confinement: what the jail needs, how a child locks itself in, and a probe whether that holds
- landlock, seccomp, syscall_policy: which files and which system calls a child is left with
- program: how a program is handed over, run, and its end reported; values: what its result may be
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
