"""Read Shopify's product export: CSV with one row per variant or image, grouped by handle."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from contextunity.gen.contextunity.harvest.v1 import RawProduct, RejectedRow

from ..rejects import RejectReason, rejected_row, warning_row
from ..spreadsheet import restored
from .delimited import Record, split_records
from .model import Chunk

REQUIRED_COLUMNS = ("Handle", "Title", "Variant Price")
"""Required columns of a product export."""

_VARIANT_COLUMNS = (
    "Option1 Value",
    "Option2 Value",
    "Option3 Value",
    "Variant SKU",
    "Variant Price",
    "Variant Barcode",
)
"""A row with any of these is a variant; a row without them is another image of the product. Some exports write a
quantity or weight of zero into the rows of images too."""

_HANDLE = re.compile(r"[^\s<>\"]+")
_NUMBER = re.compile(r"[0-9][0-9.,]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    """Indexes of the values in a row; -1 for a missing column."""

    count: int
    handle: int
    title: int
    body: int
    vendor: int
    type: int
    tags: int
    product_category: int
    google_category: int
    mpn: int
    image: int
    variant_image: int
    sku: int
    grams: int
    weight: int
    weight_unit: int
    stock: int
    tracker: int
    policy: int
    price: int
    compare_at: int
    barcode: int
    status: int
    published: tuple[int, ...]
    """Columns for whether the shop shows the product."""
    markets: tuple[int, ...]
    """Columns for whether one of its markets shows the product."""
    options: tuple[tuple[str, int, int], ...]
    """For each option, its default name and the indexes of its name and value."""
    variant: tuple[int, ...]

    def is_row(self, values: Sequence[str]) -> bool:
        """Return whether a line is a row: its handle is one word, and its price, if any, a number."""
        price = values[self.price].strip()
        return _HANDLE.fullmatch(values[self.handle]) is not None and (
            not price or _NUMBER.fullmatch(price) is not None
        )


def split_header(prologue: bytes) -> list[str]:
    """Read the header row: column names without byte order mark and outer whitespace."""
    text = prologue.decode("utf-8-sig", "replace")
    header = next(csv.reader(text.splitlines(keepends=True)), None)
    return [name.strip() for name in header or ()]


@lru_cache(maxsize=64)
def _columns(prologue: bytes) -> _Columns:
    names = split_header(prologue)
    places = {name: index for index, name in reversed(list(enumerate(names)))}

    def place(name: str) -> int:
        return places.get(name, -1)

    return _Columns(
        count=len(names),
        handle=place("Handle"),
        title=place("Title"),
        body=place("Body (HTML)"),
        vendor=place("Vendor"),
        type=place("Type"),
        tags=place("Tags"),
        product_category=place("Product Category"),
        google_category=place("Google Shopping / Google Product Category"),
        mpn=place("Google Shopping / MPN"),
        image=place("Image Src"),
        variant_image=place("Variant Image"),
        sku=place("Variant SKU"),
        grams=place("Variant Grams"),
        weight=place("Variant Weight"),
        weight_unit=place("Variant Weight Unit"),
        stock=place("Variant Inventory Qty"),
        tracker=place("Variant Inventory Tracker"),
        policy=place("Variant Inventory Policy"),
        price=place("Variant Price"),
        compare_at=place("Variant Compare At Price"),
        barcode=place("Variant Barcode"),
        status=place("Status"),
        published=tuple(
            index for index, name in enumerate(names) if name.lower() in ("published", "published on online store")
        ),
        markets=tuple(index for index, name in enumerate(names) if name.lower().startswith("included /")),
        options=tuple(
            (option, place(f"{option} Name"), places[f"{option} Value"])
            for option in ("Option1", "Option2", "Option3")
            if f"{option} Value" in places
        ),
        variant=tuple(places[name] for name in _VARIANT_COLUMNS if name in places),
    )


def parse_shopify(data: bytes, *, prologue: bytes, line: int, limit: int, final: bool, encoding: str = "") -> Chunk:
    """Read products; an entry is a group of rows with the same handle. See `EntryParser`.

    An unreadable row belongs to the group before it, so that it does not split a group; before the first group of
    `data` it is a separate entry.
    """
    columns = _columns(prologue)
    chunk = Chunk()
    # Errors in rows of the current group, which may not end in these bytes.
    pending = Chunk()
    group: list[tuple[int, list[str]]] = []
    written = handle = ""
    for record in split_records(
        data, delimiter=",", columns=columns.count, final=final, encoding=encoding, is_row=columns.is_row
    ):
        at = line + record.line + 1
        reject_reason = _reject_reason(record, columns)
        if reject_reason is not None:
            bad = _reject(record, reject_reason, data=data, line=at, columns=columns)
            if group:
                pending.rejected.append(bad)
                continue
            chunk.rejected.append(bad)
            chunk.entries += 1
            chunk.consumed = record.end
        else:
            fields = record.fields
            if not group or fields[columns.handle] != written:
                written = fields[columns.handle]
                found = restored(written.strip())
                if group and found != handle:
                    _close_group(group, columns, chunk, pending)
                    group = []
                    if pending.rejected or pending.warnings:
                        pending = Chunk()
                    chunk.consumed = record.start
                    if chunk.entries >= limit:
                        break
                handle = found
            group.append((at, fields))
            for reason, detail in record.warnings:
                raw, sku = data[record.start : record.end], fields[columns.sku] if columns.sku >= 0 else ""
                pending.warnings.append(warning_row(line=at, reason=reason, detail=detail, raw=raw, sku=sku))
            continue
        if chunk.entries >= limit:
            break
    else:
        if final:
            if group:
                _close_group(group, columns, chunk, pending)
            chunk.consumed = len(data)
    return chunk


def _reject_reason(record: Record, columns: _Columns) -> tuple[RejectReason, str] | None:
    if record.reject_reason is not None:
        return record.reject_reason, record.detail
    if not record.fields[columns.handle]:
        return RejectReason.MISSING_HANDLE, "the column Handle is empty"
    return None


def _reject(
    record: Record, reject_reason: tuple[RejectReason, str], *, data: bytes, line: int, columns: _Columns
) -> RejectedRow:
    reason, detail = reject_reason
    good = len(record.fields) == columns.count and columns.sku >= 0
    sku = record.fields[columns.sku].strip() if good else ""
    return rejected_row(line=line, reason=reason, detail=detail, raw=data[record.start : record.end], sku=sku)


def _close_group(group: list[tuple[int, list[str]]], columns: _Columns, chunk: Chunk, pending: Chunk) -> None:
    """Make one product from each variant row; empty values come from the first row of its group.

    Args:
        group: line and values of each row.
        columns: indexes of the values.
        chunk: receives the products, and the pending errors.
        pending: errors in rows of the group.
    """
    # A missing column has index -1: append an empty value to each row, which -1 then selects.
    for _, row in group:
        row.append("")
    head = group[0][1]
    images = [url for _, row in group if (url := row[columns.image])]
    names = [(head[name] or option, value) for option, name, value in columns.options]
    for line, row in group:
        if row is not head and not any(map(row.__getitem__, columns.variant)):
            if not row[columns.image]:
                detail = "the row has neither a variant nor an image"
                raw = ",".join(row[:-1])
                bad = rejected_row(line=line, reason=RejectReason.EMPTY_ROW, detail=detail, raw=raw)
                chunk.rejected.append(bad)
            continue
        chunk.products.append(_product(line, row, head, columns, images, names))
    chunk.rejected += pending.rejected
    chunk.warnings += pending.warnings
    chunk.entries += 1


def _product(
    line: int,
    row: list[str],
    head: list[str],
    columns: _Columns,
    images: list[str],
    names: list[tuple[str, int]],
) -> RawProduct:
    own_image = row[columns.variant_image]
    weight, unit = (row[columns.grams], "g") if columns.grams >= 0 else (row[columns.weight], row[columns.weight_unit])
    category = row[columns.type] or head[columns.type]
    google = row[columns.google_category] or head[columns.google_category]
    stock, availability = _stock(row, columns)
    further = row[columns.product_category] or head[columns.product_category]
    return RawProduct(
        line=line,
        sku=row[columns.sku],
        group=row[columns.handle],
        title=row[columns.title] or head[columns.title],
        body=row[columns.body] or head[columns.body],
        brand=row[columns.vendor] or head[columns.vendor],
        price=row[columns.price],
        compare_at_price=row[columns.compare_at],
        gtin=row[columns.barcode],
        stock=stock,
        availability=availability,
        weight=weight,
        weight_unit=unit if weight else "",
        image_urls=[own_image, *(url for url in images if url != own_image)] if own_image else list(images),
        categories=[text for text in (category, further, google) if text],
        tags=row[columns.tags] or head[columns.tags],
        options={name: row[value] for name, value in names if row[value]},
        mpn=row[columns.mpn] or head[columns.mpn],
        status=row[columns.status] or head[columns.status],
        published=_published(row, head, columns),
    )


def _published(row: list[str], head: list[str], columns: _Columns) -> str:
    """Return whether the product is shown: not if a column says so, or if no market shows it."""
    if len(columns.published) == 1 and not columns.markets:
        (place,) = columns.published
        return row[place] or head[place]
    shown = [value for place in columns.published if (value := row[place] or head[place])]
    hidden = [value for value in shown if value.strip().lower() == "false"]
    if hidden:
        return hidden[0]
    markets = [value for place in columns.markets if (value := row[place] or head[place])]
    if markets and all(value.strip().lower() == "false" for value in markets):
        return markets[0]
    return shown[0] if shown else ""


def _stock(row: list[str], columns: _Columns) -> tuple[str, str]:
    """Return quantity in stock and availability; a quantity is valid only if the shop tracks it.

    Untracked products can always be bought, and the policy "continue" sells below zero.
    """
    quantity = row[columns.stock]
    if not quantity.isdigit():
        quantity = restored(quantity.strip())
    if columns.tracker >= 0 and not row[columns.tracker]:
        return "", "in_stock" if quantity else ""
    if row[columns.policy] == "continue" and (quantity == "0" or quantity.startswith("-")):
        return quantity, "backorder"
    return quantity, ""
