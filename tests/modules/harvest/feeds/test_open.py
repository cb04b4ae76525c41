"""What is found out about a feed at its beginning, and what is refused there."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import FeedFormat as Format

from contextunity.modules.harvest.errors import FeedEmptyError, FeedFormatError
from contextunity.modules.harvest.feeds.model import MAX_ENTRY_BYTES, MAX_WINDOW_BYTES

ReadText = Callable[..., Awaitable[Any]]
AnyFeed = tuple[Format, str, bytes]

BOMB = """<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<rss><channel><item><title>&b;</title></item></channel></rss>"""


async def test_the_format_is_found_out_from_the_content(any_feed: AnyFeed, read_text: ReadText) -> None:
    format, _, content = any_feed
    reading = await read_text(content, name="feed")
    assert reading.feed.format is format
    assert reading.feed.supplier_code == "camping"
    assert reading.feed.currency_code == "EUR"
    assert reading.feed.total_bytes == len(content)


@pytest.mark.parametrize("configured", [format for format in Format if format is not Format.UNSPECIFIED])
async def test_a_feed_in_another_format_than_configured_is_refused(
    any_feed: AnyFeed, read_text: ReadText, configured: Format
) -> None:
    format, _, content = any_feed
    if configured is format:
        assert (await read_text(content, format=configured)).feed.format is format
        return
    with pytest.raises(FeedFormatError):
        await read_text(content, format=configured)


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        pytest.param("<!DOCTYPE html>\n<html><body>Log in</body></html>", "an HTML page", id="HTML"),
        pytest.param("\n  <HTML><p>404</p></HTML>", "an HTML page", id="HTML in capitals"),
        pytest.param("<svg><g/></svg>", "root element <svg>", id="other XML"),
        pytest.param("<rss><channel></rss>", "unreadable XML", id="broken XML"),
        pytest.param(BOMB, "EntitiesForbidden", id="entity declarations"),
        pytest.param('[{"sku": "1"}]', "one JSON array", id="JSON array"),
        pytest.param("name,price\nTent,1\n", "a first row of 'name', 'price'", id="other CSV"),
        pytest.param("name\tprice\nTent\t1\n", "a first row of 'name', 'price'", id="other TSV"),
        pytest.param("just some text", "a first row of 'just some text'", id="text"),
        pytest.param(gzip.compress(b"Handle,Title,Variant Price\n"), "gzip-compressed", id="gzip"),
        pytest.param(b"PK\x03\x04rest of a workbook", "an Excel workbook", id="Excel"),
        pytest.param("Handle,Title,Variant Price\n".encode("utf-16"), "UTF-16", id="UTF-16"),
        pytest.param(bytes(range(256)), "binary data", id="binary"),
        pytest.param("Handle,Title," + "x" * 70_000 + ",Variant Price\n", "does not end", id="endless header"),
    ],
)
async def test_what_is_no_feed_is_refused_by_name(read_text: ReadText, content: str | bytes, seen: str) -> None:
    with pytest.raises(FeedFormatError) as caught:
        await read_text(content)
    assert seen in caught.value.seen
    assert caught.value.expected in str(caught.value)
    assert caught.value.seen in str(caught.value)
    assert not caught.value.retryable
    assert caught.value.type == "FeedFormat"


async def test_a_wrong_header_names_the_columns_of_the_configured_format(read_text: ReadText) -> None:
    with pytest.raises(FeedFormatError, match="with the columns Handle, Title, Variant Price"):
        await read_text("handle,title\n", format=Format.SHOPIFY_CSV)
    with pytest.raises(FeedFormatError, match="with the columns id, title, price"):
        await read_text("sku\tname\n", name="feed.tsv")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="no bytes"),
        pytest.param("\ufeff", id="byte order mark"),
        pytest.param(" \r\n\n", id="blanks"),
        pytest.param("Handle,Title,Variant Price\r\n", id="header of CSV"),
        pytest.param("Handle,Title,Variant Price", id="header of CSV without line break"),
        pytest.param("id\ttitle\tprice\n\n\n", id="header of TSV"),
        pytest.param("<rss><channel><title>Shop</title></channel></rss>", id="RSS without items"),
        pytest.param("<feed/>", id="Atom without entries"),
    ],
)
async def test_a_feed_that_lists_nothing_is_empty(read_text: ReadText, content: str) -> None:
    with pytest.raises(FeedEmptyError, match="is empty") as caught:
        await read_text(content)
    assert caught.value.type == "FeedEmpty"
    assert not caught.value.retryable


async def test_a_long_preamble_of_xml_is_read_through(read_text: ReadText) -> None:
    reading = await read_text(f"<rss><channel><!--{'x' * 200_000}--><item><title>A</title></item></channel></rss>")
    assert [product.title for product in reading.products] == ["A"]
    assert len(reading.feed.prologue) < 100


async def test_a_preamble_without_end_is_refused(read_text: ReadText) -> None:
    with pytest.raises(FeedFormatError, match="no entry in the first"):
        await read_text(f"<rss><channel><!--{'x' * 2_500_000}--><item/></channel></rss>")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param(b'Handle,Title,Variant Price\na,A,1\nb,"%b\n', 2, id="CSV"),
        pytest.param(b'id\ttitle\tprice\n1\tA\t1\n2\t"%b\n', 3, id="TSV"),
        pytest.param(b"<rss><channel>\n<item/>\n<item>%b</channel></rss>", 2, id="XML"),
        pytest.param(b'{"sku": "1"}\n{"sku": "%b"}', 2, id="JSON"),
    ],
)
async def test_an_entry_without_end_is_refused_with_its_line(read_text: ReadText, content: bytes, line: int) -> None:
    endless = b"x" * (MAX_ENTRY_BYTES + 3 * MAX_WINDOW_BYTES)
    with pytest.raises(FeedFormatError, match="longer than 8,388,608 bytes") as caught:
        await read_text(content % endless, 10)
    assert caught.value.line == line


async def test_a_page_of_huge_entries_ends_early(read_text: ReadText) -> None:
    huge = "x" * 3_000_000
    reading = await read_text("".join(f'{{"sku": "{number}", "body": "{huge}"}}\n' for number in range(8)), 1000)
    assert [product.sku for product in reading.products] == [str(number) for number in range(8)]
    assert max(page.entries for page in reading.pages) <= 4
