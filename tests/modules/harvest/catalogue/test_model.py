"""Random sequences of harvests against a model of a few lines: the catalogue always agrees with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from contextunity.gen.contextunity.harvest.v1 import PageRef, Product, RejectedRow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contextunity.modules.harvest.catalogue import Catalogue, HarvestTotals, SyncCounts

# A row of a feed: a SKU with the version of its content, or None for one that the transformation refused.
Row = tuple[str, int] | None

_rows = st.none() | st.tuples(st.sampled_from("ABCDEF"), st.integers(0, 2))
_pages = st.lists(st.lists(_rows, max_size=6), max_size=4)
_tenants = (f"tenant-{number}" for number in itertools.count())


@dataclass(frozen=True, kw_only=True, slots=True)
class Harvest:
    pages: list[list[Row]]
    complete: bool
    repeat: bool
    """Whether each page is synced twice, as after a lost answer."""


_harvests = st.builds(Harvest, pages=_pages, complete=st.booleans(), repeat=st.booleans())


@dataclass(kw_only=True, slots=True)
class Model:
    content: dict[str, int] = field(default_factory=dict[str, int])
    delisted: set[str] = field(default_factory=set[str])
    seen: set[str] = field(default_factory=set[str])

    def sync(self, rows: list[Row]) -> SyncCounts:
        outcomes = [self._sync_row(row) for row in rows]
        return SyncCounts(
            created=outcomes.count("created"),
            changed=outcomes.count("changed"),
            unchanged=outcomes.count("unchanged"),
            rejected=outcomes.count("rejected"),
        )

    def _sync_row(self, row: Row) -> str:
        if row is None or row[0] in self.seen:
            return "rejected"
        sku, version = row
        self.seen.add(sku)
        outcome = "created" if sku not in self.content else "changed"
        if self.content.get(sku) == version and sku not in self.delisted:
            outcome = "unchanged"
        self.content[sku] = version
        self.delisted.discard(sku)
        return outcome

    def finish(self, *, complete: bool) -> int:
        missing = set(self.content) - self.seen - self.delisted if complete else set[str]()
        self.delisted |= missing
        self.seen.clear()
        return len(missing)


# Every example has a tenant of its own, so one database serves them all, and each runs beside what others left.
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(harvests=st.lists(_harvests, max_size=5))
def test_the_catalogue_agrees_with_the_model(
    catalogue: Catalogue,
    make_ref: Callable[..., PageRef],
    make_product: Callable[..., Product],
    sync: Callable[..., SyncCounts],
    harvests: list[Harvest],
) -> None:
    model, tenant = Model(), next(_tenants)
    for number, harvest in enumerate(harvests):
        name = f"h{number}"
        lines = itertools.count(2)
        totals = [0, 0, 0, 0]
        for page, rows in enumerate(harvest.pages):
            products: list[Product] = []
            rejected: list[RejectedRow] = []
            for row in rows:
                if row is None:
                    rejected.append(RejectedRow(line=next(lines), reason="bad_price"))
                else:
                    products.append(make_product(row[0], line=next(lines), title=f"version {row[1]}"))
            ref = make_ref(page=page, harvest=name, tenant=tenant)
            expected = model.sync(rows)
            assert sync(ref, products, rejected) == expected
            if harvest.repeat:
                assert catalogue.sync_page(ref) == expected
            parts = (expected.created, expected.changed, expected.unchanged, expected.rejected)
            assert sum(parts) == len(rows)
            totals = [total + part for total, part in zip(totals, parts, strict=True)]
        delisted = model.finish(complete=harvest.complete)
        assert catalogue.finish_harvest(tenant, "camping-trade", name, complete=harvest.complete) == delisted
        assert catalogue.counts(tenant, "camping-trade", name) == HarvestTotals(
            pages=len(harvest.pages),
            rows=sum(totals),
            created=totals[0],
            changed=totals[1],
            unchanged=totals[2],
            rejected=totals[3],
        )
        assert sum(catalogue.rejected_by_reason(tenant, "camping-trade", name).values()) == totals[3]
        listed = {
            row.sku: int(row.title.removeprefix("version ")) for row in catalogue.sample(tenant, "camping-trade", 100)
        }
        assert listed == {sku: version for sku, version in model.content.items() if sku not in model.delisted}
        assert catalogue.count(tenant, "camping-trade", delisted=True) == len(model.delisted)
        for sku, version in model.content.items():
            found = catalogue.get(tenant, "camping-trade", sku)
            assert found is not None
            assert found.title == f"version {version}"
