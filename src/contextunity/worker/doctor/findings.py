"""What a check finds: ok, a warning, a failure, or why it was skipped."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Finding", "Status", "fail", "ok", "skip", "warn"]


class Status(enum.Enum):
    """What a finding means for the operator."""

    OK = "ok"
    WARN = "warn"
    """It works, but not as it should, or not for long."""
    FAIL = "fail"
    """It does not work."""
    SKIP = "skip"
    """It was not checked; the finding says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        check: what was checked, such as `version.python`; the same for the same thing in each report.
        status: what it means.
        value: what was found, in a few words; never a secret.
        detail: more about it; empty for none.
        fix: what to do or to type; empty where there is nothing to do.
    """

    check: str
    status: Status
    value: str
    detail: str = ""
    fix: str = ""


def ok(check: str, value: str, detail: str = "") -> Finding:
    """Return a finding that needs no action."""
    return Finding(check=check, status=Status.OK, value=value, detail=detail)


def warn(check: str, value: str, detail: str = "", *, fix: str) -> Finding:
    """Return a warning, with the way out."""
    return Finding(check=check, status=Status.WARN, value=value, detail=detail, fix=fix)


def fail(check: str, value: str, detail: str = "", *, fix: str) -> Finding:
    """Return a failure, with the way out."""
    return Finding(check=check, status=Status.FAIL, value=value, detail=detail, fix=fix)


def skip(check: str, why: str) -> Finding:
    """Return a finding of what was not checked."""
    return Finding(check=check, status=Status.SKIP, value=why)
