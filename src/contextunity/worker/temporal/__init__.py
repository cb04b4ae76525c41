"""Temporal clients and workers of a process. Read `client.py` and `worker.py` first, then `plugin.py`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import connect, with_port
    from .worker import running_workers

__all__ = ["connect", "running_workers", "with_port"]


def __getattr__(name: str) -> Any:
    # Imported on demand: quotas and schedules import the search attributes of this package, and workers import quotas
    # and schedules through the registry of modules.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{'worker' if name == 'running_workers' else 'client'}"), name)
