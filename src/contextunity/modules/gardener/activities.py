"""The activities of the gardener module: generated dataclasses in and out, idempotent."""

from __future__ import annotations

import contextlib
import time

from contextunity.gen.contextunity.core import UnitMetrics
from contextunity.gen.contextunity.gardener.v1 import (
    EnrichBatchRequest,
    EnrichBatchResponse,
    GetRulesRequest,
    GetRulesResponse,
)
from contextunity.gen.contextunity.gardener.v1 import gardener_temporal as contract
from contextunity.gen.contextunity.harvest.v1 import ListOfEnrichments, ListOfProductsToEnrich, PackedEnrichments
from temporalio.exceptions import ApplicationError

from contextunity.core import CodecError, context
from contextunity.core.packing import pack, unpack

from .enricher import EnricherError
from .resources import current

__all__ = ["enrich_batch", "get_rules"]

_DEFAULT_TENANT = "default"


@contract.get_rules.defn
async def get_rules(request: GetRulesRequest) -> GetRulesResponse:
    """Return the version of this worker's rules."""
    enricher = current().enricher
    return GetRulesResponse(version=enricher.version, quick=enricher.is_quick)


@contract.enrich_batch.defn
async def enrich_batch(request: EnrichBatchRequest) -> EnrichBatchResponse:
    """Enrich a batch of products; the tenant is that of the task's context."""
    resources, tenant_id = current(), context.current().tenant_id or _DEFAULT_TENANT
    began = time.monotonic()
    try:
        products = unpack(ListOfProductsToEnrich, b"" if request.products is None else request.products.data).products
    except CodecError as error:
        raise ApplicationError(f"packed products: {error}", type="RequestInvalid", non_retryable=True) from error
    with contextlib.nullcontext() if resources.calls is None else resources.calls.hold(tenant=tenant_id):
        try:
            made = await resources.enricher.enrich(tenant_id, products)
        except EnricherError as error:
            raise ApplicationError(str(error), type=error.type, non_retryable=not error.retryable) from error
    return EnrichBatchResponse(
        enrichments=PackedEnrichments(
            count=len(made.enrichments), data=pack(ListOfEnrichments(enrichments=made.enrichments))
        ),
        rules_version=resources.enricher.version,
        metrics=UnitMetrics(
            latency_ms=round(1000 * (time.monotonic() - began)),
            cost_usd=made.cost_usd,
            tokens_used=made.tokens_used,
        ),
    )
