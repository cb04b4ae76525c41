"""The shapes that registrations come in as plain data: whole requests, manifests, and one entry by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from contextunity.core.errors import CodecError

__all__ = ["entry_shape", "request_shape"]

_REQUEST_KEYS = frozenset(
    {"project_id", "projectId", "tenant_id", "tenantId", "schedules", "prune", "partial", "dry_run", "dryRun"}
)
_ENTRY_KEYS = frozenset({"id", "schedule_id", "scheduleId", "workflow_name", "workflow_type", "workflowType", "cron"})
_OLDER_NAMES = {"id": "schedule_id", "workflow_name": "workflow_type"}
_JSON_NAMES = {"schedule_id": "scheduleId", "workflow_type": "workflowType"}


def request_shape(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any], bool]:
    """Takes a registration apart.

    Args:
        data: keys of RegisterSchedulesRequest; or those of one entry, beside the request's others.

    Returns:
        The request without its entries; the entries, as they came; and whether it was one entry by itself.

    Raises:
        CodecError: `schedules` is not a list.
    """
    if "schedules" not in data and data.keys() & _ENTRY_KEYS:
        request = {key: value for key, value in data.items() if key in _REQUEST_KEYS}
        return request, [{key: value for key, value in data.items() if key not in _REQUEST_KEYS}], True
    entries = data.get("schedules", [])
    if not _is_list(entries):
        raise CodecError("expected a list of schedules", path="schedules")
    return {key: value for key, value in data.items() if key != "schedules"}, entries, False


def entry_shape(data: Any) -> dict[str, Any]:
    """An entry under the names of ScheduleEntry; `id` and `workflow_name` are names of older clients.

    Raises:
        CodecError: it is not an object, or says the same twice in different ways.
    """
    if not isinstance(data, Mapping):
        raise CodecError("expected an object with schedule_id, workflow_type and cron")
    entry = dict(cast("Mapping[str, Any]", data))
    for older, name in _OLDER_NAMES.items():
        if older not in entry:
            continue
        value = entry.pop(older)
        for other in (name, _JSON_NAMES[name]):
            if other in entry and entry[other] != value:
                raise CodecError(f"says something else than {older}; give one of the two", path=name)
        if _JSON_NAMES[name] not in entry:
            entry[name] = value
    return entry


def _is_list(value: object) -> bool:
    return isinstance(value, list)
