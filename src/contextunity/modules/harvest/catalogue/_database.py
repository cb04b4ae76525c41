"""Transactions on the catalogue's database, and the few things that SQLite and PostgreSQL spell differently."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite

from contextunity.modules.harvest.catalogue._engine import WRITING
from contextunity.modules.harvest.catalogue._errors import database_errors

__all__ = ["Database"]


class Database:
    """An engine, how it is shown to people, and the two kinds of transactions on it.

    Attributes:
        shown: database URL without its password.
        is_sqlite: whether it is SQLite.
        is_postgresql: whether it is PostgreSQL; it is one or the other.
    """

    def __init__(self, engine: Engine, shown: str) -> None:
        self.shown = shown
        self.is_sqlite = engine.dialect.name == "sqlite"
        self.is_postgresql = not self.is_sqlite
        self._engine = engine
        self._writer = engine.execution_options(**{WRITING: True})
        # SQLite has one writer at a time and lets the others poll for their turn, up to a tenth of a second apart and
        # in no order. The threads of one process queue here instead, which is both quicker and fair.
        self._turn: AbstractContextManager[object] = threading.Lock() if self.is_sqlite else nullcontext()

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Open a transaction that only reads; it sees one state of the database on SQLite.

        Raises:
            CatalogueError: the database refuses; CatalogueUnavailable where that may pass.
        """
        with database_errors(self.shown), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Open a transaction that writes; it is committed at the end of the block, and undone by any exception.

        Raises:
            CatalogueError: the database refuses; CatalogueUnavailable where that may pass.
        """
        with database_errors(self.shown), self._turn, self._writer.begin() as connection:
            yield connection

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Begin an INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def close(self) -> None:
        """Close all pooled connections."""
        self._engine.dispose()
