"""Keeps whole feeds in files, for servers that cannot hand out a part of one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from weakref import WeakValueDictionary

import httpx
from contextunity.gen.contextunity.harvest.v1 import Feed, HarvestIncomplete

from ..errors import FeedChangedError, FeedLimitError, FeedUnreachableError
from ._download import BROKEN_OFF, Download
from ._http import HASHED, fetch, same_version, validator
from ._model import FeedBounds, Heartbeat

__all__ = ["Spooled", "spool_body", "spool_path", "spooled_feed"]

_WRITE_BYTES = 1024 * 1024
_KEEP_SECONDS = 2 * 24 * 3600.0
"""A harvest ends within a day (see its execution_timeout), so nobody reads a file that is two days old."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spooled:
    """A feed that lies in the spool."""

    path: Path
    version: str
    size: int
    incomplete: HarvestIncomplete = HarvestIncomplete.UNSPECIFIED
    """What is known to be wrong with its end: BROKEN_OFF, or LENGTH_UNKNOWN where only the content can tell."""


def spool_path(folder: Path, url: str, version: str) -> Path:
    """Give the file in which a version of a feed is spooled."""
    key = hashlib.sha256(f"{url}\n{version}".encode()).hexdigest()
    return folder / f"{key[:40]}.feed"


async def spool_body(
    download: Download, folder: Path, heartbeat: Heartbeat | None, *, accept_broken: bool = False
) -> Spooled:
    """Write the body of an answer into the spool, unless this version is there already.

    A server that states no version gives one by the content's hash, which is known at the end of the download.
    So does one whose answer may lack its end, since another answer of the same version may be longer.

    Args:
        download: the answer.
        folder: the spool.
        heartbeat: called whenever bytes have come in.
        accept_broken: whether a body that ends before its end is taken for as much as came of it.

    Raises:
        FeedUnreachableError: the body ends before its end, and accept_broken is not set.
        FeedLimitError: it goes beyond a bound; nothing of it stays in the spool.
    """
    url, unstated = download.url, not download.states_its_end
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
        # Renaming is what makes the file appear whole or not at all.
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


# Two pages asked for at once wait for one download. Keyed by the event loop as well, because a lock belongs to one.
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
    """Give the file of a spooled feed; it is downloaded only where it is not there, as on another machine.

    Raises:
        FeedChangedError: what is to be had now is another version.
        FeedUnreachableError: it cannot be had this time.
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
                raise FeedUnreachableError(feed.url, status=200, reason="the body breaks off elsewhere than before")
            raise FeedChangedError(feed.url, expected=feed.version, seen=spooled.version)
    return path


async def _write(
    download: Download, part: IO[bytes], heartbeat: Heartbeat | None, *, accept_broken: bool
) -> tuple[str, bool]:
    """Write a body into a file, and give the SHA-256 of it and whether it broke off."""
    digest, guard = hashlib.sha256(), _RecordGuard(download.url, download.bounds.max_record_bytes)
    waiting = bytearray()

    def flush() -> None:
        digest.update(waiting)
        part.write(waiting)
        part.flush()

    broken = False
    try:
        async for piece in download.pieces():
            guard.look(piece)
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
        # A part of a row could pass for a row: with a price of 10 instead of 1099.
        await asyncio.to_thread(lambda: part.truncate(part.tell() - guard.after_line))
    return digest.hexdigest(), broken


class _RecordGuard:
    """Ends a download in which no record can have ended for longer than a record may be.

    It looks only for what must stand at the end of every one: of XML the name of an item's tag, of all others the end
    of a line. So a feed that has these without being good is spooled, up to its other bounds, and refused when it is
    read; one that is a single line is not.
    """

    def __init__(self, url: str, max_bytes: int) -> None:
        self._url, self._max_bytes = url, max_bytes
        self._marks: tuple[bytes, ...] = ()
        self._open = 0
        """Bytes since the last mark."""
        self._tail = b""

    @property
    def after_line(self) -> int:
        """Bytes since the last line end; 0 for XML, whose parts of items are seen to be such."""
        return max(0, self._open - 1) if b"\n" in self._marks else 0

    def look(self, piece: bytes) -> None:
        """Look at the next bytes of the body.

        Raises:
            FeedLimitError: a record in them is too long.
        """
        if not self._marks:
            begin = (self._tail + piece).removeprefix(b"\xef\xbb\xbf").lstrip()
            if begin:
                self._marks = (b"item", b"entry") if begin.startswith(b"<") else (b"\n", b"\r")
        # A mark may lie across two pieces. Found from the end on, it is found at once where the feed is a feed.
        data = self._tail + piece
        found = max((data.rfind(mark) for mark in self._marks), default=-1)
        self._open = self._open + len(piece) if found < 0 else len(data) - found
        self._tail = data[-4:]
        if self._open > self._max_bytes:
            seen = f"has a record that is longer than {self._max_bytes:,} bytes, or never closed"
            raise FeedLimitError(self._url, setting="max_record_bytes", seen=seen)


def _create(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder)
    return tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False)


def _remove_old(folder: Path) -> None:
    """Remove what nobody can need any more, downloads that broke off included."""
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
