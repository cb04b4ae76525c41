"""Enrichments: data derived from products, and the selection of products to enrich."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from contextunity.gen.contextunity.harvest.v1 import Enrichment, EnrichmentCursor, ProductToEnrich
from pydantic_core import from_json
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, or_, select, tuple_

from contextunity.core import codec
from contextunity.modules.harvest.catalogue.database import Database
from contextunity.modules.harvest.catalogue.harvests import in_catalogue
from contextunity.modules.harvest.catalogue.products import replace_nul
from contextunity.modules.harvest.catalogue.tables import enrichments, products

__all__ = ["Wanted", "count_enriched", "count_to_enrich", "put_enrichments", "sample_enriched", "to_enrich"]

_LOOKUP_SIZE = 500
_MAX_DESCRIPTION = 4000
"""Maximum characters. Cuts off a shop's standard text at the end of each description, and limits the page size."""
_JSON = json.JSONEncoder(ensure_ascii=False).encode
"""Cached, because json.dumps creates an encoder for each call with options."""
_LISTS = ("colors", "materials", "missing")
_VALUES = (
    *("category", "colors", "size", "materials", "brand"),
    *("completeness", "missing", "enricher", "rules_version", "content_hash", "enriched_at"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrichedRow:
    """An enrichment for display."""

    supplier_code: str
    """Supplier of the product."""
    sku: str
    """SKU of the product."""
    title: str
    """Title from the supplier."""
    category: str
    """Path in the taxonomy; empty if unknown."""
    colors: tuple[str, ...]
    """Colours by their plain names."""
    size: str
    """Size; empty if unknown."""
    materials: tuple[str, ...]
    """Materials."""
    brand: str
    """Brand in its standard spelling."""
    completeness: int
    """How complete the product is, 0 to 100."""
    missing: tuple[str, ...]
    """Reasons for a completeness below 100."""
    rules_version: str
    """Version of the rules."""
    enricher: str
    """rules or router."""
    is_current: bool
    """Whether the product is unchanged since then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Selection of products to enrich."""

    rules_version: str
    """Current version: products enriched by another version, or never, are selected."""
    supplier_code: str = ""
    """Supplier of the products; empty for all."""
    skus: tuple[str, ...] = ()
    """SKUs of the products; empty for all."""
    force: bool = False
    """Select also unchanged products that this version has enriched."""


def to_enrich(
    connection: Connection,
    tenant_id: str,
    wanted: Wanted,
    *,
    after: EnrichmentCursor | None,
    limit: int,
    max_bytes: int,
) -> tuple[list[ProductToEnrich], EnrichmentCursor | None]:
    """Return a page of products to enrich, and the start of the next one; None if it is the last one."""
    table = products.c
    statement = _wanted(
        select(
            table.supplier_code,
            table.sku,
            table.content_hash,
            table.gtin,
            table.price_units,
            table.weight_grams,
            table.data,
        ),
        tenant_id,
        wanted,
    )
    if wanted.supplier_code:
        # SQLite would sort all remaining rows for each page if constant columns were compared and ordered.
        statement = statement.order_by(table.sku)
        if after is not None:
            statement = statement.where(table.sku > after.sku)
    else:
        statement = statement.order_by(table.supplier_code, table.sku)
        if after is not None:
            statement = statement.where(tuple_(table.supplier_code, table.sku) > (after.supplier_code, after.sku))
    page: list[ProductToEnrich] = []
    size = 0
    for row in connection.execute(statement.limit(limit + 1)):
        product = _to_message(row)
        size += len(codec.encode(product))
        if len(page) == limit or (page and size > max_bytes):
            return page, EnrichmentCursor(supplier_code=page[-1].supplier_code, sku=page[-1].sku)
        page.append(product)
    return page, None


def count_to_enrich(connection: Connection, tenant_id: str, wanted: Wanted) -> int:
    """Count the products to enrich."""
    return connection.scalar(_wanted(select(func.count()), tenant_id, wanted)) or 0


def _wanted(columns: Select[*tuple[Any, ...]], tenant_id: str, wanted: Wanted) -> Select[*tuple[Any, ...]]:
    made = enrichments.c
    statement = columns.select_from(products.outerjoin(enrichments, _of_product())).where(
        products.c.tenant_id == tenant_id, products.c.delisted_at.is_(None)
    )
    if not wanted.force:
        statement = statement.where(
            or_(
                made.sku.is_(None),
                made.rules_version != wanted.rules_version,
                made.content_hash != products.c.content_hash,
            )
        )
    if wanted.supplier_code:
        statement = statement.where(products.c.supplier_code == wanted.supplier_code)
    if wanted.skus:
        statement = statement.where(products.c.sku.in_([replace_nul(sku) for sku in wanted.skus]))
    return statement


def _of_product() -> ColumnElement[bool]:
    return and_(
        enrichments.c.tenant_id == products.c.tenant_id,
        enrichments.c.supplier_code == products.c.supplier_code,
        enrichments.c.sku == products.c.sku,
    )


def _to_message(row: Row[Any]) -> ProductToEnrich:
    # Plain JSON: decoding the message takes ten times as long, and only a few values are needed.
    data: dict[str, Any] = from_json(row.data)
    return ProductToEnrich(
        supplier_code=row.supplier_code,
        sku=row.sku,
        content_hash=row.content_hash,
        title=data.get("title", ""),
        brand=data.get("brand", ""),
        description=data.get("description", "")[:_MAX_DESCRIPTION],
        categories=data.get("categories", []),
        tags=data.get("tags", []),
        options=data.get("options", {}),
        gtin=row.gtin,
        priced=row.price_units is not None,
        images=len(data.get("image_urls", ())),
        weight_grams=row.weight_grams,
    )


def put_enrichments(
    database: Database, connection: Connection, tenant_id: str, found: Sequence[Enrichment], rules_version: str
) -> int:
    """Write enrichments of existing products; of several for one product, the last one."""
    by_key = {(each.supplier_code, replace_nul(each.sku)): each for each in found}
    there = _existing(connection, tenant_id, by_key)
    # In the order of the key, so that two writers of the same rows wait for each other instead of deadlocking.
    rows = [_to_row(*key, by_key[key]) for key in sorted(there)]
    same = {"tenant_id": tenant_id, "rules_version": replace_nul(rules_version), "enriched_at": datetime.now(UTC)}
    database.execute_many(connection, database.upsert(enrichments, *_VALUES), rows, same)
    return len(there)


def _existing(connection: Connection, tenant_id: str, keys: dict[tuple[str, str], Enrichment]) -> set[tuple[str, str]]:
    there = set[tuple[str, str]]()
    for supplier_code in {supplier_code for supplier_code, _ in keys}:
        skus = [sku for of_supplier, sku in keys if of_supplier == supplier_code]
        for some in _slices(skus):
            known = select(products.c.sku).where(
                in_catalogue(products, tenant_id, supplier_code), products.c.sku.in_(some)
            )
            there.update((supplier_code, sku) for sku in connection.scalars(known))
    return there


def _slices(skus: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(skus), _LOOKUP_SIZE):
        yield skus[start : start + _LOOKUP_SIZE]


def _to_row(supplier_code: str, sku: str, made: Enrichment) -> dict[str, Any]:
    return {
        "supplier_code": supplier_code,
        "sku": sku,
        "category": replace_nul(made.category),
        "colors": _to_list(made.colors),
        "size": replace_nul(made.size),
        "materials": _to_list(made.materials),
        "brand": replace_nul(made.brand),
        "completeness": made.completeness,
        "missing": _to_list(made.missing),
        "enricher": replace_nul(made.enricher),
        "content_hash": replace_nul(made.content_hash),
    }


def _to_list(texts: Sequence[str]) -> str:
    return _JSON([replace_nul(text) for text in texts]) if texts else "[]"


def sample_enriched(connection: Connection, tenant_id: str, supplier_code: str, limit: int) -> list[EnrichedRow]:
    """Return a few enriched products, ordered by SKU."""
    found = connection.execute(
        select(enrichments, products.c.title, products.c.content_hash.label("content_now"))
        .select_from(products.join(enrichments, _of_product()))
        .where(in_catalogue(enrichments, tenant_id, supplier_code))
        .order_by(enrichments.c.sku)
        .limit(limit)
    )
    return [
        EnrichedRow(
            supplier_code=row.supplier_code,
            sku=row.sku,
            title=row.title,
            category=row.category,
            size=row.size,
            brand=row.brand,
            completeness=row.completeness,
            rules_version=row.rules_version,
            enricher=row.enricher,
            is_current=row.content_hash == row.content_now,
            **{name: tuple(json.loads(getattr(row, name))) for name in _LISTS},
        )
        for row in found
    ]


def count_enriched(connection: Connection, tenant_id: str, supplier_code: str) -> int:
    """Count the enriched products of a supplier."""
    where = in_catalogue(enrichments, tenant_id, supplier_code)
    return connection.scalar(select(func.count()).select_from(enrichments).where(where)) or 0
