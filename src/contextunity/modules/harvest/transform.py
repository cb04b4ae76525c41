"""Convert the rows of a feed into products: pure functions, fast enough for large feeds.

Everything here depends on a single row. Checks that need other rows, such as duplicate SKUs, are done when products are
stored, so that the result never depends on the size of a page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Literal

from contextunity.gen.contextunity.harvest.v1 import (
    Availability,
    Money,
    Product,
    ProductPage,
    Publication,
    RawPage,
    RawProduct,
    RejectedRow,
)

from .gtin import GtinError, read_gtin
from .html_text import html_to_text
from .money import BadCurrencyError, BadPriceError, parse_money, parse_number
from .rejects import RejectReason, WarningReason, rejected_row, warning_row
from .spreadsheet import lost_digits, restored

__all__ = ["MAX_SKU_CHARS", "Key", "clean_text", "sale_dates", "transform_page"]

Key = Literal["sku", "barcode", "handle_options"]
"""Key of a product in the catalogue: its SKU, its barcode, or its handle with its options."""

MAX_SKU_CHARS = 255
"""Maximum length of a SKU: it is part of a key in the catalogue, and databases limit those."""

_OPTION_ORDER = {
    name: rank
    for rank, name in enumerate(
        ("size", "width", "length", "capacity", "volume", "model", "color", "colour", "material", "pattern", "style")
    )
}
"""Order of options in titles and derived SKUs; all others follow by name. The order of the feed is unknown here: a map
in Protocol Buffers has none."""

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
_AVAILABILITY_WORDS = {
    Availability.IN_STOCK: (
        "in_stock instock available available_now yes true y limited limited_availability limited_stock low_stock "
        "in_store_only instoreonly online_only onlineonly limitedavailability ready_to_ship on_stock"
    ),
    Availability.OUT_OF_STOCK: (
        "out_of_stock outofstock sold_out soldout no false n unavailable not_available not_in_stock discontinued "
        "temporarily_out_of_stock temporarily_unavailable no_stock reserved"
    ),
    Availability.PREORDER: "preorder pre_order preordered pre_sale presale coming_soon",
    Availability.BACKORDER: (
        "backorder back_order backordered back_ordered on_backorder on_back_order available_for_order on_order "
        "special_order made_to_order madetoorder"
    ),
}
_AVAILABILITY = {word: found for found, words in _AVAILABILITY_WORDS.items() for word in words.split()}
_SCHEMA_ORG = re.compile(r"(?:https?://(?:www\.)?)?schema\.org/", re.IGNORECASE)
_PUBLICATION = {
    "active": Publication.ACTIVE,
    "draft": Publication.DRAFT,
    "archived": Publication.ARCHIVED,
    "unpublished": Publication.UNPUBLISHED,
    # Visible only with its URL.
    "unlisted": Publication.UNPUBLISHED,
}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NOT_OFFERED = frozenset({Publication.DRAFT, Publication.ARCHIVED, Publication.UNPUBLISHED})
_MAX_STOCK = 10**15
_MAX_GRAMS = 10**12
_GRAM_DIGITS = 12
_NO_WEIGHT = re.compile(r"[0.,]+\s*[A-Za-z]*\.?")
_WEIGHT = re.compile(r"([0-9.,]+)\s*([A-Za-z]*)\.?")
_STOCK = re.compile(r"([+-]?[0-9]{1,18})(?:\.0*)?")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")
_BLANKS = re.compile(r"\s+")
_NOT_A_WORD = re.compile(r"[^\w]+")
_WEB_ADDRESS = re.compile(r"https?://[^\s/?#]", re.IGNORECASE)


class _RejectError(Exception):
    """A row that cannot be used."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


def transform_page(raw: RawPage, *, currency_code: str, key: Key = "sku", now: datetime | None = None) -> ProductPage:
    """Convert the rows of a page into products.

    A row without a SKU gets `{group}/{option value}/{option value}`, each value in lower case, with hyphens for
    everything except letters and digits. It is stable as long as handle and options are. Real exports have many such
    rows.

    Args:
        raw: rows of the feed.
        currency_code: ISO 4217 code of the currency of prices without a currency.
        key: key to use as SKU; if a row lacks it, handle and options are used.
        now: time for which sale prices must be valid, timezone-aware; by default the current time.

    Returns:
        One product for each valid row; all others as rejected rows by line, including unreadable ones. Invalid optional
        values are omitted, with a warning.
    """
    page = _Page(currency_code, key, now or datetime.now(UTC))
    for told in (*raw.rejected, *raw.warnings):
        # Clean it as in the catalogue: a spreadsheet's apostrophe must not hide which product is listed. If the key
        # is not the SKU, the SKU of an unreadable row identifies no product.
        told.sku = clean_text(told.sku) if told.sku and key == "sku" else ""
    products: list[Product] = []
    rejected: list[RejectedRow] = list(raw.rejected)
    warnings: list[RejectedRow] = list(raw.warnings)
    for row in raw.products:
        page.sku = ""
        page.warnings.clear()
        try:
            products.append(_transform_row(row, page))
        except _RejectError as error:
            sku = page.sku or (clean_text(row.sku) if key == "sku" else "")
            rejected.append(
                rejected_row(line=row.line, reason=error.reason, detail=error.detail, raw=_as_json(row), sku=sku)
            )
        else:
            for reason, detail in page.warnings:
                warnings.append(
                    warning_row(line=row.line, reason=reason, detail=detail, raw=_as_json(row), sku=page.sku)
                )
    rejected.sort(key=lambda bad: bad.line)
    warnings.sort(key=lambda warning: warning.line)
    return ProductPage(products=products, rejected=rejected, warnings=warnings)


class _Page:
    """Data of all rows of a page, and of the current row."""

    __slots__ = ("currency_code", "descriptions", "key", "now", "sku", "warnings")

    def __init__(self, currency_code: str, key: Key, now: datetime) -> None:
        self.currency_code = currency_code
        self.key = key
        self.now = now
        # Variants share their description, whose conversion is most of the work.
        self.descriptions: dict[str, str] = {}
        self.sku = ""
        self.warnings: list[tuple[WarningReason, str]] = []

    def warning(self, reason: WarningReason, detail: str) -> None:
        self.warnings.append((reason, detail))


def _transform_row(row: RawProduct, page: _Page) -> Product:
    options = dict(_clean_options(*row.options.items())) if row.options else {}
    group = clean_text(row.group)
    gtin = _gtin(row.gtin, page) if row.gtin else ""
    # Read the key first, so that a row rejected for another reason has it.
    page.sku = sku = _key(row, page, group, gtin, options)
    title = clean_text(row.title)
    if not title:
        raise _RejectError(RejectReason.MISSING_TITLE, "the title is empty")
    price, compare_at_price = _prices(row, page)
    body = row.body
    description = page.descriptions.get(body)
    if description is None:
        description = page.descriptions[body] = html_to_text(_without_controls(restored(body)))
    stock, availability, warnings = _stock(row.stock, row.availability)
    if warnings:
        page.warnings += warnings
    publication = Publication.UNSPECIFIED
    if row.status or row.published:
        publication, warnings = _publication(row.status, row.published)
        if warnings:
            page.warnings += warnings
        if publication in _NOT_OFFERED:
            availability = Availability.OUT_OF_STOCK
    return Product(
        sku=sku,
        group=group,
        title=_title(title, options) if options else title,
        brand=clean_text(row.brand),
        description=description,
        price=price,
        compare_at_price=compare_at_price,
        gtin=gtin,
        stock=stock,
        availability=availability,
        weight_grams=_weight(row, page) if row.weight else None,
        image_urls=_images(row.image_urls),
        categories=list(_categories(*row.categories)) if row.categories else [],
        tags=list(_tags(row.tags)) if row.tags else [],
        options=options,
        mpn=clean_text(row.mpn) if row.mpn else "",
        link=_web_address(row.link) if row.link else "",
        line=row.line,
        publication=publication,
    )


def _cleaned(text: str) -> str:
    """Clean a text of one line: no control characters, one space for any whitespace, and without changes by spreadsheet
    programs.
    """
    if text.isascii() and text.isprintable() and "  " not in text:
        return restored(text.strip())
    return restored(_BLANKS.sub(" ", _without_controls(text)).strip())


clean_text = lru_cache(maxsize=8192)(_cleaned)
"""Clean a text, with a cache for values of many rows. Rare values, such as barcodes, would only evict the others."""


def _without_controls(text: str) -> str:
    """Remove control characters except whitespace, which is handled later."""
    return text if text.replace("\n", "").isprintable() or _CONTROLS.search(text) is None else _CONTROLS.sub(" ", text)


@lru_cache(maxsize=4096)
def _clean_options(*options: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the options that distinguish variants, in the order of titles, without Shopify's placeholder."""
    cleaned = {_cleaned(name): _cleaned(value) for name, value in options}
    pairs = [
        (name, value)
        for name, value in cleaned.items()
        if value and not (value == "Default Title" or (name == "Title" and value == "Default"))
    ]
    if len(pairs) > 1:
        pairs.sort(key=lambda pair: (_OPTION_ORDER.get(pair[0].lower(), len(_OPTION_ORDER)), pair[0]))
    return tuple(pairs)


def _title(title: str, options: dict[str, str]) -> str:
    """Append the variant's options, unless the title contains all of them, as in Google feeds."""
    words = f" {_lowercase_words(title)} "
    for value in options.values():
        if f" {_lowercase_words(value).strip()} " not in words:
            break
    else:
        return title
    return f"{title} - {' / '.join(options.values())}"


@lru_cache(maxsize=4096)
def _lowercase_words(text: str) -> str:
    """Return the words of a text in lower case, separated by single spaces."""
    return _NOT_A_WORD.sub(" ", text.lower())


def _key(row: RawProduct, page: _Page, group: str, gtin: str, options: dict[str, str]) -> str:
    if page.key == "sku":
        sku = _cleaned(row.sku)
        if "+" in sku and lost_digits(sku):
            page.warning(WarningReason.LOST_DIGITS, f"the SKU {row.sku!r} has lost its last digits in a spreadsheet")
    else:
        sku = (gtin or clean_text(row.gtin)) if page.key == "barcode" else ""
    if not sku:
        if not group:
            detail = "the SKU is empty, and the row has no group to derive one from"
            if page.key != "sku":
                detail = f"the supplier's key is {page.key}, but the row has neither that nor a group"
            raise _RejectError(RejectReason.MISSING_SKU, detail)
        sku = "/".join([group, *(_slug(value) for value in options.values())])
    if len(sku) > MAX_SKU_CHARS:
        raise _RejectError(RejectReason.BAD_SKU, f"the SKU has {len(sku)} characters, more than {MAX_SKU_CHARS}")
    return sku


def _gtin(text: str, page: _Page) -> str:
    # Shopify writes an apostrophe before each.
    value = text[1:] if text[0] == "'" else text
    if not value.isdigit():
        value = _cleaned(text)
    try:
        return read_gtin(value)
    except GtinError as error:
        if lost_digits(value):
            page.warning(WarningReason.LOST_DIGITS, f"the GTIN {text!r} has lost its last digits in a spreadsheet")
        else:
            page.warning(WarningReason.BAD_GTIN, f"the GTIN {text!r} is ignored: {error}")
        return ""


@lru_cache(maxsize=4096)
def _slug(value: str) -> str:
    # Keep a value that only consists of signs, such as "+": otherwise nothing would be left.
    return _NOT_A_WORD.sub("-", value.lower()).strip("-") or value


def _prices(row: RawProduct, page: _Page) -> tuple[Money, Money | None]:
    """Return the price, and the price before a reduction, if any: in the same currency, and higher."""
    if not row.price.strip():
        also = ", and a sale price alone is not enough" if row.sale_price.strip() else ""
        raise _RejectError(RejectReason.MISSING_PRICE, f"the price is empty{also}")
    currency = row.currency_code or page.currency_code
    try:
        price = _amount(row.price, currency)
    except BadPriceError as error:
        raise _RejectError(RejectReason.BAD_PRICE, f"the price {row.price!r} is invalid: {error}") from None
    except BadCurrencyError as error:
        raise _RejectError(RejectReason.BAD_CURRENCY, f"the price {row.price!r} is invalid: {error}") from None
    if row.sale_price and row.sale_price.strip():
        sale = _sale_price(row, page, price, currency)
        if sale is not None:
            return _money(sale), _money(price)
    if not row.compare_at_price or not row.compare_at_price.strip():
        return _money(price), None
    try:
        before = _amount(row.compare_at_price, currency)
    except (BadPriceError, BadCurrencyError) as error:
        detail = f"the price before a reduction {row.compare_at_price!r} is ignored: {error}"
        page.warning(WarningReason.BAD_COMPARE_AT_PRICE, detail)
        return _money(price), None
    if before[0] != price[0] or before[1:] <= price[1:]:
        return _money(price), None
    return _money(price), _money(before)


@lru_cache(maxsize=16384)
def _amount(text: str, currency: str) -> tuple[str, int, int]:
    # Prices with only digits and a point, like most, need no cleaning.
    plain = text.isascii() and text.replace(".", "", 1).isdigit()
    return parse_money(text if plain else _cleaned(text), currency)


def _money(amount: tuple[str, int, int]) -> Money:
    return Money(currency_code=amount[0], units=amount[1], nanos=amount[2])


def _sale_price(
    row: RawProduct, page: _Page, price: tuple[str, int, int], currency: str
) -> tuple[str, int, int] | None:
    """Return the sale price if it is valid now, above zero and below the price."""
    if row.sale_price_effective_date.strip():
        try:
            begin, end = sale_dates(clean_text(row.sale_price_effective_date))
        except ValueError as error:
            dates = row.sale_price_effective_date
            page.warning(
                WarningReason.BAD_SALE_DATES, f"the dates of the sale price, {dates!r}, are unreadable: {error}"
            )
            return None
        if not begin <= page.now < end:
            return None
    try:
        sale = _amount(row.sale_price, currency)
    except (BadPriceError, BadCurrencyError) as error:
        page.warning(WarningReason.BAD_SALE_PRICE, f"the sale price {row.sale_price!r} is ignored: {error}")
        return None
    reason = ""
    if sale[1:] == (0, 0):
        reason = "it is zero"
    elif sale[0] != price[0]:
        reason = f"it is in {sale[0]}, the price in {price[0]}"
    elif sale[1:] >= price[1:]:
        reason = f"it is not below the price {row.price!r}"
    if reason:
        page.warning(WarningReason.BAD_SALE_PRICE, f"the sale price {row.sale_price!r} is ignored: {reason}")
        return None
    return sale


@lru_cache(maxsize=256)
def sale_dates(text: str) -> tuple[datetime, datetime]:
    """Parse two ISO 8601 times separated by a slash; without a time zone they are UTC, and a date is the whole day.

    Raises:
        ValueError: the text is invalid, or ends before it begins.
    """
    first, slash, last = (part.strip() for part in text.partition("/"))
    if not slash:
        raise ValueError("it is not two times with a slash between them")
    begin, end = _time(first), _time(last)
    if len(last) <= 10:
        end += timedelta(days=1)
    if end <= begin:
        raise ValueError("it ends before it begins")
    return begin, end


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


_Warnings = tuple[tuple[WarningReason, str], ...]


@lru_cache(maxsize=4096)
def _stock(stock: str, availability: str) -> tuple[int | None, Availability, _Warnings]:
    """Read quantity in stock and availability; each may be a word.

    A negative quantity, as of oversold products, is zero. Without an availability, the quantity decides; a quantity of
    zero is normal for preorders and backorders.
    """
    warnings: list[tuple[WarningReason, str]] = []
    pieces: int | None = None
    found = Availability.UNSPECIFIED
    stock, availability = _cleaned(stock), _cleaned(availability)
    number = _STOCK.fullmatch(stock)
    if number is not None:
        pieces = min(max(int(number[1]), 0), _MAX_STOCK)
    elif stock:
        found = _availability(stock)
        # If both are words, the unknown one is the availability.
        if found is Availability.UNSPECIFIED:
            known = any(char.isdigit() for char in stock) or availability
            reason = WarningReason.BAD_STOCK if known else WarningReason.UNKNOWN_AVAILABILITY
            warnings.append((reason, f"the stock {stock!r} is neither a number nor a known word"))
    if availability:
        stated = _availability(availability)
        if stated is Availability.UNSPECIFIED:
            detail = f"the availability {availability!r} is unknown"
            warnings.append((WarningReason.UNKNOWN_AVAILABILITY, detail))
        else:
            found = stated
    if pieces is None:
        return None, found, tuple(warnings)
    counted = Availability.IN_STOCK if pieces else Availability.OUT_OF_STOCK
    if found in (Availability.UNSPECIFIED, counted):
        return pieces, counted, tuple(warnings)
    if found in (Availability.IN_STOCK, Availability.OUT_OF_STOCK):
        detail = f"the availability is {availability!r} with a quantity of {pieces}; the product counts as out of stock"
        warnings.append((WarningReason.STOCK_MISMATCH, detail))
        found = Availability.OUT_OF_STOCK
    return pieces, found, tuple(warnings)


def _availability(text: str) -> Availability:
    word = _NOT_A_WORD.sub("_", _SCHEMA_ORG.sub("", text).lower()).strip("_")
    return _AVAILABILITY.get(word, Availability.UNSPECIFIED)


@lru_cache(maxsize=256)
def _publication(status: str, published: str) -> tuple[Publication, _Warnings]:
    """Return whether the shop sells a product. A hidden product is not sold, regardless of its status."""
    warnings: list[tuple[WarningReason, str]] = []
    found = Publication.UNSPECIFIED
    status, published = _cleaned(status), _cleaned(published)
    if status:
        found = _PUBLICATION.get(status.lower(), found)
        if found is Publication.UNSPECIFIED:
            warnings.append((WarningReason.UNKNOWN_STATUS, f"the status {status!r} is unknown"))
    if published:
        shown = _TRUTH.get(published.lower())
        if shown is None:
            warnings.append((WarningReason.UNKNOWN_STATUS, f"published is {published!r}, neither true nor false"))
        elif found in (Publication.UNSPECIFIED, Publication.ACTIVE) and not (shown and warnings):
            found = Publication.ACTIVE if shown else Publication.UNPUBLISHED
    return found, tuple(warnings)


def _weight(row: RawProduct, page: _Page) -> int | None:
    grams = _weight_grams(row.weight, row.weight_unit)
    if grams is None and row.weight.strip(" 0.,") and not _NO_WEIGHT.fullmatch(row.weight.strip()):
        page.warning(WarningReason.BAD_WEIGHT, f"the weight {row.weight!r} is ignored: it is unreadable")
    return grams


@lru_cache(maxsize=4096)
def _weight_grams(weight: str, weight_unit: str) -> int | None:
    """Parse a weight; None if it is invalid, or zero, which shops leave for unknown weights."""
    if weight_unit == "g" and len(weight) <= _GRAM_DIGITS and weight.isascii() and weight.isdigit():
        # The units in Shopify's exports.
        return int(weight) or None
    found = _WEIGHT.fullmatch(_cleaned(weight))
    if found is None:
        return None
    factor = _GRAMS.get((found[2] or _cleaned(weight_unit) or "g").lower().rstrip("."))
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
    """Return an absolute http or https URL with escaped spaces, or an empty string."""
    text = text.strip()
    if text.startswith("//"):
        text = f"https:{text}"
    text = text.replace(" ", "%20")
    # Printable text has no whitespace except spaces.
    return text if _WEB_ADDRESS.match(text) and text.isprintable() else ""


@lru_cache(maxsize=4096)
def _tags(text: str) -> tuple[str, ...]:
    return tuple(sorted({tag for tag in map(clean_text, text.split(",")) if tag}))


@lru_cache(maxsize=4096)
def _categories(*texts: str) -> tuple[str, ...]:
    return tuple(_unique(map(_cleaned, texts)))


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _as_json(row: RawProduct) -> str:
    """Write a row as JSON, with the long description last, where it may be cut."""
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
        "availability": row.availability,
        "sale_price": row.sale_price,
        "sale_price_effective_date": row.sale_price_effective_date,
        "status": row.status,
        "published": row.published,
        "weight": row.weight,
        "weight_unit": row.weight_unit,
        "categories": row.categories,
        "tags": row.tags,
        "link": row.link,
        "image_urls": row.image_urls,
        "body": row.body,
    }
    return json.dumps({name: value for name, value in fields.items() if value}, ensure_ascii=False)
