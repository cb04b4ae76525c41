"""The options of temporal.v1 that the generator supports, and their values as Python text."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .errors import Diagnostics, Place, UsageError
from .python_text import TIMEDELTA
from .schema import field_value, set_fields

__all__ = ["IGNORABLE", "SUPPORTED", "UNSUPPORTED", "Options", "Values", "parse_options", "reject_unsupported"]

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
"""Fields that generated code supports, by annotation, as dotted paths."""

UNSUPPORTED: dict[str, str] = {
    "namespace": "namespaces belong to the client's connection; set TEMPORAL_NAMESPACE, and leave it out here",
    "cli": "Python has no generated command line; leave it out, or give the plugin ignore=cli",
    "nexus": "Nexus is not generated for Python; leave it out, or give the plugin ignore=nexus",
    "patches": "patches change code that is generated for Go; leave them out, or give the plugin ignore=patches",
    "xns": "calls across namespaces are not generated for Python; leave it out, or give the plugin ignore=xns",
}
"""Why other known fields are rejected, by field name."""


def reject_unsupported(
    annotation: str, options: Any, place: Place, diagnostics: Diagnostics, ignored: Collection[str]
) -> None:
    """Report an error for each field that is set and that generated code does not support."""
    skipped = ""
    for path, field, _ in set_fields(options):
        if skipped and path.startswith(skipped):
            continue
        if path in SUPPORTED.get(annotation, ()):
            continue
        # Fields within a rejected message need no further error.
        skipped = f"{path}."
        if field.name in ignored:
            continue
        reason = UNSUPPORTED.get(field.name, "this version of the plugin does not know it; leave it out, or upgrade")
        diagnostics.error(place, f"option (temporal.v1.{annotation}).{path} is not supported: {reason}")


_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_DOCS = re.compile(r"[\w./-]+\.md")

IGNORABLE = ("cli", "nexus", "patches", "xns")
"""Families of annotations for other generators that a user may ignore."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of the plugin.

    Attributes:
        package: dotted Python package of the output folder, such as `acme.gen`; empty if the folder is on the path.
        descriptors: proto package whose files get one module with their descriptors, annotated or not; empty for none.
        docs: path of a Markdown reference of all services in the output folder; empty for none.
        code: whether to write the Python modules.
        ignore: families of annotations to ignore instead of rejecting them.
        parameter: the options as text, for the header of generated files.
    """

    package: str = ""
    descriptors: str = ""
    docs: str = ""
    code: bool = True
    ignore: frozenset[str] = frozenset()
    parameter: str = ""


def parse_options(parameter: str) -> Options:
    """Parse the plugin's parameter: `name=value` pairs separated by commas.

    Raises:
        UsageError: an option is unknown, repeated or invalid.
    """
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in parameter.split(","))):
        name, _, value = item.partition("=")
        if name not in ("package", "descriptors", "docs", "code", "ignore"):
            raise UsageError(f"unknown option {name!r}; options are package=, descriptors=, docs=, code= and ignore=")
        if name in values:
            raise UsageError(f"option {name!r} is set twice")
        values[name] = value
    return Options(
        package=_matching("package", values.get("package"), _PACKAGE, "a dotted Python package name"),
        descriptors=_matching("descriptors", values.get("descriptors"), _PACKAGE, "a proto package name"),
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


_MAX_SECONDS = 86_400 * 999_999_999
_UNAVAILABLE = {
    "WAIT_POLICY_ADMITTED": "Python's SDK cannot wait for it; declare WAIT_POLICY_ACCEPTED or WAIT_POLICY_COMPLETED"
}


class Values:
    """Decodes the options of one annotation, and reports an error for each invalid value.

    Args:
        options: the annotation's message.
        name: name of the annotation, for errors.
        place: place of the annotation.
        diagnostics: collects errors.
        prefix: path of the message within its annotation, for errors, such as `update.`.
    """

    def __init__(self, options: Any, name: str, place: Place, diagnostics: Diagnostics, *, prefix: str = "") -> None:
        self._options = options
        self._name = name
        self._place = place
        self._diagnostics = diagnostics
        self._prefix = prefix

    def error(self, field: str, text: str) -> None:
        """Report an error of a field."""
        self._diagnostics.error(self._place, f"option (temporal.v1.{self._name}).{self._prefix}{field}: {text}")

    def warning(self, field: str, text: str) -> None:
        """Report a warning of a field."""
        self._diagnostics.warning(self._place, f"option (temporal.v1.{self._name}).{self._prefix}{field}: {text}")

    def has(self, field: str) -> bool:
        """Return whether a field is set."""
        return _has(self._options, field)

    def get(self, field: str, default: Any = "") -> Any:
        """Return a field's value; `default` if this schema has no such field."""
        return field_value(self._options, field, default)

    def seconds(self, field: str) -> float | None:
        """Return the length of a duration; None if it is not set."""
        if not self.has(field):
            return None
        value = getattr(self._options, field)
        return float(value.seconds) + float(value.nanos) / 1e9

    def duration(self, field: str) -> str | None:
        """Return a duration as a timedelta; None if it is not set."""
        return self._duration(self._options, field, field)

    def enum(self, field: str, python: str) -> str | None:
        """Return an enum's value as a member of the SDK's enum; None if it is unspecified."""
        member = self.member(field)
        return f"_t.{python}.{member}" if member else None

    def member(self, field: str) -> str:
        """Return the SDK's member name of an enum's value; empty if it is unspecified."""
        number = self.get(field, 0)
        if not number:
            return ""
        enum = self._options.DESCRIPTOR.fields_by_name[field].enum_type
        value = enum.values_by_number.get(number)
        if value is None:
            self.error(field, f"{number} is not a value of {enum.full_name}")
            return ""
        if value.name in _UNAVAILABLE:
            self.error(field, f"{value.name} is not supported: {_UNAVAILABLE[value.name]}")
            return ""
        zero = enum.values_by_number[0].name
        return str(value.name).removeprefix(zero.removesuffix("UNSPECIFIED"))

    def max_attempts(self) -> int:
        """Return the maximum number of attempts in the retry policy; 0 is unlimited."""
        return int(field_value(self._options.retry_policy, "max_attempts", 0)) if self.has("retry_policy") else 0

    def retry_policy(self) -> str | None:
        """Return the SDK's RetryPolicy; None if none is set."""
        if not self.has("retry_policy"):
            return None
        policy = self._options.retry_policy
        backoff = field_value(policy, "backoff_coefficient", 0)
        arguments = {
            "initial_interval": self._duration(policy, "initial_interval", "retry_policy.initial_interval"),
            "backoff_coefficient": repr(backoff) if backoff else None,
            "maximum_interval": self._duration(policy, "max_interval", "retry_policy.max_interval"),
            "maximum_attempts": str(self.max_attempts()) if self.max_attempts() else None,
            "non_retryable_error_types": _tuple(field_value(policy, "non_retryable_error_types")),
        }
        self._check_retry_policy(policy, backoff)
        return f"_t.RetryPolicy({_joined(arguments)})"

    def priority(self) -> str | None:
        """Return the SDK's Priority; None if none is set."""
        if not self.has("priority"):
            return None
        key, fairness_key, weight = (
            field_value(self._options.priority, field) for field in ("priority_key", "fairness_key", "fairness_weight")
        )
        if key and key < 0:
            self.error("priority.priority_key", f"{key} is negative; 1 is the highest priority")
        if weight and not 0 < weight < math.inf:
            self.error("priority.fairness_weight", f"{weight} is not a number above 0")
        arguments = {
            "priority_key": str(key) if key else None,
            "fairness_key": repr(fairness_key) if fairness_key else None,
            # A single-precision float, with the fewest digits that identify it.
            "fairness_weight": f"{weight:.7g}" if weight else None,
        }
        return f"_t.Priority({_joined(arguments)})"

    def _check_retry_policy(self, policy: Any, backoff: float) -> None:
        if backoff and not 1 <= backoff < math.inf:
            self.error("retry_policy.backoff_coefficient", f"{backoff} is below 1 or infinite")
        if self.max_attempts() < 0:
            self.error("retry_policy.max_attempts", f"{self.max_attempts()} is negative; 0 is unlimited")
        if _has(policy, "max_interval") and self.max_attempts() != 1:
            initial, longest = policy.initial_interval, policy.max_interval
            first = (initial.seconds, initial.nanos) if _has(policy, "initial_interval") else (1, 0)
            if (longest.seconds, longest.nanos) < first:
                self.error("retry_policy.max_interval", "it is shorter than initial_interval, whose default is 1 s")

    def _duration(self, message: Any, field: str, path: str) -> str | None:
        if not _has(message, field):
            return None
        value = getattr(message, field)
        if value.seconds < 0 or value.nanos < 0:
            self.error(path, "it is negative")
        elif value.seconds > _MAX_SECONDS:
            self.error(path, f"{value.seconds} s is longer than Python's timedelta can hold")
        elif value.nanos % 1000:
            self.error(path, f"{value.nanos} ns are more precise than a microsecond, which is Python's limit")
        fraction = f", microseconds={value.nanos // 1000}" if value.nanos else ""
        return f"{TIMEDELTA}(seconds={value.seconds}{fraction})"


def _has(message: Any, field: str) -> bool:
    return field in message.DESCRIPTOR.fields_by_name and bool(message.HasField(field))


def _tuple(values: Any) -> str | None:
    items = [repr(str(value)) for value in values]
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})" if items else None


def _joined(arguments: dict[str, str | None]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items() if value is not None)
