"""The codec between dataclasses and bytes, beside betterproto2's own, and google.protobuf without dataclasses."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import betterproto2
import httpx
from contextunity.gen.contextunity import core as gen
from contextunity.gen.contextunity.harvest.v1 import FeedFormat, ProductPage

from contextunity.core import ContextUnit, codec
from contextunity.modules.harvest.feeds import FeedSource, open_feed, read_page
from contextunity.modules.harvest.sample import write_sample
from contextunity.modules.harvest.transform import transform_page

from ._google_reader import plain_of, reader_of
from ._model import Goal, Measurement, Options, Result
from ._rounds import time_interleaved

__all__ = ["run"]

_OURS, _BETTERPROTO2 = "contextunity.core.codec", "betterproto2"
_GOOGLE, _GOOGLE_ALONE = "google.protobuf, every field", "google.protobuf, bytes alone"
_ROUNDS = 15
_PRODUCTS = 500


def run(options: Options) -> Result:
    """Decodes and encodes a page of products and a ContextUnit by all codecs in turn."""
    rounds = options.rounds_or(_ROUNDS)
    messages = {f"page of {_PRODUCTS} products": _page(options.folder), "ContextUnit": _unit()}
    measurements: list[Measurement] = []
    sizes: dict[str, int] = {}
    for name, message in messages.items():
        data = codec.encode(message)
        sizes[name] = len(data)
        case = _case(name, len(data))
        measurements += _measure(case, "decode", rounds, _decoders(message, data))
        measurements += _measure(case, "encode", rounds, _encoders(message, data))
    result = Result(
        title="codec: bytes to dataclasses and back",
        reference=_OURS,
        measurements=tuple(measurements),
        notes=(
            f"{_GOOGLE}: decode parses and reads all fields, encode makes the message from dicts and serialises it",
            f"{_GOOGLE_ALONE}: parses and leaves the fields alone, or serialises a message that is there already",
            f"{_BETTERPROTO2} accepts bytes and values that the others refuse; the product never calls it",
        ),
        facts={"encoded_bytes": sizes},
    )
    goals = tuple(goal for name, size in sizes.items() for goal in _goals(result, _case(name, size)))
    return dataclasses.replace(result, goals=goals)


def _goals(result: Result, case: str) -> list[Goal]:
    faster = [
        Goal(
            name=f"{quantity} {case}: {_BETTERPROTO2} to ours",
            value=result.ratio(case, _BETTERPROTO2, _OURS, quantity),
            limit=15,
            at_least=True,
        )
        for quantity in ("decode", "encode")
    ]
    no_slower = result.ratio(case, _OURS, _GOOGLE, "decode")
    return [*faster, Goal(name=f"decode {case}: ours to {_GOOGLE}", value=no_slower, limit=1)]


def _measure(case: str, quantity: str, rounds: int, subjects: dict[str, Callable[[], object]]) -> list[Measurement]:
    return [
        Measurement(case=case, subject=subject, quantity=quantity, unit="µs", values=tuple(s * 1e6 for s in seconds))
        for subject, seconds in time_interleaved(rounds, subjects).items()
    ]


def _decoders(message: betterproto2.Message, data: bytes) -> dict[str, Callable[[], object]]:
    cls: type[betterproto2.Message] = type(message)
    google: type[Any] = codec.proto_class(cls)
    read = reader_of(google.DESCRIPTOR)
    assert codec.decode(cls, data) == cls.parse(data) == message
    return {
        _OURS: lambda: codec.decode(cls, data),
        _BETTERPROTO2: lambda: cls.parse(data),
        _GOOGLE: lambda: read(google.FromString(data)),
        _GOOGLE_ALONE: lambda: google.FromString(data),
    }


def _encoders(message: betterproto2.Message, data: bytes) -> dict[str, Callable[[], object]]:
    google: type[Any] = codec.proto_class(type(message))
    there = google.FromString(data)
    plain = plain_of(there)
    assert google.FromString(bytes(message)) == google(**plain) == there
    return {
        _OURS: lambda: codec.encode(message),
        _BETTERPROTO2: lambda: bytes(message),
        _GOOGLE: lambda: google(**plain).SerializeToString(),
        _GOOGLE_ALONE: there.SerializeToString,
    }


def _page(folder: Path) -> ProductPage:
    """The first products of the sample feed, transformed: strings, lists, a map, enums, presence, nested money."""
    feed_path = folder / "feed.csv"
    write_sample(feed_path, products=_PRODUCTS)
    source = FeedSource(supplier_code="s", url=feed_path.as_uri(), format=FeedFormat.SHOPIFY_CSV, currency_code="EUR")

    async def read() -> ProductPage:
        async with httpx.AsyncClient() as client:
            feed, cursor = await open_feed(client, source, spool_folder=folder)
            fetched = await read_page(client, feed, cursor, _PRODUCTS, spool_folder=folder)
        return ProductPage(products=transform_page(fetched.page, currency_code="EUR").products[:_PRODUCTS])

    page = asyncio.run(read())
    assert len(page.products) == _PRODUCTS
    return page


def _unit() -> gen.ContextUnit:
    """An envelope as it is on its way through a few services: about 1 KB, half of it a Struct."""
    moment = datetime(2024, 5, 17, 9, 30, 12, 250_000, tzinfo=UTC)
    return ContextUnit(
        payload={
            "workflow_type": "harvest",
            "supplier_code": "camping-trade",
            "tenant_id": "my_project",
            "page_size": 250,
            "dry_run": False,
            "labels": ["spring", "outdoor", "priority"],
            "notify": {"channel": "catalogue", "address": "team@shop.example", "on": ["completed", "failed"]},
            "comment": "The supplier moved its warehouse; prices are unchanged, but stock is counted anew this week.",
            "limits": {"max_products": 100_000, "max_minutes": 45, "price_tolerance": 0.15},
            "callback": "https://shop.example/hooks/catalogue/9f2d6a7c-0c1e-4f7b-8a55-6f0f3f1c9b21",
            "requested_by": {"name": "Mira Jansen", "role": "category manager", "department": "outdoor equipment"},
        },
        parent_unit_id="5b0a3c1e-7f1c-4b8e-9d61-1f6f3c1d2a90",
        chain_of_thought=[
            gen.CotStep(agent="planner", action="choose the supplier", status="done", timestamp=moment),
            gen.CotStep(agent="commerce", action="ask for a harvest", status="running", timestamp=moment),
        ],
        metrics=gen.UnitMetrics(latency_ms=12, cost_usd=0.0021, tokens_used=640, cost_limit_usd=0.5),
        security=gen.SecurityScopes(read=["catalogue:read", "supplier:read"], write=["catalogue:write"]),
        created_at=moment,
        provenance=["commerce:trigger", "router:forward", "gateway:accept", "worker:receive"],
    ).to_dataclass()


def _case(name: str, size: int) -> str:
    return f"{name}, {size / 1000:.3g} kB"
