"""Read one page of a feed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx
from contextunity.gen.contextunity.harvest.v1 import Feed, FeedCursor, HarvestIncomplete, RawPage, RejectedRow
from contextunity.gen.contextunity.harvest.v1 import FeedFormat as Format

from ..errors import FeedFormatError
from ..rejects import RejectReason, WarningReason, warning_row
from .download import RangeBytes
from .encoding import usable_encoding
from .files import FileBytes, file_path, spooled_feed
from .google import parse_google_tsv, parse_google_xml
from .json_lines import parse_json_lines
from .model import (
    DEFAULT_BOUNDS,
    MAX_PAGE_BYTES,
    SHARED,
    ByteSource,
    EntryParser,
    FeedBounds,
    FetchedPage,
    Heartbeat,
    Readahead,
    count_lines,
    window,
)
from .open import FORMAT_NAMES, check_prologue
from .shopify import parse_shopify

__all__ = ["PARSERS", "read_page"]

PARSERS: dict[Format, EntryParser] = {
    Format.SHOPIFY_CSV: parse_shopify,
    Format.GOOGLE_XML: parse_google_xml,
    Format.GOOGLE_TSV: parse_google_tsv,
    Format.JSON_LINES: parse_json_lines,
}
_CUT_ROWS = frozenset({RejectReason.COLUMN_COUNT, RejectReason.BAD_CSV, RejectReason.BAD_JSON})
"""Reasons for rejecting a truncated row."""
_TAIL_BYTES = 4096
"""A window includes the rest of the feed if that is shorter: it is not worth another request."""


async def read_page(
    client: httpx.AsyncClient,
    feed: Feed,
    cursor: FeedCursor,
    page_size: int,
    *,
    spool_folder: Path,
    feed_folders: Sequence[Path] | None = None,
    bounds: FeedBounds = DEFAULT_BOUNDS,
    heartbeat: Heartbeat | None = None,
    readahead: Readahead = SHARED,
    accept_broken: bool = False,
) -> FetchedPage:
    """Read the entries from a cursor on.

    A page has `page_size` entries, or fewer at the end of the feed, or if they take more than 8 MiB of the feed.

    Args:
        client: as for `open_feed`.
        feed: the feed from `open_feed`.
        cursor: start of the page, from `open_feed` or the page before.
        page_size: number of entries, at least 1.
        spool_folder: folder of spooled feeds.
        feed_folders: as for `open_feed`.
        bounds: as for `open_feed`.
        heartbeat: called whenever bytes arrive.
        readahead: cache between pages.
        accept_broken: whether to accept a feed whose server sends less than it announced, with
            `FetchedPage.incomplete` set. Otherwise it is a FeedUnreachableError.

    Raises:
        FeedUnreachableError: the feed cannot be read now, or, as FeedNotFoundError and FeedForbiddenError, at all.
        FeedRefusedError: its URL is forbidden.
        FeedLimitError: a limit is exceeded.
        FeedChangedError: the feed was replaced since it was opened.
        FeedFormatError: an entry is too long, or feed and cursor are not from `open_feed`.
    """
    if page_size < 1:
        raise ValueError(f"page_size must be 1 or more, but is {page_size}")
    parse = PARSERS.get(feed.format)
    if parse is None:
        raise FeedFormatError(feed.url, expected=", ".join(FORMAT_NAMES.values()), seen=f"format {feed.format!r}")
    check_prologue(feed.url, feed.format, feed.prologue)
    if feed.encoding:
        try:
            usable_encoding(feed.encoding)
        except ValueError as error:
            raise FeedFormatError(feed.url, expected="a known encoding", seen=str(error)) from None
    if cursor.offset < 0 or cursor.line < 0:
        seen = f"byte {cursor.offset}, line {cursor.line}"
        raise FeedFormatError(feed.url, expected="a cursor from the page before", seen=seen)
    source = await _source(client, feed, spool_folder, feed_folders, bounds, heartbeat, accept_broken=accept_broken)
    reader = _PageReader(feed, cursor, page_size, source, parse, readahead, bounds.max_record_bytes)
    return await reader.read()


def _guessed(cursor: FeedCursor) -> RejectedRow:
    detail = (
        f"the feed is not UTF-8 and does not say its encoding; it is read as {cursor.guessed_encoding}, a guess "
        "from its beginning: check some products, and set the encoding in the supplier's settings"
    )
    return warning_row(line=cursor.line + 1, reason=WarningReason.GUESSED_ENCODING, detail=detail, raw="")


async def _source(
    client: httpx.AsyncClient,
    feed: Feed,
    spool_folder: Path,
    feed_folders: Sequence[Path] | None,
    bounds: FeedBounds,
    heartbeat: Heartbeat | None,
    *,
    accept_broken: bool,
) -> ByteSource:
    if feed.url[:5].lower() == "file:":
        return FileBytes(url=feed.url, path=file_path(feed.url), version=feed.version, folders=feed_folders)
    if feed.ranges:
        return RangeBytes(client=client, feed=feed, heartbeat=heartbeat, bounds=bounds, accept_broken=accept_broken)
    path = await spooled_feed(client, feed, spool_folder, heartbeat, bounds, accept_broken=accept_broken)
    return FileBytes(url=feed.url, path=path, version="")


class _PageReader:
    """Reads windows of bytes and parses them until the page is full or the feed ends."""

    def __init__(
        self,
        feed: Feed,
        cursor: FeedCursor,
        page_size: int,
        source: ByteSource,
        parse: EntryParser,
        readahead: Readahead,
        max_entry_bytes: int,
    ) -> None:
        self._feed = feed
        self._max_entry_bytes = max_entry_bytes
        self._begin = cursor.offset
        self._offset = cursor.offset
        self._line = cursor.line
        self._page_size = page_size
        self._source = source
        self._parse = parse
        self._readahead = readahead
        self._buffer = readahead.tail(feed, cursor.offset)
        self._final = self._is_end(len(self._buffer))
        self._page = RawPage()
        if cursor.guessed_encoding:
            self._page.warnings.append(_guessed(cursor))
        self._entries = 0
        self._closed = False
        """Whether the parser has seen the end of the feed."""
        self._last_byte = b""
        self._broken = False
        """Whether the server sends no more bytes, although the feed continues."""

    async def read(self) -> FetchedPage:
        while True:
            stuck = not (self._buffer and self._parse_buffer())
            if self._final or self._is_full() or (self._broken and stuck):
                break
            if self._broken:
                continue
            if len(self._buffer) > self._max_entry_bytes:
                seen = f"one that is longer than {self._max_entry_bytes:,} bytes, or never ends"
                raise FeedFormatError(self._feed.url, expected="an entry", seen=seen, line=self._line + 1)
            await self._fetch(at_least=len(self._buffer) if stuck else 0)
        end_of_feed = self._end_of_feed()
        self._remember()
        incomplete, detail = self._incomplete(end_of_feed=end_of_feed)
        return FetchedPage(
            page=self._page,
            next_cursor=FeedCursor(offset=self._offset, line=self._line),
            end_of_feed=end_of_feed,
            entries=self._entries,
            incomplete=incomplete,
            incomplete_detail=detail,
        )

    def _incomplete(self, *, end_of_feed: bool) -> tuple[HarvestIncomplete, str]:
        """Return from the rows of the page whether the feed is truncated, and why."""
        rejected = self._page.rejected
        if end_of_feed and self._broken:
            return HarvestIncomplete.BROKEN_OFF, (
                f"the server sends nothing from byte {self._offset + len(self._buffer):,} on, on several attempts, "
                "although the feed does not end there; check the supplier's server"
            )
        for row in rejected:
            if row.reason == RejectReason.TRUNCATED:
                return HarvestIncomplete.TRUNCATED, f"{row.detail} (line {row.line})"
            if row.reason == RejectReason.UNCLOSED_QUOTE:
                return HarvestIncomplete.OPEN_QUOTE, f"{row.detail} (line {row.line})"
        if not end_of_feed or not rejected or self._feed.format is Format.GOOGLE_XML or self._last_byte in b"\r\n":
            return HarvestIncomplete.UNSPECIFIED, ""
        # A last line without a line end may be complete or truncated. Assume that a valid row is complete.
        last = max(rejected, key=lambda row: row.line)
        if last.reason in _CUT_ROWS and all(row.line < last.line for row in self._page.products):
            return HarvestIncomplete.TRUNCATED, f"the last row has no line end and is truncated (line {last.line})"
        return HarvestIncomplete.UNSPECIFIED, ""

    def _is_full(self) -> bool:
        return self._entries >= self._page_size or self._offset - self._begin >= MAX_PAGE_BYTES

    def _is_end(self, size: int) -> bool:
        total = self._feed.total_bytes
        return total > 0 and self._offset + size >= total

    def _parse_buffer(self) -> bool:
        """Take complete entries out of the buffer; return whether there were any."""
        chunk = self._parse(
            self._buffer,
            prologue=self._feed.prologue,
            line=self._line,
            limit=self._page_size - self._entries,
            final=self._final,
            encoding=self._feed.encoding,
        )
        self._page.products += chunk.products
        self._page.rejected += chunk.rejected
        self._page.warnings += chunk.warnings
        self._entries += chunk.entries
        self._closed = self._final and chunk.consumed == len(self._buffer)
        self._advance(chunk.consumed)
        return chunk.consumed > 0

    def _advance(self, size: int) -> None:
        self._line += count_lines(self._buffer, 0, size)
        self._offset += size
        self._last_byte = self._buffer[size - 1 : size] if size else self._last_byte
        self._buffer = self._buffer[size:]

    async def _fetch(self, *, at_least: int) -> None:
        """Request as many bytes as the rest of the page should need.

        Args:
            at_least: bytes of an incomplete entry; requesting as many again each time keeps the work for a long entry
                proportional to its length.
        """
        done = self._offset - self._begin
        each = done / self._entries if self._entries else self._readahead.entry_bytes(self._feed)
        missing = window(self._page_size - self._entries, each) - len(self._buffer)
        size = max(window(0, each), missing, min(at_least, self._max_entry_bytes + 1 - len(self._buffer)))
        place = self._offset + len(self._buffer)
        if 0 < self._feed.total_bytes - (place + size) < _TAIL_BYTES:
            size += _TAIL_BYTES
        data = await self._source.read(place, size)
        self._buffer += data
        self._broken = self._source.broken
        # The rest in the buffer of a truncated feed is part of an entry, not an entry.
        self._final = not self._broken and (len(data) < size or self._is_end(len(self._buffer)))

    def _end_of_feed(self) -> bool:
        """Return whether the feed ends here, and if so skip the rest of it, such as the end tags of XML."""
        if self._broken:
            return not self._is_full()
        if not self._final or self._closed:
            return self._final
        # Check even if nothing is left: a document truncated between two entries lacks its end.
        rest = self._parse(
            self._buffer,
            prologue=self._feed.prologue,
            line=self._line,
            limit=1,
            final=True,
            encoding=self._feed.encoding,
        )
        if rest.entries:
            return False
        self._page.rejected += rest.rejected
        self._advance(len(self._buffer))
        return True

    def _remember(self) -> None:
        done = self._offset - self._begin
        self._readahead.keep(
            self._feed,
            offset=self._offset,
            tail=self._buffer,
            entry_bytes=done / self._entries if self._entries else 0.0,
        )
