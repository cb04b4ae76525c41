"""Connections to the catalogue's database, set up so that several workers can use it at once."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from contextunity.modules.harvest.catalogue._errors import CatalogueError, CatalogueUnavailable
from contextunity.modules.harvest.catalogue._url import display_url

__all__ = ["WRITING", "open_engine"]

WRITING = "catalogue_writing"
"""Execution option of connections that are going to write."""

_BUSY_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 10


def open_engine(url: URL) -> Engine:
    """Make the engine for a parsed URL. A SQLite file and its folder are created; a server is not contacted yet.

    Raises:
        CatalogueError: the driver is not installed, or the SQLite file cannot be written.
        CatalogueUnavailable: the SQLite file stays locked by somebody else.
    """
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url)
    return _open_postgresql(url)


def _open_postgresql(url: URL) -> Engine:
    defaults = {"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "contextworker"}
    connect_args = {name: value for name, value in defaults.items() if name not in url.query}
    try:
        return create_engine(
            url,
            connect_args=connect_args,
            hide_parameters=True,
            # A connection that died in the pool, as by a restart of the server, is replaced unseen.
            pool_pre_ping=True,
            pool_timeout=_BUSY_TIMEOUT_S,
        )
    except ImportError as error:
        shown = display_url(url)
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
    shown = display_url(url)
    path = Path(url.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            _switch_to_wal(connection)
            # Asks for the write lock, and so finds out whether the file may be written.
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
    # SQLite does not call its busy handler for this switch, so workers that start at once have to wait for one
    # another here. The mode is a property of the file: whoever comes later finds it set and takes no lock.
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
    # From here on only SQLAlchemy begins transactions; see "Enabling Non-Legacy SQLite Transactional Modes" in its
    # SQLite documentation. The other way there, autocommit=False, needs Python 3.12 and cannot begin IMMEDIATE.
    connection.isolation_level = None
    # FULL costs one flush a commit, about a tenth of a sync. With NORMAL a power failure could undo a page that
    # Temporal was told is done; nobody would write it again, and its products would be marked as no longer listed.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _on_begin(connection: Connection) -> None:
    # A transaction that reads first and then wants to write cannot wait for the lock: SQLite refuses it at once where
    # somebody else wrote meanwhile. Whoever is going to write therefore takes the lock at the beginning.
    writing = connection.get_execution_options().get(WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
