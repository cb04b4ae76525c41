"""What the attributes of a Google Merchant feed mean, whether they came as XML or as TSV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from contextunity.gen.contextunity.harvest.v1 import RawProduct

__all__ = ["OPTION_NAMES", "attribute_name", "google_product"]

OPTION_NAMES = {
    "size": "Size",
    "color": "Color",
    "material": "Material",
    "pattern": "Pattern",
    "age_group": "Age group",
    "gender": "Gender",
}
"""The attributes by which Google tells the variants of an item group apart, and what we call them."""

_NOT_A_NAME = re.compile(r"[^a-z0-9]+")


def attribute_name(text: str) -> str:
    """Bring an attribute's name into its documented form: "g:Image Link" is `image_link`."""
    return _NOT_A_NAME.sub("_", text.strip().lower().removeprefix("g:")).strip("_")


def google_product(line: int, values: Mapping[str, Sequence[str]]) -> RawProduct:
    """Make a product of an item's attributes.

    Args:
        line: line of the feed that the item begins on.
        values: all values of each attribute, by its documented name, in the order of the feed; none are empty.
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
