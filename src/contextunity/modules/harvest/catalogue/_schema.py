"""Creation of the tables, and what an existing catalogue lacks of those of this release."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, Table, func, inspect, select, text
from sqlalchemy.schema import CreateColumn

from contextunity.modules.harvest.catalogue._database import Database
from contextunity.modules.harvest.catalogue._errors import CatalogueError
from contextunity.modules.harvest.catalogue._tables import SCHEMA_VERSION, metadata, schema_version

__all__ = ["prepare_schema"]

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
