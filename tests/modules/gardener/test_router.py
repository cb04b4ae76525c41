"""Enriching by a router: a real gRPC server in that role is quick, slow, failing, refusing, and answers nonsense."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import pytest_asyncio
from contextunity.gen.contextunity.core import UnitMetrics
from contextunity.gen.contextunity.gardener.v1 import EnrichBatchRequest
from contextunity.gen.contextunity.harvest.v1 import (
    Enrichment,
    ListOfEnrichments,
    ListOfProductsToEnrich,
    PackedProducts,
    ProductToEnrich,
)
from contextunity.gen.contextunity.router import router_pb2_grpc
from pydantic import ValidationError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from contextunity.core import ContextUnit, worker_pb2
from contextunity.core.context import TaskContext, using
from contextunity.core.packing import pack, unpack
from contextunity.modules.gardener.activities import enrich_batch, get_rules
from contextunity.modules.gardener.resources import lifespan
from contextunity.modules.gardener.settings import GardenerSettings
from contextunity.worker.core.registry import ModuleContext
from contextunity.worker.temporal.concurrency import LIMIT_REACHED

_TRACE = "0b1e8f2e-27c5-4a60-8b36-3c7e4f5a6b7c"
_Answer = Callable[[ContextUnit], Any]


class Router(router_pb2_grpc.RouterServiceServicer):
    """A router that answers as a test wants it to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: _Answer = lambda unit: {"enrichments": []}
        self.status: grpc.StatusCode | None = None
        self.metrics: UnitMetrics | None = None
        self.gate: asyncio.Event | None = None
        self.asked = list[ContextUnit]()
        self.tokens = list[str]()
        self.port = 0
        self._asked_again = asyncio.Event()

    async def has_been_asked(self, times: int) -> None:
        """Waits until that many calls have come."""
        async with asyncio.timeout(30):
            while len(self.asked) < times:
                self._asked_again.clear()
                await self._asked_again.wait()

    async def ExecuteAgent(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract names it so
        unit = ContextUnit.from_protobuf(request)
        self.asked.append(unit)
        self._asked_again.set()
        self.tokens.append(dict(context.invocation_metadata()).get("authorization", ""))
        if self.gate is not None:
            await self.gate.wait()
        if self.status is not None:
            await context.abort(self.status, "as the test wants it")
        answer = ContextUnit(payload=self.answer(unit), parent_unit_id=unit.unit_id, metrics=self.metrics)
        return answer.to_protobuf(worker_pb2)


@pytest_asyncio.fixture
async def router() -> AsyncIterator[Router]:
    servicer, server = Router(), grpc.aio.server()
    router_pb2_grpc.add_RouterServiceServicer_to_server(servicer, server)
    servicer.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer
    await server.stop(None)


@contextlib.asynccontextmanager
async def _asking(router: Router, tmp_path: Path, **values: Any) -> AsyncIterator[None]:
    settings = GardenerSettings(router_url=f"http://127.0.0.1:{router.port}", **values)
    async with lifespan(ModuleContext(settings=settings, data_folder=tmp_path)):
        yield


class Made(NamedTuple):
    """What came of a batch."""

    enrichments: list[Enrichment]
    rules_version: str
    metrics: UnitMetrics | None


_PRODUCTS = [
    ProductToEnrich(supplier_code="s", sku="A", content_hash="h", title="Abisko", categories=["Tents"], images=1),
    ProductToEnrich(supplier_code="s", sku="B", content_hash="h", title="Merino Socks", brand="Nordpfad"),
]


async def _enrich(tenant: str = "acme", products: list[ProductToEnrich] = _PRODUCTS) -> Made:
    context = TaskContext(tenant_id=tenant, trace_id=_TRACE, provenance=["test:caller"])
    packed = PackedProducts(count=len(products), data=pack(ListOfProductsToEnrich(products=products)))
    with using(context):
        response = await ActivityEnvironment().run(enrich_batch, EnrichBatchRequest(products=packed))
    assert response.enrichments is not None
    made = unpack(ListOfEnrichments, response.enrichments.data).enrichments
    return Made(enrichments=made, rules_version=response.rules_version, metrics=response.metrics)


async def _fails(**values: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        await _enrich(**values)
    return caught.value


async def test_its_values_count_and_the_rules_fill_in_the_rest(router: Router, tmp_path: Path) -> None:
    told = {"sku": "A", "category": "tents/tunnel", "colors": ["green", "green"], "size": "2 person", "noise": [1]}
    router.answer = lambda unit: {"enrichments": [told, {"sku": "stranger", "category": "tents"}], "messages": ["hi"]}
    router.metrics = UnitMetrics(cost_usd=0.25, tokens_used=1200, latency_ms=3)
    async with _asking(router, tmp_path, router_tokens={"acme": "secret-token"}):
        response = await _enrich()
        version = (await ActivityEnvironment().run(get_rules, _rules_request())).version
    one, other = response.enrichments
    assert (one.category, one.colors, one.size, one.enricher) == ("tents/tunnel", ["green"], "2 person", "router")
    assert (other.category, other.materials, other.brand, other.enricher) == (
        "socks",
        ["merino wool"],
        "Nordpfad",
        "rules",
    )
    assert response.metrics is not None
    assert (response.metrics.cost_usd, response.metrics.tokens_used) == (0.25, 1200)
    assert response.rules_version == version
    assert version.startswith("router-")


def _rules_request() -> Any:
    from contextunity.gen.contextunity.gardener.v1 import GetRulesRequest

    return GetRulesRequest()


async def test_the_tenant_is_in_the_token_alone(router: Router, tmp_path: Path) -> None:
    router.answer = lambda unit: {"enrichments": [{"sku": "A"}]}
    async with _asking(router, tmp_path, router_tokens={"acme": "secret-token"}):
        await _enrich()
        await _enrich("other")
    assert router.tokens == ["Bearer secret-token", ""]
    [asked, _] = router.asked
    assert asked.payload["agent_id"] == "gardener"
    told: Any = asked.payload["input"]
    assert [product["sku"] for product in told["products"]] == ["A", "B"]
    assert "tents/tunnel" in told["categories"]
    assert "rules_version" in told["metadata"]
    assert "acme" not in str(asked.payload)
    assert (asked.trace_id, asked.provenance) == (_TRACE, ["test:caller", "gardener:enrich"])


@pytest.mark.parametrize(
    ("status", "kind", "final"),
    [
        (grpc.StatusCode.UNAVAILABLE, "RouterUnavailable", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RouterUnavailable", False),
        (grpc.StatusCode.INTERNAL, "RouterUnavailable", False),
        (grpc.StatusCode.UNAUTHENTICATED, "RouterRefused", True),
        (grpc.StatusCode.PERMISSION_DENIED, "RouterRefused", True),
        (grpc.StatusCode.UNIMPLEMENTED, "RouterRefused", True),
    ],
    ids=lambda value: value.name if isinstance(value, grpc.StatusCode) else None,
)
async def test_a_failing_one_is_asked_again_unless_it_refuses(
    router: Router, tmp_path: Path, status: grpc.StatusCode, kind: str, final: bool
) -> None:
    router.status = status
    async with _asking(router, tmp_path):
        error = await _fails()
    assert (error.type, error.non_retryable) == (kind, final)
    assert status.name in error.message
    assert f"127.0.0.1:{router.port}" in error.message


async def test_one_that_is_not_there_is_asked_again(tmp_path: Path, router: Router) -> None:
    # Port 1 belongs to tcpmux, which nobody runs.
    router.port = 1
    async with _asking(router, tmp_path, router_timeout=5):
        error = await _fails()
    assert (error.type, error.non_retryable) == ("RouterUnavailable", False)


async def test_a_slow_one_is_given_up(router: Router, tmp_path: Path) -> None:
    router.gate = asyncio.Event()
    async with _asking(router, tmp_path, router_timeout=0.1):
        error = await _fails()
    router.gate.set()
    assert (error.type, error.non_retryable) == ("RouterTimeout", False)
    assert "did not answer within 0.1 s; set another router_timeout" in error.message


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param({}, "enrichments: field required", id="nothing"),
        pytest.param({"enrichments": "many"}, "enrichments: input should be a valid list, not 'many'", id="no list"),
        pytest.param({"enrichments": [{"category": "tents"}]}, "enrichments[0].sku: field required", id="no sku"),
        pytest.param(
            {"enrichments": [{"sku": "A", "colors": "red"}]}, "enrichments[0].colors: input should be", id="no colours"
        ),
        pytest.param(
            {"enrichments": [{"sku": "A", "size": "x" * 101}]}, "enrichments[0].size: string should have", id="long"
        ),
        pytest.param(
            {"enrichments": [{"sku": "A"}, {"sku": "B", "category": "weapons"}]},
            "enrichments[1].category: 'weapons' is not in the taxonomy",
            id="category of its own",
        ),
        pytest.param({"enrichments": [{"sku": "Z"}]}, "none of the 2 products is among them", id="others"),
    ],
)
async def test_nonsense_is_told_by_its_path_and_asked_again(
    router: Router, tmp_path: Path, answer: dict[str, Any], says: str
) -> None:
    router.answer = lambda unit: answer
    async with _asking(router, tmp_path):
        error = await _fails()
    assert (error.type, error.non_retryable) == ("RouterAnswer", False)
    assert says in error.message


async def test_costs_that_cannot_be_are_nonsense(router: Router, tmp_path: Path) -> None:
    router.answer = lambda unit: {"enrichments": [{"sku": "A"}]}
    router.metrics = UnitMetrics(cost_usd=-1.0)
    async with _asking(router, tmp_path):
        error = await _fails()
    assert error.type == "RouterAnswer"
    assert "cost_usd is -1.0" in error.message


async def test_one_sku_of_two_suppliers_goes_by_the_supplier(router: Router, tmp_path: Path) -> None:
    products = [ProductToEnrich(supplier_code=supplier, sku="A", title="Tent") for supplier in ("s", "t")]
    router.answer = lambda unit: {
        "enrichments": [
            {"sku": "A", "category": "tents/dome"},
            {"sku": "A", "supplier_code": "t", "category": "tents/ridge"},
        ]
    }
    async with _asking(router, tmp_path):
        response = await _enrich(products=products)
    assert [made.category for made in response.enrichments] == ["tents", "tents/ridge"]


async def test_calls_under_way_are_bounded_and_others_give_their_slot_back(router: Router, tmp_path: Path) -> None:
    router.gate = asyncio.Event()
    router.answer = lambda unit: {"enrichments": [{"sku": "A"}]}
    async with _asking(router, tmp_path, router_calls=3, router_calls_per_tenant=2):
        calls = [asyncio.create_task(_enrich(tenant)) for tenant in ("acme", "acme", "other")]
        await router.has_been_asked(3)
        assert (await _fails(tenant="acme")).type == LIMIT_REACHED
        assert (await _fails(tenant="third")).type == LIMIT_REACHED
        router.gate.set()
        assert len(await asyncio.gather(*calls)) == 3
        await _enrich("third")


@pytest.mark.parametrize("url", ["127.0.0.1:50053", "grpc://router", "http://router/path", "http://"])
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValidationError, match="router_url"):
        GardenerSettings(router_url=url)


def test_tokens_are_shown_nowhere() -> None:
    settings = GardenerSettings.model_validate(
        {"router_url": "https://router:443", "router_tokens": {"acme": "s3cret"}}
    )
    assert "s3cret" not in f"{settings} {settings!r} {settings.model_dump()}"


async def test_what_is_not_packed_products_is_refused(tmp_path: Path, router: Router) -> None:
    async with _asking(router, tmp_path):
        for data, says in (
            (b"nonsense", "are not compressed by zlib"),
            (pack(ListOfProductsToEnrich())[:-3], "break off"),
        ):
            request = EnrichBatchRequest(products=PackedProducts(count=1, data=data))
            with pytest.raises(ApplicationError, match=says) as caught:
                await ActivityEnvironment().run(enrich_batch, request)
            assert (caught.value.type, caught.value.non_retryable) == ("RequestInvalid", True)
