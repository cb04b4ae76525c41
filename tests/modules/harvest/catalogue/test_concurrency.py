"""Several workers on one database, and workers that die in the middle of a sync."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from contextunity.gen.contextunity.harvest.v1 import PageRef, Product, ProductPage, RejectedRow
from sqlalchemy import Engine, create_engine, event, text

from contextunity.modules.harvest.catalogue import Catalogue, CatalogueUnavailable, HarvestSuperseded, SyncCounts

MakeRef = Callable[..., PageRef]
MakeProduct = Callable[..., Product]
Sync = Callable[..., SyncCounts]

_PAGES = 6
_PAGE_SIZE = 40

_HARVEST_IN_A_PROCESS = """
import sys
from contextunity.gen.contextunity.harvest.v1 import Money, PageRef, Product, ProductPage, RawPage
from contextunity.modules.harvest.catalogue import Catalogue
url, supplier, pages, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with Catalogue.open(url) as catalogue:
    print("ready", flush=True)
    sys.stdin.readline()
    for page in range(pages):
        ref = PageRef(tenant_id="acme", supplier_code=supplier, harvest_id="h1", page=page)
        catalogue.put_raw_page(ref, RawPage())
        products = [
            Product(sku=str(page * size + n), title=supplier, price=Money(currency_code="EUR", units=n), line=n)
            for n in range(size)
        ]
        catalogue.put_product_page(ref, ProductPage(products=products))
        catalogue.sync_page(ref)
    catalogue.finish_harvest("acme", supplier, "h1", complete=True)
"""

# Kills its own process as by the kernel, just before the first statement that begins with argv[2], or before the
# commit.
_SYNC_UNTIL_KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
from contextunity.gen.contextunity.harvest.v1 import PageRef
from contextunity.modules.harvest.catalogue import Catalogue
url, deadly = sys.argv[1], sys.argv[2]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def die_before_statement(_connection, _cursor, statement, *_rest):
    if statement.startswith(deadly):
        die()

catalogue = Catalogue.open(url)
if deadly == "COMMIT":
    event.listen(Engine, "commit", die)
else:
    event.listen(Engine, "before_cursor_execute", die_before_statement)
catalogue.sync_page(PageRef(tenant_id="acme", supplier_code="camping-trade", harvest_id="h2", page=0))
"""


def test_threads_harvest_different_suppliers_at_once(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    start = threading.Barrier(6)

    def harvest(supplier: str) -> int:
        start.wait()
        for number in range(2):
            for page in range(_PAGES):
                products = [make_product(f"{page}/{n}", title=f"{supplier} {number}") for n in range(_PAGE_SIZE)]
                sync(make_ref(page=page, harvest=f"h{number}", supplier=supplier), products)
            catalogue.finish_harvest("acme", supplier, f"h{number}", complete=True)
        return catalogue.counts("acme", supplier, "h1").changed

    suppliers = [f"supplier-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(harvest, suppliers)) == [_PAGES * _PAGE_SIZE] * 6
    for supplier in suppliers:
        assert {row.title for row in catalogue.sample("acme", supplier, 1000)} == {f"{supplier} 1"}


def test_processes_harvest_different_suppliers_at_once(url: str) -> None:
    suppliers = ["one", "two", "three"]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _HARVEST_IN_A_PROCESS, url, supplier, str(_PAGES), str(_PAGE_SIZE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for supplier in suppliers
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate()
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    with Catalogue.open(url) as catalogue:
        for supplier in suppliers:
            assert catalogue.counts("acme", supplier, "h1").created == _PAGES * _PAGE_SIZE
            assert catalogue.count("acme", supplier, delisted=False) == _PAGES * _PAGE_SIZE


def test_attempts_at_the_same_page_agree(catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct) -> None:
    products = [make_product(str(number % 50), line=number) for number in range(60)]
    catalogue.put_product_page(make_ref(), ProductPage(products=products))
    with ThreadPoolExecutor(4) as pool:
        attempts = [pool.submit(catalogue.sync_page, make_ref()) for _ in range(4)]
        counts = [attempt.result() for attempt in attempts]
    assert counts == [SyncCounts(created=50, changed=0, unchanged=0, rejected=10)] * 4
    assert catalogue.counts("acme", "camping-trade", "h1").pages == 1


def test_opening_waits_while_somebody_else_holds_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalogue.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    # SQLite itself does not wait for the switch to WAL; the first pause between our attempts lets go of the file.
    def let_go(_seconds: float) -> None:
        holder.rollback()

    monkeypatch.setattr(time, "sleep", let_go)
    with Catalogue.open(f"sqlite:///{path}") as catalogue:
        assert not holder.in_transaction
        assert catalogue.count("acme", "camping-trade") == 0
    holder.close()


def test_a_file_that_stays_locked_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contextunity.modules.harvest.catalogue.database._BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / "catalogue.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CatalogueUnavailable, match="stayed locked") as caught:
        Catalogue.open(f"sqlite:///{path}")
    assert caught.value.retryable
    holder.rollback()
    with Catalogue.open(f"sqlite:///{path}") as catalogue:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(CatalogueUnavailable, match="database is locked"):
            catalogue.begin_harvest("acme", "camping-trade", "h1")
        assert catalogue.count("acme", "camping-trade") == 0, "readers do not wait for a writer"
        holder.rollback()
        catalogue.begin_harvest("acme", "camping-trade", "h1")
    holder.close()


@contextmanager
def _held_before(beginning: str) -> Generator[tuple[threading.Event, threading.Event]]:
    """Holds the first statement that begins so, in whichever thread: gives what tells of it, and what lets it go."""
    reached, go_on = threading.Event(), threading.Event()

    def hold(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith(beginning) and not reached.is_set():
            reached.set()
            assert go_on.wait(60)

    event.listen(Engine, "before_cursor_execute", hold)
    try:
        yield reached, go_on
    finally:
        go_on.set()
        event.remove(Engine, "before_cursor_execute", hold)


def _wait_for_a_waiting_session(url: str, ended: Callable[[], bool]) -> None:
    """Until one session of the database waits for another's lock; the server tells nobody of it."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + 60
    while not ended():
        with engine.connect() as connection:
            if connection.scalar(waiting):
                break
        assert time.monotonic() < deadline, "no session waits"
        time.sleep(0.02)
    engine.dispose()


def test_a_second_attempt_at_a_page_waits_for_the_first(
    postgresql_url: str, make_ref: MakeRef, make_product: MakeProduct
) -> None:
    with Catalogue.open(postgresql_url) as catalogue, ThreadPoolExecutor(2) as pool:
        catalogue.put_product_page(make_ref(), ProductPage(products=[make_product("A"), make_product("B")]))
        # The first has decided what to write, and written nothing yet.
        with _held_before("INSERT INTO products") as (reached, go_on):
            first = pool.submit(catalogue.sync_page, make_ref())
            assert reached.wait(60)
            second = pool.submit(catalogue.sync_page, make_ref())
            _wait_for_a_waiting_session(postgresql_url, second.done)
            go_on.set()
            expected = SyncCounts(created=2, changed=0, unchanged=0, rejected=0)
            assert (first.result(60), second.result(60)) == (expected, expected)
        assert catalogue.counts("acme", "camping-trade", "h1").pages == 1


def test_a_harvest_that_begins_waits_for_a_page_of_the_one_before(
    postgresql_url: str, make_ref: MakeRef, make_product: MakeProduct
) -> None:
    with Catalogue.open(postgresql_url) as catalogue, ThreadPoolExecutor(2) as pool:
        catalogue.put_product_page(make_ref(), ProductPage(products=[make_product("A")]))
        with _held_before("INSERT INTO products") as (reached, go_on):
            page = pool.submit(catalogue.sync_page, make_ref())
            assert reached.wait(60)
            begun = pool.submit(catalogue.begin_harvest, "acme", "camping-trade", "h2")
            _wait_for_a_waiting_session(postgresql_url, begun.done)
            # A page of a harvest that was superseded meanwhile would be written all the same.
            assert not begun.done()
            go_on.set()
            assert page.result(60).created == 1
            begun.result(60)
        with pytest.raises(HarvestSuperseded):
            catalogue.put_product_page(make_ref(page=1), ProductPage())


def test_two_that_begin_the_same_harvest_at_once_agree(postgresql_url: str) -> None:
    with Catalogue.open(postgresql_url) as catalogue, ThreadPoolExecutor(2) as pool:
        catalogue.begin_harvest("acme", "camping-trade", "h1")
        with _held_before("INSERT INTO harvests") as (reached, go_on):
            first = pool.submit(catalogue.begin_harvest, "acme", "camping-trade", "h2")
            assert reached.wait(60)
            second = pool.submit(catalogue.begin_harvest, "acme", "camping-trade", "h2")
            _wait_for_a_waiting_session(postgresql_url, second.done)
            go_on.set()
            first.result(60)
            second.result(60)
        with pytest.raises(HarvestSuperseded):
            catalogue.begin_harvest("acme", "camping-trade", "h1")


def test_two_that_finish_a_harvest_at_once_tell_the_same(
    postgresql_url: str, make_ref: MakeRef, make_product: MakeProduct
) -> None:
    with Catalogue.open(postgresql_url) as catalogue, ThreadPoolExecutor(2) as pool:
        for harvest, sku in (("h1", "gone"), ("h2", "stays")):
            catalogue.put_product_page(make_ref(harvest=harvest), ProductPage(products=[make_product(sku)]))
            catalogue.sync_page(make_ref(harvest=harvest))
        with _held_before("UPDATE products") as (reached, go_on):
            first = pool.submit(catalogue.finish_harvest, "acme", "camping-trade", "h2", complete=True)
            assert reached.wait(60)
            second = pool.submit(catalogue.finish_harvest, "acme", "camping-trade", "h2", complete=True)
            _wait_for_a_waiting_session(postgresql_url, second.done)
            go_on.set()
            assert (first.result(60), second.result(60)) == (1, 1)


def test_connections_that_the_server_dropped_are_replaced_unseen(postgresql_url: str) -> None:
    with Catalogue.open(postgresql_url) as catalogue:
        catalogue.begin_harvest("acme", "camping-trade", "h1")
        _drop_connections(postgresql_url)
        catalogue.begin_harvest("acme", "camping-trade", "h1")


def test_a_connection_dropped_within_a_sync_is_worth_another_try(
    postgresql_url: str, make_ref: MakeRef, make_product: MakeProduct
) -> None:
    with Catalogue.open(postgresql_url) as catalogue:
        catalogue.put_product_page(make_ref(), ProductPage(products=[make_product("A")]))

        def drop(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            if statement.startswith("INSERT INTO products"):
                event.remove(Engine, "before_cursor_execute", drop)
                _drop_connections(postgresql_url)

        event.listen(Engine, "before_cursor_execute", drop)
        with pytest.raises(CatalogueUnavailable, match="try again"):
            catalogue.sync_page(make_ref())
        assert catalogue.sync_page(make_ref()).created == 1


def _drop_connections(url: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()


@pytest.fixture
def staged_second_harvest(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> ProductPage:
    """Stage a page whose sync creates, changes, leaves and rejects."""
    sync(make_ref(harvest="h1"), [make_product("same"), make_product("other", title="before")])
    page = ProductPage(
        products=[make_product("same"), make_product("other", title="after"), make_product("new"), make_product("new")],
        rejected=[RejectedRow(line=9, reason="bad_price")],
    )
    catalogue.put_product_page(make_ref(harvest="h2"), page)
    return page


_EXPECTED = SyncCounts(created=1, changed=1, unchanged=1, rejected=2)


def _assert_nothing_happened(catalogue: Catalogue, ref: PageRef, page: ProductPage) -> None:
    assert catalogue.get_product_page(ref) == page
    assert catalogue.counts("acme", "camping-trade", "h2").pages == 0
    assert catalogue.rejected("acme", "camping-trade", "h2") == []
    assert [(row.sku, row.title) for row in catalogue.sample("acme", "camping-trade")] == [
        ("other", "before"),
        ("same", "Tent"),
    ]


def _assert_all_happened(catalogue: Catalogue) -> None:
    assert catalogue.counts("acme", "camping-trade", "h2").rows == 5
    assert [row.reason for row in catalogue.rejected("acme", "camping-trade", "h2")] == ["duplicate_sku", "bad_price"]
    assert [(row.sku, row.title) for row in catalogue.sample("acme", "camping-trade")] == [
        ("new", "Tent"),
        ("other", "after"),
        ("same", "Tent"),
    ]
    assert catalogue.finish_harvest("acme", "camping-trade", "h2", complete=True) == 0


@contextmanager
def _failing_at(number: int) -> Generator[None]:
    """Raise in place of the statement with this number."""
    statements = iter(range(number))

    def fail(*_arguments: object) -> None:
        if next(statements, None) is None:
            raise InterruptedError

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", fail)


def test_a_failure_at_any_statement_leaves_nothing_half_done(
    catalogue: Catalogue, make_ref: MakeRef, staged_second_harvest: ProductPage
) -> None:
    ref = make_ref(harvest="h2")
    for number in range(100):
        try:
            with _failing_at(number):
                counts = catalogue.sync_page(ref)
        except InterruptedError:
            _assert_nothing_happened(catalogue, ref, staged_second_harvest)
        else:
            break
    else:
        pytest.fail("the sync never ended")
    assert number > 5
    assert counts == _EXPECTED
    _assert_all_happened(catalogue)


@pytest.mark.parametrize(
    "deadly", ["INSERT INTO products", "INSERT INTO rejected_rows", "DELETE FROM staged_pages", "COMMIT"]
)
def test_a_worker_killed_in_the_middle_leaves_nothing_half_done(
    url: str, catalogue: Catalogue, make_ref: MakeRef, staged_second_harvest: ProductPage, deadly: str
) -> None:
    killed = subprocess.run([sys.executable, "-c", _SYNC_UNTIL_KILLED, url, deadly], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    _assert_nothing_happened(catalogue, make_ref(harvest="h2"), staged_second_harvest)
    assert catalogue.sync_page(make_ref(harvest="h2")) == _EXPECTED
    _assert_all_happened(catalogue)
