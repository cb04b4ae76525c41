"""The jail stands apart: it needs the standard library alone, and nothing of one run reaches the next."""

from __future__ import annotations

import ast
import hashlib
import secrets
import sys
from pathlib import Path

import pytest

import process_jail
from process_jail import Jail, JailUnavailableError, Limits, Program
from process_jail.syscall_policy import NUMBERS, Anything, If, policy

_LIMITS = Limits(
    wall=20.0, cpu=20.0, memory_bytes=128 << 20, output_bytes=9999, result_bytes=9999, scratch_bytes=1 << 20
)
_MARK = "Q7zK"
_KEEP = """
kept = [mark + rest for _ in range(1000)]
print(kept[0])
open("file", "w").write(kept[0])
kept[:2]
"""
_SEARCH = """
import ctypes, hashlib
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
end = libc.sbrk(0)
heap = ctypes.string_at(end - (2 << 20), 2 << 20)
found, position = 0, -1
while (position := heap.find(mark.encode(), position + 1)) != -1:
    rest = heap[position + len(mark) : position + len(mark) + 48]
    found += hashlib.sha256(rest).hexdigest() == digest
[found, len(heap)]
"""


@pytest.mark.parametrize("path", sorted(Path(process_jail.__path__[0]).glob("*.py")), ids=lambda path: path.name)
def test_the_jail_imports_the_standard_library_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1 or str(node.module).partition(".")[0] in sys.stdlib_module_names


async def test_nothing_of_a_run_is_in_the_memory_of_the_next(tmp_path: Path) -> None:
    jail = Jail(folder=tmp_path)
    try:
        await jail.start()
    except JailUnavailableError as error:
        pytest.skip(str(error))
    rest = secrets.token_hex(24)
    digest = hashlib.sha256(rest.encode()).hexdigest()
    try:
        kept = await jail.run(Program(code=_KEEP, limits=_LIMITS, inputs={"mark": _MARK, "rest": rest}))
        itself = await jail.run(
            Program(
                code=f"kept = {_MARK + rest!r}\n{_SEARCH}", limits=_LIMITS, inputs={"mark": _MARK, "digest": digest}
            )
        )
        search = Program(code=_SEARCH, limits=_LIMITS, inputs={"mark": _MARK, "digest": digest})
        following = await jail.run(search)
    finally:
        await jail.aclose()
    assert kept.result == [_MARK + rest] * 2
    assert isinstance(itself.result, list), itself.stderr
    # The search finds what is there, in the run's own source for one.
    assert isinstance(itself.result[0], int)
    assert itself.result[0] > 0
    assert following.result == [0, 2 << 20], following.stderr


@pytest.mark.parametrize("machine", NUMBERS)
def test_the_tables_have_each_call_once(machine: str) -> None:
    numbers = NUMBERS[machine]
    assert len(set(numbers.values())) == len(numbers)
    assert set(numbers) <= set(policy(1))


def test_every_call_of_the_policy_is_one_of_a_table() -> None:
    assert set(policy(1)) == {name for numbers in NUMBERS.values() for name in numbers}


@pytest.mark.parametrize(
    "name",
    [
        *("socket", "connect", "bind", "listen", "accept", "sendmsg", "recvmsg", "setsockopt"),
        *("execve", "execveat", "fork", "vfork", "clone", "ptrace", "process_vm_readv", "pidfd_getfd"),
        *("link", "linkat", "truncate", "chown", "mknod", "mount", "chroot", "unshare", "setns", "bpf"),
        *("prctl", "seccomp", "setrlimit", "memfd_create", "io_uring_setup", "userfaultfd", "keyctl", "shmget"),
    ],
)
def test_what_reaches_out_is_not_in_the_policy(name: str) -> None:
    assert name not in policy(1)


def test_signals_go_to_the_process_itself_alone() -> None:
    rule = policy(4711)["kill"]
    assert isinstance(rule, If)
    assert [[(test.argument, test.value) for test in tests] for tests in rule.alternatives] == [[(0, 4711)]]
    assert isinstance(policy(1)["read"], Anything)
