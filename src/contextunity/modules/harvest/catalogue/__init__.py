"""The catalogue of the harvest module: products of every tenant and supplier, and the pages on their way there."""

from contextunity.modules.harvest.catalogue.errors import (
    CatalogueError,
    CatalogueUnavailable,
    HarvestMismatch,
    HarvestSuperseded,
    PageGone,
    PageMissing,
)
from contextunity.modules.harvest.catalogue.harvests import (
    CatalogueRow,
    FetchedFrom,
    HarvestTotals,
    Standing,
    SyncCounts,
)
from contextunity.modules.harvest.catalogue.store import Catalogue

__all__ = [
    "Catalogue",
    "CatalogueError",
    "CatalogueRow",
    "CatalogueUnavailable",
    "FetchedFrom",
    "HarvestMismatch",
    "HarvestSuperseded",
    "HarvestTotals",
    "PageGone",
    "PageMissing",
    "Standing",
    "SyncCounts",
]
