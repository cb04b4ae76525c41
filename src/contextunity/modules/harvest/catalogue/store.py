"""Catalogue: the one class through which the harvest module and its users reach the catalogue's database."""

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


class Catalogue:
    """Products of every tenant and supplier, and the pages of running harvests.

    It may be used from any number of threads, and opened by any number of processes. Every method but forget_harvests
    and trim_rejected is one transaction of its own. Each of them raises CatalogueError where the database refuses, and
    its child CatalogueUnavailable where asking again later may help; a name that is empty, longer than 200 bytes or has
    a NUL character is a CatalogueError as well.

    Attributes:
        url_for_display: database URL without its password.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.url_for_display = database.shown

    @classmethod
    def open(cls, url: str) -> Catalogue:
        """Open a catalogue, and make its tables where there are none.

        Args:
            url: `sqlite:///path` (the folder is created), or `postgresql://user:password@host/database`; `postgres://`
                and `postgresql+psycopg://` mean the same.

        Raises:
            CatalogueError: the URL, the file, the driver or the tables found cannot be used.
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
        """Close all connections. Closing twice does no harm."""
        self._database.close()

    def __enter__(self) -> Catalogue:
        """Give the catalogue itself, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        self.close()

    # Staging: pages on their way from one activity to the next.

    def put_raw_page(self, ref: PageRef, page: RawPage, fetched: FetchedFrom | None = None) -> None:
        """Stage a page as fetched, in place of what was staged for it before. The first one begins its harvest.

        Args:
            ref: which page.
            page: its rows.
            fetched: where they come from, which is recorded: what later activities claim is held against it. Without
                it nothing is, as for pages that no activity fetched.

        Raises:
            HarvestSuperseded: a later harvest of the same tenant and supplier has begun.
            HarvestMismatch: the harvest is another workflow's or of another version of the feed, or this is a late
                repetition that read something else than the attempt that the next page goes on from.
        """
        compressed = self._pack(ref, page)
        with self._database.writing() as connection:
            pages.put_page(self._database, connection, ref, "raw", compressed)
            if fetched is not None:
                pages.record_fetch(self._database, connection, ref, fetched)

    def get_raw_page(self, ref: PageRef) -> RawPage:
        """Give a page as fetched. It stays until the page is synced, so that a transformation can be repeated.

        Raises:
            PageGone: the page was synced already.
            PageMissing: it was never staged, or its harvest is over.
        """
        return decode(RawPage, self._get(ref, "raw"))

    def put_product_page(
        self, ref: PageRef, page: ProductPage, *, read_by: str = "", holds_until: datetime | None = None
    ) -> None:
        """Stage a page as transformed, in place of what was staged for it before.

        Args:
            ref: which page.
            page: its products and rejected rows.
            read_by: what it was transformed by, which is recorded; see Resources.read_by.
            holds_until: when it would give others though the feed is the same; None for never.

        Raises:
            HarvestSuperseded: a later harvest of the same tenant and supplier has begun.
        """
        compressed = self._pack(ref, page)
        with self._database.writing() as connection:
            pages.put_page(self._database, connection, ref, "product", compressed)
            pages.record_transform(connection, ref, read_by=read_by, holds_until=holds_until)

    def get_product_page(self, ref: PageRef) -> ProductPage:
        """Give a page as transformed.

        Raises:
            PageGone: the page was synced already.
            PageMissing: it was never staged, or its harvest is over.
        """
        return decode(ProductPage, self._get(ref, "product"))

    # What payloads claim, held against what was recorded. A payload passes through its sender's hands.

    def check_fetch(self, ref: PageRef, workflow_id: str, feed: Feed | None, cursor: FeedCursor | None) -> float:
        """Hold what the request of a fetch claims against the record.

        The first page claims nothing, since it is fetched to find out. Any other begins where the page before ended, in
        the feed that the first page found, and belongs to the workflow that fetched that one. A harvest that an earlier
        release began has no record; what it staged or synced is believed.

        Args:
            ref: which page is to be fetched.
            workflow_id: id of the workflow that the activity belongs to, as Temporal tells it.
            feed: the feed as the request has it; its address and currency are not looked at.
            cursor: where to begin, as the request has it.

        Returns:
            Seconds that reading the feed took so far.

        Raises:
            HarvestMismatch: it does not agree.
        """
        with self._database.reading() as connection:
            return pages.check_fetch(self._database, connection, ref, workflow_id, feed, cursor)

    def check_page(self, ref: PageRef, workflow_id: str) -> None:
        """Hold a request about a page that was fetched against the record: the page is the workflow's own.

        Raises:
            HarvestMismatch: it does not agree.
        """
        with self._database.reading() as connection:
            pages.check_page(self._database, connection, ref, workflow_id)

    def check_last(self, ref: PageRef, workflow_id: str, *, complete: bool) -> None:
        """Hold the claim that a page is the last one of its harvest against the record.

        Every page before it is synced, none after it was fetched, and the feed ends with it if the harvest is said to
        be complete.

        Raises:
            HarvestMismatch: it does not agree.
        """
        with self._database.reading() as connection:
            pages.check_last(self._database, connection, ref, workflow_id, complete=complete)

    def find_current_reading(self, ref: PageRef, workflow_id: str, read_by: str) -> CurrentReading | None:
        """Give the reading that stands if the feed has not changed; None where the feed must be read in any case.

        That is what the newest harvest read, or what it found unchanged: complete, by the same rules and settings, and
        still holding. Where another attempt of this harvest has kept it already, it is given once more.

        Args:
            ref: the first page of a harvest.
            workflow_id: as for check_fetch.
            read_by: what the feed would be read by; see Resources.read_by.

        Raises:
            HarvestMismatch: the harvest is another workflow's.
        """
        with self._database.reading() as connection:
            return pages.find_current_reading(self._database, connection, ref, workflow_id, read_by)

    def finish_unchanged(self, ref: PageRef, workflow_id: str, standing: CurrentReading) -> HarvestTotals:
        """Record a harvest, begun and finished, that found the feed unchanged, and give the counts of what stands.

        Raises:
            HarvestMismatch: another harvest has begun meanwhile, or another attempt reads the feed.
        """
        self._check(ref.tenant_id, ref.supplier_code, ref.harvest_id)
        with self._database.writing() as connection:
            return pages.finish_unchanged(self._database, connection, ref, workflow_id, standing)

    # Harvests.

    def take_turn(self, tenant_id: str, harvest_id: str, workflow_id: str, *, limit: int) -> harvests.Turn:
        """Put a harvest in the tenant's row, where it is not yet, and tell whether it is its turn.

        Args:
            tenant_id: whose it is.
            harvest_id: which it is.
            workflow_id: id of its workflow.
            limit: how many of the tenant have their turn at once; one that had it keeps it where this is lowered.
        """
        harvests.check_names(self._database, tenant_id=tenant_id, harvest_id=harvest_id)
        with self._database.writing() as connection:
            return harvests.take_turn(self._database, connection, tenant_id, harvest_id, workflow_id, limit)

    def end_turn(self, tenant_id: str, harvest_id: str) -> None:
        """Take a harvest out of the tenant's row: it is over. Ending twice does no harm."""
        with self._database.writing() as connection:
            harvests.end_turn(connection, tenant_id, harvest_id)

    def begin_harvest(self, tenant_id: str, supplier_code: str, harvest_id: str) -> None:
        """Make a harvest the one that may write. Staging its first page does so too; beginning twice does no harm.

        Raises:
            HarvestSuperseded: it has begun before, and another one of the same tenant and supplier since.
        """
        self._check(tenant_id, supplier_code, harvest_id)
        with self._database.writing() as connection:
            harvests.begin_harvest(self._database, connection, tenant_id, supplier_code, harvest_id)

    def sync_page(self, ref: PageRef) -> SyncCounts:
        """Write a staged page into the catalogue, in one transaction. Pages are to be synced in the order of the feed.

        A SKU that an earlier row of the same harvest had is rejected (`duplicate_sku`, naming the first row's line),
        and so is one that cannot be kept (`missing_sku`, `sku_too_long` above 500 characters). A page synced before
        gives its recorded counts and changes nothing.

        Raises:
            HarvestSuperseded: a later harvest of the same tenant and supplier has begun.
            PageMissing: its products are not staged.
        """
        self._check(ref.tenant_id, ref.supplier_code, ref.harvest_id)
        with self._database.writing() as connection:
            return sync.sync_page(self._database, connection, ref)

    def find_incomplete(self, tenant_id: str, supplier_code: str, harvest_id: str) -> tuple[HarvestIncomplete, str]:
        """Give what is recorded as missing of a harvest's feed, and the same for people; else UNSPECIFIED."""
        with self._database.reading() as connection:
            return harvests.find_incomplete(connection, tenant_id, supplier_code, harvest_id)

    def count_missing_products(self, tenant_id: str, supplier_code: str, harvest_id: str) -> MissingProducts:
        """Count what finish_harvest would mark if the harvest were complete; nothing is left once it has."""
        with self._database.reading() as connection:
            return harvests.count_missing_products(connection, tenant_id, supplier_code, harvest_id)

    def finish_harvest(self, tenant_id: str, supplier_code: str, harvest_id: str, *, complete: bool) -> int:
        """Mark the products that a complete harvest has not seen, and clear what it and those before it left staged.

        Args:
            tenant_id: whose catalogue.
            supplier_code: which supplier.
            harvest_id: which harvest.
            complete: whether the whole feed was synced; else nothing is marked.

        Returns:
            How many products were marked; those marked before do not count. Finishing again gives the same number.

        Raises:
            HarvestSuperseded: it is not finished, and a later harvest has begun.
        """
        self._check(tenant_id, supplier_code, harvest_id)
        with self._database.writing() as connection:
            return harvests.finish_harvest(
                self._database, connection, tenant_id, supplier_code, harvest_id, complete=complete
            )

    def forget_harvests(self, tenant_id: str, supplier_code: str, *, keep: int) -> int:
        """Delete the rejected rows and the pages' counts of all harvests but the newest, each in its own transaction.

        Products stay as they are, and so does the record that the harvest was, and when.

        Args:
            tenant_id: whose catalogue.
            supplier_code: which supplier.
            keep: of how many harvests they are kept, from 1; the one under way counts.

        Returns:
            Of how many harvests something was deleted.
        """
        if keep < 1:
            raise ValueError(f"keep is {keep}; at least the newest harvest is kept")
        with self._database.reading() as connection:
            old = harvests.old_harvests(connection, tenant_id, supplier_code, keep=keep)
        forgotten = 0
        for harvest_id in old:
            with self._database.writing() as connection:
                forgotten += harvests.forget_harvest(connection, tenant_id, supplier_code, harvest_id)
        return forgotten

    def trim_rejected(self, ref: PageRef, budget: int) -> list[str]:
        """Delete rejected rows where a tenant's take more bytes than they may: those of the oldest harvests first.

        Those of the harvest under way stay, and where they alone are too many, its last page's go. Counts stay.

        Args:
            ref: the page that was synced last.
            budget: bytes that the rejected rows of the tenant may take.

        Returns:
            The harvests of which rows were deleted.
        """
        return rejected_rows.trim_rejected(self._database, ref, budget)

    def dropped_rows(self, tenant_id: str, supplier_code: str, harvest_id: str) -> int:
        """Count the rows of a harvest that `trim_rejected` deleted."""
        with self._database.reading() as connection:
            return rejected_rows.dropped_rows(connection, tenant_id, supplier_code, harvest_id)

    def counts(self, tenant_id: str, supplier_code: str, harvest_id: str) -> HarvestTotals:
        """Add up the synced pages of a harvest; all zero where there are none."""
        with self._database.reading() as connection:
            return harvests.harvest_totals(connection, tenant_id, supplier_code, harvest_id)

    # Reading.

    def get(self, tenant_id: str, supplier_code: str, sku: str) -> Product | None:
        """Give a product, marked as no longer listed or not; None where the catalogue does not have it."""
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
        """Give the suppliers that a tenant has a catalogue of, sorted."""
        with self._database.reading() as connection:
            code = suppliers.c.supplier_code
            return list(connection.scalars(select(code).where(suppliers.c.tenant_id == tenant_id).order_by(code)))

    def count(self, tenant_id: str, supplier_code: str, *, delisted: bool | None = None) -> int:
        """Count the products of a supplier.

        Args:
            tenant_id: whose catalogue.
            supplier_code: which supplier.
            delisted: True counts those marked as no longer listed, False the others, None all.
        """
        statement = select(func.count()).where(harvests.in_catalogue(products, tenant_id, supplier_code))
        if delisted is not None:
            marked = products.c.delisted_at
            statement = statement.where(marked.is_not(None) if delisted else marked.is_(None))
        with self._database.reading() as connection:
            return connection.scalar(statement) or 0

    def sample(self, tenant_id: str, supplier_code: str, limit: int = 5) -> list[CatalogueRow]:
        """Give up to `limit` listed products for display, in the order of their SKUs."""
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
        """Give up to `limit` rejected rows of a harvest, or warnings about rows that were used, in the feed's order."""
        with self._database.reading() as connection:
            return rejected_rows.list_rejected(connection, tenant_id, supplier_code, harvest_id, limit, severity)

    def newest_harvest(self, tenant_id: str, supplier_code: str) -> str:
        """Give the harvest that began last of those that read the feed; empty where there was none."""
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
        """Give the harvest whose reading of the feed another stands by: its own unless it found it unchanged."""
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
        """Give rows kept of a harvest in the order of the feed, and where the next page begins; None at the end.

        Args:
            tenant_id: whose catalogue.
            supplier_code: which supplier.
            harvest_id: which harvest.
            reason: kept for what; empty for anything.
            severity: rejected rows or warnings; UNSPECIFIED for both.
            after: where the page before ended.
            limit: how many at most.
            max_bytes: of their texts together, at most; one row is always given.
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
        """Count the rejected rows of a harvest, or the warnings about rows that were used, by reason."""
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
        """Give listed products that are to be enriched, by supplier and SKU, and where the next page begins.

        Args:
            tenant_id: whose.
            wanted: which.
            after: where the page before ended.
            limit: how many at most.
            max_bytes: of them together, as messages, at most; one product is always given.
        """
        with self._database.reading() as connection:
            return enrichments.to_enrich(connection, tenant_id, wanted, after=after, limit=limit, max_bytes=max_bytes)

    def count_to_enrich(self, tenant_id: str, wanted: enrichments.Wanted) -> int:
        """Count what to_enrich gives on all its pages."""
        with self._database.reading() as connection:
            return enrichments.count_to_enrich(connection, tenant_id, wanted)

    def put_enrichments(self, tenant_id: str, found: Sequence[Enrichment], *, rules_version: str) -> int:
        """Write enrichments in place of those that the products had, and give how many products there are of them.

        What is of no product of the tenant's is passed over. Writing again changes nothing but the time.
        """
        with self._database.writing() as connection:
            return enrichments.put_enrichments(self._database, connection, tenant_id, found, rules_version)

    def enriched(self, tenant_id: str, supplier_code: str, limit: int = 5) -> list[EnrichedRow]:
        """Give up to `limit` enriched products for display, in the order of their SKUs."""
        with self._database.reading() as connection:
            return enrichments.sample_enriched(connection, tenant_id, supplier_code, limit)

    def count_enriched(self, tenant_id: str, supplier_code: str) -> int:
        """Count the products of a supplier that have an enrichment, of whatever version."""
        with self._database.reading() as connection:
            return enrichments.count_enriched(connection, tenant_id, supplier_code)

    def _pack(self, ref: PageRef, page: RawPage | ProductPage) -> bytes:
        self._check(ref.tenant_id, ref.supplier_code, ref.harvest_id)
        # Compressed before the database is locked.
        return pack(page)

    def _get(self, ref: PageRef, kind: pages.Kind) -> bytes:
        with self._database.reading() as connection:
            return pages.get_page(self._database, connection, ref, kind)

    def _check(self, tenant_id: str, supplier_code: str, harvest_id: str) -> None:
        harvests.check_names(self._database, tenant_id=tenant_id, supplier_code=supplier_code, harvest_id=harvest_id)
