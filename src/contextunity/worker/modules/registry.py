"""The registry of modules: what each one provides, checked against its contracts before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

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
from ..setting_errors import describe_violations
from ..temporal.search_attributes import type_name

if TYPE_CHECKING:
    from ..doctor.findings import Finding

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
    """Argument of a module's lifespan.

    Attributes:
        settings: the module's own settings, validated; None if it has no settings model.
        data_folder: folder for embedded databases and spooled files; it may not exist yet.
        quotas: quotas of tenants.
        workflows: contracts of all registered modules by workflow_type. With them, a module starts workflows of other
            modules, which it does not import.
        snapshot_key_file: file of keys, as for `key_files`, that seal what a module leaves in Temporal's history to
            load it again; None if the settings name none.
    """

    settings: Any
    data_folder: Path
    quotas: Quotas = field(default_factory=Quotas)
    workflows: Mapping[str, WorkflowContract] = field(default_factory=dict[str, WorkflowContract])
    snapshot_key_file: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleConfig:
    """What a module provides.

    Attributes:
        name: name for `--modules`, and for `[modules.NAME]` in the settings file.
        workflows: workflow classes, derived from the generated bases.
        activities: activity callables, made with the generated decorators.
        contracts: contracts of the annotated services that it implements; default: those of its workflows and
            activities.
        settings: pydantic model of its section in the settings file; None for no settings.
        lifespan: opens the shared resources of its activities when a worker starts, and closes them when it stops.
        passthrough_modules: import paths that the workflow sandbox shares with the process, such as the package of the
            module's generated code; the packages of the contracts are included automatically.
        waiting_slots: returns, for the module's settings, how many activities may run in addition to
            `max_concurrent_activities` on a task queue: as many as mostly wait and are limited by a
            `ConcurrencyLimit`.
        description: one line for people.
        example: payload of a StartWorkflow that works without further setup, shown by `dev`.
        statuses: names of gRPC statuses by the type of a task's application error, such as
            `{"SupplierUnknown": "NOT_FOUND"}`. Other types give FAILED_PRECONDITION, except those in
            docs/contract-services.md.
        checks: what `contextworker doctor` checks of the module, by name. A check gets what the lifespan gets, opens
            what it needs itself, and changes nothing; a plain function runs in a thread.
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
    checks: Mapping[str, Callable[[ModuleContext], Sequence[Finding] | Awaitable[Sequence[Finding]]]] = field(
        default_factory=dict[str, Any]
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredModule:
    """A registered module, which matches its contracts.

    Attributes:
        config: its ModuleConfig.
        contracts: the service contracts that it implements.
        settings: its validated settings, or None.
    """

    config: ModuleConfig
    contracts: tuple[ServiceContract, ...]
    settings: BaseModel | None

    @property
    def task_queues(self) -> tuple[str, ...]:
        """Return the task queues that workers poll for this module, sorted."""
        handlers = (*self.config.workflows, *self.config.activities)
        return tuple(sorted({contract_of(handler).task_queue or "" for handler in handlers}))

    @property
    def waiting_slots(self) -> int:
        """Return the slots for activities that mostly wait, per task queue."""
        if self.config.waiting_slots is None:
            return 0
        settings = (
            self.settings if self.settings is not None or self.config.settings is None else self.config.settings()
        )
        return self.config.waiting_slots(settings)

    def handlers(self, task_queue: str) -> tuple[list[type[Any]], list[Callable[..., Any]]]:
        """Return the workflows and the activities of a task queue."""
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
    """Registered modules by name, and workflow contracts by workflow_type.

    Args:
        module_settings: sections of the settings file by module name.
        settings_folder: folder of the settings file, which a module's model gets as `settings_folder` in its validation
            context.

    Attributes:
        workflows: the contracts by workflow_type, including aliases; replaced as a whole when modules are added.
    """

    module_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    settings_folder: Path = field(default_factory=Path.cwd)
    _modules: dict[str, RegisteredModule] = field(default_factory=dict[str, RegisteredModule], init=False)
    workflows: Mapping[str, WorkflowContract] = field(default_factory=dict[str, WorkflowContract], init=False)

    def register(self, config: ModuleConfig) -> None:
        """Add one module.

        Raises:
            RegistryError: it does not match its contracts, or conflicts with a registered module; nothing is changed.
            SettingsError: its settings are invalid.
        """
        self.register_all([config])

    def register_all(self, configs: Iterable[ModuleConfig]) -> None:
        """Add several modules, or none of them; all errors of all modules are reported at once."""
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
        """Return modules by name, in the given order; all of them for None.

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
        """Return a violation for each module section in the settings without a module."""
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
    return violations + _attribute_clashes(modules)


def _attribute_clashes(modules: Sequence[RegisteredModule]) -> list[str]:
    """Return violations for search attributes with different types in two contracts; a namespace allows only one."""
    users = dict[str, dict[str, str]]()
    for contract in _workflows(modules).values():
        for key in contract.search_attribute_keys:
            users.setdefault(key.name, {}).setdefault(type_name(key.indexed_value_type), contract.name)
    return [
        f"search attribute {name!r} is "
        + " and ".join(f"{kind} in workflow {user!r}" for kind, user in kinds.items())
        + "; rename one"
        for name, kinds in users.items()
        if len(kinds) > 1
    ]


def _workflows(modules: Iterable[RegisteredModule]) -> dict[str, WorkflowContract]:
    return {
        name: contract
        for module in modules
        for service in module.contracts
        for contract in service.workflows.values()
        for name in (contract.name, *contract.aliases)
    }


def _schedule_violations(modules: Sequence[RegisteredModule]) -> list[str]:
    """Return the violations of the schedules that the contracts declare."""
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
        violations += describe_violations(error, config.settings, {}, f"modules.{config.name}.")
        return None
