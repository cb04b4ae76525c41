"""Whether a set of workflows and activities implements the contracts that it is meant for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ._implementations import CONTRACT
from ._model import ActivityContract, ServiceContract, WorkflowContract

__all__ = ["check"]


def check(
    service_contracts: Sequence[ServiceContract],
    workflows: Sequence[type[Any]],
    activities: Sequence[Callable[..., Any]],
) -> list[str]:
    """Compares what a module brings with the contracts of its services.

    Args:
        service_contracts: the services that the module implements.
        workflows: its workflow classes.
        activities: its activity callables: functions made with a generated decorator, or bound methods of an object
            whose class derives from a generated base.

    Returns:
        Every fault, one text each: what is missing, foreign, there twice or of a wrong kind. Empty means that it fits.
    """
    services = {service.full_name: service for service in service_contracts}
    faults = list[str]()
    found_workflows = _sort(workflows, WorkflowContract, services, faults, _workflow_fault)
    found_activities = _sort(activities, ActivityContract, services, faults, _activity_fault)
    for service in services.values():
        faults += _missing("workflow", service.workflows, found_workflows, "derive a class from its generated base")
        faults += _missing("activity", service.activities, found_activities, "decorate a function with its `defn`")
    return faults


def _sort(
    handlers: Iterable[Any],
    kind: type[WorkflowContract] | type[ActivityContract],
    services: Mapping[str, ServiceContract],
    faults: list[str],
    fault_of: Callable[[Any], str | None],
) -> dict[str, Any]:
    """Handlers by the full name of their method; those that are not what they should be become faults."""
    what = "workflow" if kind is WorkflowContract else "activity"
    found = dict[str, Any]()
    for handler in handlers:
        name = getattr(handler, "__qualname__", repr(handler))
        contract = getattr(handler, CONTRACT, None)
        if (fault := fault_of(handler)) is not None:
            faults.append(f"{name} {fault}")
        elif not isinstance(contract, kind):
            faults.append(f"{name} carries no contract of a {what}")
        elif contract.service.full_name not in services:
            faults.append(f"{name} implements {contract.method}, whose service is none of {_listed(services)}")
        elif contract.method in found:
            other = getattr(found[contract.method], "__qualname__", repr(found[contract.method]))
            faults.append(f"{what} {contract.name!r} is implemented twice, by {other} and {name}; leave one out")
        else:
            found[contract.method] = handler
    return found


def _workflow_fault(handler: Any) -> str | None:
    if not inspect.isclass(handler):
        return "is not a class; register workflow classes"
    if "__temporal_workflow_definition" not in vars(handler):
        return "is not a complete workflow; register a class derived from it"
    return None


def _activity_fault(handler: Any) -> str | None:
    if inspect.isclass(handler):
        return "is a class; make an object of it and register what its activities give"
    if not callable(handler):
        return "is not callable; register functions or bound methods"
    if not hasattr(handler, "__temporal_activity_definition"):
        return "is no activity; decorate it with the `defn` of a generated activity"
    contract = getattr(handler, CONTRACT, None)
    if isinstance(contract, ActivityContract):
        wanted = 0 if contract.input_type is None else 1
        if len(inspect.signature(handler).parameters) != wanted:
            return "is not bound to an object; register the bound method"
    return None


def _missing(
    what: str,
    declared: Mapping[str, WorkflowContract] | Mapping[str, ActivityContract],
    found: Mapping[str, Any],
    how: str,
) -> list[str]:
    return [
        f"{what} {contract.name!r} ({contract.method}) is declared but not implemented; {how}"
        for contract in declared.values()
        if contract.method not in found
    ]


def _listed(services: Mapping[str, ServiceContract]) -> str:
    return ", ".join(sorted(services)) or "(none)"
