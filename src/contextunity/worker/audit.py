"""Who did what, and what came of it: a line of JSON for every call that changes something, once its outcome is known.

The lines go to a logger of their own, so that a deployment can keep them apart from the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from .auth import Caller
from .service import Call, Method
from .status import ServiceError

__all__ = ["LOGGER", "record"]

LOGGER = logging.getLogger("contextunity.worker.audit")
"""Where the lines go, at the level INFO."""

_READING = frozenset({"GetTaskStatus", "WatchTask", "ListTasks", "QueryTask", "DescribeContracts", "ListSchedules"})
"""Methods that change nothing. All others do, those included that are still to come."""


def record(method: Method, caller: Caller, call: Call | None, error: ServiceError | str | None = None) -> None:
    """Writes the line of a call, where it is one that changes something.

    Args:
        method: which was called.
        caller: who called.
        call: the call; None where its unit was not read.
        error: why it was refused; a word where no answer reached the caller; None where it was done.
    """
    if method.name in _READING or not LOGGER.isEnabledFor(logging.INFO):
        return
    line: dict[str, Any] = {
        "token_id": caller.token_id,
        "principal": caller.principal,
        "project_id": caller.project_id,
        "tenant_id": "",
        "method": method.name,
    }
    if call is not None:
        line |= call.about
        line["trace_id"], line["unit_id"] = call.trace_id, call.unit_id
    if not line["tenant_id"] and caller.tenants is not None and len(caller.tenants) == 1:
        (line["tenant_id"],) = caller.tenants
    if isinstance(error, ServiceError):
        _add_missing(line, error.metadata)
        line["outcome"], line["reason"] = error.reason.code.name, error.reason.name
    else:
        line["outcome"] = error or "OK"
    LOGGER.info("%s", json.dumps(line, ensure_ascii=True))


def _add_missing(line: dict[str, Any], metadata: Mapping[str, str]) -> None:
    """What the error knows that the answer would have told."""
    for name in ("workflow_id", "schedule_id"):
        if name in metadata:
            line.setdefault(name, metadata[name])
