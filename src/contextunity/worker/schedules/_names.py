"""Under which ids the Temporal server knows a schedule, and the tasks that it starts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote

__all__ = ["DEFAULT_PROJECT", "DEFAULT_TENANT", "ID_LIMIT", "ScheduleName", "list_query"]

DEFAULT_PROJECT = "default"
"""Project of schedules for which none is named."""
DEFAULT_TENANT = "default"
"""Tenant of schedules for which none is named."""
ID_LIMIT = 960
"""Longest id, in characters once escaped: Temporal takes 1000, and appends the time to those of the tasks."""

_PREFIX = "contextunity/"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class ScheduleName:
    """Which schedule: its id is unique within a project of a tenant."""

    tenant_id: str
    project_id: str
    schedule_id: str

    @property
    def temporal_id(self) -> str:
        """Id of the schedule on the Temporal server; no two schedules share one."""
        # Escaped, no part holds a slash, so that the parts cannot run into each other.
        return _PREFIX + "/".join(quote(part, safe="") for part in (self.tenant_id, self.project_id, self.schedule_id))

    @property
    def workflow_id(self) -> str:
        """What the workflow ids of its tasks begin with."""
        return "schedule/" + self.temporal_id.removeprefix(_PREFIX)

    def task_id(self, due: datetime) -> str:
        """Workflow id of the task that is due at a time, UTC."""
        return f"{self.workflow_id}-{due:%Y-%m-%dT%H:%M:%SZ}"

    @classmethod
    def from_temporal_id(cls, temporal_id: str) -> ScheduleName | None:
        """The schedule of an id on the Temporal server; None where it is not one of ours."""
        parts = temporal_id.removeprefix(_PREFIX).split("/")
        if not temporal_id.startswith(_PREFIX) or len(parts) != 3:
            return None
        tenant_id, project_id, schedule_id = map(unquote, parts)
        name = cls(tenant_id=tenant_id, project_id=project_id, schedule_id=schedule_id)
        return name if name.temporal_id == temporal_id else None


def list_query(tenant_id: str | None, project_id: str) -> str:
    """List filter of the Temporal server for our schedules, those of one tenant where one is named.

    It may let more through: what comes back is to be looked at by its name.
    """
    prefix = _PREFIX
    if tenant_id is not None:
        prefix += quote(tenant_id, safe="") + "/"
        if project_id:
            prefix += quote(project_id, safe="") + "/"
    return f"ScheduleId STARTS_WITH '{prefix}'"
