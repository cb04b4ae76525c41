"""Sync of a page: writes its products into the catalogue, in one transaction and only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from contextunity.gen.contextunity.harvest.v1 import PageRef, harvest_pb2
from sqlalchemy import Connection, Select, Text, bindparam, func, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY

from contextunity.modules.harvest.catalogue.database import Database
from contextunity.modules.harvest.catalogue.harvests import (
    SyncCounts,
    given_catalogue,
    lock_catalogue,
    recorded_counts,
    superseded_error,
)
from contextunity.modules.harvest.catalogue.pages import drop_page, get_page
from contextunity.modules.harvest.catalogue.products import (
    ProductRow,
    product_row,
    product_to_json,
    product_values,
    replace_nul,
)
from contextunity.modules.harvest.catalogue.rejected_rows import ROW_BYTES
from contextunity.modules.harvest.catalogue.tables import harvest_pages, products, rejected_rows
from contextunity.modules.harvest.rejects import RejectReason

__all__ = ["sync_page", "write_page"]

# Old versions of SQLite accept at most 999 parameters in a statement.
_LOOKUP_SIZE = 500
# The longest SKU that fits into an index entry of PostgreSQL next to the names of tenant and supplier.
_MAX_SKU_LENGTH = 500
_MAX_RAW_LENGTH = 2_000

_CREATE = products.insert()
_RECORD = harvest_pages.insert()
_REJECT = rejected_rows.insert()
_UPDATE = update(products).where(given_catalogue(products), products.c.sku == bindparam("of_sku"))
_KNOWN = select(
    products.c.sku, products.c.content_hash, products.c.seen_in, products.c.first_line, products.c.delisted_at
).where(given_catalogue(products))
_BY_LIST = _KNOWN.where(products.c.sku.in_(bindparam("skus", expanding=True)))


def _one_by_one() -> Select[Any, Any, Any, Any, Any]:
    # Until PostgreSQL has analyzed a new table, it assumes that every catalogue is tiny: for IN it reads all products
    # of the supplier and compares each with every SKU, so pages get slower and slower. The limit forces it to look up
    # each SKU in the index.
    wanted = func.unnest(bindparam("skus", type_=ARRAY(Text))).table_valued("sku").render_derived(name="wanted")
    found = _KNOWN.where(products.c.sku == wanted.c.sku).limit(1).lateral("found")
    return select(*found.c).select_from(wanted.join(found, true()))


_ONE_BY_ONE = _one_by_one()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """The catalogue's row of a SKU."""

    content_hash: str
    seen_in: str
    first_line: int
    delisted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """The decisions about the rows of a page."""

    created: list[ProductRow] = field(default_factory=list[ProductRow])
    changed: list[ProductRow] = field(default_factory=list[ProductRow])
    unchanged: list[ProductRow] = field(default_factory=list[ProductRow])
    rejected: list[harvest_pb2.RejectedRow] = field(default_factory=list[harvest_pb2.RejectedRow])
    warnings: list[harvest_pb2.RejectedRow] = field(default_factory=list[harvest_pb2.RejectedRow])

    def counts(self) -> SyncCounts:
        return SyncCounts(
            created=len(self.created),
            changed=len(self.changed),
            unchanged=len(self.unchanged),
            rejected=len(self.rejected),
            warnings=len(self.warnings),
        )


def sync_page(database: Database, connection: Connection, ref: PageRef) -> SyncCounts:
    """Write a staged page into the catalogue, record its counts, and delete what was staged for it.

    A page that is already synced is not written again; its recorded counts are returned.

    Raises:
        HarvestSuperseded: a later harvest of the same tenant and supplier has begun.
        PageMissing: its products are not staged.
    """
    current = lock_catalogue(connection, ref.tenant_id, ref.supplier_code)
    counts = recorded_counts(connection, ref)
    if counts is None:
        if current is not None and current != ref.harvest_id:
            raise superseded_error(database, ref.harvest_id, current)
        page = harvest_pb2.ProductPage.FromString(get_page(database, connection, ref, "product"))
        counts = write_page(database, connection, ref, page)
    drop_page(connection, ref)
    return counts


def write_page(database: Database, connection: Connection, ref: PageRef, page: harvest_pb2.ProductPage) -> SyncCounts:
    """Write a page into the catalogue, and record its counts; its harvest has begun, and the page is not yet written.

    `page` is modified: lines are removed from its products.
    """
    plan = _plan_page(database, connection, ref, page)
    counts = plan.counts()
    _write_products(database, connection, ref, plan)
    _write_listed(database, connection, ref, page.rejected)
    rejected = [*plan.rejected, *plan.warnings]
    _write_record(connection, ref, counts, sum(map(_stored_bytes, rejected)))
    _write_rejected(database, connection, ref, rejected)
    return counts


def _plan_page(database: Database, connection: Connection, ref: PageRef, page: harvest_pb2.ProductPage) -> _Plan:
    rows = [product_row(product) for product in page.products]
    known = _find_known(database, connection, ref, rows)
    plan = _Plan()
    plan.rejected.extend(page.rejected)
    plan.warnings.extend(page.warnings)
    first_lines: dict[str, int] = {}
    for row in rows:
        before = known.get(row.sku)
        if not row.sku or len(row.sku) > _MAX_SKU_LENGTH:
            plan.rejected.append(_unusable_sku(row))
        elif row.sku in first_lines:
            plan.rejected.append(_duplicate(row, first_lines[row.sku]))
        elif before is not None and before.seen_in == ref.harvest_id:
            plan.rejected.append(_duplicate(row, before.first_line))
        else:
            first_lines[row.sku] = row.line
            if before is None:
                plan.created.append(row)
            elif before.delisted or before.content_hash != row.content_hash:
                plan.changed.append(row)
            else:
                plan.unchanged.append(row)
    return plan


def _find_known(database: Database, connection: Connection, ref: PageRef, rows: list[ProductRow]) -> dict[str, _Known]:
    statement = _ONE_BY_ONE if database.is_postgresql else _BY_LIST
    key = {"of_tenant": ref.tenant_id, "of_supplier": ref.supplier_code}
    return {
        sku: _Known(content_hash=content_hash, seen_in=seen_in, first_line=first_line, delisted=delisted_at is not None)
        for skus in _slices([row.sku for row in rows])
        for sku, content_hash, seen_in, first_line, delisted_at in connection.execute(statement, {**key, "skus": skus})
    }


def _slices(skus: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(skus), _LOOKUP_SIZE):
        yield skus[start : start + _LOOKUP_SIZE]


def _duplicate(row: ProductRow, first_line: int) -> harvest_pb2.RejectedRow:
    detail = f"sku {row.sku!r} is on line {first_line} already, and the first one counts"
    return _rejected(row, RejectReason.DUPLICATE_SKU, detail)


def _unusable_sku(row: ProductRow) -> harvest_pb2.RejectedRow:
    if not row.sku:
        return _rejected(row, RejectReason.MISSING_SKU, "sku is empty")
    detail = f"sku has {len(row.sku)} characters, and {_MAX_SKU_LENGTH} are the most that can be kept"
    return _rejected(row, RejectReason.SKU_TOO_LONG, detail)


def _rejected(row: ProductRow, reason: RejectReason, detail: str) -> harvest_pb2.RejectedRow:
    raw = product_to_json(row.product)[:_MAX_RAW_LENGTH]
    return harvest_pb2.RejectedRow(
        line=row.line,
        sku=row.sku,
        reason=reason.value,
        detail=detail,
        raw=raw,
        severity=harvest_pb2.ROW_SEVERITY_REJECTED,
    )


def _write_products(database: Database, connection: Connection, ref: PageRef, plan: _Plan) -> None:
    now = datetime.now(UTC)
    seen = {"seen_in": ref.harvest_id}
    created = [{"sku": row.sku, **product_values(row)} for row in plan.created]
    key = {"tenant_id": ref.tenant_id, "supplier_code": ref.supplier_code}
    database.execute_many(connection, _CREATE, created, {**key, **seen, "created_at": now, "updated_at": now})
    key = {"of_tenant": ref.tenant_id, "of_supplier": ref.supplier_code}
    changed = [{"of_sku": row.sku, **product_values(row)} for row in plan.changed]
    database.execute_many(connection, _UPDATE, changed, {**key, **seen, "updated_at": now, "delisted_at": None})
    unchanged = [{"of_sku": row.sku, "first_line": row.line} for row in plan.unchanged]
    database.execute_many(connection, _UPDATE, unchanged, {**key, **seen})


def _write_listed(
    database: Database, connection: Connection, ref: PageRef, rejected: Iterable[harvest_pb2.RejectedRow]
) -> None:
    """Record the products in the page's rejected rows: they are still listed."""
    skus = [{"of_sku": sku} for sku in sorted({replace_nul(row.sku) for row in rejected if row.sku})]
    key = {"of_tenant": ref.tenant_id, "of_supplier": ref.supplier_code}
    database.execute_many(connection, _UPDATE, skus, {**key, "listed_in": ref.harvest_id})


def _page_key(ref: PageRef) -> dict[str, Any]:
    return {
        "tenant_id": ref.tenant_id,
        "supplier_code": ref.supplier_code,
        "harvest_id": ref.harvest_id,
        "page": ref.page,
    }


def _stored_bytes(row: harvest_pb2.RejectedRow) -> int:
    return ROW_BYTES + sum(len(text.encode(errors="replace")) for text in (row.sku, row.reason, row.detail, row.raw))


def _write_record(connection: Connection, ref: PageRef, counts: SyncCounts, rejected_bytes: int) -> None:
    connection.execute(
        _RECORD,
        {
            **_page_key(ref),
            "created": counts.created,
            "changed": counts.changed,
            "unchanged": counts.unchanged,
            "rejected": counts.rejected,
            "warnings": counts.warnings,
            "rejected_bytes": rejected_bytes,
            "synced_at": datetime.now(UTC),
        },
    )


def _write_rejected(
    database: Database, connection: Connection, ref: PageRef, rejected: list[harvest_pb2.RejectedRow]
) -> None:
    rows = [
        {
            "position": position,
            "line": row.line,
            "sku": replace_nul(row.sku),
            "reason": replace_nul(row.reason),
            "detail": replace_nul(row.detail),
            "raw": replace_nul(row.raw),
            # An earlier release may have staged the page; it only had rejected rows.
            "severity": "warning" if row.severity == harvest_pb2.ROW_SEVERITY_WARNING else "rejected",
        }
        for position, row in enumerate(sorted(rejected, key=lambda row: row.line))
    ]
    database.execute_many(connection, _REJECT, rows, _page_key(ref))
