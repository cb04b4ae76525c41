"""Workflows: the base that checks and registers a workflow class, and the calls from other workflows."""

from __future__ import annotations

import inspect
import sys
import types
from abc import ABC
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

from temporalio import common, workflow

from .contract import ALIASES, MethodContract, WorkflowContract, signature_errors
from .errors import DefinitionError

__all__ = ["WorkflowBase", "check_inputs_by"]

_check_input: Callable[[Any], None] | None = None


def check_inputs_by(function: Callable[[Any], None]) -> None:
    """Make a function process each input of a workflow before `@workflow.init` gets it; it may change the input.

    Interceptors run after `__init__`, so they cannot do this.

    Args:
        function: called with each argument; `temporalio.workflow.info()` works there.
    """
    global _check_input
    _check_input = function


class WorkflowBase(ABC):
    """Base of the generated workflow bases.

    A class derived from a generated base is checked, and registered with the SDK, at its definition, without a
    decorator. Class keywords:

    - `abstract=True` skips this for a base class with shared code;
    - `sandboxed=False` runs the workflow outside the sandbox;
    - `failure_exception_types=[...]` lists exceptions that fail the workflow instead of its task.
    """

    __temporal_contract__: ClassVar[WorkflowContract]
    __temporal_aliases__: ClassVar[tuple[type[Any], ...]] = ()

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        """Create an instance; the SDK passes the input if `__init__` is decorated with `@workflow.init`."""
        if _check_input is not None:
            for argument in (*arguments, *named.values()):
                _check_input(argument)
        return super().__new__(cls)

    def __init_subclass__(
        cls,
        *,
        contract: WorkflowContract | None = None,
        abstract: bool = False,
        sandboxed: bool = True,
        failure_exception_types: Sequence[type[BaseException]] = (),
        **kwargs: Any,
    ) -> None:
        """Check and register a derived class.

        Raises:
            DefinitionError: methods are missing, or differ from the contract's types; every error is listed.
        """
        super().__init_subclass__(**kwargs)
        if contract is not None:
            cls.__temporal_contract__ = contract
        elif not abstract:
            _register(cls, sandboxed, failure_exception_types)


def _register(cls: type[WorkflowBase], sandboxed: bool, failure_exception_types: Sequence[type[BaseException]]) -> None:
    contract = cls.__temporal_contract__
    errors = [*_run_errors(cls, contract), *_handler_errors(cls, contract)]
    if errors:
        raise DefinitionError(cls.__qualname__, errors)
    workflow.run(vars(cls)["run"])
    _decorate_handlers(cls, contract)

    def define(target: type[Any], name: str) -> None:
        workflow.defn(
            name=name,
            sandboxed=sandboxed,
            failure_exception_types=failure_exception_types,
            versioning_behavior=contract.versioning_behavior or common.VersioningBehavior.UNSPECIFIED,
        )(target)

    define(cls, contract.name)
    aliases = [_alias_class(cls, number) for number in range(1, len(contract.aliases) + 1)]
    for alias, name in zip(aliases, contract.aliases, strict=True):
        define(alias, name)
    setattr(cls, ALIASES, tuple(aliases))


def _run_errors(cls: type[WorkflowBase], contract: WorkflowContract) -> list[str]:
    run = vars(cls).get("run")
    if run is None:
        return ["run is missing; the SDK wants it on the class itself"]
    if not inspect.iscoroutinefunction(run):
        return ["run must be an async method"]
    return signature_errors(run, contract.input_type, contract.output_type, method=True)


def _handler_errors(cls: type[WorkflowBase], contract: WorkflowContract) -> list[str]:
    errors = list[str]()
    for query in contract.queries.values():
        errors += _method_errors(cls, query.handler, query.contract, "query", is_async=False)
    for signal in contract.signals.values():
        errors += _method_errors(cls, signal.handler, signal.contract, "signal")
    for update in contract.updates.values():
        errors += _method_errors(cls, update.handler, update.contract, "update")
        if update.validator is not None:
            errors += _validator_errors(cls, update.validator, update.contract)
        elif hasattr(cls, f"validate_{update.handler}"):
            errors.append(
                f"validate_{update.handler} would never be called; declare `validate: true` for "
                f"{update.contract.method}"
            )
    return errors


def _method_errors(
    cls: type[WorkflowBase], name: str, contract: MethodContract, what: str, *, is_async: bool = True
) -> list[str]:
    function = getattr(cls, name, None)
    if not inspect.isfunction(function) or getattr(function, "__isabstractmethod__", False):
        return [f"{name} is missing, the {what} {contract.name!r}"]
    if not is_async and inspect.iscoroutinefunction(function):
        return [f"{name} must not be async, because a {what} must not wait"]
    return signature_errors(function, contract.input_type, contract.output_type, method=True)


def _validator_errors(cls: type[WorkflowBase], name: str, contract: MethodContract) -> list[str]:
    function = getattr(cls, name, None)
    if not inspect.isfunction(function) or getattr(function, "__isabstractmethod__", False):
        return [f"{name} is missing, the validator of the update {contract.name!r}"]
    if inspect.iscoroutinefunction(function):
        return [f"{name} must not be async, because a validator must not wait"]
    return signature_errors(function, contract.input_type, None, method=True)


def _decorate_handlers(cls: type[WorkflowBase], contract: WorkflowContract) -> None:
    # A decorated method is from a shared base, or was decorated for an option such as unfinished_policy.
    for query in contract.queries.values():
        function = getattr(cls, query.handler)
        if not hasattr(function, "__temporal_query_definition"):
            workflow.query(name=query.contract.name)(function)
    for signal in contract.signals.values():
        function = getattr(cls, signal.handler)
        if not hasattr(function, "__temporal_signal_definition"):
            workflow.signal(name=signal.contract.name)(function)
    for update in contract.updates.values():
        function = getattr(cls, update.handler)
        if not hasattr(function, "_defn"):
            validator = _accept_like(function) if update.validator is None else getattr(cls, update.validator)
            workflow.update(name=update.contract.name)(function).validator(validator)


def _accept_like(handler: Callable[..., Any]) -> Callable[..., None]:
    """Return a validator that accepts everything. Without one, the SDK accepts an update before interceptors run."""

    def accept(self: Any, *arguments: Any) -> None:
        pass

    # The SDK requires the same parameters for both.
    signature = inspect.signature(handler)
    setattr(accept, "__signature__", signature.replace(return_annotation=None))  # noqa: B010 - no attribute for types
    return accept


def _alias_class(cls: type[WorkflowBase], number: int) -> type[Any]:
    """Return a class like `cls` to register with another name; the SDK allows one name per class.

    It is stored in the module of `cls`, because the sandbox imports workflow classes by module and name.
    """
    name = f"{cls.__name__}_alias_{number}"
    run = _copy(vars(cls)["run"], f"{name}.run")

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(__module__=cls.__module__, __qualname__=name, __doc__=cls.__doc__, run=run)

    alias = types.new_class(name, (cls,), {"abstract": True}, fill)
    workflow.run(run)
    setattr(sys.modules[cls.__module__], name, alias)
    return alias


def _copy(function: Callable[..., Any], qualname: str) -> Any:
    assert isinstance(function, types.FunctionType)
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = dict(function.__annotations__)
    copy.__doc__, copy.__module__, copy.__qualname__ = function.__doc__, function.__module__, qualname
    return copy
