"""Errors of modules that cannot be imported: one line with the file and line, and what to do."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

__all__ = ["import_error", "sandbox_error"]

_MACHINERY = ("importlib", "_frozen_importlib", "_frozen_importlib_external", "shared_import_sandbox", "temporalio")


@dataclass(frozen=True, slots=True)
class _Place:
    """A line of code in a traceback; `module` is the name that it was imported by."""

    module: str
    file: str
    line: int
    is_import: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def import_error(error: BaseException, module: str) -> str:
    """Return the error text of an import, or of a call of what was imported.

    Args:
        error: the exception.
        module: dotted name of the imported module; files of its package are the author's own.
    """
    places = list(_places(error))
    if isinstance(error, SyntaxError) and error.filename:
        code = f": {error.text.strip()}" if error.text else ""
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}{code}"
    own = _last_own(places, module)
    text = _text(error)
    if not places:
        return text
    deepest = places[-1]
    if own is None or own == deepest:
        return f"{deepest}: {text}"
    return f"{own}: {text} (raised at {deepest})"


def sandbox_error(error: BaseException, module: str) -> str:
    """Return the error text if a workflow's module fails only in the workflow sandbox.

    Args:
        error: the exception.
        module: dotted name of the workflow's module.
    """
    places = list(_places(error))
    own = _last_own(places, module)
    told = import_error(error, module)
    if own is None:
        return told
    after = places[places.index(own) + 1 :]
    imported = next((place.module for place in after if place.is_import and place.module in sys.modules), None)
    if imported is None:
        return f"{told}; a workflow's module may not do that when it is imported: move it to an activity"
    return (
        f"{own} imports {imported}, which the workflow sandbox cannot import again for each run "
        f"({_text(error)}); add passthrough_modules=[{imported!r}] to the ModuleConfig, and call from workflow code "
        "only what gives the same result each time; or import it in activities alone"
    )


def _text(error: BaseException) -> str:
    first = (str(error).splitlines() or [""])[0]
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    if isinstance(error, SystemExit):
        return f"{text}; a module must not end the process when it is imported"
    return text


def _places(error: BaseException) -> Iterator[_Place]:
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".", maxsplit=1)[0] in _MACHINERY or _is_ours(frame):
            continue
        yield _Place(module, frame.f_code.co_filename, line, frame.f_code.co_name == "<module>")


def _is_ours(frame: FrameType) -> bool:
    """Return whether a frame belongs to the worker, which loads the module."""
    return _HERE in Path(frame.f_code.co_filename).parents


_HERE = Path(__file__).parents[1]


def _last_own(places: list[_Place], module: str) -> _Place | None:
    """Return the last line in the module's own package."""
    package = module.split(".", maxsplit=1)[0]
    return next((place for place in reversed(places) if place.module.split(".", maxsplit=1)[0] == package), None)
