"""The worker's registry as schedules see it.

The registry has declared schedules checked when modules register, so imports run from there to here and not back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from python_temporal.contract import ServiceContract, WorkflowContract

__all__ = ["Contracts", "Implementation"]


class Implementation(Protocol):
    """A registered module."""

    @property
    def contracts(self) -> Sequence[ServiceContract]:
        """The service contracts that it implements."""
        ...


class Contracts(Protocol):
    """What modules brought, such as a `WorkerRegistry`."""

    @property
    def workflows(self) -> Mapping[str, WorkflowContract]:
        """Workflow contracts by workflow_type."""
        ...

    def select(self, names: Sequence[str] | None) -> Sequence[Implementation]:
        """Modules by name; all of them for None."""
        ...
