"""The values that the catalogue answers with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from contextunity.gen.contextunity.harvest.v1 import Feed, FeedCursor, HarvestIncomplete

__all__ = ["CatalogueRow", "EnrichedRow", "FetchedFrom", "HarvestTotals", "Standing", "SyncCounts", "Unseen"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncCounts:
    """What syncing one page did. The first four numbers add up to the rows of the page."""

    created: int
    """Products the catalogue did not have."""
    changed: int
    """Products it had with other content, or had marked as no longer listed."""
    unchanged: int
    """Products it had just so."""
    rejected: int
    """Rows kept as rejected: those that the transformation refused and those that the sync refused."""
    warnings: int = 0
    """Doubts kept about rows that were used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HarvestTotals:
    """What all synced pages of one harvest add up to. `rows` is the sum of the four numbers after it."""

    pages: int
    """Pages synced."""
    rows: int
    """Rows of those pages, usable or not."""
    created: int
    """Products the catalogue did not have."""
    changed: int
    """Products it had with other content, or had marked as no longer listed."""
    unchanged: int
    """Products it had just so."""
    rejected: int
    """Rows kept as rejected."""
    warnings: int = 0
    """Doubts kept about rows that were used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unseen:
    """What a harvest has not seen of what the feed listed before."""

    unseen: int
    """Products listed before that no row of this harvest names."""
    listed: int
    """Products listed before."""
    unreadable: int = 0
    """Rows of this harvest that name no product, since not even their key could be read, and that the last complete
    harvest did not have: each may be one of the unseen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedFrom:
    """Who fetched a page, and which part of which feed it is."""

    workflow_id: str
    """Id of the workflow that the activity belongs to, as Temporal tells it."""
    feed: Feed
    """The feed; its address and currency are not recorded, since the settings say them."""
    end: FeedCursor
    """Where the page ends."""
    end_of_feed: bool
    """Whether the feed ends there."""
    seconds: float = 0.0
    """What it took to read it."""
    incomplete: HarvestIncomplete = HarvestIncomplete.UNSPECIFIED
    """What is missing of the feed, as the page shows."""
    incomplete_detail: str = ""
    """The same for people."""
    read_by: str = ""
    """What it was fetched by; see Resources.read_by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A complete reading of a feed that the catalogue still shows, so that an unchanged feed need not be read."""

    reading: str
    """The harvest that read it."""
    newest: str
    """The harvest that began last: that one, or one that found the feed unchanged since."""
    version: str
    """As in `Feed.version`."""
    read_at: datetime
    """When reading it began, UTC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueRow:
    """A product as a table shows it to people; `Catalogue.get` gives the whole of it."""

    sku: str
    """Stock keeping unit."""
    title: str
    """Title, with what sets the variant apart."""
    brand: str
    """Brand or vendor. Empty means not told."""
    price: Decimal | None
    """Price, exact. None means that the product came without one."""
    currency_code: str
    """ISO 4217 code of the price. Empty where there is no price."""
    stock: int | None
    """Pieces in stock. None means not told."""
    availability: str
    """in_stock, out_of_stock, preorder or backorder. Empty means not told."""
    updated_at: datetime
    """When its content was last written, UTC."""
    publication: str
    """active, draft, archived or unpublished. Empty means not told."""
    delisted_at: datetime | None
    """When it was marked as no longer listed, UTC. None means that it is listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrichedRow:
    """What was made of a product, for display."""

    supplier_code: str
    """Whose product."""
    sku: str
    """Which."""
    title: str
    """As its supplier has it."""
    category: str
    """Path in the taxonomy; empty where none was found."""
    colors: tuple[str, ...]
    """Colours by their plain names."""
    size: str
    """Size; empty where none was found."""
    materials: tuple[str, ...]
    """Materials."""
    brand: str
    """Brand in one spelling."""
    completeness: int
    """How complete the product is, 0 to 100."""
    missing: tuple[str, ...]
    """What keeps it from 100."""
    rules_version: str
    """By which rules."""
    enricher: str
    """rules or router."""
    is_current: bool
    """Whether the product is still what it was made from."""
