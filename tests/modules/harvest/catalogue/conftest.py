"""Databases for the tests of the catalogue: a SQLite file, and a PostgreSQL server where the machine has one."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import Money, PageRef, Product, ProductPage, RawPage, RejectedRow

from contextunity.modules.harvest.catalogue import Catalogue, SyncCounts


def _find_server_programs() -> Path | None:
    """Find the folder with initdb and postgres: Debian's, the newest first, else where PATH leads."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    on_path = shutil.which("initdb")
    candidates = [*debian, *([Path(on_path).parent] if on_path else [])]
    return next((path for path in candidates if (path / "initdb").exists() and (path / "postgres").exists()), None)


def _other_user() -> dict[str, Any]:
    """Give the arguments that let a program run as somebody else: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgresql_socket() -> Iterator[Path]:
    """Run a PostgreSQL server of our own, reached through a socket in the folder given; no port is opened."""
    programs = _find_server_programs()
    if programs is None:
        pytest.skip("this machine has no PostgreSQL server programs")
    psycopg = pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed")
    other_user = _other_user()
    # Not under tmp_path: only the user that runs pytest may enter that, and socket paths are short.
    folder = Path(tempfile.mkdtemp(prefix="catalogue-pg-"))
    server: subprocess.Popen[Any] | None = None
    try:
        if other_user:
            os.chown(folder, other_user["user"], other_user["group"])
        data = folder / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "catalogue", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"],
            check=True,
            capture_output=True,
            cwd=folder,
            **other_user,
        )
        settings = ["fsync=off", "full_page_writes=off", "listen_addresses=", f"unix_socket_directories={folder}"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *(part for setting in settings for part in ("-c", setting))],
                stdout=log,
                stderr=log,
                cwd=folder,
                **other_user,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(host=str(folder), user="catalogue", dbname="postgres").close()
                break
            except psycopg.OperationalError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"PostgreSQL does not start: {(folder / 'log').read_text()}")
                time.sleep(0.05)
        yield folder
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        shutil.rmtree(folder)


@pytest.fixture
def postgresql_url(postgresql_socket: Path) -> Iterator[str]:
    """Give the URL of a new PostgreSQL database."""
    import psycopg
    from psycopg import sql

    name = f"catalogue_{uuid.uuid4().hex}"
    with psycopg.connect(host=str(postgresql_socket), user="catalogue", dbname="postgres", autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield f"postgresql://catalogue@/{name}?host={postgresql_socket}"
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of a new database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'data' / 'catalogue.db'}"
    found: str = request.getfixturevalue("postgresql_url")
    return found


@pytest.fixture
def catalogue(url: str) -> Iterator[Catalogue]:
    with Catalogue.open(url) as catalogue:
        yield catalogue


@pytest.fixture
def make_ref() -> Callable[..., PageRef]:
    def make(page: int = 0, harvest: str = "h1", supplier: str = "camping-trade", tenant: str = "acme") -> PageRef:
        return PageRef(tenant_id=tenant, supplier_code=supplier, harvest_id=harvest, page=page)

    return make


@pytest.fixture
def make_product() -> Callable[..., Product]:
    def make(sku: str, *, line: int = 1, title: str = "Tent", **values: Any) -> Product:
        values.setdefault("price", Money(currency_code="EUR", units=54, nanos=950_000_000))
        return Product(sku=sku, line=line, title=title, **values)

    return make


@pytest.fixture
def sync(catalogue: Catalogue) -> Callable[..., SyncCounts]:
    """Stage a page as the activities do, and sync it."""

    def stage_and_sync(ref: PageRef, products: Sequence[Product], rejected: Sequence[RejectedRow] = ()) -> SyncCounts:
        catalogue.put_raw_page(ref, RawPage())
        catalogue.put_product_page(ref, ProductPage(products=list(products), rejected=list(rejected)))
        return catalogue.sync_page(ref)

    return stage_and_sync
