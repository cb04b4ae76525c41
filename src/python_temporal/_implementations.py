"""The marks by which implementations carry their contract."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from ._model import ActivityContract, ServiceContract, WorkflowContract
from .errors import ContractError

__all__ = ["ALIASES", "CONTRACT", "contract_of", "service_of", "workflow_classes"]

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
