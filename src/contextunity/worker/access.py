"""What a method of the service asks of its caller: the words in which the table of methods says it.

`tools/access_reference.py` writes docs/reference/access.md from that table, and a test walks it, row by row, against
the service.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from .grpc_errors import Reason

__all__ = ["IMPLIED", "Access", "Subject", "effective_permissions"]


class Access(Enum):
    """Which of a unit's SecurityScopes its sender has to satisfy."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answers:
    """What is answered to callers whose token is not for what they ask about.

    Attributes:
        what: what the method is about, for people.
        other_tenant: a token for other tenants, where the request names none.
        no_tenant: a token for no tenant, where the request names none.
        named_tenant: a request that names a tenant which is not the token's.
        other_project: a token that is bound to another project than the request names.
    """

    what: str
    other_tenant: Reason | str
    no_tenant: Reason | str
    named_tenant: Reason | str = Reason.TENANT_REFUSED
    other_project: Reason | str = "as any"


class Subject(Enum):
    """What a method is about, and with it who may have it done."""

    NEW_TASK = _Answers(what="a task that it starts", other_tenant="its own", no_tenant=Reason.TENANT_REFUSED)
    TASK = _Answers(what="a task", other_tenant=Reason.TASK_UNKNOWN, no_tenant=Reason.TASK_UNKNOWN)
    TASKS = _Answers(what="all tasks", other_tenant="left out", no_tenant="left out")
    NEW_SCHEDULES = _Answers(
        what="the schedules of a project",
        other_tenant="its own",
        no_tenant=Reason.TENANT_REFUSED,
        other_project=Reason.PROJECT_REFUSED,
    )
    SCHEDULE = _Answers(
        what="a schedule",
        other_tenant=Reason.SCHEDULE_UNKNOWN,
        no_tenant=Reason.TENANT_REFUSED,
        other_project=Reason.SCHEDULE_UNKNOWN,
    )
    SCHEDULES = _Answers(what="all schedules", other_tenant="left out", no_tenant="left out", other_project="left out")
    CONTRACTS = _Answers(
        what="the contracts, which are nobody's", other_tenant="as any", no_tenant="as any", named_tenant="as any"
    )


IMPLIED: Mapping[str, tuple[str, ...]] = {
    "admin:all": (
        *("admin:read", "admin:write", "admin:trace", "brain:read", "brain:write"),
        *("memory:read", "memory:write", "trace:read", "trace:write"),
    ),
    "admin:trace": ("trace:read",),
    "brain:write": ("brain:read",),
    "memory:write": ("memory:read",),
}
"""What a permission implies, all of it at once, for scopes of units. Nothing implies one of the worker's own."""


@functools.lru_cache(maxsize=1024)
def effective_permissions(held: frozenset[str]) -> frozenset[str]:
    """The permissions that a token holds, with those that they imply: what scopes of a unit are held against.

    A method's own permission is not implied by any; `Caller.may` looks at those that the token names.
    """
    return held.union(*(IMPLIED.get(each, ()) for each in held))
