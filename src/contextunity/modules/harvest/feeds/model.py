"""What goes into reading a feed and what comes out, and the bounds that keep memory flat."""

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
"""How much of a feed is looked at first: room for any header row and, for a small feed, the whole of it."""
MAX_PROLOGUE_BYTES = 64 * 1024
"""Bound on what every page request carries along; real header rows have 1 to 3 KiB."""
MAX_HEAD_BYTES = 1024 * 1024
"""How far the first entry of a feed is looked for, for XML with a long preamble."""
MAX_ENTRY_BYTES = 8 * 1024 * 1024
"""Bound on one entry. The greatest products of real shops (2,000 variants, or a description with pictures in it)
stay below 4 MiB; what is longer is a quote or an element that is never closed, and reading on would fill the memory."""
MAX_PAGE_BYTES = 8 * 1024 * 1024
"""A page ends early once it has used up this much of the feed, so that a thousand huge entries make no huge page."""
MIN_WINDOW_BYTES = 16 * 1024
MAX_WINDOW_BYTES = 2 * 1024 * 1024

MAX_ENTRY_SETTING_BYTES = 16 * 1024 * 1024
"""How far a supplier's setting may raise the bound on one entry: a field of it is still read whole (`_delimited`)."""

Heartbeat: TypeAlias = Callable[[], None]
"""Called whenever bytes have come in, so that whoever watches knows that the reader is alive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedSource:
    """A supplier's feed as it is configured."""

    supplier_code: str
    """Which supplier."""
    url: str
    """Where it is: an http, https or file URL."""
    format: Format | None = None
    """How it is written; None means that it is found out from the content."""
    currency_code: str = ""
    """ISO 4217 code of the currency that prices without one of their own are in."""
    encoding: str = ""
    """What its text is encoded in; empty means that it is found out from the content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedBounds:
    """How much of a supplier's feed is taken, and how long it is waited for."""

    max_bytes: int = 4 * 1024**3
    """Bytes of the whole feed, unpacked."""
    max_ratio: float = 100.0
    """How many times as long as what was sent it may be unpacked, once it is longer than `ratio_from_bytes`."""
    ratio_from_bytes: int = 16 * 1024 * 1024
    max_seconds: float = 3600.0
    """What reading the feed may take in all, from the first request to the last page."""
    used_seconds: float = 0.0
    """What reading it took before."""
    min_bytes_per_second: float = 1024.0
    """How fast it must come, over each stretch of `rate_seconds`."""
    rate_seconds: float = 30.0
    max_record_bytes: int = MAX_ENTRY_BYTES
    """Bytes of one entry."""


DEFAULT_BOUNDS = FeedBounds()
"""Of a supplier that sets none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownVersion:
    """A version of a feed that was read before."""

    version: str
    """As in `Feed.version`."""
    read_at: datetime
    """When reading it began, aware."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedPage:
    """One page of a feed."""

    page: RawPage
    """Its rows."""
    next_cursor: FeedCursor
    """Where the next page begins."""
    end_of_feed: bool
    """Whether there is no next page."""
    entries: int
    """Feed entries read; a row that could not be read and belongs to no entry counts as one."""
    incomplete: HarvestIncomplete = HarvestIncomplete.UNSPECIFIED
    """What is missing of the feed, as the page shows."""
    incomplete_detail: str = ""
    """The same for people."""


@dataclass(kw_only=True, slots=True)
class Chunk:
    """What a parser made of some bytes of a feed."""

    products: list[RawProduct] = field(default_factory=list[RawProduct])
    rejected: list[RejectedRow] = field(default_factory=list[RejectedRow])
    warnings: list[RejectedRow] = field(default_factory=list[RejectedRow])
    entries: int = 0
    consumed: int = 0
    """Bytes that are done; what follows is the beginning of an entry that needs more bytes, or the next entry."""


_LONE_CR = re.compile(rb"\r(?!\n)")


def count_lines(data: bytes, start: int = 0, end: int | None = None) -> int:
    """Count the ends of lines in a part of `data` that does not begin or end within one: LF, CR LF, and lone CR."""
    end = len(data) if end is None else end
    # One search, because counting pairs takes three times as long as all the rest.
    lone = sum(1 for _ in _LONE_CR.finditer(data, start, end))
    return data.count(b"\n", start, end) + lone


class EntryParser(Protocol):
    """Reads entries of one format from bytes."""

    def __call__(
        self, data: bytes, *, prologue: bytes, line: int, limit: int, final: bool, encoding: str = ""
    ) -> Chunk:
        """Read entries.

        Args:
            data: bytes of the feed that begin between two entries; at least one.
            prologue: see `Feed.prologue`.
            line: lines of the feed before `data`.
            limit: how many entries to read at most.
            final: whether the feed ends with `data`.
            encoding: see `Feed.encoding`.

        What it reads does not depend on where `data` ends as long as the entry is complete, so that pages of any size
        give the same rows.
        """
        ...


class ByteSource(Protocol):
    """Bytes of one version of a feed, wherever they are."""

    @property
    def broken(self) -> bool:
        """Whether the last read gave fewer bytes because no more can be had, although the feed goes on."""
        ...

    async def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset` on; fewer only where the feed ends.

        Raises:
            FeedUnreachableError: they cannot be had this time.
            FeedChangedError: the feed has another version now.
        """
        ...


_MAX_FEEDS = 8
_GUESSED_ENTRY_BYTES = 1500.0
"""What an entry is taken to have before any was read; the products of real exports have 700 to 3,000 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    offset: int
    tail: bytes
    entry_bytes: float


class Readahead:
    """Remembers between two pages what was downloaded beyond the first one, and how long entries are.

    A page's request brings a little more than the page. Kept here, the rest is where the next page starts, so that
    nothing is downloaded twice while one process reads a feed. Forgetting it costs one window, never a wrong row: it is
    kept by url and version, and without it everything is read from the cursor. It is bounded in feeds and bytes.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    def tail(self, feed: Feed, offset: int) -> bytes:
        """Give the bytes from `offset` on that are at hand."""
        known = self._known.get((feed.url, feed.version))
        if known is None or not known.offset <= offset <= known.offset + len(known.tail):
            return b""
        return known.tail[offset - known.offset :]

    def entry_bytes(self, feed: Feed) -> float:
        """Tell how long an entry is on average."""
        known = self._known.get((feed.url, feed.version))
        return known.entry_bytes if known is not None and known.entry_bytes else _GUESSED_ENTRY_BYTES

    def keep(self, feed: Feed, *, offset: int, tail: bytes, entry_bytes: float = 0.0) -> None:
        """Remember what follows a page. `entry_bytes` 0 means that nothing new is known."""
        key = (feed.url, feed.version)
        before = self._known.pop(key, None)
        if not entry_bytes and before is not None:
            entry_bytes = before.entry_bytes
        self._known[key] = _Known(offset=offset, tail=tail[:MAX_WINDOW_BYTES], entry_bytes=entry_bytes)
        while len(self._known) > _MAX_FEEDS:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget everything, as a new process does."""
        self._known.clear()


def window(entries: int, entry_bytes: float) -> int:
    """Tell how many bytes to ask for, for so many entries: a little more than they should take."""
    wanted = int(entries * entry_bytes * 1.1 + 2 * entry_bytes)
    return max(MIN_WINDOW_BYTES, min(MAX_WINDOW_BYTES, wanted))


SHARED = Readahead()
"""What all pages of this process go by."""
