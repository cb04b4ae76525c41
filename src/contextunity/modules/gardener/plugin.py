"""Registration of the gardener module."""

from __future__ import annotations

from contextunity.gen.contextunity.gardener.v1.gardener_temporal import ENRICH_WORKFLOW_NAME

from contextunity.worker.core.registry import ModuleConfig

from .activities import enrich_batch, get_rules
from .resources import lifespan
from .settings import GardenerSettings
from .workflows import EnrichWorkflow, GardenerWorkflow

__all__ = ["module"]

module = ModuleConfig(
    name="gardener",
    description="Enriches products that harvests brought: category, attributes, brand, completeness.",
    workflows=[GardenerWorkflow, EnrichWorkflow],
    activities=[get_rules, enrich_batch],
    settings=GardenerSettings,
    lifespan=lifespan,
    # Calls of the router mostly wait; the rules use the processor, and an ordinary slot.
    waiting_slots=lambda settings: settings.router_calls if settings.router_url else 0,
    example={"workflow_type": ENRICH_WORKFLOW_NAME, "supplier_code": "camping-trade", "tenant_id": "my_project"},
)
