"""Schedules that contracts declare: `option (contextunity.worker.schedule)` of an annotated workflow.

Read them from the descriptors in the generated `_pb2` modules. Those keep the option as bytes of an unknown field
number until ContextWorker's options are imported.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from contextunity.gen.contextunity.worker import ScheduleEntry, ScheduleOverlap, options_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.duration_pb2 import Duration

from betterproto2_codec import import_pb2
from contextunity.core import codec
from contextunity.core.errors import CodecError
from python_temporal import generated_modules
from python_temporal.contract import ServiceContract, WorkflowContract

from .check import DEFAULT_PROJECT, DEFAULT_TENANT, Contracts, EntryError, check_entry

__all__ = ["declaration_violations", "declared_schedules"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Declaration:
    """A schedule option in a proto."""

    contract: WorkflowContract
    option: options_pb2.ScheduleOption

    @property
    def where(self) -> str:
        """Place of the option, for people."""
        return f"schedule {self.option.id!r} of {self.contract.method} ({self.contract.service.source})"


def declared_schedules(registry: Contracts, modules: Sequence[str] | None = None) -> list[ScheduleEntry]:
    """Return the schedules that the contracts of registered modules declare, by module and proto.

    Args:
        registry: the modules.
        modules: names of modules; None means all.

    Raises:
        UnknownModuleError: a name is not registered.
    """
    services = (service for module in registry.select(modules) for service in module.contracts)
    return [_to_entry(declaration) for declaration in _declarations(services)]


def declaration_violations(services: Iterable[ServiceContract], workflows: Mapping[str, WorkflowContract]) -> list[str]:
    """Return what is wrong with the schedules that services declare, each with its place.

    Args:
        services: their contracts.
        workflows: all workflow contracts by workflow_type.
    """
    declarations = list(_declarations(services))
    violations = list[str]()
    for declaration in declarations:
        try:
            check_entry(_to_entry(declaration), workflows, tenant_id=DEFAULT_TENANT, project_id=DEFAULT_PROJECT)
        except CodecError as error:
            violations += [f"{declaration.where}: input_json: {violation}" for violation in error.violations]
        except EntryError as error:
            violations += [f"{declaration.where}: {violation}" for violation in error.violations]
    counts = Counter(declaration.option.id for declaration in declarations)
    violations += [
        f"{declaration.where}: {counts[declaration.option.id]} schedules declare this id; rename all but one"
        for declaration in declarations
        if counts[declaration.option.id] > 1
    ]
    return violations


def _declarations(services: Iterable[ServiceContract]) -> Iterator[_Declaration]:
    for service in services:
        descriptor = _descriptor(service)
        if descriptor is None:
            continue
        for method, contract in service.workflows.items():
            kept = descriptor.methods_by_name[method].GetOptions()
            # Parse again: the module may have been imported before our options.
            options = descriptor_pb2.MethodOptions.FromString(kept.SerializeToString())
            for option in options.Extensions[options_pb2.schedule]:
                yield _Declaration(contract=contract, option=option)


def _to_entry(declaration: _Declaration) -> ScheduleEntry:
    """Return the declared schedule as an entry of a request.

    Raises:
        CodecError: the input is not JSON of the workflow's input message.
    """
    option, contract = declaration.option, declaration.contract
    entry = ScheduleEntry(
        schedule_id=option.id,
        workflow_type=contract.name,
        cron=option.cron,
        timezone=option.timezone,
        description=option.description,
        overlap=ScheduleOverlap(option.overlap),
        catchup_window=_timedelta(option.catchup_window) if option.HasField("catchup_window") else None,
        jitter=_timedelta(option.jitter) if option.HasField("jitter") else None,
    )
    if option.input_json:
        if contract.input_type is None:
            raise CodecError(f"{contract.name!r} takes no parameters")
        entry.input = codec.pack_any(codec.from_json(contract.input_type, option.input_json))
    return entry


def _descriptor(service: ServiceContract) -> ServiceDescriptor | None:
    """Return the descriptor of a service; its `_pb2` module is in the same generated tree as its dataclasses."""
    pool: Any = descriptor_pool.Default()
    try:
        found: ServiceDescriptor = pool.FindServiceByName(service.full_name)
    except KeyError:
        module = service.source.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"
        if not any(_import(f"{root}.{module}" if root else module) for root in _trees(service)):
            return None
        found = pool.FindServiceByName(service.full_name)
    return found


def _trees(service: ServiceContract) -> list[str]:
    """Return packages that may have the module, the service's own first; it is unknown if no method has messages."""
    pools = (name for name in tuple(sys.modules) if name.rpartition(".")[2] == "message_pool")
    return list(dict.fromkeys([*sorted(generated_modules(service)), *(name.rpartition(".")[0] for name in pools)]))


def _import(module: str) -> bool:
    try:
        import_pb2(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            return False
        raise
    return True


def _timedelta(duration: Duration) -> timedelta:
    return duration.ToTimedelta()
