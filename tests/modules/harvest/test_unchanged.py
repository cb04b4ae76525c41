"""A feed that has not changed since it was read whole is not read again, and everything that could be is."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from contextunity.gen.contextunity.harvest.v1 import (
    FetchProductsRequest,
    HarvestIncomplete,
    ListRejectedRequest,
    PageRef,
    ReadRejectedRequest,
    SyncToBrainRequest,
    TransformDataRequest,
)
from sqlalchemy import text, update
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from contextunity.modules.harvest import resources as harvest_resources
from contextunity.modules.harvest.activities import fetch_products, read_rejected, sync_to_brain, transform_data
from contextunity.modules.harvest.catalogue.tables import fetched_pages
from contextunity.modules.harvest.feed_server import FeedServer
from contextunity.modules.harvest.resources import current, lifespan
from contextunity.modules.harvest.settings import HarvestSettings, SupplierSettings
from contextunity.worker.modules.registry import ModuleContext

_WORKFLOW = "harvest/acme/lamps"
_HEAD = "id\ttitle\tprice\tgtin\tsale_price\tsale_price_effective_date\n"


def _rows(count: int) -> str:
    return "".join(f"{number}\tLamp {number}\t10.00 EUR\t\t\t\n" for number in range(count))


_FEED = _HEAD + _rows(5) + "5\tNo price\tPOA\t\t\t\n" + "6\tBad GTIN\t10.00 EUR\t123\t\t\n"


async def _run(function: Any, request: Any, workflow_id: str = _WORKFLOW) -> Any:
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, workflow_id=workflow_id)
    answer = environment.run(function, request)
    return await answer if hasattr(answer, "__await__") else answer


class Shop:
    """A feed on a real server, and a worker's activities in the order in which the workflow asks for them."""

    def __init__(self, folder: Path, server: FeedServer) -> None:
        self.folder, self.server = folder, server
        self.feed = folder / "served" / "feed.tsv"
        self.write(_FEED)
        self.settings: dict[str, Any] = {}
        self._ids = (f"h{number}" for number in itertools.count(1))

    def write(self, content: str) -> None:
        self.feed.write_text(content)

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        supplier = {"url": self.server.url("feed.tsv"), "allow_private": True, "page_size": 3, **self.settings}
        settings = HarvestSettings(suppliers={"lamps": SupplierSettings(**supplier)})
        async with lifespan(ModuleContext(settings=settings, data_folder=self.folder)):
            yield

    async def harvest(self, *, max_entries: int = 0, if_changed: bool = True) -> tuple[Any, Any]:
        """Harvests; gives the answer to the first fetch, and to the last sync or None."""
        harvest_id, feed, cursor, first = next(self._ids), None, None, None
        async with self.worker():
            for number in itertools.count():
                page = PageRef(tenant_id="acme", supplier_code="lamps", harvest_id=harvest_id, page=number)
                request = FetchProductsRequest(page=page, feed=feed, cursor=cursor, max_entries=max_entries)
                request.if_changed = if_changed
                fetched = await _run(fetch_products, request)
                first = first or fetched
                if fetched.standing is not None:
                    return first, None
                feed, cursor = fetched.feed or feed, fetched.next_cursor
                await _run(transform_data, TransformDataRequest(page=page))
                last = fetched.end_of_feed or max_entries > 0
                sync = SyncToBrainRequest(page=page, last=last, complete=fetched.end_of_feed)
                synced = await _run(sync_to_brain, sync)
                if last:
                    return first, synced
        raise AssertionError

    @property
    def statuses(self) -> list[int]:
        """Of the requests since the last time."""
        told = [request.status for request in self.server.requests]
        self.server.requests.clear()
        return told


@pytest_asyncio.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    (tmp_path / "served").mkdir()
    with FeedServer(tmp_path / "served") as server:
        yield Shop(tmp_path, server)


async def test_an_unchanged_feed_ends_the_harvest_with_what_stands(shop: Shop) -> None:
    first, synced = await shop.harvest()
    assert (first.standing, synced.incomplete) == (None, HarvestIncomplete.UNSPECIFIED)
    assert 304 not in shop.statuses
    for _ in range(2):
        again, _ = await shop.harvest()
        assert (again.standing.unchanged, again.standing.rejected, again.standing.warnings) == (6, 1, 1)
        assert (again.standing.fetched, again.standing.synced, again.end_of_feed) == (0, 0, True)
        assert again.catalogue.endswith("catalogue.db")
        assert shop.server.requests[0].condition.startswith('"')
        assert shop.statuses == [304]
    async with shop.worker():
        catalogue = current().catalogue
        assert catalogue.count("acme", "lamps", delisted=False) == 6
        # What was rejected stands too, under the harvest that read it, whichever is asked for.
        for harvest_id in ("", "h1", "h2", "h3"):
            query = ListRejectedRequest(tenant_id="acme", supplier_code="lamps", harvest_id=harvest_id)
            listed = (await _run(read_rejected, ReadRejectedRequest(query=query))).page
            assert (listed.harvest_id, len(listed.rows)) == ("h1", 2)
        catalogue.forget_harvests("acme", "lamps", keep=1)
        assert catalogue.counts("acme", "lamps", "h1").rows == 7
    shop.write(_HEAD + _rows(4))
    os.utime(shop.feed, (1, 1))
    _, synced = await shop.harvest()
    assert (synced.unchanged, synced.delisted) == (1, 2)


@pytest.mark.parametrize("options", [{"if_changed": False}, {"max_entries": 2}], ids=["force", "trial"])
async def test_it_is_read_where_the_workflow_does_not_ask_for_changes(shop: Shop, options: dict[str, Any]) -> None:
    await shop.harvest()
    assert shop.statuses
    answer, _ = await shop.harvest(**options)
    assert answer.standing is None
    assert shop.statuses[0] == 206


async def test_a_changed_feed_is_asked_for_once(shop: Shop) -> None:
    await shop.harvest()
    shop.write(_FEED + "7\tNew\t10.00 EUR\t\t\t\n")
    before = len(shop.server.requests)
    await shop.harvest()
    asked = list(shop.server.requests)[before:]
    assert asked[0].condition
    assert [request.condition for request in asked[1:]] == [""] * (len(asked) - 1)
    assert {request.status for request in asked} == {206}


async def test_other_settings_or_another_reader_read_it_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.harvest()
    shop.settings["currency_code"] = "CHF"
    answer, _ = await shop.harvest()
    assert answer.standing is None
    answer, _ = await shop.harvest()
    assert answer.standing is not None
    monkeypatch.setattr(harvest_resources, "_reading_code", lambda: "another release")
    answer, _ = await shop.harvest()
    assert answer.standing is None
    (shop.folder / "served" / "other.tsv").write_bytes(shop.feed.read_bytes())
    shop.settings["url"] = shop.server.url("other.tsv")
    answer, _ = await shop.harvest()
    assert answer.standing is None


async def test_a_page_that_another_release_transformed_is_read_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a release is rolled out: the page was fetched by one and transformed by the other."""
    real = harvest_resources.Resources.read_by
    asked = itertools.count()

    def read_by(resources: Any, supplier_code: str) -> str:
        # Of the calls of the first harvest the fourth is the transformation of its second page.
        return "another release" if next(asked) == 3 else real(resources, supplier_code)

    monkeypatch.setattr(harvest_resources.Resources, "read_by", read_by)
    await shop.harvest()
    answer, _ = await shop.harvest()
    assert answer.standing is None
    answer, _ = await shop.harvest()
    assert answer.standing is not None


async def test_only_the_newest_harvest_stands_and_only_if_it_was_complete(shop: Shop) -> None:
    await shop.harvest()
    etag_of_the_first = (shop.feed.stat().st_mtime_ns, shop.feed.stat().st_atime_ns)
    shop.write(_FEED[:-20])
    answer, synced = await shop.harvest()
    assert (answer.standing, synced.incomplete) == (None, HarvestIncomplete.TRUNCATED)
    # The version of the first harvest is back, but not what the second one did to its products.
    shop.write(_FEED)
    os.utime(shop.feed, ns=(etag_of_the_first[1], etag_of_the_first[0]))
    answer, _ = await shop.harvest()
    assert answer.standing is None
    await shop.harvest(max_entries=1)
    answer, _ = await shop.harvest()
    assert answer.standing is None


async def test_a_reduced_price_that_begins_or_ends_is_a_change(shop: Shop) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    dates = f"2020-01-01T00:00Z/{ends.isoformat()}"
    later = "2090-01-01T00:00Z/2091-01-01T00:00Z"
    shop.write(
        _HEAD
        + _rows(4)
        + f"s\tSale\t10.00 EUR\t\t8.00 EUR\t{dates}\n"
        + f"t\tLater\t10.00 EUR\t\t8.00 EUR\t{later}\n"
        + "u\tNever\t10.00 EUR\t\t8.00 EUR\tsoon\n"
    )
    await shop.harvest()
    answer, _ = await shop.harvest()
    assert answer.standing is not None
    async with shop.worker():
        with current().catalogue._database.writing() as connection:
            held = connection.execute(text("SELECT page, holds_until FROM fetched_pages ORDER BY page")).all()
            assert [row.holds_until is None for row in held] == [True, False, True]
            assert str(held[1].holds_until).startswith(ends.strftime("%Y-%m-%d %H:%M"))
            past = datetime.now(UTC) - timedelta(seconds=1)
            connection.execute(update(fetched_pages).where(fetched_pages.c.page == 1).values(holds_until=past))
    answer, _ = await shop.harvest()
    assert answer.standing is None


async def test_a_repeated_attempt_gives_the_same_and_another_workflow_nothing(shop: Shop) -> None:
    await shop.harvest()
    async with shop.worker():
        ref = PageRef(tenant_id="acme", supplier_code="lamps", harvest_id="again", page=0)
        request = FetchProductsRequest(page=ref, if_changed=True)
        first = await _run(fetch_products, request)
        shop.write(_HEAD + _rows(1))
        assert await _run(fetch_products, request) == first
        with pytest.raises(ApplicationError, match="does not belong to") as caught:
            await _run(fetch_products, request, "harvest/mallory/lamps")
        assert (caught.value.type, caught.value.non_retryable) == ("HarvestMismatch", True)
        for page in (0, 1):
            forged = dataclasses.replace(ref, page=page)
            for function, message in ((transform_data, TransformDataRequest), (sync_to_brain, SyncToBrainRequest)):
                with pytest.raises(ApplicationError, match="was not fetched"):
                    await _run(function, message(page=forged))


async def test_another_tenant_reads_for_itself(shop: Shop) -> None:
    await shop.harvest()
    async with shop.worker():
        page = PageRef(tenant_id="other", supplier_code="lamps", harvest_id="x", page=0)
        answer = await _run(fetch_products, FetchProductsRequest(page=page, if_changed=True), "harvest/other/lamps")
    assert answer.standing is None


async def test_a_feed_that_can_only_be_had_whole_is_asked_for_changes_too(shop: Shop) -> None:
    shop.server.ranges = False
    await shop.harvest()
    assert shop.statuses == [200]
    answer, _ = await shop.harvest()
    assert answer.standing.unchanged == 6
    assert shop.statuses == [304]


async def test_a_server_without_versions_is_not_asked_for_changes(shop: Shop) -> None:
    shop.server.ranges = shop.server.validators = False
    for _ in range(2):
        answer, _ = await shop.harvest()
        assert answer.standing is None
        assert {request.condition for request in shop.server.requests} == {""}
