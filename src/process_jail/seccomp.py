"""Compile the syscall policy into a seccomp filter, which the kernel runs for every system call, and install it."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Mapping
from typing import assert_never

from . import kernel
from .syscall_policy import AUDIT_ARCHITECTURES, NUMBERS, Anything, Fails, If, Rule, Test

__all__ = ["available", "compile_filter", "install"]

# Classic BPF; values from <linux/bpf_common.h> and <linux/seccomp.h>.
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST = 0x15, 0x35
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_OF_NUMBER, _OF_ARCHITECTURE, _OF_ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
"""Bit in each call number of x86-64's second interface, x32."""
_MODE_FILTER = 2

_Instruction = tuple[int, int, int, int]


def available() -> bool:
    """Return whether the kernel supports seccomp filters."""
    try:
        kernel.prctl("PR_SET_SECCOMP", kernel.PR_SET_SECCOMP, _MODE_FILTER, 0)
    except OSError as error:
        # A kernel that supports filters fails to read one at address 0, with EFAULT.
        return error.errno == errno.EFAULT
    return False


def compile_filter(policy: Mapping[str, Rule], machine: str) -> bytes:
    """Compile a policy: a call that it does not name fails with EPERM, a call for another machine kills the process.

    Args:
        policy: rules by call name; calls that the machine does not have are left out.
        machine: a key of `NUMBERS`, as `kernel.architecture` returns it.
    """
    numbers = NUMBERS[machine]
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _OF_ARCHITECTURE),
        (_IF_EQUAL, 1, 0, AUDIT_ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OF_NUMBER),
        (_IF_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    for name, rule in policy.items():
        if name in numbers:
            block = _block(rule)
            program += [(_IF_EQUAL, 0, len(block), numbers[name]), *block]
    program.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def install(program: bytes) -> None:
    """Install a filter on this process permanently. Set PR_SET_NO_NEW_PRIVS first.

    Raises:
        OSError: the kernel rejected the filter.
    """
    instructions = kernel.buffer(program)
    # struct sock_fprog: a count, padding up to the pointer, the pointer.
    header = kernel.buffer(struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(instructions)))
    kernel.prctl("PR_SET_SECCOMP", kernel.PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(header))


def _block(rule: Rule) -> list[_Instruction]:
    """Return the instructions for a call whose number matched; every path through them returns."""
    match rule:
        case Anything():
            return [(_RETURN, 0, 0, _ALLOW)]
        case Fails(code):
            return [(_RETURN, 0, 0, _ERRNO | code)]
        case If(alternatives):
            block: list[_Instruction] = []
            for tests in alternatives:
                block += _alternative(tests)
            return [*block, (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
        case _:
            assert_never(rule)


def _alternative(tests: tuple[Test, ...]) -> list[_Instruction]:
    """Allow the call if all tests match; otherwise fall through at the end."""
    block: list[_Instruction] = [(_RETURN, 0, 0, _ALLOW)]
    for test in reversed(tests):
        for offset, mask, value in reversed(_words(test)):
            # The jump skips the rest of the block, which is built from the end.
            block = [(_LOAD, 0, 0, offset), (_AND, 0, 0, mask), (_IF_EQUAL, 0, len(block), value), *block]
    return block


def _words(test: Test) -> list[tuple[int, int, int]]:
    low = _OF_ARGUMENTS + 8 * test.argument
    words = [(low, test.mask & 0xFFFFFFFF, test.value & 0xFFFFFFFF)]
    if test.wide:
        words.append((low + 4, 0xFFFFFFFF, test.value >> 32))
    return words
