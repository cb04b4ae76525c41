"""The path under which modules outside of this repository import what they register with."""

from __future__ import annotations

from contextunity.worker.modules.registry import ModuleConfig, ModuleContext, RegisteredModule, WorkerRegistry

__all__ = ["ModuleConfig", "ModuleContext", "RegisteredModule", "WorkerRegistry"]
