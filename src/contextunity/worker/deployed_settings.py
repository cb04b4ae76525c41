"""Environment variables that are not ours: those of the deployed system, of Kubernetes, and slips of the pen."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

__all__ = ["IGNORED", "OLDER_NAMES", "ignored_warning", "is_of_kubernetes", "nearest", "tls_fault"]

OLDER_NAMES: Mapping[str, str] = {"TEMPORAL_HOST": "temporal_host", "LOG_LEVEL": "log_level"}
"""Variables of the deployed system that are taken where ours is unset, with our setting; beside CU_PROJECT_SECRET."""

IGNORED: Mapping[str, str] = {
    "WORKER_TENANTS": "callers' tenants come from their tokens; run workers of one tenant's own with --tenant",
    "WORKER_INSTANCE_NAME": "workers are named by Temporal's own identity",
}
"""Variables of the deployed system that mean nothing here, and why."""

_OF_KUBERNETES = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)
_LINK = re.compile(r"(tcp|udp|sctp)://")
_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})


def is_of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes made a variable for a service, as it does in each container of the namespace.

    A service called `worker` gives WORKER_PORT=tcp://10.0.0.7:50052, which is no port of ours.
    """
    return bool(_OF_KUBERNETES.search(name) or (name.endswith("_PORT") and _LINK.match(value)))


def ignored_warning(environ: Mapping[str, str]) -> str:
    """One warning for the variables of the deployed system that mean nothing here; empty where there are none."""
    found = [f"{name} ({why})" for name, why in IGNORED.items() if environ.get(name)]
    return f"not used here, remove them: {'; '.join(found)}" if found else ""


def tls_fault(environ: Mapping[str, str]) -> str:
    """What is wrong where TLS is asked for: to listen in plaintext instead would give away what it was to hide."""
    if environ.get("GRPC_TLS_ENABLED", "").strip().lower() not in _TRUE:
        return ""
    return (
        "GRPC_TLS_ENABLED is set, but the service has no TLS listener yet and would listen in plaintext; unset it, and "
        "have a proxy in front of it end TLS"
    )


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that a variable is a slip of: one edit away, or one more for each six letters; else empty."""
    best = ""
    fewest = len(name)
    for each in sorted(known):
        allowed = 1 + len(each.partition("_")[2]) // 6
        if each != name and abs(len(each) - len(name)) <= allowed:
            edits = _edits(name.upper(), each)
            if edits <= allowed and edits < fewest:
                best, fewest = each, edits
    return best


def _edits(one: str, other: str) -> int:
    """Letters to add, drop, change or swap with the next (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            edits = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                edits = min(edits, before[j - 2] + 1)
            row.append(edits)
        before, last = last, row
    return last[-1]
