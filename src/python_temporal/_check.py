"""Compares implementations with their contracts: the marks that they carry, and whether their signatures fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, TypeVar, get_type_hints, overload

from temporalio import workflow

from ._model import ActivityContract, ServiceContract, WorkflowContract
from .errors import ContractError

__all__ = ["ALIASES", "CONTRACT", "check", "contract_of", "service_of", "signature_faults", "workflow_classes"]

CONTRACT = "__temporal_contract__"
"""Attribute of workflow classes and activity callables that holds their contract."""

ALIASES = "__temporal_aliases__"
"""Attribute of workflow classes that holds the classes registered under their further names."""

_DefaultT = TypeVar("_DefaultT")
_RAISE = object()


@overload
def contract_of(handler: object) -> WorkflowContract | ActivityContract: ...
@overload
def contract_of(handler: object, default: _DefaultT) -> WorkflowContract | ActivityContract | _DefaultT: ...
def contract_of(handler: object, default: Any = _RAISE) -> Any:
    """The contract that a workflow class or an activity callable was made for.

    Args:
        handler: the class or callable.
        default: what to return where there is none.

    Raises:
        ContractError: there is none, and no default.
    """
    contract = getattr(handler, CONTRACT, None)
    if isinstance(contract, WorkflowContract | ActivityContract):
        return contract
    if default is not _RAISE:
        return default
    name = getattr(handler, "__qualname__", repr(handler))
    raise ContractError(
        f"{name} belongs to no contract; derive workflows from a generated base, and decorate activities with the "
        "`defn` of a generated activity"
    )


def service_of(handler: object) -> ServiceContract:
    """The contract of the service that a workflow class or an activity callable belongs to.

    Raises:
        ContractError: the handler has no contract.
    """
    return contract_of(handler).service


def workflow_classes(workflow: type[Any]) -> list[type[Any]]:
    """The classes to give to a Temporal worker for a workflow: itself, and one for each alias of its contract."""
    return [workflow, *getattr(workflow, ALIASES, ())]


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def signature_faults(
    function: Callable[..., Any], input_type: type[Any] | None, output_type: type[Any] | None, *, method: bool
) -> list[str]:
    """Compares a signature with a contract. The SDK decodes by these annotations, so they cannot be left out.

    Args:
        function: what implements the contract.
        input_type: its one parameter's type; None for no parameter.
        output_type: its result's type; None for no result.
        method: whether the first parameter is `self`.

    Returns:
        Every fault; empty means that it fits.
    """
    if workflow.unsafe.in_sandbox():
        # The sandbox imports a workflow's module anew for each run. The worker's own import of it was checked.
        return []
    name = function.__name__
    parameters = list(inspect.signature(function).parameters.values())[1 if method else 0 :]
    expected = "no parameter" if input_type is None else f"one parameter of type {input_type.__name__}"
    if len(parameters) != (input_type is not None) or any(each.kind not in _POSITIONAL for each in parameters):
        return [f"{name} takes {expected}{' besides self' if method else ''}, not ({_listed_parameters(parameters)})"]
    try:
        hints = get_type_hints(function)
    except NameError as error:
        return [f"{name} has an annotation that cannot be resolved ({error}); import its type outside TYPE_CHECKING"]
    faults = list[str]()
    for parameter in parameters:
        if hints.get(parameter.name) is not input_type:
            faults.append(f"{name} takes {expected}, but {parameter.name} is {_shown(hints, parameter.name)}")
    # Without a result an annotation may be left out, as type checkers allow for a method that overrides a typed one.
    if hints.get("return", NoneType if output_type is None else None) is not (output_type or NoneType):
        wanted = output_type.__name__ if output_type else "None"
        faults.append(f"{name} returns {wanted}, but its return type is {_shown(hints, 'return')}")
    return faults


def _listed_parameters(parameters: list[inspect.Parameter]) -> str:
    return ", ".join(str(parameter) for parameter in parameters)


def _shown(hints: dict[str, Any], name: str) -> str:
    if name not in hints:
        return "not annotated"
    hint = hints[name]
    if hint is NoneType:
        return "None"
    return getattr(hint, "__qualname__", str(hint))


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
