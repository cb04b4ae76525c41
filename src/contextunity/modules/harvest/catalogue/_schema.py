"""Creation of the tables, and the check that the tables found are those of this release."""

from __future__ import annotations

from sqlalchemy import Connection, func, inspect, select

from contextunity.modules.harvest.catalogue._database import Database
from contextunity.modules.harvest.catalogue._errors import CatalogueError
from contextunity.modules.harvest.catalogue._tables import SCHEMA_VERSION, metadata, schema_version

__all__ = ["prepare_schema"]

# Any number that other programs on the same server are unlikely to lock on.
_SCHEMA_LOCK = 0x436174616C6F67


def prepare_schema(database: Database) -> None:
    """Create the tables where there are none. Any number of workers may do so at once.

    Raises:
        CatalogueError: the tables are those of another release or of another program.
        CatalogueUnavailable: the server cannot be reached.
    """
    with database.writing() as connection:
        if database.is_postgresql:
            # On SQLite the write lock does the same; CREATE TABLE IF NOT EXISTS alone can collide on PostgreSQL.
            connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
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
