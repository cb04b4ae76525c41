"""Which options of temporal.v1 the generator supports, and reading them from descriptors."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .errors import Diagnostics, Place, UsageError
from .schema import set_fields

__all__ = ["IGNORABLE", "SUPPORTED", "UNSUPPORTED", "Options", "parse_options", "reject_unsupported"]

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

UNSUPPORTED: dict[str, str] = {
    "namespace": "namespaces belong to the client's connection; set TEMPORAL_NAMESPACE, and leave it out here",
    "cli": "Python has no generated command line; leave it out, or give the plugin ignore=cli",
    "nexus": "Nexus is not generated for Python; leave it out, or give the plugin ignore=nexus",
    "patches": "patches change code that is generated for Go; leave them out, or give the plugin ignore=patches",
    "xns": "calls across namespaces are not generated for Python; leave it out, or give the plugin ignore=xns",
}
"""Why the other known fields are refused, by the name of the field."""


def reject_unsupported(
    annotation: str, options: Any, place: Place, diagnostics: Diagnostics, ignored: Collection[str]
) -> None:
    """Collects an error of each field that is set and that generated code would not obey."""
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
        reason = UNSUPPORTED.get(field.name, "this version of the plugin does not know it; leave it out, or upgrade")
        diagnostics.error(place, f"option (temporal.v1.{annotation}).{path} is not supported: {reason}")


_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_DOCS = re.compile(r"[\w./-]+\.md")

IGNORABLE = ("cli", "nexus", "patches", "xns")
"""Families of annotations for other generators that a user may choose to pass over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of the plugin.

    Attributes:
        package: dotted Python package that the output folder is, such as `acme.gen`; empty where it is on the path.
        docs: name of a Markdown reference of all services to write into the output folder; empty for none.
        code: whether to write the Python modules.
        ignore: families of annotations to pass over instead of refusing them.
        parameter: the options as given, for the header of generated files.
    """

    package: str = ""
    docs: str = ""
    code: bool = True
    ignore: frozenset[str] = frozenset()
    parameter: str = ""


def parse_options(parameter: str) -> Options:
    """Parses the plugin's parameter, `name=value` pairs separated by commas.

    Raises:
        UsageError: an option is unknown, repeated or ill-formed.
    """
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in parameter.split(","))):
        name, _, value = item.partition("=")
        if name not in ("package", "docs", "code", "ignore"):
            raise UsageError(f"unknown option {name!r}; options are package=, docs=, code= and ignore=")
        if name in values:
            raise UsageError(f"option {name!r} is given twice")
        values[name] = value
    return Options(
        package=_matching("package", values.get("package"), _PACKAGE, "a dotted Python package name"),
        docs=_matching("docs", values.get("docs"), _DOCS, "a path that ends with .md"),
        code=_boolean("code", values.get("code", "true")),
        ignore=_families(values.get("ignore", "")),
        parameter=",".join(f"{name}={values[name]}" for name in sorted(values)),
    )


def _matching(name: str, value: str | None, pattern: re.Pattern[str], what: str) -> str:
    if value is None:
        return ""
    if not pattern.fullmatch(value) or ".." in value.split("/"):
        raise UsageError(f"option {name}={value!r} is not {what}")
    return value


def _boolean(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise UsageError(f"option {name}={value!r} is neither true nor false")
    return value == "true"


def _families(value: str) -> frozenset[str]:
    families = frozenset(filter(None, value.split("+")))
    unknown = sorted(families - set(IGNORABLE))
    if unknown:
        raise UsageError(f"option ignore={value!r} names {unknown[0]!r}; join any of {', '.join(IGNORABLE)} by +")
    return families
