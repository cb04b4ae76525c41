"""Inspect a feed before its first page is read."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import httpx
from contextunity.gen.contextunity.harvest.v1 import Feed, FeedCursor, HarvestIncomplete
from contextunity.gen.contextunity.harvest.v1 import FeedFormat as Format
from defusedxml import DefusedXmlException

from ..errors import FeedEmptyError, FeedFormatError, FeedLimitError, FeedRefusedError, FeedUnreachableError
from .delimited import split_records
from .download import (
    Download,
    RangeBytes,
    conditional_headers,
    content_range,
    fetch,
    is_other_version,
    read_up_to,
    validator,
)
from .encoding import guess_encoding, usable_encoding
from .files import FileBytes, file_path, file_version, spool_body
from .google import (
    REQUIRED_ATTRIBUTES,
    check_head,
    check_xml_prologue,
    declared_encoding,
    find_first_entry,
    split_attributes,
)
from .model import (
    DEFAULT_BOUNDS,
    HEAD_BYTES,
    MAX_HEAD_BYTES,
    MAX_PROLOGUE_BYTES,
    SHARED,
    ByteSource,
    FeedBounds,
    FeedSource,
    Heartbeat,
    KnownVersion,
    Readahead,
    count_lines,
)
from .shopify import REQUIRED_COLUMNS, split_header

__all__ = [
    "FORMAT_NAMES",
    "FeedUnchangedError",
    "Opening",
    "check_prologue",
    "find_encoding",
    "find_opening",
    "open_feed",
]


class FeedUnchangedError(Exception):
    """The feed's server reports that it still has the known version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A readable feed, before its format is known."""

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
    """Inspect a feed, and return what is needed to read its pages.

    From a server that supports Range and sends a version, request the first 64 KiB. Any other server has to send the
    whole feed for any page, so spool it now, and read pages from the file.

    Args:
        client: HTTP client with timeouts, proxy and headers. Its own policy decides what it may fetch: the worker's
            clients follow `contextunity.worker.egress`.
        source: the feed as configured.
        spool_folder: folder of spooled feeds; created if missing.
        feed_folders: folders that must contain a file, after resolving symbolic links; None means anywhere.
        bounds: limits of size and time.
        heartbeat: called whenever bytes arrive.
        readahead: cache for the first page.
        accept_broken: whether to accept a truncated feed, with `Feed.incomplete` set. Otherwise it is a
            FeedUnreachableError.
        known: a version that need not be read again; the request to an HTTP server is then conditional.

    Returns:
        The feed, and the cursor of its first entry.

    Raises:
        FeedUnchangedError: the feed has not changed; only if `known` is given.
        FeedUnreachableError: the feed cannot be read now, or, as FeedNotFoundError and FeedForbiddenError, at all.
        FeedRefusedError: its URL is forbidden.
        FeedLimitError: a limit is exceeded.
        FeedFormatError: it is not a feed, or not in the configured format.
        FeedEmptyError: it has no entries.
    """
    scheme = source.url.partition(":")[0].lower()
    if scheme == "file":
        found = await asyncio.to_thread(_find_file, source, feed_folders, bounds)
    elif scheme in ("http", "https"):
        found = await _find_http(
            client, source, spool_folder, heartbeat, bounds, accept_broken=accept_broken, known=known
        )
    else:
        raise FeedRefusedError(source.url, reason=f"the scheme {scheme!r} is not http, https or file")
    return await _read_opening(found, source, readahead)


def _find_file(source: FeedSource, folders: Sequence[Path] | None, bounds: FeedBounds) -> _Found:
    path = file_path(source.url)
    version, size = file_version(source.url, path, folders)
    _check_size(source.url, size, bounds)
    feed = Feed(url=source.url, version=version, total_bytes=size)
    return _Found(feed=feed, source=FileBytes(url=source.url, path=path, version=version, folders=folders))


def _check_size(url: str, size: int, bounds: FeedBounds) -> None:
    if size > bounds.max_bytes:
        seen = f"is {size:,} bytes long, more than {bounds.max_bytes:,}"
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
    unless = {} if known is None else conditional_headers(known)
    async with fetch(client, source.url, bounds, size=HEAD_BYTES, unless=unless) as download:
        response = download.response
        distrusted = known is not None and response.status_code == 304 and is_other_version(response, known.version)
        if response.status_code == 304 and not distrusted:
            raise FeedUnchangedError
        if response.status_code == 416:
            raise FeedEmptyError(source.url)
        place = content_range(response)
        # Without a version, pages of different feeds could not be distinguished.
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


async def _read_opening(found: _Found, source: FeedSource, readahead: Readahead) -> tuple[Feed, FeedCursor]:
    """Read the beginning of the feed until the first entry is found."""
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
    # XML has an end tag; rows and lines have no end mark.
    if found.incomplete is not HarvestIncomplete.LENGTH_UNKNOWN or feed.format is not Format.GOOGLE_XML:
        feed.incomplete = found.incomplete
    readahead.keep(feed, offset=opening.cursor.offset, tail=head[opening.cursor.offset :])
    return feed, opening.cursor


FORMAT_NAMES = {
    Format.SHOPIFY_CSV: "a Shopify product export (CSV)",
    Format.GOOGLE_XML: "a Google Merchant feed (RSS or Atom XML)",
    Format.GOOGLE_TSV: "a Google Merchant feed (tab-separated)",
    Format.JSON_LINES: "JSON Lines (one object per line)",
}
"""Names of the formats for people."""

_ANY_FORMAT = "a Shopify product export, a Google Merchant feed or JSON Lines"
_BOM = b"\xef\xbb\xbf"
_MAGIC = {
    b"\x1f\x8b": "gzip-compressed data; give the URL of the uncompressed feed",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; give the URL of the extracted feed",
    b"%PDF": "a PDF document",
    b"\xff\xfe": "UTF-16 text; export it as UTF-8",
    b"\xfe\xff": "UTF-16 text; export it as UTF-8",
}
_CHARSET = re.compile(r";\s*charset=\"?([^\s;\"]+)", re.IGNORECASE)
_EXTENSIONS = {
    ".csv": Format.SHOPIFY_CSV,
    ".tsv": Format.GOOGLE_TSV,
    ".xml": Format.GOOGLE_XML,
    ".rss": Format.GOOGLE_XML,
    ".atom": Format.GOOGLE_XML,
    ".jsonl": Format.JSON_LINES,
    ".ndjson": Format.JSON_LINES,
}
_CONTENT_TYPES = {
    "text/csv": Format.SHOPIFY_CSV,
    "text/tab-separated-values": Format.GOOGLE_TSV,
    "application/rss+xml": Format.GOOGLE_XML,
    "application/atom+xml": Format.GOOGLE_XML,
    "application/xml": Format.GOOGLE_XML,
    "text/xml": Format.GOOGLE_XML,
    "application/jsonl": Format.JSON_LINES,
    "application/x-ndjson": Format.JSON_LINES,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """Beginning of a feed."""

    format: Format
    prologue: bytes
    cursor: FeedCursor
    encoding: str = ""
    """See `Feed.encoding`."""


def find_opening(
    url: str,
    head: bytes,
    *,
    whole: bool,
    expected: Format | None = None,
    content_type: str = "",
    encoding: str = "",
) -> Opening | None:
    """Find format, prologue and first entry.

    Args:
        url: URL for errors; its extension is a hint.
        head: first bytes of the feed.
        whole: whether `head` is the whole feed.
        expected: configured format, if any.
        content_type: Content-Type of the server, as a hint.
        encoding: configured encoding, if any.

    Returns:
        None if more bytes are needed.

    Raises:
        FeedFormatError: the content has another format.
        FeedEmptyError: the feed has no entries.
    """
    body = head.removeprefix(_BOM).lstrip()
    if not body:
        if whole:
            raise FeedEmptyError(url)
        return None
    _reject_binary(url, head, body, expected)
    opening = _opening_of(url, head, body, whole=whole, expected=expected, content_type=content_type, encoding=encoding)
    return None if opening is None else dataclasses.replace(opening, encoding=encoding)


def _opening_of(
    url: str, head: bytes, body: bytes, *, whole: bool, expected: Format | None, content_type: str, encoding: str
) -> Opening | None:
    if body.startswith(b"<"):
        return _open_xml(url, head, whole=whole, expected=expected, encoding=encoding)
    if body.startswith(b"{"):
        _expect(url, Format.JSON_LINES, expected, seen="a JSON object")
        offset = len(head) - len(body)
        cursor = FeedCursor(offset=offset, line=count_lines(head, 0, offset))
        return Opening(format=Format.JSON_LINES, prologue=b"", cursor=cursor)
    return _open_delimited(url, head, whole=whole, expected=expected, hint=_hint(url, content_type))


def find_encoding(url: str, head: bytes, content_type: str) -> tuple[str, bool]:
    """Detect the encoding of a feed without a configured one.

    Args:
        url: URL for errors.
        head: first bytes of the feed.
        content_type: Content-Type of the server.

    Returns:
        The encoding for `Feed.encoding`, and whether it is a guess.

    Raises:
        FeedFormatError: the feed declares an unsupported encoding.
    """
    if head.startswith(_BOM):
        return "", False
    guess = guess_encoding(head)
    stated = declared_encoding(head)
    if stated:
        try:
            declared = usable_encoding(stated)
        except ValueError as error:
            raise FeedFormatError(url, expected="XML in a known encoding", seen=str(error), line=1) from None
        if declared not in ("utf-8", "ascii"):
            return declared, False
    elif charset := _CHARSET.search(content_type):
        # Servers send one charset for all their files, so prefer the content.
        with contextlib.suppress(ValueError):
            declared = usable_encoding(charset[1])
            if declared not in ("utf-8", "ascii") and (guess or head.isascii()):
                return declared, False
    return guess, bool(guess)


def check_prologue(url: str, format: Format, prologue: bytes) -> None:
    """Check a prologue against its format: it comes with each page's request, and may be forged.

    Raises:
        FeedFormatError: the prologue is invalid for the format.
    """
    seen = _prologue_error(format, prologue)
    if seen:
        raise FeedFormatError(url, expected=f"the beginning of {FORMAT_NAMES[format]}", seen=seen)


@lru_cache(maxsize=64)
def _prologue_error(format: Format, prologue: bytes) -> str:
    """Return what is wrong with a prologue; empty if it is valid."""
    if len(prologue) > MAX_PROLOGUE_BYTES:
        return f"{len(prologue):,} bytes"
    try:
        match format:
            case Format.SHOPIFY_CSV:
                names: Sequence[str] = split_header(prologue)
                missing = [name for name in REQUIRED_COLUMNS if name not in names]
            case Format.GOOGLE_TSV:
                names = split_attributes(prologue)
                missing = [name for name in REQUIRED_ATTRIBUTES if name not in names]
            case Format.GOOGLE_XML:
                check_xml_prologue(prologue)
                return ""
            case _:
                return "a prologue, in a format without one" if prologue else ""
    except (ParseError, DefusedXmlException, ValueError, LookupError, csv.Error) as error:
        return f"an unreadable prologue ({type(error).__name__}: {error})"
    return f"a first row without {', '.join(missing)}" if missing else ""


def _reject_binary(url: str, head: bytes, body: bytes, expected: Format | None) -> None:
    for magic, seen in _MAGIC.items():
        if head.startswith(magic):
            raise FeedFormatError(url, expected=_name(expected), seen=seen)
    first_line = body.partition(b"\n")[0][:4096]
    if b"\0" in first_line or sum(byte < 9 or 13 < byte < 32 for byte in first_line) * 20 > len(first_line):
        raise FeedFormatError(url, expected=_name(expected), seen="binary data", line=1)
    # Only the root decides: what follows it may be a description in HTML.
    before, html, _ = body[:1024].lower().partition(b"<html")
    is_page = bool(html) and before[:1] in (b"", b"<") and not any(root in before for root in (b"<rss", b"<feed"))
    if is_page or before.startswith(b"<!doctype html"):
        raise FeedFormatError(url, expected=_name(expected), seen="an HTML page", line=1)
    if body.startswith(b"["):
        seen = "one JSON array for everything; write one object per line instead"
        raise FeedFormatError(url, expected=_name(expected), seen=seen, line=1)


def _expect(url: str, found: Format, expected: Format | None, *, seen: str) -> None:
    if expected is not None and expected is not found:
        raise FeedFormatError(url, expected=_name(expected), seen=seen, line=1)


def _name(expected: Format | None) -> str:
    return _ANY_FORMAT if expected is None else FORMAT_NAMES[expected]


def _hint(url: str, content_type: str) -> Format | None:
    extension = PurePosixPath(urlsplit(url).path).suffix.lower()
    return _EXTENSIONS.get(extension) or _CONTENT_TYPES.get(content_type.partition(";")[0].strip().lower())


def _open_xml(url: str, head: bytes, *, whole: bool, expected: Format | None, encoding: str) -> Opening | None:
    _expect(url, Format.GOOGLE_XML, expected, seen="XML")
    found = find_first_entry(head, encoding)
    try:
        root = check_head(head, None if found is None else found.offset, whole=whole, encoding=encoding)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        seen = f"unreadable XML ({type(error).__name__}: {error})"
        raise FeedFormatError(url, expected=_name(expected), seen=seen) from error
    if root not in ("", "rss", "feed"):
        raise FeedFormatError(url, expected=_name(expected), seen=f"XML with the root element <{root}>", line=1)
    if found is None:
        if whole:
            raise FeedEmptyError(url, detail=f"the XML element <{root}> has no item and no entry")
        return None
    if len(found.prologue) > MAX_PROLOGUE_BYTES:
        raise FeedFormatError(url, expected=_name(expected), seen=f"{len(found.prologue)} bytes of start tags")
    cursor = FeedCursor(offset=found.offset, line=count_lines(head, 0, found.offset))
    return Opening(format=Format.GOOGLE_XML, prologue=found.prologue, cursor=cursor)


def _open_delimited(
    url: str, head: bytes, *, whole: bool, expected: Format | None, hint: Format | None
) -> Opening | None:
    """Find the header row: the first row that is not blank."""
    lead = head.removeprefix(_BOM)
    first = next((record for record in split_records(lead, delimiter=",", columns=0, final=whole)), None)
    tabs = b"\t" in next(iter(lead.lstrip(b"\r\n").splitlines()), b"")
    if tabs:
        first = next((record for record in split_records(lead, delimiter="\t", columns=0, final=whole)), None)
    if first is None and not whole and len(head) <= MAX_PROLOGUE_BYTES:
        return None
    if first is None or first.end > MAX_PROLOGUE_BYTES:
        raise FeedFormatError(url, expected=_name(expected), seen="a first row that does not end", line=1)
    prologue = lead[first.start : first.end]
    found = _match_header(url, prologue, tabs=tabs, expected=expected, hint=hint)
    offset = len(head) - len(lead) + first.end
    if not head[offset:].strip():
        if whole:
            raise FeedEmptyError(url, detail="it has a header row and nothing else")
        return None
    cursor = FeedCursor(offset=offset, line=count_lines(head, 0, offset))
    return Opening(format=found, prologue=prologue, cursor=cursor)


def _match_header(url: str, prologue: bytes, *, tabs: bool, expected: Format | None, hint: Format | None) -> Format:
    missing: dict[Format, list[str]] = {}
    if tabs:
        names: Sequence[str] = split_attributes(prologue)
        missing[Format.GOOGLE_TSV] = [name for name in REQUIRED_ATTRIBUTES if name not in names]
    else:
        names = split_header(prologue)
        missing[Format.SHOPIFY_CSV] = [name for name in REQUIRED_COLUMNS if name not in names]
    for found, lacking in missing.items():
        if not lacking and expected in (None, found):
            return found
    shown = ", ".join(repr(name[:40]) for name in names[:6]) + (", …" if len(names) > 6 else "")
    wanted = expected or (hint if hint in missing else None)
    columns = {Format.SHOPIFY_CSV: REQUIRED_COLUMNS, Format.GOOGLE_TSV: REQUIRED_ATTRIBUTES}.get(
        wanted or Format.UNSPECIFIED
    )
    text = _name(expected) + (f" with the columns {', '.join(columns)}" if columns else "")
    raise FeedFormatError(url, expected=text, seen=f"a first row of {shown}", line=1)
