"""Checks the files that come with a program: only into its own folder, and no more than that may hold."""

from __future__ import annotations

from collections.abc import Sequence

from contextunity.gen.contextunity.code.v1 import File

from .backends import ProgramLimits
from .errors import LimitExceededError, RequestInvalidError

__all__ = ["checked_files"]

_MAX_DEPTH = 16


def checked_files(files: Sequence[File], limits: ProgramLimits) -> dict[str, bytes]:
    """Returns contents by path.

    Raises:
        RequestInvalidError: a path leads out of the folder, is there twice, or is both a file and a folder.
        LimitExceededError: they take more than a program may write.
    """
    found = dict[str, bytes]()
    for file in files:
        if reason := _fault(file.path):
            raise RequestInvalidError(f"file {file.path!r}: {reason}")
        if file.path in found:
            raise RequestInvalidError(f"file {file.path!r} is there twice")
        found[file.path] = file.content
    for path in found:
        parts = path.split("/")
        if inside := [parent for end in range(1, len(parts)) if (parent := "/".join(parts[:end])) in found]:
            raise RequestInvalidError(f"file {path!r} lies in {inside[0]!r}, which is a file")
    size = sum(len(content) for content in found.values())
    if size > limits.scratch_bytes:
        raise LimitExceededError([f"files of {size:,} bytes are more than scratch_bytes {limits.scratch_bytes:,}"])
    return found


def _fault(path: str) -> str:
    parts = path.split("/")
    if "\0" in path or "\\" in path:
        return "has a NUL or backslash; separate folders by /"
    if path.startswith("/"):
        return "begins at the root; paths are relative to the program's folder"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty part, . or ..; paths stay in the program's folder"
    if len(parts) > _MAX_DEPTH:
        return f"is more than {_MAX_DEPTH} folders deep"
    if not path.isprintable():
        return "has characters that cannot be shown"
    return ""
