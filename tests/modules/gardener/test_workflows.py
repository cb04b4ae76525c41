"""The workflows gardener and enrich: how products flow, what is asked and told meanwhile, and how they end."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from contextunity.gen.contextunity.core import UnitMetrics
from contextunity.gen.contextunity.gardener.v1 import (
    EnrichBatchRequest,
    EnrichBatchResponse,
    EnrichRequest,
    GardenerProgress,
    GardenerRequest,
    GardenerStage,
    GetRulesResponse,
    SetBatchSizeRequest,
    gardener_temporal,
)
from contextunity.gen.contextunity.harvest.v1 import (
    Enrichment,
    EnrichmentCursor,
    ListForEnrichmentRequest,
    ListForEnrichmentResponse,
    ListOfEnrichments,
    ListOfProductsToEnrich,
    PackedEnrichments,
    PackedProducts,
    ProductToEnrich,
    WriteEnrichmentsRequest,
    WriteEnrichmentsResponse,
    harvest_temporal,
)
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError

from contextunity.core.context import TaskContext, using
from contextunity.core.packing import pack, unpack
from contextunity.modules.gardener.workflows import EnrichWorkflow, GardenerWorkflow
from contextunity.worker.testing import WorkflowHarness, time_skipping_environment

_TENANT = "default"
_DAY = timedelta(days=1)


class Shop:
    """A catalogue in memory, behind the activities of harvest's contract."""

    def __init__(self, workflows: WorkflowHarness, products: int = 0) -> None:
        self.workflows = workflows
        self.products = [f"S{number:04d}" for number in range(products)]
        self.enriched = dict[str, int]()
        self.all_enriched = threading.Event()
        self.batches = list[list[str]]()
        self.lists = self.writes = 0
        self.quick = False
        self.title: Callable[[], str] = str
        self.brand: Callable[[], str] = str
        self.fail: Callable[[list[str]], BaseException | None] = lambda skus: None
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()
        fakes = workflows.fakes
        fakes.replaces(gardener_temporal.get_rules, lambda _: GetRulesResponse(version="r1", quick=self.quick))
        fakes.replaces(harvest_temporal.list_for_enrichment, self._list)
        fakes.replaces(gardener_temporal.enrich_batch, self._enrich)  # type: ignore[arg-type]
        fakes.replaces(harvest_temporal.write_enrichments, self._write)

    def _list(self, request: ListForEnrichmentRequest) -> ListForEnrichmentResponse:
        self.lists += 1
        after = "" if request.after is None else request.after.sku
        due = [sku for sku in self.products if request.force or sku not in self.enriched]
        if request.skus:
            due = [sku for sku in due if sku in request.skus]
        page = [sku for sku in due if sku > after]
        listed = request.limit * (request.pages or 1)
        more = len(page) > listed
        page = page[:listed]
        size = request.batch_size
        return ListForEnrichmentResponse(
            batches=[_packed(page[start : start + size], self.title) for start in range(0, len(page), size)],
            next=EnrichmentCursor(supplier_code="s", sku=page[-1]) if more else None,
            due=0 if request.after is not None else len(due),
        )

    async def _enrich(self, request: EnrichBatchRequest) -> EnrichBatchResponse:
        assert request.products is not None
        skus = [product.sku for product in unpack(ListOfProductsToEnrich, request.products.data).products]
        assert request.products.count == len(skus)
        self.batches.append(skus)
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        error = self.fail(skus)
        if error is not None:
            raise error
        made = ListOfEnrichments(
            enrichments=[Enrichment(supplier_code="s", sku=sku, brand=self.brand()) for sku in skus]
        )
        return EnrichBatchResponse(
            enrichments=PackedEnrichments(count=len(skus), data=pack(made)),
            rules_version="r1",
            metrics=UnitMetrics(cost_usd=0.5, tokens_used=10),
        )

    def _write(self, request: WriteEnrichmentsRequest) -> WriteEnrichmentsResponse:
        self.writes += 1
        made = [each for batch in request.batches for each in unpack(ListOfEnrichments, batch.data).enrichments]
        for each in made:
            self.enriched[each.sku] = self.enriched.get(each.sku, 0) + 1
        if len(self.enriched) >= len(self.products):
            self.all_enriched.set()
        return WriteEnrichmentsResponse(written=len(made))

    @property
    def client(self) -> gardener_temporal.GardenerServiceClient:
        return gardener_temporal.GardenerServiceClient(self.workflows.client)

    async def gardener(self, **values: Any) -> gardener_temporal.GardenerHandle:
        return await self.client.start_gardener(GardenerRequest(tenant_id=_TENANT, **values))


def _packed(skus: list[str], title: Callable[[], str]) -> PackedProducts:
    products = [ProductToEnrich(supplier_code="s", sku=sku, title=title()) for sku in skus]
    return PackedProducts(count=len(skus), data=pack(ListOfProductsToEnrich(products=products)))


async def _until(
    handle: gardener_temporal.GardenerHandle, reached: Callable[[GardenerProgress], bool]
) -> GardenerProgress:
    """Asks until the progress is as wanted; a query is no event to wait for."""
    async with asyncio.timeout(20):
        while not reached(progress := await handle.get_progress()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return progress


@pytest_asyncio.fixture
async def workflows() -> AsyncIterator[WorkflowHarness]:
    async with time_skipping_environment() as environment:
        yield WorkflowHarness(environment)


@asynccontextmanager
async def _running(workflows: WorkflowHarness, products: int = 0) -> AsyncIterator[Shop]:
    shop = Shop(workflows, products)
    services = [harvest_temporal.catalogue_service]
    async with workflows.running(GardenerWorkflow, EnrichWorkflow, services=services):
        yield shop


async def _end(handle: gardener_temporal.GardenerHandle) -> None:
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, CancelledError)


async def test_it_enriches_all_in_batches_and_looks_again_when_told(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 125) as shop:
        handle = await shop.gardener()
        progress = await _until(handle, lambda it: it.stage == GardenerStage.WAITING)
        assert (progress.enriched, progress.failed, progress.due, progress.done) == (125, 0, 125, 125)
        assert (progress.looks, progress.batches, progress.batch_size) == (1, 3, 50)
        assert (progress.rules_version, progress.tokens_used, progress.cost_usd) == ("r1", 30, 1.5)
        assert sorted(map(len, shop.batches)) == [25, 50, 50]
        assert set(shop.enriched.values()) == {1}
        shop.products += ["T1", "T2"]
        await handle.run_now()
        progress = await _until(handle, lambda it: it.looks == 2 and it.stage == GardenerStage.WAITING)
        assert (progress.enriched, progress.due) == (127, 2)
        await _end(handle)


async def test_the_rules_take_pages_at_once_and_several_are_listed_and_written_together(
    workflows: WorkflowHarness,
) -> None:
    async with _running(workflows, 6250) as shop:
        shop.quick = True
        handle = await shop.gardener()
        progress = await _until(handle, lambda it: it.stage == GardenerStage.WAITING)
        assert (progress.enriched, progress.due, progress.batches, progress.looks) == (6250, 6250, 7, 1)
        assert sorted(map(len, shop.batches)) == [250] + 6 * [1000]
        assert set(shop.enriched.values()) == {1}
        assert (shop.lists, shop.writes) == (2, 2)
        await _end(handle)


async def test_what_takes_much_room_is_written_in_parts(workflows: WorkflowHarness) -> None:
    """A workflow task that gives the server more than 4 MiB would fail each time."""
    async with _running(workflows, 5000) as shop:
        shop.quick, shop.brand = True, lambda: secrets.token_hex(200)
        handle = await shop.gardener()
        progress = await _until(handle, lambda it: it.stage == GardenerStage.WAITING)
        assert (progress.enriched, progress.failed) == (5000, 0)
        written = workflows.fakes.requests(harvest_temporal.write_enrichments)
        assert sorted(len(request.batches) for request in written) == [2, 3]
        assert all(sum(len(batch.data) for batch in request.batches) < 1024 * 1024 for request in written)
        await _end(handle)


async def test_no_more_batches_are_begun_at_once_than_a_message_takes(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 4000) as shop:
        shop.quick, shop.title, shop.gate = True, lambda: secrets.token_hex(350), asyncio.Event()
        handle = await shop.gardener(parallel_batches=16)
        await shop.begun.wait()
        # Some 400 KB each: the third one is begun below 1 MiB, the fourth is not.
        assert (await handle.get_progress()).batches == 3
        shop.gate.set()
        progress = await _until(handle, lambda it: it.stage == GardenerStage.WAITING)
        assert (progress.enriched, progress.batches) == (4000, 4)
        await _end(handle)


async def test_the_rules_pause_and_end_after_the_pages_at_hand(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 6000) as shop:
        shop.quick, shop.gate = True, asyncio.Event()
        handle = await shop.gardener()
        await shop.begun.wait()
        await handle.pause()
        await _until(handle, lambda it: it.stage == GardenerStage.PAUSED)
        shop.gate.set()
        progress = await _until(handle, lambda it: it.enriched > 0)
        begun = len(shop.batches)
        assert begun <= 2
        assert progress.enriched == 1000 * begun
        shop.gate = asyncio.Event()
        shop.begun.clear()
        await handle.resume()
        await shop.begun.wait()
        await handle.cancel()
        await _until(handle, lambda it: it.stage == GardenerStage.ENDING)
        shop.gate.set()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert len(shop.batches) <= begun + 2
        assert len(shop.enriched) == 1000 * len(shop.batches)
        assert set(shop.enriched.values()) == {1}


async def test_a_page_that_fails_leaves_the_others_of_its_list(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 3000) as shop:
        shop.quick = True
        shop.fail = lambda skus: ApplicationError("not now", type="X") if "S1500" in skus else None
        result = await shop.client.enrich(EnrichRequest(supplier_code="s", retry_max=2))
        assert (result.enriched, result.failed, result.last_error) == (2000, 1000, "X: not now")
        assert len([batch for batch in shop.batches if "S1500" in batch]) == 2


async def test_a_tenant_without_products_is_looked_at_by_a_timer(workflows: WorkflowHarness) -> None:
    async with _running(workflows) as shop:
        handle = await shop.gardener()
        await workflows.sleep(_DAY)
        # One look each 900 seconds, and no more.
        assert 90 <= shop.lists <= 110
        assert shop.writes == 0
        assert (await handle.get_progress()).enriched == 0
        await _end(handle)


async def test_the_poll_interval_is_in_the_input(workflows: WorkflowHarness) -> None:
    async with _running(workflows) as shop:
        handle = await shop.gardener(poll_interval=timedelta(hours=6))
        await workflows.sleep(_DAY)
        assert 4 <= shop.lists <= 6
        await _end(handle)


async def test_a_batch_that_fails_is_told_and_the_others_go_on(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 30) as shop:
        shop.fail = lambda skus: ApplicationError("not now", type="RouterUnavailable") if "S0010" in skus else None
        handle = await shop.gardener(batch_size=10, retry_max=2)
        progress = await _until(handle, lambda it: it.stage == GardenerStage.WAITING)
        assert (progress.enriched, progress.failed, progress.done) == (20, 10, 30)
        assert progress.last_error == "RouterUnavailable: not now"
        assert len([batch for batch in shop.batches if "S0010" in batch]) == 2
        # The next look has them again.
        shop.fail = lambda skus: None
        await workflows.sleep(timedelta(seconds=1000))
        assert (await handle.get_progress()).enriched == 30
        assert set(shop.enriched.values()) == {1}
        await _end(handle)


async def test_a_catalogue_that_cannot_be_read_ends_a_look_and_not_the_gardener(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 5) as shop:
        error = ApplicationError("gone", type="Catalogue", non_retryable=True)
        workflows.fakes.fails(harvest_temporal.list_for_enrichment, error)
        handle = await shop.gardener()
        progress = await _until(handle, lambda it: it.stage == GardenerStage.WAITING)
        assert (progress.last_error, progress.looks) == ("Catalogue: gone", 1)
        workflows.fakes.replaces(harvest_temporal.list_for_enrichment, shop._list)
        await handle.run_now()
        await _until(handle, lambda it: it.enriched == 5)
        await _end(handle)


async def test_a_pause_writes_what_is_at_hand_and_begins_nothing(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 400) as shop:
        shop.gate = asyncio.Event()
        handle = await shop.gardener(batch_size=10, parallel_batches=2)
        await shop.begun.wait()
        await handle.pause()
        await _until(handle, lambda it: it.stage == GardenerStage.PAUSED)
        shop.gate.set()
        progress = await _until(handle, lambda it: it.enriched > 0)
        begun = len(shop.batches)
        assert begun <= 2
        assert progress.enriched == 10 * begun
        assert (await handle.set_batch_size(SetBatchSizeRequest(batch_size=20))).previous_batch_size == 10
        await handle.resume()
        await _until(handle, lambda it: it.enriched == 400)
        # Those that were listed already keep their size.
        assert max(map(len, shop.batches)) == 20
        assert set(shop.enriched.values()) == {1}
        await _end(handle)


@pytest.mark.parametrize("size", [0, 1001, -1])
async def test_an_update_out_of_range_is_rejected_by_the_contract(workflows: WorkflowHarness, size: int) -> None:
    async with _running(workflows) as shop:
        handle = await shop.gardener()
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.set_batch_size(SetBatchSizeRequest(batch_size=size))
        assert "batch_size" in str(caught.value.cause)
        assert (await handle.get_progress()).batch_size == 50
        await _end(handle)


async def test_a_cancelled_one_ends_after_the_batches_at_hand(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 100) as shop:
        shop.gate = asyncio.Event()
        handle = await shop.gardener(batch_size=10, parallel_batches=2)
        await shop.begun.wait()
        await handle.cancel()
        await _until(handle, lambda it: it.stage == GardenerStage.ENDING)
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.set_batch_size(SetBatchSizeRequest(batch_size=20))
        assert "is ending" in str(caught.value.cause)
        shop.gate.set()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert (await handle.describe()).status is WorkflowExecutionStatus.CANCELED
        begun = len(shop.batches)
        assert begun <= 2
        assert len(shop.enriched) == 10 * begun


async def test_it_continues_as_new_with_what_it_did(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 450) as shop:
        handle = await shop.gardener(batch_size=1, parallel_batches=16)
        # Not asked meanwhile: the test server never answers a query that meets a run as it continues as new.
        assert await asyncio.to_thread(shop.all_enriched.wait, 20)
        progress = await _until(handle, lambda it: it.stage == GardenerStage.WAITING)
        assert (progress.batches, progress.done) == (450, 450)
        assert set(shop.enriched.values()) == {1}
        now = await shop.client.get_gardener(handle.id).describe()
        assert now.run_id != handle.first_execution_run_id
        assert now.history_length < 4000
        await _end(shop.client.get_gardener(handle.id))


async def test_a_second_start_joins_and_run_now_starts_one(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 1) as shop:
        request = GardenerRequest(tenant_id=_TENANT)
        first = await shop.client.start_gardener_with_run_now(request)
        second = await shop.gardener()
        assert first.id == second.id == "gardener/default"
        assert (await first.describe()).run_id == second.first_execution_run_id
        await _until(first, lambda it: it.enriched == 1)
        await _end(first)


async def test_it_refuses_to_work_for_another_tenant_than_its_own(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 3) as shop:
        with using(TaskContext(tenant_id="acme")):
            for start in (
                shop.client.start_gardener(GardenerRequest(tenant_id="mallory")),
                shop.client.start_enrich(EnrichRequest(tenant_id="mallory", supplier_code="s")),
            ):
                handle: Any = await start
                with pytest.raises(WorkflowFailureError) as caught:
                    await handle.result()
                assert isinstance(caught.value.cause, ApplicationError)
                assert caught.value.cause.type == "TenantMismatch"
        assert shop.lists == 0


# enrich.


async def test_enrich_does_it_once_and_tells_what_came(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 30) as shop:
        shop.fail = lambda skus: ApplicationError("no", type="X", non_retryable=True) if "S0000" in skus else None
        result = await shop.client.enrich(EnrichRequest(supplier_code="s", batch_size=10))
        assert (result.enriched, result.failed, result.last_error) == (20, 10, "X: no")
        assert (result.rules_version, result.tokens_used, result.cost_usd) == ("r1", 20, 1.0)
        shop.fail = lambda skus: None
        assert (await shop.client.enrich(EnrichRequest(supplier_code="s"))).enriched == 10
        assert (await shop.client.enrich(EnrichRequest(supplier_code="s"))).enriched == 0
        assert (await shop.client.enrich(EnrichRequest(skus=["S0003", "S0004"], force=True))).enriched == 2
        [*_, asked] = workflows.fakes.requests(harvest_temporal.list_for_enrichment)
        assert (asked.supplier_code, asked.skus, asked.force) == ("", ["S0003", "S0004"], True)


async def test_enrich_goes_on_in_further_runs(workflows: WorkflowHarness) -> None:
    async with _running(workflows, 230) as shop:
        handle = await shop.client.start_enrich(EnrichRequest(supplier_code="s", batch_size=1))
        assert (await handle.result()).enriched == 230
        assert set(shop.enriched.values()) == {1}
        described = await workflows.client.get_workflow_handle(handle.id).describe()
        assert described.run_id != handle.first_execution_run_id


async def test_enrich_wants_a_supplier_or_skus(workflows: WorkflowHarness) -> None:
    async with _running(workflows) as shop:
        with pytest.raises(WorkflowFailureError) as caught:
            await shop.client.enrich(EnrichRequest())
        assert "give supplier_code, skus or both" in str(caught.value.cause)


async def test_enrich_fails_where_the_catalogue_cannot_be_read(workflows: WorkflowHarness) -> None:
    async with _running(workflows) as shop:
        error = ApplicationError("gone", type="Catalogue", non_retryable=True)
        workflows.fakes.fails(harvest_temporal.list_for_enrichment, error)
        with pytest.raises(WorkflowFailureError) as caught:
            await shop.client.enrich(EnrichRequest(supplier_code="s"))
        assert isinstance(caught.value.cause, ActivityError)
        assert isinstance(caught.value.cause.cause, ApplicationError)
        assert caught.value.cause.cause.type == "Catalogue"
