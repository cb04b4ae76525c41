"""Bytes of a harvest's payloads and histories, beside those of a harvest that is written by hand, in JSON."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import History

from contextunity.core import codec
from contextunity.modules.harvest.sample import write_sample

from ._codec_peers import pydantic_model, python_of
from ._model import Goal, Measurement, Options, Result
from ._processes import Child
from ._worker_harvest import histories_of_harvest, histories_of_json_harvest

__all__ = ["run"]

_OURS, _BY_HAND, _SAME = "ContextWorker", "by hand, in JSON", "ContextWorker's messages, as JSON"
_PRODUCTS = 5_000


def run(options: Options) -> Result:
    """Harvests the same feed both ways, and weighs what stands in the histories."""
    products = min(options.products, 2_000 if options.quick else _PRODUCTS)
    feeds = options.folder / "feeds"
    write_sample(feeds / "feed.csv", products=products)
    with Child("-m", "bench._feed_process", str(feeds), folder=options.folder, name="feed-server") as server:
        url = server.wait_for("serving").split()[1].rsplit("/", 1)[0] + "/feed.csv"
        ours = asyncio.run(histories_of_harvest(url, options.folder / "harvest"))
        by_hand = asyncio.run(histories_of_json_harvest(url, options.folder / "json-harvest"))
    case = f"harvest of {products:,} feed entries"
    measurements = list[Measurement]()
    for subject, runs in ((_OURS, ours), (_BY_HAND, by_hand), (_SAME, ours)):
        sizes = [_sizes(history.events, options.folder, as_json=subject == _SAME) for history in runs]
        for at, quantity in enumerate(("payloads", "histories")):
            total = float(sum(each[at] for each in sizes))
            measurements.append(
                Measurement(case=case, subject=subject, quantity=quantity, unit="bytes", values=(total,))
            )
    result = Result(
        title="payloads and histories",
        reference=_BY_HAND,
        measurements=tuple(measurements),
        notes=(
            "payloads: inputs, results and headers of all events, with their metadata; histories: all events",
            f"{_BY_HAND}: a harvest on Temporal's SDK with its pydantic converter, which ran on a server of its own; "
            "what an activity fetched stands in its result, and in the input of the next",
            f"{_SAME}: the payloads of our run, written anew by pydantic's converter; the pages are in neither, but in "
            "a staging table, so that this compares references and counts",
        ),
        facts={"runs": {_OURS: len(ours), _BY_HAND: len(by_hand)}},
    )
    goals = tuple(
        Goal(name=f"{quantity}: ours to {words}", value=result.ratio(case, _OURS, peer, quantity), limit=0.5)
        for peer, words in ((_BY_HAND, "a harvest by hand, in JSON"), (_SAME, "the same messages as JSON"))
        for quantity in ("payloads", "histories")
    )
    return dataclasses.replace(result, goals=goals)


def _sizes(events: Any, folder: Path, *, as_json: bool) -> tuple[int, int]:
    """Bytes of the payloads, and of the whole history; as they are, or with messages as JSON."""
    history = History()
    history.events.extend(events)
    payloads = list(_payloads(history))
    if as_json:
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
