"""Opening a catalogue: what URLs mean, what is created, and what every fault says."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from contextunity.core.errors import ContextUnityError
from contextunity.modules.harvest.catalogue import Catalogue, CatalogueError, CatalogueUnavailable


def test_opening_creates_the_folder_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "catalogue.db"
    with Catalogue.open(f"sqlite:///{path}") as catalogue:
        assert catalogue.url_for_display == f"sqlite:///{path}"
    assert path.exists()


def test_sqlite_files_are_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    Catalogue.open(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


# What may not be known, or not yet. Everything else is always there, and a writer that forgets it is refused.
_MAY_BE_NULL = {
    "harvests": {
        *("complete", "delisted", "feed_bytes", "feed_format", "feed_ranges", "feed_version", "finished_at"),
        *("prologue_hash", "read_seconds", "unchanged_since", "workflow_id"),
    },
    "products": {"delisted_at", "listed_in", "price_nanos", "price_units", "stock", "weight_grams"},
    "fetched_pages": {"fetched_by", "holds_until", "incomplete", "incomplete_detail", "transformed_by"},
    "harvest_pages": {"rejected_bytes"},
}


def test_only_what_may_not_be_known_can_be_null(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    Catalogue.open(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    assert {"enrichments", "harvests", "products", "rejected_rows"} < set(tables)
    for table in tables:
        columns = connection.execute('SELECT name, "notnull" FROM pragma_table_info(?)', (table,)).fetchall()
        assert {name for name, not_null in columns if not not_null} == _MAY_BE_NULL.get(table, set()), table
    connection.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_a_postgresql_url_works(postgresql_socket: Path, scheme: str) -> None:
    with Catalogue.open(f"{scheme}://catalogue:secret@/postgres?host={postgresql_socket}") as catalogue:
        assert catalogue.count("acme", "camping-trade") == 0
        assert catalogue.url_for_display.startswith("postgresql://catalogue:***@/postgres?host=")


def test_opening_again_finds_the_same_catalogue(url: str) -> None:
    with Catalogue.open(url) as first:
        first.begin_harvest("acme", "camping-trade", "h1")
        first.begin_harvest("acme", "camping-trade", "h2")
    with Catalogue.open(url) as second, pytest.raises(CatalogueError, match="'h2'"):
        second.begin_harvest("acme", "camping-trade", "h1")


def test_closing_twice_does_no_harm(url: str) -> None:
    catalogue = Catalogue.open(url)
    catalogue.close()
    catalogue.close()


def test_threads_that_open_a_new_catalogue_at_once_all_succeed(url: str) -> None:
    start = threading.Barrier(8)

    def open_and_use(_: int) -> int:
        start.wait()
        with Catalogue.open(url) as catalogue:
            return catalogue.count("acme", "camping-trade")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(open_and_use, range(8))) == [0] * 8


def test_processes_that_open_a_new_catalogue_at_once_all_succeed(url: str) -> None:
    script = (
        "import sys; from contextunity.modules.harvest.catalogue import Catalogue; "
        "print('ready', flush=True); sys.stdin.readline(); Catalogue.open(sys.argv[1]).close()"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.communicate("go\n")
    assert [worker.returncode for worker in workers] == [0] * 4


@pytest.mark.parametrize(
    ("found", "advice"),
    [
        pytest.param(99, "upgrade contextworker", id="newer"),
        pytest.param(0, "harvest into a new database", id="older"),
    ],
)
def test_a_schema_of_another_release_is_refused(url: str, found: int, advice: str) -> None:
    Catalogue.open(url).close()
    _execute(url, f"UPDATE schema_version SET version = {found}")
    with pytest.raises(CatalogueError, match=f"schema version {found}.*{advice}"):
        Catalogue.open(url)


def test_tables_of_another_program_are_left_alone(url: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    _execute(url, "CREATE TABLE products (id INTEGER)")
    with pytest.raises(CatalogueError, match=r"something else under our names \(products\)"):
        Catalogue.open(url)


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("catalogue.db", "is not a database URL", id="no scheme"),
        pytest.param("", "is not a database URL", id="empty"),
        pytest.param("postgresql://me:secret@host:port/db", "is not a database URL", id="port is no number"),
        pytest.param("mysql://me:secret@host/db", "cannot use 'mysql'", id="other database"),
        pytest.param("postgresql+asyncpg://me:secret@host/db", "cannot use", id="other driver"),
        pytest.param("sqlite://", "in memory", id="nothing named"),
        pytest.param("sqlite:///:memory:", "in memory", id="memory"),
    ],
)
def test_a_wrong_url_is_refused_with_a_right_one_named(url: str, says: str) -> None:
    with pytest.raises(CatalogueError, match=says) as caught:
        Catalogue.open(url)
    assert "sqlite:///catalogue.db" in str(caught.value)
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"
    assert not caught.value.retryable
    assert isinstance(caught.value, ContextUnityError)


def test_a_password_in_a_parameter_is_hidden_too() -> None:
    with pytest.raises(CatalogueUnavailable) as caught:
        Catalogue.open("postgresql://me@127.0.0.1:1/db?password=secret")
    assert "secret" not in str(caught.value)
    assert "password=***" in caught.value.catalogue


def test_a_server_that_is_not_there_is_worth_another_try() -> None:
    # Port 1 belongs to tcpmux, which nobody runs.
    with pytest.raises(CatalogueUnavailable, match=r"127\.0\.0\.1:1/db.*reachable") as caught:
        Catalogue.open("postgresql://me:secret@127.0.0.1:1/db")
    assert caught.value.retryable
    assert "secret" not in str(caught.value)
    assert caught.value.catalogue == "postgresql://me:***@127.0.0.1:1/db"


def test_a_database_that_does_not_exist_is_not_worth_another_try(postgresql_socket: Path) -> None:
    with pytest.raises(CatalogueError, match="does not exist") as caught:
        Catalogue.open(f"postgresql://catalogue@/nowhere?host={postgresql_socket}")
    assert not caught.value.retryable


def test_a_missing_driver_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(CatalogueError, match=r"pip install 'contextworker\[postgres\]'") as caught:
        Catalogue.open("postgresql://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be read as the header of one" * 10)
    before = path.read_bytes()
    with pytest.raises(CatalogueError, match=r"cannot use .*notes\.txt as a SQLite database") as caught:
        Catalogue.open(f"sqlite:///{path}")
    assert not caught.value.retryable
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CatalogueError, match=r"cannot make the folder .*taken"):
        Catalogue.open(f"sqlite:///{tmp_path / 'taken' / 'deep' / 'catalogue.db'}")


def test_a_path_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="unable to open"):
        Catalogue.open(f"sqlite:///{tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CatalogueError, match="may write"):
            Catalogue.open(f"sqlite:///{tmp_path / 'catalogue.db'}")
    finally:
        tmp_path.chmod(0o700)
