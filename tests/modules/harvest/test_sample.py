"""The bundled feed: always the same, with everything in it that makes real feeds hard."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import httpx
import pytest
from contextunity.gen.contextunity.harvest.v1 import ProductPage, RawPage

from contextunity.modules.harvest.feeds import FeedSource, open_feed, read_page
from contextunity.modules.harvest.sample import (
    COLUMNS,
    SAMPLE_CURRENCY_CODE,
    SAMPLE_PRODUCTS,
    sample_chunks,
    write_sample,
)
from contextunity.modules.harvest.transform import transform_page


@pytest.fixture(scope="module")
def feed() -> bytes:
    return b"".join(sample_chunks())


async def harvest(path: Path) -> tuple[RawPage, ProductPage, int]:
    """Read and transform a feed."""
    rows, result, entries = RawPage(), ProductPage(), 0
    async with httpx.AsyncClient(trust_env=False) as client:
        source = FeedSource(supplier_code="camping-trade", url=path.as_uri(), currency_code=SAMPLE_CURRENCY_CODE)
        opened, cursor = await open_feed(client, source, spool_folder=path.parent)
        end = False
        while not end:
            page = await read_page(client, opened, cursor, 200, spool_folder=path.parent)
            cursor, end, entries = page.next_cursor, page.end_of_feed, entries + page.entries
            rows.products += page.page.products
            rows.rejected += page.page.rejected
            transformed = transform_page(page.page, currency_code=opened.currency_code)
            result.products += transformed.products
            result.rejected += transformed.rejected
    return rows, result, entries


def test_it_is_the_same_for_the_same_seed(feed: bytes) -> None:
    assert b"".join(sample_chunks()) == feed
    assert b"".join(sample_chunks(seed=1)) != feed


def test_a_shorter_feed_is_the_beginning_of_a_longer_one(feed: bytes) -> None:
    short = b"".join(sample_chunks(products=500))
    assert feed.startswith(short)


def test_it_is_made_piece_by_piece() -> None:
    chunks = sample_chunks(products=1_000_000)
    largest = max(len(next(chunks)) for _ in range(50))
    assert largest < 1_000_000


def test_it_has_what_makes_real_feeds_hard(feed: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        feed.decode()
    lines = feed.split(b"\n")
    assert any(line.decode("utf-8", "replace").count("\ufffd") for line in lines)
    rows = list(csv.DictReader(io.StringIO(feed.decode("utf-8", "replace").replace("\0", ""), newline="")))
    assert len(lines) > len(rows) + 1
    assert any('"' in row["Title"] for row in rows)
    assert any("\n" in row["Body (HTML)"] and '"' in row["Body (HTML)"] for row in rows)
    assert any(not row["Variant Price"] and row["Image Src"] for row in rows)
    assert any(not row["Variant SKU"] and row["Variant Price"] for row in rows)
    assert all(row["Variant Barcode"][0] == "'" for row in rows if row["Variant Barcode"])
    assert list(COLUMNS[:3]) == ["Handle", "Title", "Body (HTML)"]


async def test_a_harvest_of_it_gives_thousands_of_products_and_every_kind_of_rejected_row(tmp_path: Path) -> None:
    # The feed is the same each time, so the numbers are exact.
    path = tmp_path / "feed.csv"
    write_sample(path)
    rows, result, entries = await harvest(path)
    assert entries == SAMPLE_PRODUCTS
    assert len(result.products) == 6_474
    assert len(rows.products) + len(rows.rejected) == len(result.products) + len(result.rejected)
    reasons = Counter(bad.reason for bad in result.rejected)
    assert reasons == {
        "missing_title": 13,
        "bad_price": 8,
        "column_count": 8,
        "missing_price": 4,
        "bad_currency": 3,
        "nul_byte": 3,
        "empty_row": 3,
        "missing_handle": 3,
    }
    bad_prices = [bad.detail for bad in result.rejected if bad.reason == "bad_price"]
    assert any("'call us'" in detail for detail in bad_prices)
    assert any("negative" in detail for detail in bad_prices)
    skus = Counter(product.sku for product in result.products)
    assert Counter(skus.values()) == {1: 6_466, 2: 4}
    by_line = {product.line: product.gtin for product in result.products}
    gtins = [(raw.gtin, by_line[raw.line]) for raw in rows.products if raw.line in by_line]
    assert any(raw and not good for raw, good in gtins)
    assert sum(1 for _, good in gtins if good) > 0.9 * len(gtins)
    titles = " ".join(product.title for product in result.products)
    assert "\ufffd" not in titles
    assert "Málaga" in titles
    assert "Šumava" in titles
    assert any(product.compare_at_price is not None for product in result.products)
    assert all(product.description for product in result.products)


def test_writing_it_replaces_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "feed.csv"
    write_sample(path, products=10)
    first = path.read_bytes()
    write_sample(path, products=20)
    assert path.read_bytes().startswith(first)
    assert [child.name for child in path.parent.iterdir()] == ["feed.csv"]
