"""Rejected rows and warnings of harvests: reading them, and deleting the oldest ones above a limit.

Counts are kept even if rows are deleted, because a harvest reports how many rows were rejected.
"""

from __future__ import annotations

from typing import Any

from contextunity.gen.contextunity.harvest.v1 import PageRef, RejectedRow, RowSeverity
from sqlalchemy import Connection, Row, and_, bindparam, delete, func, or_, select, update

from contextunity.modules.harvest.catalogue.database import Database
from contextunity.modules.harvest.catalogue.harvests import in_harvest, lock_catalogue, on_page
from contextunity.modules.harvest.catalogue.tables import harvest_pages, harvests, rejected_rows

__all__ = [
    "ROW_BYTES",
    "dropped_rows",
    "list_rejected",
    "page_of_rejected",
    "rejected_by_reason",
    "trim_rejected",
]

ROW_BYTES = 100
"""Approximate size of a row without its texts."""

_USED = (
    select(func.count() - func.count(harvest_pages.c.rejected_bytes), func.sum(harvest_pages.c.rejected_bytes))
    .select_from(harvest_pages)
    .where(harvest_pages.c.tenant_id == bindparam("of_tenant"))
)
"""Pages of a tenant without a recorded size, and the size of all others."""

_SEVERITIES = {RowSeverity.REJECTED: "rejected", RowSeverity.WARNING: "warning"}
_BY_WORD = {word: severity for severity, word in _SEVERITIES.items()}


def list_rejected(
    connection: Connection,
    tenant_id: str,
    supplier_code: str,
    harvest_id: str,
    limit: int,
    severity: RowSeverity = RowSeverity.REJECTED,
) -> list[RejectedRow]:
    """Return the first rejected rows of a harvest, or the first warnings, in the order of the feed."""
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
    """See `Catalogue.page_of_rejected`."""
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
    """Count the rejected rows or the warnings of a harvest by reason, in the order of the reasons."""
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


def trim_rejected(database: Database, ref: PageRef, budget: int) -> list[str]:
    """See `Catalogue.trim_rejected`."""
    total = _total(database, ref.tenant_id)
    if total <= budget:
        return []
    table, emptied = harvest_pages.c, list[str]()
    used = func.sum(table.rejected_bytes)
    with database.reading() as connection:
        oldest = connection.execute(
            select(table.supplier_code, table.harvest_id, used.label("bytes"))
            .join(
                harvests,
                (harvests.c.tenant_id == table.tenant_id)
                & (harvests.c.supplier_code == table.supplier_code)
                & (harvests.c.harvest_id == table.harvest_id),
            )
            .where(table.tenant_id == ref.tenant_id, table.rejected_bytes > 0)
            .group_by(table.supplier_code, table.harvest_id, harvests.c.started_at)
            .order_by(harvests.c.started_at, table.harvest_id)
        ).all()
    for row in oldest:
        if total <= budget:
            return emptied
        if (row.supplier_code, row.harvest_id) == (ref.supplier_code, ref.harvest_id):
            continue
        with database.writing() as connection:
            lock_catalogue(connection, ref.tenant_id, row.supplier_code)
            key = (ref.tenant_id, row.supplier_code, row.harvest_id)
            connection.execute(delete(rejected_rows).where(in_harvest(rejected_rows, *key)))
            connection.execute(update(harvest_pages).where(in_harvest(harvest_pages, *key)).values(rejected_bytes=0))
        total -= int(row.bytes)
        emptied.append(row.harvest_id)
    if total > budget:
        # This harvest alone is above the limit. Keep its first rows, which usually show what the others are.
        with database.writing() as connection:
            lock_catalogue(connection, ref.tenant_id, ref.supplier_code)
            connection.execute(delete(rejected_rows).where(on_page(rejected_rows, ref)))
            connection.execute(update(harvest_pages).where(on_page(harvest_pages, ref)).values(rejected_bytes=0))
        emptied.append(ref.harvest_id)
    return emptied


def dropped_rows(connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str) -> int:
    """Count the deleted rows of a harvest."""
    table = harvest_pages.c
    counted = func.coalesce(func.sum(table.rejected + table.warnings), 0)
    this_harvest = in_harvest(harvest_pages, tenant_id, supplier_code, harvest_id)
    return int(connection.scalar(select(counted).where(this_harvest, table.rejected_bytes == 0)) or 0)


def _total(database: Database, tenant_id: str) -> int:
    """Return the size of a tenant's rejected rows."""
    with database.reading() as connection:
        unknown, total = connection.execute(_USED, {"of_tenant": tenant_id}).one()
    if unknown:
        with database.writing() as connection:
            _add_up(connection, tenant_id)
            _, total = connection.execute(_USED, {"of_tenant": tenant_id}).one()
    return int(total or 0)


def _add_up(connection: Connection, tenant_id: str) -> None:
    """Record the size of pages that an older release synced; in characters, as both databases count them."""
    row, page = rejected_rows.c, harvest_pages.c
    texts = (row.sku, row.reason, row.detail, row.raw)
    used = select(
        func.coalesce(func.sum(ROW_BYTES + sum((func.length(text) for text in texts[1:]), func.length(texts[0]))), 0)
    ).where(
        row.tenant_id == page.tenant_id,
        row.supplier_code == page.supplier_code,
        row.harvest_id == page.harvest_id,
        row.page == page.page,
    )
    connection.execute(
        update(harvest_pages)
        .where(page.tenant_id == tenant_id, page.rejected_bytes.is_(None))
        .values(rejected_bytes=used.scalar_subquery())
    )
