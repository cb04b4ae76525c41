"""Schedules: start workflows at given times.

They are Temporal schedules, with ids that contain the tenant, the project and the schedule. Their input is checked
against the workflow's contract when they are registered.
"""

from __future__ import annotations

from .check import (
    DEFAULT_PROJECT,
    DEFAULT_TENANT,
    ScheduleName,
    entry_shape,
    is_manifest_entry,
    object_of_args,
    request_shape,
)
from .cron import CronError, compile_cron
from .declared import declaration_violations, declared_schedules
from .errors import (
    RejectedEntry,
    ScheduleConflictError,
    ScheduleError,
    ScheduleExistsError,
    SchedulesRefusedError,
    ScheduleUnknownError,
)
from .manager import Admit, ScheduleManager

__all__ = [
    "DEFAULT_PROJECT",
    "DEFAULT_TENANT",
    "Admit",
    "CronError",
    "RejectedEntry",
    "ScheduleConflictError",
    "ScheduleError",
    "ScheduleExistsError",
    "ScheduleManager",
    "ScheduleName",
    "ScheduleUnknownError",
    "SchedulesRefusedError",
    "compile_cron",
    "declaration_violations",
    "declared_schedules",
    "entry_shape",
    "is_manifest_entry",
    "object_of_args",
    "request_shape",
]
