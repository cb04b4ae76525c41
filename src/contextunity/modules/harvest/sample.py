"""Generate the bundled feed `camping-trade`: a product export in Shopify's CSV format, determined by its seed.

It has the features of real exports: variants and image-only rows, descriptions with line breaks and nested quotes,
names outside ASCII, rows that a spreadsheet program saved in Windows-1252, barcodes with wrong check digits, and
invalid rows. The brands do not exist, and the barcodes are from GS1's range for use within a company, so that none
belongs to a real product.
"""

from __future__ import annotations

import csv
import io
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

from .gtin import check_digit
from .sample_data import (
    ADJECTIVES,
    BRANDS,
    COLORS,
    FEATURES,
    INTRODUCTIONS,
    KINDS,
    PLACES,
    QUOTES,
    TAGS,
    Kind,
)

__all__ = ["COLUMNS", "SAMPLE_CURRENCY_CODE", "SAMPLE_PRODUCTS", "sample_chunks", "write_sample"]

SAMPLE_PRODUCTS = 3000
"""Products in the bundled feed, with about 7,000 variants."""
SAMPLE_CURRENCY_CODE = "EUR"
"""Currency of its prices."""

COLUMNS = (
    "Handle",
    "Title",
    "Body (HTML)",
    "Vendor",
    "Type",
    "Tags",
    "Published",
    "Option1 Name",
    "Option1 Value",
    "Option2 Name",
    "Option2 Value",
    "Option3 Name",
    "Option3 Value",
    "Variant SKU",
    "Variant Grams",
    "Variant Inventory Tracker",
    "Variant Inventory Qty",
    "Variant Inventory Policy",
    "Variant Fulfillment Service",
    "Variant Price",
    "Variant Compare At Price",
    "Variant Requires Shipping",
    "Variant Taxable",
    "Variant Barcode",
    "Image Src",
    "Image Alt Text",
    "Gift Card",
    "SEO Title",
    "SEO Description",
    "Google Shopping / Google Product Category",
    "Google Shopping / MPN",
    "Google Shopping / Condition",
    "Variant Image",
    "Variant Weight Unit",
)
"""Columns of a product export, with Shopify's names."""

_PLACE = {name: index for index, name in enumerate(COLUMNS)}
_TITLE, _TAGS, _OPTION = _PLACE["Title"], _PLACE["Tags"], _PLACE["Option1 Name"]
_SKU, _PRICE, _COMPARE = _PLACE["Variant SKU"], _PLACE["Variant Price"], _PLACE["Variant Compare At Price"]
_IMAGE, _MPN = _PLACE["Image Src"], _PLACE["Google Shopping / MPN"]
_PRODUCTS_A_CHUNK = 200
_BAD_ROW_EVERY = 75
_BAD_ROWS = (
    "no_price",
    "price_in_words",
    "negative_price",
    "short_row",
    "duplicate_sku",
    "long_row",
    "no_title",
    "nul",
    "empty_row",
    "no_handle",
    "bad_currency",
)
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")
_ASCII = str.maketrans("áâäåèéêëìíòóôöúûüšč", "aaaaeeeeiioooouuusc")


def write_sample(path: Path, *, products: int = SAMPLE_PRODUCTS, seed: int = 2024) -> None:
    """Write the feed into a file, which appears complete or not at all.

    Args:
        path: the file; its folder is created if missing, and an existing file is replaced.
        products: number of products; there are about 2.3 times as many variants.
        seed: another seed gives another catalogue.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.writelines(sample_chunks(products=products, seed=seed))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sample_chunks(*, products: int = SAMPLE_PRODUCTS, seed: int = 2024) -> Iterator[bytes]:
    """Yield the feed in pieces, with constant memory.

    A longer feed begins with the products of a shorter one with the same seed.
    """
    rng = random.Random(seed)  # noqa: S311 - a sample catalogue needs no secrets
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for number in range(products):
        rows = _product_rows(rng, number)
        windows_1252 = number % 53 == 17
        if windows_1252:
            yield _take(text, "utf-8")
        writer.writerows(rows)
        if windows_1252:
            yield _take(text, "cp1252")
        elif number % _PRODUCTS_A_CHUNK == 0:
            yield _take(text, "utf-8")
    yield _take(text, "utf-8")


def _take(text: io.StringIO, encoding: str) -> bytes:
    """Return the written rows and clear them. Text that Windows-1252 cannot encode stays UTF-8."""
    written = text.getvalue()
    text.seek(0)
    text.truncate()
    try:
        return written.encode(encoding)
    except UnicodeEncodeError:
        return written.encode()


def _product_rows(rng: random.Random, number: int) -> list[list[str]]:
    kind = KINDS[int(rng.random() * len(KINDS))]
    brand, initials = BRANDS[int(rng.random() * len(BRANDS))]
    name = f"{rng.choice(PLACES)} {rng.choice(ADJECTIVES)} {rng.choice(kind.nouns)}"
    handle = _NOT_A_WORD.sub("-", f"{brand} {name}".lower().translate(_ASCII)).strip("-") + f"-{number}"
    images = [
        f"https://cdn.camping-trade.example/products/{handle}_{index}.jpg?v={number}"
        for index in range(1, 2 + int(rng.random() ** 2 * 3.5))
    ]
    cents = rng.randint(kind.euros[0] * 20, kind.euros[1] * 20) * 5 - 5
    grams = rng.randint(*kind.grams)
    names, variants = _options(rng, kind)
    code = f"{initials}-{kind.code}-{number:06d}"
    rows: list[list[str]] = []
    for index, values in enumerate(variants):
        row = _variant_row(rng, handle, cents + index * 250, grams + index * 35)
        for place, value in enumerate(values):
            row[_OPTION + 2 * place + 1] = value
        # Some exports lack SKUs of some products, which are then derived from handle and options.
        row[_SKU] = "" if number % 23 == 5 else f"{code}-{index + 1}"
        row[_PLACE["Variant Barcode"]] = _barcode(number, index)
        if len(variants) > 1 and index < len(images):
            row[_PLACE["Variant Image"]] = images[index]
        rows.append(row)
    first = rows[0]
    first[_TITLE : _TITLE + 6] = [name, _body(rng, name, grams), brand, kind.type, _tags(rng, kind), "true"]
    for place, option in enumerate(names):
        first[_OPTION + 2 * place] = option
    first[_PLACE["Google Shopping / Google Product Category"]] = kind.google_category
    first[_MPN] = code if number % 3 else ""
    first[_PLACE["Gift Card"]] = "false"
    _add_images(rows, images, handle, name)
    if number % _BAD_ROW_EVERY == _BAD_ROW_EVERY - 1:
        _make_unusable(rows, _BAD_ROWS[number // _BAD_ROW_EVERY % len(_BAD_ROWS)], number)
    return rows


def _options(rng: random.Random, kind: Kind) -> tuple[list[str], list[tuple[str, ...]]]:
    """Choose the options that distinguish the variants, and the variants."""
    names: list[str] = []
    variants: list[tuple[str, ...]] = [()]
    if kind.option and rng.random() < 0.7:
        names.append(kind.option)
        start = int(rng.random() * len(kind.values))
        variants = [(value,) for value in kind.values[start : start + 4]]
    if kind.colored and rng.random() < 0.55:
        names.append("Color")
        start = int(rng.random() * len(COLORS))
        colors = COLORS[start : start + 1 + int(rng.random() * 3)]
        variants = [(*values, color) for values in variants for color in colors]
    if not names:
        return ["Title"], [("Default Title",)]
    return names, variants


def _variant_row(rng: random.Random, handle: str, cents: int, grams: int) -> list[str]:
    row = [""] * len(COLUMNS)
    row[0] = handle
    quantity = int(rng.random() ** 2 * 120) - 3
    row[_SKU + 1 : _SKU + 6] = [str(grams), "shopify", str(quantity), "deny" if grams % 9 else "continue", "manual"]
    row[_PRICE] = f"{cents // 100}.{cents % 100:02d}"
    if rng.random() < 0.18:
        before = cents + cents // 4
        row[_COMPARE] = f"{before // 100}.{before % 100:02d}"
    row[_COMPARE + 1] = row[_COMPARE + 2] = "true"
    row[-1] = "kg" if grams >= 1000 else "g"
    return row


def _barcode(number: int, index: int) -> str:
    """Make a GTIN-13 with Shopify's apostrophe in front; some have a wrong check digit, and some are missing."""
    if number % 19 == 7:
        return ""
    digits = f"2{number % 10**9:09d}{index % 100:02d}"
    digit = check_digit(digits)
    return f"'{digits}{(digit + 3) % 10 if number % 97 == 11 else digit}"


def _tags(rng: random.Random, kind: Kind) -> str:
    start = int(rng.random() * len(TAGS))
    return ", ".join((kind.type.lower(), *TAGS[start : start + 3]))


def _body(rng: random.Random, name: str, grams: int) -> str:
    start = int(rng.random() * len(FEATURES))
    features = "</li>\n<li>".join(FEATURES[start : start + 4]).replace("{grams}", str(grams))
    lead = rng.choice(INTRODUCTIONS).replace("{name}", name).replace("{year}", str(1950 + grams % 70))
    return (
        f'<div class="description">\n<p>{lead.replace("&", "&amp;")}<br>{rng.choice(QUOTES)}</p>\n'
        f"<ul>\n<li>{features}</li>\n</ul>\n<!-- {name} --></div>"
    )


def _add_images(rows: list[list[str]], images: list[str], handle: str, name: str) -> None:
    """Distribute the images over the rows like Shopify: one per row, and separate rows for the rest."""
    for index, url in enumerate(images):
        if index == len(rows):
            row = [""] * len(COLUMNS)
            row[0] = handle
            rows.append(row)
        rows[index][_IMAGE : _IMAGE + 2] = [url, f"{name}, picture {index + 1}"]


def _make_unusable(rows: list[list[str]], bad_row: str, number: int) -> None:
    """Make one row invalid, in one of the ways of real feeds."""
    row = rows[0]
    if bad_row == "no_price":
        row[_PRICE] = ""
    elif bad_row == "price_in_words":
        row[_PRICE] = "call us"
    elif bad_row == "negative_price":
        row[_PRICE] = f"-{row[_PRICE]}"
    elif bad_row == "bad_currency":
        row[_PRICE] = f"{row[_PRICE]} XQZ"
    elif bad_row == "no_title":
        row[_TITLE] = ""
    elif bad_row == "nul":
        rows.append([row[0], "\0", *[""] * (len(COLUMNS) - 2)])
    elif bad_row == "empty_row":
        rows.append([row[0], *[""] * (len(COLUMNS) - 1)])
    elif bad_row == "short_row":
        rows.append([row[0], "", "", "", "broken off in the mid"])
    elif bad_row == "long_row":
        rows.append([*rows[-1], "one value", "too many"])
    elif bad_row == "no_handle":
        rows.append(["", "Somebody's note: order more of these", *[""] * (len(COLUMNS) - 2)])
    else:
        again = _variant_row(random.Random(number), row[0], 999, 100)  # noqa: S311 - as above
        again[_SKU] = row[_SKU] or f"{row[0]}/again"
        again[_OPTION + 1] = "Again"
        rows.append(again)
