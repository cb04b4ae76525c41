"""A real export of a shop, read and transformed. It is not part of this repository, so it may be absent."""

from __future__ import annotations

import csv
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from contextunity.modules.harvest.transform import transform_page

EXPORT = Path(__file__).parents[4].parent / "shared" / "data" / "snowdevil.csv"

pytestmark = pytest.mark.skipif(not EXPORT.is_file(), reason="the real export ../shared/data/snowdevil.csv is absent")

ReadAll = Callable[..., Awaitable[Any]]


def rows() -> list[dict[str, str]]:
    with EXPORT.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("page_size", [7, 50, 1000])
async def test_every_variant_is_read(read_all: ReadAll, page_size: int) -> None:
    reading = await read_all(EXPORT.as_uri(), page_size)
    variants = [row for row in rows() if row["Variant Price"]]
    assert [product.price for product in reading.products] == [row["Variant Price"] for row in variants]
    assert [product.group for product in reading.products] == [row["Handle"] for row in variants]
    assert reading.entries == len({row["Handle"] for row in variants})
    assert reading.rejected == []
    assert reading.cursors[-1].offset == EXPORT.stat().st_size


async def test_every_image_only_row_adds_to_its_product(read_all: ReadAll) -> None:
    reading = await read_all(EXPORT.as_uri(), 20)
    only_images = [row for row in rows() if not row["Variant Price"]]
    assert only_images
    for row in only_images:
        of_group = [product for product in reading.products if product.group == row["Handle"]]
        assert of_group
        assert all(row["Image Src"] in product.image_urls for product in of_group)


async def test_every_variant_becomes_a_product_although_nearly_all_lack_a_sku(read_all: ReadAll) -> None:
    reading = await read_all(EXPORT.as_uri(), 100)
    pages = [transform_page(page.page, currency_code="USD") for page in reading.pages]
    products = [product for page in pages for product in page.products]
    assert len(products) == len(reading.products)
    assert not any(page.rejected for page in pages)
    derived = [product.sku for product, raw in zip(products, reading.products, strict=True) if not raw.sku]
    assert len(derived) > 600
    assert len(set(derived)) == len(derived)
    first = products[0]
    assert first.sku == "burton-approach-under-glove-2016/medium/true-black"
    assert first.title == "Approach Under Glove - Medium / True Black"
    assert first.price is not None
    assert (first.price.units, first.price.nanos, first.price.currency_code) == (54, 950_000_000, "USD")
    assert (first.gtin, first.stock, first.weight_grams) == ("9009518582030", 4, 454)
    assert first.description.splitlines()[1] == "Screen Grab® Toughgrip™ Palm for Total Touchscreen Control"
