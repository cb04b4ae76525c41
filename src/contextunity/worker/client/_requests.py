"""Converts a caller's arguments to requests, and their units and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeAlias, TypeVar, cast

import betterproto2
import grpc
from contextunity.gen.contextunity import core as gen
from contextunity.gen.contextunity import worker as bodies
from contextunity.gen.contextunity.code.v1 import File, Language
from contextunity.gen.google import protobuf
from pydantic import ValidationError

from betterproto2_codec.plain_data import enum_words
from contextunity.core import ContextUnit, codec
from contextunity.core.errors import CodecError

from .errors import WorkerServiceError
from .methods import Method

__all__ = ["describe", "plain_data", "shown"]

_MAX_SHOWN = 100


def shown(value: object) -> str:
    """Return a value for an error message: its type and beginning."""
    text = repr(value)
    return f"the {type(value).__name__} {text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]}…'}"


def plain_data(value: object, what: str) -> dict[str, Any]:
    """Return a copy of a caller's mapping.

    Args:
        value: the argument.
        what: name of the argument and what it takes, to begin the error message.

    Raises:
        TypeError: the argument is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{what}, not {shown(value)}")
    return dict(cast("Mapping[str, Any]", value))


def describe(error: ValidationError) -> str:
    """Return pydantic's errors about a unit on one line, without the URLs of its own text."""
    return "; ".join(_violation(each["loc"], each["type"], each["msg"], each["input"]) for each in error.errors())


def _violation(location: tuple[int | str, ...], kind: str, message: str, value: object) -> str:
    if kind == "value_error":
        return ": ".join(filter(None, (".".join(map(str, location)), message.removeprefix("Value error, "))))
    if location[0] == "payload":
        # Below the payload, pydantic's location alternates between keys or indexes and the types that it tried.
        path = ".".join(map(str, (location[0], *location[1::2])))
        if location[-1] == "[key]":
            return f"{path}: a name is text, not {shown(value)}"
        return f"{path}: it takes null, booleans, numbers, text, lists and mappings, not {shown(value)}"
    return f"{'.'.join(map(str, location))}: {message[0].lower()}{message[1:]}, not {shown(value)}"


A = TypeVar("A", bound=betterproto2.Message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Generic[A]):
    """An answer of the service.

    Attributes:
        body: the typed answer.
        payload: the answer as plain data: enum values as lower-case words, durations in seconds, messages as objects.
        unit: the envelope of both.
    """

    body: A
    payload: dict[str, Any]
    unit: ContextUnit


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """The trace of a unit.

    Attributes:
        trace_id: id of the trace; empty starts one.
        parent_unit_id: the previous unit of the trace; empty for none.
    """

    trace_id: str = ""
    parent_unit_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent(Generic[A]):
    """A unit to send; all attempts send the same bytes.

    Attributes:
        method: the method to call.
        unit: the envelope.
        data: the envelope as bytes.
        target: the service's address.
    """

    method: Method[A]
    unit: ContextUnit
    data: bytes
    target: str

    def read(self, data: bytes) -> Answer[A]:
        """Decode an answer.

        Raises:
            WorkerServiceError: INTERNAL if the answer does not match the contract.
        """
        try:
            unit = ContextUnit.from_dataclass(codec.decode(gen.ContextUnit, data))
            body = _body(self.method.answer, unit.body)
            if isinstance(body, bodies.TaskStatus):
                body.progress, body.result = _known(body.progress), _known(body.result)
            return Answer(body=body, payload=cast("Any", unit.payload), unit=unit)
        except CodecError as error:
            raise WorkerServiceError(
                grpc.StatusCode.INTERNAL,
                f"the answer to {self.method.name} cannot be decoded: {error}; is the service older or newer?",
                trace_id=self.unit.trace_id,
                method=self.method.name,
                target=self.target,
            ) from error

    def failure(self, error: grpc.RpcError) -> WorkerServiceError:
        """Return the error of an attempt."""
        return WorkerServiceError.from_rpc_error(
            error, method=self.method.name, target=self.target, trace_id=self.unit.trace_id
        )


def send(
    method: Method[A],
    content: betterproto2.Message | None,
    *,
    target: str,
    payload: Mapping[str, Any] | None = None,
    unit_id: str = "",
    trace: Trace | None = None,
    provenance: Sequence[str] = (),
) -> Sent[A]:
    """Make the unit of a request.

    Args:
        method: the method to call.
        content: the typed body; None if the payload has all content.
        target: the service's address.
        payload: plain data.
        unit_id: UUID; default: a new one. A unit with the same id is the same request.
        trace: trace of the unit.
        provenance: labels before the client's own.

    Raises:
        TypeError: the content is not a generated message, or the payload not a mapping.
        ValueError: an id is not a UUID, or a value is invalid; the error names it.
    """
    if content is not None and not isinstance(cast("object", content), betterproto2.Message):
        raise TypeError(
            f"content of {method.name} is a generated message, not {shown(content)}; plain data goes into payload"
        )
    data = {} if payload is None else plain_data(payload, f"payload of {method.name} is a mapping by proto names")
    trace = trace or Trace()
    ids = {"unit_id": unit_id, "trace_id": trace.trace_id, "parent_unit_id": trace.parent_unit_id}
    fields = {
        **{name: value for name, value in ids.items() if value},
        "payload": data,
        "body": content,
        "provenance": [*provenance, method.label],
    }
    try:
        unit = ContextUnit.model_validate(fields)
    except ValidationError as error:
        raise ValueError(describe(error)) from None
    return Sent(method=method, unit=unit, data=codec.encode(unit.to_dataclass()), target=target)


def _known(packed: Any) -> Any:
    """Unpack a message; return it unchanged if no loaded package has its type."""
    try:
        message = None if packed is None else codec.unpack_any(packed)
    except CodecError:
        # Unpack on demand, because most callers do not use it.
        return packed
    # A message that is itself an Any would look like one that is still packed.
    return packed if isinstance(message, protobuf.Any) else message


def _body(cls: type[A], packed: Any | None) -> A:
    if packed is None:
        raise CodecError("it is missing", path="body")
    name = packed.type_url.rpartition("/")[2]
    if name != codec.full_name(cls):
        raise CodecError(f"expected a {codec.full_name(cls)}, got a {name}", path="body")
    return codec.decode(cls, packed.value)


Input: TypeAlias = Mapping[str, Any] | betterproto2.Message | None
"""Input of a workflow or handler: plain data by proto names, the generated dataclass, or None for no input."""

_INPUT = "takes the input as a mapping by proto names or as the generated message"
_ENTRIES = "ScheduleEntry or mappings"

E = TypeVar("E", bound=betterproto2.Enum)
R = TypeVar("R", bound=betterproto2.Message)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAddress:
    """Ids of a task.

    Attributes:
        workflow_id: its id.
        run_id: id of the run; empty for the newest.
        tenant_id: its tenant; empty for any of the caller's.
    """

    workflow_id: str
    run_id: str = ""
    tenant_id: str = ""

    def fields(self) -> dict[str, Any]:
        """Return the common fields of requests about a task."""
        return {"workflow_id": self.workflow_id, "run_id": self.run_id, "tenant_id": self.tenant_id}


def start_request(
    workflow: str | betterproto2.Message, given: Input, *, tenant_id: str
) -> tuple[betterproto2.Message | None, dict[str, Any]]:
    """Return body and payload of StartWorkflow.

    Raises:
        TypeError: the input is set twice, or an argument has the wrong type.
    """
    routing: dict[str, Any] = {"tenant_id": tenant_id} if tenant_id else {}
    if isinstance(workflow, betterproto2.Message):
        if given is not None:
            raise TypeError("start() takes the input once: as its first argument, or after a workflow_type")
        return workflow, routing
    if not isinstance(cast("object", workflow), str):
        raise TypeError(f"start() takes a workflow_type or the input message itself first, not {shown(workflow)}")
    routing["workflow_type"] = workflow
    if isinstance(given, betterproto2.Message):
        return given, routing
    return None, {**routing, "args": plain_data(given, f"start() {_INPUT}")} if given is not None else routing


def steer_request(request: Callable[..., R], task: TaskAddress, name: Mapping[str, str], given: Input) -> R:
    """Return the body of SignalTask, QueryTask or UpdateTask; `name` is the field with the handler's name.

    Raises:
        TypeError: the input is neither a mapping nor a message.
        CodecError: a value of the input is invalid.
    """
    if isinstance(given, betterproto2.Message):
        return request(**task.fields(), **name, input=codec.pack_any(given))
    if given is None:
        return request(**task.fields(), **name)
    data = plain_data(given, f"{next(iter(name))}() {_INPUT}")
    return request(**task.fields(), **name, args=codec.dict_to_struct(data))


def list_request(
    *,
    tenant_id: str,
    workflow_type: str | Iterable[str],
    status: bodies.TaskState | str | Iterable[bodies.TaskState | str],
    started_after: datetime | None,
    started_before: datetime | None,
    page_size: int,
) -> bodies.ListTasksRequest:
    """Return the body of ListTasks for the first page."""
    states = [status] if isinstance(status, str | bodies.TaskState) else list(status)
    return bodies.ListTasksRequest(
        tenant_id=tenant_id,
        workflow_type=_texts(workflow_type),
        status=[_member(bodies.TaskState, each) for each in states if each != ""],
        started_after=started_after,
        started_before=started_before,
        page_size=page_size,
    )


def code_request(
    code: str,
    *,
    tenant_id: str,
    language: Language | str,
    timeout: timedelta | float | None,
    inputs: Mapping[str, Any] | None,
    files: Mapping[str, bytes | str] | None,
    tools: Sequence[str],
    wait: bool | None,
) -> bodies.ExecuteCodeRequest:
    """Return the body of ExecuteCode."""
    return bodies.ExecuteCodeRequest(
        code=code,
        language=_member(Language, language or Language.UNSPECIFIED),
        timeout=timedelta(seconds=timeout) if isinstance(timeout, int | float) else timeout,
        inputs=None
        if inputs is None
        else codec.dict_to_struct(plain_data(inputs, "execute_code() takes inputs as a mapping by name")),
        files=[
            File(path=path, content=content.encode() if isinstance(content, str) else content)
            for path, content in (files or {}).items()
        ],
        tools=list(tools),
        wait=wait,
        tenant_id=tenant_id,
    )


def schedules_request(
    schedules: Iterable[bodies.ScheduleEntry | Mapping[str, Any]],
    *,
    project_id: str,
    tenant_id: str,
    prune: bool,
    partial: bool,
    dry_run: bool,
) -> tuple[betterproto2.Message | None, dict[str, Any]]:
    """Return body and payload of RegisterSchedules: typed entries become a body, plain ones a payload.

    Raises:
        TypeError: the entries have both forms, or another one.
    """
    given = cast("object", schedules)
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"register_schedules() takes schedules as a list of {_ENTRIES}, not {shown(schedules)}")
    entries = list(schedules)
    typed = [each for each in entries if isinstance(each, bodies.ScheduleEntry)]
    options: dict[str, Any] = {
        "project_id": project_id,
        "tenant_id": tenant_id,
        "prune": prune,
        "partial": partial,
        "dry_run": dry_run,
    }
    if len(typed) == len(entries):
        return bodies.RegisterSchedulesRequest(schedules=typed, **options), {}
    if typed:
        raise TypeError("register_schedules() takes entries of one form: all ScheduleEntry, or all mappings")
    plain = [plain_data(each, f"register_schedules() takes {_ENTRIES} as schedules") for each in entries]
    return None, {"schedules": plain, **{key: value for key, value in options.items() if value}}


def plain_value(value: protobuf.Value | None) -> Any:
    """Return the plain value of a google.protobuf.Value, such as the `result` of an ExecuteCodeResult, or None."""
    if value is None:
        return None
    return codec.struct_to_dict(protobuf.Struct(fields={"value": value}))["value"]


def _texts(given: str | Iterable[str]) -> list[str]:
    return ([given] if given else []) if isinstance(given, str) else list(given)


def _member(enum: type[E], given: E | str) -> E:
    """Return an enum member, given itself, its word, or its name in the proto in upper or lower case.

    Raises:
        ValueError: there is no such member; the error lists them.
    """
    if not isinstance(given, str):
        return given
    names = {each.proto_name or str(each.name): each for each in enum}
    words = enum_words(list(names))
    found = words.name(given)
    if found is None:
        known = ", ".join(words.word(name) for name, each in names.items() if each.value)
        raise ValueError(f"{given!r} is not a {enum.__name__}; known ones: {known}")
    return names[found]
