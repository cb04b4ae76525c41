"""Why rows are rejected: the stable words, and how a rejected row is written down."""

from __future__ import annotations

from enum import StrEnum

from contextunity.gen.contextunity.harvest.v1 import RejectedRow

__all__ = ["RAW_MAX_CHARS", "RejectReason", "rejected_row"]

RAW_MAX_CHARS = 2000
"""How much of a rejected row is kept: enough to find it in the feed, and a bound on what a hostile feed can store."""


class RejectReason(StrEnum):
    """Words that `RejectedRow.reason` holds; reports and filters depend on them."""

    COLUMN_COUNT = "column_count"
    """The row has more or fewer values than the header has columns."""
    NUL_BYTE = "nul_byte"
    """The row has a NUL, which no text holds."""
    UNCLOSED_QUOTE = "unclosed_quote"
    """A quoted value is still open where the feed ends."""
    MISSING_HANDLE = "missing_handle"
    """The row of a Shopify export says to no product that it belongs to."""
    EMPTY_ROW = "empty_row"
    """The row has neither a variant nor an image."""
    BAD_CSV = "bad_csv"
    """The row cannot be split into values."""
    BAD_XML = "bad_xml"
    """The item is not well-formed XML."""
    TRUNCATED = "truncated"
    """The feed stops before its end, so entries may be missing."""
    BAD_JSON = "bad_json"
    """The line is not a JSON object."""
    BAD_FIELD = "bad_field"
    """A field holds something of another type."""
    MISSING_TITLE = "missing_title"
    """The product has no title."""
    MISSING_SKU = "missing_sku"
    """The product has no SKU, and none can be derived."""
    BAD_SKU = "bad_sku"
    """The SKU is too long to be a key."""
    MISSING_PRICE = "missing_price"
    """The product has no price."""
    BAD_PRICE = "bad_price"
    """The price is no amount of money, or is negative."""
    BAD_CURRENCY = "bad_currency"
    """The currency is missing or is no ISO 4217 code."""


def rejected_row(*, line: int, reason: RejectReason, detail: str, raw: str | bytes, sku: str = "") -> RejectedRow:
    """Write down a row that could not be used.

    Args:
        line: line of the feed that it begins on, from 1.
        reason: why, for programs.
        detail: why, for people; names the field and its value.
        raw: the row as read; cut to `RAW_MAX_CHARS`. Bytes are read as UTF-8, or as Windows-1252 where they are not.
        sku: its SKU, where one can be made out.
    """
    return RejectedRow(
        line=line, sku=_storable(sku), reason=reason.value, detail=_storable(detail), raw=_storable(_as_text(raw))
    )


def _as_text(raw: str | bytes) -> str:
    if isinstance(raw, str):
        return raw
    # Four bytes are the longest character, so this is always enough, and a row of megabytes is not decoded for it.
    head = raw[: 4 * RAW_MAX_CHARS]
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        if error.end == len(head) and len(raw) > len(head):
            return head[: error.start].decode()
        return head.decode("cp1252", "replace")


def _storable(text: str) -> str:
    # PostgreSQL takes no NUL in a text, and no codec takes half a surrogate pair.
    return text[:RAW_MAX_CHARS].replace("\0", "␀").encode("utf-8", "replace").decode()
