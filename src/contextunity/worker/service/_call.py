"""One call of a method: the unit that came, who sent it, and which tenants it may touch."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.worker import TaskContext
from contextunity.gen.contextunity.worker.context_pb2 import TaskContext as TaskContextMessage
from temporalio.client import Client

from contextunity.core import codec
from contextunity.core.context import MAX_PROVENANCE, with_step
from contextunity.worker.auth import EVERYBODY, Caller
from contextunity.worker.converter import ProtobufPayloadConverter
from contextunity.worker.core.registry import WorkerRegistry
from contextunity.worker.quotas import OpenTasks, Quotas
from contextunity.worker.schedules import DEFAULT_PROJECT
from contextunity.worker.status import FieldViolation, Reason, ServiceError, invalid
from contextunity.worker.tenancy import tenant_fault

from ._seen import SeenTasks

__all__ = ["Call", "Engine", "aside"]

_DEFAULT_TENANT = "default"
_ID_LIMIT = 200
"""Characters of a unit's ids. They are UUIDs by right; clients that have ids of their own are let in."""
_LABEL_LIMIT = 500
"""Characters of a label in a provenance: all of them are carried on into every activity of a task."""


T = TypeVar("T")
Parameters = ParamSpec("Parameters")

_ASIDE = ThreadPoolExecutor(max_workers=2, thread_name_prefix="large-unit")
"""Two at a time: empty objects take some twenty times the memory that they have as bytes."""


async def aside(function: Callable[Parameters, T], *arguments: Parameters.args, **named: Parameters.kwargs) -> T:
    """Calls a function in a thread for large units, so that other calls are answered meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(_ASIDE, functools.partial(function, *arguments, **named))


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """What the methods work with.

    Attributes:
        client: Temporal client with the contract's data converter.
        registry: the workflow contracts by workflow_type.
        rpc_timeout: how long one call to the Temporal server may take.
        seen: what is known of tasks already.
        quotas: what tenants may take.
        open_tasks: what they have taken of tasks.
    """

    client: Client
    registry: WorkerRegistry
    rpc_timeout: timedelta
    seen: SeenTasks = field(default_factory=SeenTasks)
    quotas: Quotas = field(default_factory=Quotas)
    open_tasks: OpenTasks = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "open_tasks", OpenTasks(self.client, self.rpc_timeout))

    @property
    def has_plain_payloads(self) -> bool:
        """Whether the bytes of a message stand in a payload as they are: not encrypted, not stored elsewhere."""
        converter = self.client.data_converter
        return (
            converter.payload_codec is None
            and converter.external_storage is None
            and converter.payload_converter_class is ProtobufPayloadConverter
        )


@dataclass(kw_only=True, slots=True)
class Call:
    """One call.

    Attributes:
        unit: the request.
        payload: its payload as plain data, where that was read apart from it; None where the unit has it.
        caller: who sent it.
        deadline: when the caller stops waiting, in the event loop's time; None where it does not.
        label: the method, as its provenance tells it.
        about: which task, schedule and tenant it turned out to be about, for the audit log.
        is_large: whether reading its content takes so long that others should not wait for it.
        unit_id: that of the unit; empty where it has none.
        trace_id: that of the unit, or a new one where it has none.
        request_id: what a repetition of this call is known by: the unit_id, or a new one where it has none.
    """

    unit: ContextUnit
    payload: dict[str, Any] | None = None
    caller: Caller = EVERYBODY
    deadline: float | None = None
    label: str = ""
    is_large: bool = False
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    unit_id: str = field(init=False)
    trace_id: str = field(init=False)
    request_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.unit_id = self.unit.unit_id
        self.trace_id = self.unit.trace_id or str(uuid.uuid4())
        self.request_id = self.unit_id or str(uuid.uuid4())

    async def read(
        self, function: Callable[Parameters, T], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> T:
        """Calls what reads the content: at once, or aside from the event loop where the content is large."""
        if not self.is_large:
            return function(*arguments, **named)
        return await aside(function, *arguments, **named)

    def check_envelope(self) -> None:
        """Refuses ids and labels that nobody can keep: they become ids, search attributes and headers of tasks.

        Raises:
            ServiceError: some are too long, or hold characters that cannot be printed; each is named.
        """
        unit = self.unit
        # Nearly always there is nothing to name.
        fits = _is_kept(self.unit_id, _ID_LIMIT) and _is_kept(unit.trace_id, _ID_LIMIT)
        for label in unit.provenance:
            fits = fits and _is_kept(label, _LABEL_LIMIT)
        if fits:
            return
        named = [("unit_id", self.unit_id, _ID_LIMIT), ("trace_id", unit.trace_id, _ID_LIMIT)]
        named += [(f"provenance[{place}]", label, _LABEL_LIMIT) for place, label in enumerate(unit.provenance)]
        raise invalid(
            *(
                FieldViolation(field=name, description=_fault(text, limit))
                for name, text, limit in named
                if not _is_kept(text, limit)
            )
        )

    @property
    def remaining(self) -> float | None:
        """Seconds that the caller still waits; None where it has no deadline."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    def tenant(self, *named: str) -> str:
        """The one tenant that this call makes something for.

        Args:
            named: what the request names in its several places; empty ones do not count.

        Raises:
            ServiceError: the places disagree, the name is none, or it is not the caller's.
        """
        tenant_id = self._tenant(*named)
        self.about["tenant_id"] = tenant_id
        return tenant_id

    def _tenant(self, *named: str) -> str:
        name = ""
        for each in named:
            if not each or each == name:
                continue
            if name:
                told = " and ".join(repr(each) for each in sorted({*named} - {""}))
                raise invalid(FieldViolation(field="payload.tenant_id", description=f"the request names two: {told}"))
            name = each
        if name:
            self._check(name)
            return name
        if self.caller.tenants is None:
            return _DEFAULT_TENANT
        if len(self.caller.tenants) == 1:
            (name,) = self.caller.tenants
            return name
        if not self.caller.tenants:
            raise ServiceError(Reason.TENANT_REFUSED, "the token names no tenant; have one minted with allowed_tenants")
        raise ServiceError(
            Reason.TENANT_UNCLEAR,
            f"name one of the token's tenants as tenant_id: {', '.join(sorted(self.caller.tenants))}",
        )

    def tenants(self, named: str = "") -> frozenset[str] | None:
        """The tenants whose things this call may see; None for all, those without a tenant included.

        Raises:
            ServiceError: the one that is named is no tenant, or not the caller's.
        """
        if named:
            self._check(named)
            return frozenset({named})
        return self.caller.tenants

    def project(self, named: str) -> str:
        """The project that this call is about, whether or not the caller sees it: the one named, else the token's."""
        return named or self.caller.bound_project or self.caller.project_id or DEFAULT_PROJECT

    def context(self, tenant_id: str) -> TaskContext:
        """What travels with the work that this call causes; of a very long provenance its beginning."""
        return codec.from_proto(TaskContext, self.context_message(tenant_id))

    def context_message(self, tenant_id: str) -> TaskContextMessage:
        """The same as `context`, as Google's message."""
        made = TaskContextMessage(
            trace_id=self.trace_id, unit_id=self.unit_id, tenant_id=tenant_id, principal=self.caller.principal
        )
        made.provenance.extend(with_step(self.unit.provenance[:MAX_PROVENANCE], self.label))
        return made

    def _check(self, name: str) -> None:
        fault = tenant_fault(name)
        if fault:
            raise invalid(FieldViolation(field="payload.tenant_id", description=f"{name!r} {fault}"))
        if not self.caller.sees(name):
            raise ServiceError(
                Reason.TENANT_REFUSED,
                f"the token is not for the tenant {name!r}; {_those(self.caller.tenants or ())}",
                metadata={"tenant_id": name},
            )


def _is_kept(text: str, limit: int) -> bool:
    return len(text) <= limit and text.isprintable()


def _fault(text: str, limit: int) -> str:
    if len(text) > limit:
        return f"has {len(text):,} characters; at most {limit} are taken"
    return "has characters that cannot be printed"


def _those(tenants: Iterable[str]) -> str:
    names = ", ".join(sorted(tenants))
    return f"it is for {names}" if names else "it is for none; have one minted with allowed_tenants"
