"""Fetch feeds over HTTP within the limits of their supplier, and convert responses to our errors."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from contextunity.gen.contextunity.harvest.v1 import Feed

from contextunity.worker import egress

from ..errors import (
    FeedChangedError,
    FeedForbiddenError,
    FeedFormatError,
    FeedLimitError,
    FeedNotFoundError,
    FeedRefusedError,
    FeedUnreachableError,
)
from .model import DEFAULT_BOUNDS, FeedBounds, Heartbeat, KnownVersion

__all__ = [
    "BROKEN_OFF",
    "HASHED",
    "BodyTruncatedError",
    "Download",
    "RangeBytes",
    "bounded_time",
    "conditional_headers",
    "content_range",
    "fetch",
    "is_other_version",
    "read_up_to",
    "same_version",
    "validator",
]

HASHED = "sha256:"
"""Prefix of a version that is a hash of the content."""
_RESUMED = 100
"""Maximum requests for the rest of a window, if the server sends less at a time."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_STATUS_ERRORS: dict[int, type[FeedUnreachableError]] = {
    401: FeedForbiddenError,
    403: FeedForbiddenError,
    404: FeedNotFoundError,
    410: FeedNotFoundError,
}
"""Responses that stay the same a minute later; all others are retried."""
_SETTLED = timedelta(minutes=1)
"""Minimum age of a Last-Modified when the feed is read: another version in the same second may have the same value."""


@asynccontextmanager
async def fetch(
    client: httpx.AsyncClient,
    url: str,
    bounds: FeedBounds,
    *,
    first: int = 0,
    size: int = 0,
    if_range: str = "",
    unless: Mapping[str, str] | None = None,
) -> AsyncGenerator[Download]:
    """Request a feed, or `size` bytes of it from `first` on, and yield the response with its body unread.

    Args:
        client: client with the policy of the feed's supplier.
        url: URL of the feed.
        bounds: limits of the supplier.
        first: first byte.
        size: number of bytes; 0 means the whole feed.
        if_range: required version of the bytes.
        unless: headers from `conditional_headers`, which allow the server to answer 304 instead.

    Raises:
        FeedUnreachableError: there is no response, or its status is not 200, 206, 416 or, with `unless`, 304. Also for
            errors while the caller reads the body.
        FeedRefusedError: the client's policy rejects the URL, or a redirect.
        FeedLimitError: the download takes too long, or is too large.
    """
    # Offsets count bytes of the feed itself; with compression the server would count compressed bytes.
    headers = {"Accept-Encoding": "identity"}
    if size:
        headers["Range"] = f"bytes={first}-{first + size - 1}"
    if if_range:
        headers["If-Range"] = if_range
    headers |= unless or {}
    good = (200, 206, 304, 416) if unless else (200, 206, 416)
    try:
        async with bounded_time(url, bounds) as (clock, ends), egress.stream(client, url, headers=headers) as response:
            if response.status_code not in good:
                reason = f"the server answered {response.status_code} {response.reason_phrase}".rstrip()
                if response.status_code == 304:
                    reason += ", to a request without a condition"
                error_class = _STATUS_ERRORS.get(response.status_code, FeedUnreachableError)
                raise error_class(
                    url, status=response.status_code, reason=reason, retry_after=egress.retry_after(response)
                )
            yield Download(url=url, response=response, bounds=bounds, clock=clock, ends=ends)
    except egress.EgressRefusedError as error:
        raise FeedRefusedError(
            url, reason=error.reason, host=error.host, address=error.address, setting=error.setting
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        if isinstance(error, httpx.InvalidURL):
            # Its text quotes a part of the URL, which may be a password.
            raise FeedUnreachableError(url, reason="the URL is invalid") from None
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise FeedUnreachableError(url, reason=reason) from error


def validator(response: httpx.Response) -> str:
    """Return the version of a response: its ETag, its Last-Modified, or an empty string."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def conditional_headers(known: KnownVersion) -> dict[str, str]:
    """Return the headers that request a feed only if its version differs; none if a version does not allow that."""
    version = known.version
    if not version or version.startswith(HASHED):
        return {}
    try:
        modified = parsedate_to_datetime(version)
    except ValueError:
        return {"If-None-Match": version}
    if modified.tzinfo is None:
        modified = modified.replace(tzinfo=UTC)
    return {"If-Modified-Since": version} if modified <= known.read_at - _SETTLED else {}


def is_other_version(response: httpx.Response, version: str) -> bool:
    """Return whether a 304 is about another version than requested, as from a broken cache."""
    etag: str = response.headers.get("ETag", "")
    if not etag or not version.endswith('"'):
        return False
    # Comparing weakly, as If-None-Match does (RFC 9110, 13.1.2).
    return etag.removeprefix("W/") != version.removeprefix("W/")


def same_version(response: httpx.Response, version: str) -> bool:
    """Return whether a response has this version; without a version, assume that it has."""
    stated = [value for value in (response.headers.get("ETag"), response.headers.get("Last-Modified")) if value]
    return not stated or version in stated


def content_range(response: httpx.Response) -> tuple[int, int, int] | None:
    """Parse the Content-Range header: first byte, last byte, and total size, 0 if unknown.

    Returns:
        None if it is missing or invalid, or counts compressed bytes.
    """
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if found is None or is_encoded(response):
        return None
    total = found[3]
    return int(found[1]), int(found[2]), 0 if total == "*" else int(total)


def is_encoded(response: httpx.Response) -> bool:
    """Return whether the body is compressed, although the request excluded compression."""
    return response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


async def read_up_to(
    download: Download, size: int, heartbeat: Heartbeat | None, *, accept_broken: bool = False
) -> bytes:
    """Read at most `size` bytes of a body, even if the server sends more.

    Args:
        download: the response.
        size: maximum bytes.
        heartbeat: called whenever bytes arrive.
        accept_broken: whether to return the part of a truncated body; otherwise it is an error.
    """
    parts: list[bytes] = []
    missing = size
    # Reading a body to its very end keeps the connection open for the next page; stopping early closes it.
    ends_there = download.response.headers.get("Content-Length") == str(size)
    try:
        async with aclosing(download.pieces()) as pieces:
            async for part in pieces:
                parts.append(part[:missing])
                missing -= len(parts[-1])
                if heartbeat is not None:
                    heartbeat()
                if missing <= 0 and not ends_there:
                    break
    except BROKEN_OFF:
        if not accept_broken:
            raise
    return b"".join(parts)


@dataclass(kw_only=True, slots=True)
class RangeBytes:
    """Bytes of a feed whose server supports Range. See `ByteSource`."""

    client: httpx.AsyncClient
    feed: Feed
    heartbeat: Heartbeat | None
    bounds: FeedBounds = DEFAULT_BOUNDS
    accept_broken: bool = False
    """Whether a feed ends where its server sends less than it announced; otherwise that is an error."""
    broken: bool = False
    """See `ByteSource.broken`."""

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
        data, short = await self._ask(offset, size)
        for _ in range(_RESUMED):
            if not short:
                break
            try:
                more, short = await self._ask(offset + len(data), size - len(data))
            except FeedUnreachableError as error:
                # A response is the server's decision; a connection that ends without one truncates the feed.
                if error.status or not self.accept_broken:
                    raise
                break
            data += more
            if not more:
                break
        if short and not self.accept_broken:
            raise self._too_short(offset, size, len(data))
        self.broken = short
        return data

    async def _ask(self, offset: int, size: int) -> tuple[bytes, bool]:
        """Send one request; return its bytes, maybe fewer than requested, and whether the feed ends there."""
        feed = self.feed
        # A weak ETag may not be sent in If-Range (RFC 9110, 13.1.5); the answer's own ETag is compared in any case.
        if_range = "" if feed.version.startswith("W/") else feed.version
        async with fetch(self.client, feed.url, self.bounds, first=offset, size=size, if_range=if_range) as download:
            self._check(download.response, offset)
            if download.response.status_code == 416:
                return b"", False
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
                feed.url, status=200, reason="the server sends the whole feed, although it supported Range before"
            )
        if response.status_code == 416 and feed.total_bytes:
            # Requests never exceed the size that the feed had.
            raise FeedChangedError(feed.url, expected=feed.version, seen=seen)
        if response.status_code == 206:
            found = content_range(response)
            if found is None or found[0] != offset:
                stated = response.headers.get("Content-Range", "no Content-Range")
                raise FeedUnreachableError(feed.url, status=206, reason=f"requested byte {offset} on, but got {stated}")
            if feed.total_bytes and found[2] and found[2] != feed.total_bytes:
                raise FeedChangedError(feed.url, expected=f"{feed.total_bytes} bytes", seen=f"{found[2]} bytes")

    async def _body(self, download: Download, offset: int, size: int) -> tuple[bytes, bool]:
        """Read the whole body: otherwise fewer bytes would look like the end of the feed."""
        data = await read_up_to(download, size, self.heartbeat, accept_broken=self.accept_broken)
        found = content_range(download.response)
        promised = min(size, found[1] - found[0] + 1) if found else size
        at_end = found is not None and (found[2] == 0 or found[1] + 1 == found[2])
        if len(data) < promised:
            if not self.accept_broken:
                raise self._too_short(offset, size, len(data))
            return data, True
        # A server may send less than requested, and says so.
        return data, len(data) < size and not at_end

    def _too_short(self, offset: int, size: int, came: int) -> FeedUnreachableError:
        reason = f"requested {size} bytes from byte {offset}, but got {came}"
        return FeedUnreachableError(self.feed.url, status=206, reason=reason)


_PIECE_BYTES = 256 * 1024
"""Maximum bytes decompressed at once: the result of a compressed byte is unknown before."""
_RESCHEDULED_SECONDS = 1.0


class BodyTruncatedError(FeedUnreachableError):
    """A compressed body is truncated."""


BROKEN_OFF = (httpx.RemoteProtocolError, httpx.ReadError, BodyTruncatedError)
"""A body is truncated."""


@dataclass(kw_only=True, slots=True)
class Download:
    """A response whose body is read by `pieces`."""

    url: str
    response: httpx.Response
    bounds: FeedBounds
    clock: asyncio.Timeout
    ends: float
    """Deadline, by the clock of the event loop."""
    taken: int = field(default=0)
    """Decompressed bytes of the body so far."""

    @property
    def has_known_end(self) -> bool:
        """Whether truncation of the body is detectable: by its length, its last chunk, or its compression."""
        headers = self.response.headers
        return (
            "Content-Length" in headers
            or "Transfer-Encoding" in headers
            or not self.response.http_version.startswith("HTTP/1")
            or headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")
        )

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Yield the decompressed body.

        Raises:
            FeedLimitError: the body is too large.
            FeedFormatError: the compression is unknown, or differs from the header.
            FeedUnreachableError: the body is truncated.
        """
        encoding = self.response.headers.get("Content-Encoding", "").strip().lower()
        if encoding in ("", "identity"):
            stated = self.response.headers.get("Content-Length", "")
            if stated.isascii() and stated.isdigit():
                self._check_size(int(stated))
            async for part in self._paced():
                self._count(len(part))
                yield part
            return
        # Some servers send a compressed file although the request excludes compression. More than one layer is
        # never an accident, and each multiplies the possible size.
        if encoding not in ("gzip", "x-gzip", "deflate"):
            seen = f"a body with the Content-Encoding {encoding[:100]!r}"
            raise FeedFormatError(self.url, expected="a feed without compression or with gzip", seen=seen)
        sent, unpacker = 0, _Unpacker(deflate=encoding == "deflate")
        async for part in self._paced():
            sent += len(part)
            try:
                for piece in unpacker.unpack(part):
                    self._count(len(piece))
                    self._check_ratio(sent)
                    yield piece
            except zlib.error as error:
                seen = f"a body that does not match its Content-Encoding ({error})"
                raise FeedFormatError(self.url, expected=encoding, seen=seen) from error
        if not unpacker.ended:
            raise BodyTruncatedError(self.url, status=self.response.status_code, reason="the body is truncated")

    async def _paced(self) -> AsyncIterator[bytes]:
        """Yield the received bytes, as long as they arrive fast enough."""
        due = self.bounds.min_bytes_per_second * self.bounds.rate_seconds
        if due <= 0:
            async for part in self.response.aiter_raw():
                yield part
            return
        loop = asyncio.get_running_loop()
        came, since = 0, loop.time()
        self.clock.reschedule(min(self.ends, since + self.bounds.rate_seconds))
        async for part in self.response.aiter_raw():
            came += len(part)
            if came >= due and (now := loop.time()) - since >= min(_RESCHEDULED_SECONDS, self.bounds.rate_seconds / 2):
                came, since = 0, now
                self.clock.reschedule(min(self.ends, since + self.bounds.rate_seconds))
            yield part
        self.clock.reschedule(self.ends)

    def _count(self, size: int) -> None:
        self.taken += size
        self._check_size(self.taken)

    def _check_size(self, size: int) -> None:
        if size > self.bounds.max_bytes:
            seen = f"is longer than {self.bounds.max_bytes:,} bytes"
            raise FeedLimitError(self.url, setting="max_bytes", seen=seen)

    def _check_ratio(self, sent: int) -> None:
        bounds = self.bounds
        if self.taken > bounds.ratio_from_bytes and self.taken > sent * bounds.max_ratio:
            seen = f"decompresses {sent:,} bytes to {self.taken:,} or more, over the ratio of {bounds.max_ratio:g}"
            raise FeedLimitError(self.url, setting="max_ratio", seen=seen)


@asynccontextmanager
async def bounded_time(url: str, bounds: FeedBounds) -> AsyncGenerator[tuple[asyncio.Timeout, float]]:
    """Limit the time of a download: yield the timeout that ends it, and the deadline.

    Raises:
        FeedLimitError: the total time is over the limit.
        FeedUnreachableError: the server is too slow.
    """
    ends = asyncio.get_running_loop().time() + bounds.max_seconds - bounds.used_seconds
    clock = asyncio.timeout_at(ends)
    try:
        async with clock:
            yield clock, ends
    except TimeoutError as error:
        if not clock.expired():
            raise
        if asyncio.get_running_loop().time() >= ends:
            seen = f"takes longer than {bounds.max_seconds:g} s to download"
            raise FeedLimitError(url, setting="max_seconds", seen=seen) from error
        rate = f"less than {bounds.min_bytes_per_second:g} bytes per second over {bounds.rate_seconds:g} s"
        raise FeedUnreachableError(url, reason=f"the server sends {rate}") from error


class _Unpacker:
    """Decompresses gzip or deflate; a gzip body may have several members."""

    def __init__(self, *, deflate: bool) -> None:
        self._deflate = deflate
        self._engine = self._new()
        self._begun = False

    @property
    def ended(self) -> bool:
        """Whether the data is complete."""
        return self._engine.eof or not self._begun

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed bytes, in pieces of limited size.

        Raises:
            zlib.error: the data is invalid.
        """
        if self._deflate and not self._begun and data and not _has_zlib_header(data):
            # Some servers omit the header that the standard requires for "deflate".
            self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
        while data:
            if self._engine.eof:
                if self._deflate or not data.strip(b"\0"):
                    # Padding, as in tape archives.
                    return
                self._engine = self._new()
            self._begun = True
            piece = self._engine.decompress(data, _PIECE_BYTES)
            data = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail
            if piece:
                yield piece
            elif not self._engine.eof and not data:
                return
        while not self._engine.eof and (piece := self._engine.decompress(b"", _PIECE_BYTES)):
            yield piece

    def _new(self) -> Any:  # the library's own class has no public name
        return zlib.decompressobj(zlib.MAX_WBITS if self._deflate else zlib.MAX_WBITS | 16)


def _has_zlib_header(data: bytes) -> bool:
    return data[0] & 0x0F == 8 and (len(data) < 2 or (data[0] << 8 | data[1]) % 31 == 0)
