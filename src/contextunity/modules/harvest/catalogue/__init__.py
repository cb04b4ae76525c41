"""The catalogue of the harvest module: products of every tenant and supplier, and the staged pages of harvests."""

from contextunity.modules.harvest.catalogue.enrichments import EnrichedRow
from contextunity.modules.harvest.catalogue.errors import (
    CatalogueError,
    CatalogueUnavailable,
    HarvestMismatch,
    HarvestSuperseded,
    PageGone,
    PageMissing,
)
from contextunity.modules.harvest.catalogue.harvests import HarvestTotals, SyncCounts
from contextunity.modules.harvest.catalogue.pages import CurrentReading, FetchedFrom
from contextunity.modules.harvest.catalogue.store import Catalogue, CatalogueRow

__all__ = [
    "Catalogue",
    "CatalogueError",
    "CatalogueRow",
    "CatalogueUnavailable",
    "CurrentReading",
    "EnrichedRow",
    "FetchedFrom",
    "HarvestMismatch",
    "HarvestSuperseded",
    "HarvestTotals",
    "PageGone",
    "PageMissing",
    "SyncCounts",
]
