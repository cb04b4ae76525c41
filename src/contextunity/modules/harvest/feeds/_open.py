"""Looks at a feed before its first page is read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from contextunity.gen.contextunity.harvest.v1 import Feed, FeedCursor, HarvestIncomplete
from contextunity.gen.contextunity.harvest.v1 import FeedFormat as Format

from ..errors import FeedEmptyError, FeedFormatError, FeedLimitError, FeedRefusedError, FeedUnreachableError
from ._detect import FORMAT_NAMES, find_encoding, find_opening
from ._download import Download
from ._file import FileBytes, file_path, file_version
from ._http import RangeBytes, condition, content_range, fetch, read_up_to, states_other, validator
from ._model import (
    DEFAULT_BOUNDS,
    HEAD_BYTES,
    MAX_HEAD_BYTES,
    ByteSource,
    FeedBounds,
    FeedSource,
    Heartbeat,
    KnownVersion,
)
from ._readahead import SHARED, Readahead
from ._spool import spool_body

__all__ = ["FeedUnchangedError", "open_feed"]


class FeedUnchangedError(Exception):
    """The feed's server says that it is of the known version still."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A feed as it is to be had, before anybody knows how it is written."""

    feed: Feed
    source: ByteSource
    head: bytes = b""
    content_type: str = ""
    incomplete: HarvestIncomplete = HarvestIncomplete.UNSPECIFIED


async def open_feed(
    client: httpx.AsyncClient,
    source: FeedSource,
    *,
    spool_folder: Path,
    feed_folders: Sequence[Path] | None = None,
    bounds: FeedBounds = DEFAULT_BOUNDS,
    heartbeat: Heartbeat | None = None,
    readahead: Readahead = SHARED,
    accept_broken: bool = False,
    known: KnownVersion | None = None,
) -> tuple[Feed, FeedCursor]:
    """Look at a feed and tell what the reader of its pages needs.

    A server that honours Range and states a version is asked for the first 64 KiB. Any other has to send everything
    for any page, so the feed is spooled here and now, and pages are read from the file.

    Args:
        client: its timeouts, proxy and headers are used. What it may fetch from is its own affair: the worker's go by
            `contextunity.worker.egress`.
        source: the feed as it is configured.
        spool_folder: where whole feeds are kept; made if it is not there.
        feed_folders: folders that a file must lie in, symbolic links followed; None for anywhere.
        bounds: what is taken of it, and how long it may take.
        heartbeat: called whenever bytes have come in.
        readahead: what is remembered for the first page.
        accept_broken: whether a feed whose connection ends before it does is read as far as it came; `Feed.incomplete`
            tells. Else it is a FeedUnreachableError.
        known: a version that need not be read again; an HTTP server is asked whether the feed has changed since.

    Returns:
        The feed, and the cursor of its first entry.

    Raises:
        FeedUnchangedError: it has not changed; only where `known` is given.
        FeedUnreachableError: it cannot be had this time, or, as FeedNotFoundError and FeedForbiddenError, at all.
        FeedRefusedError: it is not fetched from where it is.
        FeedLimitError: it goes beyond its bounds.
        FeedFormatError: it is no feed, or not one in the configured format.
        FeedEmptyError: it lists nothing.
    """
    scheme = source.url.partition(":")[0].lower()
    if scheme == "file":
        found = await asyncio.to_thread(_find_file, source, feed_folders, bounds)
    elif scheme in ("http", "https"):
        found = await _find_http(
            client, source, spool_folder, heartbeat, bounds, accept_broken=accept_broken, known=known
        )
    else:
        raise FeedRefusedError(source.url, reason=f"the scheme {scheme!r} is none of http, https and file")
    return await _open(found, source, readahead)


def _find_file(source: FeedSource, folders: Sequence[Path] | None, bounds: FeedBounds) -> _Found:
    path = file_path(source.url)
    version, size = file_version(source.url, path, folders)
    _check_size(source.url, size, bounds)
    feed = Feed(url=source.url, version=version, total_bytes=size)
    return _Found(feed=feed, source=FileBytes(url=source.url, path=path, version=version, folders=folders))


def _check_size(url: str, size: int, bounds: FeedBounds) -> None:
    if size > bounds.max_bytes:
        seen = f"is {size:,} bytes long, and not at most {bounds.max_bytes:,}"
        raise FeedLimitError(url, setting="max_bytes", seen=seen)


async def _find_http(
    client: httpx.AsyncClient,
    source: FeedSource,
    spool_folder: Path,
    heartbeat: Heartbeat | None,
    bounds: FeedBounds,
    *,
    accept_broken: bool,
    known: KnownVersion | None = None,
) -> _Found:
    unless = {} if known is None else condition(known)
    async with fetch(client, source.url, bounds, size=HEAD_BYTES, unless=unless) as download:
        response = download.response
        distrusted = known is not None and response.status_code == 304 and states_other(response, known.version)
        if response.status_code == 304 and not distrusted:
            raise FeedUnchangedError
        if response.status_code == 416:
            raise FeedEmptyError(source.url)
        place = content_range(response)
        # Without a version nobody could tell that pages are of one and the same feed.
        if response.status_code == 206 and place is not None and place[0] == 0 and validator(response):
            _check_size(source.url, place[2], bounds)
            feed = Feed(url=source.url, version=validator(response), total_bytes=place[2], ranges=True)
            head = await read_up_to(download, HEAD_BYTES, heartbeat, accept_broken=accept_broken)
            content_type = response.headers.get("Content-Type", "")
            ranged = RangeBytes(
                client=client, feed=feed, heartbeat=heartbeat, bounds=bounds, accept_broken=accept_broken
            )
            return _Found(feed=feed, source=ranged, head=head, content_type=content_type)
        if response.status_code == 200:
            return await _spool(download, source, spool_folder, heartbeat, accept_broken=accept_broken)
    if distrusted:
        return await _find_http(client, source, spool_folder, heartbeat, bounds, accept_broken=accept_broken)
    async with fetch(client, source.url, bounds) as download:
        if download.response.status_code != 200:
            raise FeedUnreachableError(source.url, status=download.response.status_code)
        return await _spool(download, source, spool_folder, heartbeat, accept_broken=accept_broken)


async def _spool(
    download: Download, source: FeedSource, spool_folder: Path, heartbeat: Heartbeat | None, *, accept_broken: bool
) -> _Found:
    spooled = await spool_body(download, spool_folder, heartbeat, accept_broken=accept_broken)
    feed = Feed(url=source.url, version=spooled.version, total_bytes=spooled.size)
    content_type = download.response.headers.get("Content-Type", "")
    file = FileBytes(url=source.url, path=spooled.path, version="")
    return _Found(feed=feed, source=file, content_type=content_type, incomplete=spooled.incomplete)


async def _open(found: _Found, source: FeedSource, readahead: Readahead) -> tuple[Feed, FeedCursor]:
    """Read as much of the beginning as it takes to find the first entry."""
    head = found.head or await found.source.read(0, HEAD_BYTES)
    encoding, guessed = source.encoding, False
    if not encoding:
        encoding, guessed = await asyncio.to_thread(find_encoding, source.url, head, found.content_type)
    while True:
        whole = len(head) >= found.feed.total_bytes > 0 or not head
        opening = find_opening(
            source.url,
            head,
            whole=whole,
            expected=source.format,
            content_type=found.content_type,
            encoding=encoding,
        )
        if opening is not None:
            break
        if len(head) >= MAX_HEAD_BYTES:
            expected = "the first entry" if source.format is None else FORMAT_NAMES[source.format]
            raise FeedFormatError(source.url, expected=expected, seen=f"no entry in the first {len(head)} bytes")
        more = await found.source.read(len(head), len(head))
        if not more:
            found.feed.total_bytes = len(head)
            if found.source.broken:
                found = replace(found, incomplete=HarvestIncomplete.BROKEN_OFF)
        head += more
    feed = found.feed
    feed.supplier_code = source.supplier_code
    feed.format = opening.format
    feed.prologue = opening.prologue
    feed.currency_code = source.currency_code
    feed.encoding = opening.encoding
    if guessed:
        opening.cursor.guessed_encoding = encoding
    # The end tag of XML is an end of its own; rows and lines have none.
    if found.incomplete is not HarvestIncomplete.LENGTH_UNKNOWN or feed.format is not Format.GOOGLE_XML:
        feed.incomplete = found.incomplete
    readahead.keep(feed, offset=opening.cursor.offset, tail=head[opening.cursor.offset :])
    return feed, opening.cursor
