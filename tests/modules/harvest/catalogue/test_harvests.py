"""The end of a harvest: what it did not see is marked, once, and nothing stays staged."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from contextunity.gen.contextunity.harvest.v1 import PageRef, Product, RawPage, RejectedRow

from contextunity.modules.harvest.catalogue import Catalogue, HarvestSuperseded, PageMissing, SyncCounts

MakeRef = Callable[..., PageRef]
MakeProduct = Callable[..., Product]
Sync = Callable[..., SyncCounts]


@pytest.fixture
def two_harvests(make_ref: MakeRef, make_product: MakeProduct, sync: Sync) -> None:
    """Sync A, B and C in a first harvest, and B alone in a second one."""
    sync(make_ref(harvest="h1"), [make_product("A"), make_product("B"), make_product("C")])
    sync(make_ref(harvest="h2"), [make_product("B")])


@pytest.mark.usefixtures("two_harvests")
def test_what_a_complete_harvest_did_not_see_is_marked_and_kept(catalogue: Catalogue) -> None:
    assert catalogue.finish_harvest("acme", "camping-trade", "h2", complete=True) == 2
    assert catalogue.count("acme", "camping-trade") == 3
    assert catalogue.count("acme", "camping-trade", delisted=True) == 2
    assert catalogue.count("acme", "camping-trade", delisted=False) == 1
    assert catalogue.get("acme", "camping-trade", "A") is not None


@pytest.mark.usefixtures("two_harvests")
def test_an_incomplete_harvest_marks_nothing(catalogue: Catalogue) -> None:
    assert catalogue.finish_harvest("acme", "camping-trade", "h2", complete=False) == 0
    assert catalogue.count("acme", "camping-trade", delisted=True) == 0


@pytest.mark.usefixtures("two_harvests")
def test_finishing_again_gives_the_same_number(catalogue: Catalogue) -> None:
    assert [catalogue.finish_harvest("acme", "camping-trade", "h2", complete=True) for _ in range(3)] == [2, 2, 2]


@pytest.mark.usefixtures("two_harvests")
def test_attempts_to_finish_at_the_same_time_agree(catalogue: Catalogue) -> None:
    with ThreadPoolExecutor(4) as pool:
        attempts = [
            pool.submit(catalogue.finish_harvest, "acme", "camping-trade", "h3", complete=True) for _ in range(4)
        ]
        assert [attempt.result() for attempt in attempts] == [3, 3, 3, 3]


@pytest.mark.usefixtures("two_harvests")
def test_what_is_marked_already_is_not_counted_again(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    catalogue.finish_harvest("acme", "camping-trade", "h2", complete=True)
    sync(make_ref(harvest="h3"), [make_product("D")])
    assert catalogue.finish_harvest("acme", "camping-trade", "h3", complete=True) == 1
    assert catalogue.count("acme", "camping-trade", delisted=True) == 3


@pytest.mark.usefixtures("two_harvests")
def test_a_product_that_comes_back_counts_as_changed(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    catalogue.finish_harvest("acme", "camping-trade", "h2", complete=True)
    counts = sync(make_ref(harvest="h3"), [make_product("A"), make_product("B")])
    assert counts == SyncCounts(created=0, changed=1, unchanged=1, rejected=0)
    assert catalogue.count("acme", "camping-trade", delisted=False) == 2


@pytest.mark.usefixtures("two_harvests")
def test_other_tenants_and_suppliers_are_not_marked(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    sync(make_ref(tenant="other"), [make_product("A")])
    sync(make_ref(supplier="other"), [make_product("A")])
    catalogue.finish_harvest("acme", "camping-trade", "h2", complete=True)
    assert catalogue.count("other", "camping-trade", delisted=True) == 0
    assert catalogue.count("acme", "other", delisted=True) == 0


def test_leftovers_of_this_harvest_and_of_dead_ones_are_cleared(catalogue: Catalogue, make_ref: MakeRef) -> None:
    dead, current, elsewhere = make_ref(harvest="dead"), make_ref(harvest="h2"), make_ref(supplier="other")
    for ref in (dead, current, elsewhere):
        catalogue.put_raw_page(ref, RawPage())
    catalogue.finish_harvest("acme", "camping-trade", "h2", complete=False)
    for ref in (dead, current):
        with pytest.raises(PageMissing):
            catalogue.get_raw_page(ref)
    assert catalogue.get_raw_page(elsewhere) == RawPage()


def test_a_finished_harvest_still_answers_after_the_next_one_began(catalogue: Catalogue, make_ref: MakeRef) -> None:
    catalogue.finish_harvest("acme", "camping-trade", "h1", complete=True)
    catalogue.begin_harvest("acme", "camping-trade", "h2")
    assert catalogue.finish_harvest("acme", "camping-trade", "h1", complete=True) == 0
    with pytest.raises(HarvestSuperseded):
        catalogue.put_raw_page(make_ref(harvest="h1"), RawPage())


@pytest.fixture
def five_harvests(catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync) -> list[str]:
    """Sync the same product twice in each of five harvests, so that each has a rejected row."""
    names = [f"h{number}" for number in range(5)]
    for name in names:
        sync(make_ref(harvest=name), [make_product("A"), make_product("A")])
        catalogue.finish_harvest("acme", "camping-trade", name, complete=True)
    return names


def test_what_older_harvests_left_is_forgotten(catalogue: Catalogue, five_harvests: list[str]) -> None:
    assert catalogue.forget_harvests("acme", "camping-trade", keep=2) == 3
    left = {name: catalogue.counts("acme", "camping-trade", name).rejected for name in five_harvests}
    assert left == {"h0": 0, "h1": 0, "h2": 0, "h3": 1, "h4": 1}
    for name, rejected in left.items():
        assert len(catalogue.rejected("acme", "camping-trade", name)) == rejected
    assert catalogue.count("acme", "camping-trade") == 1
    assert catalogue.forget_harvests("acme", "camping-trade", keep=2) == 0


@pytest.mark.usefixtures("five_harvests")
def test_a_harvest_that_is_forgotten_still_may_not_write_and_still_is_finished(
    catalogue: Catalogue, make_ref: MakeRef
) -> None:
    catalogue.forget_harvests("acme", "camping-trade", keep=1)
    with pytest.raises(HarvestSuperseded):
        catalogue.put_raw_page(make_ref(harvest="h0"), RawPage())
    with pytest.raises(HarvestSuperseded):
        catalogue.begin_harvest("acme", "camping-trade", "h0")
    assert catalogue.finish_harvest("acme", "camping-trade", "h0", complete=True) == 0


@pytest.mark.usefixtures("five_harvests")
def test_a_harvest_under_way_counts_and_is_never_forgotten(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    sync(make_ref(harvest="running"), [make_product("A")])
    assert catalogue.forget_harvests("acme", "camping-trade", keep=1) == 5
    assert catalogue.counts("acme", "camping-trade", "running").unchanged == 1


@pytest.mark.usefixtures("five_harvests")
def test_harvests_of_other_tenants_and_suppliers_are_not_forgotten(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    sync(make_ref(tenant="other"), [make_product("A")])
    sync(make_ref(supplier="other"), [make_product("A")])
    catalogue.forget_harvests("acme", "camping-trade", keep=1)
    assert catalogue.counts("other", "camping-trade", make_ref().harvest_id).created == 1
    assert catalogue.counts("acme", "other", make_ref().harvest_id).created == 1


@pytest.mark.usefixtures("five_harvests")
def test_forgetting_may_happen_twice_at_once(catalogue: Catalogue) -> None:
    with ThreadPoolExecutor(4) as pool:
        attempts = [pool.submit(catalogue.forget_harvests, "acme", "camping-trade", keep=1) for _ in range(4)]
        assert sum(attempt.result() for attempt in attempts) == 4


def test_what_is_listed_in_a_rejected_row_is_not_unseen(
    catalogue: Catalogue, make_ref: MakeRef, make_product: MakeProduct, sync: Sync
) -> None:
    key = ("acme", "camping-trade", "h2")
    sync(make_ref(harvest="h1"), [make_product(sku) for sku in "ABC"])
    rejected = [RejectedRow(line=line, sku=sku, reason="bad_price") for line, sku in enumerate(["A", "Z", ""], 5)]
    sync(make_ref(harvest="h2"), [], rejected)
    # A good row later in the feed still counts, and what is new was not listed before.
    assert sync(make_ref(harvest="h2", page=1), [make_product("A"), make_product("N")]).rejected == 0
    counted = catalogue.count_missing_products(*key)
    assert (counted.missing, counted.listed) == (2, 3)
    assert catalogue.finish_harvest(*key, complete=True) == 2
    assert catalogue.count_missing_products(*key).missing == 0
    assert catalogue.newest_harvest("acme", "camping-trade") == "h2"


def test_rejected_rows_come_in_pages_that_lose_none(catalogue: Catalogue, make_ref: MakeRef, sync: Sync) -> None:
    key = ("acme", "camping-trade", "h1")
    for page in range(3):
        rows = [RejectedRow(line=10 * page + n, reason="ab"[n % 2], raw="x" * 100) for n in range(4)]
        sync(make_ref(harvest="h1", page=page), [], rows)
    for limit, max_bytes in ((1, 10**6), (5, 10**6), (12, 10**6), (12, 1), (12, 250)):
        lines, after = list[int](), None
        while True:
            rows, after = catalogue.page_of_rejected(*key, after=after, limit=limit, max_bytes=max_bytes)
            assert 1 <= len(rows) <= limit
            lines += [row.line for row in rows]
            if after is None:
                break
        assert lines == [10 * page + n for page in range(3) for n in range(4)]
    rows, after = catalogue.page_of_rejected(*key, reason="b")
    assert ([row.line for row in rows], after) == ([1, 3, 11, 13, 21, 23], None)
