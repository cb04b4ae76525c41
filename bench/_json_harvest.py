"""`python -m bench._json_harvest TEMPORAL URL DATABASE PAGE_SIZE`: a harvest by hand on Temporal's SDK, in JSON.

It is what somebody writes who has the SDK and its pydantic converter: one activity fetches a page, one transforms it,
one writes it into the catalogue, and what they hand on stands in the payloads. The functions inside are those of the
plain script. It serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from contextunity.gen.contextunity.harvest.v1 import Feed, FeedCursor, FeedFormat, PageRef, ProductPage, RawPage
from pydantic import BaseModel
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from contextunity.core import codec
from contextunity.modules.harvest.catalogue.database import Database
from contextunity.modules.harvest.catalogue.harvests import begin_harvest, finish_harvest
from contextunity.modules.harvest.catalogue.sync import write_page
from contextunity.modules.harvest.catalogue.tables import prepare_schema
from contextunity.modules.harvest.feeds import FeedSource, open_feed, read_page
from contextunity.modules.harvest.transform import transform_page

from ._codec_peers import pydantic_model, python_of
from ._worker_harvest import JSON_QUEUE, JSON_WORKFLOW

_CATALOGUE = ("bench", "supplier")
_PAGES = 5
"""Pages of a run: those of ten would come near the 50 MiB of history at which Temporal ends a run."""
_SPOOL = Path("spool")


def _model(message: Any) -> Any:
    return pydantic_model(codec.proto_class(message).DESCRIPTOR, _FOLDER)


_FOLDER = Path(tempfile.mkdtemp(dir="."))
_Raw, _Products, _Feed, _Cursor = (_model(each) for each in (RawPage, ProductPage, Feed, FeedCursor))


class State(BaseModel):
    """Where a run goes on."""

    feed: _Feed
    cursor: _Cursor
    pages: int = 0
    created: int = 0


class Fetched(BaseModel):
    page: _Raw
    cursor: _Cursor
    end_of_feed: bool


class Activities:
    """The activities, with what they need beside their inputs."""

    def __init__(self, url: str, database: Database, page_size: int, client: httpx.AsyncClient) -> None:
        self._url, self._database, self._page_size, self._client = url, database, page_size, client

    @activity.defn
    async def open(self) -> State:
        source = FeedSource(supplier_code="supplier", url=self._url, format=FeedFormat.SHOPIFY_CSV, currency_code="EUR")
        feed, cursor = await open_feed(self._client, source, spool_folder=_SPOOL)
        with self._database.writing() as connection:
            begin_harvest(self._database, connection, *_CATALOGUE, "json")
        return State(feed=_to_model(_Feed, feed), cursor=_to_model(_Cursor, cursor))

    @activity.defn
    async def fetch(self, state: State) -> Fetched:
        feed, cursor = _from_model(Feed, state.feed), _from_model(FeedCursor, state.cursor)
        fetched = await read_page(self._client, feed, cursor, self._page_size, spool_folder=_SPOOL)
        page, after = _to_model(_Raw, fetched.page), _to_model(_Cursor, fetched.next_cursor)
        return Fetched(page=page, cursor=after, end_of_feed=fetched.end_of_feed)

    @activity.defn
    async def transform(self, page: _Raw) -> _Products:
        return _to_model(_Products, transform_page(_from_model(RawPage, page), currency_code="EUR"))

    @activity.defn
    async def sync(self, page: _Products, number: int) -> int:
        ref = PageRef(tenant_id=_CATALOGUE[0], supplier_code=_CATALOGUE[1], harvest_id="json", page=number)
        with self._database.writing() as connection:
            products: Any = codec.to_proto(_from_model(ProductPage, page))
            return write_page(self._database, connection, ref, products).created

    @activity.defn
    async def finish(self) -> None:
        with self._database.writing() as connection:
            finish_harvest(self._database, connection, *_CATALOGUE, "json", complete=True)


@workflow.defn(name=JSON_WORKFLOW)
class Harvest:
    @workflow.run
    async def run(self, earlier: State | None = None) -> int:
        limits: Any = {"start_to_close_timeout": timedelta(minutes=5), "retry_policy": RetryPolicy(maximum_attempts=3)}
        if earlier is None:
            earlier = await workflow.execute_activity_method(Activities.open, **limits)
        state, end_of_feed = earlier, False
        while not end_of_feed:
            if state.pages - earlier.pages == _PAGES:
                workflow.continue_as_new(state)
            fetched = await workflow.execute_activity_method(Activities.fetch, state, **limits)
            products = await workflow.execute_activity_method(Activities.transform, fetched.page, **limits)
            state.created += await workflow.execute_activity_method(
                Activities.sync, args=[products, state.pages], **limits
            )
            state.cursor, end_of_feed = fetched.cursor, fetched.end_of_feed
            state.pages += 1
        await workflow.execute_activity_method(Activities.finish, **limits)
        return state.created


def _to_model(model: Any, message: Any) -> Any:
    return model.model_validate(python_of(codec.to_proto(message)))


def _from_model(cls: Any, model: BaseModel) -> Any:
    plain = model.model_dump(mode="json", exclude_none=True)
    # pydantic writes bytes as text, ProtoJSON as base64.
    plain |= {name: base64.b64encode(value).decode() for name, value in model if isinstance(value, bytes)}
    return codec.from_dict(cls, plain)


async def _main() -> None:
    address, url, database_url, page_size = sys.argv[1:]
    database = Database.open(database_url)
    prepare_schema(database)
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    async with httpx.AsyncClient() as http:
        own = Activities(url, database, int(page_size), http)
        worker = Worker(
            client,
            task_queue=JSON_QUEUE,
            workflows=[Harvest],
            activities=[own.open, own.fetch, own.transform, own.sync, own.finish],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        async with worker:
            print("worker runs", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    database.close()


if __name__ == "__main__":
    asyncio.run(_main())
