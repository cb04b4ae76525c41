"""The plain model between descriptors and text: the annotated services of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import Place

__all__ = [
    "ActivityModel",
    "Attribute",
    "BindingModel",
    "FileModel",
    "MessageModel",
    "Method",
    "PathPart",
    "ServiceModel",
    "Template",
    "TypeRef",
    "WorkflowModel",
]

Literal = str
"""Python source text of a value; `{{module:name}}` is a placeholder for an import."""


@dataclass(frozen=True, slots=True)
class TypeRef:
    """A dataclass: its Python module, and its name there."""

    module: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PathPart:
    """A path into the input, such as `page.tenantId`.

    Attributes:
        proto: dotted proto names, for errors.
        attributes: attribute names of the dataclasses.
    """

    proto: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A compiled `${! … }` expression: literal texts and paths.

    Attributes:
        source: the expression in the proto.
        parts: its texts and paths, in order.
    """

    source: str
    parts: tuple[str | PathPart, ...]

    @property
    def runs_together(self) -> bool:
        """Whether two values follow each other without text between them."""
        return any(
            isinstance(one, PathPart) and isinstance(two, PathPart)
            for one, two in zip(self.parts, self.parts[1:], strict=False)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    """A search attribute.

    Attributes:
        name: name of the attribute on the server.
        kind: the SearchAttributeKey constructor, such as `for_keyword`.
        path: path of its value; None for a literal.
        literal: Python text of a literal value.
    """

    name: str
    kind: str
    path: PathPart | None
    literal: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """The common part of all annotated methods.

    Attributes:
        proto: name of the proto method.
        full_name: full name of the proto method.
        temporal_name: its name on Temporal.
        input: dataclass of the input; None for google.protobuf.Empty.
        output: dataclass of the output; None for google.protobuf.Empty.
        comment: the proto's comment.
        deprecated: whether the method or its service is deprecated.
        internal: whether only other workflows may use it.
        place: place of its declaration.
    """

    proto: str
    full_name: str
    temporal_name: str
    input: TypeRef | None
    output: TypeRef | None
    comment: str
    deprecated: bool
    internal: bool
    place: Place


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageModel:
    """A query, signal or update.

    Attributes:
        kind: `query`, `signal` or `update`.
        method: its method.
        symbol: name of its contract in the generated module.
        constant: name of the constant with its Temporal name.
        validate: whether updates have a validator.
        update_id: expression for the id of updates.
        wait_for_stage: member name of WorkflowUpdateStage; empty if not declared.
    """

    kind: str
    method: Method
    symbol: str
    constant: str
    validate: bool = False
    update_id: Template | None = None
    wait_for_stage: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityModel:
    """An activity; `options` are keyword arguments of its contract as Python text."""

    method: Method
    symbol: str
    constant: str
    handler: str
    task_queue: str
    own_task_queue: bool
    options: Mapping[str, Literal]


@dataclass(frozen=True, kw_only=True, slots=True)
class BindingModel:
    """A query, signal or update of a workflow.

    Attributes:
        key: proto method name, or full name if another service declares it.
        message: the query, signal or update.
        module: generated module that declares it; empty for the workflow's own.
        handler: name of the workflow's method that handles it.
        call: name of the handles' methods that call it; `start_call` is the one that returns an update's handle.
        with_start: name of the client's method that also starts the workflow; empty for none.
        validator: name of the workflow's validator; empty for none.
        conflict_policy: member name of WorkflowIDConflictPolicy for an update-with-start; empty if not declared.
    """

    key: str
    message: MessageModel
    module: str
    handler: str
    call: str
    child_call: str
    start_call: str = ""
    with_start: str = ""
    validator: str = ""
    conflict_policy: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowModel:
    """A workflow; `options` are keyword arguments of its contract as Python text."""

    method: Method
    symbol: str
    constant: str
    aliases_constant: str
    base: str
    handle: str
    child: str
    external: str
    execute: str
    start: str
    get: str
    aliases: tuple[str, ...]
    task_queue: str
    own_task_queue: bool
    workflow_id: Template | None
    search_attributes: tuple[Attribute, ...]
    options: Mapping[str, Literal]
    queries: tuple[BindingModel, ...]
    signals: tuple[BindingModel, ...]
    updates: tuple[BindingModel, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceModel:
    """An annotated service, and the names of its parts in the generated module."""

    name: str
    full_name: str
    symbol: str
    constant: str
    client: str
    activity_base: str
    task_queue: str
    comment: str
    deprecated: bool
    workflows: tuple[WorkflowModel, ...] = ()
    activities: tuple[ActivityModel, ...] = ()
    messages: tuple[MessageModel, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class FileModel:
    """The annotated services of one proto file.

    Attributes:
        source: the proto file.
        path: path of the generated module, relative to the output folder.
        descriptors: dotted name of the module with the descriptors.
        descriptors_path: path of that module, relative to the output folder.
        services: the services, in the order of the file.
    """

    source: str
    path: str
    descriptors: str
    descriptors_path: str
    services: tuple[ServiceModel, ...] = field(default=())
