"""Finds out how a feed is written, from its first bytes, and where its first entry begins."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from contextunity.gen.contextunity.harvest.v1 import FeedCursor
from contextunity.gen.contextunity.harvest.v1 import FeedFormat as Format
from defusedxml import DefusedXmlException

from ..errors import FeedEmptyError, FeedFormatError
from ._delimited import split_records
from ._encoding import guess_encoding, usable_encoding
from ._google_tsv import REQUIRED_ATTRIBUTES, split_attributes
from ._google_xml import check_head, check_xml_prologue, declared_encoding, find_first_entry
from ._model import MAX_PROLOGUE_BYTES, count_lines
from ._shopify import REQUIRED_COLUMNS, split_header

__all__ = ["FORMAT_NAMES", "Opening", "check_prologue", "find_encoding", "find_opening"]

FORMAT_NAMES = {
    Format.SHOPIFY_CSV: "a Shopify product export (CSV)",
    Format.GOOGLE_XML: "a Google Merchant feed (RSS or Atom XML)",
    Format.GOOGLE_TSV: "a Google Merchant feed (tab-separated)",
    Format.JSON_LINES: "JSON Lines (one object a line)",
}
"""The formats as people call them."""

_ANY_FORMAT = "a Shopify product export, a Google Merchant feed or JSON Lines"
_BOM = b"\xef\xbb\xbf"
_MAGIC = {
    b"\x1f\x8b": "gzip-compressed data; give the address of the unpacked feed",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; give the address of the unpacked feed",
    b"%PDF": "a PDF document",
    b"\xff\xfe": "UTF-16 text; have it exported as UTF-8",
    b"\xfe\xff": "UTF-16 text; have it exported as UTF-8",
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
    """How a feed begins."""

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
        url: for errors, and its extension as a hint.
        head: the first bytes of the feed.
        whole: whether `head` is the whole feed.
        expected: the format that is configured, if one is.
        content_type: what the server says it is, as a hint.
        encoding: what is configured that it is in, if anything is.

    Returns:
        None where more bytes are needed.

    Raises:
        FeedFormatError: it is something else.
        FeedEmptyError: it has no entries.
    """
    body = head.removeprefix(_BOM).lstrip()
    if not body:
        if whole:
            raise FeedEmptyError(url)
        return None
    _refuse_binary(url, head, body, expected)
    opening = _open(url, head, body, whole=whole, expected=expected, content_type=content_type, encoding=encoding)
    return None if opening is None else dataclasses.replace(opening, encoding=encoding)


def _open(
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
    """Find out what a feed is encoded in that its supplier names no encoding for.

    Args:
        url: for errors.
        head: the first bytes of the feed.
        content_type: what the server says of it.

    Returns:
        See `Feed.encoding`, and whether it is a guess.

    Raises:
        FeedFormatError: it declares an encoding that it cannot be read in.
    """
    if head.startswith(_BOM):
        return "", False
    guess = guess_encoding(head)
    stated = declared_encoding(head)
    if stated:
        try:
            declared = usable_encoding(stated)
        except ValueError as error:
            raise FeedFormatError(url, expected="XML in an encoding that is known", seen=str(error), line=1) from None
        if declared not in ("utf-8", "ascii"):
            return declared, False
    elif charset := _CHARSET.search(content_type):
        # Servers state one for all their files, so the content counts for more.
        with contextlib.suppress(ValueError):
            declared = usable_encoding(charset[1])
            if declared not in ("utf-8", "ascii") and (guess or head.isascii()):
                return declared, False
    return guess, bool(guess)


def check_prologue(url: str, format: Format, prologue: bytes) -> None:
    """Hold a prologue against its format: it comes with each page's request, and may not be what was found here.

    Raises:
        FeedFormatError: no feed of the format begins so.
    """
    seen = _prologue_fault(format, prologue)
    if seen:
        raise FeedFormatError(url, expected=f"the beginning of {FORMAT_NAMES[format]}", seen=seen)


@lru_cache(maxsize=64)
def _prologue_fault(format: Format, prologue: bytes) -> str:
    """Tell what is wrong with a prologue; nothing is for an empty answer."""
    if len(prologue) > MAX_PROLOGUE_BYTES:
        return f"{len(prologue):,} bytes of it"
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
                return "one, where there is none" if prologue else ""
    except (ParseError, DefusedXmlException, ValueError, LookupError, csv.Error) as error:
        return f"what cannot be read ({type(error).__name__}: {error})"
    return f"a first row without {', '.join(missing)}" if missing else ""


def _refuse_binary(url: str, head: bytes, body: bytes, expected: Format | None) -> None:
    for magic, seen in _MAGIC.items():
        if head.startswith(magic):
            raise FeedFormatError(url, expected=_name(expected), seen=seen)
    first_line = body.partition(b"\n")[0][:4096]
    if b"\0" in first_line or sum(byte < 9 or 13 < byte < 32 for byte in first_line) * 20 > len(first_line):
        raise FeedFormatError(url, expected=_name(expected), seen="binary data", line=1)
    # Of a feed, the root comes first: what follows it may well be a description in HTML.
    before, html, _ = body[:1024].lower().partition(b"<html")
    is_page = bool(html) and before[:1] in (b"", b"<") and not any(root in before for root in (b"<rss", b"<feed"))
    if is_page or before.startswith(b"<!doctype html"):
        raise FeedFormatError(url, expected=_name(expected), seen="an HTML page", line=1)
    if body.startswith(b"["):
        seen = "one JSON array for everything; write one object a line instead"
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
        seen = f"XML that cannot be read ({type(error).__name__}: {error})"
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
    """Find the header row; the first row that has anything in it is taken for it."""
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
