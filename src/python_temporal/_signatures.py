"""Whether a method or function has the types of its contract, seen where it is defined."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import NoneType
from typing import Any, get_type_hints

from temporalio import workflow

__all__ = ["signature_faults"]

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
        return [f"{name} takes {expected}{' besides self' if method else ''}, not ({_listed(parameters)})"]
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


def _listed(parameters: list[inspect.Parameter]) -> str:
    return ", ".join(str(parameter) for parameter in parameters)


def _shown(hints: dict[str, Any], name: str) -> str:
    if name not in hints:
        return "not annotated"
    hint = hints[name]
    if hint is NoneType:
        return "None"
    return getattr(hint, "__qualname__", str(hint))
