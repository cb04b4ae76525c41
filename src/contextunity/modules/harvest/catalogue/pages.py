"""Pages of a harvest: data that one activity stages for the next, and the record that payloads are checked against.

Anyone who may start workflows can send any payload. So whatever determines the owner of rows is recorded by the first
activity that knows it, and later payloads are compared with the record; one that differs is rejected without retries.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn, TypeAlias

from contextunity.gen.contextunity.harvest.v1 import Feed, FeedCursor, HarvestIncomplete, PageRef
from sqlalchemy import ColumnElement, Connection, Row, Table, and_, bindparam, delete, func, select, update

from contextunity.modules.harvest.catalogue.database import Database
from contextunity.modules.harvest.catalogue.errors import HarvestMismatch, PageGone, PageMissing
from contextunity.modules.harvest.catalogue.harvests import (
    HarvestTotals,
    begin_harvest,
    given,
    given_harvest,
    given_names,
    given_page,
    harvest_totals,
    in_catalogue,
    in_harvest,
    lock_catalogue,
    on_page,
    recorded_counts,
)
from contextunity.modules.harvest.catalogue.products import replace_nul
from contextunity.modules.harvest.catalogue.tables import (
    fetched_pages,
    harvest_pages,
    harvests,
    staged_pages,
    suppliers,
)

__all__ = [
    "CurrentReading",
    "FetchedFrom",
    "Kind",
    "check_fetch",
    "check_last",
    "check_page",
    "drop_page",
    "find_current_reading",
    "finish_unchanged",
    "get_page",
    "put_page",
    "record_fetch",
    "record_transform",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedFrom:
    """Source of a fetched page: its workflow, its feed, and its part of the feed."""

    workflow_id: str
    """Id of the activity's workflow, from Temporal."""
    feed: Feed
    """The feed; its address and currency are not recorded, because they are settings."""
    end: FeedCursor
    """Position of the page's end."""
    end_of_feed: bool
    """Whether it is the end of the feed."""
    seconds: float = 0.0
    """Duration of reading it."""
    incomplete: HarvestIncomplete = HarvestIncomplete.UNSPECIFIED
    """What is missing of the feed, if the page shows it."""
    incomplete_detail: str = ""
    """The same as text for people."""
    read_by: str = ""
    """Hash of what it was read by; see Resources.read_by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CurrentReading:
    """A complete reading of a feed that the catalogue still contains, so that an unchanged feed need not be read."""

    reading: str
    """The harvest that read it."""
    newest: str
    """The newest harvest: the same one, or one that found the feed unchanged since then."""
    version: str
    """As in `Feed.version`."""
    read_at: datetime
    """Start of the reading, UTC."""


Kind = Literal["raw", "product"]
"""Rows of the feed, or transformed rows."""

_FIND = select(staged_pages.c.data).where(given_page(staged_pages), staged_pages.c.kind == bindparam("of_kind"))
_DROP = delete(staged_pages).where(given_page(staged_pages))


def put_page(database: Database, connection: Connection, ref: PageRef, kind: Kind, compressed: bytes) -> None:
    """Stage the rows of a page, encoded and compressed, and replace those that were staged for it before.

    Raises:
        HarvestSuperseded: a later harvest of the same tenant and supplier has begun.
    """
    begin_harvest(database, connection, ref.tenant_id, ref.supplier_code, ref.harvest_id)
    row = {
        "tenant_id": ref.tenant_id,
        "supplier_code": ref.supplier_code,
        "harvest_id": ref.harvest_id,
        "page": ref.page,
        "kind": kind,
        "data": compressed,
    }
    connection.execute(database.upsert(staged_pages, "data"), row)


def get_page(database: Database, connection: Connection, ref: PageRef, kind: Kind) -> bytes:
    """Return the encoded rows of a page.

    Raises:
        PageGone: the page was already synced.
        PageMissing: it was never staged, or its harvest has ended.
    """
    data = connection.scalar(_FIND, {**given(ref), "of_kind": kind})
    if data is not None:
        return zlib.decompress(data)
    what = f"catalogue {database.shown}: {kind} page {ref.page} of harvest {ref.harvest_id!r}"
    if recorded_counts(connection, ref) is not None:
        raise PageGone(
            f"{what} was synced already, so it is staged no more; ask for its counts instead",
            catalogue=database.shown,
            harvest_id=ref.harvest_id,
            page=ref.page,
        )
    raise PageMissing(
        f"{what} is not staged; fetch it again, or start a new harvest if this one is over",
        catalogue=database.shown,
        harvest_id=ref.harvest_id,
        page=ref.page,
    )


def drop_page(connection: Connection, ref: PageRef) -> None:
    """Delete both forms of a page."""
    connection.execute(_DROP, given(ref))


_Row: TypeAlias = "Row[*tuple[Any, ...]]"


def _same_harvest(table: Table) -> ColumnElement[bool]:
    return and_(*(table.c[name] == harvests.c[name] for name in ("tenant_id", "supplier_code", "harvest_id")))


_RECORD = (
    select(
        harvests.c.workflow_id,
        harvests.c.finished_at,
        harvests.c.feed_version,
        harvests.c.feed_format,
        harvests.c.feed_bytes,
        harvests.c.feed_ranges,
        harvests.c.prologue_hash,
        harvests.c.read_seconds,
        harvests.c.unchanged_since,
        fetched_pages.c.page,
        fetched_pages.c.end_offset,
        fetched_pages.c.end_line,
        fetched_pages.c.end_of_feed,
    )
    .outerjoin_from(
        harvests, fetched_pages, and_(_same_harvest(fetched_pages), fetched_pages.c.page == bindparam("of_page"))
    )
    .where(given_harvest(harvests))
)
"""A harvest, and the end of one of its pages; `page` is NULL if that was not fetched."""
_READ = (
    update(harvests)
    .where(given_harvest(harvests))
    .values(read_seconds=func.coalesce(harvests.c.read_seconds, 0.0) + bindparam("more"))
)
_TRANSFORMED = (
    update(fetched_pages)
    .where(given_page(fetched_pages))
    .values(transformed_by=bindparam("by"), holds_until=bindparam("until"))
)


def check_fetch(
    database: Database,
    connection: Connection,
    ref: PageRef,
    workflow_id: str,
    feed: Feed | None,
    cursor: FeedCursor | None,
) -> float:
    """See `Catalogue.check_fetch`."""
    # The same query also returns the end of the page before.
    row = _own_harvest(database, connection, ref, workflow_id, page=ref.page - 1)
    if ref.page == 0:
        if feed is not None or cursor is not None:
            _raise_mismatch(database, ref, "the first page comes with a feed or a cursor, which only it can find out")
        return _read_seconds(row)
    if feed is None or cursor is None:
        _raise_mismatch(database, ref, "only the first page comes without a feed and a cursor")
    if row is None:
        _raise_mismatch(database, ref, "this harvest has not begun")
    if row.workflow_id is None and row.finished_at is not None:
        _raise_mismatch(database, ref, "this harvest is finished")
    _check_feed(database, ref, row, feed)
    before = PageRef(
        tenant_id=ref.tenant_id, supplier_code=ref.supplier_code, harvest_id=ref.harvest_id, page=ref.page - 1
    )
    if row.page is None:
        if not _fetched_before_records(connection, before):
            _raise_mismatch(database, ref, f"page {before.page} was not fetched")
    elif (row.end_offset, row.end_line) != (cursor.offset, cursor.line):
        _raise_mismatch(
            database,
            ref,
            f"page {before.page} ended at byte {row.end_offset}, line {row.end_line}, and the cursor says byte "
            f"{cursor.offset}, line {cursor.line}",
        )
    return _read_seconds(row)


def check_page(database: Database, connection: Connection, ref: PageRef, workflow_id: str) -> _Row | None:
    """See `Catalogue.check_page`.

    Returns:
        The end of the page; None if an earlier release fetched it.
    """
    row = _own_harvest(database, connection, ref, workflow_id, page=ref.page)
    if row is None:
        _raise_mismatch(database, ref, "this harvest has not begun")
    if row.page is not None:
        return row
    if not _fetched_before_records(connection, ref):
        _raise_mismatch(database, ref, "it was not fetched")
    return None


def check_last(database: Database, connection: Connection, ref: PageRef, workflow_id: str, *, complete: bool) -> None:
    """See `Catalogue.check_last`."""
    end = check_page(database, connection, ref, workflow_id)
    if end is not None and end.end_of_feed != complete:
        ends = "ends" if end.end_of_feed else "does not end"
        _raise_mismatch(
            database, ref, f"it is said to be {'' if complete else 'not '}the end of the feed, which {ends} with it"
        )
    this_harvest = in_harvest(fetched_pages, ref.tenant_id, ref.supplier_code, ref.harvest_id)
    newest = connection.scalar(select(func.max(fetched_pages.c.page)).where(this_harvest))
    if newest is not None and newest > ref.page:
        _raise_mismatch(database, ref, f"it is said to be the last one, but page {newest} was fetched after it")
    this_harvest = in_harvest(harvest_pages, ref.tenant_id, ref.supplier_code, ref.harvest_id)
    synced = connection.scalar(select(func.count()).where(this_harvest, harvest_pages.c.page < ref.page)) or 0
    if synced < ref.page:
        _raise_mismatch(
            database, ref, f"it is said to be the last one, but of the {ref.page} pages before it {synced} are synced"
        )


def record_fetch(database: Database, connection: Connection, ref: PageRef, fetched: FetchedFrom) -> None:
    """Record the source of a page, whose harvest has begun in this or an earlier transaction."""
    row = _own_harvest(database, connection, ref, fetched.workflow_id, page=ref.page + 1)
    if row is None:
        _raise_mismatch(database, ref, "this harvest has not begun")
    if row.unchanged_since is not None:
        _raise_mismatch(database, ref, "another attempt found the feed unchanged, and the harvest is finished")
    # Until the next page is fetched, a repeated attempt may find another version, or another end, and its answer
    # counts. Afterwards it can only be an abandoned attempt, whose answer nobody uses.
    followed = row.page is not None
    if row.feed_version is None or (ref.page == 0 and not followed):
        connection.execute(
            update(harvests)
            .where(in_harvest(harvests, ref.tenant_id, ref.supplier_code, ref.harvest_id))
            .values(workflow_id=fetched.workflow_id, **_feed_columns(fetched.feed))
        )
    else:
        _check_feed(database, ref, row, fetched.feed)
    connection.execute(
        _READ, {**given_names(ref.tenant_id, ref.supplier_code, ref.harvest_id), "more": fetched.seconds}
    )
    values: dict[str, Any] = {
        "end_offset": fetched.end.offset,
        "end_line": fetched.end.line,
        "end_of_feed": fetched.end_of_feed,
    }
    if followed:
        end = _own_harvest(database, connection, ref, fetched.workflow_id, page=ref.page)
        if (
            end is not None
            and end.page is not None
            and any(getattr(end, name) != value for name, value in values.items())
        ):
            _raise_mismatch(database, ref, f"page {ref.page + 1} was fetched already, from where another attempt ended")
    if fetched.incomplete:
        values |= {"incomplete": fetched.incomplete.name, "incomplete_detail": replace_nul(fetched.incomplete_detail)}
    else:
        values |= {"incomplete": None, "incomplete_detail": None}
    values |= {"fetched_by": fetched.read_by or None, "transformed_by": None, "holds_until": None}
    key = {
        "tenant_id": ref.tenant_id,
        "supplier_code": ref.supplier_code,
        "harvest_id": ref.harvest_id,
        "page": ref.page,
    }
    connection.execute(database.upsert(fetched_pages, *values), {**key, **values})


def record_transform(connection: Connection, ref: PageRef, *, read_by: str, holds_until: datetime | None) -> None:
    """Record what a page was transformed by, and until when the result is valid."""
    connection.execute(_TRANSFORMED, {**given(ref), "by": read_by or None, "until": holds_until})


def find_current_reading(
    database: Database, connection: Connection, ref: PageRef, workflow_id: str, read_by: str
) -> CurrentReading | None:
    """See `Catalogue.find_current_reading`."""
    own = _own_harvest(database, connection, ref, workflow_id)
    here = in_catalogue(suppliers, ref.tenant_id, ref.supplier_code)
    newest = connection.scalar(select(suppliers.c.current_harvest).where(here))
    if newest is None or (newest == ref.harvest_id and (own is None or own.unchanged_since is None)):
        return None
    table = harvests.c
    columns = select(table.started_at, table.complete, table.unchanged_since, table.feed_version)

    def harvest(harvest_id: str) -> _Row | None:
        where = in_harvest(harvests, ref.tenant_id, ref.supplier_code, harvest_id)
        return connection.execute(columns.where(where, table.complete)).one_or_none()

    row = harvest(newest)
    if row is None:
        return None
    reading = row.unchanged_since or newest
    row = harvest(reading)
    if row is None or not row.feed_version:
        return None
    standing = CurrentReading(reading=reading, newest=newest, version=row.feed_version, read_at=row.started_at)
    if newest == ref.harvest_id:
        return standing
    pages = fetched_pages.c
    all_pages = in_harvest(fetched_pages, ref.tenant_id, ref.supplier_code, reading)
    holds = pages.holds_until.is_(None) | (pages.holds_until > datetime.now(UTC))
    alike = and_(all_pages, pages.fetched_by == read_by, pages.transformed_by == read_by, holds)
    total, good = (
        connection.scalar(select(func.count()).select_from(fetched_pages).where(which)) or 0
        for which in (all_pages, alike)
    )
    return standing if 0 < total == good else None


def finish_unchanged(
    database: Database, connection: Connection, ref: PageRef, workflow_id: str, standing: CurrentReading
) -> HarvestTotals:
    """See `Catalogue.finish_unchanged`."""
    if ref.page:
        _raise_mismatch(database, ref, "only the first page finds out whether the feed has changed")
    newest = lock_catalogue(connection, ref.tenant_id, ref.supplier_code)
    own = _own_harvest(database, connection, ref, workflow_id)
    if own is None:
        if newest != standing.newest:
            _raise_mismatch(database, ref, f"harvest {newest!r} began while the feed's server was asked for changes")
        begin_harvest(database, connection, ref.tenant_id, ref.supplier_code, ref.harvest_id)
        connection.execute(
            update(harvests)
            .where(in_harvest(harvests, ref.tenant_id, ref.supplier_code, ref.harvest_id))
            .values(
                workflow_id=workflow_id,
                unchanged_since=standing.reading,
                finished_at=datetime.now(UTC),
                complete=True,
                delisted=0,
            )
        )
    elif own.unchanged_since != standing.reading:
        _raise_mismatch(database, ref, "another attempt found the feed changed, and reads it")
    return harvest_totals(connection, ref.tenant_id, ref.supplier_code, standing.reading)


def _own_harvest(
    database: Database, connection: Connection, ref: PageRef, workflow_id: str, *, page: int = 0
) -> _Row | None:
    """Return the record of a harvest and one of its pages, or None if it has not begun.

    The harvest belongs to this workflow, or to none yet.
    """
    if not workflow_id:
        _raise_mismatch(database, ref, "the activity does not belong to a workflow")
    row = connection.execute(_RECORD, {**given(ref), "of_page": page}).one_or_none()
    if row is not None and row.workflow_id is not None and row.workflow_id != workflow_id:
        # Do not name the other workflow: it may be another tenant's.
        _raise_mismatch(database, ref, f"this harvest does not belong to workflow {workflow_id!r}")
    return row


def _read_seconds(row: _Row | None) -> float:
    return 0.0 if row is None or row.read_seconds is None else float(row.read_seconds)


def _feed_columns(feed: Feed) -> dict[str, Any]:
    """Return the recorded columns of a feed."""
    return {
        "feed_version": feed.version,
        "feed_format": feed.format.name or str(int(feed.format)),
        "feed_bytes": feed.total_bytes,
        "feed_ranges": feed.ranges,
        "prologue_hash": hashlib.sha256(feed.prologue).hexdigest(),
    }


def _check_feed(database: Database, ref: PageRef, row: _Row, feed: Feed) -> None:
    if row.feed_version is None:
        return
    for name, value in _feed_columns(feed).items():
        recorded = getattr(row, name)
        if recorded != value:
            _raise_mismatch(database, ref, f"{name} is {str(value)[:200]!r}, and the harvest began with {recorded!r}")


def _fetched_before_records(connection: Connection, ref: PageRef) -> bool:
    """Return whether a page without a record was fetched anyway, by a release without records.

    Such a release may run concurrently during an upgrade. Payloads cannot cause this, because this release records
    whatever it stages.
    """
    return any(
        connection.scalar(select(table.c.page).where(on_page(table, ref)).limit(1)) is not None
        for table in (staged_pages, harvest_pages)
    )


def _raise_mismatch(database: Database, ref: PageRef, detail: str) -> NoReturn:
    raise HarvestMismatch(
        f"catalogue {database.shown}: page {ref.page} of harvest {ref.harvest_id!r} of supplier {ref.supplier_code!r} "
        f"of tenant {ref.tenant_id!r} is not as recorded: {detail}; start a new harvest",
        catalogue=database.shown,
        harvest_id=ref.harvest_id,
        page=ref.page,
    )
