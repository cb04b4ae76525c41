"""The tables of the catalogue in SQLAlchemy Core, for SQLite and PostgreSQL, and their creation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Float,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.schema import CreateColumn

from contextunity.modules.harvest.catalogue.database import Database
from contextunity.modules.harvest.catalogue.errors import CatalogueError

__all__ = [
    "SCHEMA_VERSION",
    "enrichments",
    "fetched_pages",
    "harvest_pages",
    "harvest_turns",
    "harvests",
    "metadata",
    "prepare_schema",
    "products",
    "rejected_rows",
    "schema_version",
    "staged_pages",
    "stored_schema",
    "suppliers",
]

SCHEMA_VERSION = 1
"""Increase it with a change of the tables that cannot be made when a worker starts. Additional tables, and additional
columns that may be NULL or have a `server_default`, are added to an existing catalogue then, without a new version, so
that workers of the earlier release keep running: they neither read nor write them."""


class UtcDateTime(TypeDecorator[datetime]):
    """A time, UTC, timezone-aware in Python. SQLite has no time zones, so it is stored there without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert the time to UTC for the database."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Add UTC to a time from the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()


def _catalogue_key() -> list[Column[Any]]:
    return [Column("tenant_id", Text, nullable=False), Column("supplier_code", Text, nullable=False)]


schema_version = Table(
    "schema_version",
    metadata,
    Column("version", Integer, nullable=False),
)

# One row per catalogue, that is a tenant's products of one supplier. Writers lock this row first, so that two attempts
# at one page, or a late harvest and its successor, wait for each other instead of deadlocking.
suppliers = Table(
    "suppliers",
    metadata,
    *_catalogue_key(),
    Column("current_harvest", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "supplier_code"),
)

harvests = Table(
    "harvests",
    metadata,
    *_catalogue_key(),
    Column("harvest_id", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    # The three below are NULL until the harvest is finished.
    Column("finished_at", UtcDateTime),
    Column("complete", Boolean),
    Column("delisted", BigInteger),
    # Findings of the first page, so that later activities need not trust payloads. All are NULL for harvests that an
    # earlier release without these columns began.
    Column("workflow_id", Text),
    Column("feed_version", Text),
    Column("feed_format", Text),
    Column("feed_bytes", BigInteger),
    Column("feed_ranges", Boolean),
    # SHA-256 of Feed.prologue, in hexadecimal digits.
    Column("prologue_hash", Text),
    # Seconds spent on reading the feed, the sum of all pages and all attempts that ended.
    Column("read_seconds", Float),
    # The harvest whose reading is used, if this one found the feed unchanged and read nothing; otherwise NULL.
    Column("unchanged_since", Text),
    PrimaryKeyConstraint("tenant_id", "supplier_code", "harvest_id"),
)

# Running and waiting harvests in order: the first ones of each tenant run. The table does not say which of them are
# alive; the Temporal server does.
harvest_turns = Table(
    "harvest_turns",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("harvest_id", Text, nullable=False),
    Column("workflow_id", Text, nullable=False),
    # Increases within a tenant.
    Column("place", BigInteger, nullable=False),
    # Time of the last check whether it has ended.
    Column("checked_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant_id", "harvest_id"),
)

# End of each fetched page: the only valid start of the next one.
fetched_pages = Table(
    "fetched_pages",
    metadata,
    *_catalogue_key(),
    Column("harvest_id", Text, nullable=False),
    Column("page", BigInteger, nullable=False),
    # As in FeedCursor.
    Column("end_offset", BigInteger, nullable=False),
    Column("end_line", BigInteger, nullable=False),
    Column("end_of_feed", Boolean, nullable=False),
    # Name of a HarvestIncomplete if the page shows that the feed is incomplete, and why; otherwise NULL.
    Column("incomplete", Text),
    Column("incomplete_detail", Text),
    # What the page was fetched and transformed by, see Resources.read_by; NULL if a release without them did it. An
    # unchanged feed is read anyway if either differs from the current value.
    Column("fetched_by", Text),
    Column("transformed_by", Text),
    # Time at which its products change for the same feed, such as the start or end of a sale price; otherwise NULL.
    Column("holds_until", UtcDateTime),
    PrimaryKeyConstraint("tenant_id", "supplier_code", "harvest_id", "page"),
    ForeignKeyConstraint(
        ["tenant_id", "supplier_code", "harvest_id"],
        ["harvests.tenant_id", "harvests.supplier_code", "harvests.harvest_id"],
    ),
)

# Pages between activities, as zlib-compressed protobuf. `kind` is raw or product.
staged_pages = Table(
    "staged_pages",
    metadata,
    *_catalogue_key(),
    Column("harvest_id", Text, nullable=False),
    Column("page", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant_id", "supplier_code", "harvest_id", "page", "kind"),
    ForeignKeyConstraint(
        ["tenant_id", "supplier_code", "harvest_id"],
        ["harvests.tenant_id", "harvests.supplier_code", "harvests.harvest_id"],
    ),
)

harvest_pages = Table(
    "harvest_pages",
    metadata,
    *_catalogue_key(),
    Column("harvest_id", Text, nullable=False),
    Column("page", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("unchanged", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("warnings", BigInteger, nullable=False, server_default="0"),
    # Size of the page's rows in `rejected_rows`; 0 if there are none, or they were deleted to save space. NULL if a
    # release without this column synced the page, until the size is computed.
    Column("rejected_bytes", BigInteger),
    Column("synced_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant_id", "supplier_code", "harvest_id", "page"),
    ForeignKeyConstraint(
        ["tenant_id", "supplier_code", "harvest_id"],
        ["harvests.tenant_id", "harvests.supplier_code", "harvests.harvest_id"],
    ),
)

products = Table(
    "products",
    metadata,
    *_catalogue_key(),
    Column("sku", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("brand", Text, nullable=False),
    # Two integers as in Money, with the same sign: both are exact on SQLite, which has no decimal type, and
    # `ORDER BY price_units, price_nanos` sorts by price. Both are NULL for a product without a price.
    Column("price_units", BigInteger),
    Column("price_nanos", Integer),
    Column("currency_code", Text, nullable=False),
    Column("gtin", Text, nullable=False),
    Column("stock", BigInteger),
    Column("availability", Text, nullable=False),
    Column("weight_grams", BigInteger),
    # active, draft, archived or unpublished; empty if the feed does not say. Products that are neither empty nor active
    # are not offered, and their availability is out_of_stock.
    Column("publication", Text, nullable=False, server_default=""),
    Column("content_hash", Text, nullable=False),
    # The complete Product as ProtoJSON, so that people can read it with any SQL tool. It is text and not jsonb, because
    # jsonb rejects the NUL characters that a feed may contain; use `data::jsonb` if needed.
    Column("data", Text, nullable=False),
    # Line of the product in the feed of the harvest `seen_in`.
    Column("first_line", BigInteger, nullable=False),
    Column("seen_in", Text, nullable=False),
    # The newest harvest whose feed listed it in a rejected row; NULL for none.
    Column("listed_in", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("delisted_at", UtcDateTime),
    PrimaryKeyConstraint("tenant_id", "supplier_code", "sku"),
)

# Enrichment of a product; a separate table, because a harvest writes all columns of a product, and must not change
# enrichments. A product without a row was never enriched.
enrichments = Table(
    "enrichments",
    metadata,
    *_catalogue_key(),
    Column("sku", Text, nullable=False),
    Column("category", Text, nullable=False),
    # JSON lists of texts, like `missing`.
    Column("colors", Text, nullable=False),
    Column("size", Text, nullable=False),
    Column("materials", Text, nullable=False),
    Column("brand", Text, nullable=False),
    # 0 to 100, and the reasons for less than 100.
    Column("completeness", Integer, nullable=False),
    Column("missing", Text, nullable=False),
    # rules or router.
    Column("enricher", Text, nullable=False),
    # Versions of the rules and of the product: if either differs, the product is enriched again.
    Column("rules_version", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("enriched_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant_id", "supplier_code", "sku"),
)

rejected_rows = Table(
    "rejected_rows",
    metadata,
    *_catalogue_key(),
    Column("harvest_id", Text, nullable=False),
    Column("page", BigInteger, nullable=False),
    # Index among the rejected rows of its page, from 0; a line alone would not be unique.
    Column("position", Integer, nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("sku", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("raw", Text, nullable=False),
    # rejected, or warning if the row was used anyway.
    Column("severity", Text, nullable=False, server_default="rejected"),
    PrimaryKeyConstraint("tenant_id", "supplier_code", "harvest_id", "page", "position"),
    ForeignKeyConstraint(
        ["tenant_id", "supplier_code", "harvest_id", "page"],
        [
            "harvest_pages.tenant_id",
            "harvest_pages.supplier_code",
            "harvest_pages.harvest_id",
            "harvest_pages.page",
        ],
    ),
)


# A number that other programs on the same server are unlikely to lock.
_SCHEMA_LOCK = 0x436174616C6F67


def prepare_schema(database: Database) -> None:
    """Create missing tables, and add missing columns to those of an earlier release.

    Any number of workers may do so concurrently, while others write. PostgreSQL locks the whole table for ALTER TABLE,
    so each one has its own transaction: waiting for one lock while holding another could deadlock with a writer.

    Raises:
        CatalogueError: the tables belong to an incompatible release or to another program.
        CatalogueUnavailable: the server cannot be reached.
    """
    with database.writing() as connection:
        if database.is_postgresql:
            # On SQLite the write lock has this effect; CREATE TABLE IF NOT EXISTS alone can collide on PostgreSQL.
            _wait_for_turn(connection)
        found = set(inspect(connection).get_table_names()) & set(metadata.tables)
        if schema_version.name in found:
            _check_version(connection, database.shown)
        elif found:
            names = ", ".join(sorted(found))
            raise CatalogueError(
                f"catalogue {database.shown}: the database holds tables of something else under our names ({names}); "
                "give the catalogue a database of its own",
                catalogue=database.shown,
            )
        else:
            metadata.create_all(connection, checkfirst=False)
            connection.execute(schema_version.insert().values(version=SCHEMA_VERSION))
            return
        metadata.create_all(connection, checkfirst=True)
        lacking = [table for table in metadata.sorted_tables if _missing_columns(connection, table)]
    for table in lacking:
        with database.writing() as connection:
            if database.is_postgresql:
                _wait_for_turn(connection)
            # Check again under the lock.
            for column in _missing_columns(connection, table):
                _add_column(connection, table, column)


def stored_schema(database: Database) -> tuple[int | None, list[str]]:
    """Return the schema version of a catalogue, None without tables, and the columns that `prepare_schema` would add.

    Raises:
        CatalogueError: the database rejects a statement; CatalogueUnavailable if it cannot be reached.
    """
    with database.reading() as connection:
        found = set(inspect(connection).get_table_names())
        if schema_version.name not in found:
            return None, []
        there = [table for table in metadata.sorted_tables if table.name in found]
        lacking = [f"{table.name}.{column.name}" for table in there for column in _missing_columns(connection, table)]
        return connection.scalar(select(schema_version.c.version)), lacking


def _wait_for_turn(connection: Connection) -> None:
    connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))


def _missing_columns(connection: Connection, table: Table) -> list[Column[Any]]:
    found = {column["name"] for column in inspect(connection).get_columns(table.name)}
    return [column for column in table.columns if column.name not in found]


def _add_column(connection: Connection, table: Table, column: Column[Any]) -> None:
    preparer = connection.dialect.identifier_preparer
    definition = CreateColumn(column).compile(dialect=connection.dialect)
    connection.execute(text(f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {definition}"))


def _check_version(connection: Connection, shown: str) -> None:
    found = connection.scalar(select(schema_version.c.version))
    if found == SCHEMA_VERSION:
        return
    advice = (
        "upgrade contextworker"
        if found is not None and found > SCHEMA_VERSION
        else "harvest into a new database, or use the release that wrote this one"
    )
    raise CatalogueError(
        f"catalogue {shown}: has schema version {found}, and this release of contextworker needs {SCHEMA_VERSION}; "
        f"{advice}",
        catalogue=shown,
    )
