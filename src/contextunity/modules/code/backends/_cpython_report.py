"""Reads what a child has reported: bytes that a hostile program may have written, to be taken for no more than that."""

from __future__ import annotations

import json
import signal
from typing import Any

from contextunity.gen.contextunity.code.v1 import ExecutionStatus

from process_jail.values import CannotCarry, carry

from ._protocol import Outcome, Program
from ._zygote import ChildEnd

__all__ = ["REPORT_BYTES", "outcome_of"]

REPORT_BYTES = 32 << 10
"""Bytes of a report beside the result: the texts, at six characters each at the most."""
_ERROR_CHARACTERS, _NAME_CHARACTERS = 2000, 200
_STATUS_OF_REPORT = {
    "OK": ExecutionStatus.OK,
    "SYNTAX_ERROR": ExecutionStatus.SYNTAX_ERROR,
    "EXCEPTION": ExecutionStatus.EXCEPTION,
    "MEMORY_LIMIT": ExecutionStatus.MEMORY_LIMIT,
    "RESULT_ERROR": ExecutionStatus.RESULT_ERROR,
    "SCRATCH_LIMIT": ExecutionStatus.SCRATCH_LIMIT,
}
_OUT_OF_TIME = 124
"""As the command `timeout` has it; the others as a shell tells the signal that a limit has."""
_OUT_OF_PROCESSOR, _OUT_OF_MEMORY, _OUT_OF_DISK = 128 + signal.SIGXCPU, 128 + signal.SIGKILL, 128 + signal.SIGXFSZ

_EXIT_CODES = {ExecutionStatus.MEMORY_LIMIT: _OUT_OF_MEMORY, ExecutionStatus.SCRATCH_LIMIT: _OUT_OF_DISK}


def outcome_of(program: Program, end: ChildEnd, report: bytes, cut: bool) -> Outcome:
    """Returns how a program ended, without its output.

    Args:
        program: what was run.
        end: how its process ended.
        report: what it reported.
        cut: whether it reported more than a report may be.
    """
    limits = program.limits
    if end.reason == "wall":
        return _ended(ExecutionStatus.TIMEOUT, _OUT_OF_TIME, f"the program took longer than {limits.wall:g} s")
    if end.reason == "cpu" or (end.code == -signal.SIGKILL and end.cpu >= limits.cpu):
        return _ended(
            ExecutionStatus.CPU_LIMIT, _OUT_OF_PROCESSOR, f"the program used more than {limits.cpu:g} s of a processor"
        )
    if end.reason == "scratch":
        text = f"the files of the program occupied more than {limits.scratch_bytes:,} bytes, or were nested too deeply"
        return _ended(ExecutionStatus.SCRATCH_LIMIT, _OUT_OF_DISK, text)
    if end.code < 0:
        name = signal.Signals(-end.code).name if -end.code in set(signal.Signals) else f"signal {-end.code}"
        return _ended(ExecutionStatus.CRASHED, 128 - end.code, f"the program was ended by {name}")
    if end.code != 0 or not report:
        return _ended(ExecutionStatus.CRASHED, end.code or 1, f"the program ended itself with exit code {end.code}")
    if cut:
        return _forged()
    return _read(report, limits.result_bytes)


def _read(report: bytes, result_bytes: int) -> Outcome:
    try:
        told: Any = json.loads(report)
        status = _STATUS_OF_REPORT[told["status"]]
        if status is ExecutionStatus.OK and told.get("has_result") is True:
            return Outcome(status=status, has_result=True, result=carry(told["result"], result_bytes))
        if status is ExecutionStatus.OK:
            return Outcome(status=status)
        return Outcome(
            status=status,
            exit_code=_EXIT_CODES.get(status) or _exit_code(told.get("exit_code")),
            error=" ".join(_text(told.get("error"), _ERROR_CHARACTERS).split()),
            error_type=_text(told.get("error_type", ""), _NAME_CHARACTERS),
        )
    except CannotCarry as error:
        return _ended(ExecutionStatus.RESULT_ERROR, 1, str(error))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return _forged()


def _text(value: object, length: int) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value[:length].encode("utf-8", "replace").decode("utf-8")


def _exit_code(value: object) -> int:
    return value if type(value) is int and 0 < value < 256 else 1


def _forged() -> Outcome:
    return _ended(ExecutionStatus.CRASHED, 1, "the program wrote on the descriptor that its result is reported on")


def _ended(status: ExecutionStatus, exit_code: int, error: str) -> Outcome:
    return Outcome(status=status, exit_code=exit_code, error=error)
