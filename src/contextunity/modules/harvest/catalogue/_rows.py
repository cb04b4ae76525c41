"""Rows of the products table: how the values of a product become those of its columns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contextunity.gen.contextunity.harvest.v1 import harvest_pb2

from contextunity.modules.harvest.catalogue._product_json import product_to_json

__all__ = ["ProductRow", "clean_text", "decimal_price", "product_row", "product_values"]

_AVAILABILITY = {
    number: "" if number == 0 else name.removeprefix("AVAILABILITY_").lower()
    for name, number in harvest_pb2.Availability.items()
}
_PUBLICATION = {
    number: "" if number == 0 else name.removeprefix("PUBLICATION_").lower()
    for name, number in harvest_pb2.Publication.items()
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductRow:
    """A product of a page, with what the decision about it needs."""

    sku: str
    """Stock keeping unit as the catalogue keeps it."""
    line: int
    """Line of the feed that it begins on."""
    content_hash: str
    """SHA-256 over everything but the line, in hex."""
    product: harvest_pb2.Product
    """The product, without its line."""


def product_row(product: harvest_pb2.Product) -> ProductRow:
    """Take the line off a product, and hash the rest.

    The hash is taken over the deterministic wire form, in which fields come in the order of their numbers and map
    entries in the order of their keys. Protobuf does not promise that form for ever; should a release of it change
    the form, the next harvest writes every product once more and counts it as changed, and nothing else happens.
    """
    line = product.line
    product.ClearField("line")
    content = product.SerializeToString(deterministic=True)
    return ProductRow(
        sku=clean_text(product.sku),
        line=line,
        content_hash=hashlib.sha256(content).hexdigest(),
        product=product,
    )


def product_values(row: ProductRow) -> dict[str, Any]:
    """Spread a product over the columns that hold its content."""
    product = row.product
    price = product.price
    priced = product.HasField("price")
    return {
        "title": clean_text(product.title),
        "brand": clean_text(product.brand),
        "price_units": price.units if priced else None,
        "price_nanos": price.nanos if priced else None,
        "currency_code": clean_text(price.currency_code),
        "gtin": clean_text(product.gtin),
        "stock": product.stock if product.HasField("stock") else None,
        "availability": _AVAILABILITY.get(product.availability, str(product.availability)),
        "weight_grams": product.weight_grams if product.HasField("weight_grams") else None,
        "publication": _PUBLICATION.get(product.publication, str(product.publication)),
        "content_hash": row.content_hash,
        "data": product_to_json(product),
        "first_line": row.line,
    }


def clean_text(text: str) -> str:
    """Replace NUL characters by U+FFFD: PostgreSQL refuses them, and tools cut SQLite's text off at them."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


def decimal_price(units: int | None, nanos: int | None) -> Decimal | None:
    """Put the two halves of a price together, with two decimals at least.

    >>> decimal_price(54, 950_000_000)
    Decimal('54.95')
    >>> decimal_price(-1, -500_000_000)
    Decimal('-1.50')
    """
    if units is None or nanos is None:
        return None
    sign = "-" if units < 0 or nanos < 0 else ""
    digits = f"{abs(nanos):09d}".rstrip("0").ljust(2, "0")
    return Decimal(f"{sign}{abs(units)}.{digits}")
