"""Reads a Google Merchant feed of tab-separated values: one item a row."""

from __future__ import annotations

import csv
import re
from functools import lru_cache

from ..rejects import rejected_row, warning_row
from ._delimited import split_records
from ._google import attribute_name, google_product
from ._model import Chunk

REQUIRED_ATTRIBUTES = ("id", "title", "price")
"""Without these a file of tab-separated values is not a product feed."""

_LISTS = frozenset({"additional_image_link"})
"""Attributes whose value is a list with commas in TSV, where XML repeats the element."""
_DIGIT = re.compile(r"[0-9]")


@lru_cache(maxsize=64)
def split_attributes(prologue: bytes) -> tuple[str, ...]:
    """Read the header row as documented attribute names."""
    text = prologue.decode("utf-8-sig", "replace")
    header = next(csv.reader(text.splitlines(keepends=True), delimiter="\t"), None)
    return tuple(attribute_name(name) for name in header or ())


def parse_google_tsv(data: bytes, *, prologue: bytes, line: int, limit: int, final: bool, encoding: str = "") -> Chunk:
    """Read items; every row is an entry. See `EntryParser`."""
    names = split_attributes(prologue)
    sku, price = names.index("id"), names.index("price")
    chunk = Chunk()
    records = split_records(
        data,
        delimiter="\t",
        columns=len(names),
        final=final,
        encoding=encoding,
        is_row=lambda values: bool(values[sku].strip()) and _DIGIT.search(values[price]) is not None,
    )
    for record in records:
        at = line + record.line + 1
        if record.fault is None:
            product = google_product(at, _values(names, record.fields))
            chunk.products.append(product)
            for reason, detail in record.doubts:
                raw = data[record.start : record.end]
                chunk.warnings.append(warning_row(line=at, reason=reason, detail=detail, raw=raw, sku=product.sku))
        else:
            raw = data[record.start : record.end]
            # What stands first is known even where the values behind it are out of place.
            # With values too few or too many the first still is what it is, unless nothing divides it from the rest.
            whole = len(record.fields) == len(names) or (sku == 0 and len(record.fields) > 1)
            known = record.fields[sku] if whole else ""
            rejected = rejected_row(line=at, reason=record.fault, detail=record.detail, raw=raw, sku=known)
            chunk.rejected.append(rejected)
        chunk.entries += 1
        chunk.consumed = record.end
        if chunk.entries >= limit:
            break
    else:
        if final:
            chunk.consumed = len(data)
    return chunk


def _values(names: tuple[str, ...], fields: list[str]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, text in zip(names, fields, strict=True):
        value = text.strip()
        if value:
            parts = [part.strip() for part in value.split(",")] if name in _LISTS else [value]
            values.setdefault(name, []).extend(part for part in parts if part)
    return values
