"""HarvestWorkflow: pages of a supplier's feed flow through fetch, transform and sync, a few of them at once."""

from __future__ import annotations

import asyncio

from contextunity.gen.contextunity.harvest.v1 import (
    FeedCursor,
    FetchProductsRequest,
    FetchProductsResponse,
    FinishHarvestRequest,
    HarvestCounts,
    HarvestProgress,
    HarvestRequest,
    HarvestResponse,
    HarvestStage,
    HarvestState,
    OpenFeedRequest,
    PageRef,
    SetPageSizeRequest,
    SetPageSizeResponse,
    SyncToBrainRequest,
    TransformDataRequest,
)
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal as contract
from temporalio import workflow

__all__ = ["HarvestWorkflow"]

_MAX_IN_FLIGHT = 4
"""Pages fetched but not yet synced: bounds what is staged, and how far fetching may run ahead of a slow catalogue."""

_PAGES_PER_RUN = 150
"""Pages after which the workflow continues as new: some 20 events each keep a history far below Temporal's limits."""

_MAX_PAGE_SIZE = 1000


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
        self._stage = HarvestStage.OPENING
        self._bytes_done = self._cursor.offset
        self._in_flight = 0
        self._entries = 0
        self._failed = False

    async def run(self, request: HarvestRequest) -> HarvestResponse:
        """Runs the harvest, or the part of it that fits one history."""
        if self._state.feed is None:
            await self._open()
        self._stage = HarvestStage.RUNNING
        end_of_feed = await self._flow()
        if not end_of_feed and not self._trial_is_over():
            await workflow.wait_condition(workflow.all_handlers_finished)
            contract.harvest_workflow.continue_as_new(
                HarvestRequest(
                    tenant_id=request.tenant_id,
                    supplier_code=request.supplier_code,
                    max_products=request.max_products and request.max_products - self._entries,
                    resume=self._state,
                )
            )
        return await self._finish(complete=end_of_feed)

    def get_progress(self) -> HarvestProgress:
        """Tells how far it is."""
        feed = self._state.feed
        paused = self._stage is HarvestStage.RUNNING and self._state.paused
        return HarvestProgress(
            stage=HarvestStage.PAUSED if paused else self._stage,
            counts=self._state.counts,
            bytes_done=self._bytes_done,
            bytes_total=0 if feed is None else feed.total_bytes,
            started_at=self._state.started_at,
            page_size=self._state.page_size,
        )

    def pause(self) -> None:
        """Stops fetching further pages."""
        self._state.paused = True

    def resume(self) -> None:
        """Goes on fetching."""
        self._state.paused = False

    def set_page_size(self, request: SetPageSizeRequest) -> SetPageSizeResponse:
        """Changes the size of the pages to come."""
        previous, self._state.page_size = self._state.page_size, request.page_size
        return SetPageSizeResponse(previous_page_size=previous)

    def validate_set_page_size(self, request: SetPageSizeRequest) -> None:
        """Refuses sizes that pages cannot have."""
        if not 1 <= request.page_size <= _MAX_PAGE_SIZE:
            raise ValueError(f"page_size {request.page_size} is not between 1 and {_MAX_PAGE_SIZE}")

    async def _open(self) -> None:
        opened = await contract.open_feed(OpenFeedRequest(supplier_code=self._request.supplier_code))
        self._state.feed = opened.feed
        self._state.cursor = opened.cursor
        # A SetPageSize that came before the feed was open counts more than the settings do.
        self._state.page_size = self._state.page_size or self._request.page_size or opened.page_size
        self._bytes_done = self._cursor.offset

    async def _flow(self) -> bool:
        """Lets pages flow until the feed ends, the run is long enough, or the trial is over; tells whether it ended."""
        last: asyncio.Task[None] | None = None
        end_of_feed, pages = False, 0
        try:
            while not (end_of_feed or self._run_is_long(pages) or self._trial_is_over()):
                await workflow.wait_condition(lambda: self._failed or (self._may_fetch()))
                if self._failed:
                    break
                page = self._page_ref()
                fetched = await self._fetch(page)
                end_of_feed = fetched.end_of_feed
                pages += 1
                self._in_flight += 1
                last = asyncio.create_task(self._process(page, self._cursor, last))
        finally:
            # Pages in flight are finished even when fetching the next one failed; their own failure counts first.
            if last is not None:
                await last
        return end_of_feed

    async def _fetch(self, page: PageRef) -> FetchProductsResponse:
        size = self._state.page_size
        if self._request.max_products:
            size = min(size, self._request.max_products - self._entries)
        fetched = await contract.fetch_products(
            FetchProductsRequest(page=page, feed=self._state.feed, cursor=self._state.cursor, page_size=size)
        )
        self._state.cursor = fetched.next_cursor
        self._state.next_page += 1
        self._entries += fetched.entries
        self._counts.pages += 1
        self._counts.fetched += fetched.fetched
        return fetched

    async def _process(self, page: PageRef, end: FeedCursor, previous: asyncio.Task[None] | None) -> None:
        try:
            currency = self._state.feed.currency_code if self._state.feed is not None else ""
            transform = contract.transform_data(TransformDataRequest(page=page, currency_code=currency))
            try:
                await transform
            finally:
                if previous is not None:
                    await previous
            synced = await contract.sync_to_brain(SyncToBrainRequest(page=page))
        except BaseException:
            self._failed = True
            raise
        finally:
            self._in_flight -= 1
        counts = self._counts
        counts.created += synced.created
        counts.changed += synced.changed
        counts.unchanged += synced.unchanged
        counts.synced += synced.created + synced.changed + synced.unchanged
        counts.rejected += synced.rejected
        self._bytes_done = end.offset

    async def _finish(self, *, complete: bool) -> HarvestResponse:
        self._stage = HarvestStage.FINISHING
        finished = await contract.finish_harvest(
            FinishHarvestRequest(
                tenant_id=self._request.tenant_id,
                supplier_code=self._request.supplier_code,
                harvest_id=self._state.harvest_id,
                complete=complete,
            )
        )
        self._stage = HarvestStage.DONE
        return HarvestResponse(
            harvest_id=self._state.harvest_id,
            counts=self._counts,
            delisted=finished.delisted,
            started_at=self._state.started_at,
            finished_at=workflow.now(),
            catalogue=finished.catalogue,
        )

    def _may_fetch(self) -> bool:
        return self._in_flight < _MAX_IN_FLIGHT and not self._state.paused

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
    def _counts(self) -> HarvestCounts:
        if self._state.counts is None:
            self._state.counts = HarvestCounts()
        return self._state.counts

    @property
    def _cursor(self) -> FeedCursor:
        return self._state.cursor if self._state.cursor is not None else FeedCursor()
