"""The shapes that registrations come in as plain data: whole requests, manifests, and one entry by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard, cast

from contextunity.core.errors import CodecError

__all__ = ["entry_shape", "is_manifest_entry", "object_of_args", "request_shape"]

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
    if _is_list(entry.get("args")):
        args = object_of_args(entry.pop("args"))
        if args is not None:
            entry["args"] = args
    return entry


def is_manifest_entry(data: Any) -> bool:
    """Whether an entry is of the shape that manifests have: with `id`, and without any input."""
    if not isinstance(data, Mapping):
        return False
    entry = cast("Mapping[str, Any]", data)
    return "id" in entry and not entry.get("args") and "input" not in entry


def object_of_args(args: object) -> dict[str, Any] | None:
    """A workflow's parameters as one object; None where there are none.

    Deployed clients send a list, as a workflow has arguments by place: none, or the one input.

    Raises:
        CodecError: it is neither an object nor a list of one at most; the path is below `args`.
    """
    if _is_list(args):
        if len(args) > 1:
            raise CodecError(f"has {len(args)} elements; a workflow takes one input at most", path="args")
        if not args:
            return None
        args, path = args[0], "args[0]"
    else:
        path = "args"
    if not isinstance(args, dict):
        text = repr(args)
        raise CodecError(f"must be an object, not {text if len(text) <= 100 else text[:100] + '…'}", path=path)
    return cast("dict[str, Any]", args)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
