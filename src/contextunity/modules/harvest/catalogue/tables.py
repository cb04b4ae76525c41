"""The tables of the catalogue, as SQLAlchemy Core describes them to SQLite and PostgreSQL alike, and their creation."""

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
    "suppliers",
]

SCHEMA_VERSION = 1
"""Rises with a change of the tables below that cannot be made as a worker starts. Further tables, and further columns
that may be NULL or have a `server_default`, are added to an existing catalogue then and leave the version as it is, so
that workers of the release before go on beside those of this one: they neither read nor write them."""


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, UTC, aware in Python. SQLite has no time zones, so there it is stored bare."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Bring the time to UTC on its way into the database."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Mark the time as UTC on its way out of the database."""
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

# One row a catalogue, that is a tenant's products of one supplier. Writers of a catalogue lock its row first, so that
# two attempts at one page, or a straggler and its successor, come one after the other instead of deadlocking.
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
    # What the first page found, so that nothing of it is taken from the payload of a later activity. All are NULL in
    # harvests that a release without these columns began.
    Column("workflow_id", Text),
    Column("feed_version", Text),
    Column("feed_format", Text),
    Column("feed_bytes", BigInteger),
    Column("feed_ranges", Boolean),
    # SHA-256 of Feed.prologue, in hexadecimal digits.
    Column("prologue_hash", Text),
    # Seconds that reading the feed took, all pages and attempts that came to an end together.
    Column("read_seconds", Float),
    # The harvest whose reading of the feed stands, where this one found it unchanged and read nothing; else NULL.
    Column("unchanged_since", Text),
    PrimaryKeyConstraint("tenant_id", "supplier_code", "harvest_id"),
)

# Harvests that are under way or wait for it, in the order in which they came: of each tenant the first so many have
# their turn. Nothing here tells which of them still live; the Temporal server does.
harvest_turns = Table(
    "harvest_turns",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("harvest_id", Text, nullable=False),
    Column("workflow_id", Text, nullable=False),
    # Rises within a tenant.
    Column("place", BigInteger, nullable=False),
    # When somebody last looked whether it is over.
    Column("checked_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant_id", "harvest_id"),
)

# Where each page that was fetched ended: the only place where the next one may begin.
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
    # Name of a HarvestIncomplete where the page shows that the feed lacks something, and why; else NULL.
    Column("incomplete", Text),
    Column("incomplete_detail", Text),
    # What the page was fetched and transformed by, see Resources.read_by; NULL where a release without them did it. An
    # unchanged feed is read all the same unless both are what it would be read by.
    Column("fetched_by", Text),
    Column("transformed_by", Text),
    # When its products change although the feed does not, as a reduced price begins or ends; else NULL.
    Column("holds_until", UtcDateTime),
    PrimaryKeyConstraint("tenant_id", "supplier_code", "harvest_id", "page"),
    ForeignKeyConstraint(
        ["tenant_id", "supplier_code", "harvest_id"],
        ["harvests.tenant_id", "harvests.supplier_code", "harvests.harvest_id"],
    ),
)

# Pages on their way from one activity to the next, as zlib-compressed protobuf. `kind` is raw or product.
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
    # What the page's rows in `rejected_rows` take; 0 where there are none, or they were deleted for want of room. NULL
    # where a release without this column synced the page, until somebody adds it up.
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
    # Two integers as in Money, of the same sign, so both are exact on SQLite, which has no decimal type, and
    # `ORDER BY price_units, price_nanos` sorts by price. Both are NULL where a product came without a price.
    Column("price_units", BigInteger),
    Column("price_nanos", Integer),
    Column("currency_code", Text, nullable=False),
    Column("gtin", Text, nullable=False),
    Column("stock", BigInteger),
    Column("availability", Text, nullable=False),
    Column("weight_grams", BigInteger),
    # active, draft, archived or unpublished; empty where the feed says nothing. What is neither empty nor active is
    # not offered, and its availability is out_of_stock.
    Column("publication", Text, nullable=False, server_default=""),
    Column("content_hash", Text, nullable=False),
    # The whole Product as ProtoJSON, so that people can read it with any SQL tool. It is text and not jsonb because
    # jsonb refuses the NUL characters that a feed may hold; `data::jsonb` gives it where it is wanted.
    Column("data", Text, nullable=False),
    # Line of the feed that the product had in the harvest that `seen_in` names.
    Column("first_line", BigInteger, nullable=False),
    Column("seen_in", Text, nullable=False),
    # The newest harvest whose feed listed it in a row that could not be used; NULL where there was none.
    Column("listed_in", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("delisted_at", UtcDateTime),
    PrimaryKeyConstraint("tenant_id", "supplier_code", "sku"),
)

# What was made of a product beside what its supplier says of it; a table of its own, so that a harvest, which writes
# all columns of a product, touches none of it. A product without a row was never enriched.
enrichments = Table(
    "enrichments",
    metadata,
    *_catalogue_key(),
    Column("sku", Text, nullable=False),
    Column("category", Text, nullable=False),
    # JSON lists of texts, as is `missing`.
    Column("colors", Text, nullable=False),
    Column("size", Text, nullable=False),
    Column("materials", Text, nullable=False),
    Column("brand", Text, nullable=False),
    # 0 to 100, and why it is not 100.
    Column("completeness", Integer, nullable=False),
    Column("missing", Text, nullable=False),
    # rules or router.
    Column("enricher", Text, nullable=False),
    # What it was made by and from: another version, or another content of the product, and it is made anew.
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
    # Place among the rejected rows of its page, from 0; a line alone would not be unique.
    Column("position", Integer, nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("sku", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("raw", Text, nullable=False),
    # rejected, or warning where the row was used all the same.
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


# Any number that other programs on the same server are unlikely to lock on.
_SCHEMA_LOCK = 0x436174616C6F67


def prepare_schema(database: Database) -> None:
    """Create the tables where there are none, and add what those of an earlier release lack.

    Any number of workers may do so at once, beside others that write. PostgreSQL locks a table that is altered as a
    whole, so each has a transaction of its own: waiting for one while another is held could deadlock with a writer.

    Raises:
        CatalogueError: the tables are those of another release or of another program.
        CatalogueUnavailable: the server cannot be reached.
    """
    with database.writing() as connection:
        if database.is_postgresql:
            # On SQLite the write lock does the same; CREATE TABLE IF NOT EXISTS alone can collide on PostgreSQL.
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
            # Asked again, now that it is our turn.
            for column in _missing_columns(connection, table):
                _add_column(connection, table, column)


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
