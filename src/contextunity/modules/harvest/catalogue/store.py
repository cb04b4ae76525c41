"""Catalogue: the class through which the harvest module and its users access the catalogue's database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from types import TracebackType

from contextunity.gen.contextunity.harvest.v1 import (
    Enrichment,
    EnrichmentCursor,
    Feed,
    FeedCursor,
    HarvestIncomplete,
    PageRef,
    Product,
    ProductPage,
    ProductToEnrich,
    RawPage,
    RejectedRow,
    RowSeverity,
)
from sqlalchemy import func, select

from contextunity.core.codec import decode
from contextunity.core.packing import pack
from contextunity.modules.harvest.catalogue import enrichments, harvests, pages, rejected_rows, sync, tables
from contextunity.modules.harvest.catalogue.database import Database
from contextunity.modules.harvest.catalogue.enrichments import EnrichedRow
from contextunity.modules.harvest.catalogue.harvests import HarvestTotals, MissingProducts, SyncCounts
from contextunity.modules.harvest.catalogue.pages import CurrentReading, FetchedFrom
from contextunity.modules.harvest.catalogue.products import decimal_price, product_from_json, replace_nul
from contextunity.modules.harvest.catalogue.tables import products, suppliers

__all__ = ["Catalogue", "CatalogueRow"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueRow:
    """A product for display in a table; `Catalogue.get` returns the complete product."""

    sku: str
    """Stock keeping unit."""
    title: str
    """Title, including the values of the variant."""
    brand: str
    """Brand or vendor. Empty means unknown."""
    price: Decimal | None
    """Exact price. None means that the product has no price."""
    currency_code: str
    """ISO 4217 code of the price. Empty without a price."""
    stock: int | None
    """Pieces in stock. None means unknown."""
    availability: str
    """in_stock, out_of_stock, preorder or backorder. Empty means unknown."""
    updated_at: datetime
    """Time of the last change of its content, UTC."""
    publication: str
    """active, draft, archived or unpublished. Empty means unknown."""
    delisted_at: datetime | None
    """Time when it was marked as no longer listed, UTC. None means that it is listed."""


class Catalogue:
    """Products of every tenant and supplier, and the pages of running harvests.

    Any number of threads may share it, and any number of processes may open it. Every method is one transaction, except
    forget_harvests and trim_rejected. Each of them raises CatalogueError if the database rejects it, or its subclass
    CatalogueUnavailable if a later retry may help. A name that is empty, longer than 200 bytes or has a NUL character
    is a CatalogueError as well.

    Attributes:
        url_for_display: database URL without its password.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.url_for_display = database.shown

    @classmethod
    def open(cls, url: str) -> Catalogue:
        """Open a catalogue, and create missing tables.

        Args:
            url: `sqlite:///path` (the folder is created), or `postgresql://user:password@host/database`; `postgres://`
                and `postgresql+psycopg://` are equivalent.

        Raises:
            CatalogueError: the URL, the file, the driver or the existing tables cannot be used.
            CatalogueUnavailable: the server cannot be reached, or is busy.
        """
        database = Database.open(url)
        try:
            tables.prepare_schema(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        """Close all connections. Closing twice is allowed."""
        self._database.close()

    def __enter__(self) -> Catalogue:
        """Return the catalogue, which the end of the block closes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        self.close()

    # Staging: pages between activities.

    def put_raw_page(self, ref: PageRef, page: RawPage, fetched: FetchedFrom | None = None) -> None:
        """Stage a fetched page, and replace what was staged for it before. The first page begins its harvest.

        Args:
            ref: the page.
            page: its rows.
            fetched: source of the rows, which is recorded and compared with later payloads. None records nothing, for
                pages that no activity fetched.

        Raises:
            HarvestSuperseded: a later harvest of the same tenant and supplier has begun.
            HarvestMismatch: the harvest belongs to another workflow or another version of the feed, or this is a late
                retry whose result differs from that of the attempt that the next page continues.
        """
        compressed = self._pack(ref, page)
        with self._database.writing() as connection:
            pages.put_page(self._database, connection, ref, "raw", compressed)
            if fetched is not None:
                pages.record_fetch(self._database, connection, ref, fetched)

    def get_raw_page(self, ref: PageRef) -> RawPage:
        """Return a fetched page. It stays until the page is synced, so that the transformation can be retried.

        Raises:
            PageGone: the page was already synced.
            PageMissing: it was never staged, or its harvest has ended.
        """
        return decode(RawPage, self._get(ref, "raw"))

    def put_product_page(
        self, ref: PageRef, page: ProductPage, *, read_by: str = "", holds_until: datetime | None = None
    ) -> None:
        """Stage a transformed page, and replace what was staged for it before.

        Args:
            ref: the page.
            page: its products and rejected rows.
            read_by: what it was transformed by, which is recorded; see Resources.read_by.
            holds_until: time at which the result would differ for the same feed; None for never.

        Raises:
            HarvestSuperseded: a later harvest of the same tenant and supplier has begun.
        """
        compressed = self._pack(ref, page)
        with self._database.writing() as connection:
            pages.put_page(self._database, connection, ref, "product", compressed)
            pages.record_transform(connection, ref, read_by=read_by, holds_until=holds_until)

    def get_product_page(self, ref: PageRef) -> ProductPage:
        """Return a transformed page.

        Raises:
            PageGone: the page was already synced.
            PageMissing: it was never staged, or its harvest has ended.
        """
        return decode(ProductPage, self._get(ref, "product"))

    # Checks of payloads against the record, because their sender can change them.

    def check_fetch(self, ref: PageRef, workflow_id: str, feed: Feed | None, cursor: FeedCursor | None) -> float:
        """Check the request of a fetch against the record.

        The first page has no record yet. Every other page must begin at the end of the page before, in the feed of the
        first page, and belong to the workflow that fetched the page before. A harvest from an earlier release has no
        record; its staged and synced pages are trusted.

        Args:
            ref: the page to fetch.
            workflow_id: id of the activity's workflow, from Temporal.
            feed: the request's feed; its address and currency are ignored.
            cursor: the request's start position.

        Returns:
            Seconds spent on reading the feed so far.

        Raises:
            HarvestMismatch: the request differs from the record.
        """
        with self._database.reading() as connection:
            return pages.check_fetch(self._database, connection, ref, workflow_id, feed, cursor)

    def check_page(self, ref: PageRef, workflow_id: str) -> None:
        """Check a request about a fetched page against the record: the page must belong to the workflow.

        Raises:
            HarvestMismatch: the request differs from the record.
        """
        with self._database.reading() as connection:
            pages.check_page(self._database, connection, ref, workflow_id)

    def check_last(self, ref: PageRef, workflow_id: str, *, complete: bool) -> None:
        """Check against the record that a page is the last one of its harvest.

        Every page before it must be synced, none after it fetched, and it must be the end of the feed if the harvest is
        reported as complete.

        Raises:
            HarvestMismatch: the request differs from the record.
        """
        with self._database.reading() as connection:
            pages.check_last(self._database, connection, ref, workflow_id, complete=complete)

    def find_current_reading(self, ref: PageRef, workflow_id: str, read_by: str) -> CurrentReading | None:
        """Return the reading that is still valid if the feed has not changed; None if the feed must be read anyway.

        That is the reading of the newest harvest, or the one that it found unchanged: complete, with the same rules and
        settings, and still valid. If another attempt of this harvest has recorded it, it is returned again.

        Args:
            ref: the first page of a harvest.
            workflow_id: id of the activity's workflow, as for check_fetch.
            read_by: what the feed would be read by; see Resources.read_by.

        Raises:
            HarvestMismatch: the harvest belongs to another workflow.
        """
        with self._database.reading() as connection:
            return pages.find_current_reading(self._database, connection, ref, workflow_id, read_by)

    def finish_unchanged(self, ref: PageRef, workflow_id: str, standing: CurrentReading) -> HarvestTotals:
        """Record a harvest that found the feed unchanged as begun and finished, and return the counts of the reading.

        Raises:
            HarvestMismatch: another harvest has begun meanwhile, or another attempt reads the feed.
        """
        self._check(ref.tenant_id, ref.supplier_code, ref.harvest_id)
        with self._database.writing() as connection:
            return pages.finish_unchanged(self._database, connection, ref, workflow_id, standing)

    # Harvests.

    def take_turn(self, tenant_id: str, harvest_id: str, workflow_id: str, *, limit: int) -> harvests.Turn:
        """Add a harvest to the tenant's queue, unless it is there, and return its position.

        Args:
            tenant_id: tenant of the harvest.
            harvest_id: id of the harvest.
            workflow_id: id of its workflow.
            limit: how many harvests of the tenant may run at once; lowering it does not stop running ones.
        """
        harvests.check_names(self._database, tenant_id=tenant_id, harvest_id=harvest_id)
        with self._database.writing() as connection:
            return harvests.take_turn(self._database, connection, tenant_id, harvest_id, workflow_id, limit)

    def end_turn(self, tenant_id: str, harvest_id: str) -> None:
        """Remove a harvest from the tenant's queue at its end. Ending twice is allowed."""
        with self._database.writing() as connection:
            harvests.end_turn(connection, tenant_id, harvest_id)

    def begin_harvest(self, tenant_id: str, supplier_code: str, harvest_id: str) -> None:
        """Make a harvest the one that may write. Staging its first page does so too; beginning twice is allowed.

        Raises:
            HarvestSuperseded: it has begun before, and another one of the same tenant and supplier after it.
        """
        self._check(tenant_id, supplier_code, harvest_id)
        with self._database.writing() as connection:
            harvests.begin_harvest(self._database, connection, tenant_id, supplier_code, harvest_id)

    def sync_page(self, ref: PageRef) -> SyncCounts:
        """Write a staged page into the catalogue, in one transaction. Sync pages in the order of the feed.

        A SKU of an earlier row of the same harvest is rejected (`duplicate_sku`, with the line of the first row), and
        so is an invalid SKU (`missing_sku`, or `sku_too_long` above 500 characters). For a page that is already
        synced, the recorded counts are returned and nothing is changed.

        Raises:
            HarvestSuperseded: a later harvest of the same tenant and supplier has begun.
            PageMissing: its products are not staged.
        """
        self._check(ref.tenant_id, ref.supplier_code, ref.harvest_id)
        with self._database.writing() as connection:
            return sync.sync_page(self._database, connection, ref)

    def find_incomplete(self, tenant_id: str, supplier_code: str, harvest_id: str) -> tuple[HarvestIncomplete, str]:
        """Return what is recorded as missing of a harvest's feed, and the text for people; UNSPECIFIED for nothing."""
        with self._database.reading() as connection:
            return harvests.find_incomplete(connection, tenant_id, supplier_code, harvest_id)

    def count_missing_products(self, tenant_id: str, supplier_code: str, harvest_id: str) -> MissingProducts:
        """Count what finish_harvest would mark if the harvest were complete; zero after it has."""
        with self._database.reading() as connection:
            return harvests.count_missing_products(connection, tenant_id, supplier_code, harvest_id)

    def finish_harvest(self, tenant_id: str, supplier_code: str, harvest_id: str, *, complete: bool) -> int:
        """Mark the products that a complete harvest has not seen, and delete staged pages of it and earlier harvests.

        Args:
            tenant_id: tenant of the catalogue.
            supplier_code: the supplier.
            harvest_id: id of the harvest.
            complete: whether the whole feed was synced; otherwise nothing is marked.

        Returns:
            Number of newly marked products. Finishing again returns the same number.

        Raises:
            HarvestSuperseded: it is not finished, and a later harvest has begun.
        """
        self._check(tenant_id, supplier_code, harvest_id)
        with self._database.writing() as connection:
            return harvests.finish_harvest(
                self._database, connection, tenant_id, supplier_code, harvest_id, complete=complete
            )

    def forget_harvests(self, tenant_id: str, supplier_code: str, *, keep: int) -> int:
        """Delete the rejected rows and the pages' counts of all but the newest harvests, each in its own transaction.

        Products and the record of each harvest, with its times, are kept.

        Args:
            tenant_id: tenant of the catalogue.
            supplier_code: the supplier.
            keep: how many harvests to keep, at least 1; the running one counts.

        Returns:
            Number of harvests of which something was deleted.
        """
        if keep < 1:
            raise ValueError(f"keep is {keep}; it must be at least 1, for the newest harvest")
        with self._database.reading() as connection:
            old = harvests.old_harvests(connection, tenant_id, supplier_code, keep=keep)
        forgotten = 0
        for harvest_id in old:
            with self._database.writing() as connection:
                forgotten += harvests.forget_harvest(connection, tenant_id, supplier_code, harvest_id)
        return forgotten

    def trim_rejected(self, ref: PageRef, budget: int) -> list[str]:
        """Delete a tenant's rejected rows above a limit of bytes: those of the oldest harvests first.

        Those of the running harvest are kept; if they alone exceed the limit, its last page's are deleted. Counts stay.

        Args:
            ref: the page that was synced last.
            budget: maximum bytes of the tenant's rejected rows.

        Returns:
            The harvests whose rows were deleted.
        """
        return rejected_rows.trim_rejected(self._database, ref, budget)

    def dropped_rows(self, tenant_id: str, supplier_code: str, harvest_id: str) -> int:
        """Count the rows of a harvest that `trim_rejected` deleted."""
        with self._database.reading() as connection:
            return rejected_rows.dropped_rows(connection, tenant_id, supplier_code, harvest_id)

    def counts(self, tenant_id: str, supplier_code: str, harvest_id: str) -> HarvestTotals:
        """Return the sum of the synced pages of a harvest; all zero if there are none."""
        with self._database.reading() as connection:
            return harvests.harvest_totals(connection, tenant_id, supplier_code, harvest_id)

    # Reading.

    def get(self, tenant_id: str, supplier_code: str, sku: str) -> Product | None:
        """Return a product, listed or not; None if the catalogue does not have it."""
        with self._database.reading() as connection:
            row = connection.execute(
                select(products.c.data, products.c.first_line).where(
                    harvests.in_catalogue(products, tenant_id, supplier_code), products.c.sku == replace_nul(sku)
                )
            ).one_or_none()
        if row is None:
            return None
        product = product_from_json(row.data)
        product.line = row.first_line
        return decode(Product, product.SerializeToString())

    def suppliers(self, tenant_id: str) -> list[str]:
        """Return the suppliers of a tenant, sorted."""
        with self._database.reading() as connection:
            code = suppliers.c.supplier_code
            return list(connection.scalars(select(code).where(suppliers.c.tenant_id == tenant_id).order_by(code)))

    def count(self, tenant_id: str, supplier_code: str, *, delisted: bool | None = None) -> int:
        """Count the products of a supplier.

        Args:
            tenant_id: tenant of the catalogue.
            supplier_code: the supplier.
            delisted: True counts those marked as no longer listed, False the others, None all.
        """
        statement = select(func.count()).where(harvests.in_catalogue(products, tenant_id, supplier_code))
        if delisted is not None:
            marked = products.c.delisted_at
            statement = statement.where(marked.is_not(None) if delisted else marked.is_(None))
        with self._database.reading() as connection:
            return connection.scalar(statement) or 0

    def sample(self, tenant_id: str, supplier_code: str, limit: int = 5) -> list[CatalogueRow]:
        """Return up to `limit` listed products for display, ordered by SKU."""
        columns = [products.c[each.name] for each in fields(CatalogueRow) if each.name != "price"]
        statement = (
            select(*columns, products.c.price_units, products.c.price_nanos)
            .where(
                harvests.in_catalogue(products, tenant_id, supplier_code),
                products.c.delisted_at.is_(None),
                products.c.publication.in_(("", "active")),
            )
            .order_by(products.c.sku)
            .limit(limit)
        )
        with self._database.reading() as connection:
            found = connection.execute(statement).all()
        return [
            CatalogueRow(
                price=decimal_price(row.price_units, row.price_nanos),
                **{column.name: getattr(row, column.name) for column in columns},
            )
            for row in found
        ]

    def rejected(
        self,
        tenant_id: str,
        supplier_code: str,
        harvest_id: str,
        limit: int = 100,
        *,
        severity: RowSeverity = RowSeverity.REJECTED,
    ) -> list[RejectedRow]:
        """Return up to `limit` rejected rows of a harvest, or warnings about used rows, in the feed's order."""
        with self._database.reading() as connection:
            return rejected_rows.list_rejected(connection, tenant_id, supplier_code, harvest_id, limit, severity)

    def newest_harvest(self, tenant_id: str, supplier_code: str) -> str:
        """Return the newest harvest that has read the feed; empty for none."""
        table = tables.harvests.c
        statement = (
            select(table.harvest_id)
            .where(harvests.in_catalogue(tables.harvests, tenant_id, supplier_code), table.unchanged_since.is_(None))
            .order_by(table.started_at.desc(), table.harvest_id.desc())
            .limit(1)
        )
        with self._database.reading() as connection:
            return connection.scalar(statement) or ""

    def reading_of(self, tenant_id: str, supplier_code: str, harvest_id: str) -> str:
        """Return the harvest whose reading a harvest uses: its own, unless it found the feed unchanged."""
        this_harvest = harvests.in_harvest(tables.harvests, tenant_id, supplier_code, harvest_id)
        with self._database.reading() as connection:
            return connection.scalar(select(tables.harvests.c.unchanged_since).where(this_harvest)) or harvest_id

    def page_of_rejected(
        self,
        tenant_id: str,
        supplier_code: str,
        harvest_id: str,
        *,
        reason: str = "",
        severity: RowSeverity = RowSeverity.UNSPECIFIED,
        after: tuple[int, int] | None = None,
        limit: int = 100,
        max_bytes: int = 1024 * 1024,
    ) -> tuple[list[RejectedRow], tuple[int, int] | None]:
        """Return kept rows of a harvest in the order of the feed, and the start of the next page; None at the end.

        Args:
            tenant_id: tenant of the catalogue.
            supplier_code: the supplier.
            harvest_id: id of the harvest.
            reason: reason of the rows; empty for all.
            severity: rejected rows or warnings; UNSPECIFIED for both.
            after: end of the page before.
            limit: maximum number of rows.
            max_bytes: maximum size of their texts; at least one row is returned.
        """
        with self._database.reading() as connection:
            return rejected_rows.page_of_rejected(
                connection,
                tenant_id,
                supplier_code,
                harvest_id,
                reason=reason,
                severity=severity,
                after=after,
                limit=limit,
                max_bytes=max_bytes,
            )

    def rejected_by_reason(
        self,
        tenant_id: str,
        supplier_code: str,
        harvest_id: str,
        *,
        severity: RowSeverity = RowSeverity.REJECTED,
    ) -> dict[str, int]:
        """Count the rejected rows of a harvest, or the warnings about used rows, by reason."""
        with self._database.reading() as connection:
            return rejected_rows.rejected_by_reason(connection, tenant_id, supplier_code, harvest_id, severity)

    # Enrichments.

    def to_enrich(
        self,
        tenant_id: str,
        wanted: enrichments.Wanted,
        *,
        after: EnrichmentCursor | None = None,
        limit: int = 50,
        max_bytes: int = 1024 * 1024,
    ) -> tuple[list[ProductToEnrich], EnrichmentCursor | None]:
        """Return listed products to enrich, ordered by supplier and SKU, and the start of the next page.

        Args:
            tenant_id: tenant of the products.
            wanted: selection of the products.
            after: end of the page before.
            limit: maximum number of products.
            max_bytes: maximum size of the products as messages; at least one product is returned.
        """
        with self._database.reading() as connection:
            return enrichments.to_enrich(connection, tenant_id, wanted, after=after, limit=limit, max_bytes=max_bytes)

    def count_to_enrich(self, tenant_id: str, wanted: enrichments.Wanted) -> int:
        """Count the products on all pages of to_enrich."""
        with self._database.reading() as connection:
            return enrichments.count_to_enrich(connection, tenant_id, wanted)

    def put_enrichments(self, tenant_id: str, found: Sequence[Enrichment], *, rules_version: str) -> int:
        """Write enrichments, replace earlier ones of the products, and return how many products exist.

        Enrichments without a product of the tenant are ignored. Writing again only changes the time.
        """
        with self._database.writing() as connection:
            return enrichments.put_enrichments(self._database, connection, tenant_id, found, rules_version)

    def enriched(self, tenant_id: str, supplier_code: str, limit: int = 5) -> list[EnrichedRow]:
        """Return up to `limit` enriched products for display, ordered by SKU."""
        with self._database.reading() as connection:
            return enrichments.sample_enriched(connection, tenant_id, supplier_code, limit)

    def count_enriched(self, tenant_id: str, supplier_code: str) -> int:
        """Count the enriched products of a supplier, of any version."""
        with self._database.reading() as connection:
            return enrichments.count_enriched(connection, tenant_id, supplier_code)

    def _pack(self, ref: PageRef, page: RawPage | ProductPage) -> bytes:
        self._check(ref.tenant_id, ref.supplier_code, ref.harvest_id)
        # Compress before the database is locked.
        return pack(page)

    def _get(self, ref: PageRef, kind: pages.Kind) -> bytes:
        with self._database.reading() as connection:
            return pages.get_page(self._database, connection, ref, kind)

    def _check(self, tenant_id: str, supplier_code: str, harvest_id: str) -> None:
        harvests.check_names(self._database, tenant_id=tenant_id, supplier_code=supplier_code, harvest_id=harvest_id)
