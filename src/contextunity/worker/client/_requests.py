"""What a caller asks for, as typed bodies: the arguments of the clients' methods, checked and put in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeVar, cast

import betterproto2
from contextunity.gen.contextunity import worker as bodies
from contextunity.gen.contextunity.code.v1 import File, Language
from contextunity.gen.google import protobuf

from contextunity.core import codec

from ._arguments import plain_data, shown

Input: TypeAlias = Mapping[str, Any] | betterproto2.Message | None
"""Input of a workflow or handler: plain data by proto names, the generated dataclass, or None where it takes none."""

_INPUT = "takes the input as a mapping by proto names or as the generated message"
_ENTRIES = "ScheduleEntry or mappings"

E = TypeVar("E", bound=betterproto2.Enum)
R = TypeVar("R", bound=betterproto2.Message)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAddress:
    """Which task is meant.

    Attributes:
        workflow_id: its id.
        run_id: which of its runs; empty for the newest.
        tenant_id: whose it is; empty for any of the caller's.
    """

    workflow_id: str
    run_id: str = ""
    tenant_id: str = ""

    def fields(self) -> dict[str, Any]:
        """The fields that every request about a task begins with."""
        return {"workflow_id": self.workflow_id, "run_id": self.run_id, "tenant_id": self.tenant_id}


def start_request(
    workflow: str | betterproto2.Message, given: Input, *, tenant_id: str
) -> tuple[betterproto2.Message | None, dict[str, Any]]:
    """Body and payload of StartWorkflow.

    Raises:
        TypeError: the input is given twice, or an argument is of another type than it takes.
    """
    routing: dict[str, Any] = {"tenant_id": tenant_id} if tenant_id else {}
    if isinstance(workflow, betterproto2.Message):
        if given is not None:
            raise TypeError("start() takes the input once: as its first argument, or behind a workflow_type")
        return workflow, routing
    if not isinstance(cast("object", workflow), str):
        raise TypeError(f"start() takes a workflow_type or the input message itself first, not {shown(workflow)}")
    routing["workflow_type"] = workflow
    if isinstance(given, betterproto2.Message):
        return given, routing
    return None, {**routing, "args": plain_data(given, f"start() {_INPUT}")} if given is not None else routing


def steer_request(request: Callable[..., R], task: TaskAddress, name: Mapping[str, str], given: Input) -> R:
    """Body of SignalTask, QueryTask or UpdateTask; `name` is the field with the handler's name and its value.

    Raises:
        TypeError: the input is neither a mapping nor a message.
        CodecError: a value of it does not fit.
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
    """Body of ListTasks for the first page."""
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
    """Body of ExecuteCode."""
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
    """Body and payload of RegisterSchedules: typed entries make a body, plain ones a payload.

    Raises:
        TypeError: there are entries of both forms, or of neither.
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
    """What a google.protobuf.Value holds, such as the `result` of an ExecuteCodeResult; None for nothing."""
    if value is None:
        return None
    return codec.struct_to_dict(protobuf.Struct(fields={"value": value}))["value"]


def _texts(given: str | Iterable[str]) -> list[str]:
    return ([given] if given else []) if isinstance(given, str) else list(given)


def _member(enum: type[E], given: E | str) -> E:
    """A member by itself or by its word, whatever its case.

    Raises:
        ValueError: there is no such member; the error lists them.
    """
    if not isinstance(given, str):
        return given
    members = {str(each.name).lower(): each for each in enum if each.value}
    if given.lower() not in members:
        raise ValueError(f"{given!r} is no {enum.__name__}; there are {', '.join(members)}")
    return members[given.lower()]
