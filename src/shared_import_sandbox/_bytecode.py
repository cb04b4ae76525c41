"""Find, in the bytecode of functions, code that leaves state behind."""

from __future__ import annotations

import dis
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

__all__ = ["code_faults"]

_ASSIGN_GLOBALS = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_BACK_DOORS = frozenset({"globals", "exec", "eval"})


def code_faults(function: types.FunctionType, missing: Callable[[str, Sequence[str]], str | None]) -> Iterator[str]:
    """Yield what a function, or a function inside it, does that a later run could see.

    Args:
        function: a function of the module to share.
        missing: takes a module and the names imported from it; returns the module that is not imported yet, if any,
            because importing it would run its code now.
    """
    package = str(function.__globals__.get("__package__") or "")
    yield from _faults(function.__code__, package, missing)


def _faults(code: types.CodeType, package: str, missing: Callable[[str, Sequence[str]], str | None]) -> Iterator[str]:
    last: list[Any] = []
    for step in dis.get_instructions(code):
        if step.opname in _ASSIGN_GLOBALS:
            yield f"assigns the global {step.argval}"
        elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in _BACK_DOORS:
            yield f"calls {step.argval}()"
        elif step.opname == "LOAD_CONST":
            last = [*last[-1:], step.argval]
        elif step.opname == "IMPORT_NAME":
            level, names = last  # The operands on the stack.
            absent = missing(_absolute(str(step.argval), package, level), names or ())
            if absent is not None:
                yield f"imports {absent} while it runs"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _faults(constant, package, missing)


def _absolute(name: str, package: str, level: int) -> str:
    if level == 0:
        return name
    base = package.rsplit(".", level - 1)[0]
    return f"{base}.{name}" if name else base
