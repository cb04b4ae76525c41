"""What the activities tell Temporal of a failure, and what they believe of a payload."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from contextunity.gen.contextunity.harvest.v1 import (
    Feed,
    FetchProductsRequest,
    FetchProductsResponse,
    ListForEnrichmentRequest,
    ListForEnrichmentResponse,
    ListOfProductsToEnrich,
    ListRejectedRequest,
    PageRef,
    ReadRejectedRequest,
    SyncToBrainRequest,
    TransformDataRequest,
)
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from contextunity.core.context import TaskContext, using
from contextunity.core.packing import unpack
from contextunity.modules.harvest import activities
from contextunity.modules.harvest.activities import (
    _as_application_error,
    fetch_products,
    list_for_enrichment,
    read_rejected,
    sync_to_brain,
    transform_data,
)
from contextunity.modules.harvest.errors import FeedNotFoundError, FeedRefusedError, FeedUnreachableError, HarvestError
from contextunity.modules.harvest.resources import current, lifespan
from contextunity.modules.harvest.settings import BUNDLED_SUPPLIER, HarvestSettings
from contextunity.worker.modules.registry import ModuleContext
from contextunity.worker.quotas import Quotas
from contextunity.worker.settings import TenantQuotas


@pytest.mark.parametrize(
    ("error", "kind", "final", "delay"),
    [
        (FeedUnreachableError("u", status=429, retry_after=7), "FeedUnreachable", False, timedelta(seconds=7)),
        (FeedUnreachableError("u", status=503, retry_after=10**9), "FeedUnreachable", False, timedelta(hours=1)),
        (FeedUnreachableError("u", status=503), "FeedUnreachable", False, None),
        (FeedNotFoundError("u", status=404), "FeedNotFound", True, None),
        (FeedRefusedError("u", reason="r"), "FeedRefused", True, None),
    ],
)
def test_a_failure_has_its_type_and_when_to_try_again(
    error: HarvestError, kind: str, final: bool, delay: timedelta | None
) -> None:
    def fail() -> None:
        with _as_application_error():
            raise error

    with pytest.raises(ApplicationError) as caught:
        ActivityEnvironment().run(fail)
    told = caught.value
    assert (told.type, told.non_retryable, told.next_retry_delay) == (kind, final, delay)


_WORKFLOW = "harvest/acme/camping-trade"


@pytest_asyncio.fixture
async def resources(tmp_path: Path) -> AsyncIterator[None]:
    context = ModuleContext(settings=HarvestSettings(sample_products=30), data_folder=tmp_path)
    async with lifespan(context):
        yield


def _ref(
    page: int = 0, *, tenant_id: str = "acme", supplier_code: str = BUNDLED_SUPPLIER, harvest_id: str = "h1"
) -> PageRef:
    return PageRef(tenant_id=tenant_id, supplier_code=supplier_code, harvest_id=harvest_id, page=page)


async def _in_activity(function: Callable[..., Any], request: Any, workflow_id: str = _WORKFLOW) -> Any:
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, workflow_id=workflow_id)
    answer = environment.run(function, request)
    return await answer if hasattr(answer, "__await__") else answer


async def _first_page() -> FetchProductsResponse:
    fetched: FetchProductsResponse = await _in_activity(fetch_products, FetchProductsRequest(page=_ref(), page_size=10))
    return fetched


async def _refused(function: Callable[..., Any], request: Any, workflow_id: str = _WORKFLOW) -> str:
    with pytest.raises(ApplicationError) as caught:
        await _in_activity(function, request, workflow_id)
    assert (caught.value.type, caught.value.non_retryable) == ("HarvestMismatch", True)
    return caught.value.message


@pytest.mark.usefixtures("resources")
async def test_address_and_currency_of_a_payload_are_passed_over(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("Handle,Title,Variant Price\nsecret,Secret,1\n")
    first = await _first_page()
    assert isinstance(first.feed, Feed)
    forged = dataclasses.replace(first.feed, url=secret.as_uri(), currency_code="XXX", supplier_code="other")
    request = FetchProductsRequest(page=_ref(1), feed=forged, cursor=first.next_cursor, page_size=10)
    assert (await _in_activity(fetch_products, request)).entries == 10
    await _in_activity(transform_data, TransformDataRequest(page=_ref(1), currency_code="XXX"))
    page = current().catalogue.get_product_page(_ref(1))
    assert {product.price.currency_code for product in page.products if product.price is not None} == {"USD"}
    assert all("Secret" not in product.title for product in page.products)


@pytest.mark.usefixtures("resources")
async def test_a_payload_that_disagrees_with_the_record_is_refused_for_good() -> None:
    first = await _first_page()
    assert first.feed is not None
    assert first.next_cursor is not None
    good = FetchProductsRequest(page=_ref(1), feed=first.feed, cursor=first.next_cursor)
    moved = dataclasses.replace(first.next_cursor, offset=first.next_cursor.offset + 1)
    prologue = dataclasses.replace(first.feed, prologue=b"Handle,Title,Variant Price\n")
    assert "ended at byte" in await _refused(fetch_products, dataclasses.replace(good, cursor=moved))
    assert "prologue_hash" in await _refused(fetch_products, dataclasses.replace(good, feed=prologue))
    assert "does not belong to" in await _refused(fetch_products, good, "harvest/mallory/camping-trade")
    for ref in (_ref(tenant_id="mallory"), _ref(harvest_id="h2")):
        assert "has not begun" in await _refused(transform_data, TransformDataRequest(page=ref))
        assert "has not begun" in await _refused(sync_to_brain, SyncToBrainRequest(page=ref))
    assert "does not belong to" in await _refused(
        transform_data, TransformDataRequest(page=_ref()), "harvest/mallory/camping-trade"
    )
    assert "does not end with it" in await _refused(
        sync_to_brain, SyncToBrainRequest(page=_ref(), last=True, complete=True)
    )


@pytest.mark.usefixtures("resources")
async def test_a_supplier_that_is_not_configured_is_refused_whatever_the_payload_brings() -> None:
    first = await _first_page()
    request = FetchProductsRequest(page=_ref(1, supplier_code="no-such"), feed=first.feed, cursor=first.next_cursor)
    with pytest.raises(ApplicationError) as caught:
        await _in_activity(fetch_products, request)
    assert caught.value.type in ("HarvestMismatch", "SupplierUnknown")
    assert caught.value.non_retryable
    with pytest.raises(ApplicationError, match="no-such") as caught:
        await _in_activity(fetch_products, FetchProductsRequest(page=_ref(supplier_code="no-such")))
    assert (caught.value.type, caught.value.non_retryable) == ("SupplierUnknown", True)


async def test_a_feed_beyond_the_tenants_budget_is_tried_again_when_there_is_one(tmp_path: Path) -> None:
    quotas = Quotas(TenantQuotas(egress_bytes=10))
    context = ModuleContext(settings=HarvestSettings(sample_products=30), data_folder=tmp_path, quotas=quotas)
    async with lifespan(context):
        for _ in range(2):
            with pytest.raises(ApplicationError, match="egress_bytes = 10; it may fetch again") as caught:
                await _first_page()
            assert (caught.value.type, caught.value.non_retryable) == ("EgressBudget", False)
            assert caught.value.next_retry_delay is not None
            assert timedelta(hours=23) < caught.value.next_retry_delay <= timedelta(days=1)


async def test_rejected_rows_beyond_the_tenants_quota_are_counted_and_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("Handle,Title,Variant Price,Variant SKU\ntent,Tent,dear,T1\nlamp,Lamp,5,L1\n")
    suppliers = {"alpine": {"url": feed.as_uri(), "format": "shopify_csv"}}
    settings = HarvestSettings.model_validate({"suppliers": suppliers}, context={"settings_folder": tmp_path})
    for budget, kept in ((10_000, 1), (50, 0)):
        quotas = Quotas(TenantQuotas(rejected_bytes=budget))
        async with lifespan(ModuleContext(settings=settings, data_folder=tmp_path, quotas=quotas)):
            page = _ref(supplier_code="alpine", harvest_id=f"of-{budget}")
            await _in_activity(fetch_products, FetchProductsRequest(page=page))
            await _in_activity(transform_data, TransformDataRequest(page=page))
            synced = await _in_activity(sync_to_brain, SyncToBrainRequest(page=page, last=True, complete=True))
            assert (synced.created + synced.unchanged, synced.rejected) == (1, 1)
            query = ListRejectedRequest(tenant_id="acme", supplier_code="alpine")
            listed = (await _in_activity(read_rejected, ReadRejectedRequest(query=query))).page
            assert (len(listed.rows), listed.dropped) == (kept, 1 - kept)
    told = "sync_to_brain: deleted rejected rows of the harvests of-10000, of-50, over the quota rejected_bytes of 50"
    assert told in caplog.text


async def _listed(**values: Any) -> tuple[list[ListForEnrichmentResponse], list[str]]:
    """All answers until the list is over, and the SKUs in them."""
    answers, skus = list[ListForEnrichmentResponse](), list[str]()
    while not answers or answers[-1].next is not None:
        after = answers[-1].next if answers else None
        request = ListForEnrichmentRequest(rules_version="r1", limit=10, batch_size=5, after=after, **values)
        with using(TaskContext(tenant_id="acme")):
            answers.append(await _in_activity(list_for_enrichment, request))
        for batch in answers[-1].batches:
            products = unpack(ListOfProductsToEnrich, batch.data).products
            assert len(products) == batch.count <= 5
            skus += [product.sku for product in products]
    return answers, skus


@pytest.mark.usefixtures("resources")
async def test_products_to_enrich_are_listed_several_pages_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    await _first_page()
    await _in_activity(transform_data, TransformDataRequest(page=_ref()))
    await _in_activity(sync_to_brain, SyncToBrainRequest(page=_ref()))
    single, skus = await _listed()
    assert len(skus) == len(set(skus)) == single[0].due > 20
    together, same = await _listed(pages=2)
    assert same == skus
    assert (len(single), len(together)) == (-(-len(skus) // 10), -(-len(skus) // 20))
    assert [answer.due for answer in together] == [len(skus)] + [0] * (len(together) - 1)
    # An answer that has grown large takes no further page.
    monkeypatch.setattr(activities, "_MAX_LISTED_BYTES", 1)
    bounded, same = await _listed(pages=20)
    assert same == skus
    assert len(bounded) == len(single)
