"""What the bytecode of functions tells about state that they leave behind."""

from __future__ import annotations

import dis
import types
from collections.abc import Callable, Iterator

__all__ = ["code_faults"]

_ASSIGN_GLOBALS = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_BACK_DOORS = frozenset({"globals", "exec", "eval"})


def code_faults(function: types.FunctionType, imported_already: Callable[[str], bool]) -> Iterator[str]:
    """What a function does, or functions inside of it, that the next run could see.

    Args:
        function: of a module that is to be shared.
        imported_already: whether a module is there without running its code now.
    """
    package = str(function.__globals__.get("__package__") or "")
    yield from _faults(function.__code__, package, imported_already)


def _faults(code: types.CodeType, package: str, imported_already: Callable[[str], bool]) -> Iterator[str]:
    last: list[object] = []
    for step in dis.get_instructions(code):
        if step.opname in _ASSIGN_GLOBALS:
            yield f"assigns the global {step.argval}"
        elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in _BACK_DOORS:
            yield f"calls {step.argval}()"
        elif step.opname == "LOAD_CONST":
            last = [*last[-1:], step.argval]
        elif step.opname == "IMPORT_NAME":
            level = next((each for each in last if type(each) is int), 0)
            name = _absolute(str(step.argval), package, level)
            if not imported_already(name):
                yield f"imports {name} while it runs"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _faults(constant, package, imported_already)


def _absolute(name: str, package: str, level: int) -> str:
    if level == 0:
        return name
    base = package.rsplit(".", level - 1)[0]
    return f"{base}.{name}" if name else base
