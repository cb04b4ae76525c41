"""Seccomp: the policy as a filter that the kernel runs for every system call."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Mapping
from typing import assert_never

from . import kernel
from .syscall_numbers import AUDIT_ARCHITECTURES, NUMBERS
from .syscall_policy import Anything, Fails, If, Rule, Test

__all__ = ["available", "compile_filter", "install"]

# Classic BPF, as <linux/bpf_common.h> and <linux/seccomp.h> have it.
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST = 0x15, 0x35
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_OF_NUMBER, _OF_ARCHITECTURE, _OF_ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
"""Calls of x86-64's other interface have this bit in their number."""
_MODE_FILTER = 2

_Instruction = tuple[int, int, int, int]


def available() -> bool:
    """Whether the kernel takes filters at all."""
    try:
        kernel.prctl("PR_SET_SECCOMP", kernel.PR_SET_SECCOMP, _MODE_FILTER, 0)
    except OSError as error:
        # Without a filter to read, a kernel that takes them says so.
        return error.errno == errno.EFAULT
    return False


def compile_filter(policy: Mapping[str, Rule], machine: str) -> bytes:
    """Returns the filter of a policy: what it does not name fails with EPERM, another machine's call ends the process.

    Args:
        policy: rules by the name of the call; those that the machine does not have are left out.
        machine: as `kernel.architecture` gives it; one of those that the tables have.
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
    """Puts a filter on this process, for good; it must have given up new privileges before.

    Raises:
        OSError: the kernel refused.
    """
    instructions = kernel.buffer(program)
    # struct sock_fprog: a count, padding up to the pointer, the pointer.
    header = kernel.buffer(struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(instructions)))
    kernel.prctl("PR_SET_SECCOMP", kernel.PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(header))


def _block(rule: Rule) -> list[_Instruction]:
    """What follows once the number is the call's; every way through it returns."""
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
    """Returns if all tests hold, and runs out at its end where one does not."""
    block: list[_Instruction] = [(_RETURN, 0, 0, _ALLOW)]
    for test in reversed(tests):
        for offset, mask, value in reversed(_words(test)):
            # The jump leads over what is behind it in the block, which grows towards the front.
            block = [(_LOAD, 0, 0, offset), (_AND, 0, 0, mask), (_IF_EQUAL, 0, len(block), value), *block]
    return block


def _words(test: Test) -> list[tuple[int, int, int]]:
    low = _OF_ARGUMENTS + 8 * test.argument
    words = [(low, test.mask & 0xFFFFFFFF, test.value & 0xFFFFFFFF)]
    if test.wide:
        words.append((low + 4, 0xFFFFFFFF, test.value >> 32))
    return words
