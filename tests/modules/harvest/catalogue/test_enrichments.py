"""Enrichments: which products are to be enriched, and what is kept beside them, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from contextunity.gen.contextunity.harvest.v1 import Enrichment, EnrichmentCursor, PageRef, Product, ProductToEnrich
from sqlalchemy import create_engine, text

from contextunity.modules.harvest.catalogue import Catalogue, SyncCounts
from contextunity.modules.harvest.catalogue.enrichments import Wanted

_Refs = Callable[..., PageRef]
_Products = Callable[..., Product]
_Sync = Callable[[PageRef, Sequence[Product]], SyncCounts]
_NEW = Wanted(rules_version="r1")


def _made(product: ProductToEnrich, **values: object) -> Enrichment:
    made = Enrichment(supplier_code=product.supplier_code, sku=product.sku, content_hash=product.content_hash)
    for name, value in {"category": "tents", "completeness": 80, "enricher": "rules", **values}.items():
        setattr(made, name, value)
    return made


def _all(catalogue: Catalogue, wanted: Wanted, *, tenant: str = "acme", limit: int = 2) -> list[ProductToEnrich]:
    """All pages, put together."""
    found, after = list[ProductToEnrich](), None
    for _ in range(100):
        page, after = catalogue.to_enrich(tenant, wanted, after=after, limit=limit)
        assert len(page) <= limit
        found += page
        if after is None:
            return found
    raise AssertionError("the pages have no end")


@pytest.fixture
def filled(catalogue: Catalogue, make_ref: _Refs, make_product: _Products, sync: _Sync) -> Catalogue:
    for supplier in ("camping-trade", "alpine"):
        skus = ("A", "B", "C", "Ä") if supplier == "alpine" else ("A", "D")
        sync(make_ref(supplier=supplier), [make_product(sku, title=f"Tent {sku}") for sku in skus])
    sync(make_ref(tenant="other"), [make_product("A")])
    return catalogue


def test_all_are_listed_once_by_supplier_and_sku(filled: Catalogue) -> None:
    for limit in (1, 2, 3, 100):
        found = [(product.supplier_code, product.sku) for product in _all(filled, _NEW, limit=limit)]
        assert len(found) == len(set(found)) == 6
        assert [supplier for supplier, _ in found] == ["alpine"] * 4 + ["camping-trade"] * 2
    assert filled.count_to_enrich("acme", _NEW) == 6
    assert filled.to_enrich("nobody", _NEW) == ([], None)


def test_a_supplier_or_skus_can_be_asked_for(filled: Catalogue) -> None:
    alpine = Wanted(rules_version="r1", supplier_code="alpine")
    assert sorted(product.sku for product in _all(filled, alpine)) == ["A", "B", "C", "Ä"]
    both = Wanted(rules_version="r1", skus=("A", "nothing"))
    assert [(p.supplier_code, p.sku) for p in _all(filled, both)] == [("alpine", "A"), ("camping-trade", "A")]
    one = Wanted(rules_version="r1", supplier_code="camping-trade", skus=("A",))
    assert [p.supplier_code for p in _all(filled, one)] == ["camping-trade"]
    assert filled.count_to_enrich("acme", alpine) == 4


def test_what_is_told_of_a_product(catalogue: Catalogue, make_ref: _Refs, make_product: _Products, sync: _Sync) -> None:
    sync(
        make_ref(),
        [
            make_product(
                "A",
                title="Tent",
                brand="Nordpfad",
                description="x" * 5000,
                categories=["Tents"],
                tags=["camping"],
                options={"Size": "2 Person"},
                gtin="4006381333931",
                image_urls=["https://a", "https://b"],
                weight_grams=900,
            )
        ],
    )
    ([told], _) = catalogue.to_enrich("acme", _NEW)
    assert (told.title, told.brand, told.categories, told.tags) == ("Tent", "Nordpfad", ["Tents"], ["camping"])
    assert (told.options, told.gtin, told.priced, told.images) == ({"Size": "2 Person"}, "4006381333931", True, 2)
    assert told.weight_grams == 900
    assert len(told.description) == 4000
    assert told.content_hash


def test_a_page_stays_below_its_bytes_and_has_one_product(
    catalogue: Catalogue, make_ref: _Refs, make_product: _Products, sync: _Sync
) -> None:
    sync(make_ref(), [make_product(f"S{n}", description="x" * 3000) for n in range(4)])
    page, after = catalogue.to_enrich("acme", _NEW, limit=100, max_bytes=7000)
    assert ([product.sku for product in page], after) == (
        ["S0", "S1"],
        EnrichmentCursor(supplier_code="camping-trade", sku="S1"),
    )
    page, after = catalogue.to_enrich("acme", _NEW, after=after, limit=100, max_bytes=1)
    assert [product.sku for product in page] == ["S2"]
    assert after is not None


def test_written_ones_are_listed_no_more_until_something_changes(
    filled: Catalogue, make_ref: _Refs, make_product: _Products, sync: _Sync
) -> None:
    products = _all(filled, _NEW)
    made = [_made(product, colors=["blue", "Bläu"], missing=["missing_gtin"], size="L") for product in products]
    for _ in range(2):
        assert filled.put_enrichments("acme", made, rules_version="r1") == 6
        assert _all(filled, _NEW) == []
        assert filled.count_to_enrich("acme", _NEW) == 0
    # Another tenant's products of the same SKUs have none of it.
    assert len(_all(filled, _NEW, tenant="other")) == 1
    assert filled.count_enriched("other", "camping-trade") == 0
    # Other rules, or asked for all the same.
    assert len(_all(filled, Wanted(rules_version="r2"))) == 6
    assert len(_all(filled, Wanted(rules_version="r1", force=True))) == 6
    # A product that changes; the other one of the page does not.
    sync(
        make_ref(supplier="camping-trade", harvest="h2"),
        [make_product("A", title="New"), make_product("D", title="Tent D")],
    )
    assert [(p.supplier_code, p.title) for p in _all(filled, _NEW)] == [("camping-trade", "New")]
    [row, _] = filled.enriched("acme", "camping-trade")
    assert (row.sku, row.title, row.is_current) == ("A", "New", False)
    assert (row.category, row.colors, row.size, row.missing) == ("tents", ("blue", "Bläu"), "L", ("missing_gtin",))
    assert (row.completeness, row.rules_version, row.enricher) == (80, "r1", "rules")


def test_what_the_supplier_said_stays(filled: Catalogue) -> None:
    before = filled.get("acme", "alpine", "A")
    product = next(each for each in _all(filled, _NEW) if each.supplier_code == "alpine" and each.sku == "A")
    filled.put_enrichments("acme", [_made(product, brand="Other")], rules_version="r1")
    assert filled.get("acme", "alpine", "A") == before


def test_a_change_while_it_was_enriched_is_not_lost(
    filled: Catalogue, make_ref: _Refs, make_product: _Products, sync: _Sync
) -> None:
    [old] = [p for p in _all(filled, _NEW) if (p.supplier_code, p.sku) == ("camping-trade", "D")]
    sync(make_ref(supplier="camping-trade", harvest="h2"), [make_product("D", title="New")])
    filled.put_enrichments("acme", [_made(old)], rules_version="r1")
    assert ("camping-trade", "New") in [(p.supplier_code, p.title) for p in _all(filled, _NEW)]


def test_what_is_of_no_product_of_the_tenants_is_passed_over(filled: Catalogue) -> None:
    strange = [
        Enrichment(supplier_code="camping-trade", sku="nothing"),
        Enrichment(supplier_code="nobody", sku="A"),
        Enrichment(supplier_code="alpine", sku="B"),
    ]
    assert filled.put_enrichments("other", strange, rules_version="r1") == 0
    assert filled.put_enrichments("acme", strange, rules_version="r1") == 1
    assert filled.put_enrichments("acme", [], rules_version="r1") == 0


def test_products_that_are_no_longer_listed_are_left_out(
    filled: Catalogue, make_ref: _Refs, make_product: _Products, sync: _Sync
) -> None:
    sync(make_ref(supplier="alpine", harvest="h2"), [make_product("A", title="Tent A")])
    assert filled.finish_harvest("acme", "alpine", "h2", complete=True) == 3
    assert [p.sku for p in _all(filled, Wanted(rules_version="r1", supplier_code="alpine"))] == ["A"]


def test_a_catalogue_of_the_release_before_gets_the_table(filled: Catalogue, url: str) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE enrichments"))
    engine.dispose()
    with Catalogue.open(url) as opened:
        assert opened.put_enrichments("acme", [_made(p) for p in _all(opened, _NEW)], rules_version="r1") == 6


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_pages_deep_in_a_supplier_are_found_by_the_index(filled: Catalogue, url: str) -> None:
    """Else each page would sort all that are left, and a large catalogue take hours."""
    engine = create_engine(url)
    seen = list[str]()
    with engine.connect() as connection:
        from sqlalchemy import event

        from contextunity.modules.harvest.catalogue.enrichments import to_enrich

        def explain(conn: object, cursor: object, statement: str, parameters: tuple[object, ...], *_: object) -> None:
            if statement.lstrip().startswith("SELECT"):
                raw = connection.connection.dbapi_connection
                assert raw is not None
                plan = raw.cursor().execute("EXPLAIN QUERY PLAN " + statement, parameters)
                seen.extend(row[3] for row in plan)

        event.listen(engine, "before_cursor_execute", explain)
        after = EnrichmentCursor(supplier_code="alpine", sku="A")
        for supplier in ("alpine", ""):
            wanted = Wanted(rules_version="r1", supplier_code=supplier)
            to_enrich(connection, "acme", wanted, after=after, limit=10, max_bytes=1000)
    engine.dispose()
    assert len(seen) == 4
    assert not any("TEMP B-TREE" in step or step.startswith("SCAN") for step in seen)
