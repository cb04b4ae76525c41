"""HarvestWorkflow: pages of a supplier's feed flow through fetch, transform and sync, a few of them at once."""

from __future__ import annotations

import asyncio
from typing import final

from contextunity.gen.contextunity.harvest.v1 import (
    FetchProductsRequest,
    FetchProductsResponse,
    HarvestCounts,
    HarvestProgress,
    HarvestRequest,
    HarvestResponse,
    HarvestStage,
    HarvestState,
    ListRejectedRequest,
    ListRejectedResponse,
    NotifyFinishedRequest,
    PageRef,
    ReadRejectedRequest,
    SetPageSizeRequest,
    SetPageSizeResponse,
    SyncToBrainRequest,
    SyncToBrainResponse,
    TakeTurnRequest,
    TransformDataRequest,
)
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal as contract
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from contextunity.worker.temporal.concurrency import retry_until_free

from .errors import HARVESTS_TAKEN

__all__ = ["HarvestWorkflow", "ListRejectedWorkflow"]

_MAX_IN_FLIGHT = 4
"""Pages fetched but not yet synced: bounds what is staged, and how far fetching may run ahead of a slow catalogue."""

_PAGES_PER_RUN = 150
"""Pages after which the workflow continues as new: some 20 events each keep a history far below Temporal's limits."""


@final
class HarvestWorkflow(contract.HarvestWorkflowBase):
    """Harvests one supplier's feed for one tenant.

    Fetching is sequential, since only a page read tells where the next one begins. Transforming runs beside it. Syncing
    goes page by page in the feed's order, so that of rows with the same SKU always the same one wins.
    """

    @workflow.init
    def __init__(self, request: HarvestRequest) -> None:
        self._request = request
        self._state = (
            request.resume
            if request.resume is not None
            else HarvestState(
                counts=HarvestCounts(),
                harvest_id=workflow.info().first_execution_run_id,
                started_at=workflow.now(),
            )
        )
        self._stage = HarvestStage.OPENING if self._state.feed is None else HarvestStage.RUNNING
        self._bytes_done = self._state.cursor.offset if self._state.cursor is not None else 0
        self._in_flight = 0
        self._entries = 0
        self._failed = False
        self._unchanged = False

    async def run(self, request: HarvestRequest) -> HarvestResponse:
        """Runs the harvest, or the part of it that fits one history."""
        last = await self._flow()
        if last is None:
            await workflow.wait_condition(workflow.all_handlers_finished)
            contract.harvest_workflow.continue_as_new(
                HarvestRequest(
                    tenant_id=request.tenant_id,
                    supplier_code=request.supplier_code,
                    max_products=request.max_products and request.max_products - self._entries,
                    resume=self._state,
                    allow_delisting=request.allow_delisting,
                    force=request.force,
                )
            )
        if last.on_finished:
            await self._notify(last.on_finished)
        self._stage = HarvestStage.DONE
        return HarvestResponse(
            harvest_id=self._state.harvest_id,
            counts=self._counts,
            delisted=last.delisted,
            started_at=self._state.started_at,
            finished_at=workflow.now(),
            catalogue=last.catalogue,
            incomplete=last.incomplete,
            incomplete_detail=last.incomplete_detail,
            unchanged=self._unchanged,
        )

    def get_progress(self) -> HarvestProgress:
        """Tells how far it is."""
        feed = self._state.feed
        paused = self._state.paused and self._stage in (HarvestStage.OPENING, HarvestStage.RUNNING)
        return HarvestProgress(
            stage=HarvestStage.PAUSED if paused else self._stage,
            counts=self._state.counts,
            bytes_done=self._bytes_done,
            bytes_total=0 if feed is None else feed.total_bytes,
            started_at=self._state.started_at,
            page_size=self._page_size,
            incomplete=self._state.incomplete,
            incomplete_detail=self._state.incomplete_detail,
            unchanged=self._unchanged,
        )

    def pause(self) -> None:
        """Stops fetching further pages."""
        self._state.paused = True

    def resume(self) -> None:
        """Goes on fetching."""
        self._state.paused = False

    def set_page_size(self, request: SetPageSizeRequest) -> SetPageSizeResponse:
        """Changes the size of the pages to come."""
        previous, self._state.page_size = self._page_size, request.page_size
        return SetPageSizeResponse(previous_page_size=previous)

    def validate_set_page_size(self, request: SetPageSizeRequest) -> None:
        """Refuses a size where there are no pages to come; which sizes there are, the contract says."""
        if self._stage in (HarvestStage.FINISHING, HarvestStage.DONE):
            raise ValueError("no page is left to fetch, so there is none to give another size")

    async def _flow(self) -> SyncToBrainResponse | None:
        """Lets pages flow until the harvest is over, or the run is long enough.

        Returns:
            The answer to the sync of the last page, or what takes its place where the feed is unchanged; None where
            pages are left for a further run.
        """
        syncing: asyncio.Task[SyncToBrainResponse] | None = None
        over, pages = False, 0
        try:
            while not (over or self._run_is_long(pages)):
                await workflow.wait_condition(self._may_fetch)
                if self._failed:
                    break
                page = self._page_ref()
                fetched = await self._fetch(page)
                if fetched.standing is not None:
                    # Nothing has been read, so nothing is transformed or synced; the activity has ended the harvest.
                    self._unchanged, self._state.counts = True, fetched.standing
                    return SyncToBrainResponse(catalogue=fetched.catalogue, on_finished=fetched.on_finished)
                over = fetched.end_of_feed or self._trial_is_over()
                pages += 1
                self._in_flight += 1
                sync = SyncToBrainRequest(page=page, last=over, complete=fetched.end_of_feed)
                sync.allow_delisting = over and self._request.allow_delisting
                syncing = asyncio.create_task(self._process(sync, fetched, syncing))
        except (Exception, asyncio.CancelledError):
            # Pages in flight are finished even when fetching the next one failed; their own failure counts first.
            # Not in a `finally`: a workflow that leaves the worker's memory is closed there, and must not wait.
            if syncing is not None:
                await syncing
            raise
        last = await syncing if syncing is not None else None
        return last if over else None

    async def _notify(self, workflow_type: str) -> None:
        """Tells the workflow that the settings name. Where that cannot be done, the harvest is done all the same."""
        try:
            await contract.notify_finished(NotifyFinishedRequest())
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("%r was not told that the harvest has ended: %s", workflow_type, error.cause)

    async def _fetch(self, page: PageRef) -> FetchProductsResponse:
        state = self._state
        request = FetchProductsRequest(
            page=page,
            feed=state.feed,
            cursor=state.cursor,
            page_size=self._page_size,
            max_entries=self._request.max_products and self._request.max_products - self._entries,
            if_changed=state.feed is None and not self._request.force,
            in_turn=state.feed is None,
        )
        fetched = await self._fetch_in_turn(request)
        if self._stage is HarvestStage.OPENING:
            self._stage = HarvestStage.RUNNING
        if fetched.standing is not None:
            return fetched
        if fetched.feed is not None:
            state.feed = fetched.feed
        state.cursor = fetched.next_cursor
        # SetPageSize while the first page was fetched counts more than what that page was asked for with.
        state.page_size = state.page_size or fetched.page_size
        state.next_page += 1
        self._entries += fetched.entries
        if not state.incomplete:
            state.incomplete, state.incomplete_detail = fetched.incomplete, fetched.incomplete_detail
        self._counts.pages += 1
        self._counts.fetched += fetched.fetched
        return fetched

    async def _fetch_in_turn(self, request: FetchProductsRequest) -> FetchProductsResponse:
        """Fetches a page; where the tenant has as many harvests under way as it may, waits for its turn first."""
        try:
            return await retry_until_free(lambda: contract.fetch_products(request))
        except ActivityError as error:
            if not (isinstance(error.cause, ApplicationError) and error.cause.type == HARVESTS_TAKEN):
                raise
        self._stage = HarvestStage.WAITING
        await contract.take_turn(TakeTurnRequest(tenant_id=self._request.tenant_id, harvest_id=self._state.harvest_id))
        self._stage = HarvestStage.OPENING
        return await retry_until_free(lambda: contract.fetch_products(request))

    async def _process(
        self,
        sync: SyncToBrainRequest,
        fetched: FetchProductsResponse,
        previous: asyncio.Task[SyncToBrainResponse] | None,
    ) -> SyncToBrainResponse:
        """Transforms a fetched page, and syncs it once the page before is synced."""
        try:
            currency = self._state.feed.currency_code if self._state.feed is not None else ""
            transform = contract.transform_data.start(TransformDataRequest(page=sync.page, currency_code=currency))
            if previous is not None:
                await previous
            await transform
            if sync.last:
                self._stage = HarvestStage.FINISHING
            synced = await contract.sync_to_brain(sync)
        except BaseException:
            self._failed = True
            raise
        finally:
            self._in_flight -= 1
        if synced.incomplete:
            self._state.incomplete, self._state.incomplete_detail = synced.incomplete, synced.incomplete_detail
        counts = self._counts
        counts.created += synced.created
        counts.changed += synced.changed
        counts.unchanged += synced.unchanged
        counts.synced += synced.created + synced.changed + synced.unchanged
        counts.rejected += synced.rejected
        counts.warnings += synced.warnings
        self._bytes_done = fetched.next_cursor.offset if fetched.next_cursor is not None else 0
        return synced

    def _may_fetch(self) -> bool:
        return self._failed or (self._in_flight < _MAX_IN_FLIGHT and not self._state.paused)

    def _run_is_long(self, pages: int) -> bool:
        return pages >= _PAGES_PER_RUN or workflow.info().is_continue_as_new_suggested()

    def _trial_is_over(self) -> bool:
        return 0 < self._request.max_products <= self._entries

    def _page_ref(self) -> PageRef:
        return PageRef(
            tenant_id=self._request.tenant_id,
            supplier_code=self._request.supplier_code,
            harvest_id=self._state.harvest_id,
            page=self._state.next_page,
        )

    @property
    def _page_size(self) -> int:
        """As in force; 0 until the first page tells the supplier's setting, where nobody asked for another."""
        return self._state.page_size or self._request.page_size

    @property
    def _counts(self) -> HarvestCounts:
        if self._state.counts is None:
            self._state.counts = HarvestCounts()
        return self._state.counts


@final
class ListRejectedWorkflow(contract.ListRejectedWorkflowBase):
    """Lists one page of the rows that a harvest rejected."""

    async def run(self, request: ListRejectedRequest) -> ListRejectedResponse:
        """Has the page read where the catalogue is."""
        read = await contract.read_rejected(ReadRejectedRequest(query=request))
        return read.page if read.page is not None else ListRejectedResponse()
