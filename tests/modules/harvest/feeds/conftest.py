"""Feeds in every format, ways to have them served, and a reader that goes through one page by page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from contextunity.gen.contextunity.harvest.v1 import Feed, FeedCursor, RawProduct, RejectedRow
from contextunity.gen.contextunity.harvest.v1 import FeedFormat as Format

from contextunity.modules.harvest.feeds import FeedSource, FetchedPage, Readahead, open_feed, read_page

SHOPIFY = (
    "\ufeff".encode()
    + (
        "Handle,Title,Body (HTML),Variant SKU,Option1 Name,Option1 Value,Variant Price,Image Src,Tags\r\n"
        'tent,Tent,"<p>Two ""rooms"",\nand a porch</p>",T-1,Size,Small,10.00,https://x.example/1.jpg,"a, b"\r\n'
        "tent,,,T-2,,Große,12.00,https://x.example/2.jpg,\r\n"
        "tent,,,,,,,https://x.example/3.jpg,\r\n"
        "\r\n"
    ).encode()
    + 'käse,Käse,"line\r\nline",K-1,,,3.00,,\r\n'.encode("cp1252")
    + (
        "short,row\r\n"
        "käse,,,K-2,,Second,4.00,,\r\n"
        ",No handle,,N-1,,,1.00,,\r\n"
        "mat,Mat,,M-1,,,5.00,,\n"
        'peg,"Peg 7""",,P-1,,,\0,,\n'
        "peg,Peg,,P-2,,,6.00,,\n"
        "pot,Pot,,Q-1,,,7.00,,"
    ).encode()
)
GOOGLE_XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<!-- an <item> in a comment -->
<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0">
<channel>
<title>Shop</title>
<description><![CDATA[<item>not one</item>]]></description>
<item><g:id>1</g:id><title>One</title><g:price>10 EUR</g:price>
  <description><![CDATA[<p>has </item> in it</p>]]></description></item>
<!-- </item><item> --><item>
<g:id>2</g:id><g:title>Zwei \xc3\xbc</g:title><title>other</title>
<g:price>20 EUR</g:price><g:sale_price>15 EUR</g:sale_price><g:shipping><g:price>4 EUR</g:price></g:shipping></item>
<item><g:id>3</g:id><title>Bad & ugly</title></item>
<item><g:id>4</g:id><title>Never closed</title>
<item><g:id>5</g:id><title>Five &amp; more</title><g:price>5</g:price></item><item/>
</channel>
</rss>
"""
GOOGLE_TSV = (
    "id\ttitle\tdescription\tprice\tadditional image link\n"
    "1\tOne\tPlain\t10.00 EUR\thttps://x.example/a.jpg, https://x.example/b.jpg\n"
    '2\tTwo\t"two\nlines ""quoted"""\t20.00 EUR\t\n'
    "3\tbroken\n"
    "\n"
    '4\tFour 7" peg\tünï\t1.00 EUR\t\n'
).encode()
JSON_LINES = b"\xef\xbb\xbf\n" + b"\n".join(
    [
        json.dumps({"sku": "1", "title": "One", "price": "10", "options": {"Size": "M"}}).encode(),
        b"not json",
        '{"sku": "2", "title": "Zwei ü", "compareAtPrice": 12.50, "imageUrls": ["https://x.example/1.jpg"]}'.encode(),
        b"",
        b'{"sku": "3", "title": {"no": "text"}}',
        b'{"sku": "4", "title": "K\xe4se", "price": 1}',
    ]
)

ALL_FEEDS = {
    Format.SHOPIFY_CSV: ("feed.csv", SHOPIFY),
    Format.GOOGLE_XML: ("feed.xml", GOOGLE_XML),
    Format.GOOGLE_TSV: ("feed.tsv", GOOGLE_TSV),
    Format.JSON_LINES: ("feed.jsonl", JSON_LINES),
}


@dataclass
class Reading:
    """A feed as it was read."""

    feed: Feed
    cursors: list[FeedCursor]
    pages: list[FetchedPage] = field(default_factory=list[FetchedPage])

    @property
    def products(self) -> list[RawProduct]:
        return [product for page in self.pages for product in page.page.products]

    @property
    def rejected(self) -> list[RejectedRow]:
        return [row for page in self.pages for row in page.page.rejected]

    @property
    def warnings(self) -> list[RejectedRow]:
        return [row for page in self.pages for row in page.page.warnings]

    @property
    def entries(self) -> int:
        return sum(page.entries for page in self.pages)


ReadAll = Callable[..., Awaitable[Reading]]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        yield client


@pytest.fixture
def spool_folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def feed_folder(tmp_path: Path) -> Path:
    """A folder with one feed of each format."""
    folder = tmp_path / "feeds"
    folder.mkdir()
    for name, content in ALL_FEEDS.values():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def read_all(client: httpx.AsyncClient, spool_folder: Path) -> ReadAll:
    """Read a feed to its end. `cold` forgets everything between two pages, as a restarted process does."""

    async def read(
        url: str, page_size: int = 1000, *, cold: bool = False, format: Format | None = None, encoding: str = ""
    ) -> Reading:
        readahead = Readahead()
        source = FeedSource(supplier_code="camping", url=url, format=format, currency_code="EUR", encoding=encoding)
        feed, cursor = await open_feed(client, source, spool_folder=spool_folder, readahead=readahead)
        reading = Reading(feed=feed, cursors=[cursor])
        while True:
            if cold:
                readahead.clear()
            page = await read_page(
                client, feed, reading.cursors[-1], page_size, spool_folder=spool_folder, readahead=readahead
            )
            reading.pages.append(page)
            reading.cursors.append(page.next_cursor)
            if page.end_of_feed:
                return reading

    return read


@pytest.fixture
def read_text(read_all: ReadAll, tmp_path: Path) -> ReadAll:
    """Read a feed that is given as text or bytes."""

    async def read(content: str | bytes, page_size: int = 1000, *, name: str = "inline", **options: object) -> Reading:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return await read_all(path.as_uri(), page_size, **options)

    return read


@pytest.fixture(params=list(ALL_FEEDS), ids=[name for name, _ in ALL_FEEDS.values()])
def any_feed(request: pytest.FixtureRequest) -> tuple[Format, str, bytes]:
    """Every feed in turn: format, file name, content."""
    name, content = ALL_FEEDS[request.param]
    return request.param, name, content
