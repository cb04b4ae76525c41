"""Errors of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contextunity.gen.contextunity.worker import ScheduleFault

from contextunity.core.errors import ContextUnityError, Violation

from .check import ScheduleName

__all__ = [
    "RejectedEntry",
    "ScheduleConflictError",
    "ScheduleError",
    "ScheduleExistsError",
    "ScheduleUnknownError",
    "SchedulesRefusedError",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedEntry:
    """Why an entry is rejected.

    Attributes:
        place: place in the request, such as `schedules[2]`.
        schedule_id: id of the entry; empty if it has none.
        violations: everything that is wrong, each with the path of the field in the entry.
    """

    place: str
    schedule_id: str
    violations: tuple[Violation, ...]

    def to_proto(self) -> ScheduleFault:
        """Convert to the message for answers."""
        return ScheduleFault(
            schedule_id=self.schedule_id or self.place, reasons=[str(violation) for violation in self.violations]
        )


class ScheduleError(ContextUnityError):
    """Base of the errors of schedules."""


class SchedulesRefusedError(ScheduleError):
    """Schedules are invalid; `faults` has each with what is wrong. Nothing was changed."""

    def __init__(self, rejections: Sequence[RejectedEntry]) -> None:
        self.faults = tuple(rejections)
        lines = [
            f"  - {rejected.schedule_id or rejected.place}: {violation}"
            for rejected in self.faults
            for violation in rejected.violations
        ]
        super().__init__("\n".join(["invalid schedules:", *lines]))


class _NamedError(ScheduleError):
    """An error about one schedule."""

    def __init__(self, name: ScheduleName, text: str) -> None:
        self.name = name
        where = f"project {name.project_id!r} of tenant {name.tenant_id!r}"
        super().__init__(f"the schedule {name.schedule_id!r} in {where} {text}")


class ScheduleUnknownError(_NamedError):
    """The schedule does not exist."""

    def __init__(self, name: ScheduleName) -> None:
        super().__init__(name, "does not exist; list_schedules returns those that do")


class ScheduleExistsError(_NamedError):
    """The schedule exists already."""

    def __init__(self, name: ScheduleName) -> None:
        super().__init__(name, "exists already; change it with apply, remove it with delete_schedule")


class ScheduleConflictError(_NamedError):
    """Another client changed the schedule repeatedly at the same time."""

    def __init__(self, name: ScheduleName) -> None:
        super().__init__(name, "was changed by another client at the same time; apply again")
