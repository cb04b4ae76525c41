"""Reads a feed from a file: one that is configured as such, or one that was spooled."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ..errors import FeedChangedError, FeedUnreachableError

__all__ = ["FileBytes", "file_path", "file_version"]


def file_path(url: str) -> Path:
    """Give the path that a file URL names."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path))


def file_version(url: str, path: Path) -> tuple[str, int]:
    """Give version and size of a file.

    Raises:
        FeedUnreachableError: there is no such file, or it is none.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise FeedUnreachableError(url, reason=error.strerror or str(error)) from error
    if not path.is_file():
        raise FeedUnreachableError(url, reason="it is not a file")
    return f"{status.st_size}-{status.st_mtime_ns}", status.st_size


@dataclass(frozen=True, kw_only=True, slots=True)
class FileBytes:
    """Bytes of a feed that lies in a file. See `ByteSource`."""

    url: str
    path: Path
    version: str
    """Version that the file must have; empty for a spooled file, whose name says it."""

    async def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource.read`."""
        return await asyncio.to_thread(self._read, offset, size)

    def _read(self, offset: int, size: int) -> bytes:
        if self.version:
            seen, _ = file_version(self.url, self.path)
            if seen != self.version:
                raise FeedChangedError(self.url, expected=self.version, seen=seen)
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise FeedUnreachableError(self.url, reason=error.strerror or str(error)) from error
        try:
            return _read_fully(descriptor, offset, size)
        except OSError as error:
            raise FeedUnreachableError(self.url, reason=error.strerror or str(error)) from error
        finally:
            os.close(descriptor)


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
