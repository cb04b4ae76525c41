"""The contract of an annotated service as plain values: what generated code declares and everything else reads."""

from __future__ import annotations

import base64
import bz2
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic

from temporalio import common, workflow
from temporalio.client import WorkflowUpdateStage
from typing_extensions import TypeVar

__all__ = [
    "ActivityContract",
    "MethodContract",
    "QueryBinding",
    "QueryContract",
    "ServiceContract",
    "SignalBinding",
    "SignalContract",
    "UpdateBinding",
    "UpdateContract",
    "WorkflowContract",
    "file_descriptor_set",
    "generated_modules",
]

OutT = TypeVar("OutT", default=Any)


# Contracts compare by identity (eq=False): there is one of each, and some of their fields have no equality.
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MethodContract:
    """What the contracts of all annotated methods have in common.

    Attributes:
        name: Temporal name.
        method: full name of the proto method, such as `acme.billing.v1.Billing.Charge`.
        input_type: dataclass of the input; None where it is google.protobuf.Empty, and nothing is passed.
        output_type: dataclass of the output; None where it is google.protobuf.Empty.
        description: the proto's comment.
        deprecated: whether the proto marks the method so.
        internal: whether it is for other workflows alone, so that callers are refused.
        service: the contract of the service that declares it.
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
        update_id: gives the update's id for an input; None leaves it to the SDK.
        wait_for_stage: how far the update has come when the call that sends it returns; None means completed where the
            call gives the result, accepted where it gives a handle.
    """

    update_id: Callable[[Any], str] | None = None
    wait_for_stage: WorkflowUpdateStage | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QueryBinding:
    """A query as one workflow has it.

    Attributes:
        contract: the query.
        handler: name of the method that answers it.
    """

    contract: QueryContract[Any]
    handler: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SignalBinding:
    """A signal as one workflow has it.

    Attributes:
        contract: the signal.
        handler: name of the method that takes it.
        start: whether clients have a signal-with-start.
    """

    contract: SignalContract
    handler: str
    start: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UpdateBinding:
    """An update as one workflow has it.

    Attributes:
        contract: the update.
        handler: name of the method that takes it.
        validator: name of the method that may reject it beforehand; None where there is none.
        start: whether clients have an update-with-start.
        id_conflict_policy: what an update-with-start does about a running workflow; None means the workflow's own.
    """

    contract: UpdateContract[Any]
    handler: str
    validator: str | None = None
    start: bool = False
    id_conflict_policy: common.WorkflowIDConflictPolicy | None = None

    @property
    def validate(self) -> bool:
        """Whether the workflow has a validator for it."""
        return self.validator is not None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WorkflowContract(MethodContract):
    """A workflow. An option that is None was not declared, and is left to the SDK.

    Attributes:
        aliases: further Temporal names that it is registered under.
        task_queue: its own task queue, else the service's.
        own_task_queue: whether it names a queue of its own.
        workflow_id: gives the workflow id for an input; None where there is no expression for it.
        id_expression: that expression as the proto has it.
        search_attributes: gives the search attributes for an input; None where there are none.
        parent_close_policy: what happens to it as a child when its parent closes.
        wait_for_cancellation: whether cancelling it as a child waits for its end; False leaves it to the SDK.
        enable_eager_start: whether a worker in the starting process may run its first task.
        queries: what it answers, by proto method name.
        signals: what it takes, by proto method name.
        updates: what it takes and answers, by proto method name.
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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ActivityContract(MethodContract):
    """An activity. An option that is None was not declared, and is left to the SDK.

    Attributes:
        handler: name of the method that implements it.
        task_queue: its own task queue, else the service's.
        own_task_queue: whether it names a queue of its own.
        wait_for_cancellation: whether cancelling it waits for its end; False leaves it to the SDK.
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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ServiceContract:
    """An annotated service.

    Attributes:
        full_name: full name of the proto service.
        task_queue: task queue of the methods that name none of their own; None where there is none.
        source: proto file that declares it.
        descriptors: import path of the generated module with the descriptors of that file and of all that it imports;
            empty where an earlier generator wrote none.
        workflows: by proto method name; queries, signals, updates and activities likewise.
        description: the proto's comment.
        deprecated: whether the proto marks the service so.
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
                # The methods' contracts are made first, so the way back can only be set here.
                object.__setattr__(contract, "service", self)


def file_descriptor_set(service: ServiceContract) -> bytes:
    """The file of a service and all that it imports, as their authors wrote them: annotations and comments included.

    Returns:
        A serialized google.protobuf.FileDescriptorSet, every file after those that it imports; empty where the service
        was generated without.
    """
    if not service.descriptors:
        return b""
    # Imported only here: what nobody asks for costs neither time nor memory.
    text: str = importlib.import_module(service.descriptors).FILE_DESCRIPTOR_SET
    return bz2.decompress(base64.b64decode(text))


def generated_modules(service: ServiceContract) -> set[str]:
    """Import paths to pass through the workflow sandbox for a service.

    A message that is decoded outside the sandbox must be an instance of the class that the workflow's code names, so
    generated classes cannot be imported a second time.

    Returns:
        The packages that betterproto2 generated the service's dataclasses into, each as a whole: it is known by the
        module `message_pool`, which lies at its root. Dataclasses outside such a package are named by their modules.
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
