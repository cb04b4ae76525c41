"""Find out from Monty's errors how a program ended, and whether it needs Python features that Monty lacks."""

from __future__ import annotations

import builtins
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contextunity.gen.contextunity.code.v1 import ExecutionStatus

from .guest import LAST

if TYPE_CHECKING:
    from pydantic_monty import MontyRuntimeError, MontySyntaxError

__all__ = ["EXIT_CODES", "Ending", "ending_of"]

_NO_ATTRIBUTE = r"(?:type object )?'(\w+)'(?: object)? has no attribute '(\w+)'"
_LINE = 2000
_TRACEBACK = 32 * 1024
_CPYTHON = "the backend cpython has it, if the deployment offers it (language: cpython)"
_FULL = {"OSError": "disk write limit of ", "MemoryError": "mount memory usage limit of "}
"""Monty's texts if a program's files exceed their limit; many small ones exceed the memory limit."""

EXIT_CODES = {
    ExecutionStatus.OK: 0,
    ExecutionStatus.TIMEOUT: 124,
    ExecutionStatus.MEMORY_LIMIT: 137,
    ExecutionStatus.CPU_LIMIT: 152,
    ExecutionStatus.CRASHED: 139,
    ExecutionStatus.SCRATCH_LIMIT: 153,
}
"""Exit codes as in a shell for `timeout`, SIGKILL, SIGXCPU, SIGSEGV and SIGXFSZ. All others are 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a program ended, with the texts for people."""

    status: ExecutionStatus
    error: str
    error_type: str = ""
    traceback: str = ""


def ending_of(
    error: MontyRuntimeError | MontySyntaxError, *, syntax: bool, cpu_first: bool = False, tools: bool = False
) -> Ending:
    """Convert an error of Monty.

    Args:
        error: the error.
        syntax: whether it is a syntax error.
        cpu_first: whether the limit of processor time is the shorter time limit.
        tools: whether the source of the tools was fed before the program.
    """
    # Call it once: each call creates the text again, and a hostile one takes a hundred megabytes.
    whole = error.display("type-msg")
    inner, _, rest = whole[:_TRACEBACK].partition(":")
    inner = inner.strip().rpartition(".")[2]
    told = " ".join(rest[: 2 * _LINE].split())
    line = f"{inner}: {told}" if told else inner
    if len(whole) <= _TRACEBACK:
        display = _readable(error.display()[: 2 * _TRACEBACK], tools=tools)
    else:
        display = f"{whole[:_TRACEBACK]}…\n"
    del whole
    if syntax:
        return Ending(status=ExecutionStatus.SYNTAX_ERROR, error=_cut(line), error_type=inner, traceback=display)
    if limit := _limit(inner, told, cpu_first):
        return limit
    if told.startswith(_FULL.get(inner, "\0")):
        return Ending(status=ExecutionStatus.SCRATCH_LIMIT, error=_cut(line), error_type=inner, traceback=display)
    if lacking := _missing_feature(inner, told):
        error_line = _cut(f"{lacking}; {_CPYTHON}")
        return Ending(status=ExecutionStatus.UNSUPPORTED, error=error_line, error_type=inner, traceback=display)
    if inner == "SystemExit" and not told:
        # A program's normal way to exit.
        return Ending(status=ExecutionStatus.OK, error="")
    return Ending(status=ExecutionStatus.EXCEPTION, error=_cut(line), error_type=inner, traceback=display)


def _limit(inner: str, told: str, cpu_first: bool) -> Ending | None:
    match inner:
        case "TimeoutError" if told.startswith(("feed time limit exceeded", "turn time limit exceeded")):
            if cpu_first:
                return Ending(status=ExecutionStatus.CPU_LIMIT, error="the program used up its processor time")
            return Ending(status=ExecutionStatus.TIMEOUT, error="the program timed out")
        case "MemoryError" if "memory limit" in told:
            error = "the program exceeded its memory limit"
            return Ending(status=ExecutionStatus.MEMORY_LIMIT, error=error, error_type=inner)
        case _:
            return None


def _missing_feature(inner: str, told: str) -> str:
    """Describe the Python feature that Monty lacks; empty if the program failed for another reason."""
    if inner == "NotImplementedError" and (
        found := re.match(r"The monty syntax parser does not yet support (.+)", told)
    ):
        return f"the embedded interpreter does not have {found[1]}"
    if inner == "ModuleNotFoundError" and (found := re.match(r"No module named '(\w+)[\w.]*'", told)):
        known = found[1] in sys.stdlib_module_names
        return f"the embedded interpreter does not have the module {found[1]}" if known else ""
    if inner == "ImportError" and (found := re.match(r"cannot import name '(\w+)' from '(\w+)[\w.]*'", told)):
        known = found[2] in sys.stdlib_module_names
        return f"the embedded interpreter does not have {found[2]}.{found[1]}" if known else ""
    if inner == "AttributeError" and (found := re.match(r"module '(\w+)[\w.]*' has no attribute '(\w+)'", told)):
        known = found[1] in sys.stdlib_module_names
        return f"the embedded interpreter does not have {found[1]}.{found[2]}" if known else ""
    if inner == "AttributeError" and (found := re.match(_NO_ATTRIBUTE, told)):
        known = isinstance(kind := getattr(builtins, found[1], None), type) and hasattr(kind, found[2])
        return f"the embedded interpreter does not have {found[1]}.{found[2]}" if known else ""
    if inner == "NameError" and (found := re.match(r"name '(\w+)' is not defined", told)):
        return f"the embedded interpreter does not have {found[1]}" if hasattr(builtins, found[1]) else ""
    if inner == "RuntimeError" and told.startswith("Internal error in monty: "):
        return f"the embedded interpreter cannot do this: {told.removeprefix('Internal error in monty: ')}"
    if inner == "TypeError" and (found := re.match(r"cannot create '(property|classmethod|super)' instances", told)):
        return f"the embedded interpreter does not have {found[1]}"
    return ""


def _readable(display: str, *, tools: bool) -> str:
    """Rewrite a traceback to the author's source: one file, without the added variable."""
    text = display.replace('File "<python-input-0>"', 'File "<tools>"') if tools else display
    text = re.sub(r'File "<python-input-\d+>"', 'File "<program>"', text)
    added = f"{LAST} = "
    lines = list[str]()
    shift = 0
    for line in text.splitlines():
        plain = line.replace(added, "", 1)
        if shift and line.strip(" ~^") == "" and line.strip():
            plain = line[shift:] if line.startswith(" " * (shift + 4)) else "    " + line.lstrip(" ")
        shift = len(added) if plain != line and added in line else 0
        lines.append(plain)
    return "\n".join(lines) + "\n"


def _cut(text: str) -> str:
    return text if len(text) <= _LINE else f"{text[: _LINE - 1]}…"
