"""The activities of the harvest module: generated dataclasses in and out, safe to repeat at any time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TypeVar

from contextunity.gen.contextunity.harvest.v1 import (
    FeedCursor,
    FetchProductsRequest,
    FetchProductsResponse,
    FinishHarvestRequest,
    FinishHarvestResponse,
    OpenFeedRequest,
    OpenFeedResponse,
    SyncToBrainRequest,
    SyncToBrainResponse,
    TransformDataRequest,
    TransformDataResponse,
)
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal as contract
from temporalio import activity
from temporalio.exceptions import ApplicationError

from .catalogue import CatalogueError, PageGone
from .errors import HarvestError
from .feeds import open_feed as look_at_feed
from .feeds import read_page
from .resources import current
from .transform import transform_page

_Value = TypeVar("_Value")

__all__ = ["fetch_products", "finish_harvest", "open_feed", "sync_to_brain", "transform_data"]


@contract.open_feed.defn
async def open_feed(request: OpenFeedRequest) -> OpenFeedResponse:
    """Looks at a supplier's feed."""
    resources = current()
    with _as_application_error():
        source = resources.source(request.supplier_code)
        url = await resources.reachable_url(source.url)
        feed, cursor = await look_at_feed(
            resources.client, dataclasses.replace(source, url=url), spool_folder=resources.spool_folder
        )
    feed.url = source.url
    supplier = resources.settings.supplier(request.supplier_code)
    return OpenFeedResponse(feed=feed, cursor=cursor, page_size=supplier.page_size if supplier else 0)


@contract.fetch_products.defn
async def fetch_products(request: FetchProductsRequest) -> FetchProductsResponse:
    """Fetches one page and stages its rows."""
    resources = current()
    page, feed = _required(request.page, "page"), _required(request.feed, "feed")
    with _as_application_error():
        fetched = await read_page(
            resources.client,
            dataclasses.replace(feed, url=await resources.reachable_url(feed.url)),
            request.cursor if request.cursor is not None else FeedCursor(),
            request.page_size,
            spool_folder=resources.spool_folder,
            heartbeat=activity.heartbeat,
        )
        await asyncio.to_thread(resources.catalogue.put_raw_page, page, fetched.page)
    return FetchProductsResponse(
        next_cursor=fetched.next_cursor,
        end_of_feed=fetched.end_of_feed,
        fetched=len(fetched.page.products) + len(fetched.page.rejected),
        entries=fetched.entries,
    )


@contract.transform_data.defn
def transform_data(request: TransformDataRequest) -> TransformDataResponse:
    """Turns the staged rows of one page into staged products."""
    catalogue, page = current().catalogue, _required(request.page, "page")
    with _as_application_error():
        try:
            raw = catalogue.get_raw_page(page)
        except PageGone:
            # Synced already: this is a late repetition, whose answer nobody waits for.
            return TransformDataResponse()
        products = transform_page(raw, currency_code=request.currency_code)
        catalogue.put_product_page(page, products)
    return TransformDataResponse(products=len(products.products), rejected=len(products.rejected))


@contract.sync_to_brain.defn
def sync_to_brain(request: SyncToBrainRequest) -> SyncToBrainResponse:
    """Writes the staged products of one page into the catalogue."""
    with _as_application_error():
        counts = current().catalogue.sync_page(_required(request.page, "page"))
    return SyncToBrainResponse(
        created=counts.created, changed=counts.changed, unchanged=counts.unchanged, rejected=counts.rejected
    )


@contract.finish_harvest.defn
def finish_harvest(request: FinishHarvestRequest) -> FinishHarvestResponse:
    """Marks what the harvest did not see, and clears what it had staged."""
    catalogue = current().catalogue
    with _as_application_error():
        delisted = catalogue.finish_harvest(
            request.tenant_id, request.supplier_code, request.harvest_id, complete=request.complete
        )
    return FinishHarvestResponse(delisted=delisted, catalogue=catalogue.url_for_display)


@contextlib.contextmanager
def _as_application_error() -> Iterator[None]:
    """Gives errors their stable types, which retry policies and callers in every language go by."""
    try:
        yield
    except HarvestError as error:
        raise ApplicationError(str(error), type=error.type, non_retryable=not error.retryable) from error
    except CatalogueError as error:
        raise ApplicationError(str(error), type="Catalogue", non_retryable=not error.retryable) from error


def _required(value: _Value | None, name: str) -> _Value:
    if value is None:
        raise ApplicationError(f"the request has no {name}", type="RequestInvalid", non_retryable=True)
    return value
