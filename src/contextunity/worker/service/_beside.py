"""What is asked about a task at the same time as its description, and not after it.

Nothing of it is told before the description has said whose the task is. What was asked in vain is dropped.
"""

from __future__ import annotations

import asyncio

from temporalio.api.history.v1 import HistoryEvent

from ._call import Engine
from ._progress import Progress, ask_progress, progress_query
from ._runs import LAST_EVENTS, Run, last_events

__all__ = ["Beside"]


class Beside:
    """Asks what will probably be needed: of a task that was seen running its progress, of others how they ended.

    Args:
        engine: asks.
        tenants: whose tasks the caller sees; None for all.
        workflow_id: of the task.
        run_id: which of its runs; empty for the newest.
    """

    def __init__(self, engine: Engine, tenants: frozenset[str] | None, workflow_id: str, run_id: str) -> None:
        self._events: asyncio.Task[list[HistoryEvent]] | None = None
        self._progress: asyncio.Task[Progress] | None = None
        self._count = 1
        seen = engine.seen.recall(workflow_id)
        if seen is not None and run_id and seen.run_id != run_id:
            seen = None
        self._run_id = run_id if seen is None else seen.run_id
        if seen is not None and tenants is not None and seen.tenant_id not in tenants:
            return
        if seen is not None and seen.is_running:
            query = progress_query(seen.contract)
            if query is not None:
                self._progress = asyncio.create_task(ask_progress(engine, workflow_id, seen.run_id, query))
            return
        if seen is not None and not seen.succeeded:
            self._count = LAST_EVENTS
        events = last_events(engine, workflow_id, self._run_id, count=self._count)
        self._events = asyncio.create_task(events)

    async def progress(self, run: Run) -> Progress | None:
        """What a run told of its progress; None where it was not asked."""
        if self._progress is None or self._run_id != run.run_id:
            return None
        return await self._progress

    async def events(self, run: Run, count: int) -> list[HistoryEvent] | None:
        """The last events of a run that has ended; None where they were not asked for, or not so many.

        Raises:
            ServiceError: Temporal does not answer.
        """
        if self._events is None or self._count < count:
            return None
        events = await self._events
        if self._run_id == run.run_id or _ends(events[0], run):
            return events
        return None

    def drop(self) -> None:
        """Asks no further."""
        for task in (self._events, self._progress):
            if task is not None:
                task.cancel()
                task.add_done_callback(_look_at)


def _ends(event: HistoryEvent, run: Run) -> bool:
    """Whether an event is the last one of a run: between two questions, another may have become the newest."""
    info = run.description.workflow_execution_info
    return event.event_id == info.history_length and event.event_time == info.close_time


def _look_at(task: asyncio.Task[list[HistoryEvent]] | asyncio.Task[Progress]) -> None:
    """Takes notice of an error that nobody needs to know, which asyncio would otherwise log."""
    if not task.cancelled():
        task.exception()
