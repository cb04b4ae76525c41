"""Read Google Merchant feeds: tab-separated, or XML, whose items are cut out of the bytes one by one."""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from xml.etree.ElementTree import Element, ParseError

from contextunity.gen.contextunity.harvest.v1 import RawProduct, RejectedRow
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, fromstring

from ..rejects import RejectReason, rejected_row, warning_row
from .delimited import split_records
from .encoding import Damage, decode_lines
from .model import Chunk, count_lines

__all__ = ["OPTION_NAMES", "attribute_name", "google_product"]

OPTION_NAMES = {
    "size": "Size",
    "color": "Color",
    "material": "Material",
    "pattern": "Pattern",
    "age_group": "Age group",
    "gender": "Gender",
}
"""Google's attributes that distinguish the variants of an item group, with our names."""

_NOT_A_NAME = re.compile(r"[^a-z0-9]+")


def attribute_name(text: str) -> str:
    """Convert an attribute's name to its documented form: "g:Image Link" is `image_link`."""
    return _NOT_A_NAME.sub("_", text.strip().lower().removeprefix("g:")).strip("_")


def google_product(line: int, values: Mapping[str, Sequence[str]]) -> RawProduct:
    """Make a product from an item's attributes.

    Args:
        line: first line of the item in the feed.
        values: all values of each attribute, by its documented name, in the order of the feed, without empty ones.
    """

    def first(name: str) -> str:
        found = values.get(name)
        return found[0] if found else ""

    return RawProduct(
        line=line,
        sku=first("id"),
        group=first("item_group_id"),
        title=first("title"),
        body=first("description") or first("summary") or first("content"),
        brand=first("brand"),
        price=first("price"),
        sale_price=first("sale_price"),
        sale_price_effective_date=first("sale_price_effective_date"),
        gtin=first("gtin"),
        stock=first("quantity"),
        availability=first("availability"),
        weight=first("shipping_weight") or first("product_weight"),
        image_urls=[*values.get("image_link", ())[:1], *values.get("additional_image_link", ())],
        categories=[*values.get("product_type", ()), *values.get("google_product_category", ())],
        options={label: first(name) for name, label in OPTION_NAMES.items() if first(name)},
        mpn=first("mpn"),
        link=first("link"),
    )


REQUIRED_ATTRIBUTES = ("id", "title", "price")
"""Required columns of a product feed with tab-separated values."""

_LISTS = frozenset({"additional_image_link"})
"""Attributes whose value is a list with commas in TSV, where XML repeats the element."""
_DIGIT = re.compile(r"[0-9]")


@lru_cache(maxsize=64)
def split_attributes(prologue: bytes) -> tuple[str, ...]:
    """Read the header row as documented attribute names."""
    text = prologue.decode("utf-8-sig", "replace")
    header = next(csv.reader(text.splitlines(keepends=True), delimiter="\t"), None)
    return tuple(attribute_name(name) for name in header or ())


def parse_google_tsv(data: bytes, *, prologue: bytes, line: int, limit: int, final: bool, encoding: str = "") -> Chunk:
    """Read items; every row is an entry. See `EntryParser`."""
    names = split_attributes(prologue)
    sku, price = names.index("id"), names.index("price")
    chunk = Chunk()
    records = split_records(
        data,
        delimiter="\t",
        columns=len(names),
        final=final,
        encoding=encoding,
        is_row=lambda values: bool(values[sku].strip()) and _DIGIT.search(values[price]) is not None,
    )
    for record in records:
        at = line + record.line + 1
        if record.reject_reason is None:
            product = google_product(at, _row_values(names, record.fields))
            chunk.products.append(product)
            for reason, detail in record.warnings:
                raw = data[record.start : record.end]
                chunk.warnings.append(warning_row(line=at, reason=reason, detail=detail, raw=raw, sku=product.sku))
        else:
            raw = data[record.start : record.end]
            # With too few or too many values, the first one is still valid, unless there is no separator; the values
            # after it may be in wrong columns.
            whole = len(record.fields) == len(names) or (sku == 0 and len(record.fields) > 1)
            known = record.fields[sku] if whole else ""
            rejected = rejected_row(line=at, reason=record.reject_reason, detail=record.detail, raw=raw, sku=known)
            chunk.rejected.append(rejected)
        chunk.entries += 1
        chunk.consumed = record.end
        if chunk.entries >= limit:
            break
    else:
        if final:
            chunk.consumed = len(data)
    return chunk


def _row_values(names: tuple[str, ...], fields: list[str]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, text in zip(names, fields, strict=True):
        value = text.strip()
        if value:
            parts = [part.strip() for part in value.split(",")] if name in _LISTS else [value]
            values.setdefault(name, []).extend(part for part in parts if part)
    return values


# XML. Cutting searches only for the tags of items, and for what can hide them (comments, CDATA, processing
# instructions); the content of an item is left to a real parser, which rejects everything dangerous.

GOOGLE_NAMESPACE = "http://base.google.com/ns/1.0"

_NAME = rb"[A-Za-z_][\w.\-]*(?::[A-Za-z_][\w.\-]*)?"
_ATTRIBUTES = rb"(?:[^<>\"']++|\"[^\"<]*\"|'[^'<]*')*"
_MARKUP = re.compile(
    rb"(?P<comment><!--)|(?P<cdata><!\[CDATA\[)|(?P<pi><\?)|(?P<doctype><!DOCTYPE)"
    rb"|(?P<close></(?:" + _NAME + rb")\s*>)|(?P<open><(?P<name>" + _NAME + rb")" + _ATTRIBUTES + rb">)"
)
# Everything that decides where an item begins or ends; all other tags are skipped.
_ENTRY_MARKUP = re.compile(
    rb"(?P<comment><!--)|(?P<cdata><!\[CDATA\[)|(?P<pi><\?)"
    rb"|(?P<close></(?:[A-Za-z_][\w.\-]*:)?(?:item|entry)\s*>)"
    rb"|(?P<open><(?:[A-Za-z_][\w.\-]*:)?(?:item|entry)(?=[\s/>])" + _ATTRIBUTES + rb">)"
)
_SKIP_TO = {"comment": b"-->", "cdata": b"]]>", "pi": b"?>"}
_ENTRY_NAMES = (b"item", b"entry")
# The key of an item that no parser can read: its product still counts as listed.
_ID = re.compile(rb"<(?:[A-Za-z_][\w.\-]*:)?id(?:\s[^<>]*)?>\s*(?:<!\[CDATA\[)?([^<\]]+)")
_DECLARATION = re.compile(rb"\s*<\?xml\s[^>]*\?>")
_ENCODING = re.compile(rb"\sencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._\-]*)[\"']")


@dataclass(frozen=True, kw_only=True, slots=True)
class XmlHead:
    """What comes before the first item."""

    prologue: bytes
    """XML declaration and open start tags, with their namespaces."""
    offset: int
    """Offset of the first item."""


def declared_encoding(head: bytes) -> str:
    """Return the encoding in the XML declaration, unchanged; empty if there is none."""
    declaration = _DECLARATION.match(head.removeprefix(b"\xef\xbb\xbf"))
    found = _ENCODING.search(declaration[0]) if declaration else None
    return found[1].decode("ascii") if found else ""


def find_first_entry(head: bytes, encoding: str = "") -> XmlHead | None:
    """Find the first item.

    Args:
        head: first bytes of the feed.
        encoding: encoding that overrides the declaration, which is then removed; see `Feed.encoding`.

    Returns:
        None if `head` has none: the feed is empty, or more bytes are needed.
    """
    opened: list[bytes] = []
    for found in _walk(head, _MARKUP):
        if found["name"] is not None:
            if found["name"].rpartition(b":")[2] in _ENTRY_NAMES and opened:
                declaration = _DECLARATION.match(head.removeprefix(b"\xef\xbb\xbf"))
                if encoding:
                    prologue = b"".join(opened).decode(encoding, "replace").encode()
                else:
                    prologue = (declaration[0].strip() + b"\n" if declaration else b"") + b"".join(opened)
                return XmlHead(prologue=prologue, offset=found.start())
            if not found[0].endswith(b"/>"):
                opened.append(found[0])
        elif found["close"] is not None and opened:
            opened.pop()
    return None


def _walk(data: bytes, markup: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
    """Yield the matches of `markup` outside comments, CDATA and processing instructions."""
    place = 0
    while found := markup.search(data, place):
        kind = found.lastgroup or ""
        place = found.end()
        if kind not in _SKIP_TO:
            yield found
            continue
        end = data.find(_SKIP_TO[kind], place)
        if end < 0:
            return
        place = end + len(_SKIP_TO[kind])


@lru_cache(maxsize=64)
def _closing(prologue: bytes) -> bytes:
    """Return the end tags for the start tags of a prologue."""
    names = [found["name"] for found in _MARKUP.finditer(prologue) if found["name"] is not None]
    return b"".join(b"</" + name + b">" for name in reversed(names))


def _split_entries(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of every complete item; the last one may be open, with an end of -1."""
    start = -1
    for found in _walk(data, _ENTRY_MARKUP):
        if found["open"] is not None:
            if start >= 0:
                # Items are never nested: the item before lacks its end tag. End it here, so that only it is lost.
                yield start, found.start()
            start = found.start()
            if found[0].endswith(b"/>"):
                yield start, found.end()
                start = -1
        elif start >= 0:
            yield start, found.end()
            start = -1
    if start >= 0:
        yield start, -1


def parse_google_xml(data: bytes, *, prologue: bytes, line: int, limit: int, final: bool, encoding: str = "") -> Chunk:
    """Read items; every one is an entry. See `EntryParser`."""
    spans: list[tuple[int, int]] = []
    done = False
    for start, end in _split_entries(data):
        if end < 0 and not final:
            break
        spans.append((start, end if end >= 0 else len(data)))
        if len(spans) >= limit:
            done = True
            break
    lines: list[int] = []
    place = 0
    for start, _ in spans:
        line += count_lines(data, place, start)
        place = start
        lines.append(line + 1)
    products, rejected, warnings = _parse_spans(data, spans, lines, prologue, encoding)
    consumed = spans[-1][1] if spans else 0
    if final and (not done or consumed == len(data)):
        line += count_lines(data, place)
        if not _is_closed(prologue, data[consumed:]):
            rejected.append(_truncated(data, consumed, line + 1))
        consumed = len(data)
    return Chunk(products=products, rejected=rejected, warnings=warnings, entries=len(spans), consumed=consumed)


def _is_closed(prologue: bytes, rest: bytes) -> bool:
    """Return whether the bytes after the last item close every element that was open before the first one."""
    opened = [found["name"] for found in _MARKUP.finditer(prologue) if found["name"] is not None]
    for found in _walk(rest, _MARKUP):
        if found["name"] is not None:
            if not found[0].endswith(b"/>"):
                opened.append(found["name"])
        elif found["close"] is not None and (not opened or found[0][2:-1].rstrip() != opened.pop()):
            return False
    return not opened


def _truncated(data: bytes, place: int, line: int) -> RejectedRow:
    detail = "the feed ends before the end of its root element, so items may be missing"
    return rejected_row(line=line, reason=RejectReason.TRUNCATED, detail=detail, raw=data[place:])


def _parse_spans(
    data: bytes, spans: list[tuple[int, int]], lines: list[int], prologue: bytes, encoding: str
) -> tuple[list[RawProduct], list[RejectedRow], list[RejectedRow]]:
    """Parse items together, which is faster, or one by one if any of them is invalid."""
    if not spans:
        return [], [], []
    pieces = [data[start:end] for start, end in spans]
    closing = _closing(prologue)
    rejected: list[RejectedRow] = []
    warnings: list[RejectedRow] = []
    damage: Damage | None = None
    if encoding:
        texts, damage = decode_lines(pieces, encoding)
        pieces = [text.encode() for text in texts]
    try:
        elements = _parse(prologue, pieces, closing)
        if len(elements) == len(spans) and damage is None:
            return (
                [google_product(at, _element_values(found)) for at, found in zip(lines, elements, strict=True)],
                [],
                [],
            )
    except (ParseError, DefusedXmlException, ValueError):
        pass
    products: list[RawProduct] = []
    for index, (piece, at) in enumerate(zip(pieces, lines, strict=True)):
        try:
            (element,) = _parse(prologue, [piece], closing)
        except (ParseError, DefusedXmlException, ValueError) as error:
            detail = f"the item is not well-formed XML: {error}"
            key = _ID.search(piece)
            sku = html.unescape(key[1].decode("utf-8", "replace")).strip() if key else ""
            rejected.append(rejected_row(line=at, reason=RejectReason.BAD_XML, detail=detail, raw=piece, sku=sku))
            continue
        product = google_product(at, _element_values(element))
        products.append(product)
        if damage is not None and (warning := damage.of_lines(index, index + 1)) is not None:
            reason, detail = warning
            warnings.append(warning_row(line=at, reason=reason, detail=detail, raw=piece, sku=product.sku))
    return products, rejected, warnings


def _parse(prologue: bytes, pieces: list[bytes], closing: bytes) -> list[Element]:
    root = fromstring(b"".join((prologue, *pieces, closing)), forbid_dtd=True)
    return [element for element in root.iter() if element.tag.rpartition("}")[2] in ("item", "entry")]


def _element_values(entry: Element) -> dict[str, list[str]]:
    """Collect the attributes of an item: Google's own first, then the equivalents of RSS or Atom."""
    google: dict[str, list[str]] = {}
    plain: dict[str, list[str]] = {}
    for element in entry:
        namespace, _, name = element.tag.rpartition("}")
        text = "".join(element.itertext()).strip()
        if not text and name == "link":
            if element.get("rel", "alternate") != "alternate":
                continue
            text = element.get("href", "").strip()
        if text:
            (google if namespace[1:] == GOOGLE_NAMESPACE else plain).setdefault(name, []).append(text)
    return {**plain, **google}


def check_head(head: bytes, offset: int | None, *, whole: bool, encoding: str = "") -> str:
    """Check the bytes before the first item with the real parser.

    Args:
        head: first bytes of the feed.
        offset: offset of the first item; None if none was found.
        whole: whether `head` is the whole feed.
        encoding: as in `find_first_entry`.

    Returns:
        The local name of the root element; empty if it has not begun.

    Raises:
        ParseError: it is not well-formed.
        DefusedXmlException: it declares entities, which pages could not resolve, and which can fill the memory.
    """
    parser = DefusedXMLParser(forbid_entities=True, forbid_external=True)
    before = head if offset is None else head[:offset]
    # For a text, the parser ignores the declaration.
    parser.feed(before.decode(encoding, "replace") if encoding else before)
    if whole and offset is None:
        parser.close()
    found = next((tag for tag in _walk(head, _MARKUP) if tag["name"] is not None), None)
    return "" if found is None else found["name"].rpartition(b":")[2].decode()


def check_xml_prologue(prologue: bytes) -> None:
    """Check a prologue with the real parser: only start tags, beginning with the root of a feed.

    Raises:
        ParseError: the prologue is not well-formed, or contains something else.
        DefusedXmlException: the prologue has a document type.
        ValueError: the prologue is not from a feed.
    """
    root: Element = fromstring(prologue + _closing(prologue), forbid_dtd=True)
    if root.tag.rpartition("}")[2] not in ("rss", "feed"):
        raise ValueError(f"its root element is <{root.tag[:40]}>")
    for element in root.iter():
        if element.tag.rpartition("}")[2] in ("item", "entry"):
            raise ValueError("it contains an item")
