"""Staged pages: they pass whole from one activity to the next, and are gone once synced."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contextunity.gen.contextunity.harvest.v1 import PageRef, Product, ProductPage, RawPage, RawProduct, RejectedRow

from contextunity.modules.harvest.catalogue import (
    Catalogue,
    CatalogueError,
    HarvestSuperseded,
    PageGone,
    PageMissing,
)


def _raw_page(*skus: str) -> RawPage:
    return RawPage(
        products=[RawProduct(sku=sku, body="<p>Zelt</p>\0" * 50, options={"Größe": "L"}) for sku in skus],
        rejected=[RejectedRow(line=7, reason="bad_quotes", raw='"')],
    )


def test_a_raw_page_comes_back_as_it_was_put(catalogue: Catalogue, make_ref: Callable[..., PageRef]) -> None:
    page = _raw_page("A", "B")
    catalogue.put_raw_page(make_ref(), page)
    assert catalogue.get_raw_page(make_ref()) == page


def test_a_product_page_comes_back_as_it_was_put(
    catalogue: Catalogue, make_ref: Callable[..., PageRef], make_product: Callable[..., Product]
) -> None:
    page = ProductPage(products=[make_product("A", stock=0, weight_grams=2**40)], rejected=[RejectedRow(line=2)])
    catalogue.put_product_page(make_ref(), page)
    assert catalogue.get_product_page(make_ref()) == page


def test_putting_again_replaces(catalogue: Catalogue, make_ref: Callable[..., PageRef]) -> None:
    catalogue.put_raw_page(make_ref(), _raw_page("A"))
    catalogue.put_raw_page(make_ref(), _raw_page("B"))
    assert [product.sku for product in catalogue.get_raw_page(make_ref()).products] == ["B"]


def test_pages_are_told_apart_by_every_part_of_their_name(
    catalogue: Catalogue, make_ref: Callable[..., PageRef]
) -> None:
    refs = [make_ref(), make_ref(page=1), make_ref(supplier="other"), make_ref(tenant="other")]
    for number, ref in enumerate(refs):
        catalogue.put_raw_page(ref, _raw_page(str(number)))
    assert [catalogue.get_raw_page(ref).products[0].sku for ref in refs] == ["0", "1", "2", "3"]


def test_the_raw_page_stays_until_the_sync_so_that_a_transformation_can_be_repeated(
    catalogue: Catalogue, make_ref: Callable[..., PageRef]
) -> None:
    catalogue.put_raw_page(make_ref(), _raw_page("A"))
    catalogue.put_product_page(make_ref(), ProductPage())
    assert catalogue.get_raw_page(make_ref()) == _raw_page("A")


def test_a_synced_page_is_gone(catalogue: Catalogue, make_ref: Callable[..., PageRef]) -> None:
    catalogue.put_raw_page(make_ref(), _raw_page("A"))
    catalogue.put_product_page(make_ref(), ProductPage())
    catalogue.sync_page(make_ref())
    for get in (catalogue.get_raw_page, catalogue.get_product_page):
        with pytest.raises(PageGone, match="page 0 of harvest 'h1' was synced already") as caught:
            get(make_ref())
        assert (caught.value.harvest_id, caught.value.page) == ("h1", 0)


def test_a_page_never_staged_is_missing(catalogue: Catalogue, make_ref: Callable[..., PageRef]) -> None:
    for get in (catalogue.get_raw_page, catalogue.get_product_page, catalogue.sync_page):
        with pytest.raises(PageMissing, match="page 3 of harvest 'h1' is not staged"):
            get(make_ref(page=3))


def test_a_page_that_was_not_transformed_cannot_be_synced(
    catalogue: Catalogue, make_ref: Callable[..., PageRef]
) -> None:
    catalogue.put_raw_page(make_ref(), _raw_page("A"))
    with pytest.raises(PageMissing, match="product page 0"):
        catalogue.sync_page(make_ref())
    assert catalogue.get_raw_page(make_ref()) == _raw_page("A")


def test_a_straggler_of_an_older_harvest_may_not_write(
    catalogue: Catalogue, make_ref: Callable[..., PageRef], make_product: Callable[..., Product]
) -> None:
    catalogue.put_product_page(make_ref(harvest="old"), ProductPage(products=[make_product("A")]))
    catalogue.begin_harvest("acme", "camping-trade", "new")
    attempts: list[Callable[[], object]] = [
        lambda: catalogue.put_raw_page(make_ref(harvest="old"), RawPage()),
        lambda: catalogue.put_product_page(make_ref(harvest="old"), ProductPage()),
        lambda: catalogue.sync_page(make_ref(harvest="old")),
        lambda: catalogue.finish_harvest("acme", "camping-trade", "old", complete=True),
        lambda: catalogue.begin_harvest("acme", "camping-trade", "old"),
    ]
    for attempt in attempts:
        with pytest.raises(HarvestSuperseded, match="start a new harvest") as caught:
            attempt()
        assert (caught.value.harvest_id, caught.value.current_harvest) == ("old", "new")
        assert not caught.value.retryable
    assert catalogue.count("acme", "camping-trade") == 0


def test_what_an_activity_that_ended_late_has_staged_is_cleared_by_the_next_harvest(
    catalogue: Catalogue, make_ref: Callable[..., PageRef]
) -> None:
    catalogue.put_raw_page(make_ref(harvest="old"), _raw_page("A"))
    catalogue.finish_harvest("acme", "camping-trade", "old", complete=False)
    catalogue.put_raw_page(make_ref(harvest="old", page=1), _raw_page("B"))
    catalogue.put_raw_page(make_ref(supplier="other", harvest="old"), _raw_page("C"))
    catalogue.put_raw_page(make_ref(harvest="new"), _raw_page("D"))
    with pytest.raises(PageMissing):
        catalogue.get_raw_page(make_ref(harvest="old", page=1))
    assert catalogue.get_raw_page(make_ref(harvest="new")) == _raw_page("D")
    assert catalogue.get_raw_page(make_ref(supplier="other", harvest="old")) == _raw_page("C")


@pytest.mark.parametrize("field", ["tenant", "supplier", "harvest"])
@pytest.mark.parametrize(
    "name",
    [pytest.param("", id="empty"), pytest.param("a\0b", id="NUL"), pytest.param("é" * 101, id="too long")],
)
def test_a_name_that_cannot_be_kept_is_refused_by_its_field(
    catalogue: Catalogue, make_ref: Callable[..., PageRef], field: str, name: str
) -> None:
    with pytest.raises(CatalogueError, match=field):
        catalogue.put_raw_page(make_ref(**{field: name}), RawPage())


def test_names_of_the_greatest_length_are_kept(
    catalogue: Catalogue,
    make_ref: Callable[..., PageRef],
    make_product: Callable[..., Product],
    sync: Callable[..., object],
) -> None:
    ref = make_ref(tenant="t" * 200, supplier="s" * 200, harvest="h" * 200, page=2**62)
    # Random enough that PostgreSQL cannot press the index entry together.
    sku = "".join(chr(0x10000 + (n * 7919) % 0x8000) for n in range(500))
    sync(ref, [make_product(sku)])
    assert [row.sku for row in catalogue.sample("t" * 200, "s" * 200)] == [sku]
    assert catalogue.suppliers("t" * 200) == ["s" * 200]
    assert catalogue.counts("t" * 200, "s" * 200, "h" * 200).created == 1
