"""RouterEnricher: calls the agent `gardener` of a router service, and fills gaps with the rules.

The router's answer is checked against the taxonomy and the contract's rules as a whole, and rejected with the path of
the violation if it is invalid.
"""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

import grpc
from contextunity.gen.contextunity.harvest.v1 import Enrichment, ProductToEnrich
from contextunity.gen.contextunity.router import router_pb2_grpc
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from contextunity.core import CodecError, ContextUnit, context, worker_pb2

from .enricher import Enriched, EnricherError
from .rules import RuleEnricher, score
from .settings import GardenerSettings

__all__ = [
    "RouterAnswerError",
    "RouterEnricher",
    "RouterRefusedError",
    "RouterTimeoutError",
    "RouterUnavailableError",
]

AGENT_ID = "gardener"
_STEP = "gardener:enrich"
_MAX_MESSAGE_BYTES = 50 * 1024 * 1024
_KEEPALIVE_MS = 60_000
_REFUSALS = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""Base of errors that a retry does not fix."""
_MAX_DETAILS = 300


class RouterUnavailableError(EnricherError):
    """The router is unreachable, or failed."""

    type = "RouterUnavailable"
    retryable = True


class RouterTimeoutError(EnricherError):
    """The router did not answer before the timeout."""

    type = "RouterTimeout"
    retryable = True


class RouterRefusedError(EnricherError):
    """The router rejects the call; a retry does not help."""

    type = "RouterRefused"


class RouterAnswerError(EnricherError):
    """The router's answer is invalid. Agents' answers vary, so it is retried."""

    type = "RouterAnswer"
    retryable = True


_Value = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)]


class _Told(BaseModel):
    """The used fields of an element of `enrichments`; the rules fill in missing ones."""

    model_config = ConfigDict(extra="ignore", strict=True)

    sku: str = Field(min_length=1)
    supplier_code: str | None = None
    category: _Value | None = None
    colors: list[_Value] | None = Field(default=None, max_length=20)
    size: _Value | None = None
    materials: list[_Value] | None = Field(default=None, max_length=20)
    brand: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] | None = None


class _State(BaseModel):
    """The used fields of the agent's final state."""

    model_config = ConfigDict(extra="ignore", strict=True)

    enrichments: list[_Told]


class RouterEnricher:
    """Enriches with a router service.

    Args:
        settings: address and timeout of the router.
        rules: fill in what the answer lacks.
    """

    is_quick = False

    def __init__(self, settings: GardenerSettings, rules: RuleEnricher) -> None:
        assert settings.router_url is not None
        self.version = f"router-{rules.version}"
        self._settings, self._rules = settings, rules
        self._paths = frozenset(rules.taxonomy.paths)
        parts = urlsplit(settings.router_url)
        self._target = parts.netloc
        options = [
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ]
        self._channel = (
            grpc.aio.secure_channel(self._target, grpc.ssl_channel_credentials(), options=options)
            if parts.scheme == "https"
            else grpc.aio.insecure_channel(self._target, options=options)
        )
        self._stub = router_pb2_grpc.RouterServiceStub(self._channel)

    async def close(self) -> None:
        """Close the connection, and cancel running calls."""
        await self._channel.close()

    async def enrich(self, tenant_id: str, products: Sequence[ProductToEnrich]) -> Enriched:
        """Enrich a batch with one call of the agent.

        Raises:
            EnricherError: the call failed, timed out, was rejected, or its answer is invalid.
        """
        answer = await self._ask(tenant_id, products)
        told = self._read(answer, products)
        by_rules = (await self._rules.enrich(tenant_id, products)).enrichments
        for product, made in zip(products, by_rules, strict=True):
            found = told.get((product.supplier_code, product.sku))
            if found is not None:
                _apply(found, made, product)
        metrics = answer.metrics
        cost, tokens = (0.0, 0) if metrics is None else (metrics.cost_usd, metrics.tokens_used)
        if not math.isfinite(cost) or cost < 0 or tokens < 0:
            raise self._nonsense(f"metrics: cost_usd is {cost}, tokens_used is {tokens}; both must be zero or more")
        return Enriched(enrichments=by_rules, cost_usd=cost, tokens_used=tokens)

    async def _ask(self, tenant_id: str, products: Sequence[ProductToEnrich]) -> ContextUnit:
        request = self._request(products).to_protobuf(worker_pb2)
        token = self._settings.router_tokens.get(tenant_id)
        metadata = () if token is None else (("authorization", f"Bearer {token.get_secret_value()}"),)
        try:
            answer: Any = await self._stub.ExecuteAgent(
                request, timeout=self._settings.router_timeout, metadata=metadata
            )
        except grpc.aio.AioRpcError as error:
            raise self._failed(error, token) from (error if token is None else None)
        try:
            return ContextUnit.from_protobuf(answer)
        except CodecError as error:
            raise self._nonsense(str(error)) from error

    def _request(self, products: Sequence[ProductToEnrich]) -> ContextUnit:
        """Return the request. The tenant is only in the token."""
        current = context.current()
        unit = ContextUnit(
            payload={
                "agent_id": AGENT_ID,
                "input": {
                    "products": [_shown(product) for product in products],
                    "categories": [*self._rules.taxonomy.paths],
                    "metadata": {"rules_version": self._rules.version},
                },
            },
            provenance=context.with_step(current.provenance, _STEP),
        )
        if _is_uuid(current.trace_id):
            unit.trace_id = current.trace_id
        if _is_uuid(current.unit_id):
            unit.parent_unit_id = current.unit_id
        return unit

    def _read(self, answer: ContextUnit, products: Sequence[ProductToEnrich]) -> dict[tuple[str, str], _Told]:
        """Return the answer by supplier and SKU; entries without a product of the batch are ignored."""
        try:
            state = _State.model_validate(answer.payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
            raise self._nonsense(f"{where}: {first['msg'].lower()}, not {_short(first['input'])}") from None
        suppliers = Counter(product.sku for product in products)
        own = {(product.supplier_code, product.sku) for product in products}
        by_sku = {product.sku: product.supplier_code for product in products if suppliers[product.sku] == 1}
        found = dict[tuple[str, str], _Told]()
        for place, told in enumerate(state.enrichments):
            if told.category and told.category not in self._paths:
                raise self._nonsense(
                    f"enrichments[{place}].category: {_short(told.category)} is not in the taxonomy; its paths went "
                    "with the request"
                )
            key = (told.supplier_code or by_sku.get(told.sku, ""), told.sku)
            if key in own:
                found[key] = told
        if products and not found:
            raise self._nonsense(f"enrichments: none of the {len(products)} products is among them")
        return found

    def _failed(self, error: grpc.aio.AioRpcError, token: SecretStr | None) -> EnricherError:
        details = error.details() or "no details"
        if token is not None:
            # A router may quote what it rejects.
            details = details.replace(token.get_secret_value(), "***")
        code, details = error.code(), details[:_MAX_DETAILS]
        text = f"the router {self._target} answered {code.name}: {details}"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return RouterTimeoutError(
                f"the router {self._target} did not answer within {self._settings.router_timeout:g} s; set another "
                "router_timeout in [modules.gardener], or make batches smaller"
            )
        if code in _REFUSALS:
            return RouterRefusedError(f"{text}; check router_url and router_tokens in [modules.gardener]")
        return RouterUnavailableError(f"{text}; it is retried")

    def _nonsense(self, reason: str) -> RouterAnswerError:
        return RouterAnswerError(f"the router {self._target} sent an invalid answer: {reason}")


def _apply(told: _Told, made: Enrichment, product: ProductToEnrich) -> None:
    """Replace the rules' values by those of the router."""
    if told.category:
        made.category = told.category
    if told.colors is not None:
        made.colors = list(dict.fromkeys(filter(None, told.colors)))
    if told.size is not None:
        made.size = told.size
    if told.materials is not None:
        made.materials = list(dict.fromkeys(filter(None, told.materials)))
    if told.brand:
        made.brand = told.brand
    made.enricher = "router"
    score(made, product)


def _shown(product: ProductToEnrich) -> dict[str, Any]:
    return {
        "sku": product.sku,
        "supplier_code": product.supplier_code,
        "title": product.title,
        "brand": product.brand,
        "description": product.description,
        "categories": [*product.categories],
        "tags": [*product.tags],
        "options": {**product.options},
    }


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
