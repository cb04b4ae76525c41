"""Reads a feed from a file: one that is configured as such, or one that was spooled."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ..errors import (
    FeedChangedError,
    FeedForbiddenError,
    FeedNotFoundError,
    FeedRefusedError,
    FeedUnreachableError,
)

__all__ = ["FileBytes", "feed_folder_of", "file_path", "file_version"]

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
_READ_ONLY = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Opening a named pipe that nobody writes to would never end."""


def file_path(url: str) -> Path:
    """Give the path that a file URL names."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path))


def feed_folder_of(path: Path, folders: Sequence[Path]) -> tuple[Path, Path] | None:
    """Give the feed folder that a file lies in and the file itself, both with symbolic links followed.

    Returns:
        None where it lies in none of them.
    """
    resolved = Path(os.path.realpath(path))
    roots = (Path(os.path.realpath(folder)) for folder in folders)
    return next(((root, resolved) for root in roots if resolved.is_relative_to(root) and resolved != root), None)


def file_version(url: str, path: Path, folders: Sequence[Path] | None = None) -> tuple[str, int]:
    """Give version and size of a file.

    Raises:
        FeedNotFoundError: there is no such file, or it is none.
        FeedForbiddenError: it may not be read.
        FeedRefusedError: it lies outside the folders.
    """
    with _opened(url, path, folders) as descriptor:
        return _version(descriptor)


def _version(descriptor: int) -> tuple[str, int]:
    status = os.fstat(descriptor)
    return f"{status.st_size}-{status.st_mtime_ns}", status.st_size


@contextmanager
def _opened(url: str, path: Path, folders: Sequence[Path] | None) -> Generator[int]:
    """Open a regular file and, where folders are given, only one below them."""
    try:
        descriptor = os.open(path, _READ_ONLY) if folders is None else _open_below(url, path, folders)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FeedNotFoundError(url, reason="it is not a file")
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _MISSING:
            raise FeedNotFoundError(url, reason=reason) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise FeedForbiddenError(url, reason=reason) from error
        if error.errno == errno.ELOOP and folders is not None:
            raise _outside(url, path, folders) from error
        raise FeedUnreachableError(url, reason=reason) from error
    except ValueError as error:
        raise FeedNotFoundError(url, reason=f"it is no path: {error}") from error


def _open_below(url: str, path: Path, folders: Sequence[Path]) -> int:
    """Open a file below a folder, step by step and without following links.

    The path has its links followed already, so one that is met now was put there since, to have another file read.
    """
    found = feed_folder_of(path, folders)
    if found is None:
        raise _outside(url, path, folders)
    root, resolved = found
    *parents, name = resolved.relative_to(root).parts
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for parent in parents:
            below = os.open(parent, _READ_ONLY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        return os.open(name, _READ_ONLY | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)


def _outside(url: str, path: Path, folders: Sequence[Path]) -> FeedRefusedError:
    named = ", ".join(str(folder) for folder in folders) or "none"
    return FeedRefusedError(
        url,
        address=str(path),
        reason=f"the file lies in no feed folder ({named})",
        setting="list its folder in feed_folders of [modules.harvest]",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class FileBytes:
    """Bytes of a feed that lies in a file. See `ByteSource`."""

    url: str
    path: Path
    version: str
    """Version that the file must have; empty for a spooled file, whose name says it."""
    folders: Sequence[Path] | None = None
    """Folders that it must lie in; None for a spooled file, which lies in none of them."""

    @property
    def broken(self) -> bool:
        """See `ByteSource.broken`: what lies in a file can be had."""
        return False

    async def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource.read`."""
        return await asyncio.to_thread(self._read, offset, size)

    def _read(self, offset: int, size: int) -> bytes:
        with _opened(self.url, self.path, self.folders) as descriptor:
            if self.version:
                seen, _ = _version(descriptor)
                if seen != self.version:
                    raise FeedChangedError(self.url, expected=self.version, seen=seen)
            return _read_fully(descriptor, offset, size)


def _read_fully(descriptor: int, offset: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        part = os.pread(descriptor, size, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)
