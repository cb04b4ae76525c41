"""Contracts of annotated services: the model, the check of an implementation, and the arguments of a start."""

from __future__ import annotations

import base64
import bz2
import importlib
import inspect
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import NoneType
from typing import Any, Generic, get_type_hints, overload

from temporalio import common, workflow
from temporalio.client import WorkflowUpdateStage
from typing_extensions import TypeVar, Unpack

from .errors import ContractError, DefinitionError
from .options import ChildOptions, StartOptions

__all__ = [
    "ActivityContract",
    "ContractError",
    "DefinitionError",
    "MethodContract",
    "QueryBinding",
    "QueryContract",
    "ServiceContract",
    "SignalBinding",
    "SignalContract",
    "UpdateBinding",
    "UpdateContract",
    "WorkflowContract",
    "check",
    "contract_of",
    "file_descriptor_set",
    "generated_modules",
    "service_of",
    "start_arguments",
    "workflow_classes",
]

OutT = TypeVar("OutT", default=Any)


# Contracts compare by identity (eq=False): each exists once, and some of their fields cannot be compared.
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MethodContract:
    """The common part of all contracts of methods.

    Attributes:
        name: Temporal name.
        method: full name of the proto method, such as `acme.billing.v1.Billing.Charge`.
        input_type: dataclass of the input; None for google.protobuf.Empty, which is not passed.
        output_type: dataclass of the output; None for google.protobuf.Empty.
        description: the proto's comment.
        deprecated: whether the proto marks the method as deprecated.
        internal: whether only other workflows may use it.
        service: the contract of its service.
    """

    name: str
    method: str
    input_type: type[Any] | None
    output_type: type[Any] | None
    description: str = ""
    deprecated: bool = False
    internal: bool = False
    service: ServiceContract = field(init=False, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QueryContract(MethodContract, Generic[OutT]):
    """A query."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SignalContract(MethodContract):
    """A signal; its output is always empty."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UpdateContract(MethodContract, Generic[OutT]):
    """An update.

    Attributes:
        update_id: returns the update's id for an input; None for the SDK's choice.
        wait_for_stage: stage at which the sending call returns; None for completed if the call returns the result,
            accepted if it returns a handle.
    """

    update_id: Callable[[Any], str] | None = None
    wait_for_stage: WorkflowUpdateStage | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QueryBinding:
    """A query of a workflow.

    Attributes:
        contract: the query.
        handler: name of the method that handles it.
    """

    contract: QueryContract[Any]
    handler: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SignalBinding:
    """A signal of a workflow.

    Attributes:
        contract: the signal.
        handler: name of the method that handles it.
        start: whether clients have a signal-with-start method.
    """

    contract: SignalContract
    handler: str
    start: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UpdateBinding:
    """An update of a workflow.

    Attributes:
        contract: the update.
        handler: name of the method that handles it.
        validator: name of the method that may reject it beforehand; None for no validator.
        start: whether clients have an update-with-start method.
        id_conflict_policy: policy of an update-with-start for a running workflow; None for the workflow's own.
    """

    contract: UpdateContract[Any]
    handler: str
    validator: str | None = None
    start: bool = False
    id_conflict_policy: common.WorkflowIDConflictPolicy | None = None

    @property
    def validate(self) -> bool:
        """Whether the workflow has a validator for the update."""
        return self.validator is not None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WorkflowContract(MethodContract):
    """A workflow. Options that are None were not declared; the SDK's default applies.

    Attributes:
        aliases: further Temporal names that it is registered with.
        task_queue: its own task queue, or else the service's.
        own_task_queue: whether it declares its own task queue.
        workflow_id: returns the workflow id for an input; None without an id expression.
        id_expression: the id expression in the proto.
        search_attributes: returns the search attributes for an input; None for none.
        parent_close_policy: what happens to it as a child when its parent closes.
        wait_for_cancellation: whether cancelling it as a child waits for its end; False for the SDK's default.
        enable_eager_start: whether a worker in the starting process may run its first task.
        queries: its queries by proto method name.
        signals: its signals by proto method name.
        updates: its updates by proto method name.
    """

    aliases: tuple[str, ...] = ()
    task_queue: str | None = None
    own_task_queue: bool = False
    workflow_id: Callable[[Any], str] | None = None
    id_expression: str = ""
    search_attributes: Callable[[Any], common.TypedSearchAttributes] | None = None
    execution_timeout: timedelta | None = None
    run_timeout: timedelta | None = None
    task_timeout: timedelta | None = None
    id_reuse_policy: common.WorkflowIDReusePolicy | None = None
    id_conflict_policy: common.WorkflowIDConflictPolicy | None = None
    retry_policy: common.RetryPolicy | None = None
    parent_close_policy: workflow.ParentClosePolicy | None = None
    versioning_behavior: common.VersioningBehavior | None = None
    priority: common.Priority | None = None
    enable_eager_start: bool = False
    wait_for_cancellation: bool = False
    queries: Mapping[str, QueryBinding] = field(default_factory=dict[str, QueryBinding])
    signals: Mapping[str, SignalBinding] = field(default_factory=dict[str, SignalBinding])
    updates: Mapping[str, UpdateBinding] = field(default_factory=dict[str, UpdateBinding])

    @property
    def search_attribute_keys(self) -> tuple[common.SearchAttributeKey[Any], ...]:
        """The search attributes that it may set, with their types; the namespace must have all of them."""
        if self.search_attributes is None:
            return ()
        pairs: Any = self.search_attributes(_Anything())  # The SDK does not type the values of keys.
        return tuple(pair.key for pair in pairs)


class _Anything:
    """An input in which every field is present, so that no search attribute is omitted."""

    def __getattr__(self, name: str) -> _Anything:
        return self


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ActivityContract(MethodContract):
    """An activity. Options that are None were not declared; the SDK's default applies.

    Attributes:
        handler: name of the method that implements it.
        task_queue: its own task queue, or else the service's.
        own_task_queue: whether it declares its own task queue.
        wait_for_cancellation: whether cancelling it waits for its end; False for the SDK's default.
        heartbeats_by_activity: whether it sends its own heartbeats, so that workers send none for it.
    """

    handler: str
    task_queue: str | None = None
    own_task_queue: bool = False
    schedule_to_close_timeout: timedelta | None = None
    schedule_to_start_timeout: timedelta | None = None
    start_to_close_timeout: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    retry_policy: common.RetryPolicy | None = None
    priority: common.Priority | None = None
    wait_for_cancellation: bool = False
    heartbeats_by_activity: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ServiceContract:
    """An annotated service.

    Attributes:
        full_name: full name of the proto service.
        task_queue: task queue of methods without their own; None for none.
        source: its proto file.
        descriptors: import path of the generated module with the descriptors of that file and its imports; empty if an
            earlier version of the generator wrote none.
        workflows: by proto method name; also queries, signals, updates and activities.
        description: the proto's comment.
        deprecated: whether the proto marks the service as deprecated.
    """

    full_name: str
    source: str
    descriptors: str = ""
    task_queue: str | None = None
    workflows: Mapping[str, WorkflowContract] = field(default_factory=dict[str, WorkflowContract])
    activities: Mapping[str, ActivityContract] = field(default_factory=dict[str, ActivityContract])
    queries: Mapping[str, QueryContract[Any]] = field(default_factory=dict[str, QueryContract[Any]])
    signals: Mapping[str, SignalContract] = field(default_factory=dict[str, SignalContract])
    updates: Mapping[str, UpdateContract[Any]] = field(default_factory=dict[str, UpdateContract[Any]])
    description: str = ""
    deprecated: bool = False

    def __post_init__(self) -> None:
        for contracts in (self.workflows, self.activities, self.queries, self.signals, self.updates):
            for contract in contracts.values():
                # The contracts of methods are created first, so set their reference to the service here.
                object.__setattr__(contract, "service", self)


def file_descriptor_set(service: ServiceContract) -> bytes:
    """Return a service's original proto file and all its imports, with annotations and comments.

    Returns:
        A serialized google.protobuf.FileDescriptorSet, every file after its imports; empty if the service was generated
        without descriptors.
    """
    if not service.descriptors:
        return b""
    # Import on demand, because most processes do not need it.
    text: str = importlib.import_module(service.descriptors).FILE_DESCRIPTOR_SET
    return bz2.decompress(base64.b64decode(text))


def generated_modules(service: ServiceContract) -> set[str]:
    """Return the import paths to pass through the workflow sandbox for a service.

    A message decoded outside the sandbox must be an instance of the class in the workflow's code, so generated classes
    must not be imported a second time.

    Returns:
        The packages that contain the service's betterproto2 dataclasses; a package is recognized by the module
        `message_pool` at its root. For dataclasses outside such a package, their modules.
    """
    contracts = (*service.workflows.values(), *service.activities.values(), *service.queries.values())
    contracts += (*service.signals.values(), *service.updates.values())
    messages = [message for each in contracts for message in (each.input_type, each.output_type) if message is not None]
    return {_root(message.__module__) for message in messages}


def _root(module: str) -> str:
    package = module
    while package and f"{package}.message_pool" not in sys.modules:
        package = package.rpartition(".")[0]
    return package or module


CONTRACT = "__temporal_contract__"
"""Attribute of workflow classes and activity callables with their contract."""

ALIASES = "__temporal_aliases__"
"""Attribute of workflow classes with the classes registered for their aliases."""

_DefaultT = TypeVar("_DefaultT")
_RAISE = object()


@overload
def contract_of(handler: object) -> WorkflowContract | ActivityContract: ...
@overload
def contract_of(handler: object, default: _DefaultT) -> WorkflowContract | ActivityContract | _DefaultT: ...
def contract_of(handler: object, default: Any = _RAISE) -> Any:
    """Return the contract of a workflow class or an activity callable.

    Args:
        handler: the class or callable.
        default: value to return if there is none.

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
    """Return the contract of the service of a workflow class or an activity callable.

    Raises:
        ContractError: the handler has no contract.
    """
    return contract_of(handler).service


def workflow_classes(workflow: type[Any]) -> list[type[Any]]:
    """Return the classes of a workflow for a Temporal worker: itself, and one for each alias of its contract."""
    return [workflow, *getattr(workflow, ALIASES, ())]


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def signature_errors(
    function: Callable[..., Any], input_type: type[Any] | None, output_type: type[Any] | None, *, method: bool
) -> list[str]:
    """Compare a signature with a contract. The SDK decodes by these annotations, so they are required.

    Args:
        function: the implementation.
        input_type: type of its one parameter; None for no parameter.
        output_type: type of its result; None for no result.
        method: whether the first parameter is `self`.

    Returns:
        Every error; empty if there is none.
    """
    if workflow.unsafe.in_sandbox():
        # Skip the check in the sandbox, which imports the module again for each run: the worker has checked it.
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
    errors = list[str]()
    for parameter in parameters:
        if hints.get(parameter.name) is not input_type:
            errors.append(f"{name} takes {expected}, but {parameter.name} is {_shown(hints, parameter.name)}")
    # Without a result the annotation is optional, as for type checkers if a method overrides a typed one.
    if hints.get("return", NoneType if output_type is None else None) is not (output_type or NoneType):
        wanted = output_type.__name__ if output_type else "None"
        errors.append(f"{name} returns {wanted}, but its return type is {_shown(hints, 'return')}")
    return errors


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
    """Compare the parts of a module with the contracts of its services.

    Args:
        service_contracts: the services that the module implements.
        workflows: its workflow classes.
        activities: its activity callables: functions with a generated decorator, or bound methods of an object
            whose class derives from a generated base.

    Returns:
        Every error, one text each: missing, foreign, duplicate or wrong parts. Empty if there is none.
    """
    services = {service.full_name: service for service in service_contracts}
    errors = list[str]()
    found_workflows = _sort(workflows, WorkflowContract, services, errors, _workflow_error)
    found_activities = _sort(activities, ActivityContract, services, errors, _activity_error)
    for service in services.values():
        errors += _missing("workflow", service.workflows, found_workflows, "derive a class from its generated base")
        errors += _missing("activity", service.activities, found_activities, "decorate a function with its `defn`")
    return errors


def _sort(
    handlers: Iterable[Any],
    kind: type[WorkflowContract] | type[ActivityContract],
    services: Mapping[str, ServiceContract],
    errors: list[str],
    error_of: Callable[[Any], str | None],
) -> dict[str, Any]:
    """Return handlers by the full name of their method; invalid ones become errors."""
    what = "workflow" if kind is WorkflowContract else "activity"
    found = dict[str, Any]()
    for handler in handlers:
        name = getattr(handler, "__qualname__", repr(handler))
        contract = getattr(handler, CONTRACT, None)
        if (error := error_of(handler)) is not None:
            errors.append(f"{name} {error}")
        elif not isinstance(contract, kind):
            errors.append(f"{name} carries no contract of a {what}")
        elif contract.service.full_name not in services:
            errors.append(f"{name} implements {contract.method}, whose service is none of {_listed(services)}")
        elif contract.method in found:
            other = getattr(found[contract.method], "__qualname__", repr(found[contract.method]))
            errors.append(f"{what} {contract.name!r} is implemented twice, by {other} and {name}; leave one out")
        else:
            found[contract.method] = handler
    return found


def _workflow_error(handler: Any) -> str | None:
    if not inspect.isclass(handler):
        return "is not a class; register workflow classes"
    if "__temporal_workflow_definition" not in vars(handler):
        return "is not a complete workflow; register a class derived from it"
    return None


def _activity_error(handler: Any) -> str | None:
    if inspect.isclass(handler):
        return "is a class; create an object, and register the result of its activities()"
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


def arguments(contract: MethodContract, request: object) -> list[Any]:
    """Return the SDK's list of arguments: empty for google.protobuf.Empty, which other SDKs do not pass either.

    Raises:
        ContractError: the input has another type than the contract's.
    """
    expected = contract.input_type
    if expected is None:
        if request is not None:
            raise ContractError(f"it takes no input, but got {type(request).__name__}", contract=contract.name)
        return []
    if not isinstance(request, expected):
        raise ContractError(
            f"its input is a {expected.__name__}, but got {type(request).__name__}", contract=contract.name
        )
    return [request]


def result_type(contract: MethodContract) -> type[Any]:
    """Return the type hint of the result. An empty result is not decoded, so that any encoding of it is accepted."""
    return contract.output_type or common.RawValue


def start_arguments(contract: WorkflowContract, request: object, **options: Unpack[StartOptions]) -> dict[str, Any]:
    """Return keyword arguments for `temporalio.client.Client.start_workflow`, without the workflow's name.

    Args:
        contract: the workflow.
        request: its input; None for google.protobuf.Empty.
        options: explicit options. An omitted one has the contract's value, or else the SDK's; None and zero are
            values like any other. Without an `id` and an id expression, the id is a new UUID.

    Raises:
        ContractError: the input has another type, the id expression names a field that is not set, or there is no
            task queue.

    Example:
        handle = await client.start_workflow(contract.name, **start_arguments(contract, request))
    """
    defaults = _workflow_defaults(contract, request, options)
    _put(defaults, "id_conflict_policy", contract.id_conflict_policy)
    if contract.enable_eager_start:
        defaults["request_eager_start"] = True
    merged = {**defaults, **options}
    merged.setdefault("id", str(uuid.uuid4()))
    merged.setdefault("task_queue", contract.task_queue)
    if not merged["task_queue"]:
        raise ContractError("neither it nor its service names a task queue; give task_queue=", contract=contract.name)
    return {"args": arguments(contract, request), "result_type": result_type(contract), **merged}


def child_arguments(
    contract: WorkflowContract, request: object, options: ChildOptions, task_queue: str | None
) -> dict[str, Any]:
    """Return keyword arguments for `temporalio.workflow.start_child_workflow`, without the workflow's name.

    Args:
        contract: the workflow.
        request: its input; None for google.protobuf.Empty.
        options: explicit options.
        task_queue: its task queue unless in the options; None for the parent's.
    """
    defaults = _workflow_defaults(contract, request, options)
    _put(defaults, "task_queue", task_queue)
    _put(defaults, "parent_close_policy", contract.parent_close_policy)
    if contract.wait_for_cancellation:
        defaults["cancellation_type"] = workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED
    return {"args": arguments(contract, request), "result_type": result_type(contract), **defaults, **options}


def _workflow_defaults(contract: WorkflowContract, request: object, options: Mapping[str, object]) -> dict[str, Any]:
    """Return the contract's options of any start. Expressions are only evaluated if their value is needed."""
    arguments(contract, request)
    defaults = dict[str, Any]()
    if contract.workflow_id is not None and "id" not in options:
        defaults["id"] = contract.workflow_id(request)
    if contract.search_attributes is not None and "search_attributes" not in options:
        defaults["search_attributes"] = contract.search_attributes(request)
    for name in ("execution_timeout", "run_timeout", "task_timeout", "id_reuse_policy", "retry_policy", "priority"):
        _put(defaults, name, getattr(contract, name))
    return defaults


def _put(defaults: dict[str, Any], name: str, value: object) -> None:
    if value is not None:
        defaults[name] = value
