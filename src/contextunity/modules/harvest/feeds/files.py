"""Feeds in files: file:// URLs, and the spool for servers without Range."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import url2pathname
from weakref import WeakValueDictionary

import httpx
from contextunity.gen.contextunity.harvest.v1 import Feed, HarvestIncomplete

from ..errors import (
    FeedChangedError,
    FeedForbiddenError,
    FeedLimitError,
    FeedNotFoundError,
    FeedRefusedError,
    FeedUnreachableError,
)
from .download import BROKEN_OFF, HASHED, Download, fetch, same_version, validator
from .model import FeedBounds, Heartbeat

__all__ = [
    "FileBytes",
    "Spooled",
    "feed_folder_of",
    "file_path",
    "file_version",
    "spool_body",
    "spool_path",
    "spooled_feed",
]

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
_READ_ONLY = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Do not block: opening a named pipe without a writer would never return."""


def file_path(url: str) -> Path:
    """Return the path of a file URL."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path))


def feed_folder_of(path: Path, folders: Sequence[Path]) -> tuple[Path, Path] | None:
    """Return the feed folder that contains a file, and the file, both with symbolic links resolved.

    Returns:
        None if no folder contains it.
    """
    resolved = Path(os.path.realpath(path))
    roots = (Path(os.path.realpath(folder)) for folder in folders)
    return next(((root, resolved) for root in roots if resolved.is_relative_to(root) and resolved != root), None)


def file_version(url: str, path: Path, folders: Sequence[Path] | None = None) -> tuple[str, int]:
    """Return version and size of a file.

    Raises:
        FeedNotFoundError: the file does not exist, or is not a regular file.
        FeedForbiddenError: the file may not be read.
        FeedRefusedError: the file is outside the folders.
    """
    with _opened(url, path, folders) as descriptor:
        return _version(descriptor)


def _version(descriptor: int) -> tuple[str, int]:
    status = os.fstat(descriptor)
    return f"{status.st_size}-{status.st_mtime_ns}", status.st_size


@contextmanager
def _opened(url: str, path: Path, folders: Sequence[Path] | None) -> Generator[int]:
    """Open a regular file; with folders, only one below them."""
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
        raise FeedNotFoundError(url, reason=f"invalid path: {error}") from error


def _open_below(url: str, path: Path, folders: Sequence[Path]) -> int:
    """Open a file below a folder, one path component at a time, without following links.

    The links of the path are already resolved, so a link found now was created since then, to read another file.
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
        reason=f"the file is in no feed folder ({named})",
        setting="add its folder to feed_folders of [modules.harvest]",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class FileBytes:
    """Bytes of a feed in a file. See `ByteSource`."""

    url: str
    path: Path
    version: str
    """Required version of the file; empty for a spooled file, whose name contains it."""
    folders: Sequence[Path] | None = None
    """Folders that must contain it; None for a spooled file."""

    @property
    def broken(self) -> bool:
        """See `ByteSource.broken`: a file can always be read."""
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


_WRITE_BYTES = 1024 * 1024
_KEEP_SECONDS = 2 * 24 * 3600.0
"""Age after which spooled files are removed: a harvest ends within a day (see its execution_timeout)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spooled:
    """A feed in the spool."""

    path: Path
    version: str
    size: int
    incomplete: HarvestIncomplete = HarvestIncomplete.UNSPECIFIED
    """Known problem of its end: BROKEN_OFF, or LENGTH_UNKNOWN if only the content shows whether it is complete."""


def spool_path(folder: Path, url: str, version: str) -> Path:
    """Return the spool file of a version of a feed."""
    key = hashlib.sha256(f"{url}\n{version}".encode()).hexdigest()
    return folder / f"{key[:40]}.feed"


async def spool_body(
    download: Download, folder: Path, heartbeat: Heartbeat | None, *, accept_broken: bool = False
) -> Spooled:
    """Write the body of a response into the spool, unless this version is there already.

    Without a version from the server, the version is the content's hash, known at the end of the download. It is also
    the hash if the response may be truncated, because another response of the same version may be longer.

    Args:
        download: the response.
        folder: folder of the spool.
        heartbeat: called whenever bytes arrive.
        accept_broken: whether to accept a truncated body.

    Raises:
        FeedUnreachableError: the body is truncated, and accept_broken is not set.
        FeedLimitError: a limit is exceeded; nothing of it stays in the spool.
    """
    url, unstated = download.url, not download.has_known_end
    version = "" if unstated else validator(download.response)
    if version:
        path = spool_path(folder, url, version)
        size = await asyncio.to_thread(_size, path)
        if size is not None:
            return Spooled(path=path, version=version, size=size)
    part = await asyncio.to_thread(_create, folder)
    try:
        digest, broken = await _write(download, part, heartbeat, accept_broken=accept_broken)
        if broken:
            version = ""
        version = version or f"{HASHED}{digest}"
        path = spool_path(folder, url, version)
        # The rename makes the file appear complete or not at all.
        await asyncio.to_thread(os.replace, part.name, path)
        size = await asyncio.to_thread(os.path.getsize, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part.name)
        raise
    finally:
        part.close()
    incomplete = HarvestIncomplete.LENGTH_UNKNOWN if unstated else HarvestIncomplete.UNSPECIFIED
    if broken:
        incomplete = HarvestIncomplete.BROKEN_OFF
    return Spooled(path=path, version=version, size=size, incomplete=incomplete)


# Two concurrent pages wait for one download. The event loop is part of the key, because a lock belongs to one.
_downloads: WeakValueDictionary[tuple[int, Path], asyncio.Lock] = WeakValueDictionary()


async def spooled_feed(
    client: httpx.AsyncClient,
    feed: Feed,
    folder: Path,
    heartbeat: Heartbeat | None,
    bounds: FeedBounds,
    *,
    accept_broken: bool = False,
) -> Path:
    """Return the file of a spooled feed; download it only if it is missing, as on another machine.

    Raises:
        FeedChangedError: the server has another version now.
        FeedUnreachableError: the feed cannot be downloaded now.
    """
    path = spool_path(folder, feed.url, feed.version)
    lock = _downloads.setdefault((id(asyncio.get_running_loop()), path), asyncio.Lock())
    async with lock:
        if await asyncio.to_thread(_size, path) is not None:
            return path
        async with fetch(client, feed.url, bounds) as download:
            response = download.response
            if response.status_code != 200:
                raise FeedUnreachableError(feed.url, status=response.status_code)
            if not feed.version.startswith(HASHED) and (
                not validator(response) or not same_version(response, feed.version)
            ):
                raise FeedChangedError(feed.url, expected=feed.version, seen=validator(response))
            spooled = await spool_body(download, folder, heartbeat, accept_broken=accept_broken)
        if spooled.path != path:
            if spooled.incomplete is HarvestIncomplete.BROKEN_OFF:
                raise FeedUnreachableError(feed.url, status=200, reason="the body is truncated elsewhere than before")
            raise FeedChangedError(feed.url, expected=feed.version, seen=spooled.version)
    return path


async def _write(
    download: Download, part: IO[bytes], heartbeat: Heartbeat | None, *, accept_broken: bool
) -> tuple[str, bool]:
    """Write a body into a file; return its SHA-256 and whether it was truncated."""
    digest, guard = hashlib.sha256(), _RecordLimit(download.url, download.bounds.max_record_bytes)
    waiting = bytearray()

    def flush() -> None:
        digest.update(waiting)
        part.write(waiting)
        part.flush()

    broken = False
    try:
        async for piece in download.pieces():
            guard.check(piece)
            waiting += piece
            if heartbeat is not None:
                heartbeat()
            if len(waiting) >= _WRITE_BYTES:
                await asyncio.to_thread(flush)
                waiting.clear()
    except BROKEN_OFF:
        if not accept_broken:
            raise
        broken = True
    await asyncio.to_thread(flush)
    if broken and guard.after_line:
        # A part of a row could look like a row: with a price of 10 instead of 1099.
        await asyncio.to_thread(lambda: part.truncate(part.tell() - guard.after_line))
    return digest.hexdigest(), broken


class _RecordLimit:
    """Stops a download in which no record has ended for longer than the maximum record.

    It searches only for the end mark of records: in XML the name of an item's tag, otherwise a line end. So an invalid
    feed with such marks is spooled, up to its other limits, and rejected when it is read; a feed with a single line is
    not.
    """

    def __init__(self, url: str, max_bytes: int) -> None:
        self._url, self._max_bytes = url, max_bytes
        self._marks: tuple[bytes, ...] = ()
        self._open = 1
        """Bytes from the last mark on, its first one included; a body begins as if a line had just ended."""
        self._tail = b""

    @property
    def after_line(self) -> int:
        """Bytes since the last line end; 0 for XML, whose incomplete items are detected."""
        return max(0, self._open - 1) if b"\n" in self._marks else 0

    def check(self, piece: bytes) -> None:
        """Check the next bytes of the body.

        Raises:
            FeedLimitError: a record is too long.
        """
        if not self._marks:
            begin = (self._tail + piece).removeprefix(b"\xef\xbb\xbf").lstrip()
            if begin:
                self._marks = (b"item", b"entry") if begin.startswith(b"<") else (b"\n", b"\r")
        # A mark may span two pieces. The search from the end finds it at once in a valid feed.
        data = self._tail + piece
        found = max((data.rfind(mark) for mark in self._marks), default=-1)
        self._open = self._open + len(piece) if found < 0 else len(data) - found
        self._tail = data[-4:]
        if self._open > self._max_bytes + 1:
            seen = f"has a record that is longer than {self._max_bytes:,} bytes, or never ends"
            raise FeedLimitError(self._url, setting="max_record_bytes", seen=seen)


def _create(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder)
    return tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False)


def _remove_old(folder: Path) -> None:
    """Remove old files, including incomplete downloads."""
    oldest = time.time() - _KEEP_SECONDS
    for path in folder.iterdir():
        if path.suffix in (".feed", ".part"):
            with suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
