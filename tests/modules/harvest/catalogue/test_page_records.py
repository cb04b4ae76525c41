"""What payloads claim of a harvest is held against what the catalogue recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import (
    Feed,
    FeedCursor,
    FeedFormat,
    PageRef,
    Product,
    ProductPage,
    RawPage,
    RejectedRow,
    RowSeverity,
)
from sqlalchemy import Engine, create_engine, event, inspect, text

from contextunity.modules.harvest.catalogue import Catalogue, FetchedFrom, HarvestMismatch

_WORKFLOW = "harvest/acme/camping-trade"
_FEED = Feed(
    supplier_code="camping-trade",
    url="https://one.example/feed.csv",
    format=FeedFormat.SHOPIFY_CSV,
    version="v1",
    ranges=True,
    total_bytes=1000,
    prologue=b"Handle,Title\n",
)
_FIRST_END = FeedCursor(offset=500, line=10)

Refs = Callable[..., PageRef]


def _fetched(end: FeedCursor = _FIRST_END, *, feed: Feed = _FEED, over: bool = False) -> FetchedFrom:
    return FetchedFrom(workflow_id=_WORKFLOW, feed=feed, end=end, end_of_feed=over)


def _sync(catalogue: Catalogue, ref: PageRef) -> None:
    catalogue.put_product_page(ref, ProductPage())
    catalogue.sync_page(ref)


def _changed(**values: Any) -> Feed:
    made = Feed(**{name: getattr(_FEED, name) for name in ("supplier_code", "url", "format", "version", "ranges")})
    made.total_bytes, made.prologue = _FEED.total_bytes, _FEED.prologue
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def begun(catalogue: Catalogue, make_ref: Refs) -> Catalogue:
    """A harvest whose first page is fetched."""
    catalogue.check_fetch(make_ref(), _WORKFLOW, None, None)
    catalogue.put_raw_page(make_ref(), RawPage(), _fetched())
    return catalogue


def test_the_next_page_goes_on_where_the_page_before_ended(begun: Catalogue, make_ref: Refs) -> None:
    begun.check_fetch(make_ref(1), _WORKFLOW, _FEED, _FIRST_END)
    # Its address and currency are looked up in the settings each time, so what a payload says of them is no claim.
    begun.check_fetch(make_ref(1), _WORKFLOW, _changed(url="file:///etc/passwd", currency_code="XXX"), _FIRST_END)


@pytest.mark.parametrize(
    ("page", "feed", "cursor", "says"),
    [
        pytest.param(0, _FEED, None, "the first page comes with a feed", id="feed for the first page"),
        pytest.param(0, None, _FIRST_END, "the first page comes with a feed", id="cursor for the first page"),
        pytest.param(1, None, _FIRST_END, "only the first page", id="no feed"),
        pytest.param(1, _FEED, None, "only the first page", id="no cursor"),
        pytest.param(1, _FEED, FeedCursor(offset=501, line=10), "ended at byte 500", id="other offset"),
        pytest.param(1, _FEED, FeedCursor(offset=500, line=11), "ended at byte 500", id="other line"),
        pytest.param(2, _FEED, _FIRST_END, "page 1 was not fetched", id="page left out"),
        pytest.param(1, _changed(version="v2"), _FIRST_END, "feed_version is 'v2'", id="other version"),
        pytest.param(1, _changed(prologue=b"Handle\n"), _FIRST_END, "prologue_hash", id="other prologue"),
        pytest.param(1, _changed(format=FeedFormat.JSON_LINES), _FIRST_END, "feed_format", id="other format"),
        pytest.param(1, _changed(total_bytes=2**62), _FIRST_END, "feed_bytes", id="other size"),
        pytest.param(1, _changed(ranges=False), _FIRST_END, "feed_ranges", id="other way of reading"),
    ],
)
def test_a_fetch_that_claims_otherwise_is_refused(
    begun: Catalogue, make_ref: Refs, page: int, feed: Feed | None, cursor: FeedCursor | None, says: str
) -> None:
    with pytest.raises(HarvestMismatch, match=says):
        begun.check_fetch(make_ref(page), _WORKFLOW, feed, cursor)


def test_a_harvest_belongs_to_its_workflow_and_is_not_named_to_others(begun: Catalogue, make_ref: Refs) -> None:
    stranger = "harvest/mallory/camping-trade"
    for claim in (
        lambda: begun.check_fetch(make_ref(1), stranger, _FEED, _FIRST_END),
        lambda: begun.check_page(make_ref(), stranger),
        lambda: begun.check_last(make_ref(), stranger, complete=False),
        lambda: begun.check_page(make_ref(), ""),
    ):
        with pytest.raises(HarvestMismatch) as caught:
            claim()
        assert _WORKFLOW not in str(caught.value)


@pytest.mark.parametrize("changed", [{"tenant": "mallory"}, {"supplier": "other"}, {"harvest": "h2"}])
def test_a_page_of_a_harvest_that_has_not_begun_is_refused(
    begun: Catalogue, make_ref: Refs, changed: dict[str, str]
) -> None:
    with pytest.raises(HarvestMismatch, match="has not begun"):
        begun.check_page(make_ref(**changed), _WORKFLOW)
    with pytest.raises(HarvestMismatch, match="has not begun"):
        begun.check_fetch(make_ref(1, **changed), _WORKFLOW, _FEED, _FIRST_END)


def test_a_page_that_was_not_fetched_is_refused(begun: Catalogue, make_ref: Refs) -> None:
    begun.check_page(make_ref(), _WORKFLOW)
    with pytest.raises(HarvestMismatch, match="was not fetched"):
        begun.check_page(make_ref(1), _WORKFLOW)


def test_the_last_page_is_the_last_and_complete_where_the_feed_ends(begun: Catalogue, make_ref: Refs) -> None:
    with pytest.raises(HarvestMismatch, match="does not end with it"):
        begun.check_last(make_ref(), _WORKFLOW, complete=True)
    begun.check_last(make_ref(), _WORKFLOW, complete=False)
    begun.put_raw_page(make_ref(1), RawPage(), _fetched(FeedCursor(offset=1000, line=20), over=True))
    with pytest.raises(HarvestMismatch, match="page 1 was fetched after it"):
        begun.check_last(make_ref(), _WORKFLOW, complete=False)
    with pytest.raises(HarvestMismatch, match="of the 1 pages before it 0 are synced"):
        begun.check_last(make_ref(1), _WORKFLOW, complete=True)
    _sync(begun, make_ref())
    begun.check_last(make_ref(1), _WORKFLOW, complete=True)
    with pytest.raises(HarvestMismatch, match="which ends with it"):
        begun.check_last(make_ref(1), _WORKFLOW, complete=False)


def test_the_time_that_reading_took_adds_up(begun: Catalogue, make_ref: Refs) -> None:
    for seconds in (1.5, 2.0):
        fetched = FetchedFrom(workflow_id=_WORKFLOW, feed=_FEED, end=_FIRST_END, end_of_feed=False, seconds=seconds)
        begun.put_raw_page(make_ref(), RawPage(), fetched)
    assert begun.check_fetch(make_ref(1), _WORKFLOW, _FEED, _FIRST_END) == 3.5
    assert begun.check_fetch(make_ref(), _WORKFLOW, None, None) == 3.5


def test_a_repeated_fetch_counts_until_the_next_page_is_fetched(begun: Catalogue, make_ref: Refs) -> None:
    again, end = _changed(version="v2"), FeedCursor(offset=510, line=11)
    begun.put_raw_page(make_ref(), RawPage(), _fetched(end, feed=again))
    begun.check_fetch(make_ref(1), _WORKFLOW, again, end)
    begun.put_raw_page(make_ref(1), RawPage(), _fetched(FeedCursor(offset=900, line=19), feed=again))
    # The same once more does no harm; another end or version can only come from an attempt that was given up.
    begun.put_raw_page(make_ref(), RawPage(), _fetched(end, feed=again))
    with pytest.raises(HarvestMismatch, match="was fetched already"):
        begun.put_raw_page(make_ref(), RawPage(), _fetched(feed=again))
    with pytest.raises(HarvestMismatch, match="feed_version"):
        begun.put_raw_page(make_ref(), RawPage(), _fetched(end))


# The first schema, and a harvest that goes on across the upgrade.

_SCHEMAS = Path(__file__).parent / "first_schema"
_OLD_ROWS = """
INSERT INTO schema_version (version) VALUES (1);
INSERT INTO suppliers (tenant_id, supplier_code, current_harvest) VALUES ('acme', 'camping-trade', 'h1');
INSERT INTO harvests (tenant_id, supplier_code, harvest_id, started_at)
  VALUES ('acme', 'camping-trade', 'h1', '2026-01-01 00:00:00');
INSERT INTO harvest_pages (tenant_id, supplier_code, harvest_id, page, created, changed, unchanged, rejected, synced_at)
  VALUES ('acme', 'camping-trade', 'h1', 0, 1, 0, 0, 0, '2026-01-01 00:00:01');
"""


@pytest.fixture
def old_url(url: str, tmp_path: Path) -> str:
    """A catalogue as the first release left it, in the middle of a harvest."""
    (tmp_path / "data").mkdir(exist_ok=True)
    kind = url.partition(":")[0]
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        for statement in ((_SCHEMAS / f"{kind}.sql").read_text() + _OLD_ROWS).split(";"):
            if statement.strip():
                connection.execute(text(statement))
    engine.dispose()
    return url


def test_what_an_older_catalogue_lacks_is_added_and_its_harvest_goes_on(
    old_url: str, make_ref: Refs, make_product: Callable[..., Product]
) -> None:
    with Catalogue.open(old_url) as catalogue:
        # Nobody recorded where page 0 ended, so the cursor is believed; from there on it is recorded.
        catalogue.check_fetch(make_ref(1), _WORKFLOW, _FEED, _FIRST_END)
        last = FeedCursor(offset=1000, line=20)
        catalogue.put_raw_page(make_ref(1), RawPage(), _fetched(last, over=True))
        catalogue.check_page(make_ref(1), _WORKFLOW)
        with pytest.raises(HarvestMismatch):
            catalogue.check_page(make_ref(1), "harvest/mallory/camping-trade")
        catalogue.put_product_page(make_ref(1), ProductPage(products=[make_product("A")]))
        catalogue.check_last(make_ref(1), _WORKFLOW, complete=True)
        assert catalogue.sync_page(make_ref(1)).created == 1
        catalogue.finish_harvest("acme", "camping-trade", "h1", complete=True)
        assert catalogue.count("acme", "camping-trade") == 1


def test_an_older_catalogue_becomes_what_a_new_one_is(old_url: str) -> None:
    Catalogue.open(old_url).close()
    Catalogue.open(old_url).close()
    engine = create_engine(old_url.replace("postgresql:", "postgresql+psycopg:"))
    from contextunity.modules.harvest.catalogue.tables import metadata

    found = {
        table: {column["name"] for column in inspect(engine).get_columns(table)}
        for table in inspect(engine).get_table_names()
    }
    engine.dispose()
    assert found == {table.name: {column.name for column in table.columns} for table in metadata.sorted_tables}


def _harvest_whole(catalogue: Catalogue, ref: PageRef, *, read_by: str = "rules") -> None:
    fetched = FetchedFrom(workflow_id=_WORKFLOW, feed=_FEED, end=_FIRST_END, end_of_feed=True, read_by=read_by)
    catalogue.put_raw_page(ref, RawPage(), fetched)
    catalogue.put_product_page(ref, ProductPage(products=[Product(sku="T-1", title="Tent")]), read_by=read_by)
    catalogue.sync_page(ref)
    catalogue.finish_harvest(ref.tenant_id, ref.supplier_code, ref.harvest_id, complete=True)


def test_what_stands_is_recorded_and_given_again(catalogue: Catalogue, make_ref: Refs) -> None:
    assert catalogue.find_current_reading(make_ref(), _WORKFLOW, "rules") is None
    _harvest_whole(catalogue, make_ref())
    assert catalogue.find_current_reading(make_ref(harvest="h2"), _WORKFLOW, "other rules") is None
    found = catalogue.find_current_reading(make_ref(harvest="h2"), _WORKFLOW, "rules")
    assert found is not None
    assert (found.reading, found.newest, found.version) == ("h1", "h1", "v1")
    for _ in range(2):
        kept = catalogue.finish_unchanged(make_ref(harvest="h2"), _WORKFLOW, found)
        assert (kept.created, kept.rows) == (1, 1)
    own = catalogue.find_current_reading(make_ref(harvest="h2"), _WORKFLOW, "rules")
    assert own is not None
    assert (own.reading, own.newest) == ("h1", "h2")
    assert catalogue.newest_harvest("acme", "camping-trade") == "h1"
    assert catalogue.reading_of("acme", "camping-trade", "h2") == "h1"
    with pytest.raises(HarvestMismatch, match="found the feed unchanged"):
        catalogue.put_raw_page(make_ref(harvest="h2"), RawPage(), _fetched(over=True))
    with pytest.raises(HarvestMismatch, match="does not belong to"):
        catalogue.finish_unchanged(make_ref(harvest="h2"), "harvest/mallory/camping-trade", found)
    with pytest.raises(HarvestMismatch, match="only the first page"):
        catalogue.finish_unchanged(make_ref(1, harvest="h3"), _WORKFLOW, found)


def test_nothing_stands_once_another_harvest_reads(catalogue: Catalogue, make_ref: Refs) -> None:
    _harvest_whole(catalogue, make_ref())
    found = catalogue.find_current_reading(make_ref(harvest="h2"), _WORKFLOW, "rules")
    assert found is not None
    catalogue.put_raw_page(make_ref(harvest="h3"), RawPage(), _fetched())
    with pytest.raises(HarvestMismatch, match="'h3' began"):
        catalogue.finish_unchanged(make_ref(harvest="h2"), _WORKFLOW, found)
    assert catalogue.find_current_reading(make_ref(harvest="h2"), _WORKFLOW, "rules") is None
    # So it is where the other one is an attempt of the harvest itself.
    assert catalogue.find_current_reading(make_ref(harvest="h3"), _WORKFLOW, "rules") is None
    with pytest.raises(HarvestMismatch, match="another attempt found the feed changed"):
        catalogue.finish_unchanged(make_ref(harvest="h3"), _WORKFLOW, found)


def test_rows_that_may_be_any_product_are_counted_unless_they_were_there_before(
    catalogue: Catalogue, make_ref: Refs
) -> None:
    def harvest(name: str, *raws: str, skus: tuple[str, ...] = ("T-1",)) -> int:
        nameless = [RejectedRow(reason="bad_csv", raw=raw, severity=RowSeverity.REJECTED) for raw in raws]
        known = [
            RejectedRow(sku="T-9", reason="bad_price", raw="priced", severity=RowSeverity.REJECTED),
            RejectedRow(reason="empty_row", raw=",,", severity=RowSeverity.REJECTED),
        ]
        page = ProductPage(products=[Product(sku=sku, title="Tent") for sku in skus], rejected=[*nameless, *known])
        ref = make_ref(harvest=name)
        catalogue.put_raw_page(ref, RawPage(), _fetched(over=True))
        catalogue.put_product_page(ref, page)
        catalogue.sync_page(ref)
        counted = catalogue.count_missing_products("acme", "camping-trade", name)
        catalogue.finish_harvest("acme", "camping-trade", name, complete=not counted.unreadable)
        return counted.unreadable

    assert harvest("h1", "old", skus=("T-1", "T-2")) == 0
    assert harvest("h2", "old", "new", "newer") == 2
    # That one concluded nothing, so its rows are still news.
    assert harvest("h3", "old", "new") == 1
    assert harvest("h4", "old") == 0
    assert catalogue.count("acme", "camping-trade", delisted=True) == 1
    # Nothing is unseen, so it does not matter.
    assert harvest("h5", "other") == 0


@contextmanager
def _executed() -> Iterator[list[object]]:
    """What is executed meanwhile, as SQLAlchemy is given it."""
    statements: list[object] = []

    def note(_connection: object, statement: object, *_rest: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_execute", note)


def test_a_page_builds_no_statement_that_the_page_before_has_built(begun: Catalogue, make_ref: Refs) -> None:
    _sync(begun, make_ref())

    def harvest_page(page: int) -> list[object]:
        ref, end = make_ref(page), FeedCursor(offset=500 + page, line=10)
        before = FeedCursor(offset=500 + page - 1, line=10)
        with _executed() as statements:
            begun.check_fetch(ref, _WORKFLOW, _FEED, before)
            begun.put_raw_page(ref, RawPage(), _fetched(end))
            begun.check_page(ref, _WORKFLOW)
            begun.put_product_page(ref, ProductPage(products=[Product(sku=f"sku-{page}")]))
            begun.sync_page(ref)
            begun.trim_rejected(ref, 1)
        return statements

    first, second = harvest_page(1), harvest_page(2)
    assert len(first) == len(second) > 10
    built = [statement for statement in second if not any(statement is before for before in first)]
    # The driver's own SQL, which nothing has to be built for.
    assert [statement for statement in built if not isinstance(statement, str)] == []


def test_a_claim_is_held_against_the_record_with_one_statement(begun: Catalogue, make_ref: Refs) -> None:
    with _executed() as statements:
        begun.check_fetch(make_ref(1), _WORKFLOW, _FEED, _FIRST_END)
        begun.check_page(make_ref(), _WORKFLOW)
    assert len([statement for statement in statements if not isinstance(statement, str)]) == 2
