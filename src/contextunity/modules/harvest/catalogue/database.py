"""Connections to the database of the catalogue: its URL, its engine, and transactions on it."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, Update, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql.compiler import SQLCompiler

from contextunity.modules.harvest.catalogue.errors import CatalogueError, CatalogueUnavailable, database_errors
from contextunity.worker import tracing

__all__ = ["Database"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """A statement in its driver's form."""

    sql: str
    order: Sequence[str] | None
    """Names of the parameters, if the driver takes them by position."""
    conversions: Mapping[str, Callable[[Any], Any]]
    """Conversions for parameters that the driver does not accept unchanged."""


class Database:
    """An engine, its display name, and its two kinds of transactions.

    Attributes:
        shown: database URL without its password.
        is_sqlite: whether it is SQLite.
        is_postgresql: whether it is PostgreSQL; exactly one of the two is true.
    """

    def __init__(self, engine: Engine, shown: str) -> None:
        self.shown = shown
        self.is_sqlite = engine.dialect.name == "sqlite"
        self.is_postgresql = not self.is_sqlite
        self._engine = engine
        self._writer = engine.execution_options(**{_WRITING: True})
        self._upserts: dict[tuple[Table, tuple[str, ...]], sqlite.Insert | postgresql.Insert] = {}
        self._prepared: dict[tuple[Insert | Update, tuple[str, ...]], _Prepared] = {}
        # SQLite allows one writer at a time; others poll for the lock, up to a tenth of a second apart and in no order.
        # The threads of one process queue here instead, which is faster and fair.
        self._turn: AbstractContextManager[object] = threading.Lock() if self.is_sqlite else nullcontext()

    @classmethod
    def open(cls, url: str) -> Database:
        """Make the engine for a URL. A SQLite file and its folder are created; a server is not contacted yet.

        Args:
            url: `sqlite:///` with a path, or `postgresql://`, `postgres://` or `postgresql+psycopg://` with a server.

        Raises:
            CatalogueError: the URL or its driver cannot be used, or the SQLite file cannot be written.
            CatalogueUnavailable: another program keeps the SQLite file locked.
        """
        parsed = _parse_url(url)
        engine = _open_sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _open_postgresql(parsed)
        return cls(engine, _display_url(parsed))

    @classmethod
    def look(cls, url: str) -> Database | None:
        """Make an engine that only looks, and gives up after some seconds; None for a SQLite file that is not there.

        Raises:
            CatalogueError: the URL or its driver cannot be used.
        """
        parsed = _parse_url(url)
        shown = _display_url(parsed)
        if parsed.get_backend_name() != "sqlite":
            return cls(_open_postgresql(parsed.update_query_dict({"connect_timeout": str(_LOOK_TIMEOUT_S)})), shown)
        path = Path(parsed.database or "")
        if not path.exists():
            return None
        read_only = parsed.set(database=f"{path.absolute().as_uri()}", query={"mode": "ro", "uri": "true"})
        return cls(create_engine(read_only, connect_args={"timeout": _LOOK_TIMEOUT_S}, hide_parameters=True), shown)

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Open a transaction that only reads; on SQLite it sees one state of the database.

        Raises:
            CatalogueError: the database rejects a statement; CatalogueUnavailable if a retry may help.
        """
        with self._span("read catalogue"), database_errors(self.shown), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Open a transaction that writes; the end of the block commits it, an exception rolls it back.

        Raises:
            CatalogueError: the database rejects a statement; CatalogueUnavailable if a retry may help.
        """
        with (
            self._span("write catalogue"),
            database_errors(self.shown),
            self._turn,
            self._writer.begin() as connection,
        ):
            yield connection

    def _span(self, name: str) -> AbstractContextManager[None]:
        return tracing.span(name, db_system_name=self._engine.dialect.name)

    def upsert(self, table: Table, *columns: str) -> sqlite.Insert | postgresql.Insert:
        """Return an INSERT that overwrites these columns of an existing row; its values are its parameters."""
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
        """Execute a statement for many rows, without SQLAlchemy's processing of each value.

        That processing takes as long as the rest of writing a product.

        Args:
            connection: connection of a write transaction.
            statement: a cached statement with parameters for all of its values.
            rows: the parameters of each row, all with the same names; texts and numbers, which drivers accept
                unchanged.
            same: parameters that are equal for all rows, of any type.
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
        """Return an INSERT that supports ON CONFLICT."""
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


_WRITING = "catalogue_writing"
"""Execution option of connections for write transactions."""

_BUSY_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 10
_LOOK_TIMEOUT_S = 3


def _open_postgresql(url: URL) -> Engine:
    defaults = {"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "contextworker"}
    connect_args = {name: value for name, value in defaults.items() if name not in url.query}
    try:
        return create_engine(
            url,
            connect_args=connect_args,
            hide_parameters=True,
            # A pooled connection that is broken, such as after a restart of the server, is replaced.
            pool_pre_ping=True,
            pool_timeout=_BUSY_TIMEOUT_S,
        )
    except ImportError as error:
        shown = _display_url(url)
        raise CatalogueError(
            f"catalogue {shown}: the PostgreSQL driver is not installed; run pip install 'contextworker[postgres]'",
            catalogue=shown,
        ) from error


def _open_sqlite(url: URL) -> Engine:
    _prepare_file(url)
    engine = create_engine(
        url, connect_args={"timeout": _BUSY_TIMEOUT_S}, hide_parameters=True, pool_timeout=_BUSY_TIMEOUT_S
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _prepare_file(url: URL) -> None:
    shown = _display_url(url)
    path = Path(url.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            _switch_to_wal(connection)
            # Take the write lock, to check that the file can be written.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except OSError as error:
        raise CatalogueError(
            f"catalogue {shown}: cannot make the folder {path.parent}: {error.strerror}; "
            "name a path that this user may write",
            catalogue=shown,
        ) from error
    except sqlite3.Error as error:
        if _is_busy(error):
            raise CatalogueUnavailable(
                f"catalogue {shown}: the file stayed locked for {_BUSY_TIMEOUT_S:.0f} seconds; "
                "end the program that holds it",
                catalogue=shown,
            ) from error
        raise CatalogueError(
            f"catalogue {shown}: cannot use {path} as a SQLite database: {error}; "
            "name a path that this user may write, of a SQLite file or of none",
            catalogue=shown,
        ) from error


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not call its busy handler for this switch, so workers that start concurrently must wait for each other
    # here. The mode is a property of the file: later workers find it set and take no lock.
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            mode: tuple[str] = connection.execute("PRAGMA journal_mode").fetchone()
            if mode[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _is_busy(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    # From now on only SQLAlchemy begins transactions; see "Enabling Non-Legacy SQLite Transactional Modes" in its
    # SQLite documentation. The alternative there, autocommit=False, needs Python 3.12 and cannot begin IMMEDIATE.
    connection.isolation_level = None
    # FULL costs one flush per commit, about a tenth of a sync. With NORMAL, a power failure could lose a page that was
    # reported to Temporal as done; it would not be written again, and its products would be marked as no longer listed.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _on_begin(connection: Connection) -> None:
    # A transaction that first reads and then writes cannot wait for the lock: SQLite rejects it immediately if another
    # one has written meanwhile. So a write transaction takes the lock at its beginning.
    writing = connection.get_execution_options().get(_WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


_UNDERSTOOD = "sqlite:///catalogue.db or postgresql://user@host/database"

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}

# libpq accepts these as parameters too.
_SECRET_PARAMETERS = {"password", "sslpassword"}


def _parse_url(url: str) -> URL:
    """Parse a database URL, and add the name of its driver.

    Raises:
        CatalogueError: it is not a URL, or that of another database, or of a SQLite database in memory.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        shown = _mask_unparsed(url)
        # Suppress the cause, because its text contains the URL with its password.
        raise CatalogueError(
            f"catalogue {shown!r}: is not a database URL; write one such as {_UNDERSTOOD}", catalogue=shown
        ) from (error if shown == url else None)
    drivername = _DRIVERS.get(parsed.drivername)
    shown = _display_url(parsed)
    if drivername is None:
        raise CatalogueError(
            f"catalogue {shown}: cannot use {parsed.drivername!r}; write a URL such as {_UNDERSTOOD}", catalogue=shown
        )
    if drivername.startswith("sqlite") and _in_memory(parsed):
        raise CatalogueError(
            f"catalogue {shown}: a database in memory is lost with its process; name a file, as in "
            "sqlite:///catalogue.db",
            catalogue=shown,
        )
    return parsed.set(drivername=drivername)


def _display_url(url: URL) -> str:
    """Return a URL for display: without the driver, and with `***` for its password and secret parameters."""
    hidden = {key: "***" for key in url.query if key in _SECRET_PARAMETERS}
    shown = url.set(drivername=url.get_backend_name()).update_query_dict(hidden)
    return shown.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def _in_memory(url: URL) -> bool:
    database = url.database or ""
    return database in {"", ":memory:"} or database.startswith("file:") or "mode" in url.query


def _mask_unparsed(url: str) -> str:
    # Greedy up to the last @, because an unquoted password may contain one.
    masked = re.sub(r"(://[^:/@]*:).*@", r"\1***@", url, flags=re.DOTALL)
    if "://" not in url:
        masked = re.sub(r"^([^:/@]*[:/]*).*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"((?:ssl)?password=)[^&]*", r"\1***", masked)
