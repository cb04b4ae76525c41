"""Room for rejected rows: those of the oldest harvests go where a tenant's take more bytes than they may.

Counts stay, whosever rows go: what was rejected is part of what a harvest tells.
"""

from __future__ import annotations

from contextunity.gen.contextunity.harvest.v1 import PageRef
from sqlalchemy import Connection, bindparam, delete, func, select, update

from contextunity.modules.harvest.catalogue._database import Database
from contextunity.modules.harvest.catalogue._harvests import in_harvest, lock_catalogue, on_page
from contextunity.modules.harvest.catalogue._tables import harvest_pages, harvests, rejected_rows

__all__ = ["ROW_BYTES", "dropped_rows", "make_room"]

ROW_BYTES = 100
"""What a row takes beside its texts, about."""


_USED = (
    select(func.count() - func.count(harvest_pages.c.rejected_bytes), func.sum(harvest_pages.c.rejected_bytes))
    .select_from(harvest_pages)
    .where(harvest_pages.c.tenant_id == bindparam("of_tenant"))
)
"""Pages of a tenant of which it is not known, and what all others take."""


def make_room(database: Database, ref: PageRef, budget: int) -> list[str]:
    """See `Catalogue.make_room`."""
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
        # The harvest alone takes more. Its first rows tell more than none would, and most often what the others are.
        with database.writing() as connection:
            lock_catalogue(connection, ref.tenant_id, ref.supplier_code)
            connection.execute(delete(rejected_rows).where(on_page(rejected_rows, ref)))
            connection.execute(update(harvest_pages).where(on_page(harvest_pages, ref)).values(rejected_bytes=0))
        emptied.append(ref.harvest_id)
    return emptied


def dropped_rows(connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str) -> int:
    """Count the rows of a harvest that are not kept."""
    table = harvest_pages.c
    counted = func.coalesce(func.sum(table.rejected + table.warnings), 0)
    this_harvest = in_harvest(harvest_pages, tenant_id, supplier_code, harvest_id)
    return int(connection.scalar(select(counted).where(this_harvest, table.rejected_bytes == 0)) or 0)


def _total(database: Database, tenant_id: str) -> int:
    """Add up what a tenant's rejected rows take."""
    with database.reading() as connection:
        unknown, total = connection.execute(_USED, {"of_tenant": tenant_id}).one()
    if unknown:
        with database.writing() as connection:
            _add_up(connection, tenant_id)
            _, total = connection.execute(_USED, {"of_tenant": tenant_id}).one()
    return int(total or 0)


def _add_up(connection: Connection, tenant_id: str) -> None:
    """Note what pages take that a release without the number synced; in characters, as both databases count them."""
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
