"""Turns the rows of a feed into products that can be compared and stored: pure, and fast enough for large feeds.

Whatever depends on one row alone is decided here. What needs other rows, such as whether a SKU occurs twice, is
decided where products are stored, so that the size of a page never changes what comes out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

from contextunity.gen.contextunity.harvest.v1 import (
    Availability,
    Money,
    Product,
    ProductPage,
    RawPage,
    RawProduct,
    RejectedRow,
)

from ._gtin import verified_gtin
from ._html import html_to_text
from ._money import BadCurrencyError, BadPriceError, parse_money, parse_number
from .rejects import RejectReason, rejected_row

__all__ = ["MAX_SKU_CHARS", "transform_page"]

MAX_SKU_CHARS = 255
"""The SKU is part of a key in the catalogue, and databases bound those."""

_OPTION_ORDER = {
    name: rank
    for rank, name in enumerate(
        ("size", "width", "length", "capacity", "volume", "model", "color", "colour", "material", "pattern", "style")
    )
}
"""How options follow each other in titles and derived SKUs; all others come after these, by name. The order of the
feed is not known here: a map in Protocol Buffers has none."""

_GRAMS = {
    "g": Decimal(1),
    "gr": Decimal(1),
    "gram": Decimal(1),
    "grams": Decimal(1),
    "kg": Decimal(1000),
    "kilogram": Decimal(1000),
    "kilograms": Decimal(1000),
    "lb": Decimal("453.59237"),
    "lbs": Decimal("453.59237"),
    "pound": Decimal("453.59237"),
    "pounds": Decimal("453.59237"),
    "oz": Decimal("28.349523125"),
    "ounce": Decimal("28.349523125"),
    "ounces": Decimal("28.349523125"),
}
_AVAILABILITY = {
    "in_stock": Availability.IN_STOCK,
    "instock": Availability.IN_STOCK,
    "available": Availability.IN_STOCK,
    "out_of_stock": Availability.OUT_OF_STOCK,
    "outofstock": Availability.OUT_OF_STOCK,
    "sold_out": Availability.OUT_OF_STOCK,
    "soldout": Availability.OUT_OF_STOCK,
    "preorder": Availability.PREORDER,
    "pre_order": Availability.PREORDER,
    "presale": Availability.PREORDER,
    "backorder": Availability.BACKORDER,
    "back_order": Availability.BACKORDER,
    "available_for_order": Availability.BACKORDER,
}
_MAX_STOCK = 10**15
_MAX_GRAMS = 10**12
_WEIGHT = re.compile(r"([0-9.,]+)\s*([A-Za-z]*)\.?")
_STOCK = re.compile(r"([+-]?[0-9]{1,18})(?:\.0*)?")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")
_BLANKS = re.compile(r"\s+")
_NOT_A_WORD = re.compile(r"[^\w]+")
_WEB_ADDRESS = re.compile(r"https?://[^\s/?#]+[^\s]*", re.IGNORECASE)


class _RejectError(Exception):
    """A row that cannot be used."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


def transform_page(raw: RawPage, *, currency_code: str) -> ProductPage:
    """Make products of the rows of a page.

    A row without a SKU gets `{group}/{option value}/{option value}`, each value in lower case with hyphens for all
    that is neither letter nor digit; it stays the same as long as handle and options do. Real exports have many such
    rows.

    Args:
        raw: rows as read.
        currency_code: ISO 4217 code of the currency that prices without one of their own are in.

    Returns:
        One product for each row that can be used; all others as rejected rows, with those that could not even be read
        among them, by line.
    """
    products: list[Product] = []
    rejected: list[RejectedRow] = list(raw.rejected)
    # Variants share their description, and its conversion is most of the work.
    descriptions: dict[str, str] = {}
    for row in raw.products:
        try:
            products.append(_transform_row(row, currency_code, descriptions))
        except _RejectError as error:
            raw_text = _as_json(row)
            rejected.append(
                rejected_row(line=row.line, reason=error.reason, detail=error.detail, raw=raw_text, sku=row.sku.strip())
            )
    rejected.sort(key=lambda bad: bad.line)
    return ProductPage(products=products, rejected=rejected)


def _transform_row(row: RawProduct, currency_code: str, descriptions: dict[str, str]) -> Product:
    title = clean_text(row.title)
    if not title:
        raise _RejectError(RejectReason.MISSING_TITLE, "the title is empty")
    options = _clean_options(row.options) if row.options else {}
    group = clean_text(row.group)
    price, compare_at_price = _prices(row, currency_code)
    body = row.body
    description = descriptions.get(body)
    if description is None:
        description = descriptions[body] = html_to_text(_without_controls(body))
    stock, availability = _stock(row.stock)
    return Product(
        sku=_sku(row.sku, group, options),
        group=group,
        title=_title(title, options) if options else title,
        brand=clean_text(row.brand),
        description=description,
        price=price,
        compare_at_price=compare_at_price,
        gtin=verified_gtin(row.gtin) if row.gtin else "",
        stock=stock,
        availability=availability,
        weight_grams=_weight_grams(row.weight, row.weight_unit) if row.weight else None,
        image_urls=_images(row.image_urls),
        categories=_unique(clean_text(text) for text in row.categories),
        tags=list(_tags(row.tags)) if row.tags else [],
        options=options,
        mpn=clean_text(row.mpn),
        link=_web_address(row.link),
        line=row.line,
    )


@lru_cache(maxsize=8192)
def clean_text(text: str) -> str:
    """Give a text of one line: no control characters, and one blank where there was any white space."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return _BLANKS.sub(" ", _without_controls(text)).strip()


def _without_controls(text: str) -> str:
    """Leave out control characters but white space, which is dealt with later."""
    return text if text.isprintable() or _CONTROLS.search(text) is None else _CONTROLS.sub(" ", text)


def _clean_options(options: dict[str, str]) -> dict[str, str]:
    """Give the options that tell variants apart, in the order of titles; Shopify's placeholder is none."""
    cleaned = {clean_text(name): clean_text(value) for name, value in options.items()}
    pairs = [
        (name, value)
        for name, value in cleaned.items()
        if value and not (value == "Default Title" or (name == "Title" and value == "Default"))
    ]
    if len(pairs) > 1:
        pairs.sort(key=lambda pair: (_OPTION_ORDER.get(pair[0].lower(), len(_OPTION_ORDER)), pair[0]))
    return dict(pairs)


def _title(title: str, options: dict[str, str]) -> str:
    """Append what sets the variant apart, unless the title says all of it, as the titles of Google feeds do."""
    words = f" {_NOT_A_WORD.sub(' ', title.lower())} "
    if all(f" {_NOT_A_WORD.sub(' ', value.lower()).strip()} " in words for value in options.values()):
        return title
    return f"{title} - {' / '.join(options.values())}"


def _sku(stated: str, group: str, options: dict[str, str]) -> str:
    sku = clean_text(stated)
    if not sku:
        if not group:
            raise _RejectError(RejectReason.MISSING_SKU, "the SKU is empty, and there is no group to derive one from")
        sku = "/".join([group, *(_slug(value) for value in options.values())])
    if len(sku) > MAX_SKU_CHARS:
        raise _RejectError(RejectReason.BAD_SKU, f"the SKU has {len(sku)} characters, at most {MAX_SKU_CHARS} can be")
    return sku


@lru_cache(maxsize=4096)
def _slug(value: str) -> str:
    # A value of signs alone, such as "+", would leave nothing; it is kept as it is then.
    return _NOT_A_WORD.sub("-", value.lower()).strip("-") or value


def _prices(row: RawProduct, currency_code: str) -> tuple[Money, Money | None]:
    """Give the price, and the price before a reduction where there is one: in the same currency, and higher."""
    if not row.price.strip():
        raise _RejectError(RejectReason.MISSING_PRICE, "the price is empty")
    currency = row.currency_code or currency_code
    try:
        code, units, nanos = parse_money(row.price, currency)
    except BadPriceError as error:
        raise _RejectError(RejectReason.BAD_PRICE, f"the price {row.price!r} cannot be used: {error}") from None
    except BadCurrencyError as error:
        raise _RejectError(RejectReason.BAD_CURRENCY, f"the price {row.price!r} cannot be used: {error}") from None
    price = Money(currency_code=code, units=units, nanos=nanos)
    if not row.compare_at_price.strip():
        return price, None
    try:
        before = parse_money(row.compare_at_price, currency)
    except (BadPriceError, BadCurrencyError):
        return price, None
    if before[0] != code or before[1:] <= (units, nanos):
        return price, None
    return price, Money(currency_code=code, units=before[1], nanos=before[2])


@lru_cache(maxsize=4096)
def _stock(text: str) -> tuple[int | None, Availability]:
    """Read pieces in stock, or a word. Fewer than none, which is what oversold goods have, is none."""
    text = text.strip()
    if not text:
        return None, Availability.UNSPECIFIED
    found = _STOCK.fullmatch(text)
    if found is not None:
        pieces = min(max(int(found[1]), 0), _MAX_STOCK)
        return pieces, Availability.IN_STOCK if pieces else Availability.OUT_OF_STOCK
    word = _NOT_A_WORD.sub("_", text.lower()).strip("_")
    return None, _AVAILABILITY.get(word, Availability.UNSPECIFIED)


@lru_cache(maxsize=4096)
def _weight_grams(weight: str, weight_unit: str) -> int | None:
    """Read a weight; None where it is none, or zero, which shops leave where nobody has weighed."""
    found = _WEIGHT.fullmatch(weight.strip())
    if found is None:
        return None
    factor = _GRAMS.get((found[2] or weight_unit.strip() or "g").lower().rstrip("."))
    if factor is None:
        return None
    try:
        units, nanos = parse_number(found[1])
    except BadPriceError:
        return None
    amount = Decimal(units) + Decimal(nanos).scaleb(-9)
    grams = int((amount * factor).to_integral_value(ROUND_HALF_UP))
    return grams if 0 < grams <= _MAX_GRAMS else None


def _images(urls: list[str]) -> list[str]:
    if len(urls) == 1:
        url = _web_address(urls[0])
        return [url] if url else []
    return _unique(map(_web_address, urls))


@lru_cache(maxsize=8192)
def _web_address(text: str) -> str:
    """Give an absolute http or https address, or nothing; blanks within it are escaped."""
    text = text.strip()
    if text.startswith("//"):
        text = f"https:{text}"
    text = text.replace(" ", "%20")
    return text if _WEB_ADDRESS.fullmatch(text) and text.isprintable() else ""


@lru_cache(maxsize=4096)
def _tags(text: str) -> tuple[str, ...]:
    return tuple(sorted({tag for tag in map(clean_text, text.split(",")) if tag}))


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _as_json(row: RawProduct) -> str:
    """Write a row down as JSON, with the long description last, where it may be cut."""
    fields = {
        "sku": row.sku,
        "group": row.group,
        "title": row.title,
        "price": row.price,
        "compare_at_price": row.compare_at_price,
        "currency_code": row.currency_code,
        "options": row.options,
        "brand": row.brand,
        "gtin": row.gtin,
        "mpn": row.mpn,
        "stock": row.stock,
        "weight": row.weight,
        "weight_unit": row.weight_unit,
        "categories": row.categories,
        "tags": row.tags,
        "link": row.link,
        "image_urls": row.image_urls,
        "body": row.body,
    }
    return json.dumps({name: value for name, value in fields.items() if value}, ensure_ascii=False)
