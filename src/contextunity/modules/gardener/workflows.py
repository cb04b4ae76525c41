"""The workflows `gardener`, which keeps a tenant's products enriched, and `enrich`, which enriches some once.

Products are listed by harvest's activity, a few batches at once, enriched by ours, batch by batch, and written by
harvest's, again a few batches at once. Listing is sequential, since only a page tells where the next one begins; the
rest runs beside it. What is made and not written yet is in the history, so a worker's death loses none of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Sequence
from datetime import timedelta
from typing import final

from contextunity.gen.contextunity.gardener.v1 import (
    EnrichBatchRequest,
    EnrichRequest,
    EnrichResponse,
    GardenerProgress,
    GardenerRequest,
    GardenerResponse,
    GardenerStage,
    GardenerState,
    GetRulesRequest,
    SetBatchSizeRequest,
    SetBatchSizeResponse,
)
from contextunity.gen.contextunity.gardener.v1 import gardener_temporal as contract
from contextunity.gen.contextunity.harvest.v1 import (
    ListForEnrichmentRequest,
    PackedEnrichments,
    PackedProducts,
    WriteEnrichmentsRequest,
)
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal as harvest
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

from contextunity.core import context
from contextunity.worker.temporal.concurrency import retry_until_free

__all__ = ["EnrichWorkflow", "GardenerWorkflow"]

_BATCH_SIZE, _PARALLEL_BATCHES, _RETRY_MAX = 50, 2, 3
_POLL_INTERVAL = timedelta(seconds=900)
_BATCHES_A_PAGE, _MAX_PAGE = 10, 1000
_PAGES_AT_ONCE = 5
"""Pages that one activity lists, and one writes, where rules enrich: for one page, turns of the server take as long as
the rules do."""
_PIPELINE = "gardener-rules-pipeline"
"""Patch: histories without it take one page at a time, and enrich it in a local activity, during which a workflow can
neither list nor write."""
_MAX_WRITES, _MAX_WRITTEN_BYTES = 2, 512 * 1024
_MAX_SENT_BYTES = 1024 * 1024
"""Of batches that are being enriched. What a workflow task begins goes to the server in one message of up to 4 MiB."""
_BATCHES_PER_RUN = 200
"""Batches after which a workflow continues as new: some 10 events each keep a history far below Temporal's limits.
Batches that are large in bytes are bounded by what the server suggests."""
_LOOKS_PER_RUN = 50
_MAX_ERROR = 500
_DEFAULT_TENANT = "default"


class _Flow:
    """Takes products through listing, enriching and writing, look by look.

    Args:
        state: where an earlier run left off; changed as it goes.
        parallel_batches: enriched at once.
        retry_max: attempts at enriching a batch.
        supplier_code: whose products alone; empty for all.
        skus: which alone; empty for all.
        force: whether also those that are enriched already.
    """

    def __init__(
        self,
        state: GardenerState,
        *,
        parallel_batches: int,
        retry_max: int,
        supplier_code: str = "",
        skus: Sequence[str] = (),
        force: bool = False,
    ) -> None:
        self.state = state
        self.ending = False
        self._parallel_batches = parallel_batches
        declared = contract.enrich_batch.contract.retry_policy
        assert declared is not None
        self._retry_policy = dataclasses.replace(declared, maximum_attempts=retry_max)
        self._supplier_code, self._skus, self._force = supplier_code, skus, force
        self._listed = list[PackedProducts]()
        self._listing: asyncio.Task[bool] | None = None
        self._under_way = list[asyncio.Task[None]]()
        self._writing = list[asyncio.Task[None]]()
        self._made = dict[str, list[PackedEnrichments]]()
        self._is_quick = self._is_local = False
        self._pages, self._sent_bytes = 1, 0
        self._batches = self._looks = 0

    @property
    def progress(self) -> GardenerProgress:
        """What was done so far, as it is kept."""
        assert self.state.progress is not None
        return self.state.progress

    @property
    def run_is_long(self) -> bool:
        """Whether the workflow is to continue as new."""
        return (
            self._batches >= _BATCHES_PER_RUN
            or self._looks >= _LOOKS_PER_RUN
            or workflow.info().is_continue_as_new_suggested()
        )

    async def look(self) -> bool:
        """Enriches what is to be enriched, or the part of it that fits one history.

        Returns:
            Whether the look is over; else a further run goes on with it.

        Raises:
            ActivityError: products cannot be listed. Batches at hand are finished then, as they are on cancellation.
        """
        try:
            over = await self._go()
        except (Exception, asyncio.CancelledError) as error:
            # Not in a `finally`: a workflow that leaves the worker's memory is closed there, and must not wait.
            self.ending = self.ending or is_cancelled_exception(error)
            await self._finish()
            raise
        await self._finish()
        self.state.looking = not over
        return over

    async def _go(self) -> bool:
        state, progress = self.state, self.progress
        if not state.looking:
            state.looking, state.again, state.cursor = True, False, None
            progress.looks += 1
            progress.due = progress.done = 0
        self._looks += 1
        rules = await contract.get_rules(GetRulesRequest())
        progress.rules_version, self._is_quick = rules.version, rules.quick
        self._is_local = rules.quick and not workflow.patched(_PIPELINE)
        self._pages = _PAGES_AT_ONCE if rules.quick and not self._is_local else 1
        over = False
        while True:
            if self._listing is None and not over and self._may_list():
                self._listing = asyncio.create_task(self._list())
            await workflow.wait_condition(functools.partial(self._has_something_to_do, over))
            self._reap()
            if self._listing is not None and self._listing.done():
                over, self._listing = self._listing.result(), None
            elif self._is_at_rest():
                await self._write(1)
            elif self._listed:
                self._begin()
            elif over or self.run_is_long:
                return over

    def _may_list(self) -> bool:
        """Whether to list further products: there is always a page to go on with, but for the end of a run."""
        return _count(self._listed) < self._page_size and not self.state.paused and not self.run_is_long

    def _has_something_to_do(self, over: bool) -> bool:
        if self._listing is not None and self._listing.done():
            return True
        if self._listed:
            return self._may_begin() or self._is_at_rest()
        return self._is_at_rest() or (self._listing is None and (over or not self.state.paused))

    async def _list(self) -> bool:
        """Lists the products of the next batches; whether they are the last ones."""
        state, progress = self.state, self.progress
        page = await harvest.list_for_enrichment(
            ListForEnrichmentRequest(
                supplier_code=self._supplier_code,
                skus=[*self._skus],
                rules_version=progress.rules_version,
                force=self._force,
                after=state.cursor,
                limit=min(_MAX_PAGE, self._page_size),
                # The rules take a page at once, as a batch costs more than they do.
                batch_size=_MAX_PAGE if self._is_quick else progress.batch_size,
                pages=self._pages,
            )
        )
        if state.cursor is None:
            # Told with the first page alone.
            progress.due = page.due
        self._listed += page.batches
        state.cursor = page.next
        return page.next is None

    def _begin(self) -> None:
        """Begins with the next batch."""
        self._batches += 1
        products = self._listed.pop(0)
        self._sent_bytes += len(products.data)
        self._under_way.append(asyncio.create_task(self._process(products)))

    async def _process(self, products: PackedProducts) -> None:
        """Enriches one batch, and has it written when enough are made; where that fails, the others go on."""
        progress, request = self.progress, EnrichBatchRequest(products=products)
        progress.batches += 1
        try:
            if self._is_local:
                made = await contract.enrich_batch.local(request, retry_policy=self._retry_policy)
            else:
                made = await retry_until_free(lambda: contract.enrich_batch(request, retry_policy=self._retry_policy))
        except FailureError as error:
            # A local activity's failure comes as it is, any other's in an ActivityError.
            self._failed(products.count, error)
            return
        finally:
            self._sent_bytes -= len(products.data)
        if made.metrics is not None:
            progress.cost_usd += made.metrics.cost_usd
            progress.tokens_used += made.metrics.tokens_used
        if made.enrichments is not None:
            self._made.setdefault(made.rules_version, []).append(made.enrichments)
        # Not here: the next batch need not wait for it.
        self._writing.append(asyncio.create_task(self._write(self._page_size)))

    async def _write(self, least: int) -> None:
        """Writes what is made by the same rules, where there are so many, or it takes much room."""
        enough = [version for version, made in self._made.items() if _count(made) >= least or not self._is_room(made)]
        for version in enough:
            made = self._made.pop(version)
            while made:
                some = [made.pop(0)]
                while made and _count(some) + made[0].count <= _MAX_PAGE * self._pages and self._is_room(some):
                    some.append(made.pop(0))
                try:
                    written = await harvest.write_enrichments(
                        WriteEnrichmentsRequest(batches=some, rules_version=version)
                    )
                except FailureError as error:
                    self._failed(_count(some), error)
                else:
                    self.progress.enriched += written.written
                    self.progress.done += _count(some)

    def _is_room(self, made: Sequence[PackedEnrichments]) -> bool:
        """Whether more can be written with these."""
        # One page always goes in one activity, as it did in histories from before there were several.
        return self._pages == 1 or sum(len(batch.data) for batch in made) < _MAX_WRITTEN_BYTES

    def _failed(self, products: int, error: FailureError) -> None:
        self.progress.failed += products
        self.progress.done += products
        self.progress.last_error = _told(error)

    async def _finish(self) -> None:
        """Waits for the batches at hand, and has written what is made."""
        if self._listing is not None:
            self._listing.cancel()
        tasks = [*self._under_way, *self._writing, *filter(None, [self._listing])]
        await workflow.wait_condition(lambda: all(task.done() for task in tasks))
        # What a batch that was at hand gives to write comes on top.
        await workflow.wait_condition(lambda: all(task.done() for task in self._writing))
        self._reap()
        self._listing, self._listed = None, []
        await self._write(1)

    def _reap(self) -> None:
        """Takes out the batches that are over; what went wrong with their code goes wrong here."""
        over = [task for task in (*self._under_way, *self._writing) if task.done()]
        self._under_way = [task for task in self._under_way if not task.done()]
        self._writing = [task for task in self._writing if not task.done()]
        for task in over:
            task.result()

    def _may_begin(self) -> bool:
        under_way, writing = (sum(not task.done() for task in tasks) for tasks in (self._under_way, self._writing))
        is_room = self._pages == 1 or self._sent_bytes < _MAX_SENT_BYTES
        return under_way < self._parallel_batches and writing < _MAX_WRITES and is_room and not self.state.paused

    def _is_at_rest(self) -> bool:
        """Whether it is paused, and nothing is at hand but to write what is made."""
        at_hand = any(not task.done() for task in (*self._under_way, *self._writing))
        return self.state.paused and not at_hand and bool(self._made)

    @property
    def _page_size(self) -> int:
        """Products that are listed and written by one activity: of a few batches, which spares the server much."""
        return _MAX_PAGE * self._pages if self._is_quick else min(_MAX_PAGE, _BATCHES_A_PAGE * self.progress.batch_size)


def _count(batches: Sequence[PackedEnrichments | PackedProducts]) -> int:
    return sum(batch.count for batch in batches)


def _told(error: FailureError) -> str:
    """Why an activity failed, in one line."""
    reason = error.cause if isinstance(error, ActivityError) else error
    if isinstance(reason, ApplicationError):
        return f"{reason.type}: {reason.message}"[:_MAX_ERROR]
    return str(reason or error)[:_MAX_ERROR]


def _check_tenant(tenant_id: str) -> None:
    """Refuses a task whose input names another tenant than the one that it is run for.

    Activities go by the latter, so it would do its work, and not where its id says.

    Raises:
        ApplicationError: TenantMismatch.
    """
    own = context.current().tenant_id or _DEFAULT_TENANT
    if (tenant_id or _DEFAULT_TENANT) != own:
        raise ApplicationError(
            f"tenant_id is {tenant_id!r}, but the task is run for the tenant {own!r}; start it for one of the two",
            type="TenantMismatch",
            non_retryable=True,
        )


def _state(resume: GardenerState | None, batch_size: int) -> GardenerState:
    if resume is not None and resume.progress is not None:
        return resume
    return GardenerState(
        progress=GardenerProgress(batch_size=batch_size or _BATCH_SIZE, started_at=workflow.now()),
    )


@final
class GardenerWorkflow(contract.GardenerWorkflowBase):
    """Keeps a tenant's products enriched until it is cancelled."""

    @workflow.init
    def __init__(self, request: GardenerRequest) -> None:
        self._state = _state(request.resume, request.batch_size)
        self._resting = False
        self._flow = _Flow(
            self._state,
            parallel_batches=request.parallel_batches or _PARALLEL_BATCHES,
            retry_max=request.retry_max or _RETRY_MAX,
        )

    async def run(self, request: GardenerRequest) -> GardenerResponse:
        """Looks for products, and rests, until it is cancelled or its history is long."""
        _check_tenant(request.tenant_id)
        while True:
            over = await self._look()
            if self._flow.run_is_long:
                break
            if over:
                await self._rest(request.poll_interval or _POLL_INTERVAL)
        await workflow.wait_condition(workflow.all_handlers_finished)
        contract.gardener_workflow.continue_as_new(
            GardenerRequest(
                tenant_id=request.tenant_id,
                batch_size=request.batch_size,
                parallel_batches=request.parallel_batches,
                poll_interval=request.poll_interval,
                retry_max=request.retry_max,
                resume=self._state,
            )
        )

    async def _look(self) -> bool:
        try:
            return await self._flow.look()
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            # It lives for years, and a catalogue that is gone for an hour must not end it.
            self._state.looking, self._state.cursor = False, None
            self._flow.progress.last_error = _told(error)
            return True

    async def _rest(self, poll_interval: timedelta) -> None:
        self._resting = True
        try:
            await workflow.wait_condition(lambda: self._state.again, timeout=poll_interval)
        except TimeoutError:
            pass
        finally:
            self._resting = False

    def get_progress(self) -> GardenerProgress:
        """Tells what was done so far."""
        stage = GardenerStage.WAITING if self._resting else GardenerStage.RUNNING
        if self._state.paused:
            stage = GardenerStage.PAUSED
        if self._flow.ending:
            stage = GardenerStage.ENDING
        return dataclasses.replace(self._flow.progress, stage=stage)

    def pause(self) -> None:
        """Begins no further batches."""
        self._state.paused = True

    def resume(self) -> None:
        """Goes on."""
        self._state.paused = False

    def run_now(self) -> None:
        """Looks for products now; while a look is at hand, once more after it, as it may be past what is new."""
        self._state.again = True

    def set_batch_size(self, request: SetBatchSizeRequest) -> SetBatchSizeResponse:
        """Changes the size of the batches to come."""
        progress = self._flow.progress
        previous, progress.batch_size = progress.batch_size, request.batch_size
        return SetBatchSizeResponse(previous_batch_size=previous)

    def validate_set_batch_size(self, request: SetBatchSizeRequest) -> None:
        """Refuses a size where there are no batches to come; which sizes there are, the contract says."""
        if self._flow.ending:
            raise ValueError("the gardener is ending, so there is no batch to give another size")


@final
class EnrichWorkflow(contract.EnrichWorkflowBase):
    """Enriches products of a supplier, or SKUs, once."""

    @workflow.init
    def __init__(self, request: EnrichRequest) -> None:
        self._state = _state(request.resume, request.batch_size)
        self._done = False
        self._flow = _Flow(
            self._state,
            parallel_batches=request.parallel_batches or _PARALLEL_BATCHES,
            retry_max=request.retry_max or _RETRY_MAX,
            supplier_code=request.supplier_code,
            skus=request.skus,
            force=request.force,
        )

    async def run(self, request: EnrichRequest) -> EnrichResponse:
        """Enriches them, or the part of them that fits one history."""
        _check_tenant(request.tenant_id)
        if not await self._flow.look():
            contract.enrich_workflow.continue_as_new(
                EnrichRequest(
                    tenant_id=request.tenant_id,
                    supplier_code=request.supplier_code,
                    skus=request.skus,
                    force=request.force,
                    batch_size=request.batch_size,
                    parallel_batches=request.parallel_batches,
                    retry_max=request.retry_max,
                    resume=self._state,
                )
            )
        self._done = True
        progress = self._flow.progress
        return EnrichResponse(
            enriched=progress.enriched,
            failed=progress.failed,
            last_error=progress.last_error,
            cost_usd=progress.cost_usd,
            tokens_used=progress.tokens_used,
            rules_version=progress.rules_version,
        )

    def get_progress(self) -> GardenerProgress:
        """Tells what was done so far."""
        stage = GardenerStage.ENDING if self._flow.ending else GardenerStage.RUNNING
        return dataclasses.replace(self._flow.progress, stage=GardenerStage.DONE if self._done else stage)
