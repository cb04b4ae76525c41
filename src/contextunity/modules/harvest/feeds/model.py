"""Types of reading a feed, and the limits that keep memory constant."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from contextunity.gen.contextunity.harvest.v1 import (
    Feed,
    FeedCursor,
    HarvestIncomplete,
    RawPage,
    RawProduct,
    RejectedRow,
)
from contextunity.gen.contextunity.harvest.v1 import FeedFormat as Format

__all__ = ["SHARED", "Readahead"]

HEAD_BYTES = 64 * 1024
"""Bytes of a feed read first: enough for any header row, and for all of a small feed."""
MAX_PROLOGUE_BYTES = 64 * 1024
"""Maximum bytes of the prologue in every page request; real header rows have 1 to 3 KiB."""
MAX_HEAD_BYTES = 1024 * 1024
"""Maximum bytes to search for the first entry, for XML with a long preamble."""
MAX_ENTRY_BYTES = 8 * 1024 * 1024
"""Maximum bytes of one entry. The largest products of real shops (2,000 variants, or a description with embedded
pictures) are below 4 MiB; a longer one is a quote or an element that is never closed, and would fill the memory."""
MAX_PAGE_BYTES = 8 * 1024 * 1024
"""A page ends early after this many bytes of the feed, so that huge entries do not make a huge page."""
MIN_WINDOW_BYTES = 16 * 1024
MAX_WINDOW_BYTES = 2 * 1024 * 1024

MAX_ENTRY_SETTING_BYTES = 16 * 1024 * 1024
"""Maximum that a supplier may set for the size of an entry: a field must be readable as a whole (`_delimited`)."""

Heartbeat: TypeAlias = Callable[[], None]
"""Called whenever bytes arrive, to show that the reader is alive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedSource:
    """A supplier's feed as configured."""

    supplier_code: str
    """Which supplier."""
    url: str
    """An http, https or file URL."""
    format: Format | None = None
    """Format; None means detection from the content."""
    currency_code: str = ""
    """ISO 4217 code of the currency of prices without a currency."""
    encoding: str = ""
    """Encoding; empty means detection from the content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedBounds:
    """Limits of size and time of a supplier's feed."""

    max_bytes: int = 4 * 1024**3
    """Bytes of the whole feed, decompressed."""
    max_ratio: float = 100.0
    """Maximum ratio of decompressed to sent bytes, checked above `ratio_from_bytes`."""
    ratio_from_bytes: int = 16 * 1024 * 1024
    max_seconds: float = 3600.0
    """Maximum seconds of reading the feed in all, from the first request to the last page."""
    used_seconds: float = 0.0
    """Seconds that reading it has taken before."""
    min_bytes_per_second: float = 1024.0
    """Minimum speed, over each period of `rate_seconds`."""
    rate_seconds: float = 30.0
    max_record_bytes: int = MAX_ENTRY_BYTES
    """Bytes of one entry."""


DEFAULT_BOUNDS = FeedBounds()
"""Default limits of a supplier."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownVersion:
    """A version of a feed that was read before."""

    version: str
    """The same as `Feed.version`."""
    read_at: datetime
    """Start of reading it, timezone-aware."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedPage:
    """One page of a feed."""

    page: RawPage
    """Its rows."""
    next_cursor: FeedCursor
    """Cursor of the next page."""
    end_of_feed: bool
    """Whether this is the last page."""
    entries: int
    """Feed entries read; an unreadable row outside entries counts as one."""
    incomplete: HarvestIncomplete = HarvestIncomplete.UNSPECIFIED
    """Why the feed is incomplete, as far as this page shows."""
    incomplete_detail: str = ""
    """The same for people."""


@dataclass(kw_only=True, slots=True)
class Chunk:
    """Result of parsing some bytes of a feed."""

    products: list[RawProduct] = field(default_factory=list[RawProduct])
    rejected: list[RejectedRow] = field(default_factory=list[RejectedRow])
    warnings: list[RejectedRow] = field(default_factory=list[RejectedRow])
    entries: int = 0
    consumed: int = 0
    """Parsed bytes; after them begins an incomplete entry, or the next entry."""


_LONE_CR = re.compile(rb"\r(?!\n)")


def count_lines(data: bytes, start: int = 0, end: int | None = None) -> int:
    """Count the line ends (LF, CR LF, and lone CR) in a part of `data` that does not split one."""
    end = len(data) if end is None else end
    # One search, because counting pairs takes three times as long as the rest.
    lone = sum(1 for _ in _LONE_CR.finditer(data, start, end))
    return data.count(b"\n", start, end) + lone


class EntryParser(Protocol):
    """Reads entries of one format from bytes."""

    def __call__(
        self, data: bytes, *, prologue: bytes, line: int, limit: int, final: bool, encoding: str = ""
    ) -> Chunk:
        """Read entries.

        Args:
            data: bytes of the feed from the beginning of an entry; not empty.
            prologue: see `Feed.prologue`.
            line: lines of the feed before `data`.
            limit: maximum number of entries.
            final: whether the feed ends with `data`.
            encoding: see `Feed.encoding`.

        A complete entry does not depend on where `data` ends, so that pages of any size give the same rows.
        """
        ...


class ByteSource(Protocol):
    """Bytes of one version of a feed, from any source."""

    @property
    def broken(self) -> bool:
        """Whether the last read was short because the server sends no more, although the feed continues."""
        ...

    async def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset` on; fewer only at the end of the feed.

        Raises:
            FeedUnreachableError: the bytes cannot be read now.
            FeedChangedError: the feed has another version now.
        """
        ...


_MAX_FEEDS = 8
_GUESSED_ENTRY_BYTES = 1500.0
"""Estimated bytes of an entry before any was read; products of real exports have 700 to 3,000 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    offset: int
    tail: bytes
    entry_bytes: float


class Readahead:
    """Caches bytes downloaded beyond a page for the next one, and the average size of entries.

    A page's request reads slightly more than the page. The cached rest begins the next page, so that nothing is
    downloaded twice while one process reads a feed. Losing it costs one window, never a wrong row: the key is URL and
    version, and without it everything is read from the cursor. Feeds and bytes are limited.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    def tail(self, feed: Feed, offset: int) -> bytes:
        """Return the cached bytes from `offset` on."""
        known = self._known.get((feed.url, feed.version))
        if known is None or not known.offset <= offset <= known.offset + len(known.tail):
            return b""
        return known.tail[offset - known.offset :]

    def entry_bytes(self, feed: Feed) -> float:
        """Return the average bytes of an entry."""
        known = self._known.get((feed.url, feed.version))
        return known.entry_bytes if known is not None and known.entry_bytes else _GUESSED_ENTRY_BYTES

    def keep(self, feed: Feed, *, offset: int, tail: bytes, entry_bytes: float = 0.0) -> None:
        """Store the bytes after a page. `entry_bytes` 0 leaves the average unchanged."""
        key = (feed.url, feed.version)
        before = self._known.pop(key, None)
        if not entry_bytes and before is not None:
            entry_bytes = before.entry_bytes
        self._known[key] = _Known(offset=offset, tail=tail[:MAX_WINDOW_BYTES], entry_bytes=entry_bytes)
        while len(self._known) > _MAX_FEEDS:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget everything, like a new process."""
        self._known.clear()


def window(entries: int, entry_bytes: float) -> int:
    """Return how many bytes to request for so many entries: slightly more than expected."""
    wanted = int(entries * entry_bytes * 1.1 + 2 * entry_bytes)
    return max(MIN_WINDOW_BYTES, min(MAX_WINDOW_BYTES, wanted))


SHARED = Readahead()
"""The cache of all pages of this process."""
