"""Pages of any size, from any cursor, over any way of transport, give the same rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from contextunity.gen.contextunity.harvest.v1 import FeedFormat as Format
from contextunity.gen.contextunity.harvest.v1 import RawProduct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contextunity.modules.harvest.feed_server import FeedServer
from contextunity.modules.harvest.feeds import FeedSource, Readahead, open_feed, read_page
from contextunity.modules.harvest.feeds.model import Chunk
from contextunity.modules.harvest.feeds.open import find_opening
from contextunity.modules.harvest.feeds.page import PARSERS

ReadAll = Callable[..., Awaitable[Any]]
AnyFeed = tuple[Format, str, bytes]

EXPECTED = {
    Format.SHOPIFY_CSV: (
        ["T-1", "T-2", "K-1", "K-2", "M-1", "P-2", "Q-1"],
        ["column_count", "missing_handle", "nul_byte"],
    ),
    Format.GOOGLE_XML: (["1", "2", "5", ""], ["bad_xml", "bad_xml"]),
    Format.GOOGLE_TSV: (["1", "2", "4"], ["column_count"]),
    Format.JSON_LINES: (["1", "2", "4"], ["bad_json", "bad_field"]),
}


@pytest.mark.parametrize("transport", ["range", "spool", "file"])
@pytest.mark.parametrize("page_size", [1, 2, 3, 1000])
async def test_rows_do_not_depend_on_page_size_or_transport(
    any_feed: AnyFeed, feed_folder: Path, read_all: ReadAll, transport: str, page_size: int
) -> None:
    format, name, content = any_feed
    whole = await read_all((feed_folder / name).as_uri())
    with FeedServer(feed_folder, ranges=transport == "range") as server:
        url = (feed_folder / name).as_uri() if transport == "file" else server.url(name)
        reading = await read_all(url, page_size)
    assert reading.feed.format is format
    assert reading.feed.ranges is (transport == "range")
    assert reading.products == whole.products
    assert sorted(row.line for row in reading.rejected) == sorted(row.line for row in whole.rejected)
    skus, reasons = EXPECTED[format]
    assert [product.sku for product in reading.products] == skus
    assert [row.reason for row in reading.rejected] == reasons
    assert reading.cursors[-1].offset == len(content)
    assert all(page.entries <= page_size for page in reading.pages)
    assert reading.entries == whole.entries


async def test_cursors_are_exact_places_between_entries(
    any_feed: AnyFeed, feed_folder: Path, read_all: ReadAll
) -> None:
    format, name, content = any_feed
    reading = await read_all((feed_folder / name).as_uri(), 1)
    skus, reasons = EXPECTED[format]
    # One entry a page; a page may give several rows, or none.
    assert sum(len(page.page.products) for page in reading.pages) == len(skus)
    assert sum(len(page.page.rejected) for page in reading.pages) == len(reasons)
    assert len(reading.cursors) == len(reading.pages) + 1
    for cursor, page in zip(reading.cursors, reading.pages, strict=False):
        assert cursor.line == content.count(b"\n", 0, cursor.offset)
        lines = [row.line for row in (*page.page.products, *page.page.rejected)]
        assert all(line > cursor.line for line in lines)
        assert all(line <= page.next_cursor.line + 1 for line in lines)


async def test_a_line_number_names_the_line_that_the_row_begins_on(
    any_feed: AnyFeed, feed_folder: Path, read_all: ReadAll
) -> None:
    format, name, content = any_feed
    marks: dict[Format, Callable[[str], bytes]] = {
        Format.SHOPIFY_CSV: lambda sku: sku.encode(),
        Format.GOOGLE_XML: lambda sku: b"<item",
        Format.GOOGLE_TSV: lambda sku: sku.encode() + b"\t",
        Format.JSON_LINES: lambda sku: b'"sku": "' + sku.encode(),
    }
    lines = content.split(b"\n")
    reading = await read_all((feed_folder / name).as_uri(), 2)
    assert [product.sku for product in reading.products] == EXPECTED[format][0]
    for product in reading.products:
        # The SKU of T-1 and K-1 stands behind a value with a line break in it.
        row = b"\n".join(lines[product.line - 1 : product.line + 1])
        assert marks[format](product.sku) in row


async def test_reading_goes_on_from_any_cursor_after_a_restart(
    any_feed: AnyFeed, feed_folder: Path, read_all: ReadAll, client: httpx.AsyncClient, spool_folder: Path
) -> None:
    _, name, _ = any_feed
    with FeedServer(feed_folder) as server:
        reading = await read_all(server.url(name), 1, cold=True)
        assert len(reading.cursors) > 2
        for index, cursor in enumerate(reading.cursors[:-1]):
            page = await read_page(client, reading.feed, cursor, 1000, spool_folder=spool_folder, readahead=Readahead())
            rest = [product for later in reading.pages[index:] for product in later.page.products]
            assert page.page.products == rest
            assert page.end_of_feed


async def test_a_page_size_may_change_between_pages(
    any_feed: AnyFeed, feed_folder: Path, client: httpx.AsyncClient, read_all: ReadAll, spool_folder: Path
) -> None:
    _, name, _ = any_feed
    url = (feed_folder / name).as_uri()
    whole = await read_all(url)
    source = FeedSource(supplier_code="s", url=url)
    feed, cursor = await open_feed(client, source, spool_folder=spool_folder)
    products: list[RawProduct] = []
    for page_size in (2, 1, 1000):
        page = await read_page(client, feed, cursor, page_size, spool_folder=spool_folder)
        products += page.page.products
        cursor = page.next_cursor
    assert products == whole.products


async def test_a_page_of_no_entries_is_refused(
    feed_folder: Path, client: httpx.AsyncClient, read_all: ReadAll, spool_folder: Path
) -> None:
    reading = await read_all((feed_folder / "feed.csv").as_uri())
    with pytest.raises(ValueError, match="page_size must be 1 or more, but is 0"):
        await read_page(client, reading.feed, reading.cursors[0], 0, spool_folder=spool_folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(min_value=0, max_value=2000), limit=st.integers(min_value=1, max_value=9))
def test_what_a_parser_reads_does_not_depend_on_where_its_bytes_end(any_feed: AnyFeed, cut: int, limit: int) -> None:
    format, _, content = any_feed
    opening = find_opening("http://x.example/", content, whole=True)
    assert opening is not None
    data = content[opening.cursor.offset :]
    whole = PARSERS[format](data, prologue=opening.prologue, line=0, limit=1000, final=True)
    chunk = PARSERS[format](data[:cut], prologue=opening.prologue, line=0, limit=limit, final=cut >= len(data))
    assert chunk.products == whole.products[: len(chunk.products)]
    assert chunk.consumed <= min(cut, len(data))
    left = data[chunk.consumed :]
    line = data.count(b"\n", 0, chunk.consumed)
    rest = PARSERS[format](left, prologue=opening.prologue, line=line, limit=1000, final=True) if left else Chunk()
    assert chunk.products + rest.products == whole.products
    assert [row.line for row in chunk.rejected + rest.rejected] == [row.line for row in whole.rejected]
    assert chunk.entries + rest.entries == whole.entries
