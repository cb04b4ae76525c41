"""Takes the body of an answer within the bounds of its supplier, unpacked piece by piece."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from ..errors import FeedFormatError, FeedLimitError, FeedUnreachableError
from ._model import FeedBounds

__all__ = ["BROKEN_OFF", "BodyBrokenOffError", "Download", "downloading"]

_PIECE_BYTES = 256 * 1024
"""The longest piece that is unpacked at once: what a packed byte becomes is not known before."""
_RESCHEDULED_SECONDS = 1.0


class BodyBrokenOffError(FeedUnreachableError):
    """A packed body ends before its end."""


BROKEN_OFF = (httpx.RemoteProtocolError, httpx.ReadError, BodyBrokenOffError)
"""What a body that ends before its end raises."""


@dataclass(kw_only=True, slots=True)
class Download:
    """An answer whose body is taken by `pieces`."""

    url: str
    response: httpx.Response
    bounds: FeedBounds
    clock: asyncio.Timeout
    ends: float
    """When it has to be over, by the clock of the event loop."""
    taken: int = field(default=0)
    """Bytes of the body so far, unpacked."""

    @property
    def states_its_end(self) -> bool:
        """Whether a body that was cut can be told from a whole one: by its length, its last chunk, or its packing."""
        headers = self.response.headers
        return (
            "Content-Length" in headers
            or "Transfer-Encoding" in headers
            or not self.response.http_version.startswith("HTTP/1")
            or headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")
        )

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Give the body, unpacked.

        Raises:
            FeedLimitError: it is longer than it may be.
            FeedFormatError: it is packed in a way that we do not know, or not as it says.
            FeedUnreachableError: it ends before its end.
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
        # Asked for plain, some servers send what they have packed in a file. More than one layer nobody has by
        # accident, and each multiplies what a byte may become.
        if encoding not in ("gzip", "x-gzip", "deflate"):
            seen = f"a body with the Content-Encoding {encoding[:100]!r}"
            raise FeedFormatError(self.url, expected="a feed that is sent as it is or in gzip", seen=seen)
        sent, unpacker = 0, _Unpacker(deflate=encoding == "deflate")
        async for part in self._paced():
            sent += len(part)
            try:
                for piece in unpacker.unpack(part):
                    self._count(len(piece))
                    self._check_ratio(sent)
                    yield piece
            except zlib.error as error:
                seen = f"a body that is none, although its Content-Encoding says so ({error})"
                raise FeedFormatError(self.url, expected=encoding, seen=seen) from error
        if not unpacker.ended:
            raise BodyBrokenOffError(self.url, status=self.response.status_code, reason="the body breaks off")

    async def _paced(self) -> AsyncIterator[bytes]:
        """Give what is sent, as long as it comes fast enough."""
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
            seen = f"unpacks {sent:,} bytes to {self.taken:,} and more, beyond {bounds.max_ratio:g} times as many"
            raise FeedLimitError(self.url, setting="max_ratio", seen=seen)


@asynccontextmanager
async def downloading(url: str, bounds: FeedBounds) -> AsyncGenerator[tuple[asyncio.Timeout, float]]:
    """Bound the time of a download: give the clock that ends it, and when it has to be over.

    Raises:
        FeedLimitError: it took longer than it may in all.
        FeedUnreachableError: it came too slowly.
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
        rate = f"less than {bounds.min_bytes_per_second:g} bytes a second over {bounds.rate_seconds:g} s"
        raise FeedUnreachableError(url, reason=f"the server sends {rate}") from error


class _Unpacker:
    """Unpacks gzip or deflate; a gzip body may have several members one after the other."""

    def __init__(self, *, deflate: bool) -> None:
        self._deflate = deflate
        self._engine = self._new()
        self._begun = False

    @property
    def ended(self) -> bool:
        """Whether nothing is missing at the end."""
        return self._engine.eof or not self._begun

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Give what some bytes become, in pieces of a bounded length.

        Raises:
            zlib.error: they are not of the format.
        """
        if self._deflate and not self._begun and data and not _has_zlib_header(data):
            # Some servers leave out the header that "deflate" has by its standard.
            self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
        while data:
            if self._engine.eof:
                if self._deflate or not data.strip(b"\0"):
                    # Padding, as tape archives have it.
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
