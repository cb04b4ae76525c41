"""Staged pages: what one activity leaves for the next, which may run on another machine."""

from __future__ import annotations

import zlib
from typing import Literal

from contextunity.gen.contextunity.harvest.v1 import PageRef
from sqlalchemy import Connection, bindparam, delete, select

from contextunity.modules.harvest.catalogue._database import Database
from contextunity.modules.harvest.catalogue._errors import PageGone, PageMissing
from contextunity.modules.harvest.catalogue._harvests import begin_harvest, given, given_page, recorded_counts
from contextunity.modules.harvest.catalogue._tables import staged_pages

__all__ = ["Kind", "compress_page", "drop_page", "find_page", "get_page", "put_page"]

Kind = Literal["raw", "product"]
"""Whether rows as the feed has them, or after the transformation."""

# Level 1 shrinks a page to about a third; higher levels take several times as long for little more.
_COMPRESSION_LEVEL = 1

_FIND = select(staged_pages.c.data).where(given_page(staged_pages), staged_pages.c.kind == bindparam("of_kind"))
_DROP = delete(staged_pages).where(given_page(staged_pages))


def compress_page(data: bytes) -> bytes:
    """Make the encoded rows of a page small. It takes a while, so it is done before the database is locked."""
    return zlib.compress(data, _COMPRESSION_LEVEL)


def put_page(database: Database, connection: Connection, ref: PageRef, kind: Kind, compressed: bytes) -> None:
    """Stage the rows of a page, encoded and compressed, in place of what was staged for it before.

    Raises:
        HarvestSuperseded: a later harvest of the same tenant and supplier has begun.
    """
    begin_harvest(database, connection, ref.tenant_id, ref.supplier_code, ref.harvest_id)
    row = {
        "tenant_id": ref.tenant_id,
        "supplier_code": ref.supplier_code,
        "harvest_id": ref.harvest_id,
        "page": ref.page,
        "kind": kind,
        "data": compressed,
    }
    connection.execute(database.upsert(staged_pages, "data"), row)


def find_page(connection: Connection, ref: PageRef, kind: Kind) -> bytes | None:
    """Give the encoded rows of a page, or None where none are staged."""
    data = connection.scalar(_FIND, {**given(ref), "of_kind": kind})
    return None if data is None else zlib.decompress(data)


def get_page(database: Database, connection: Connection, ref: PageRef, kind: Kind) -> bytes:
    """Give the encoded rows of a page.

    Raises:
        PageGone: the page was synced already.
        PageMissing: it was never staged, or its harvest is over.
    """
    data = find_page(connection, ref, kind)
    if data is not None:
        return data
    what = f"catalogue {database.shown}: {kind} page {ref.page} of harvest {ref.harvest_id!r}"
    if recorded_counts(connection, ref) is not None:
        raise PageGone(
            f"{what} was synced already, so it is staged no more; ask for its counts instead",
            catalogue=database.shown,
            harvest_id=ref.harvest_id,
            page=ref.page,
        )
    raise PageMissing(
        f"{what} is not staged; fetch it again, or start a new harvest if this one is over",
        catalogue=database.shown,
        harvest_id=ref.harvest_id,
        page=ref.page,
    )


def drop_page(connection: Connection, ref: PageRef) -> None:
    """Clear away both forms of a page."""
    connection.execute(_DROP, given(ref))
