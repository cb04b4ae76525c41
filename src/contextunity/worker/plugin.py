"""The path under which clients and workers of your own import the plugin for Temporal's SDK."""

from __future__ import annotations

from .temporal.plugin import PASSTHROUGH_MODULES, ContextWorkerPlugin

__all__ = ["PASSTHROUGH_MODULES", "ContextWorkerPlugin"]
