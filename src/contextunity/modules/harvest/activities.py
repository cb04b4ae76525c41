"""The activities of the harvest module: generated dataclasses in and out, safe to repeat at any time.

A payload says what to do, but is not trusted as a fact: URL, format and currency of a feed come from the settings, and
the payload's data about the harvest are compared with the catalogue's records.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from contextunity.gen.contextunity.harvest.v1 import (
    Enrichment,
    Feed,
    FeedCursor,
    FetchProductsRequest,
    FetchProductsResponse,
    HarvestCounts,
    HarvestIncomplete,
    ListForEnrichmentRequest,
    ListForEnrichmentResponse,
    ListOfEnrichments,
    ListOfProductsToEnrich,
    ListRejectedResponse,
    NotifyFinishedRequest,
    NotifyFinishedResponse,
    PackedProducts,
    PageRef,
    ProductToEnrich,
    RawPage,
    ReadRejectedRequest,
    ReadRejectedResponse,
    SyncToBrainRequest,
    SyncToBrainResponse,
    TakeTurnRequest,
    TakeTurnResponse,
    TransformDataRequest,
    TransformDataResponse,
    WriteEnrichmentsRequest,
    WriteEnrichmentsResponse,
)
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal as contract
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError

from contextunity.core import CodecError, context, validation
from contextunity.core.packing import pack, unpack
from contextunity.worker.metrics import FEED_REJECTS_TOTAL, FEED_ROWS_TOTAL, FEED_WARNINGS_TOTAL
from contextunity.worker.quotas import EgressBudgetError, note, on_budget
from contextunity.worker.temporal.errors import is_not_found

from .catalogue import CatalogueError, CurrentReading, FetchedFrom, HarvestMismatch, PageGone
from .catalogue.enrichments import Wanted
from .errors import HARVESTS_TAKEN, FeedChangedError, FeedUnreachableError, HarvestError, shown_url
from .feeds import FeedUnchangedError, KnownVersion, open_feed, read_page
from .resources import Resources, current
from .transform import clean_text, sale_dates, transform_page

_Value = TypeVar("_Value")

__all__ = [
    "fetch_products",
    "list_for_enrichment",
    "notify_finished",
    "read_rejected",
    "sync_to_brain",
    "take_turn",
    "transform_data",
    "write_enrichments",
]

_MAX_RETRY_SECONDS = 3600.0
"""Maximum delay of a Retry-After; after it the request is repeated even if the server asked for more."""
_TEMPORAL_TIMEOUT = timedelta(seconds=10)
_DEFAULT_TENANT = "default"
_REJECTED_ROWS = 100
"""Of a page of rejected rows for which nobody asked for another number."""
_MAX_LISTED_BYTES = 768 * 1024
"""Packed, after which an answer has no further page: Temporal takes 2 MiB, and a page that does not shrink has 1."""
_PAGE_TOKEN = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})\.(.+)")
_ALWAYS_DELISTED = 10
"""Products that may always be marked at once, whatever their share: a small feed changes by large shares."""
_BROKEN_ATTEMPTS = 3
"""Attempt from which a truncated feed is accepted: a connection that ends early mostly works on a retry."""
_BROKEN_OFF = "the connection ended before the feed did, on several attempts; check the supplier's server"
_LENGTH_UNKNOWN = (
    "the server sends neither the length nor the end of the feed, so it may be truncated; make it send a "
    "Content-Length, or the feed as XML"
)
_FIRST_LOOK_ATTEMPTS = 5
"""Attempts for a feed that was never reached: it is more likely misconfigured than down, so fail sooner."""


@contract.take_turn.defn
async def take_turn(request: TakeTurnRequest) -> TakeTurnResponse:
    """Give a harvest its turn, or fail so that the Temporal server retries: nothing is held while it waits."""
    await _take_turn(current(), request.tenant_id, request.harvest_id, final=False)
    return TakeTurnResponse()


async def _take_turn(resources: Resources, tenant_id: str, harvest_id: str, *, final: bool) -> None:
    """Put a harvest into its tenant's queue.

    Args:
        resources: resources of the worker.
        tenant_id: tenant of the harvest.
        harvest_id: id of the harvest.
        final: whether the workflow retries, and not the Temporal server.

    Raises:
        ApplicationError: HARVESTS_TAKEN; it is not its turn yet.
    """
    limit, client = resources.quotas.of(tenant_id).harvests, None
    with _as_application_error():
        while True:
            turn = await asyncio.to_thread(
                resources.catalogue.take_turn, tenant_id, harvest_id, _workflow_id(), limit=limit
            )
            if turn.granted:
                return
            client = client or (activity.client() if turn.to_check else None)
            over = [each for each, of in turn.to_check if client is not None and await _is_over(client, of, each)]
            for each in over:
                await asyncio.to_thread(resources.catalogue.end_turn, tenant_id, each)
            if not over:
                break
    if final:
        # Log it once: the retries may last hours.
        note("harvests", limit, tenant_id, "fetch_products", "waits for its turn, over the quota")
    raise ApplicationError(
        f"the harvest waits for its turn: {turn.ahead} of the tenant {tenant_id!r} came before it, and its quota "
        f"harvests = {limit} limits concurrent ones; it starts automatically",
        type=HARVESTS_TAKEN,
        non_retryable=final,
        category=ApplicationErrorCategory.BENIGN,
    )


async def _is_over(client: Client, workflow_id: str, harvest_id: str) -> bool:
    """Return whether the workflow of a harvest has ended, with any result."""
    try:
        description = await client.workflow_service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(
                namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id)
            ),
            retry=True,
            timeout=_TEMPORAL_TIMEOUT,
        )
    except RPCError as error:
        if is_not_found(error):
            return True
        raise
    info = description.workflow_execution_info
    running = info.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
    # The id of a harvest is its first run; older servers do not return that for a later run.
    return not running or info.first_run_id not in ("", harvest_id)


@contract.fetch_products.defn
async def fetch_products(request: FetchProductsRequest) -> FetchProductsResponse:
    """Fetch one page and stage its rows; the first call inspects the feed first."""
    resources, workflow_id = current(), _workflow_id()
    catalogue, page = resources.catalogue, _required(request.page, "page")
    attempts = 0 if request.feed is not None else _FIRST_LOOK_ATTEMPTS
    if request.in_turn:
        await _take_turn(resources, page.tenant_id, page.harvest_id, final=True)
    with (
        resources.fetches.hold(tenant=page.tenant_id, supplier=page.supplier_code),
        _as_application_error(attempts=attempts),
        on_budget(resources.quotas, page.tenant_id, "fetch_products"),
    ):
        used = await asyncio.to_thread(catalogue.check_fetch, page, workflow_id, request.feed, request.cursor)
        began = time.monotonic()
        feed, cursor = request.feed, request.cursor
        looked = feed is None or cursor is None
        read_by = resources.read_by(page.supplier_code)
        if feed is None or cursor is None:
            standing: CurrentReading | None = None
            if request.if_changed and not request.max_entries:
                standing = await asyncio.to_thread(catalogue.find_current_reading, page, workflow_id, read_by)
            if standing is not None and standing.newest == page.harvest_id:
                return await asyncio.to_thread(_finish_unchanged, resources, page, workflow_id, standing)
            try:
                feed, cursor = await _open_feed(resources, page.supplier_code, standing)
            except FeedUnchangedError:
                assert standing is not None
                return await asyncio.to_thread(_finish_unchanged, resources, page, workflow_id, standing)
        else:
            feed = _as_configured(resources, page.supplier_code, feed)
        page_size = request.page_size or resources.supplier(page.supplier_code).page_size
        fetched = await read_page(
            await resources.client(page.supplier_code),
            dataclasses.replace(feed, url=await resources.reachable_url(feed.url)),
            cursor,
            min(page_size, request.max_entries or page_size),
            spool_folder=resources.spool_folder,
            feed_folders=resources.settings.feed_folders,
            bounds=dataclasses.replace(resources.supplier(page.supplier_code).bounds(), used_seconds=used),
            accept_broken=activity.info().attempt >= _BROKEN_ATTEMPTS,
        )
        incomplete, detail = fetched.incomplete, fetched.incomplete_detail
        if looked and feed.incomplete:
            # Never trust the payload for it.
            broken = feed.incomplete is HarvestIncomplete.BROKEN_OFF
            incomplete, detail = feed.incomplete, _BROKEN_OFF if broken else _LENGTH_UNKNOWN
        fetched_from = FetchedFrom(
            workflow_id=workflow_id,
            feed=_for_history(feed),
            end=fetched.next_cursor,
            end_of_feed=fetched.end_of_feed,
            seconds=time.monotonic() - began,
            incomplete=incomplete,
            incomplete_detail=detail,
            read_by=read_by,
        )
        await asyncio.to_thread(catalogue.put_raw_page, page, fetched.page, fetched_from)
    rows = len(fetched.page.products) + len(fetched.page.rejected)
    FEED_ROWS_TOTAL.add(rows, supplier=page.supplier_code, tenant=page.tenant_id)
    return FetchProductsResponse(
        # The request's data are in the history already, and would be repeated for each page.
        feed=_for_history(feed) if looked else None,
        next_cursor=fetched.next_cursor,
        end_of_feed=fetched.end_of_feed,
        fetched=rows,
        entries=fetched.entries,
        page_size=page_size,
        incomplete=incomplete,
        incomplete_detail=detail,
    )


def _finish_unchanged(
    resources: Resources, page: PageRef, workflow_id: str, standing: CurrentReading
) -> FetchProductsResponse:
    """End a harvest that found the feed unchanged."""
    totals = resources.catalogue.finish_unchanged(page, workflow_id, standing)
    return FetchProductsResponse(
        end_of_feed=True,
        page_size=resources.supplier(page.supplier_code).page_size,
        standing=HarvestCounts(
            unchanged=totals.created + totals.changed + totals.unchanged,
            rejected=totals.rejected,
            warnings=totals.warnings,
        ),
        catalogue=resources.catalogue.url_for_display,
        on_finished=_on_finished(resources),
    )


async def _open_feed(
    resources: Resources, supplier_code: str, standing: CurrentReading | None
) -> tuple[Feed, FeedCursor]:
    source = resources.source(supplier_code)
    reachable = dataclasses.replace(source, url=await resources.reachable_url(source.url))
    feed, cursor = await open_feed(
        await resources.client(supplier_code),
        reachable,
        spool_folder=resources.spool_folder,
        feed_folders=resources.settings.feed_folders,
        bounds=resources.supplier(supplier_code).bounds(),
        accept_broken=activity.info().attempt >= _BROKEN_ATTEMPTS,
        known=None if standing is None else KnownVersion(version=standing.version, read_at=standing.read_at),
    )
    feed.url = source.url
    return feed, cursor


def _for_history(feed: Feed) -> Feed:
    """Return the feed for payloads and the catalogue: its address without user, password and query."""
    return dataclasses.replace(feed, url=shown_url(feed.url))


def _as_configured(resources: Resources, supplier_code: str, feed: Feed) -> Feed:
    """Return the feed with the URL and currency in the supplier's current settings.

    Raises:
        SupplierUnknownError: the supplier is no longer configured.
        FeedChangedError: another format is configured now.
    """
    source = resources.source(supplier_code)
    if source.format is not None and source.format is not feed.format:
        raise FeedChangedError(source.url, expected=f"format {feed.format.name}", seen=f"format {source.format.name}")
    return dataclasses.replace(feed, supplier_code=supplier_code, url=source.url, currency_code=source.currency_code)


@contract.transform_data.defn
def transform_data(request: TransformDataRequest) -> TransformDataResponse:
    """Convert the staged rows of one page into staged products."""
    resources, page = current(), _required(request.page, "page")
    catalogue = resources.catalogue
    with _as_application_error():
        catalogue.check_page(page, _workflow_id())
        currency_code = resources.source(page.supplier_code).currency_code
        try:
            raw = catalogue.get_raw_page(page)
        except PageGone:
            # Synced already: this is a late retry, whose answer is not used.
            return TransformDataResponse()
        now = datetime.now(UTC)
        products = transform_page(
            raw, currency_code=currency_code, key=resources.supplier(page.supplier_code).key, now=now
        )
        catalogue.put_product_page(
            page, products, read_by=resources.read_by(page.supplier_code), holds_until=_holds_until(raw, now)
        )
    return TransformDataResponse(
        products=len(products.products), rejected=len(products.rejected), warnings=len(products.warnings)
    )


def _holds_until(raw: RawPage, now: datetime) -> datetime | None:
    """Return when an unchanged feed gives other products: when the next sale price begins or ends."""
    moments = set[datetime]()
    for text in {row.sale_price_effective_date for row in raw.products if row.sale_price.strip()}:
        with contextlib.suppress(ValueError):
            moments.update(sale_dates(clean_text(text)))
    return min((moment for moment in moments if moment > now), default=None)


@contract.sync_to_brain.defn
def sync_to_brain(request: SyncToBrainRequest) -> SyncToBrainResponse:
    """Write the staged products of one page into the catalogue, and finish the harvest with the last one."""
    resources, page = current(), _required(request.page, "page")
    catalogue, delisted, incomplete, detail = resources.catalogue, 0, HarvestIncomplete.UNSPECIFIED, ""
    with _as_application_error():
        if request.last:
            catalogue.check_last(page, _workflow_id(), complete=request.complete)
        else:
            catalogue.check_page(page, _workflow_id())
        counts = catalogue.sync_page(page)
        FEED_REJECTS_TOTAL.add(counts.rejected, supplier=page.supplier_code, tenant=page.tenant_id)
        FEED_WARNINGS_TOTAL.add(counts.warnings, supplier=page.supplier_code, tenant=page.tenant_id)
        if counts.rejected or counts.warnings:
            _trim_rejected(resources, page)
        if request.last:
            if request.complete:
                incomplete, detail = _incomplete(resources, page, allow_delisting=request.allow_delisting)
            delisted = catalogue.finish_harvest(
                page.tenant_id, page.supplier_code, page.harvest_id, complete=request.complete and not incomplete
            )
            catalogue.forget_harvests(page.tenant_id, page.supplier_code, keep=resources.settings.keep_harvests)
            catalogue.end_turn(page.tenant_id, page.harvest_id)
    return SyncToBrainResponse(
        created=counts.created,
        changed=counts.changed,
        unchanged=counts.unchanged,
        rejected=counts.rejected,
        warnings=counts.warnings,
        delisted=delisted,
        catalogue=catalogue.url_for_display if request.last else "",
        incomplete=incomplete,
        incomplete_detail=detail,
        on_finished=_on_finished(resources) if request.last else "",
    )


def _on_finished(resources: Resources) -> str:
    """Return the workflow_type to signal after a harvest; empty for none."""
    return "" if resources.follower is None else resources.follower.workflow_type


@contract.notify_finished.defn
async def notify_finished(request: NotifyFinishedRequest) -> NotifyFinishedResponse:
    """Signal the workflow of `on_finished` that the tenant's catalogue may have changed."""
    follower = current().follower
    if follower is None:
        return NotifyFinishedResponse()
    return NotifyFinishedResponse(workflow_id=await follower.tell(activity.client(), _tenant()))


def _trim_rejected(resources: Resources, page: PageRef) -> None:
    """Keep the tenant's rejected rows within its quota."""
    budget = resources.quotas.of(page.tenant_id).rejected_bytes
    emptied = resources.catalogue.trim_rejected(page, budget)
    if emptied:
        what = f"deleted rejected rows of the harvests {', '.join(emptied)}, over the quota"
        note("rejected_bytes", budget, page.tenant_id, "sync_to_brain", what)


def _incomplete(resources: Resources, page: PageRef, *, allow_delisting: bool) -> tuple[HarvestIncomplete, str]:
    """Return why missing products must not be marked; UNSPECIFIED if they may be.

    A retry returns the same: products marked by the first attempt do not count as missing.
    """
    catalogue, key = resources.catalogue, (page.tenant_id, page.supplier_code, page.harvest_id)
    incomplete, detail = catalogue.find_incomplete(*key)
    if incomplete or allow_delisting:
        return incomplete, f"{detail}; nothing was marked as no longer listed" if detail else ""
    counted, share = catalogue.count_missing_products(*key), resources.max_delisted_share(page.supplier_code)
    if counted.unreadable:
        return HarvestIncomplete.UNREADABLE_ROWS, (
            f"rows with an unreadable key that the last complete harvest did not have: {counted.unreadable:,}; they "
            f"may be some of the {counted.missing:,} products that would be marked as no longer listed, so none was; "
            "fix them (list_rejected lists them), or harvest again with allow_delisting = true"
        )
    if counted.missing <= max(_ALWAYS_DELISTED, share * counted.listed):
        return HarvestIncomplete.UNSPECIFIED, ""
    return HarvestIncomplete.TOO_MANY_DELISTED, (
        f"{counted.missing:,} of {counted.listed:,} products would be marked as no longer listed, more than the share "
        f"of {share:g} that max_delisted_share allows, so none was; if the supplier did drop them, harvest "
        "again with allow_delisting = true"
    )


@contract.read_rejected.defn
def read_rejected(request: ReadRejectedRequest) -> ReadRejectedResponse:
    """Read one page of the rows that a harvest rejected."""
    query, catalogue = _required(request.query, "query"), current().catalogue
    tenant_id, harvest_id, after = query.tenant_id or _DEFAULT_TENANT, query.harvest_id, None
    with _as_application_error():
        if harvest_id:
            harvest_id = catalogue.reading_of(tenant_id, query.supplier_code, harvest_id)
        if query.page_token:
            found = _PAGE_TOKEN.fullmatch(query.page_token)
            if found is None or (harvest_id and harvest_id != found[3]):
                told = f"page_token {query.page_token[:100]!r} is not from a page of this list; begin without one"
                raise ApplicationError(told, type="RequestInvalid", non_retryable=True)
            # A harvest that has begun since then does not change the listed harvest.
            after, harvest_id = (int(found[1]), int(found[2])), found[3]
        harvest_id = harvest_id or catalogue.newest_harvest(tenant_id, query.supplier_code)
        rows, end = catalogue.page_of_rejected(
            tenant_id,
            query.supplier_code,
            harvest_id,
            reason=query.reason,
            severity=query.severity,
            after=after,
            limit=query.page_size or _REJECTED_ROWS,
        )
        dropped = catalogue.dropped_rows(tenant_id, query.supplier_code, harvest_id)
    token = "" if end is None else f"{end[0]}.{end[1]}.{harvest_id}"
    page = ListRejectedResponse(harvest_id=harvest_id, rows=rows, next_page_token=token, dropped=dropped)
    return ReadRejectedResponse(page=page)


@contract.list_for_enrichment.defn
def list_for_enrichment(request: ListForEnrichmentRequest) -> ListForEnrichmentResponse:
    """List one page of the tenant's products to enrich."""
    catalogue, tenant_id = current().catalogue, _tenant()
    wanted = Wanted(
        rules_version=request.rules_version,
        supplier_code=request.supplier_code,
        skus=tuple(request.skus),
        force=request.force,
    )
    packed, after = list[PackedProducts](), request.after
    with _as_application_error():
        due = 0 if request.after is not None else catalogue.count_to_enrich(tenant_id, wanted)
        for _ in range(request.pages or 1):
            page, after = catalogue.to_enrich(tenant_id, wanted, after=after, limit=request.limit)
            packed += _packed(page, request.batch_size)
            if after is None or sum(len(batch.data) for batch in packed) >= _MAX_LISTED_BYTES:
                break
    return ListForEnrichmentResponse(batches=packed, next=after, due=due)


def _packed(page: list[ProductToEnrich], batch_size: int) -> list[PackedProducts]:
    batches = [page[start : start + batch_size] for start in range(0, len(page), batch_size)]
    return [PackedProducts(count=len(batch), data=pack(ListOfProductsToEnrich(products=[*batch]))) for batch in batches]


@contract.write_enrichments.defn
def write_enrichments(request: WriteEnrichmentsRequest) -> WriteEnrichmentsResponse:
    """Write enrichments for the tenant's products."""
    found = list[Enrichment]()
    for batch in request.batches:
        try:
            made = unpack(ListOfEnrichments, batch.data)
            validation.check(made)
        except CodecError as error:
            raise ApplicationError(f"packed enrichments: {error}", type="RequestInvalid", non_retryable=True) from error
        found += made.enrichments
    with _as_application_error():
        written = current().catalogue.put_enrichments(_tenant(), found, rules_version=request.rules_version)
    return WriteEnrichmentsResponse(written=written, unknown=len(found) - written)


def _tenant() -> str:
    """Return the tenant of the task from its context, never from a payload."""
    return context.current().tenant_id or _DEFAULT_TENANT


@contextlib.contextmanager
def _as_application_error(*, attempts: int = 0) -> Generator[None, None, None]:
    """Convert errors to ApplicationErrors with stable types, which retry policies and callers of all languages use.

    Args:
        attempts: attempt whose failure is final; 0 leaves it to the contract's retry policy.
    """
    try:
        yield
    except HarvestError as error:
        final = not error.retryable or 0 < attempts <= activity.info().attempt
        raise ApplicationError(
            str(error), type=error.type, non_retryable=final, next_retry_delay=_retry_delay(error)
        ) from error
    except EgressBudgetError as error:
        delay = timedelta(seconds=error.frees_in)
        raise ApplicationError(str(error), type="EgressBudget", next_retry_delay=delay) from error
    except HarvestMismatch as error:
        raise ApplicationError(str(error), type="HarvestMismatch", non_retryable=True) from error
    except CatalogueError as error:
        raise ApplicationError(str(error), type="Catalogue", non_retryable=not error.retryable) from error


def _retry_delay(error: HarvestError) -> timedelta | None:
    """Return the delay of a server's Retry-After, within limits; None leaves it to the retry policy."""
    seconds = error.retry_after if isinstance(error, FeedUnreachableError) else 0.0
    return timedelta(seconds=min(seconds, _MAX_RETRY_SECONDS)) if seconds else None


def _workflow_id() -> str:
    """Return the workflow of the activity, as Temporal reports it; empty if it has none."""
    return activity.info().workflow_id or ""


def _required(value: _Value | None, name: str) -> _Value:
    if value is None:
        raise ApplicationError(f"the request has no {name}", type="RequestInvalid", non_retryable=True)
    return value
