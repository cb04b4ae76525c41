"""What this process knows of tasks that it started or told of, so that the next question need not wait for a first.

It only ever saves time: what a caller is told, and whether, is decided by what the Temporal server says then.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from python_temporal.contract import WorkflowContract

__all__ = ["Seen", "SeenTasks"]

_MOST = 10_000
"""Tasks that are remembered: some megabytes. Those that nobody has asked about for the longest time go first."""


class Seen(NamedTuple):
    """A task as it was seen last. A tuple is made in a third of the time that a frozen dataclass takes.

    Attributes:
        run_id: id of its newest run.
        tenant_id: whose it is; empty where it was started past the service.
        contract: what it does; None where no module here has it.
        is_running: whether it had not ended.
        succeeded: whether it had ended as it should.
    """

    run_id: str
    tenant_id: str
    contract: WorkflowContract | None
    is_running: bool = True
    succeeded: bool = False


class SeenTasks:
    """Tasks by workflow id."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._seen = OrderedDict[str, Seen]()

    def keep(self, workflow_id: str, seen: Seen) -> None:
        """Remembers how a task was seen."""
        self._seen[workflow_id] = seen
        self._seen.move_to_end(workflow_id)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def recall(self, workflow_id: str) -> Seen | None:
        """How a task was seen last; None where it was not."""
        return self._seen.get(workflow_id)
