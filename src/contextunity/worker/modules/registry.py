"""The registry of modules: what each one brings, checked against its contracts before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from python_temporal.contract import (
    ServiceContract,
    WorkflowContract,
    check,
    contract_of,
    service_of,
    workflow_classes,
)

from ..errors import RegistryError, SettingsError, UnknownModuleError
from ..quotas import Quotas
from ..schedules import declaration_violations
from ..settings import describe_violations

__all__ = ["FAILURE_STATUSES", "ModuleConfig", "ModuleContext", "RegisteredModule", "WorkerRegistry"]


FAILURE_STATUSES = frozenset(
    {
        *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"),
        *("FAILED_PRECONDITION", "OUT_OF_RANGE", "DATA_LOSS"),
    }
)
"""gRPC statuses that a task which fails may give. The others say something about the call itself, or have clients send
it again by themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleContext:
    """What a module's lifespan is given.

    Attributes:
        settings: the module's own settings, checked; None where it declares no model for them.
        data_folder: folder for embedded databases and spooled files; it may not exist yet.
        quotas: what tenants may take.
        workflows: contracts of all registered modules by workflow_type. By them a module reaches the workflows of
            others, which it does not import.
    """

    settings: Any
    data_folder: Path
    quotas: Quotas = field(default_factory=Quotas)
    workflows: Mapping[str, WorkflowContract] = field(default_factory=dict[str, WorkflowContract])


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleConfig:
    """What a module brings to the worker.

    Attributes:
        name: the word that `--modules` and `[modules.NAME]` in the settings file call it by.
        workflows: workflow classes, made on the generated bases.
        activities: activity callables, made with the generated decorators.
        contracts: contracts of annotated services that it implements; unless given, those that its workflows and
            activities belong to.
        settings: pydantic model of its section of the settings file; without one it has no settings.
        lifespan: opens what its activities share when a worker starts, and closes it when the worker stops.
        passthrough_modules: import paths that the workflow sandbox shares with the process, such as the package of the
            module's generated code; those of the contracts' packages are there already.
        waiting_slots: gives, for the module's settings, how many activities may run beside
            `max_concurrent_activities` on a task queue: as many as mostly wait for others and are bounded by a
            `ConcurrencyLimit`.
        description: one line for people.
        example: payload of a StartWorkflow that works out of the box, shown to somebody who tries things out.
        statuses: names of the gRPC statuses that calls of its contracts' methods end with where a task fails with an
            application error, by the type of that, such as `{"SupplierUnknown": "NOT_FOUND"}`; without one, the status
            is FAILED_PRECONDITION, but for the types that docs/contract-services.md lists.
    """

    name: str
    workflows: Sequence[type[Any]] = ()
    activities: Sequence[Callable[..., Any]] = ()
    contracts: Sequence[ServiceContract] = ()
    settings: type[BaseModel] | None = None
    lifespan: Callable[[ModuleContext], AbstractAsyncContextManager[None]] | None = None
    passthrough_modules: Sequence[str] = ()
    waiting_slots: Callable[[Any], int] | None = None
    description: str = ""
    example: Mapping[str, Any] = field(default_factory=dict[str, Any])
    statuses: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredModule:
    """A module that was found to match its contracts.

    Attributes:
        config: as its author wrote it.
        contracts: the service contracts that it implements.
        settings: its checked settings, or None.
    """

    config: ModuleConfig
    contracts: tuple[ServiceContract, ...]
    settings: BaseModel | None

    @property
    def task_queues(self) -> tuple[str, ...]:
        """Task queues that workers poll for this module, sorted."""
        handlers = (*self.config.workflows, *self.config.activities)
        return tuple(sorted({contract_of(handler).task_queue or "" for handler in handlers}))

    @property
    def waiting_slots(self) -> int:
        """Slots for activities that mostly wait, on each of its task queues."""
        if self.config.waiting_slots is None:
            return 0
        settings = (
            self.settings if self.settings is not None or self.config.settings is None else self.config.settings()
        )
        return self.config.waiting_slots(settings)

    def handlers(self, task_queue: str) -> tuple[list[type[Any]], list[Callable[..., Any]]]:
        """The workflows and the activities that belong on a task queue."""
        return (
            [
                registered
                for workflow in self.config.workflows
                if contract_of(workflow).task_queue == task_queue
                for registered in workflow_classes(workflow)
            ],
            [activity for activity in self.config.activities if contract_of(activity).task_queue == task_queue],
        )


@dataclass(slots=True)
class WorkerRegistry:
    """Modules by name, and workflow contracts by workflow_type.

    Args:
        module_settings: sections of the settings file by module name.
        settings_folder: folder of the settings file, which a module's model finds as `settings_folder` in the context
            of its validation.

    Attributes:
        workflows: the contracts by workflow_type, aliases included; replaced as a whole where modules are added.
    """

    module_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    settings_folder: Path = field(default_factory=Path.cwd)
    _modules: dict[str, RegisteredModule] = field(default_factory=dict[str, RegisteredModule], init=False)
    workflows: Mapping[str, WorkflowContract] = field(default_factory=dict[str, WorkflowContract], init=False)

    def register(self, config: ModuleConfig) -> None:
        """Adds one module.

        Raises:
            RegistryError: it does not match its contracts, or clashes with a module that is there; nothing is changed.
            SettingsError: its settings are wrong.
        """
        self.register_all([config])

    def register_all(self, configs: Iterable[ModuleConfig]) -> None:
        """Adds several modules, or none of them; all faults of all modules are reported at once."""
        registered, violations, setting_violations = list[RegisteredModule](), list[str](), list[str]()
        for config in configs:
            services = _contracts(config)
            violations += _module_violations(config, services)
            settings = _check_settings(
                config, self.module_settings.get(config.name, {}), self.settings_folder, setting_violations
            )
            registered.append(RegisteredModule(config=config, contracts=services, settings=settings))
        everything = [*self._modules.values(), *registered]
        violations += _clashes(everything)
        violations += _schedule_violations(everything)
        if violations:
            raise RegistryError(violations)
        if setting_violations:
            raise SettingsError(setting_violations)
        self._modules = {module.config.name: module for module in everything}
        self.workflows = MappingProxyType(_workflows(everything))

    @property
    def modules(self) -> Mapping[str, RegisteredModule]:
        """Registered modules by name."""
        return MappingProxyType(self._modules)

    def select(self, names: Sequence[str] | None) -> list[RegisteredModule]:
        """Modules by name, in the order asked for; all of them for None.

        Raises:
            UnknownModuleError: a name is not registered.
        """
        if names is None:
            return list(self._modules.values())
        unknown = [name for name in dict.fromkeys(names) if name not in self._modules]
        if unknown:
            raise UnknownModuleError(unknown, sorted(self._modules))
        return [self._modules[name] for name in dict.fromkeys(names)]

    def stray_sections(self, configs: Iterable[ModuleConfig]) -> list[str]:
        """A fault for each module section of the settings that belongs to none of the modules, registered or to be."""
        names = {*self._modules, *(config.name for config in configs)}
        known = ", ".join(sorted(names)) or "none"
        return [
            f"modules.{name}: there is no such module; known modules: {known}"
            for name in sorted(set(self.module_settings) - names)
        ]


def _contracts(config: ModuleConfig) -> tuple[ServiceContract, ...]:
    if config.contracts:
        return tuple(config.contracts)
    handlers = [
        handler for handler in (*config.workflows, *config.activities) if contract_of(handler, None) is not None
    ]
    services = [service_of(handler) for handler in handlers]
    return tuple({service.full_name: service for service in services}.values())


def _module_violations(config: ModuleConfig, services: Sequence[ServiceContract]) -> list[str]:
    violations = list[str]()
    if not config.name.replace("_", "").replace("-", "").isalnum():
        violations.append(f"module name {config.name!r} is not made of letters, digits, - and _")
    for handler in (*config.workflows, *config.activities):
        if contract_of(handler, None) is None:
            name = getattr(handler, "__qualname__", repr(handler))
            violations.append(
                f"module {config.name!r}: {name} belongs to no contract; make workflows on a generated base, and "
                "activities with a generated decorator"
            )
    known = ", ".join(sorted(FAILURE_STATUSES))
    violations += [
        f"module {config.name!r}: statuses[{kind!r}] is {status!r}; it may be one of {known}"
        for kind, status in config.statuses.items()
        if status not in FAILURE_STATUSES
    ]
    if not violations:
        violations += [
            f"module {config.name!r}: {violation}" for violation in check(services, config.workflows, config.activities)
        ]
    return violations


def _clashes(modules: Sequence[RegisteredModule]) -> list[str]:
    violations = _repeated("module name", (module.config.name for module in modules))
    workflow_types = (
        name
        for module in modules
        for service in module.contracts
        for contract in service.workflows.values()
        for name in (contract.name, *contract.aliases)
    )
    violations += _repeated("workflow_type", workflow_types)
    violations += _repeated(
        "task queue", (queue for module in modules if not _module_broken(module) for queue in module.task_queues)
    )
    return violations


def _workflows(modules: Iterable[RegisteredModule]) -> dict[str, WorkflowContract]:
    return {
        name: contract
        for module in modules
        for service in module.contracts
        for contract in service.workflows.values()
        for name in (contract.name, *contract.aliases)
    }


def _schedule_violations(modules: Sequence[RegisteredModule]) -> list[str]:
    """What is wrong with the schedules that the contracts declare."""
    return declaration_violations(
        {service.full_name: service for module in modules for service in module.contracts}.values(),
        _workflows(modules),
    )


def _module_broken(module: RegisteredModule) -> bool:
    return any(contract_of(handler, None) is None for handler in (*module.config.workflows, *module.config.activities))


def _repeated(what: str, names: Iterable[str]) -> list[str]:
    return [
        f"{what} {name!r} is declared {count} times; rename one" for name, count in Counter(names).items() if count > 1
    ]


def _check_settings(
    config: ModuleConfig, section: Mapping[str, Any], folder: Path, violations: list[str]
) -> BaseModel | None:
    if config.settings is None:
        violations += [f"modules.{config.name}.{key}: the module {config.name} has no settings" for key in section]
        return None
    try:
        return config.settings.model_validate(dict(section), context={"settings_folder": folder})
    except ValidationError as error:
        violations += describe_violations(error, {}, f"modules.{config.name}.")
        return None
