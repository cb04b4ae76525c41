"""Questions to the catalogue: what it holds of a supplier, and what was rejected."""

from __future__ import annotations

from typing import Any

from contextunity.gen.contextunity.harvest.v1 import RejectedRow, RowSeverity
from sqlalchemy import Connection, Row, and_, func, or_, select

from contextunity.modules.harvest.catalogue.harvests import CatalogueRow, in_catalogue, in_harvest
from contextunity.modules.harvest.catalogue.products import clean_text, decimal_price, product_from_json
from contextunity.modules.harvest.catalogue.tables import harvests, products, rejected_rows, suppliers

__all__ = [
    "count_products",
    "find_product",
    "list_rejected",
    "list_suppliers",
    "newest_harvest",
    "page_of_rejected",
    "reading_of",
    "rejected_by_reason",
    "sample_products",
]

_SEVERITIES = {RowSeverity.REJECTED: "rejected", RowSeverity.WARNING: "warning"}
_BY_WORD = {word: severity for severity, word in _SEVERITIES.items()}


def sample_products(connection: Connection, tenant_id: str, supplier_code: str, limit: int) -> list[CatalogueRow]:
    """Give a few listed products that the shop sells, in the order of their SKUs."""
    table = products.c
    found = connection.execute(
        select(products)
        .where(
            in_catalogue(products, tenant_id, supplier_code),
            table.delisted_at.is_(None),
            table.publication.in_(("", "active")),
        )
        .order_by(table.sku)
        .limit(limit)
    )
    return [
        CatalogueRow(
            sku=row.sku,
            title=row.title,
            brand=row.brand,
            price=decimal_price(row.price_units, row.price_nanos),
            currency_code=row.currency_code,
            stock=row.stock,
            availability=row.availability,
            updated_at=row.updated_at,
            publication=row.publication,
            delisted_at=row.delisted_at,
        )
        for row in found
    ]


def find_product(connection: Connection, tenant_id: str, supplier_code: str, sku: str) -> bytes | None:
    """Give the wire form of a product, or None where the catalogue does not have it."""
    row = connection.execute(
        select(products.c.data, products.c.first_line).where(
            in_catalogue(products, tenant_id, supplier_code), products.c.sku == clean_text(sku)
        )
    ).one_or_none()
    if row is None:
        return None
    product = product_from_json(row.data)
    product.line = row.first_line
    return product.SerializeToString()


def list_suppliers(connection: Connection, tenant_id: str) -> list[str]:
    """Give the suppliers that a tenant has a catalogue of, sorted."""
    found = connection.execute(
        select(suppliers.c.supplier_code).where(suppliers.c.tenant_id == tenant_id).order_by(suppliers.c.supplier_code)
    )
    return [row.supplier_code for row in found]


def count_products(connection: Connection, tenant_id: str, supplier_code: str, *, delisted: bool | None) -> int:
    """Count products: all of them, or those alone that are or are not marked as no longer listed."""
    statement = select(func.count()).where(in_catalogue(products, tenant_id, supplier_code))
    if delisted is not None:
        marked = products.c.delisted_at
        statement = statement.where(marked.is_not(None) if delisted else marked.is_(None))
    return connection.scalar(statement) or 0


def list_rejected(
    connection: Connection,
    tenant_id: str,
    supplier_code: str,
    harvest_id: str,
    limit: int,
    severity: RowSeverity = RowSeverity.REJECTED,
) -> list[RejectedRow]:
    """Give the first rejected rows of a harvest, or the first doubts about others, in the order of the feed."""
    table = rejected_rows.c
    found = connection.execute(
        select(rejected_rows)
        .where(in_harvest(rejected_rows, tenant_id, supplier_code, harvest_id), table.severity == _SEVERITIES[severity])
        .order_by(table.page, table.position)
        .limit(limit)
    )
    return [_to_message(row) for row in found]


def _to_message(row: Row[Any]) -> RejectedRow:
    return RejectedRow(
        line=row.line,
        sku=row.sku,
        reason=row.reason,
        detail=row.detail,
        raw=row.raw,
        severity=_BY_WORD[row.severity],
    )


def newest_harvest(connection: Connection, tenant_id: str, supplier_code: str) -> str:
    """Give the harvest that began last of those that read the feed; empty where there was none."""
    table = harvests.c
    newest = select(table.harvest_id).where(
        in_catalogue(harvests, tenant_id, supplier_code), table.unchanged_since.is_(None)
    )
    return connection.scalar(newest.order_by(table.started_at.desc(), table.harvest_id.desc()).limit(1)) or ""


def reading_of(connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str) -> str:
    """Give the harvest whose reading of the feed a harvest stands by: mostly itself."""
    where = in_harvest(harvests, tenant_id, supplier_code, harvest_id)
    return connection.scalar(select(harvests.c.unchanged_since).where(where)) or harvest_id


def page_of_rejected(
    connection: Connection,
    tenant_id: str,
    supplier_code: str,
    harvest_id: str,
    *,
    reason: str,
    severity: RowSeverity,
    after: tuple[int, int] | None,
    limit: int,
    max_bytes: int,
) -> tuple[list[RejectedRow], tuple[int, int] | None]:
    """Give rejected rows of a harvest, and the place after which the next page begins; None where it is the last one.

    Args:
        connection: to the catalogue.
        tenant_id: whose.
        supplier_code: of which supplier.
        harvest_id: of which harvest.
        reason: rejected for what; empty for any.
        severity: REJECTED or WARNING; UNSPECIFIED for both.
        after: the place, page and position, that the page before gave.
        limit: rows at most.
        max_bytes: bytes of their texts at most; one row is always given.
    """
    table = rejected_rows.c
    statement = select(rejected_rows).where(in_harvest(rejected_rows, tenant_id, supplier_code, harvest_id))
    if reason:
        statement = statement.where(table.reason == reason)
    if severity:
        statement = statement.where(table.severity == _SEVERITIES[severity])
    if after is not None:
        page, position = after
        statement = statement.where(or_(table.page > page, and_(table.page == page, table.position > position)))
    rows: list[RejectedRow] = []
    place, size = after, 0
    for row in connection.execute(statement.order_by(table.page, table.position).limit(limit + 1)):
        size += sum(len(text.encode()) for text in (row.sku, row.reason, row.detail, row.raw))
        if len(rows) == limit or (rows and size > max_bytes):
            return rows, place
        rows.append(_to_message(row))
        place = (row.page, row.position)
    return rows, None


def rejected_by_reason(
    connection: Connection,
    tenant_id: str,
    supplier_code: str,
    harvest_id: str,
    severity: RowSeverity = RowSeverity.REJECTED,
) -> dict[str, int]:
    """Count the rejected rows of a harvest, or the doubts, by their reason, in the order of the reasons."""
    reason = rejected_rows.c.reason
    found = connection.execute(
        select(reason, func.count().label("number"))
        .where(
            in_harvest(rejected_rows, tenant_id, supplier_code, harvest_id),
            rejected_rows.c.severity == _SEVERITIES[severity],
        )
        .group_by(reason)
        .order_by(reason)
    )
    return {row.reason: row.number for row in found}
