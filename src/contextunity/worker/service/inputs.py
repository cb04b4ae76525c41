"""Decode the request of a start: plain parameters or a packed message become the typed input of a contract."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple, cast

import betterproto2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from betterproto2_codec.plain_data import Descriptor, to_protojson
from contextunity.core import codec
from contextunity.core.errors import CodecError
from contextunity.worker.grpc_errors import FieldViolation, Reason, ServiceError, invalid
from contextunity.worker.internal_fields import internal_in_data, internal_in_message
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.schedules import object_of_args
from contextunity.worker.temporal.tenancy import id_violation, resolved_queue, tenant_queue
from python_temporal.codegen import text
from python_temporal.contract import ContractError, MethodContract, WorkflowContract

from .call import Call
from .payloads import check_rules, invalid_fields, payload_of, unpack

__all__ = ["StartRequest", "contract_for", "filled_fields", "handler_input", "named_fields", "read_start"]

_TENANT_FIELD = "tenant_id"
_TENANT_PATH = re.compile(r"\$\{!\s*(this\.)?tenantId(\.string\(\))?\s*\}")
_PATH = re.compile(r"\$\{!\s*(?:this\.)?(\w+)(?:\.string\(\))?\s*\}")
_OF_TENANT = "~"
"""Prefix of ids to which the service adds the tenant; no tenant's own id may begin with it."""
_TIMEOUT_KEY = "timeout_seconds"
_ROUTING_KEYS = frozenset({"workflow_type", "tenant_id", "task_queue", "args"})
_ROUTING_KEYS_AND_TIMEOUT = _ROUTING_KEYS | {_TIMEOUT_KEY}
_SHORTEST_TIMEOUT = timedelta(milliseconds=1)
"""Shorter timeouts would be rounded to zero, which means no timeout."""
_LONGEST_TIMEOUT = 100 * 365 * 86400.0
"""Seconds; longer timeouts are reduced to this. The server's own times end not far above."""


class StartRequest(NamedTuple):
    """A decoded start. A tuple takes a third of the time of a frozen dataclass to create.

    Attributes:
        contract: the workflow.
        input: its input; None if it takes none.
        message: the same input as Google's message, already checked against the rules of its proto.
        tenant_id: tenant of the task.
        workflow_id: id of the task; empty if it is made from the unit's id.
        task_queue: task queue of the task.
        execution_timeout: the request's timeout; None for the contract's.
    """

    contract: WorkflowContract
    input: betterproto2.Message | None
    message: Message | None
    tenant_id: str
    workflow_id: str
    task_queue: str
    execution_timeout: timedelta | None = None


def contract_for(registry: WorkerRegistry, workflow_type: str) -> WorkflowContract:
    """Return the contract of a workflow_type.

    Raises:
        ServiceError: it is unknown; the error lists the known ones.
    """
    contract = registry.workflows.get(workflow_type)
    if contract is None:
        known = ", ".join(sorted(name for name, each in registry.workflows.items() if not each.internal)) or "none"
        raise ServiceError(
            Reason.WORKFLOW_TYPE_UNKNOWN,
            f"there is no workflow_type {workflow_type!r}; known ones: {known}",
            metadata={"workflow_type": workflow_type[:200], "known": known},
        )
    if contract.internal:
        text = f"{workflow_type!r} is internal: other workflows start it, and callers cannot"
        raise invalid(FieldViolation(field="payload.workflow_type", description=text))
    return contract


def read_start(call: Call, registry: WorkerRegistry) -> StartRequest:
    """Decode the request of StartWorkflow.

    Raises:
        ServiceError: the workflow_type is unknown, or the content is invalid; every violation is listed.
    """
    payload = payload_of(call)
    body = unpack(call.unit, lambda: _input_types(registry))
    workflow_type = _text(payload, "workflow_type")
    if body is not None:
        contract = _contract_of(registry, body, workflow_type)
        _reject_internal(body, "body")
        has_tenant = _has_tenant(contract)
        _reject_parameters_in_payload(payload, contract)
        where, parameters = "body", None
        timeout = payload.get(_TIMEOUT_KEY)
        named = str(getattr(body, _TENANT_FIELD, "")) if has_tenant else ""
    else:
        if not workflow_type:
            raise invalid(FieldViolation(field="payload.workflow_type", description="is required"))
        contract = contract_for(registry, workflow_type)
        has_tenant = _has_tenant(contract)
        where, parameters = "payload", _parameters(payload, contract)
        timeout = None if _has_field(contract, _TIMEOUT_KEY) else payload.get(_TIMEOUT_KEY)
        given = parameters.get(_TENANT_FIELD, parameters.get("tenantId", ""))
        named = given if isinstance(given, str) and has_tenant else ""
    tenant_id = call.acting_tenant(_text(payload, "tenant_id"), named)
    request = body if parameters is None else _typed(contract.input_type, parameters, where, contract.name)
    message = None
    if request is not None:
        if has_tenant:
            # The message's class is generated; only its descriptor says that it has the field.
            cast("Any", request).tenant_id = tenant_id
        message = check_rules(request, where)
    return StartRequest(
        contract=contract,
        input=request,
        message=message,
        tenant_id=tenant_id,
        workflow_id=_workflow_id(call, contract, request, where, tenant_id),
        task_queue=_task_queue(contract, _text(payload, "task_queue"), tenant_id),
        execution_timeout=None if timeout is None else _execution_timeout(contract, timeout),
    )


def handler_input(
    contract: MethodContract, args: Mapping[str, Any] | None, packed: betterproto2.Message | None
) -> betterproto2.Message | None:
    """Decode the typed input of a query, signal or update, from plain data or a packed message.

    Args:
        contract: the query, signal or update.
        args: plain data, or None.
        packed: the message in an Any, or None.

    Raises:
        ServiceError: the input is invalid; every violation is listed.
    """
    if packed is None:
        request = _typed(contract.input_type, dict(args or {}), "args", contract.name)
    else:
        if args:
            raise invalid(FieldViolation(field="args", description="is set together with input; set one of the two"))
        try:
            request = codec.unpack_any(packed)
        except CodecError as error:
            text = f"{error}; {contract.name!r} takes {_what_it_takes(contract)}"
            raise invalid(FieldViolation(field="input", description=text)) from None
        _reject_internal(request, "input")
        if contract.input_type is None or not isinstance(request, contract.input_type):
            text = f"is a {codec.full_name(request)}; {contract.name!r} takes {_what_it_takes(contract)}"
            raise invalid(FieldViolation(field="input", description=text))
    if request is not None:
        check_rules(request, "args" if packed is None else "input")
    return request


def filled_fields(contract: WorkflowContract) -> frozenset[str]:
    """Return the names of input fields that the service fills in if a start omits them."""
    return frozenset({_TENANT_FIELD}) if _has_tenant(contract) else frozenset()


def named_fields(contract: WorkflowContract) -> frozenset[str]:
    """Return the ProtoJSON names of input fields in the workflow id; without nested fields."""
    return frozenset(_PATH.findall(contract.id_expression))


def _contract_of(registry: WorkerRegistry, body: betterproto2.Message, workflow_type: str) -> WorkflowContract:
    """Return the contract with this input message; `workflow_type`, if set, must agree."""
    name = codec.full_name(body)
    takers = {each.name: each for each in registry.workflows.values() if _takes(each, name) and not each.internal}
    if workflow_type:
        contract = contract_for(registry, workflow_type)
        if not _takes(contract, name):
            takes = codec.full_name(contract.input_type) if contract.input_type else "no message"
            raise _wrong_body(f"the body is a {name}, but the workflow_type {workflow_type!r} takes {takes}")
        return contract
    if not takers:
        known = ", ".join(sorted(_input_types(registry))) or "none"
        raise _wrong_body(f"no workflow_type takes a {name}; types that can stand here: {known}")
    if len(takers) > 1:
        raise _wrong_body(
            f"several workflow_types take a {name}: {', '.join(sorted(takers))}; set workflow_type to one of them"
        )
    (contract,) = takers.values()
    return contract


def _input_types(registry: WorkerRegistry) -> set[str]:
    """Full names of the messages that a start may have as its body."""
    return {
        codec.full_name(each.input_type)
        for each in registry.workflows.values()
        if each.input_type is not None and not each.internal
    }


def _what_it_takes(contract: MethodContract) -> str:
    return "nothing" if contract.input_type is None else f"a {codec.full_name(contract.input_type)}"


def _takes(contract: WorkflowContract, name: str) -> bool:
    return contract.input_type is not None and codec.full_name(contract.input_type) == name


def _wrong_body(text: str) -> ServiceError:
    return ServiceError(Reason.BODY_INVALID, text, violations=[FieldViolation(field="body", description=text)])


def _reject_parameters_in_payload(payload: Mapping[str, Any], contract: WorkflowContract) -> None:
    plain = sorted(payload.keys() - (_routing_keys(contract) - {"args"}))
    if plain:
        text = "the parameters are in the body; remove them from the payload"
        raise invalid(*(FieldViolation(field=f"payload.{key}", description=text) for key in plain))


def _routing_keys(contract: WorkflowContract) -> frozenset[str]:
    return _ROUTING_KEYS if _has_field(contract, _TIMEOUT_KEY) else _ROUTING_KEYS_AND_TIMEOUT


def _parameters(payload: Mapping[str, Any], contract: WorkflowContract) -> dict[str, Any]:
    """Return the workflow's parameters: those next to the routing keys, and those in `args`."""
    arguments, routing = payload.get("args"), _routing_keys(contract)
    if arguments is not None:
        try:
            arguments = object_of_args(arguments)
        except CodecError as error:
            raise invalid_fields("payload", error.violations) from None
    plain = {key: value for key, value in payload.items() if key not in routing}
    if not arguments:
        return plain
    parameters = dict(arguments)
    twice = sorted(plain.keys() & parameters.keys())
    if twice:
        text = "is set twice, here and in args"
        raise invalid(*(FieldViolation(field=f"payload.{key}", description=text) for key in twice))
    return parameters | plain


def _typed(
    input_type: type[betterproto2.Message] | None, parameters: Mapping[str, Any], where: str, name: str
) -> betterproto2.Message | None:
    if input_type is None:
        if parameters:
            text = f"{name!r} takes no parameters"
            raise invalid(*(FieldViolation(field=f"{where}.{key}", description=text) for key in sorted(parameters)))
        return None
    descriptor = codec.proto_class(input_type).DESCRIPTOR
    found = internal_in_data(parameters, descriptor)
    if found:
        raise invalid_fields(where, found)
    convert = to_protojson(descriptor)
    try:
        return codec.from_dict(input_type, parameters if convert is None else convert(parameters))
    except CodecError as error:
        raise invalid_fields(where, error.violations) from None


def _reject_internal(message: betterproto2.Message, where: str) -> None:
    found = internal_in_message(message)
    if found:
        raise invalid_fields(where, found)


def _has_tenant(contract: WorkflowContract) -> bool:
    return contract.input_type is not None and _tells_tenant(codec.proto_class(contract.input_type).DESCRIPTOR)


@functools.cache
def _tells_tenant(input_type: Descriptor) -> bool:
    field = input_type.fields_by_name.get(_TENANT_FIELD)
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


def _has_field(contract: WorkflowContract, name: str) -> bool:
    return contract.input_type is not None and _declares(codec.proto_class(contract.input_type).DESCRIPTOR, name)


@functools.cache
def _declares(input_type: Descriptor, name: str) -> bool:
    return name in input_type.fields_by_name


def _execution_timeout(contract: WorkflowContract, seconds: object) -> timedelta:
    """Return the request's execution timeout, limited to the contract's."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        text = f"must be a number of seconds above zero, not {_short(seconds)}"
        raise invalid(FieldViolation(field=f"payload.{_TIMEOUT_KEY}", description=text))
    timeout = max(timedelta(seconds=min(seconds, _LONGEST_TIMEOUT)), _SHORTEST_TIMEOUT)
    return timeout if contract.execution_timeout is None else min(timeout, contract.execution_timeout)


def _text(payload: Mapping[str, Any], key: str) -> str:
    value = payload.get(key, "")
    if not isinstance(value, str):
        raise invalid(FieldViolation(field=f"payload.{key}", description=f"must be a string, not {_short(value)}"))
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _workflow_id(
    call: Call, contract: WorkflowContract, request: betterproto2.Message | None, where: str, tenant_id: str
) -> str:
    """Return the contract's id for a task; empty if the unit's id is used.

    With tokens, every id of a contract contains the tenant, so that a start neither conflicts with another tenant's
    task nor reveals that one exists. Without tokens, tenants are only labels.
    """
    if contract.workflow_id is None:
        return ""
    try:
        workflow_id = contract.workflow_id(request)
    except ContractError as error:
        raise invalid(FieldViolation(field=f"{where}.{error.field}", description=error.reason)) from None
    _check_characters(contract, request, where, workflow_id)
    if call.caller.tenants is None:
        return workflow_id
    if not _names_tenant(contract):
        return f"{_OF_TENANT}{text(tenant_id, 'tenant_id', contract.name, '/')}/{workflow_id}"
    if workflow_id.startswith(_OF_TENANT):
        violation = (
            f"the id {_short(workflow_id)} begins with {_OF_TENANT!r}, which is reserved for ids that the service makes"
        )
        raise invalid(FieldViolation(field=where, description=violation))
    return workflow_id


def _check_characters(
    contract: WorkflowContract, request: betterproto2.Message | None, where: str, workflow_id: str
) -> None:
    """Reject an id with unprintable characters, and name the field that they are from.

    Checked here and not by rules of the protos, so that it applies to the contracts of all modules, and existing tasks
    can still be found.
    """
    violation = id_violation(workflow_id)
    if not violation:
        return
    if request is not None:
        for field in codec.proto_class(type(request)).DESCRIPTOR.fields:
            value = getattr(request, field.name, None)
            if field.json_name in named_fields(contract) and isinstance(value, str) and id_violation(value):
                field_violation = FieldViolation(field=f"{where}.{field.name}", description=id_violation(value))
                raise invalid(field_violation)
    raise invalid(FieldViolation(field=where, description=f"its id {_short(workflow_id)} {violation}"))


@functools.cache
def _names_tenant(contract: WorkflowContract) -> bool:
    """Return whether the ids of a contract contain the tenant."""
    return _TENANT_PATH.search(contract.id_expression) is not None


def _task_queue(contract: WorkflowContract, named: str, tenant_id: str) -> str:
    """Return the task queue: the contract's, or that of the tenant's own workers if the request names it."""
    queue = contract.task_queue or ""
    meant = resolved_queue(queue, named, tenant_id)
    if meant is None:
        own = tenant_queue(queue, tenant_id)
        text = f"{named!r} is not the task queue of {contract.name!r}, which is {queue!r}, or {own!r} for this tenant"
        raise invalid(FieldViolation(field="payload.task_queue", description=text))
    return meant
