"""Compute the limits of a program, and check its files against them.

A limit is the caller's, or the default. A timeout above the maximum is lowered if the request allows it; any other
limit above its maximum is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from contextunity.gen.contextunity.code.v1 import File, Limits, ProgramState

from .backend import ProgramLimits
from .errors import LimitExceededError, RequestInvalidError
from .settings import CodeSettings, LimitSettings

__all__ = ["check_files", "lower_timeout", "remaining_limits", "resolve_limits", "to_limits"]

_SHORTEST = 0.05
_MAX_DEPTH = 16
_NAMES = {"wall": "timeout"}
"""Limits with another name in the contract."""


def lower_timeout(asked: Limits | None, settings: CodeSettings) -> tuple[Limits | None, str]:
    """Lower the requested timeout to the maximum; return the limits, and a notice if that changed them."""
    most = settings.maximum.wall
    if asked is None or asked.timeout is None or asked.timeout.total_seconds() <= most:
        return asked, ""
    notice = (
        f"timeout was lowered from {asked.timeout.total_seconds():g} s to {most:g} s, the most that this deployment "
        "allows"
    )
    if not asked.cpu:
        notice += f", and with it the processor time to {min(most, settings.maximum.cpu):g} s"
    return replace(asked, timeout=timedelta(seconds=most)), notice


def resolve_limits(asked: Limits | None, settings: CodeSettings) -> ProgramLimits:
    """Compute the limits of a program.

    Raises:
        LimitExceededError: limits are above their maximum; all of them are named.
        RequestInvalidError: a limit is negative.
    """
    wanted = _values(asked or Limits())
    negative = [f"limits.{_NAMES.get(name, name)} {value:g}" for name, value in wanted.items() if value < 0]
    if negative:
        raise RequestInvalidError(f"{', '.join(negative)} is below zero; leave it out for the default")
    excesses = [
        f"limits.{_NAMES.get(name, name)} {value:g} is above {_setting(settings.maximum, name):g}, the most that this "
        "deployment allows"
        for name, value in wanted.items()
        if value > _setting(settings.maximum, name)
    ]
    if excesses:
        raise LimitExceededError(excesses)
    values = {name: value or _setting(settings.limits, name) for name, value in wanted.items()}
    if wanted["wall"] and not wanted["cpu"]:
        # A caller who gives only a timeout means both.
        values["cpu"] = min(wanted["wall"], settings.maximum.cpu)
    return _limits(values)


def remaining_limits(state: ProgramState) -> ProgramLimits:
    """Return the remaining limits of a program that is resumed."""
    limits = _limits(_values(state.limits or Limits()))
    written = len(state.stdout.encode()) + len(state.stderr.encode())
    return replace(
        limits,
        wall=max(_SHORTEST, limits.wall - state.duration_ms / 1000),
        output_bytes=max(1, limits.output_bytes - written),
    )


def to_limits(limits: ProgramLimits) -> Limits:
    """Convert limits to the contract's message."""
    return Limits(
        timeout=timedelta(seconds=limits.wall),
        cpu=timedelta(seconds=limits.cpu),
        memory_bytes=limits.memory_bytes,
        output_bytes=limits.output_bytes,
        result_bytes=limits.result_bytes,
        scratch_bytes=limits.scratch_bytes,
    )


def _values(limits: Limits) -> dict[str, int | float]:
    return {
        "wall": 0.0 if limits.timeout is None else limits.timeout.total_seconds(),
        "cpu": 0.0 if limits.cpu is None else limits.cpu.total_seconds(),
        "memory_bytes": limits.memory_bytes,
        "output_bytes": limits.output_bytes,
        "result_bytes": limits.result_bytes,
        "scratch_bytes": limits.scratch_bytes,
    }


def _limits(values: dict[str, int | float]) -> ProgramLimits:
    return ProgramLimits(
        wall=float(values["wall"]),
        cpu=float(values["cpu"]),
        memory_bytes=int(values["memory_bytes"]),
        output_bytes=int(values["output_bytes"]),
        result_bytes=int(values["result_bytes"]),
        scratch_bytes=int(values["scratch_bytes"]),
    )


def _setting(limits: LimitSettings, name: str) -> int | float:
    value: int | float = getattr(limits, name)
    return value


def check_files(files: Sequence[File], limits: ProgramLimits) -> dict[str, bytes]:
    """Check the files of a program, and return their contents by path.

    Raises:
        RequestInvalidError: a path leaves the folder, is duplicated, or is both a file and a folder.
        LimitExceededError: the files are larger than a program may write.
    """
    found = dict[str, bytes]()
    for file in files:
        if reason := _path_error(file.path):
            raise RequestInvalidError(f"file {file.path!r}: {reason}")
        if file.path in found:
            raise RequestInvalidError(f"file {file.path!r} is given twice")
        found[file.path] = file.content
    for path in found:
        parts = path.split("/")
        if inside := [parent for end in range(1, len(parts)) if (parent := "/".join(parts[:end])) in found]:
            raise RequestInvalidError(f"file {path!r} is in {inside[0]!r}, which is a file")
    size = sum(len(content) for content in found.values())
    if size > limits.scratch_bytes:
        raise LimitExceededError([f"files of {size:,} bytes are more than scratch_bytes {limits.scratch_bytes:,}"])
    return found


def _path_error(path: str) -> str:
    parts = path.split("/")
    if "\0" in path or "\\" in path:
        return "has a NUL or backslash; separate folders by /"
    if path.startswith("/"):
        return "begins at the root; paths are relative to the program's folder"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty part, . or ..; paths stay in the program's folder"
    if len(parts) > _MAX_DEPTH:
        return f"is nested more than {_MAX_DEPTH} folders deep"
    if not path.isprintable():
        return "has unprintable characters"
    return ""
