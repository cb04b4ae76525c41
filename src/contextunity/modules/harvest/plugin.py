"""Register the harvest module with the worker."""

from __future__ import annotations

from contextunity.gen.contextunity.harvest.v1.harvest_temporal import HARVEST_WORKFLOW_NAME

from contextunity.worker.core.registry import ModuleConfig

from .activities import (
    fetch_products,
    list_for_enrichment,
    notify_finished,
    read_rejected,
    sync_to_brain,
    take_turn,
    transform_data,
    write_enrichments,
)
from .checks import check_catalogue
from .errors import FeedLimitError, SupplierUnknownError
from .resources import lifespan
from .settings import BUNDLED_SUPPLIER, HarvestSettings
from .workflows import HarvestWorkflow, ListRejectedWorkflow

__all__ = ["module"]

module = ModuleConfig(
    name="harvest",
    description="Keeps a catalogue in step with the product feeds of suppliers.",
    workflows=[HarvestWorkflow, ListRejectedWorkflow],
    activities=[
        take_turn,
        fetch_products,
        transform_data,
        sync_to_brain,
        notify_finished,
        read_rejected,
        list_for_enrichment,
        write_enrichments,
    ],
    settings=HarvestSettings,
    lifespan=lifespan,
    waiting_slots=lambda settings: settings.max_fetches,
    example={"workflow_type": HARVEST_WORKFLOW_NAME, "supplier_code": BUNDLED_SUPPLIER, "tenant_id": "my_project"},
    statuses={SupplierUnknownError.type: "NOT_FOUND", FeedLimitError.type: "RESOURCE_EXHAUSTED"},
    checks={"catalogue": check_catalogue},
)
