"""The ledger of the annotations: every field of the options schema is supported here, or refused for a reason."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ._faults import Faults, Place
from ._source import set_fields

__all__ = ["REFUSED", "SUPPORTED", "refuse_unsupported"]

SUPPORTED: dict[str, tuple[str, ...]] = {
    "service": ("task_queue",),
    "workflow": (
        "query",
        "query.ref",
        "signal",
        "signal.ref",
        "signal.start",
        "update",
        "update.ref",
        "update.start",
        "update.workflow_id_conflict_policy",
        "update.validate",
        "execution_timeout",
        "id",
        "id_reuse_policy",
        "parent_close_policy",
        "retry_policy",
        "retry_policy.initial_interval",
        "retry_policy.backoff_coefficient",
        "retry_policy.max_interval",
        "retry_policy.max_attempts",
        "retry_policy.non_retryable_error_types",
        "run_timeout",
        "task_queue",
        "task_timeout",
        "wait_for_cancellation",
        "name",
        "search_attributes",
        "aliases",
        "workflow_id_conflict_policy",
        "versioning_behavior",
        "typed_search_attributes",
        "enable_eager_start",
        "priority",
        "priority.priority_key",
        "priority.fairness_key",
        "priority.fairness_weight",
    ),
    "activity": (
        "task_queue",
        "schedule_to_close_timeout",
        "schedule_to_start_timeout",
        "start_to_close_timeout",
        "heartbeat_timeout",
        "retry_policy",
        "retry_policy.initial_interval",
        "retry_policy.backoff_coefficient",
        "retry_policy.max_interval",
        "retry_policy.max_attempts",
        "retry_policy.non_retryable_error_types",
        "name",
        "wait_for_cancellation",
        "priority",
        "priority.priority_key",
        "priority.fairness_key",
        "priority.fairness_weight",
    ),
    "query": ("name",),
    "signal": ("name",),
    "update": ("id", "validate", "wait_policy", "name", "wait_for_stage"),
}
"""Fields that generated code obeys, by annotation, as dotted paths."""

REFUSED: dict[str, str] = {
    "namespace": "namespaces belong to the client's connection; set TEMPORAL_NAMESPACE, and leave it out here",
    "cli": "Python has no generated command line; leave it out, or give the plugin ignore=cli",
    "nexus": "Nexus is not generated for Python; leave it out, or give the plugin ignore=nexus",
    "patches": "patches change code that is generated for Go; leave them out, or give the plugin ignore=patches",
    "xns": "calls across namespaces are not generated for Python; leave it out, or give the plugin ignore=xns",
}
"""Why the other known fields are refused, by the name of the field."""


def refuse_unsupported(annotation: str, options: Any, place: Place, faults: Faults, ignored: Collection[str]) -> None:
    """Makes a fault of each field that is set and that generated code would not obey."""
    skipped = ""
    for path, field, _ in set_fields(options):
        if skipped and path.startswith(skipped):
            continue
        if path in SUPPORTED.get(annotation, ()):
            continue
        # What lies within a refused message says nothing more.
        skipped = f"{path}."
        if field.name in ignored:
            continue
        reason = REFUSED.get(field.name, "this version of the plugin does not know it; leave it out, or upgrade")
        faults.error(place, f"option (temporal.v1.{annotation}).{path} is not supported: {reason}")
