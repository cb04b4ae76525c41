"""The plain model between descriptors and text: what the annotated services of a file come to."""

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
"""Python source text of a value, in which `{{module:name}}` stands for an import."""


@dataclass(frozen=True, slots=True)
class TypeRef:
    """A dataclass: the Python module that has it, and its name there."""

    module: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PathPart:
    """A path into the input, such as `page.tenantId`.

    Attributes:
        proto: dotted proto names, for errors.
        attributes: the dataclass's attribute names.
    """

    proto: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A compiled `${! … }` expression: literal texts and paths in turn.

    Attributes:
        source: the expression as the proto has it.
        parts: its pieces.
    """

    source: str
    parts: tuple[str | PathPart, ...]

    @property
    def runs_together(self) -> bool:
        """Whether two values follow each other with no text between them."""
        return any(
            isinstance(one, PathPart) and isinstance(two, PathPart)
            for one, two in zip(self.parts, self.parts[1:], strict=False)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    """A search attribute.

    Attributes:
        name: the attribute's name at the server.
        kind: the SearchAttributeKey constructor, such as `for_keyword`.
        path: where its value is; None for a literal.
        literal: Python text of a literal value.
    """

    name: str
    kind: str
    path: PathPart | None
    literal: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """What all annotated methods have in common.

    Attributes:
        proto: name of the proto method.
        full_name: full name of it.
        temporal_name: its name at Temporal.
        input: dataclass of the input; None for google.protobuf.Empty.
        output: dataclass of the output; None for google.protobuf.Empty.
        comment: the proto's comment.
        deprecated: whether it, or its service, is marked so.
        internal: whether it is for other workflows alone.
        place: where it is declared.
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
        constant: name of the constant that holds its Temporal name.
        validate: whether updates have a validator.
        update_id: expression for the id of updates.
        wait_for_stage: member name of WorkflowUpdateStage; empty where not declared.
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
    """A query, signal or update as one workflow has it.

    Attributes:
        key: proto method name, or full name where another service declares it.
        message: the query, signal or update.
        module: generated module that declares it; empty for the workflow's own.
        handler: name of the workflow's method for it.
        call: name of the methods of handles that call it; `start_call` of the one that gives an update's handle.
        with_start: name of the client's method that starts the workflow with it; empty where there is none.
        validator: name of the workflow's validator; empty where there is none.
        conflict_policy: member name of WorkflowIDConflictPolicy for an update-with-start; empty where not declared.
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
    """An annotated service and the names that the generated module has for its parts."""

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
        path: the module to write, relative to the output folder.
        descriptors: the module with the descriptors, by its dotted name.
        descriptors_path: the same, relative to the output folder.
        services: in the order of the file.
    """

    source: str
    path: str
    descriptors: str
    descriptors_path: str
    services: tuple[ServiceModel, ...] = field(default=())
