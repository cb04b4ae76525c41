"""Bytes of a tenant's rejected rows: over the budget, those of the oldest harvests go and their counts stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contextunity.gen.contextunity.harvest.v1 import PageRef, Product, RejectedRow, RowSeverity
from sqlalchemy import update

from contextunity.modules.harvest.catalogue import Catalogue, SyncCounts
from contextunity.modules.harvest.catalogue.tables import harvest_pages

MakeRef = Callable[..., PageRef]
Sync = Callable[..., SyncCounts]
_ROWS = 4
_BYTES = _ROWS * (100 + 1_000 + len("sku") + len("no_price") + len("detail"))
"""What the rows of a page take."""


def _rejected() -> list[RejectedRow]:
    return [
        RejectedRow(
            line=line, sku="sku", reason="no_price", detail="detail", raw="r" * 1_000, severity=RowSeverity.REJECTED
        )
        for line in range(1, _ROWS + 1)
    ]


@pytest.fixture
def pages(make_ref: MakeRef, sync: Sync) -> list[PageRef]:
    """A page of each of three harvests, of two suppliers, one after the other."""
    refs = [
        make_ref(supplier="a", harvest="h1"),
        make_ref(supplier="b", harvest="h2"),
        make_ref(supplier="a", harvest="h3"),
    ]
    for ref in refs:
        sync(ref, [], _rejected())
    return refs


def _kept(catalogue: Catalogue, ref: PageRef) -> int:
    return len(catalogue.rejected(ref.tenant_id, ref.supplier_code, ref.harvest_id))


def _dropped(catalogue: Catalogue, ref: PageRef) -> int:
    return catalogue.dropped_rows(ref.tenant_id, ref.supplier_code, ref.harvest_id)


def test_within_the_budget_all_stays(catalogue: Catalogue, pages: list[PageRef]) -> None:
    assert catalogue.trim_rejected(pages[-1], 3 * _BYTES) == []
    assert [_kept(catalogue, ref) for ref in pages] == [_ROWS] * 3
    assert [_dropped(catalogue, ref) for ref in pages] == [0] * 3


def test_the_oldest_go_first_and_counts_stay(catalogue: Catalogue, pages: list[PageRef]) -> None:
    assert catalogue.trim_rejected(pages[-1], 3 * _BYTES - 1) == ["h1"]
    assert [_kept(catalogue, ref) for ref in pages] == [0, _ROWS, _ROWS]
    assert catalogue.trim_rejected(pages[-1], _BYTES) == ["h2"]
    assert [_kept(catalogue, ref) for ref in pages] == [0, 0, _ROWS]
    assert [_dropped(catalogue, ref) for ref in pages] == [_ROWS, _ROWS, 0]
    for ref in pages:
        assert catalogue.counts(ref.tenant_id, ref.supplier_code, ref.harvest_id).rejected == _ROWS


def test_another_tenant_loses_nothing(
    catalogue: Catalogue, pages: list[PageRef], make_ref: MakeRef, sync: Sync
) -> None:
    other = make_ref(tenant="other", supplier="a", harvest="h1")
    sync(other, [], _rejected())
    catalogue.trim_rejected(pages[-1], 0)
    assert _kept(catalogue, other) == _ROWS


def test_of_a_harvest_that_is_too_much_alone_the_first_pages_stay(
    catalogue: Catalogue, make_ref: MakeRef, sync: Sync, make_product: Callable[..., Product]
) -> None:
    first, second = make_ref(harvest="h1", page=0), make_ref(harvest="h1", page=1)
    for ref in (first, second):
        sync(ref, [make_product(f"P{ref.page}")], _rejected())
        emptied = catalogue.trim_rejected(ref, _BYTES)
        assert emptied == ([] if ref is first else ["h1"])
    assert {row.line for row in catalogue.rejected("acme", "camping-trade", "h1")} == {1, 2, 3, 4}
    assert _dropped(catalogue, first) == _ROWS
    totals = catalogue.counts("acme", "camping-trade", "h1")
    assert (totals.rejected, totals.created) == (2 * _ROWS, 2)


def test_pages_of_an_earlier_release_are_added_up(catalogue: Catalogue, pages: list[PageRef]) -> None:
    with catalogue._database.writing() as connection:  # pyright: ignore[reportPrivateUsage]
        connection.execute(update(harvest_pages).values(rejected_bytes=None))
    assert catalogue.trim_rejected(pages[-1], 3 * _BYTES) == []
    assert catalogue.trim_rejected(pages[-1], 3 * _BYTES - 1) == ["h1"]
