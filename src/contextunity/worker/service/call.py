"""A call: its caller, tenant and deadline, its permissions, and its answer.

`respond` and `stream` run its steps: permission, scopes, the typed request (`payloads`), the handler of the method
(table in `methods`), the answer. `Engine` is what handlers work with.
"""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, ParamSpec, TypeVar

import betterproto2
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.core.context_unit_pb2 import ContextUnit as UnitMessage
from contextunity.gen.contextunity.worker import RegisterSchedulesResult, TaskContext
from contextunity.gen.contextunity.worker.context_pb2 import TaskContext as TaskContextMessage
from temporalio.client import Client

from contextunity.core import codec
from contextunity.core.context import MAX_PROVENANCE, with_step
from contextunity.worker.auth import EVERYBODY, Access, Caller, Subject, record_call
from contextunity.worker.fair_gate import Turn
from contextunity.worker.grpc_errors import FieldViolation, Reason, ServiceError, invalid
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.quotas import OpenTasks, Quotas
from contextunity.worker.schedules import DEFAULT_PROJECT
from contextunity.worker.temporal.converter import LARGEST_STORED, ProtobufPayloadConverter
from contextunity.worker.temporal.tenancy import DEFAULT_TENANT, tenant_violation
from python_temporal.contract import WorkflowContract

from .payloads import encode_answer, read_request

__all__ = [
    "Call",
    "Engine",
    "KnownTask",
    "KnownTasks",
    "Method",
    "admit",
    "note_about",
    "provenance_label",
    "require_permission",
    "respond",
    "run_in_thread",
    "stream",
]

_MAX_KNOWN_TASKS = 10_000
"""Size of the cache of tasks, some megabytes. The least recently used tasks are evicted first."""


class KnownTask(NamedTuple):
    """A task in the cache. A tuple takes a third of the time of a frozen dataclass to create.

    Attributes:
        run_id: id of its newest run.
        tenant_id: its tenant; empty if it was started without the service.
        contract: its contract; None if no module here has it.
        is_running: whether it was running when last seen.
        succeeded: whether it had completed successfully when last seen.
    """

    run_id: str
    tenant_id: str
    contract: WorkflowContract | None
    is_running: bool = True
    succeeded: bool = False


class KnownTasks:
    """A cache of tasks by workflow id."""

    def __init__(self, most: int = _MAX_KNOWN_TASKS) -> None:
        self._most = most
        self._tasks = OrderedDict[str, KnownTask]()

    def keep(self, workflow_id: str, task: KnownTask) -> None:
        """Store the state of a task."""
        self._tasks[workflow_id] = task
        self._tasks.move_to_end(workflow_id)
        if len(self._tasks) > self._most:
            self._tasks.popitem(last=False)

    def recall(self, workflow_id: str) -> KnownTask | None:
        """Return the last known state of a task, or None."""
        return self._tasks.get(workflow_id)


_LARGEST_INPUT = 4 * 1024 * 1024
"""Maximum bytes of a request at any Temporal server; most servers accept half as much input."""
_ID_LIMIT = 200
"""Maximum characters of a unit's ids. They should be UUIDs; clients with other ids are accepted."""
_LABEL_LIMIT = 500
"""Maximum characters of a provenance label: every activity of a task carries all labels."""


T = TypeVar("T")
Parameters = ParamSpec("Parameters")

_LARGE_UNIT_THREADS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="large-unit")
"""Two at a time: empty objects take about twenty times as much memory as their bytes."""


async def run_in_thread(
    function: Callable[Parameters, T], *arguments: Parameters.args, **named: Parameters.kwargs
) -> T:
    """Run a function in a thread for a large unit, so that other calls are answered meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(
        _LARGE_UNIT_THREADS, functools.partial(function, *arguments, **named)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """What the handlers of all methods share.

    Attributes:
        client: Temporal client with the contract's data converter.
        registry: the workflow contracts by workflow_type.
        rpc_timeout: timeout of one call to the Temporal server.
        known_tasks: cache of tasks.
        quotas: quotas of tenants.
        open_tasks: counts of the tenants' open tasks.
    """

    client: Client
    registry: WorkerRegistry
    rpc_timeout: timedelta
    known_tasks: KnownTasks = field(default_factory=KnownTasks)
    quotas: Quotas = field(default_factory=Quotas)
    open_tasks: OpenTasks = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "open_tasks", OpenTasks(self.client, self.rpc_timeout))

    @property
    def has_plain_payloads(self) -> bool:
        """Whether payloads contain the plain bytes of messages, not encrypted, if they are not stored elsewhere."""
        converter_class = self.client.data_converter.payload_converter_class
        return self.client.data_converter.payload_codec is None and (
            converter_class is ProtobufPayloadConverter or getattr(converter_class, "stored_from", None) is not None
        )

    @property
    def stored_from(self) -> int | None:
        """Bytes from which on payloads are stored elsewhere; None if all are sent to Temporal."""
        storage = self.client.data_converter.external_storage
        return None if storage is None else storage.payload_size_threshold

    @property
    def largest_input(self) -> int:
        """Bytes of the largest input that Temporal or the payload storage may take."""
        return _LARGEST_INPUT if self.client.data_converter.external_storage is None else LARGEST_STORED


@dataclass(kw_only=True, slots=True)
class Call:
    """One call.

    Attributes:
        unit: the request.
        payload: its payload as plain data, if decoded separately; None if the unit has it.
        caller: the authenticated caller.
        deadline: time in the event loop's clock at which the caller stops waiting; None without a deadline.
        label: the label of the method in provenances.
        method: name of the method.
        turn: the caller's turn among tenants; None without authentication.
        release: frees the memory budget of the request's bytes; None if there is none.
        about: the task, schedule and tenant of the call, for the audit log.
        is_large: whether decoding takes so long that it runs in a thread.
        unit_id: id of the unit; empty if it has none.
        trace_id: trace of the unit, or a new one if it has none.
        request_id: id by which retries of this call are recognized: the unit_id, or a new id if there is none.
    """

    unit: ContextUnit
    payload: dict[str, Any] | None = None
    caller: Caller = EVERYBODY
    deadline: float | None = None
    label: str = ""
    method: str = ""
    is_large: bool = False
    turn: Turn | None = None
    release: Callable[[], None] | None = None
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    unit_id: str = field(init=False)
    trace_id: str = field(init=False)
    request_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.unit_id = self.unit.unit_id
        self.trace_id = self.unit.trace_id or str(uuid.uuid4())
        self.request_id = self.unit_id or str(uuid.uuid4())

    def rest(self) -> None:
        """Give up the turn to other calls while this one only waits."""
        if self.turn is not None:
            self.turn.leave()

    def rest_for_long(self) -> None:
        """Do the same, and also free the memory budget of the request, which is no longer needed."""
        self.rest()
        if self.release is not None:
            self.release()

    async def run_off_loop_if_large(
        self, function: Callable[Parameters, T], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> T:
        """Run a decoding function: directly, or in a thread if the content is large."""
        if not self.is_large:
            return function(*arguments, **named)
        return await run_in_thread(function, *arguments, **named)

    def check_envelope(self) -> None:
        """Reject ids and labels that cannot be stored: they become ids, search attributes and headers of tasks.

        Raises:
            ServiceError: some are too long, or contain unprintable characters; each is listed.
        """
        unit = self.unit
        # Fast path: usually there is no violation.
        fits = _is_storable(self.unit_id, _ID_LIMIT) and _is_storable(unit.trace_id, _ID_LIMIT)
        for label in unit.provenance:
            fits = fits and _is_storable(label, _LABEL_LIMIT)
        if fits:
            return
        named = [("unit_id", self.unit_id, _ID_LIMIT), ("trace_id", unit.trace_id, _ID_LIMIT)]
        named += [(f"provenance[{place}]", label, _LABEL_LIMIT) for place, label in enumerate(unit.provenance)]
        raise invalid(
            *(
                FieldViolation(field=name, description=_id_violation(text, limit))
                for name, text, limit in named
                if not _is_storable(text, limit)
            )
        )

    @property
    def remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    def acting_tenant(self, *named: str) -> str:
        """Return the tenant for which this call creates something.

        Args:
            named: the tenants in the request's several fields; empty ones are ignored.

        Raises:
            ServiceError: the fields differ, the name is invalid, or the caller does not have the tenant.
        """
        tenant_id = self._resolve_tenant(*named)
        self.about["tenant_id"] = tenant_id
        return tenant_id

    def _resolve_tenant(self, *named: str) -> str:
        name = ""
        for each in named:
            if not each or each == name:
                continue
            if name:
                names = " and ".join(repr(each) for each in sorted({*named} - {""}))
                raise invalid(FieldViolation(field="payload.tenant_id", description=f"the request names two: {names}"))
            name = each
        if name:
            self._require_tenant(name)
            return name
        if self.caller.tenants is None:
            return DEFAULT_TENANT
        if len(self.caller.tenants) == 1:
            (name,) = self.caller.tenants
            return name
        if not self.caller.tenants:
            raise ServiceError(Reason.TENANT_REFUSED, "the token names no tenant; have one minted with allowed_tenants")
        raise ServiceError(
            Reason.TENANT_UNCLEAR,
            f"name one of the token's tenants as tenant_id: {', '.join(sorted(self.caller.tenants))}",
        )

    def visible_tenants(self, named: str = "") -> frozenset[str] | None:
        """Return the tenants that this call may see; None for all, including tasks without a tenant.

        Raises:
            ServiceError: the named tenant is invalid, or the caller does not have it.
        """
        if named:
            self._require_tenant(named)
            return frozenset({named})
        return self.caller.tenants

    def project(self, named: str) -> str:
        """Return the project of this call, visible to the caller or not: the named one, otherwise the token's."""
        return named or self.caller.bound_project or self.caller.project_id or DEFAULT_PROJECT

    def context(self, tenant_id: str) -> TaskContext:
        """Return the context of all work that this call starts; a very long provenance is truncated."""
        return codec.from_proto(TaskContext, self.context_message(tenant_id))

    def context_message(self, tenant_id: str) -> TaskContextMessage:
        """Return the same as `context`, as Google's message."""
        made = TaskContextMessage(
            trace_id=self.trace_id, unit_id=self.unit_id, tenant_id=tenant_id, principal=self.caller.principal
        )
        made.provenance.extend(with_step(self.unit.provenance[:MAX_PROVENANCE], self.label))
        return made

    def _require_tenant(self, name: str) -> None:
        violation = tenant_violation(name)
        if violation:
            raise invalid(FieldViolation(field="payload.tenant_id", description=f"{name!r} {violation}"))
        if not self.caller.sees(name):
            raise ServiceError(
                Reason.TENANT_REFUSED,
                f"the token is not for the tenant {name!r}; {_allowed_tenants(self.caller.tenants or ())}",
                metadata={"tenant_id": name},
            )


def _is_storable(text: str, limit: int) -> bool:
    return len(text) <= limit and text.isprintable()


def _id_violation(text: str, limit: int) -> str:
    if len(text) > limit:
        return f"has {len(text):,} characters; at most {limit} are taken"
    return "has characters that cannot be printed"


def _allowed_tenants(tenants: Iterable[str]) -> str:
    names = ", ".join(sorted(tenants))
    return f"it is for {names}" if names else "it is for none; have one minted with allowed_tenants"


_SCOPES_SHOWN = 16
"""Maximum number of scopes in an error message, which travels in the trailers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method of the service.

    Attributes:
        name: name in the proto.
        permissions: the caller needs one of these.
        access: whether it reads or writes, which decides which scopes of the unit the caller needs.
        subject: what it is about, which decides whose it must be.
        code_permissions: the caller also needs one of these to schedule a workflow that runs callers' code.
        request_type: the typed request; None if the method reads the unit itself.
        handle: the handler, which returns the typed answer: a dataclass, or Google's message for frequent calls.
        watch: the handler of a streaming method.
        prepare: converts the payload of a deployed client to the current names.
    """

    name: str
    permissions: tuple[str, ...]
    access: Access
    subject: Subject
    code_permissions: tuple[str, ...] = ()
    request_type: type[betterproto2.Message] | None = None
    handle: Callable[..., Awaitable[betterproto2.Message]] | None = None
    watch: Callable[..., AsyncIterator[betterproto2.Message]] | None = None
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    @property
    def takes_unit(self) -> bool:
        """Whether its request is a ContextUnit."""
        return True

    @property
    def is_watch(self) -> bool:
        """Whether its calls count as watches, which are cheap but long."""
        return self.watch is not None

    def record(self, caller: Caller, call: Call | None, error: ServiceError | str | None = None) -> None:
        """Write a call to the audit log, if the method changes something; see `record_call`."""
        if self.access is Access.WRITE:
            record_call(self.name, caller, call, error)

    @property
    def label(self) -> str:
        """The label of the method in provenances, such as `worker:start_workflow`."""
        return provenance_label(self.name)


@functools.cache
def provenance_label(name: str) -> str:
    """Return the provenance label of a method, by its name."""
    return "worker:" + "".join(f"_{each.lower()}" if each.isupper() else each for each in name).lstrip("_")


async def respond(method: Method, call: Call) -> UnitMessage:
    """Answer a call.

    Raises:
        ServiceError: the caller lacks the permission, or the call fails.
    """
    request = await call.run_off_loop_if_large(_authorize_and_decode, method, call)
    assert method.handle is not None
    note_about(call, request)
    answer = await (method.handle(call, request) if request is not None else method.handle(call))
    note_about(call, answer)
    return encode_answer(call, answer)


async def stream(method: Method, call: Call) -> AsyncGenerator[UnitMessage, None]:
    """Answer a call of a streaming method.

    Raises:
        ServiceError: the caller lacks the permission, or the call fails.
    """
    request = await call.run_off_loop_if_large(_authorize_and_decode, method, call)
    assert method.watch is not None
    async for message in method.watch(call, request):
        yield encode_answer(call, message)


def _authorize_and_decode(method: Method, call: Call) -> betterproto2.Message | None:
    """Check the permissions of a call, then decode its request."""
    admit(method, call)
    return None if method.request_type is None else read_request(call, method.request_type, method.prepare)


def admit(method: Method, call: Call) -> None:
    """Check a call by its envelope.

    Raises:
        ServiceError: the caller lacks the permission, or the envelope is invalid.
    """
    call.label, call.method = method.label, method.name
    require_permission(method, call.caller)
    _check_scopes(method, call)
    call.check_envelope()


def require_permission(method: Method, caller: Caller) -> None:
    """Reject callers without the permission for a method.

    Raises:
        ServiceError: the caller has none of its permissions.
    """
    if not caller.may(*method.permissions):
        raise ServiceError(
            Reason.PERMISSION_MISSING,
            f"{method.name} needs a token with the permission {' or '.join(method.permissions)}",
            metadata={"permissions": ",".join(method.permissions)},
        )


def _check_scopes(method: Method, call: Call) -> None:
    """Check the caller's scopes against the SecurityScopes that the sender set in the unit."""
    security = call.unit.security
    if security is None:
        return
    scopes = security.write if method.access is Access.WRITE else security.read
    if not call.caller.satisfies(scopes):
        kind, named = method.access.value, ", ".join(scopes[:_SCOPES_SHOWN])
        raise ServiceError(
            Reason.SCOPE_MISSING,
            f"{method.name} {kind}s, and the unit's security.{kind} asks for a token with one of: {named}",
            metadata={"access": kind, "scopes": ",".join(scopes[:_SCOPES_SHOWN])},
        )


_ABOUT = ("workflow_id", "run_id", "schedule_id", "project_id")
_ABOUT_SCHEDULES = ("created", "updated", "removed")


@functools.cache
def _names_about(message_class: Any) -> tuple[str, ...]:
    """Return the fields of a message that name its subject: of a dataclass, or of Google's message."""
    descriptor = getattr(message_class, "DESCRIPTOR", None)
    fields = getattr(message_class, "__dataclass_fields__", ()) if descriptor is None else descriptor.fields_by_name
    return tuple(name for name in _ABOUT if name in fields)


def note_about(call: Call, message: Any) -> None:
    """Record the subject of a request or an answer."""
    for name in _names_about(message.__class__):
        value = getattr(message, name)
        if value:
            # The project of a schedule is not the one that authenticates the caller.
            call.about["schedule_project_id" if name == "project_id" else name] = value
    if isinstance(message, RegisterSchedulesResult):
        for name in _ABOUT_SCHEDULES:
            call.about[name] = getattr(message, name)
