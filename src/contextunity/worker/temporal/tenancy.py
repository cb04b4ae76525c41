"""Tenants on Temporal: their ids, their turns (fairness), and their own task queues.

Also the characters that no id may have.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re

from temporalio.api.common.v1 import Priority as PriorityMessage
from temporalio.common import Priority

__all__ = [
    "DEFAULT_TENANT",
    "fair_priority",
    "fairness_key",
    "id_violation",
    "resolved_queue",
    "tenant_queue",
    "tenant_violation",
    "write_priority",
]

DEFAULT_TENANT = "default"
"""The default tenant."""
_MAX_FAIRNESS_KEY_BYTES = 64
_TENANT = re.compile(r"[\w.:@/+\-]{1,200}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line ends, and controls of the text direction."""


def tenant_violation(tenant_id: str) -> str:
    """Return why a text is not a tenant id; empty if it is one."""
    if _TENANT.fullmatch(tenant_id):
        return ""
    return "is not a tenant id: 1 to 200 letters, digits and . : @ / + - _"


def id_violation(text: str) -> str:
    """Return why a text must not be in an id; empty if it may be.

    Ids are shown in terminals, logs and Temporal's web UI, and copied from there.
    """
    found = _CONTROL.search(text)
    return f"has the control character U+{ord(found[0]):04X}, which no id may have" if found else ""


def fairness_key(tenant_id: str) -> str:
    """Return the fairness key of a tenant's tasks in Temporal's priorities; empty for no tenant.

    The server rejects keys of more than 64 bytes, so a longer tenant id is hashed. No tenant id begins with `~`, so a
    hash never equals another tenant's id.
    """
    encoded = tenant_id.encode()
    if len(encoded) <= _MAX_FAIRNESS_KEY_BYTES:
        return tenant_id
    return "~" + hashlib.sha256(encoded).hexdigest()[: _MAX_FAIRNESS_KEY_BYTES - 1]


def fair_priority(tenant_id: str, declared: Priority | None = None) -> Priority | None:
    """Return the priority of a tenant's task: the tenant's fairness key, with the rest of the declared priority.

    With the contract's own fairness key, all tenants would share one turn, and a tenant would get another turn for each
    contract that it uses. So it only applies without a tenant.

    Args:
        tenant_id: tenant of the task; may be empty.
        declared: the priority of the contract or the caller.

    Returns:
        The priority; `declared` unchanged if there is no tenant.
    """
    if not tenant_id:
        return declared
    return dataclasses.replace(declared or Priority.default, fairness_key=fairness_key(tenant_id))


def write_priority(message: PriorityMessage, tenant_id: str, declared: Priority | None) -> None:
    """Fill in a message of Temporal's API with the priority from `fair_priority`; leave it unset if there is none."""
    priority = fair_priority(tenant_id, declared)
    if priority is not None:
        message.priority_key = priority.priority_key or 0
        message.fairness_key = priority.fairness_key or ""
        message.fairness_weight = priority.fairness_weight or 0.0


def tenant_queue(task_queue: str, tenant_id: str) -> str:
    """Return the task queue of a tenant's own workers; for no tenant, the common one."""
    return f"{task_queue}/{tenant_id}" if tenant_id else task_queue


def resolved_queue(task_queue: str, named: str, tenant_id: str) -> str | None:
    """Return the task queue for a name in a request; None if the request may not use that name.

    Args:
        task_queue: task queue of the contract.
        named: the request's name: the contract's, that of the tenant's own workers, or `TENANT-tasks`, the deployed
            clients' name for the common one; empty for the contract's.
        tenant_id: tenant of the task.
    """
    if named in ("", task_queue):
        return task_queue
    own = tenant_queue(task_queue, tenant_id)
    if named == own:
        return own
    return task_queue if tenant_id and named == f"{tenant_id}-tasks" else None
