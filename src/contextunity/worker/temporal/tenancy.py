"""What a tenant means to Temporal: its id, its turn among others (fairness), and task queues of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import re

from temporalio.common import Priority

__all__ = ["DEFAULT_TENANT", "fair_priority", "fairness_key", "resolved_queue", "tenant_queue", "tenant_violation"]

DEFAULT_TENANT = "default"
"""Whose work it is where nobody says."""
_MAX_FAIRNESS_KEY_BYTES = 64
_TENANT = re.compile(r"[\w.:@/+\-]{1,200}")


def tenant_violation(tenant_id: str) -> str:
    """What keeps a text from being a tenant's id; empty where nothing does."""
    if _TENANT.fullmatch(tenant_id):
        return ""
    return "is not a tenant id: 1 to 200 letters, digits and . : @ / + - _"


def fairness_key(tenant_id: str) -> str:
    """The fairness key of Temporal's priorities under which a tenant's tasks wait; empty for no tenant.

    The server refuses a start whose key takes more than 64 bytes, so a longer tenant's is a hash of it. No tenant has
    one that begins with `~`, so a hash is nobody else's id.
    """
    encoded = tenant_id.encode()
    if len(encoded) <= _MAX_FAIRNESS_KEY_BYTES:
        return tenant_id
    return "~" + hashlib.sha256(encoded).hexdigest()[: _MAX_FAIRNESS_KEY_BYTES - 1]


def fair_priority(tenant_id: str, declared: Priority | None = None) -> Priority | None:
    """The priority of a tenant's task: the tenant's fairness key, with what the contract declares besides.

    A contract's own fairness key would have all tenants wait under one, and give a tenant one more turn for each
    contract that it uses. So it counts only where there is no tenant.

    Args:
        tenant_id: whose task it is; may be empty.
        declared: what the contract says, or the caller.

    Returns:
        The priority; `declared` as it is where there is no tenant.
    """
    if not tenant_id:
        return declared
    return dataclasses.replace(declared or Priority.default, fairness_key=fairness_key(tenant_id))


def tenant_queue(task_queue: str, tenant_id: str) -> str:
    """The task queue that a tenant's own workers poll; for no tenant, the one that all share."""
    return f"{task_queue}/{tenant_id}" if tenant_id else task_queue


def resolved_queue(task_queue: str, named: str, tenant_id: str) -> str | None:
    """The task queue that a request means by the name that it gives; None where it is none that it may name.

    Args:
        task_queue: that of the contract.
        named: by the request: the contract's, that of the tenant's own workers, or `TENANT-tasks`, under which deployed
            clients know the one that all share; empty for the contract's.
        tenant_id: whose work it is.
    """
    if named in ("", task_queue):
        return task_queue
    own = tenant_queue(task_queue, tenant_id)
    if named == own:
        return own
    return task_queue if tenant_id and named == f"{tenant_id}-tasks" else None
