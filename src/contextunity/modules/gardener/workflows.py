"""The workflow `gardener`, which keeps a tenant's products enriched, and `enrich`, which enriches some of them once.

An activity of harvest lists products, several batches at once; an activity of this module enriches each batch; another
one of harvest writes the results, again several batches at once. Listing is sequential, because only a page contains
the start of the next one; the rest runs concurrently. Unwritten results are in the history, so they survive a worker.
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
"""Pages that one activity lists or writes with rules: for a single page, the server's overhead is as large as the
rules' own time."""
_PIPELINE = "gardener-rules-pipeline"
"""Patch: histories without it take one page at a time, and enrich it in a local activity, during which the workflow can
neither list nor write."""
_MAX_WRITES, _MAX_WRITTEN_BYTES = 2, 512 * 1024
_MAX_SENT_BYTES = 1024 * 1024
"""Bytes of batches being enriched. The commands of a workflow task go to the server in a message of up to 4 MiB."""
_BATCHES_PER_RUN = 200
"""Batches after which a workflow continues as new: about 10 events each keep a history far below Temporal's limits.
For batches with many bytes, the server's suggestion is the limit."""
_LOOKS_PER_RUN = 50
_MAX_ERROR = 500
_DEFAULT_TENANT = "default"


class _Flow:
    """Lists, enriches and writes products, round by round.

    Args:
        state: state of the earlier run; modified.
        parallel_batches: number of batches enriched at once.
        retry_max: attempts to enrich a batch.
        supplier_code: supplier of the products; empty for all.
        skus: SKUs of the products; empty for all.
        force: whether to enrich unchanged products again.
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
        """The progress of the state."""
        assert self.state.progress is not None
        return self.state.progress

    @property
    def run_is_long(self) -> bool:
        """Whether the workflow must continue as new."""
        return (
            self._batches >= _BATCHES_PER_RUN
            or self._looks >= _LOOKS_PER_RUN
            or workflow.info().is_continue_as_new_suggested()
        )

    async def look(self) -> bool:
        """Enrich the due products, or those that fit into one history.

        Returns:
            Whether the round is complete; otherwise a further run continues it.

        Raises:
            ActivityError: products cannot be listed. Running batches are completed first, as on cancellation.
        """
        try:
            over = await self._go()
        except (Exception, asyncio.CancelledError) as error:
            # Not in `finally`: an evicted workflow is closed there, and must not wait.
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
        """Return whether to list further products, which is only possible before the end of a round."""
        return _count(self._listed) < self._page_size and not self.state.paused and not self.run_is_long

    def _has_something_to_do(self, over: bool) -> bool:
        if self._listing is not None and self._listing.done():
            return True
        if self._listed:
            return self._may_begin() or self._is_at_rest()
        return self._is_at_rest() or (self._listing is None and (over or not self.state.paused))

    async def _list(self) -> bool:
        """List the products of the next batches; return whether they are the last ones."""
        state, progress = self.state, self.progress
        page = await harvest.list_for_enrichment(
            ListForEnrichmentRequest(
                supplier_code=self._supplier_code,
                skus=[*self._skus],
                rules_version=progress.rules_version,
                force=self._force,
                after=state.cursor,
                limit=min(_MAX_PAGE, self._page_size),
                # Rules get a whole page, because a batch costs more than applying them.
                batch_size=_MAX_PAGE if self._is_quick else progress.batch_size,
                pages=self._pages,
            )
        )
        if state.cursor is None:
            # Only the first page has it.
            progress.due = page.due
        self._listed += page.batches
        state.cursor = page.next
        return page.next is None

    def _begin(self) -> None:
        """Start the next batch."""
        self._batches += 1
        products = self._listed.pop(0)
        self._sent_bytes += len(products.data)
        self._under_way.append(asyncio.create_task(self._process(products)))

    async def _process(self, products: PackedProducts) -> None:
        """Enrich a batch, and write results if there are enough; if a batch fails, the others continue."""
        progress, request = self.progress, EnrichBatchRequest(products=products)
        progress.batches += 1
        try:
            if self._is_local:
                made = await contract.enrich_batch.local(request, retry_policy=self._retry_policy)
            else:
                made = await retry_until_free(lambda: contract.enrich_batch(request, retry_policy=self._retry_policy))
        except FailureError as error:
            # The failure of a local activity is direct; any other is in an ActivityError.
            self._failed(products.count, error)
            return
        finally:
            self._sent_bytes -= len(products.data)
        if made.metrics is not None:
            progress.cost_usd += made.metrics.cost_usd
            progress.tokens_used += made.metrics.tokens_used
        if made.enrichments is not None:
            self._made.setdefault(made.rules_version, []).append(made.enrichments)
        # Written by another task, so that the next batch does not wait.
        self._writing.append(asyncio.create_task(self._write(self._page_size)))

    async def _write(self, least: int) -> None:
        """Write the results of the same rules, if there are many, or if they are large."""
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
        """Return whether more results fit into the write."""
        # A single page always fits into an activity, as in histories before there were several.
        return self._pages == 1 or sum(len(batch.data) for batch in made) < _MAX_WRITTEN_BYTES

    def _failed(self, products: int, error: FailureError) -> None:
        self.progress.failed += products
        self.progress.done += products
        self.progress.last_error = _told(error)

    async def _finish(self) -> None:
        """Wait for the running batches, and write all results."""
        if self._listing is not None:
            self._listing.cancel()
        tasks = [*self._under_way, *self._writing, *filter(None, [self._listing])]
        await workflow.wait_condition(lambda: all(task.done() for task in tasks))
        # Running batches add their results.
        await workflow.wait_condition(lambda: all(task.done() for task in self._writing))
        self._reap()
        self._listing, self._listed = None, []
        await self._write(1)

    def _reap(self) -> None:
        """Remove completed batches; an exception in their code is raised here."""
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
        """Return whether it is paused, and there is nothing to do except writing."""
        at_hand = any(not task.done() for task in (*self._under_way, *self._writing))
        return self.state.paused and not at_hand and bool(self._made)

    @property
    def _page_size(self) -> int:
        """Maximum products per activity that lists or writes: several batches reduce the server's load."""
        return _MAX_PAGE * self._pages if self._is_quick else min(_MAX_PAGE, _BATCHES_A_PAGE * self.progress.batch_size)


def _count(batches: Sequence[PackedEnrichments | PackedProducts]) -> int:
    return sum(batch.count for batch in batches)


def _told(error: FailureError) -> str:
    """Return the reason of an activity's failure on one line."""
    reason = error.cause if isinstance(error, ActivityError) else error
    if isinstance(reason, ApplicationError):
        return f"{reason.type}: {reason.message}"[:_MAX_ERROR]
    return str(reason or error)[:_MAX_ERROR]


def _check_tenant(tenant_id: str) -> None:
    """Reject a task whose input has another tenant than the task itself.

    Activities use the task's tenant, so the products would not be those that the workflow id suggests.

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
    """Keeps a tenant's products enriched until cancellation."""

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
        """Run rounds with pauses between them, until cancellation or until the history is long."""
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
            # It runs for years, and must survive an hour without the catalogue.
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
        """Return the progress."""
        stage = GardenerStage.WAITING if self._resting else GardenerStage.RUNNING
        if self._state.paused:
            stage = GardenerStage.PAUSED
        if self._flow.ending:
            stage = GardenerStage.ENDING
        return dataclasses.replace(self._flow.progress, stage=stage)

    def pause(self) -> None:
        """Start no further batches."""
        self._state.paused = True

    def resume(self) -> None:
        """Continue."""
        self._state.paused = False

    def run_now(self) -> None:
        """Start a round now; during a round, start another one after it, because it may have passed new products."""
        self._state.again = True

    def set_batch_size(self, request: SetBatchSizeRequest) -> SetBatchSizeResponse:
        """Change the size of later batches."""
        progress = self._flow.progress
        previous, progress.batch_size = progress.batch_size, request.batch_size
        return SetBatchSizeResponse(previous_batch_size=previous)

    def validate_set_batch_size(self, request: SetBatchSizeRequest) -> None:
        """Reject a size if there will be no further batches; the contract limits the size itself."""
        if self._flow.ending:
            raise ValueError("the gardener is ending, so there are no further batches whose size could change")


@final
class EnrichWorkflow(contract.EnrichWorkflowBase):
    """Enriches products of a supplier, or some SKUs, once."""

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
        """Enrich them, or those that fit into one history."""
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
        """Return the progress."""
        stage = GardenerStage.ENDING if self._flow.ending else GardenerStage.RUNNING
        return dataclasses.replace(self._flow.progress, stage=GardenerStage.DONE if self._done else stage)
