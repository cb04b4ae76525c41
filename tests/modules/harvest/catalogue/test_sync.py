"""The sync of pages: what is counted as what, and that a page is written once only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import (
    Availability,
    Money,
    PageRef,
    Product,
    ProductPage,
    RawPage,
    RawProduct,
    RejectedRow,
    RowSeverity,
)
from sqlalchemy import Engine, create_engine, event, text

from contextunity.modules.harvest.catalogue import Catalogue, HarvestTotals, SyncCounts
from contextunity.modules.harvest.transform import transform_page

MakeRef = Callable[..., PageRef]
MakeProduct = Callable[..., Product]
Sync = Callable[..., SyncCounts]


def _counts(*, created: int = 0, changed: int = 0, unchanged: int = 0, rejected: int = 0) -> SyncCounts:
    return SyncCounts(created=created, changed=changed, unchanged=unchanged, rejected=rejected)


def test_new_products_are_created(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    assert sync(make_ref(), [make_product("A"), make_product("B", line=2)]) == _counts(created=2)
    assert catalogue.count("acme", "camping-trade") == 2


def test_every_field_of_a_product_is_kept(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    product = make_product(
        "A-1",
        line=17,
        group="tents",
        title='Zelt "Ö"\n⛺',
        brand="Vaude",
        description="One.\nTwo.\0",
        compare_at_price=Money(currency_code="EUR", units=-(2**63), nanos=-1),
        gtin="4006381333931",
        stock=0,
        availability=Availability.BACKORDER,
        weight_grams=2**63 - 1,
        image_urls=["https://example.com/1.jpg", "https://example.com/2.jpg"],
        categories=["Tents", "Family"],
        tags=["b", "a"],
        options={"Size": "L", "Color": "red", "": ""},
        mpn="M",
        link="https://example.com/",
    )
    sync(make_ref(), [product])
    assert catalogue.get("acme", "camping-trade", "A-1") == product


def test_absent_values_stay_absent(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    sync(make_ref(), [make_product("A", price=None)])
    found = catalogue.get("acme", "camping-trade", "A")
    assert found is not None
    assert (found.price, found.stock, found.weight_grams) == (None, None, None)
    assert catalogue.sample("acme", "camping-trade")[0].price is None


def test_a_product_that_is_not_there_is_none(catalogue: Catalogue) -> None:
    assert catalogue.get("acme", "camping-trade", "A") is None


def test_syncing_the_same_feed_again_changes_nothing(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    products = [make_product("A", options={"a": "1", "b": "2"}), make_product("B")]
    sync(make_ref(harvest="h1"), products)
    before = catalogue.sample("acme", "camping-trade")
    assert sync(make_ref(harvest="h2"), products) == _counts(unchanged=2)
    assert catalogue.sample("acme", "camping-trade") == before


def test_neither_the_line_nor_the_order_of_options_is_content(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    options = {f"option {number}": "x" for number in range(20)}
    sync(make_ref(harvest="h1"), [make_product("A", line=1, options=options)])
    moved = make_product("A", line=99, options=dict(reversed(options.items())))
    assert sync(make_ref(harvest="h2"), [moved]) == _counts(unchanged=1)
    found = catalogue.get("acme", "camping-trade", "A")
    assert found is not None
    assert found.line == 99


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"title": "Tent 2"}, id="title"),
        pytest.param({"stock": 0}, id="presence"),
        pytest.param({"price": Money(currency_code="EUR", units=54, nanos=950_000_001)}, id="a billionth"),
        pytest.param({"options": {"Size": "L"}}, id="option"),
        pytest.param({"tags": ["b", "a"]}, id="order of tags"),
    ],
)
def test_other_content_is_a_change(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync, values: dict[str, Any]
) -> None:
    sync(make_ref(harvest="h1"), [make_product("A", tags=["a", "b"])])
    changed = make_product("A", **{"tags": ["a", "b"], **values})
    assert sync(make_ref(harvest="h2"), [changed]) == _counts(changed=1)
    assert catalogue.get("acme", "camping-trade", "A") == changed


def test_the_content_hash_is_the_same_everywhere(
    catalogue: Catalogue, url: str, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    sync(make_ref(), [make_product("A", line=5, options={"b": "2", "a": "1"})])
    # Written out by hand: sku, title, price (currency, units, nanos), then the options in the order of their keys.
    wire = (
        b"\x0a\x01A" + b"\x1a\x04Tent" + b"\x32\x0d\x0a\x03EUR\x10\x36\x18\x80\xb3\xff\xc4\x03"
        b"\x7a\x06\x0a\x01a\x12\x011" + b"\x7a\x06\x0a\x01b\x12\x012"
    )
    assert _scalar(url, "SELECT content_hash FROM products") == hashlib.sha256(wire).hexdigest()


def test_prices_can_be_asked_for_and_sorted_exactly(
    catalogue: Catalogue, url: str, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    amounts = {"A": (10, 10_000_000), "B": (10, 9_999_999), "C": (2**62, 1), "D": (-1, -500_000_000)}
    sync(
        make_ref(),
        [
            make_product(sku, price=Money(currency_code="EUR", units=units, nanos=nanos))
            for sku, (units, nanos) in amounts.items()
        ],
    )
    assert _column(url, "SELECT sku FROM products ORDER BY price_units, price_nanos") == ["D", "B", "A", "C"]
    prices = {row.sku: row.price for row in catalogue.sample("acme", "camping-trade")}
    assert prices == {
        "A": Decimal("10.01"),
        "B": Decimal("10.009999999"),
        "C": Decimal(f"{2**62}.000000001"),
        "D": Decimal("-1.50"),
    }


def test_the_data_column_can_be_read_by_people(
    catalogue: Catalogue, url: str, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    sync(make_ref(), [make_product("A", title="Zelt Ö")])
    assert '"title":"Zelt Ö"' in str(_scalar(url, "SELECT data FROM products"))


def test_a_repeated_sku_in_a_page_is_rejected_and_the_first_one_counts(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    first, second = make_product("A", line=4), make_product("A", line=9, title="Other")
    assert sync(make_ref(), [first, second, make_product("B", line=12)]) == _counts(created=2, rejected=1)
    assert catalogue.get("acme", "camping-trade", "A") == first
    [row] = catalogue.rejected("acme", "camping-trade", "h1")
    assert (row.line, row.sku, row.reason) == (9, "A", "duplicate_sku")
    assert "line 4" in row.detail
    assert '"title":"Other"' in row.raw


@pytest.mark.parametrize("known", [pytest.param(False, id="new"), pytest.param(True, id="known before")])
def test_a_sku_repeated_from_an_earlier_page_is_rejected_as_well(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync, known: bool
) -> None:
    if known:
        sync(make_ref(harvest="h0"), [make_product("A", line=77)])
    first = make_product("A", line=4)
    sync(make_ref(page=0), [first])
    assert sync(make_ref(page=1), [make_product("A", line=9, title="Other")]) == _counts(rejected=1)
    assert catalogue.get("acme", "camping-trade", "A") == first
    [row] = catalogue.rejected("acme", "camping-trade", "h1")
    assert "line 4" in row.detail


def test_skus_that_cannot_be_kept_are_rejected(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    rows = [make_product("", line=1), make_product("x" * 501, line=2), make_product("x" * 500, line=3)]
    assert sync(make_ref(), rows) == _counts(created=1, rejected=2)
    assert catalogue.rejected_by_reason("acme", "camping-trade", "h1") == {"missing_sku": 1, "sku_too_long": 1}


def test_rejected_rows_are_kept_in_the_order_of_the_feed(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    bad_price = RejectedRow(line=5, sku="P", reason="bad_price", detail="price 'abc'", raw="P,abc")
    bad_price.severity = RowSeverity.REJECTED
    no_title = RejectedRow(line=1, reason="missing_title", detail="title is empty", raw=",,")
    no_title.severity = RowSeverity.REJECTED
    products = [make_product("A", line=2), make_product("A", line=3)]
    assert sync(make_ref(page=0), products, [bad_price, no_title]) == _counts(created=1, rejected=3)
    sync(make_ref(page=1), [], [RejectedRow(line=8, reason="bad_price")])
    rows = catalogue.rejected("acme", "camping-trade", "h1")
    assert [(row.line, row.reason) for row in rows] == [
        (1, "missing_title"),
        (3, "duplicate_sku"),
        (5, "bad_price"),
        (8, "bad_price"),
    ]
    assert rows[2] == bad_price
    assert catalogue.rejected("acme", "camping-trade", "h1", limit=1) == [no_title]
    assert catalogue.rejected_by_reason("acme", "camping-trade", "h1") == {
        "bad_price": 2,
        "duplicate_sku": 1,
        "missing_title": 1,
    }


def test_nul_characters_do_not_stop_a_page(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    rejected = RejectedRow(line=3, sku="\0", reason="bad\0", detail="\0", raw="a\0b")
    counts = sync(make_ref(), [make_product("A\0", title="T\0"), make_product("A\0", line=2)], [rejected])
    assert counts == _counts(created=1, rejected=2)
    found = catalogue.get("acme", "camping-trade", "A\0")
    assert found is not None
    assert found.title == "T\0"
    assert catalogue.sample("acme", "camping-trade")[0].title == "T\N{REPLACEMENT CHARACTER}"
    assert catalogue.rejected("acme", "camping-trade", "h1")[1].raw == "a\N{REPLACEMENT CHARACTER}b"


def test_a_page_synced_again_gives_its_recorded_counts_and_changes_nothing(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    counts = sync(make_ref(page=0), [make_product("A"), make_product("A", line=2)])
    sync(make_ref(page=1), [make_product("B")])
    assert catalogue.sync_page(make_ref(page=0)) == counts
    # A workflow that is reset fetches and transforms its pages again before it syncs them.
    assert sync(make_ref(page=0), [make_product("A"), make_product("C")]) == counts
    assert catalogue.count("acme", "camping-trade") == 2
    assert len(catalogue.rejected("acme", "camping-trade", "h1")) == 1


def test_an_empty_page_is_recorded(catalogue: Catalogue, make_ref: MakeRef, sync: Sync) -> None:
    assert sync(make_ref(), []) == _counts()
    assert catalogue.counts("acme", "camping-trade", "h1").pages == 1


def test_the_counts_of_a_harvest_add_up_to_its_rows(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    sync(make_ref(harvest="h0"), [make_product("A"), make_product("B")])
    sync(make_ref(page=0), [make_product("A"), make_product("B", title="Other")], [RejectedRow(line=3)])
    sync(make_ref(page=1), [make_product("C"), make_product("C", line=2)])
    assert catalogue.counts("acme", "camping-trade", "h1") == HarvestTotals(
        pages=2, rows=5, created=1, changed=1, unchanged=1, rejected=2
    )
    assert catalogue.counts("acme", "camping-trade", "unknown") == HarvestTotals(
        pages=0, rows=0, created=0, changed=0, unchanged=0, rejected=0
    )


def test_tenants_and_suppliers_do_not_see_each_other(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    for ref in (make_ref(), make_ref(tenant="other"), make_ref(supplier="other")):
        assert sync(ref, [make_product("A", title=f"{ref.tenant_id} {ref.supplier_code}")]) == _counts(created=1)
    found = catalogue.get("other", "camping-trade", "A")
    assert found is not None
    assert found.title == "other camping-trade"
    assert catalogue.count("acme", "camping-trade") == 1


def test_a_page_of_many_variants_takes_few_statements(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    sync(make_ref(harvest="h1"), [make_product(str(number)) for number in range(1, 1200)])
    second = [make_product(str(number), title="Tent" if number % 2 else "Other") for number in range(1500)]
    catalogue.put_product_page(make_ref(harvest="h2"), ProductPage(products=second + second))
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        counts = catalogue.sync_page(make_ref(harvest="h2"))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert counts == _counts(created=301, changed=599, unchanged=600, rejected=1500)
    # Six look-ups of 500 SKUs each, one statement for each of the four outcomes, and the page's own record.
    assert len(statements) <= 6 + 4 + 8


def test_postgresql_looks_skus_up_in_the_index_even_before_it_knows_the_table(
    postgresql_url: str, make_ref: MakeRef, make_product: MakeProduct
) -> None:
    lookups: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        if statement.startswith("SELECT") and "content_hash" in statement:
            lookups.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        with Catalogue.open(postgresql_url) as catalogue:
            catalogue.put_product_page(make_ref(), ProductPage(products=[make_product(str(n)) for n in range(500)]))
            catalogue.sync_page(make_ref())
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    [(statement, parameters)] = lookups
    engine = create_engine(postgresql_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        plan = [line for [line] in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]
    engine.dispose()
    assert any("Index Cond" in line and "(sku = wanted.sku)" in line for line in plan), plan


def test_a_sample_is_in_the_order_of_skus_and_leaves_out_what_is_delisted(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    sync(make_ref(harvest="h1"), [make_product("gone")])
    listed = [
        make_product("b", brand="Vaude", stock=3, availability=Availability.IN_STOCK),
        make_product("a", availability=Availability.UNSPECIFIED),
        make_product("c"),
    ]
    sync(make_ref(harvest="h2"), listed)
    catalogue.finish_harvest("acme", "camping-trade", "h2", complete=True)
    rows = catalogue.sample("acme", "camping-trade", limit=2)
    assert [(row.sku, row.brand, row.stock, row.availability, row.currency_code) for row in rows] == [
        ("a", "", None, "", "EUR"),
        ("b", "Vaude", 3, "in_stock", "EUR"),
    ]
    assert rows[0].updated_at.utcoffset() is not None


def _scalar(url: str, query: str) -> object:
    return _column(url, query)[0]


def _column(url: str, query: str) -> list[object]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        found = list(connection.scalars(text(query)))
    engine.dispose()
    return found


def test_warnings_go_from_the_feed_to_the_list(catalogue: Catalogue, make_ref: MakeRef) -> None:
    raw = RawPage(
        products=[
            RawProduct(line=2, sku="A", title="Tent", price="10 EUR", gtin="123", weight="heavy"),
            RawProduct(line=3, sku="B", title="Tent", price="POA"),
            RawProduct(line=4, sku="C", title="Tent", price="10 EUR", stock="3 or 4"),
        ]
    )
    catalogue.put_raw_page(make_ref(), raw)
    page = transform_page(catalogue.get_raw_page(make_ref()), currency_code="EUR")
    catalogue.put_product_page(make_ref(), page)
    counts = catalogue.sync_page(make_ref())
    assert (counts.created, counts.rejected, counts.warnings) == (2, 1, 3)
    totals = catalogue.counts("acme", "camping-trade", "h1")
    assert (totals.rows, totals.rejected, totals.warnings) == (3, 1, 3)

    def listed(severity: RowSeverity, limit: int, reason: str = "") -> list[tuple[str, str, RowSeverity]]:
        found, after = list[RejectedRow](), None
        while True:
            rows, after = catalogue.page_of_rejected(
                "acme", "camping-trade", "h1", severity=severity, after=after, limit=limit, reason=reason
            )
            assert len(rows) <= limit
            found += rows
            if after is None:
                return [(row.sku, row.reason, row.severity) for row in found]

    for limit in (1, 2, 100):
        warnings = listed(RowSeverity.WARNING, limit)
        assert {(sku, reason) for sku, reason, _ in warnings} == {
            ("A", "bad_gtin"),
            ("A", "bad_weight"),
            ("C", "bad_stock"),
        }
        assert {severity for *_, severity in warnings} == {RowSeverity.WARNING}
        assert listed(RowSeverity.REJECTED, limit) == [("B", "bad_price", RowSeverity.REJECTED)]
        assert len(listed(RowSeverity.UNSPECIFIED, limit)) == 4
        assert listed(RowSeverity.WARNING, limit, reason="bad_price") == []
        assert [sku for sku, *_ in listed(RowSeverity.WARNING, limit, reason="bad_weight")] == ["A"]


def test_rows_of_a_release_without_severity_were_rejected(catalogue: Catalogue, url: str, make_ref: MakeRef) -> None:
    row = RejectedRow(line=3, sku="B", reason="bad_price", detail="the price 'POA'", raw="B,POA")
    catalogue.put_raw_page(make_ref(), RawPage())
    catalogue.put_product_page(make_ref(), ProductPage(rejected=[row]))
    catalogue.sync_page(make_ref())
    catalogue.close()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE rejected_rows DROP COLUMN severity"))
        connection.execute(text("ALTER TABLE harvest_pages DROP COLUMN warnings"))
    engine.dispose()
    with Catalogue.open(url) as upgraded:
        for severity in (RowSeverity.UNSPECIFIED, RowSeverity.REJECTED):
            (found,), _ = upgraded.page_of_rejected("acme", "camping-trade", "h1", severity=severity)
            assert (found.sku, found.severity) == ("B", RowSeverity.REJECTED)
        assert upgraded.page_of_rejected("acme", "camping-trade", "h1", severity=RowSeverity.WARNING) == ([], None)
        assert upgraded.rejected_by_reason("acme", "camping-trade", "h1") == {"bad_price": 1}
        assert upgraded.counts("acme", "camping-trade", "h1").warnings == 0


@pytest.mark.parametrize("other", [{"tenant": "other"}, {"supplier": "other"}], ids=["tenant", "supplier"])
def test_a_page_changes_nothing_of_another_catalogue_with_the_same_skus(
    catalogue: Catalogue,
    make_ref: Callable[..., PageRef],
    make_product: Callable[..., Product],
    sync: Callable[..., SyncCounts],
    other: dict[str, str],
) -> None:
    before = [make_product("changed", title="Tent"), make_product("same", line=2), make_product("listed", line=3)]
    sync(make_ref(**other), before)
    sync(make_ref(), before)
    # One is written anew, one is seen again on another line, and one is listed in a row that cannot be used.
    after = [make_product("changed", title="Tarp"), make_product("same", line=7)]
    sync(make_ref(harvest="h2"), after, [RejectedRow(line=9, sku="listed", reason="bad_price")])
    sync(make_ref(harvest="h2", page=1, **other), [])
    tenant, supplier = other.get("tenant", "acme"), other.get("supplier", "camping-trade")
    assert [(row.sku, row.title) for row in catalogue.sample(tenant, supplier)] == [
        ("changed", "Tent"),
        ("listed", "Tent"),
        ("same", "Tent"),
    ]
    same = catalogue.get(tenant, supplier, "same")
    assert same is not None
    assert same.line == 2
    assert catalogue.finish_harvest("acme", "camping-trade", "h2", complete=True) == 0
    # Its own harvest listed none of them.
    assert catalogue.finish_harvest(tenant, supplier, "h2", complete=True) == 3
