"""Life cycle of a harvest in the catalogue: it waits for its turn, begins with its first page, and is finished once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from contextunity.gen.contextunity.harvest.v1 import HarvestIncomplete, PageRef
from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, case, delete, func, or_, select, update

from contextunity.modules.harvest.catalogue.database import Database
from contextunity.modules.harvest.catalogue.errors import CatalogueError, HarvestSuperseded
from contextunity.modules.harvest.catalogue.tables import (
    fetched_pages,
    harvest_pages,
    harvest_turns,
    harvests,
    products,
    rejected_rows,
    staged_pages,
    suppliers,
)
from contextunity.modules.harvest.rejects import RejectReason

__all__ = [
    "HarvestTotals",
    "MissingProducts",
    "SyncCounts",
    "Turn",
    "begin_harvest",
    "check_names",
    "count_missing_products",
    "end_turn",
    "find_incomplete",
    "finish_harvest",
    "forget_harvest",
    "given",
    "given_catalogue",
    "given_harvest",
    "given_names",
    "given_page",
    "harvest_totals",
    "in_catalogue",
    "in_harvest",
    "lock_catalogue",
    "old_harvests",
    "on_page",
    "recorded_counts",
    "superseded_error",
    "take_turn",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncCounts:
    """Result of syncing a page. The first four numbers add up to the rows of the page."""

    created: int
    """New products."""
    changed: int
    """Products with changed content, or that had been marked as no longer listed."""
    unchanged: int
    """Products without a change."""
    rejected: int
    """Rows kept as rejected, by the transformation or by the sync."""
    warnings: int = 0
    """Warnings about used rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HarvestTotals(SyncCounts):
    """Sum of all synced pages of a harvest. `rows` is the sum of the first four counts."""

    pages: int
    """Number of synced pages."""
    rows: int
    """Rows of those pages, including rejected ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingProducts:
    """Products that a harvest has not seen, compared with those listed before."""

    missing: int
    """Products listed before that no row of this harvest names."""
    listed: int
    """Products listed before."""
    unreadable: int = 0
    """Rows of this harvest whose key is invalid, and that the last complete harvest did not have: each may be one of
    the unseen products."""


# PostgreSQL rejects index entries of more than about 2,700 bytes; three names and a SKU fit.
_MAX_NAME_BYTES = 200


def in_catalogue(table: Table, tenant_id: str, supplier_code: str) -> ColumnElement[bool]:
    """Select the rows of one tenant and supplier."""
    return and_(table.c.tenant_id == tenant_id, table.c.supplier_code == supplier_code)


def in_harvest(table: Table, tenant_id: str, supplier_code: str, harvest_id: str) -> ColumnElement[bool]:
    """Select the rows of one harvest."""
    return and_(in_catalogue(table, tenant_id, supplier_code), table.c.harvest_id == harvest_id)


def on_page(table: Table, ref: PageRef) -> ColumnElement[bool]:
    """Select the rows of one page of a harvest."""
    return and_(in_harvest(table, ref.tenant_id, ref.supplier_code, ref.harvest_id), table.c.page == ref.page)


# The same with parameters instead of values. Statements for every page are built once: building and compiling a
# statement takes SQLAlchemy many times as long as SQLite takes to execute it.


def given_catalogue(table: Table) -> ColumnElement[bool]:
    """Return the condition for rows of the tenant and supplier in `given`."""
    return and_(table.c.tenant_id == bindparam("of_tenant"), table.c.supplier_code == bindparam("of_supplier"))


def given_harvest(table: Table) -> ColumnElement[bool]:
    """Return the condition for rows of the harvest in `given`."""
    return and_(given_catalogue(table), table.c.harvest_id == bindparam("of_harvest"))


def given_page(table: Table) -> ColumnElement[bool]:
    """Return the condition for rows of the page in `given`."""
    return and_(given_harvest(table), table.c.page == bindparam("of_page"))


def given(ref: PageRef) -> dict[str, Any]:
    """Return the parameters of `given_page`."""
    return {**given_names(ref.tenant_id, ref.supplier_code, ref.harvest_id), "of_page": ref.page}


def given_names(tenant_id: str, supplier_code: str, harvest_id: str) -> dict[str, Any]:
    """Return the parameters of `given_harvest`."""
    return {"of_tenant": tenant_id, "of_supplier": supplier_code, "of_harvest": harvest_id}


_LOCK = select(suppliers.c.current_harvest).where(given_catalogue(suppliers)).with_for_update()
_BEGUN = (
    select(suppliers.c.current_harvest)
    .join_from(
        suppliers,
        harvests,
        and_(harvests.c.tenant_id == suppliers.c.tenant_id, harvests.c.supplier_code == suppliers.c.supplier_code),
    )
    .where(given_harvest(harvests))
)
_COUNTS = select(
    *(harvest_pages.c[name] for name in ("created", "changed", "unchanged", "rejected", "warnings"))
).where(given_page(harvest_pages))


def check_names(database: Database, **names: str) -> None:
    """Reject names that one of the databases cannot store.

    Raises:
        CatalogueError: a name is empty, longer than 200 bytes in UTF-8, or has a NUL character.
    """
    for field, name in names.items():
        if not name or len(name.encode()) > _MAX_NAME_BYTES or "\0" in name:
            raise CatalogueError(
                f"{field} {name[:40]!r} cannot be kept in the catalogue; "
                f"give it 1 to {_MAX_NAME_BYTES} bytes without NUL characters",
                catalogue=database.shown,
            )


def lock_catalogue(connection: Connection, tenant_id: str, supplier_code: str) -> str | None:
    """Lock the products of a tenant and supplier until the transaction ends.

    Returns:
        The harvest that may write, or None if there is none yet.
    """
    # On SQLite there is no FOR UPDATE; the whole transaction holds the write lock.
    return connection.scalar(_LOCK, {"of_tenant": tenant_id, "of_supplier": supplier_code})


def begin_harvest(
    database: Database, connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str
) -> None:
    """Make a harvest the current one of its tenant and supplier, unless it has begun before.

    Raises:
        HarvestSuperseded: it has begun before, and another one after it.
    """
    key = {"tenant_id": tenant_id, "supplier_code": supplier_code}
    current = _current(connection, tenant_id, supplier_code, harvest_id)
    if current is None:
        connection.execute(
            database.insert(suppliers).values(**key, current_harvest=harvest_id).on_conflict_do_nothing()
        )
        lock_catalogue(connection, tenant_id, supplier_code)
        # Check again under the lock.
        if _current(connection, tenant_id, supplier_code, harvest_id) is None:
            connection.execute(harvests.insert().values(**key, harvest_id=harvest_id, started_at=datetime.now(UTC)))
            connection.execute(
                update(suppliers)
                .where(in_catalogue(suppliers, tenant_id, supplier_code))
                .values(current_harvest=harvest_id)
            )
            # All other harvests have ended; a late activity of one may have left its page.
            others = and_(in_catalogue(staged_pages, tenant_id, supplier_code), staged_pages.c.harvest_id != harvest_id)
            connection.execute(delete(staged_pages).where(others))
        current = _current(connection, tenant_id, supplier_code, harvest_id)
    if current is not None and current != harvest_id:
        raise superseded_error(database, harvest_id, current)


def _current(connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str) -> str | None:
    """Return the harvest that may write; None if this harvest has not begun."""
    return connection.scalar(_BEGUN, given_names(tenant_id, supplier_code, harvest_id))


def superseded_error(database: Database, harvest_id: str, current: str) -> HarvestSuperseded:
    """Raise the error for a harvest that a later one has replaced."""
    return HarvestSuperseded(
        f"catalogue {database.shown}: harvest {harvest_id!r} may not write any more, since harvest {current!r} of the "
        "same tenant and supplier began after it; start a new harvest",
        catalogue=database.shown,
        harvest_id=harvest_id,
        current_harvest=current,
    )


def recorded_counts(connection: Connection, ref: PageRef) -> SyncCounts | None:
    """Return the recorded result of syncing the page; None if it was not synced."""
    row = connection.execute(_COUNTS, given(ref)).one_or_none()
    if row is None:
        return None
    return SyncCounts(
        created=row.created,
        changed=row.changed,
        unchanged=row.unchanged,
        rejected=row.rejected,
        warnings=row.warnings,
    )


def harvest_totals(connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str) -> HarvestTotals:
    """Return the sum of the synced pages of a harvest."""
    table = harvest_pages.c
    numbers = (table.created, table.changed, table.unchanged, table.rejected, table.warnings)
    pages, *sums = connection.execute(
        select(func.count(), *(func.coalesce(func.sum(number), 0) for number in numbers)).where(
            in_harvest(harvest_pages, tenant_id, supplier_code, harvest_id)
        )
    ).one()
    # PostgreSQL's sum of bigints is a numeric.
    created, changed, unchanged, rejected, warnings = (int(number) for number in sums)
    return HarvestTotals(
        pages=pages,
        rows=created + changed + unchanged + rejected,
        created=created,
        changed=changed,
        unchanged=unchanged,
        rejected=rejected,
        warnings=warnings,
    )


def finish_harvest(
    database: Database, connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str, *, complete: bool
) -> int:
    """Mark the products that a complete harvest has not seen, and delete staged pages of it and earlier harvests.

    Returns:
        Number of marked products, also if it was already finished.

    Raises:
        HarvestSuperseded: it is not finished, and a later harvest has begun.
    """
    this_harvest = in_harvest(harvests, tenant_id, supplier_code, harvest_id)
    delisted = _recorded_delisted(connection, this_harvest)
    if delisted is None:
        begin_harvest(database, connection, tenant_id, supplier_code, harvest_id)
        lock_catalogue(connection, tenant_id, supplier_code)
        # Check again under the lock, because of concurrent attempts.
        delisted = _recorded_delisted(connection, this_harvest)
    if delisted is not None:
        connection.execute(delete(staged_pages).where(in_harvest(staged_pages, tenant_id, supplier_code, harvest_id)))
        return delisted
    now = datetime.now(UTC)
    delisted = _mark_delisted(connection, tenant_id, supplier_code, harvest_id, now) if complete else 0
    # This harvest is the current one, so all others of this tenant and supplier have ended.
    connection.execute(delete(staged_pages).where(in_catalogue(staged_pages, tenant_id, supplier_code)))
    connection.execute(
        update(harvests).where(this_harvest).values(finished_at=now, complete=complete, delisted=delisted)
    )
    return delisted


def old_harvests(connection: Connection, tenant_id: str, supplier_code: str, *, keep: int) -> list[str]:
    """Return all but the newest `keep` harvests that have more in the database than their own row."""
    synced, fetched = (
        select(table.c.page)
        .where(in_catalogue(table, tenant_id, supplier_code), table.c.harvest_id == harvests.c.harvest_id)
        .exists()
        for table in (harvest_pages, fetched_pages)
    )
    # A harvest of an unchanged feed has no rows, and refers to those of an earlier one.
    newest = select(harvests.c.harvest_id).where(
        in_catalogue(harvests, tenant_id, supplier_code), harvests.c.unchanged_since.is_(None)
    )
    newest = newest.order_by(harvests.c.started_at.desc(), harvests.c.harvest_id.desc()).limit(keep)
    found = connection.scalars(
        select(harvests.c.harvest_id).where(
            in_catalogue(harvests, tenant_id, supplier_code), harvests.c.harvest_id.not_in(newest), synced | fetched
        )
    )
    return list(found)


def forget_harvest(connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str) -> bool:
    """Delete the data of a harvest except its row in `harvests`, which prevents it from beginning again.

    Returns:
        False if there was nothing to delete.
    """
    lock_catalogue(connection, tenant_id, supplier_code)
    deleted = 0
    for table in (rejected_rows, harvest_pages, fetched_pages):
        result = connection.execute(delete(table).where(in_harvest(table, tenant_id, supplier_code, harvest_id)))
        deleted += result.rowcount
    return deleted > 0


def _recorded_delisted(connection: Connection, this_harvest: ColumnElement[bool]) -> int | None:
    return connection.scalar(select(harvests.c.delisted).where(this_harvest))


def find_incomplete(
    connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str
) -> tuple[HarvestIncomplete, str]:
    """Return what is missing of the feed, from the first page that shows it; UNSPECIFIED for nothing."""
    table = fetched_pages.c
    row = connection.execute(
        select(table.incomplete, table.incomplete_detail)
        .where(in_harvest(fetched_pages, tenant_id, supplier_code, harvest_id), table.incomplete.is_not(None))
        .order_by(table.page)
        .limit(1)
    ).one_or_none()
    if row is None:
        return HarvestIncomplete.UNSPECIFIED, ""
    return HarvestIncomplete[row.incomplete], row.incomplete_detail or ""


def count_missing_products(
    connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str
) -> MissingProducts:
    """Count what finishing the harvest as complete would mark, and the products listed before."""
    here = in_catalogue(products, tenant_id, supplier_code)
    # Both in one query, because counting reads every product.
    missing, listed = connection.execute(
        select(
            func.count(case((_missing_from(harvest_id), 1))), func.count(case((products.c.delisted_at.is_(None), 1)))
        ).where(here)
    ).one()
    created = harvest_totals(connection, tenant_id, supplier_code, harvest_id).created
    unreadable = _count_unreadable(connection, tenant_id, supplier_code, harvest_id) if missing else 0
    return MissingProducts(missing=missing, listed=max(listed - created, missing), unreadable=unreadable)


def _count_unreadable(connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str) -> int:
    """Count the rows with an invalid key, without those that the last complete harvest had too."""
    table = harvests.c
    last = connection.scalar(
        select(table.harvest_id)
        .where(
            in_catalogue(harvests, tenant_id, supplier_code),
            table.complete,
            table.unchanged_since.is_(None),
            table.harvest_id != harvest_id,
        )
        .order_by(table.started_at.desc(), table.harvest_id.desc())
        .limit(1)
    )

    def without_key(harvest: str) -> ColumnElement[bool]:
        here = in_harvest(rejected_rows, tenant_id, supplier_code, harvest)
        nameless = and_(rejected_rows.c.sku == "", rejected_rows.c.severity == "rejected")
        return and_(here, nameless, rejected_rows.c.reason != RejectReason.EMPTY_ROW.value)

    count = select(func.count()).select_from(rejected_rows).where(without_key(harvest_id))
    if last is not None:
        # Both databases execute NOT IN with one hash of the subquery.
        count = count.where(rejected_rows.c.raw.not_in(select(rejected_rows.c.raw).where(without_key(last))))
    return connection.scalar(count) or 0


def _missing_from(harvest_id: str) -> ColumnElement[bool]:
    table = products.c
    return and_(
        table.seen_in != harvest_id,
        or_(table.listed_in.is_(None), table.listed_in != harvest_id),
        table.delisted_at.is_(None),
    )


def _mark_delisted(connection: Connection, tenant_id: str, supplier_code: str, harvest_id: str, now: datetime) -> int:
    result = connection.execute(
        update(products)
        .where(
            in_catalogue(products, tenant_id, supplier_code),
            _missing_from(harvest_id),
        )
        .values(delisted_at=now)
    )
    marked: int = result.rowcount
    return marked


# The first harvests of a tenant, up to the limit, run; the others wait in order. A harvest keeps its turn while its
# workflow runs, whatever happens to workers: nothing must be renewed, and a killed worker holds nothing. Only the
# Temporal server knows whether a workflow runs; waiting harvests check the running ones.

_TURN_LOCK = 0x7475726E
"""Class of the advisory locks of tenants, on PostgreSQL."""
_CHECK_INTERVAL = timedelta(seconds=10)
"""Interval after which a waiting harvest checks whether a running one has ended, for all that wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Position of a harvest in the queue.

    Attributes:
        granted: whether it may run.
        ahead: harvests before it.
        to_check: running harvests that may have ended: harvest_id and workflow_id.
    """

    granted: bool
    ahead: int = 0
    to_check: tuple[tuple[str, str], ...] = ()


def take_turn(
    database: Database, connection: Connection, tenant_id: str, harvest_id: str, workflow_id: str, limit: int
) -> Turn:
    """See `Catalogue.take_turn`."""
    if database.is_postgresql:
        # On SQLite the write lock has this effect.
        connection.execute(select(func.pg_advisory_xact_lock(_TURN_LOCK, func.hashtext(tenant_id))))
    table, now = harvest_turns.c, datetime.now(UTC)
    mine = table.tenant_id == tenant_id
    # A workflow runs one harvest at a time: earlier ones with its id have ended.
    connection.execute(
        delete(harvest_turns).where(mine, table.workflow_id == workflow_id, table.harvest_id != harvest_id)
    )
    place = connection.scalar(select(table.place).where(mine, table.harvest_id == harvest_id))
    if place is None:
        place = (connection.scalar(select(func.max(table.place)).where(mine)) or 0) + 1
        connection.execute(
            harvest_turns.insert().values(
                tenant_id=tenant_id, harvest_id=harvest_id, workflow_id=workflow_id, place=place, checked_at=now
            )
        )
    before = (mine, table.place < place)
    ahead = connection.scalar(select(func.count()).select_from(harvest_turns).where(*before)) or 0
    if ahead < limit:
        return Turn(granted=True)
    first = connection.execute(
        select(table.harvest_id, table.workflow_id, table.checked_at).where(*before).order_by(table.place).limit(limit)
    ).all()
    due = tuple((row.harvest_id, row.workflow_id) for row in first if row.checked_at <= now - _CHECK_INTERVAL)
    if due:
        ids = [each for each, _ in due]
        connection.execute(update(harvest_turns).where(mine, table.harvest_id.in_(ids)).values(checked_at=now))
    return Turn(granted=False, ahead=ahead, to_check=due)


def end_turn(connection: Connection, tenant_id: str, harvest_id: str) -> None:
    """See `Catalogue.end_turn`."""
    table = harvest_turns.c
    connection.execute(delete(harvest_turns).where(table.tenant_id == tenant_id, table.harvest_id == harvest_id))
