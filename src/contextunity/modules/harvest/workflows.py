"""HarvestWorkflow: fetch, transform and sync the pages of a supplier's feed, a few of them at once."""

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
"""Maximum pages fetched but not yet synced: it limits staged data, and how far fetching is ahead of the catalogue."""

_PAGES_PER_RUN = 150
"""Pages after which the workflow continues as new: with about 20 events each, the history stays far below limits."""


@final
class HarvestWorkflow(contract.HarvestWorkflowBase):
    """Harvest one supplier's feed for one tenant.

    Fetching is sequential, because only a page that was read has the cursor of the next one. Transforming runs in
    parallel. Syncing is in the feed's order, so that of rows with the same SKU always the same one wins.
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
        """Run the harvest, or the part of it that fits into one history."""
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
        """Return the progress."""
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
        """Stop fetching pages."""
        self._state.paused = True

    def resume(self) -> None:
        """Continue fetching."""
        self._state.paused = False

    def set_page_size(self, request: SetPageSizeRequest) -> SetPageSizeResponse:
        """Change the size of later pages."""
        previous, self._state.page_size = self._page_size, request.page_size
        return SetPageSizeResponse(previous_page_size=previous)

    def validate_set_page_size(self, request: SetPageSizeRequest) -> None:
        """Reject a size if there are no later pages; the contract limits the size."""
        if self._stage in (HarvestStage.FINISHING, HarvestStage.DONE):
            raise ValueError("all pages are fetched, so the page size cannot change any more")

    async def _flow(self) -> SyncToBrainResponse | None:
        """Process pages until the harvest ends, or the run is long enough.

        Returns:
            The answer to the sync of the last page, or its replacement if the feed is unchanged; None if pages are left
            for another run.
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
                    # Nothing was read, so transform and sync nothing; the activity has ended the harvest.
                    self._unchanged, self._state.counts = True, fetched.standing
                    return SyncToBrainResponse(catalogue=fetched.catalogue, on_finished=fetched.on_finished)
                over = fetched.end_of_feed or self._trial_is_over()
                pages += 1
                self._in_flight += 1
                sync = SyncToBrainRequest(page=page, last=over, complete=fetched.end_of_feed)
                sync.allow_delisting = over and self._request.allow_delisting
                syncing = asyncio.create_task(self._process(sync, fetched, syncing))
        except (Exception, asyncio.CancelledError):
            # Finish pages in flight even if fetching the next one failed; report their own failure first.
            # Not in a `finally`: it also runs when the workflow is evicted from the cache, where it must not wait.
            if syncing is not None:
                await syncing
            raise
        last = await syncing if syncing is not None else None
        return last if over else None

    async def _notify(self, workflow_type: str) -> None:
        """Signal the workflow of `on_finished`. A failure does not fail the harvest."""
        try:
            await contract.notify_finished(NotifyFinishedRequest())
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("%r could not be signalled after the harvest: %s", workflow_type, error.cause)

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
        # SetPageSize during the fetch of the first page overrides that page's size.
        state.page_size = state.page_size or fetched.page_size
        state.next_page += 1
        self._entries += fetched.entries
        if not state.incomplete:
            state.incomplete, state.incomplete_detail = fetched.incomplete, fetched.incomplete_detail
        self._counts.pages += 1
        self._counts.fetched += fetched.fetched
        return fetched

    async def _fetch_in_turn(self, request: FetchProductsRequest) -> FetchProductsResponse:
        """Fetch a page; if the tenant is at its limit of harvests, wait for the turn first."""
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
        """Transform a fetched page, and sync it after the page before."""
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
        """Return the current page size; 0 before the first page returns the supplier's setting, unless requested."""
        return self._state.page_size or self._request.page_size

    @property
    def _counts(self) -> HarvestCounts:
        if self._state.counts is None:
            self._state.counts = HarvestCounts()
        return self._state.counts


@final
class ListRejectedWorkflow(contract.ListRejectedWorkflowBase):
    """List one page of the rows that a harvest rejected."""

    async def run(self, request: ListRejectedRequest) -> ListRejectedResponse:
        """Read the page in an activity, where the catalogue is."""
        read = await contract.read_rejected(ReadRejectedRequest(query=request))
        return read.page if read.page is not None else ListRejectedResponse()
