"""Transactions on the catalogue's database, and the few things that SQLite and PostgreSQL spell differently."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, Update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from contextunity.modules.harvest.catalogue._engine import WRITING
from contextunity.modules.harvest.catalogue._errors import database_errors

__all__ = ["Database"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """A statement as its driver takes it."""

    sql: str
    order: Sequence[str] | None
    """Of the parameters, where the driver takes them by place."""
    conversions: Mapping[str, Callable[[Any], Any]]
    """Of parameters that the driver does not take as they are."""


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
        self._upserts: dict[tuple[Table, tuple[str, ...]], sqlite.Insert | postgresql.Insert] = {}
        self._prepared: dict[tuple[Insert | Update, tuple[str, ...]], _Prepared] = {}
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

    def upsert(self, table: Table, *columns: str) -> sqlite.Insert | postgresql.Insert:
        """Give an INSERT that overwrites these columns where there is such a row; its values are its parameters."""
        found = self._upserts.get((table, columns))
        if found is None:
            insert = self.insert(table)
            found = insert.on_conflict_do_update(
                index_elements=list(table.primary_key.columns),
                set_={name: insert.excluded[name] for name in columns},
            )
            self._upserts[table, columns] = found
        return found

    def execute_many(
        self,
        connection: Connection,
        statement: Insert | Update,
        rows: Sequence[Mapping[str, Any]],
        same: Mapping[str, Any],
    ) -> None:
        """Execute a statement for many rows, without having SQLAlchemy look at each of their values.

        That takes it as long as all else that writing a product does.

        Args:
            connection: of a transaction that writes.
            statement: built once, with parameters for all of its values.
            rows: the parameters of each, all of the same names; texts and numbers, which drivers take as they are.
            same: the parameters that all of them have alike, of any type.
        """
        if not rows:
            return
        names = (*rows[0], *same)
        prepared = self._prepared.get((statement, names))
        if prepared is None:
            prepared = self._prepared[statement, names] = _prepare(connection, statement, names)
        values = {**same, **{name: convert(same[name]) for name, convert in prepared.conversions.items()}}
        if prepared.order is None:
            connection.exec_driver_sql(prepared.sql, [{**values, **row} for row in rows])
        else:
            in_order = itemgetter(*prepared.order)
            connection.exec_driver_sql(prepared.sql, [in_order({**values, **row}) for row in rows])

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Begin an INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def close(self) -> None:
        """Close all pooled connections."""
        self._engine.dispose()


def _prepare(connection: Connection, statement: Insert | Update, names: Sequence[str]) -> _Prepared:
    compiled = statement.compile(connection, column_keys=names, for_executemany=True)
    assert isinstance(compiled, SQLCompiler)
    conversions: dict[str, Callable[[Any], Any]] = {}
    for name, bound in compiled.binds.items():
        convert = bound.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
        if convert is not None:
            conversions[name] = convert
    return _Prepared(sql=compiled.string, order=compiled.positiontup, conversions=conversions)
