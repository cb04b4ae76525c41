"""Discovery of modules: entry points of installed packages, and import paths from the settings."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from ..errors import RegistryError, SettingsError
from ..settings import Settings, load_settings
from .import_errors import import_error
from .registry import ModuleConfig, WorkerRegistry

__all__ = ["ENTRY_POINT_GROUP", "boot", "discover"]

ENTRY_POINT_GROUP = "contextunity.worker.modules"
"""Entry points of this group name a ModuleConfig, or a callable without arguments that returns one."""


def boot(*, log_level: str = "") -> tuple[Settings, WorkerRegistry]:
    """Load the settings of the process, and register every module.

    Args:
        log_level: see `load_settings`.

    Raises:
        SettingsError: settings are invalid; those of the process and of all modules are reported at once.
        RegistryError: modules cannot be imported or do not match their contracts.
    """
    try:
        settings = load_settings(log_level=log_level)
    except SettingsError as error:
        if isinstance(error.usable, Settings):
            try:
                discover(error.usable)
            except SettingsError as more:
                raise SettingsError([*error.faults, *more.faults]) from None
            except RegistryError:
                pass  # Reported once the settings are valid: invalid settings may break modules.
        raise
    return settings, discover(settings)


def discover(settings: Settings) -> WorkerRegistry:
    """Load and register every module.

    Raises:
        RegistryError: modules cannot be imported or do not match their contracts; every error is listed.
        SettingsError: a module's settings are invalid.
    """
    configs, violations = list[ModuleConfig](), list[str]()
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        _load(f"module {point.name!r} (entry point {point.value})", point.module, point.attr, configs, violations)
    for path in settings.module_paths:
        module, _, attribute = path.partition(":")
        _load(f"module {path!r} (WORKER_MODULES)", module, attribute, configs, violations)
    registry = WorkerRegistry(module_settings=settings.modules, settings_folder=settings.settings_folder)
    stray = registry.stray_sections(configs)
    try:
        registry.register_all(configs)
    except RegistryError as error:
        violations += error.faults
    except SettingsError as error:
        raise SettingsError([*stray, *error.faults]) from None
    if violations:
        raise RegistryError(violations)
    if stray:
        raise SettingsError(stray)
    return registry


class _Recording:
    """Replaces the registry of the deployed system, and records what is registered."""

    def __init__(self) -> None:
        self.configs = list[str]()

    def register(self, **given: Any) -> None:
        """Record a registration as the equivalent ModuleConfig."""
        lists = {key: [_name_of(each) for each in given.get(key) or ()] for key in ("workflows", "activities")}
        listed = "".join(f", {key}=[{', '.join(names)}]" for key, names in lists.items() if names)
        config = f"module = ModuleConfig(name={given.get('name', 'NAME')!r}{listed})"
        queue = given.get("queue")
        self.configs.append(config + (f'  # task_queue: "{queue}" is in the proto' if queue else ""))


def _name_of(handler: object) -> str:
    return str(getattr(handler, "__name__", repr(handler)))


def _register_all_violation(where: str, register_all: Callable[..., object]) -> str:
    """Return the error for a plug-in of the deployed system, with the ModuleConfig to write instead."""
    recording = _Recording()
    # Foreign code, called only to make the error more specific; without it, the error is general.
    with contextlib.suppress(Exception):
        register_all(recording)
    shown = recording.configs or ["module = ModuleConfig(name='NAME', workflows=[…], activities=[…])"]
    return (
        f"{where} registers itself by register_all(registry), which is not called here. Write instead: "
        "from contextunity.worker.core.registry import ModuleConfig; "
        f"{'; '.join(shown)}. Workflows stand on generated bases, and the contract in a proto (docs/plugin.md)"
    )


def _load(where: str, path: str, attribute: str, configs: list[ModuleConfig], violations: list[str]) -> None:
    """Add the ModuleConfig of a module, or its violation.

    Args:
        where: the module, and where it is declared.
        path: dotted name of the Python module.
        attribute: name in it; default: `module`.
        configs: list to append to.
        violations: list to append to.
    """
    try:
        loaded = importlib.import_module(path)
        found = _attribute(loaded, attribute or "module")
        if found is None and not attribute:
            found = getattr(loaded, "register_all", None)
        if found is None:
            violations.append(_missing_violation(where, loaded, attribute))
            return
        if callable(found) and getattr(found, "__name__", "") == "register_all":
            violations.append(_register_all_violation(where, found))
            return
        if callable(found):
            if _needs_arguments(found):
                violations.append(f"{where} needs arguments; it should be a ModuleConfig, or return one without any")
                return
            found = found()
    # Foreign code may raise anything during import; report it with the errors of other modules. SystemExit would end
    # the process without a message.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        violations.append(f"{where} cannot be loaded: {import_error(error, path)}")
        return
    if isinstance(found, ModuleConfig):
        configs.append(found)
    else:
        violations.append(f"{where} is a {type(found).__name__}; it should be a ModuleConfig or return one")


def _needs_arguments(function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(
        each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters
    )


def _attribute(loaded: object, path: str) -> object | None:
    for name in path.split("."):
        loaded = getattr(loaded, name, None)
    return loaded


def _missing_violation(where: str, loaded: ModuleType, attribute: str) -> str:
    file, name = getattr(loaded, "__file__", None) or "it", loaded.__name__.rpartition(".")[2]
    return (
        f"{where} has no {attribute or 'module'!r}; add {attribute or 'module'} = ModuleConfig(name={name!r}, "
        f"workflows=[…], activities=[…]) to {file}, or name what is a ModuleConfig: {loaded.__name__}:NAME"
    )
