"""Finds the modules: entry points of installed packages, and import paths from the settings."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from importlib.metadata import entry_points

from ..errors import RegistryError, SettingsError
from ..settings import Settings, load_settings
from .registry import ModuleConfig, WorkerRegistry

__all__ = ["ENTRY_POINT_GROUP", "boot", "discover"]

ENTRY_POINT_GROUP = "contextunity.worker.modules"
"""Entry points of this group name a ModuleConfig, or a callable without arguments that returns one."""


def boot() -> tuple[Settings, WorkerRegistry]:
    """Reads the settings of the process and registers every module.

    Raises:
        SettingsError: settings are wrong; those of the process and of all modules are named at once.
        RegistryError: modules cannot be imported or do not match their contracts.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        if isinstance(error.usable, Settings):
            try:
                discover(error.usable)
            except SettingsError as more:
                raise SettingsError([*error.faults, *more.faults]) from None
            except RegistryError:
                pass  # Told once the settings are right: a module may be broken by them.
        raise
    return settings, discover(settings)


def discover(settings: Settings) -> WorkerRegistry:
    """Loads and registers every module there is.

    Raises:
        RegistryError: modules cannot be imported or do not match their contracts; every fault is listed.
        SettingsError: a module's settings are wrong.
    """
    configs, faults = list[ModuleConfig](), list[str]()
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        _load(f"module {point.name!r} (entry point {point.value})", point.load, configs, faults)
    for path in settings.module_paths:
        _load(f"module {path!r} (WORKER_MODULES)", functools.partial(_import, path), configs, faults)
    registry = WorkerRegistry(module_settings=settings.modules, settings_folder=settings.settings_folder)
    stray = registry.stray_sections(configs)
    try:
        registry.register_all(configs)
    except RegistryError as error:
        faults += error.faults
    except SettingsError as error:
        raise SettingsError([*stray, *error.faults]) from None
    if faults:
        raise RegistryError(faults)
    if stray:
        raise SettingsError(stray)
    return registry


def _import(path: str) -> object:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute or "module")


def _load(where: str, load: Callable[[], object], configs: list[ModuleConfig], faults: list[str]) -> None:
    try:
        loaded = load()
        if callable(loaded):
            loaded = loaded()
    # A module is somebody else's code: whatever its import raises is a fault to list beside the others'.
    except Exception as error:  # noqa: BLE001
        faults.append(f"{where} cannot be loaded: {type(error).__name__}: {error}")
        return
    if isinstance(loaded, ModuleConfig):
        configs.append(loaded)
    else:
        faults.append(f"{where} is a {type(loaded).__name__}; it should be a ModuleConfig or return one")
