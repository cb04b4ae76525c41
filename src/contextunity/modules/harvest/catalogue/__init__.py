"""The catalogue of the harvest module: products of every tenant and supplier, and the pages on their way there."""

from contextunity.modules.harvest.catalogue._errors import (
    CatalogueError,
    CatalogueUnavailable,
    HarvestMismatch,
    HarvestSuperseded,
    PageGone,
    PageMissing,
)
from contextunity.modules.harvest.catalogue._store import Catalogue
from contextunity.modules.harvest.catalogue._values import (
    CatalogueRow,
    EnrichedRow,
    FetchedFrom,
    HarvestTotals,
    Standing,
    SyncCounts,
)

__all__ = [
    "Catalogue",
    "CatalogueError",
    "CatalogueRow",
    "CatalogueUnavailable",
    "EnrichedRow",
    "FetchedFrom",
    "HarvestMismatch",
    "HarvestSuperseded",
    "HarvestTotals",
    "PageGone",
    "PageMissing",
    "Standing",
    "SyncCounts",
]
