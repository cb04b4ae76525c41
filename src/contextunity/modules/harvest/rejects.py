"""Reasons for rejecting rows, and the record of a rejected row."""

from __future__ import annotations

from enum import StrEnum

from contextunity.gen.contextunity.harvest.v1 import RejectedRow, RowSeverity

__all__ = ["RAW_MAX_CHARS", "RejectReason", "WarningReason", "rejected_row", "warning_row"]

RAW_MAX_CHARS = 2000
"""Kept characters of a rejected row: enough to find it in the feed, and a limit on what a hostile feed can store."""


class RejectReason(StrEnum):
    """Values of `RejectedRow.reason`; reports and filters depend on them."""

    COLUMN_COUNT = "column_count"
    """The row has more or fewer values than the header has columns."""
    NUL_BYTE = "nul_byte"
    """The row contains a NUL character."""
    UNCLOSED_QUOTE = "unclosed_quote"
    """A quoted value is not closed before the end of the feed."""
    MISSING_HANDLE = "missing_handle"
    """The row of a Shopify export has no product handle."""
    EMPTY_ROW = "empty_row"
    """The row has neither a variant nor an image."""
    BAD_CSV = "bad_csv"
    """The row cannot be split into values."""
    BAD_XML = "bad_xml"
    """The item is not well-formed XML."""
    TRUNCATED = "truncated"
    """The feed is truncated, so entries may be missing."""
    BAD_JSON = "bad_json"
    """The line is not a JSON object."""
    BAD_FIELD = "bad_field"
    """A field has the wrong type."""
    MISSING_TITLE = "missing_title"
    """The product has no title."""
    MISSING_SKU = "missing_sku"
    """The product has no SKU, and none can be derived."""
    BAD_SKU = "bad_sku"
    """The SKU is longer than 255 characters, the limit of the transformation."""
    SKU_TOO_LONG = "sku_too_long"
    """The SKU is longer than 500 characters, the limit of the catalogue."""
    DUPLICATE_SKU = "duplicate_sku"
    """An earlier row of the same harvest has this SKU; `detail` names its line."""
    MISSING_PRICE = "missing_price"
    """The product has no price."""
    BAD_PRICE = "bad_price"
    """The price is not an amount of money, or is negative."""
    BAD_CURRENCY = "bad_currency"
    """The currency is missing or not an ISO 4217 code."""


class WarningReason(StrEnum):
    """Values of `RejectedRow.reason` for rows that are used without the invalid value."""

    BAD_SALE_PRICE = "bad_sale_price"
    """The sale price is unreadable, zero, or not below the price, so the price is used."""
    BAD_SALE_DATES = "bad_sale_dates"
    """The dates of the sale price are unreadable, so the price is used."""
    BAD_COMPARE_AT_PRICE = "bad_compare_at_price"
    """The price before a reduction is unreadable."""
    BAD_GTIN = "bad_gtin"
    """The GTIN is invalid, or has a wrong check digit or number of digits."""
    LOST_DIGITS = "lost_digits"
    """A spreadsheet program wrote a number as 9.78E+12; its last digits are lost."""
    BAD_STOCK = "bad_stock"
    """The quantity in stock is not a number."""
    UNKNOWN_AVAILABILITY = "unknown_availability"
    """The availability is an unknown word."""
    STOCK_MISMATCH = "stock_mismatch"
    """Quantity in stock and availability contradict each other; the product counts as out of stock."""
    BAD_WEIGHT = "bad_weight"
    """The weight is unreadable."""
    UNKNOWN_STATUS = "unknown_status"
    """The shop's status or publication is an unknown word."""
    STRAY_QUOTE = "stray_quote"
    """A value begins with a quote that is never closed, so the quote is part of the value."""
    GUESSED_ENCODING = "guessed_encoding"
    """The feed or the row is not UTF-8 and does not say its encoding, so it was guessed."""
    BAD_ENCODING = "bad_encoding"
    """The row has bytes that are invalid in the feed's encoding."""


def rejected_row(*, line: int, reason: RejectReason, detail: str, raw: str | bytes, sku: str = "") -> RejectedRow:
    """Make the record of a rejected row.

    Args:
        line: first line of the row in the feed, from 1.
        reason: reason, for programs.
        detail: reason, for people; names the field and its value.
        raw: the row as read; cut to `RAW_MAX_CHARS`. Bytes are decoded as UTF-8, or Windows-1252 if invalid.
        sku: SKU of the row, if known.
    """
    return _row(line, sku, reason, detail, raw, RowSeverity.REJECTED)


def warning_row(*, line: int, reason: WarningReason, detail: str, raw: str | bytes, sku: str = "") -> RejectedRow:
    """Make the record of a warning about a row that is used. See `rejected_row`."""
    return _row(line, sku, reason, detail, raw, RowSeverity.WARNING)


def _row(
    line: int, sku: str, reason: RejectReason | WarningReason, detail: str, raw: str | bytes, severity: RowSeverity
) -> RejectedRow:
    return RejectedRow(
        line=line,
        sku=_storable(sku),
        reason=reason.value,
        detail=_storable(detail),
        raw=_storable(_as_text(raw)),
        severity=severity,
    )


def _as_text(raw: str | bytes) -> str:
    if isinstance(raw, str):
        return raw
    # A character has at most four bytes, so this is enough, and a row of megabytes is not decoded.
    head = raw[: 4 * RAW_MAX_CHARS]
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        if error.end == len(head) and len(raw) > len(head):
            return head[: error.start].decode()
        return head.decode("cp1252", "replace")


def _storable(text: str) -> str:
    # PostgreSQL rejects NUL in a text, and no codec encodes half a surrogate pair.
    return text[:RAW_MAX_CHARS].replace("\0", "␀").encode("utf-8", "replace").decode()
