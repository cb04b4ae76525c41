"""Runs a program in its jail, and reports how it ended. To the worker all that it reports is the program's own word."""

from __future__ import annotations

import ast
import errno
import io
import json
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from . import request
from .confinement import REQUEST, RESULT
from .values import CannotCarry, encode

__all__ = ["ERROR_CHARACTERS", "FILE_NAME", "run"]

FILE_NAME = "<program>"
ERROR_CHARACTERS = 2000
"""Of an error's text, and of the name of its type 200."""
_OUT_OF_MEMORY = b'{"status":"MEMORY_LIMIT","error":"the program ran out of memory","error_type":"MemoryError"}'

# What the program may have replaced by the time that they are needed.
_write, _exit, _stderr_lines = os.write, os._exit, traceback.TracebackException


def run() -> None:
    """Runs the program that lies in the request, reports, and ends the process.

    No handler of atexit and no finaliser of what the program leaves runs any more.
    """
    try:
        report = _run()
    except MemoryError:
        report = _OUT_OF_MEMORY
    except BaseException as error:  # noqa: BLE001 - the process ends here
        # A way to end that an evil exception has found, in its __str__ for one.
        report = _report("EXCEPTION", error="the exception cannot be told", error_type=_name(error))
    try:
        _send(RESULT, report)
    finally:
        _exit(0)


def _run() -> bytes:
    try:
        asked = request.unpack(REQUEST)
    except (OSError, ValueError) as error:
        return _report("EXCEPTION", error=_line(error), error_type=_name(error))
    output = (_open_output(1), _open_output(2))
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - it is the program's until the process ends
    sys.stdout, sys.stderr = output
    try:
        body, last = _compile(asked.code)
    except MemoryError:
        # So the parser tells that it is nested too deeply; its own memory is small beside the source.
        return _report("SYNTAX_ERROR", error="the source is nested too deeply to be compiled", error_type="MemoryError")
    except (SyntaxError, ValueError, RecursionError, OverflowError) as error:
        _tell(error.with_traceback(None), asked.error_bytes)
        return _report("SYNTAX_ERROR", error=_line(error), error_type=_name(error))
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.argv = [FILE_NAME]
    linecache.cache[FILE_NAME] = (len(asked.code), None, asked.code.splitlines(True), FILE_NAME)
    try:
        return _execute(main, asked, body, last)
    finally:
        for stream in output:
            _flush(stream)


def _execute(
    main: types.ModuleType, asked: request.Request, body: types.CodeType, last: types.CodeType | None
) -> bytes:
    space: dict[str, object] = main.__dict__
    space.update(asked.inputs)
    try:
        exec(body, space)  # noqa: S102 - that is what the jail is for
        value = eval(last, space) if last is not None else None  # noqa: S307
    except SystemExit as error:
        return _exited(error, space, asked)
    except MemoryError as error:
        space.clear()
        _tell(error, asked.error_bytes)
        return _OUT_OF_MEMORY
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what came of the program
        _tell(error, asked.error_bytes)
        too_large = isinstance(error, OSError) and error.errno == errno.EFBIG
        return _report("SCRATCH_LIMIT" if too_large else "EXCEPTION", error=_line(error), error_type=_name(error))
    if "result" in space:
        return _with_result(space["result"], asked)
    return _with_result(value, asked) if last is not None else _report("OK")


def _with_result(value: object, asked: request.Request) -> bytes:
    try:
        return b'{"status":"OK","has_result":true,"result":' + encode(value, asked.result_bytes) + b"}"
    except CannotCarry as error:
        return _report("RESULT_ERROR", error=_cut(str(error), ERROR_CHARACTERS))


def _exited(error: SystemExit, space: dict[str, object], asked: request.Request) -> bytes:
    """As the interpreter takes it: nothing and 0 are a good end, another number is one, and text is an error."""
    code = error.code
    if code is None or (isinstance(code, int) and code & 0xFF == 0):
        return _with_result(space["result"], asked) if "result" in space else _report("OK")
    if not isinstance(code, int):
        _send(2, _encoded(_cut(str(code), asked.error_bytes) + "\n"))
        code = 1
    return _report("EXCEPTION", error=_line(error), error_type="SystemExit", exit_code=code & 0xFF)


def _compile(code: str) -> tuple[types.CodeType, types.CodeType | None]:
    """Returns the program's statements and, where it ends with one, its last expression."""
    tree = ast.parse(code, FILE_NAME)
    last: ast.Expression | None = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body[-1].value)
        del tree.body[-1]
    body = compile(tree, FILE_NAME, "exec", dont_inherit=True)
    return body, compile(last, FILE_NAME, "eval", dont_inherit=True) if last is not None else None


def _tell(error: BaseException, limit: int) -> None:
    """Writes a traceback to standard error; its outermost frame is ours and left out."""
    left = limit
    traced = error.__traceback__.tb_next if error.__traceback__ is not None else None
    for line in _stderr_lines(type(error), error, traced, compact=True).format():
        data = _encoded(line[:left])
        _send(2, data)
        left -= len(data)
        if left <= 0:
            break


def _report(status: str, **values: object) -> bytes:
    return json.dumps({"status": status, **values}).encode("ascii")


def _line(error: BaseException) -> str:
    name, text = _name(error), " ".join(str(error)[: 2 * ERROR_CHARACTERS].split())
    return _cut(f"{name}: {text}" if text else name, ERROR_CHARACTERS)


def _name(error: BaseException) -> str:
    return _cut(str(type(error).__name__), 200)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _send(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[_write(descriptor, view) :]


def _open_output(descriptor: int) -> io.TextIOWrapper:
    # By lines, so that what was printed before a limit struck is there.
    raw = io.BufferedWriter(io.FileIO(descriptor, "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _flush(stream: Any, flush: Callable[[io.TextIOWrapper], None] = io.TextIOWrapper.flush) -> None:
    try:
        flush(stream)
    except (OSError, ValueError):
        # The program closed it, or its descriptor.
        return
