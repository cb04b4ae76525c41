"""Whose turn it is: of a tenant's harvests the first so many are under way, the others wait in a row.

A harvest keeps its turn while its workflow runs, whatever becomes of workers: nothing has to be renewed, and a worker
that is killed holds nothing. Whether a workflow still runs is the Temporal server's to tell; those in front are looked
at when somebody waits for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, func, select, update

from contextunity.modules.harvest.catalogue._database import Database
from contextunity.modules.harvest.catalogue._tables import harvest_turns

__all__ = ["Turn", "end_turn", "take_turn"]

_LOCK = 0x7475726E
"""Class of the advisory locks of tenants, on PostgreSQL."""
_LOOK = timedelta(seconds=10)
"""After which somebody looks again whether a harvest is over, for all who wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Where a harvest stands.

    Attributes:
        is_here: whether it may go on.
        ahead: harvests before it.
        to_check: of those that are under way, the ones that may be over: harvest_id and workflow_id.
    """

    is_here: bool
    ahead: int = 0
    to_check: tuple[tuple[str, str], ...] = ()


def take_turn(
    database: Database, connection: Connection, tenant_id: str, harvest_id: str, workflow_id: str, limit: int
) -> Turn:
    """See `Catalogue.take_turn`."""
    if database.is_postgresql:
        # On SQLite the write lock does the same.
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK, func.hashtext(tenant_id))))
    table, now = harvest_turns.c, datetime.now(UTC)
    mine = table.tenant_id == tenant_id
    # A workflow is one harvest at a time: what went by its id before is over.
    connection.execute(
        delete(harvest_turns).where(mine, table.workflow_id == workflow_id, table.harvest_id != harvest_id)
    )
    place = connection.scalar(select(table.place).where(mine, table.harvest_id == harvest_id))
    if place is None:
        place = (connection.scalar(select(func.max(table.place)).where(mine)) or 0) + 1
        connection.execute(
            harvest_turns.insert().values(
                tenant_id=tenant_id, harvest_id=harvest_id, workflow_id=workflow_id, place=place, checked_at=now
            )
        )
    before = (mine, table.place < place)
    ahead = connection.scalar(select(func.count()).select_from(harvest_turns).where(*before)) or 0
    if ahead < limit:
        return Turn(is_here=True)
    first = connection.execute(
        select(table.harvest_id, table.workflow_id, table.checked_at).where(*before).order_by(table.place).limit(limit)
    ).all()
    due = tuple((row.harvest_id, row.workflow_id) for row in first if row.checked_at <= now - _LOOK)
    if due:
        ids = [each for each, _ in due]
        connection.execute(update(harvest_turns).where(mine, table.harvest_id.in_(ids)).values(checked_at=now))
    return Turn(is_here=False, ahead=ahead, to_check=due)


def end_turn(connection: Connection, tenant_id: str, harvest_id: str) -> None:
    """See `Catalogue.end_turn`."""
    table = harvest_turns.c
    connection.execute(delete(harvest_turns).where(table.tenant_id == tenant_id, table.harvest_id == harvest_id))
