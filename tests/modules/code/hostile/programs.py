"""The hostile programs, as data: the files in the folder beside this one, and those that have to be computed.

A section of a file begins with `=== name: how it may end under cpython`. What stands between two @ is put in by the
harness. A program that gets what it must not have writes the word ESCAPED; it is spelt in two parts, because a
traceback shows source lines. Most catch what they can, so that one failed attempt is not the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contextunity.gen.contextunity.code.v1 import ExecutionStatus

from process_jail.kernel import architecture
from process_jail.syscall_policy import NUMBERS, policy

_FOLDER = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Hostile:
    """A program, and how it may end under cpython; empty where that does not matter."""

    name: str
    code: str
    ends: frozenset[ExecutionStatus]


def _read(path: Path) -> Iterator[Hostile]:
    for section in path.read_text(encoding="utf-8").split("=== ")[1:]:
        head, _, code = section.partition("\n")
        name, _, ends = head.rpartition(": ")
        yield _hostile(name, code.rstrip("\n"), *(() if ends == "any" else ends.split(", ")))


def _hostile(name: str, code: str, *ends: str) -> Hostile:
    return Hostile(name, code, frozenset(ExecutionStatus[end] for end in ends))


_EVERY_CALL = """
import ctypes
c = ctypes.CDLL(None, use_errno=True)
for n in range(600):
    if n not in {allowed}:
        ctypes.set_errno(0)
        came = c.syscall(ctypes.c_long(n), 0, 0, 0, 0, 0, 0)
        if came != -1 or ctypes.get_errno() not in (1, 38): print('ESC' 'APED', n)
"""

_OF_PROBES = {335, 336}
"""Those that the kernel's probes make in a traced process. It ends all others that do by SIGILL, before any filter."""


def _every_call() -> str:
    """Makes each system call that the policy does not name; those that it does are looked at one by one elsewhere."""
    numbers = NUMBERS.get(architecture(), {})
    named = {numbers[name] for name in policy(1) if name in numbers}
    return _EVERY_CALL.format(allowed=sorted(named | _OF_PROBES))


_COMPUTED = (
    _hostile("every other system call", _every_call(), "OK"),
    _hostile("nested source, brackets", "(" * 100_000 + ")" * 100_000, "SYNTAX_ERROR"),
    _hostile("nested source, signs", "-" * 200_000 + "1", "SYNTAX_ERROR", "CRASHED"),
    _hostile("nested source, lambdas", "lambda:" * 50_000 + "1", "SYNTAX_ERROR", "CRASHED"),
    _hostile(
        "nested source, indentation",
        "\n".join(" " * level + "if 1:" for level in range(500)) + "\n" + " " * 500 + "pass",
        "SYNTAX_ERROR",
    ),
    _hostile("long chain of operators", "+".join(["1"] * 100_000), "OK", "SYNTAX_ERROR", "CRASHED"),
    _hostile("long chain of attributes", "x" + ".a" * 100_000, "SYNTAX_ERROR", "CRASHED", "EXCEPTION"),
    _hostile("NUL in source", "1\0+1", "SYNTAX_ERROR"),
    _hostile("lone surrogate in source", "x = '\udc80'", "SYNTAX_ERROR"),
)

HOSTILE = (*(program for path in sorted(_FOLDER.glob("*.txt")) for program in _read(path)), *_COMPUTED)
assert len({program.name for program in HOSTILE}) == len(HOSTILE)
