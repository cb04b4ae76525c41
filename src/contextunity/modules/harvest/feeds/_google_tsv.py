"""Reads a Google Merchant feed of tab-separated values: one item a row."""

from __future__ import annotations

import csv
from functools import lru_cache

from contextunity.gen.contextunity.harvest.v1 import RawProduct, RejectedRow

from ..rejects import rejected_row
from ._delimited import split_records
from ._google import attribute_name, google_product
from ._model import Chunk

REQUIRED_ATTRIBUTES = ("id", "title", "price")
"""Without these a file of tab-separated values is not a product feed."""

_LISTS = frozenset({"additional_image_link"})
"""Attributes whose value is a list with commas in TSV, where XML repeats the element."""


@lru_cache(maxsize=64)
def split_attributes(prologue: bytes) -> tuple[str, ...]:
    """Read the header row as documented attribute names."""
    text = prologue.decode("utf-8-sig", "replace")
    header = next(csv.reader(text.splitlines(keepends=True), delimiter="\t"), None)
    return tuple(attribute_name(name) for name in header or ())


def parse_google_tsv(data: bytes, *, prologue: bytes, line: int, limit: int, final: bool) -> Chunk:
    """Read items; every row is an entry. See `EntryParser`."""
    names = split_attributes(prologue)
    sku = names.index("id")
    products: list[RawProduct] = []
    rejected: list[RejectedRow] = []
    entries = consumed = place = 0
    for record in split_records(data, delimiter="\t", columns=len(names), final=final):
        line += data.count(b"\n", place, record.start)
        place = record.start
        if record.fault is None:
            products.append(google_product(line + 1, _values(names, record.fields)))
        else:
            raw = data[record.start : record.end]
            known = record.fields[sku] if len(record.fields) == len(names) else ""
            rejected.append(rejected_row(line=line + 1, reason=record.fault, detail=record.detail, raw=raw, sku=known))
        entries += 1
        consumed = record.end
        if entries >= limit:
            break
    else:
        if final:
            consumed = len(data)
    return Chunk(products=products, rejected=rejected, entries=entries, consumed=consumed)


def _values(names: tuple[str, ...], fields: list[str]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, text in zip(names, fields, strict=True):
        value = text.strip()
        if value:
            parts = [part.strip() for part in value.split(",")] if name in _LISTS else [value]
            values.setdefault(name, []).extend(part for part in parts if part)
    return values
