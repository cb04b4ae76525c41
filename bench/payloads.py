"""Bytes of a harvest's payloads and histories, beside what they were with the same messages as JSON."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import betterproto2
import httpx
from contextunity.gen.contextunity.harvest.v1 import FeedFormat
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import History

from contextunity.core import codec
from contextunity.modules.harvest.feeds import FeedSource, open_feed, read_page
from contextunity.modules.harvest.sample import write_sample
from contextunity.modules.harvest.settings import SupplierSettings
from contextunity.modules.harvest.transform import transform_page

from ._codec_peers import pydantic_model, python_of
from ._model import Goal, Measurement, Options, Result
from ._processes import Child
from ._worker_harvest import histories_of_harvest

__all__ = ["run"]

_OURS, _JSON = "binary/protobuf", "the same messages as JSON"
_WHOLE = "JSON, with the pages in it"
_PRODUCTS = 20_000


def run(options: Options) -> Result:
    """Harvests once, and writes each payload of the real histories as pydantic's converter would."""
    products = min(options.products, 2_000 if options.quick else _PRODUCTS)
    feeds = options.folder / "feeds"
    write_sample(feeds / "feed.csv", products=products)
    with Child("-m", "bench._feed_process", str(feeds), folder=options.folder, name="feed-server") as server:
        url = server.wait_for("serving").split()[1].rsplit("/", 1)[0] + "/feed.csv"
        histories = asyncio.run(histories_of_harvest(url, options.folder / "harvest"))
    case = f"harvest of {products:,} feed entries, {len(histories)} runs"
    measurements = list[Measurement]()
    for subject in (_OURS, _JSON):
        sizes = [_sizes(history.events, subject, options.folder) for history in histories]
        for at, quantity in enumerate(("payloads", "histories")):
            total = float(sum(each[at] for each in sizes))
            measurements.append(
                Measurement(case=case, subject=subject, quantity=quantity, unit="bytes", values=(total,))
            )
    pages = asyncio.run(_page_bytes(feeds / "feed.csv", options.folder))
    measurements += [
        dataclasses.replace(measured, subject=_WHOLE, values=(measured.values[0] + pages,))
        for measured in measurements
        if measured.subject == _JSON
    ]
    result = Result(
        title="payloads and histories",
        reference=_JSON,
        measurements=tuple(measurements),
        notes=(
            "payloads: inputs, results and headers of all events, with their metadata",
            "histories: all events; what is not payload is Temporal's own, and the same for both",
            f"{_JSON}: by pydantic's converter; the rows of the pages are in neither, but in a staging table",
            f"{_WHOLE}: as a harvest without a staging table has them, each twice as rows and twice as products",
        ),
    )
    goals = tuple(
        Goal(name=f"{quantity}: ours to {peer}", value=result.ratio(case, _OURS, peer, quantity), limit=0.5)
        for peer in (_JSON, _WHOLE)
        for quantity in ("payloads", "histories")
    )
    return dataclasses.replace(result, goals=goals)


async def _page_bytes(feed_path: Path, folder: Path) -> int:
    """Bytes of all pages as JSON: results of fetching and transforming, and inputs of transforming and syncing."""
    source = FeedSource(supplier_code="s", url=feed_path.as_uri(), format=FeedFormat.SHOPIFY_CSV, currency_code="EUR")
    page_size, total = SupplierSettings(url="http://supplier").page_size, 0
    async with httpx.AsyncClient() as client:
        feed, cursor = await open_feed(client, source, spool_folder=folder)
        while True:
            fetched = await read_page(client, feed, cursor, page_size, spool_folder=folder)
            products = transform_page(fetched.page, currency_code="EUR")
            total += 2 * (_json_bytes(fetched.page, folder) + _json_bytes(products, folder))
            if fetched.end_of_feed:
                return total
            cursor = fetched.next_cursor


def _json_bytes(message: betterproto2.Message, folder: Path) -> int:
    proto: Any = codec.to_proto(message)
    return len(_model(type(proto), folder).model_validate(python_of(proto)).model_dump_json().encode())


def _sizes(events: Any, subject: str, folder: Path) -> tuple[int, int]:
    """Bytes of the payloads, and of the whole history."""
    history = History()
    history.events.extend(events)
    payloads = list(_payloads(history))
    if subject == _JSON:
        for payload in payloads:
            _to_json(payload, folder)
    return sum(each.ByteSize() for each in payloads), history.ByteSize()


def _payloads(message: Any) -> Iterator[Payload]:
    if isinstance(message, Payload):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for entry in value.values():
                    yield from _payloads(entry)
        elif field.is_repeated:
            for each in value:
                yield from _payloads(each)
        else:
            yield from _payloads(value)


def _to_json(payload: Payload, folder: Path) -> None:
    """Makes of a message's payload what Temporal's pydantic converter writes."""
    if payload.metadata.get("encoding") != b"binary/protobuf":
        return
    cls: Any = codec.proto_class(codec.message_class(payload.metadata["messageType"].decode()))
    model = _model(cls, folder).model_validate(python_of(cls.FromString(payload.data)))
    payload.Clear()
    payload.metadata["encoding"] = b"json/plain"
    payload.data = model.model_dump_json().encode()


@functools.cache
def _model(cls: Any, folder: Path) -> Any:
    return pydantic_model(cls.DESCRIPTOR, folder)
