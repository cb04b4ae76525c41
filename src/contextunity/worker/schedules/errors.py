"""What goes wrong with schedules."""

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
    """Why an entry is refused.

    Attributes:
        place: where it stands in the request, such as `schedules[2]`.
        schedule_id: its id; empty where it has none.
        violations: what is wrong, each with the path of the field in the entry.
    """

    place: str
    schedule_id: str
    violations: tuple[Violation, ...]

    def to_proto(self) -> ScheduleFault:
        """The fault as answers tell it."""
        return ScheduleFault(
            schedule_id=self.schedule_id or self.place, reasons=[str(violation) for violation in self.violations]
        )


class ScheduleError(ContextUnityError):
    """Base of the errors about schedules."""


class SchedulesRefusedError(ScheduleError):
    """Schedules were asked for that cannot be; `faults` names each with what is wrong. Nothing was changed."""

    def __init__(self, rejections: Sequence[RejectedEntry]) -> None:
        self.faults = tuple(rejections)
        lines = [
            f"  - {rejected.schedule_id or rejected.place}: {violation}"
            for rejected in self.faults
            for violation in rejected.violations
        ]
        super().__init__("\n".join(["schedules are not usable:", *lines]))


class _NamedError(ScheduleError):
    """An error about one schedule."""

    def __init__(self, name: ScheduleName, text: str) -> None:
        self.name = name
        where = f"project {name.project_id!r} of tenant {name.tenant_id!r}"
        super().__init__(f"the schedule {name.schedule_id!r} in {where} {text}")


class ScheduleUnknownError(_NamedError):
    """There is no such schedule."""

    def __init__(self, name: ScheduleName) -> None:
        super().__init__(name, "does not exist; list_schedules tells those that do")


class ScheduleExistsError(_NamedError):
    """There is such a schedule already."""

    def __init__(self, name: ScheduleName) -> None:
        super().__init__(name, "exists already; apply changes it, delete_schedule removes it")


class ScheduleConflictError(_NamedError):
    """Somebody else changed the schedule again and again at the same time."""

    def __init__(self, name: ScheduleName) -> None:
        super().__init__(name, "was changed by somebody else at the same time; apply again")
