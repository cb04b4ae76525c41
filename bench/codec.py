"""The codec between dataclasses and bytes, beside other codecs of protobuf, and pydantic's JSON."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import betterproto2
import httpx
from contextunity.gen.contextunity import core as gen
from contextunity.gen.contextunity.harvest.v1 import FeedFormat, ProductPage
from google.protobuf import json_format

from betterproto2_codec._schema import IS_NATIVE
from contextunity.core import ContextUnit, codec
from contextunity.modules.harvest.feeds import FeedSource, open_feed, read_page
from contextunity.modules.harvest.sample import write_sample
from contextunity.modules.harvest.transform import transform_page

from ._codec_peers import betterproto_class, fastproto_class, protobuf_py_class, pydantic_model, python_of
from ._google_reader import plain_of, reader_of
from ._model import Goal, Measurement, Options, Result
from ._rounds import time_interleaved
from ._tree import page_module

__all__ = ["run"]

_OURS, _BETTERPROTO2, _BETTERPROTO = "contextunity.core.codec", "betterproto2", "betterproto"
_GOOGLE, _GOOGLE_ALONE = "google.protobuf, every field", "google.protobuf, bytes alone"
_PROTOBUF_PY, _PYDANTIC, _FASTPROTO = "protobuf-py", "pydantic JSON", "fastproto"
_TWO_STEPS, _GOOGLE_DICT = "the codec in two steps", "google.protobuf, as a dict"
_WAY = "by the compiled extension" if IS_NATIVE else "by google.protobuf alone, without the compiled extension"
_ROUNDS = 9
_PRODUCTS = 500
_Calls = dict[str, Callable[[], object]]


def run(options: Options) -> Result:
    """Decodes and encodes pages of products and a ContextUnit by all codecs in turn."""
    rounds = options.rounds_or(_ROUNDS)
    messages = {
        f"page of {_PRODUCTS} products": _page(),
        "ContextUnit": _unit(),
        f"harvested page of {_PRODUCTS} products": _harvested_page(options.folder),
    }
    measurements: list[Measurement] = []
    for name, message in messages.items():
        peers = _Peers(message, options.folder)
        case = f"{name}, {len(peers.data) / 1000:.3g} kB"
        decoded = time_interleaved(rounds, peers.decoders())
        encoded = time_interleaved(rounds, peers.encoders())
        for quantity, found in (("decode", decoded), ("encode", encoded)):
            measurements += [_micros(case, subject, quantity, seconds) for subject, seconds in found.items()]
        for subject in decoded:
            both = [sum(pair) for pair in zip(decoded[subject], encoded[subject], strict=True)]
            measurements.append(_micros(case, subject, "round trip", both))
        for subject, size in ((_OURS, len(peers.data)), (_PYDANTIC, len(peers.json))):
            measurements.append(Measurement(case=case, subject=subject, quantity="size", unit="bytes", values=(size,)))
    for name, unit in (("ContextUnit", _unit()), ("ContextUnit with 20,000 objects", _large_unit())):
        data = codec.encode(unit)
        case = f"payload of {name}, {len(data) / 1000:.3g} kB"
        for quantity, calls in (("decode", _payload_readers(data)), ("encode", _payload_writers(data))):
            found = time_interleaved(rounds, calls)
            measurements += [_micros(case, subject, quantity, seconds) for subject, seconds in found.items()]
    result = Result(
        title="codec: bytes to dataclasses and back",
        reference=_OURS,
        measurements=tuple(measurements),
        facts={"codec": _WAY},
        notes=(
            f"ours: {_WAY}",
            f"{_GOOGLE}: decode parses and reads all fields, encode makes the message from dicts and serialises it",
            f"{_GOOGLE_ALONE}: parses and leaves the fields alone, or serialises a message that is there already",
            f"payload of …: the whole unit, with its payload as a dict; {_TWO_STEPS}: by struct_to_dict and "
            f"dict_to_struct; {_GOOGLE_DICT}: by MessageToDict and Struct.update",
            f"{_BETTERPROTO2} accepts bytes and values that the others refuse; the product never calls it",
        ),
    )
    cases = list(dict.fromkeys(measured.case for measured in measurements))
    goals = [goal for case in cases if not case.startswith("payload") for goal in _goals(result, case)]
    goals += [
        Goal(name=f"{quantity} {case}: ours to {peer}", value=result.ratio(case, _OURS, peer, quantity), limit=0.5)
        for case in cases
        if case.startswith("payload")
        for quantity in ("decode", "encode")
        for peer in (_TWO_STEPS, _GOOGLE_DICT)
    ]
    return dataclasses.replace(result, goals=tuple(goals))


def _micros(case: str, subject: str, quantity: str, seconds: list[float]) -> Measurement:
    values = tuple(each * 1e6 for each in seconds)
    return Measurement(case=case, subject=subject, quantity=quantity, unit="µs", values=values)


def _goals(result: Result, case: str) -> list[Goal]:
    def ratio(subject: str, to: str, quantity: str) -> float:
        return result.ratio(case, subject, to, quantity)

    faster = [
        Goal(
            name=f"{quantity} {case}: {_BETTERPROTO2} to ours",
            value=ratio(_BETTERPROTO2, _OURS, quantity),
            limit=15,
            at_least=True,
        )
        for quantity in ("decode", "encode")
    ]
    slower = [
        Goal(name=f"{quantity} {case}: ours to {peer}", value=ratio(_OURS, peer, quantity), limit=limit)
        for quantity, peer, limit in (
            ("decode", _GOOGLE, 1.0),
            ("decode", _PROTOBUF_PY, 1.5),
            ("round trip", _PYDANTIC, 1.0),
            ("size", _PYDANTIC, 0.5),
        )
    ]
    beside = [
        Goal(name=f"{quantity} {case}: ours to {_FASTPROTO}", value=ratio(_OURS, _FASTPROTO, quantity), limit=0.5)
        for quantity in ("decode", "encode")
        if any(found.case == case and found.subject == _FASTPROTO for found in result.measurements)
    ]
    return [*faster, *slower, *beside]


class _Peers:
    """One message in the hands of every codec."""

    def __init__(self, message: betterproto2.Message, folder: Path) -> None:
        self.message = message
        self.data = codec.encode(message)
        self._google: type[Any] = codec.proto_class(type(message))
        descriptor: Any = self._google.DESCRIPTOR
        self._betterproto = betterproto_class(descriptor, folder)
        self._protobuf_py = protobuf_py_class(descriptor)
        self._fastproto = fastproto_class(descriptor, folder)
        self._pydantic = pydantic_model(descriptor, folder)
        self._model = self._pydantic.model_validate(python_of(self._google.FromString(self.data)))
        self.json = self._model.model_dump_json().encode()

    def decoders(self) -> _Calls:
        """Bytes to objects with all their values."""
        message, data, json = self.message, self.data, self.json
        cls: type[betterproto2.Message] = type(message)
        google, other, protobuf_py, pydantic = self._google, self._betterproto, self._protobuf_py, self._pydantic
        read = reader_of(google.DESCRIPTOR)
        assert codec.decode(cls, data) == cls.parse(data) == message
        assert pydantic.model_validate_json(json) == self._model
        fastproto = self._fastproto
        with_fastproto: _Calls = {_FASTPROTO: lambda: fastproto.from_bytes(data)} if fastproto is not None else {}
        return {
            **with_fastproto,
            _OURS: lambda: codec.decode(cls, data),
            _BETTERPROTO2: lambda: cls.parse(data),
            _BETTERPROTO: lambda: other().parse(data),
            _PROTOBUF_PY: lambda: protobuf_py.from_binary(data),
            _GOOGLE: lambda: read(google.FromString(data)),
            _GOOGLE_ALONE: lambda: google.FromString(data),
            _PYDANTIC: lambda: pydantic.model_validate_json(json),
        }

    def encoders(self) -> _Calls:
        """Objects to bytes; each has its objects in hand."""
        message, google, model = self.message, self._google, self._model
        there = google.FromString(self.data)
        plain = plain_of(there)
        other = self._betterproto().parse(self.data)
        of_protobuf_py = self._protobuf_py.from_binary(self.data)
        for encoded in (bytes(message), bytes(other), of_protobuf_py.to_binary()):
            assert google.FromString(encoded) == google(**plain) == there
        with_fastproto: _Calls = {}
        if self._fastproto is not None:
            of_fastproto = self._fastproto.from_bytes(self.data)
            assert google.FromString(of_fastproto.to_bytes()) == there
            with_fastproto[_FASTPROTO] = of_fastproto.to_bytes
        return {
            **with_fastproto,
            _OURS: lambda: codec.encode(message),
            _BETTERPROTO2: lambda: bytes(message),
            _BETTERPROTO: lambda: bytes(other),
            _PROTOBUF_PY: of_protobuf_py.to_binary,
            _GOOGLE: lambda: google(**plain).SerializeToString(),
            _GOOGLE_ALONE: there.SerializeToString,
            _PYDANTIC: lambda: model.model_dump_json().encode(),
        }


def _payload_readers(data: bytes) -> _Calls:
    """Bytes of a unit to the unit and a dict of its payload."""
    unit, google = gen.ContextUnit, codec.proto_class(gen.ContextUnit)

    def two_steps() -> object:
        read = codec.decode(unit, data)
        assert read.payload is not None
        return codec.struct_to_dict(read.payload)

    def by_google() -> object:
        read: Any = google.FromString(data)
        return json_format.MessageToDict(read.payload)

    # Without the extension the two steps are what the service takes.
    ours = (lambda: codec.decode_apart(unit, data, "payload")) if IS_NATIVE else two_steps
    return {_OURS: ours, _TWO_STEPS: two_steps, _GOOGLE_DICT: by_google}


def _payload_writers(data: bytes) -> _Calls:
    """A unit and a dict of its payload to bytes."""
    unit, google = codec.decode(gen.ContextUnit, data), codec.proto_class(gen.ContextUnit).FromString(data)
    assert unit.payload is not None
    payload, unit.payload = codec.struct_to_dict(unit.payload), None
    rest: Any = google
    rest.ClearField("payload")

    def two_steps() -> object:
        whole = dataclasses.replace(unit, payload=codec.dict_to_struct(payload))
        return codec.encode(whole)

    def by_google() -> object:
        whole: Any = type(rest)()
        whole.CopyFrom(rest)
        whole.payload.update(payload)
        return whole.SerializeToString()

    ours = (lambda: codec.encode_apart(unit, "payload", payload)) if IS_NATIVE else two_steps
    assert type(rest).FromString(ours()) == type(rest).FromString(data)
    return {_OURS: ours, _TWO_STEPS: two_steps, _GOOGLE_DICT: by_google}


def _page() -> betterproto2.Message:
    """Products as catalogues have them: text, tags, a map, optional fields, a time, nested money."""
    page = page_module()
    since = datetime(2024, 5, 17, 9, 30, 12, tzinfo=UTC)
    products = [
        page.Product(
            sku=f"AS-TENT-{number:06}-{number % 3}",
            title=f"Gavarnie Light Tent {number}",
            brand="Ålestrand" if number % 4 else "Nordpeak",
            summary="Freestanding, three seasons, two entrances",
            price=page.Money(currency_code="EUR", units=120 + number % 300, nanos=950_000_000),
            compare_at_price=page.Money(currency_code="EUR", units=499) if number % 3 == 0 else None,
            tags=["outdoor", "tents", f"season-{number % 3}"],
            options={"size": "L" if number % 2 else "M", "colour": "moss"},
            stock=number % 120 if number % 5 else None,
            weight=1.2 + number / 1000 if number % 2 else None,
            availability=page.Availability(1 + number % 2),
            updated_at=since + timedelta(minutes=number),
            listed=number % 7 != 0,
        )
        for number in range(_PRODUCTS)
    ]
    made: betterproto2.Message = page.ProductPage(products=products)
    return made


def _harvested_page(folder: Path) -> ProductPage:
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


def _large_unit() -> gen.ContextUnit:
    """A payload of many small objects, as rows that somebody sends along."""
    rows = [{"sku": f"AS-{number}", "stock": number % 90, "listed": number % 7 != 0} for number in range(20_000)]
    return ContextUnit(payload={"rows": rows}).to_dataclass()
