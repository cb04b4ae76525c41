"""Speaks HTTP for the feed reader: one place that turns answers and faults into our errors."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import httpx
from contextunity.gen.contextunity.harvest.v1 import Feed

from contextunity.worker import egress

from ..errors import (
    FeedChangedError,
    FeedForbiddenError,
    FeedLimitError,
    FeedNotFoundError,
    FeedRefusedError,
    FeedUnreachableError,
)
from ._download import Download, downloading
from ._model import DEFAULT_BOUNDS, FeedBounds, Heartbeat

__all__ = ["RangeBytes", "content_range", "fetch", "read_up_to", "same_version", "validator"]

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_FAULTS: dict[int, type[FeedUnreachableError]] = {
    401: FeedForbiddenError,
    403: FeedForbiddenError,
    404: FeedNotFoundError,
    410: FeedNotFoundError,
}
"""Answers that are the same a minute later; all others are worth another try."""


@asynccontextmanager
async def fetch(
    client: httpx.AsyncClient, url: str, bounds: FeedBounds, *, first: int = 0, size: int = 0, if_range: str = ""
) -> AsyncGenerator[Download]:
    """Ask for a feed, or for `size` bytes of it from `first` on, and hand out the answer with its body unread.

    Raises:
        FeedUnreachableError: there is no answer, or it is none of 200, 206 and 416. Faults while the caller reads the
            body end up here as well.
        FeedRefusedError: the client's policy refuses the address, or what it redirects to.
        FeedLimitError: it takes longer than it may, or is longer.
    """
    # Offsets count bytes of the feed itself; a server that compresses would count others.
    headers = {"Accept-Encoding": "identity"}
    if size:
        headers["Range"] = f"bytes={first}-{first + size - 1}"
    if if_range:
        headers["If-Range"] = if_range
    try:
        async with downloading(url, bounds) as (clock, ends), egress.stream(client, url, headers=headers) as response:
            if response.status_code not in (200, 206, 416):
                reason = f"the server answered {response.status_code} {response.reason_phrase}".rstrip()
                fault = _FAULTS.get(response.status_code, FeedUnreachableError)
                raise fault(url, status=response.status_code, reason=reason, retry_after=egress.retry_after(response))
            yield Download(url=url, response=response, bounds=bounds, clock=clock, ends=ends)
    except egress.EgressRefusedError as error:
        raise FeedRefusedError(
            url, reason=error.reason, host=error.host, address=error.address, setting=error.setting
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise FeedUnreachableError(url, reason=reason) from error


def validator(response: httpx.Response) -> str:
    """Give the version that an answer states: its ETag, else its Last-Modified, else nothing."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def same_version(response: httpx.Response, version: str) -> bool:
    """Tell whether an answer is of this version; one that states none is taken to be."""
    stated = [value for value in (response.headers.get("ETag"), response.headers.get("Last-Modified")) if value]
    return not stated or version in stated


def content_range(response: httpx.Response) -> tuple[int, int, int] | None:
    """Read the Content-Range header: first byte, last byte, and total size or 0 where the server does not tell.

    Returns:
        None where it is missing, not to be understood, or counts compressed bytes.
    """
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if found is None or is_encoded(response):
        return None
    total = found[3]
    return int(found[1]), int(found[2]), 0 if total == "*" else int(total)


def is_encoded(response: httpx.Response) -> bool:
    """Tell whether the body comes compressed although we asked for it plain."""
    return response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


async def read_up_to(download: Download, size: int, heartbeat: Heartbeat | None) -> bytes:
    """Read at most `size` bytes of a body, however many the server would send."""
    parts: list[bytes] = []
    missing = size
    # A body read to its very end leaves the connection open for the next page; one that is broken off closes it.
    ends_there = download.response.headers.get("Content-Length") == str(size)
    async with aclosing(download.pieces()) as pieces:
        async for part in pieces:
            parts.append(part[:missing])
            missing -= len(parts[-1])
            if heartbeat is not None:
                heartbeat()
            if missing <= 0 and not ends_there:
                break
    return b"".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class RangeBytes:
    """Bytes of a feed whose server honours Range. See `ByteSource`."""

    client: httpx.AsyncClient
    feed: Feed
    heartbeat: Heartbeat | None
    bounds: FeedBounds = DEFAULT_BOUNDS

    async def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource.read`."""
        feed = self.feed
        if feed.total_bytes:
            size = min(size, feed.total_bytes - offset)
        if size <= 0:
            return b""
        if offset >= self.bounds.max_bytes:
            seen = f"is longer than {self.bounds.max_bytes:,} bytes"
            raise FeedLimitError(feed.url, setting="max_bytes", seen=seen)
        # A weak ETag may not be sent in If-Range (RFC 9110, 13.1.5); the answer's own ETag is compared in any case.
        if_range = "" if feed.version.startswith("W/") else feed.version
        async with fetch(self.client, feed.url, self.bounds, first=offset, size=size, if_range=if_range) as download:
            self._check(download.response, offset)
            if download.response.status_code == 416:
                return b""
            return await self._body(download, offset, size)

    def _check(self, response: httpx.Response, offset: int) -> None:
        feed = self.feed
        seen = validator(response)
        if not same_version(response, feed.version):
            raise FeedChangedError(feed.url, expected=feed.version, seen=seen)
        if response.status_code == 200:
            if not seen:
                raise FeedChangedError(feed.url, expected=feed.version, seen=seen)
            raise FeedUnreachableError(
                feed.url, status=200, reason="the server sends the whole feed although it honoured Range before"
            )
        if response.status_code == 416 and feed.total_bytes:
            # We never ask beyond the size that the feed had.
            raise FeedChangedError(feed.url, expected=feed.version, seen=seen)
        if response.status_code == 206:
            found = content_range(response)
            if found is None or found[0] != offset:
                stated = response.headers.get("Content-Range", "no Content-Range")
                raise FeedUnreachableError(feed.url, status=206, reason=f"asked from byte {offset}, but got {stated}")
            if feed.total_bytes and found[2] and found[2] != feed.total_bytes:
                raise FeedChangedError(feed.url, expected=f"{feed.total_bytes} bytes", seen=f"{found[2]} bytes")

    async def _body(self, download: Download, offset: int, size: int) -> bytes:
        """Read the body, whole: short bytes would otherwise be taken for the end of the feed."""
        data = await read_up_to(download, size, self.heartbeat)
        found = content_range(download.response)
        promised = min(size, found[1] - found[0] + 1) if found else size
        at_end = found is not None and (found[2] == 0 or found[1] + 1 == found[2])
        if len(data) < promised or (len(data) < size and not at_end):
            reason = f"asked for {size} bytes from byte {offset}, but got {len(data)}"
            raise FeedUnreachableError(self.feed.url, status=206, reason=reason)
        return data
