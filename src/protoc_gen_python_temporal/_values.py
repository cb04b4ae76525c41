"""Option values as Python text: durations, enum members, retry policies, priorities."""

from __future__ import annotations

import math
from typing import Any

from ._faults import Faults, Place
from ._source import field_value

__all__ = ["TIMEDELTA", "Values"]

TIMEDELTA = "\x1f"
"""Stands for the name under which a generated module imports timedelta; no option can hold it."""

_MAX_SECONDS = 86_400 * 999_999_999
_UNAVAILABLE = {
    "WAIT_POLICY_ADMITTED": "Python's SDK cannot wait for it; declare WAIT_POLICY_ACCEPTED or WAIT_POLICY_COMPLETED"
}


class Values:
    """Reads the options of one annotation and makes a fault of each value that cannot be.

    Args:
        options: the annotation's message.
        name: its name, for faults.
        place: where it stands.
        faults: where faults go.
        prefix: path of the message within its annotation, for faults, such as `update.`.
    """

    def __init__(self, options: Any, name: str, place: Place, faults: Faults, *, prefix: str = "") -> None:
        self._options = options
        self._name = name
        self._place = place
        self._faults = faults
        self._prefix = prefix

    def fault(self, field: str, text: str) -> None:
        self._faults.error(self._place, f"option (temporal.v1.{self._name}).{self._prefix}{field}: {text}")

    def warning(self, field: str, text: str) -> None:
        self._faults.warning(self._place, f"option (temporal.v1.{self._name}).{self._prefix}{field}: {text}")

    def has(self, field: str) -> bool:
        return _has(self._options, field)

    def get(self, field: str, default: Any = "") -> Any:
        """A field's value; `default` where this schema has no such field."""
        return field_value(self._options, field, default)

    def seconds(self, field: str) -> float | None:
        """A duration's length; None where it is not set."""
        if not self.has(field):
            return None
        value = getattr(self._options, field)
        return float(value.seconds) + float(value.nanos) / 1e9

    def duration(self, field: str) -> str | None:
        return self._duration(self._options, field, field)

    def enum(self, field: str, python: str) -> str | None:
        """An enum's value as a member of the SDK's; None where it is unspecified."""
        member = self.member(field)
        return f"_t.{python}.{member}" if member else None

    def member(self, field: str) -> str:
        """Name of the SDK's member for an enum's value; empty where it is unspecified."""
        number = self.get(field, 0)
        if not number:
            return ""
        enum = self._options.DESCRIPTOR.fields_by_name[field].enum_type
        value = enum.values_by_number.get(number)
        if value is None:
            self.fault(field, f"{number} is no value of {enum.full_name}")
            return ""
        if value.name in _UNAVAILABLE:
            self.fault(field, f"{value.name} is not supported: {_UNAVAILABLE[value.name]}")
            return ""
        zero = enum.values_by_number[0].name
        return str(value.name).removeprefix(zero.removesuffix("UNSPECIFIED"))

    def max_attempts(self) -> int:
        """How often the retry policy has it tried; 0 is without end."""
        return int(field_value(self._options.retry_policy, "max_attempts", 0)) if self.has("retry_policy") else 0

    def retry_policy(self) -> str | None:
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
        if not self.has("priority"):
            return None
        key, fairness_key, weight = (
            field_value(self._options.priority, field) for field in ("priority_key", "fairness_key", "fairness_weight")
        )
        if key and key < 0:
            self.fault("priority.priority_key", f"{key} is negative; 1 is the highest priority")
        if weight and not 0 < weight < math.inf:
            self.fault("priority.fairness_weight", f"{weight} is not a number above 0")
        arguments = {
            "priority_key": str(key) if key else None,
            "fairness_key": repr(fairness_key) if fairness_key else None,
            # A float of single precision, shown by as few digits as tell it from its neighbours.
            "fairness_weight": f"{weight:.7g}" if weight else None,
        }
        return f"_t.Priority({_joined(arguments)})"

    def _check_retry_policy(self, policy: Any, backoff: float) -> None:
        if backoff and not 1 <= backoff < math.inf:
            self.fault("retry_policy.backoff_coefficient", f"{backoff} is below 1 or without end")
        if self.max_attempts() < 0:
            self.fault("retry_policy.max_attempts", f"{self.max_attempts()} is negative; 0 is without end")
        if _has(policy, "max_interval") and self.max_attempts() != 1:
            initial, longest = policy.initial_interval, policy.max_interval
            first = (initial.seconds, initial.nanos) if _has(policy, "initial_interval") else (1, 0)
            if (longest.seconds, longest.nanos) < first:
                self.fault("retry_policy.max_interval", "it is shorter than initial_interval, which is 1 s unless set")

    def _duration(self, message: Any, field: str, path: str) -> str | None:
        if not _has(message, field):
            return None
        value = getattr(message, field)
        if value.seconds < 0 or value.nanos < 0:
            self.fault(path, "it is negative")
        elif value.seconds > _MAX_SECONDS:
            self.fault(path, f"{value.seconds} s is longer than Python's timedelta can hold")
        elif value.nanos % 1000:
            self.fault(path, f"{value.nanos} ns are finer than a microsecond, which is Python's limit")
        fraction = f", microseconds={value.nanos // 1000}" if value.nanos else ""
        return f"{TIMEDELTA}(seconds={value.seconds}{fraction})"


def _has(message: Any, field: str) -> bool:
    return field in message.DESCRIPTOR.fields_by_name and bool(message.HasField(field))


def _tuple(values: Any) -> str | None:
    items = [repr(str(value)) for value in values]
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})" if items else None


def _joined(arguments: dict[str, str | None]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items() if value is not None)
