"""DescribeContracts: return the workflows that callers can start, with their inputs and outputs."""

from __future__ import annotations

import ast
import asyncio
import enum
import functools
import inspect
import json
import textwrap
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import betterproto2
from contextunity.gen.contextunity.worker import (
    ActivityDescription,
    ContractDescription,
    DescribeContractsRequest,
    DescribeContractsResult,
    FieldDescription,
    HandlerDescription,
    RetryDescription,
    WorkflowDescription,
)
from google.protobuf import descriptor_pb2
from temporalio.common import RetryPolicy

from contextunity.core import codec
from contextunity.worker.internal_fields import is_internal
from contextunity.worker.modules.registry import WorkerRegistry
from python_temporal.contract import ActivityContract, MethodContract, WorkflowContract

from .call import Call, Engine
from .descriptors import bound, comments_of, descriptors, whole_descriptors
from .inputs import contract_for, filled_fields, named_fields

__all__ = ["DescribeContractsHandler", "describe_contracts"]


class DescribeContractsHandler:
    """Handles DescribeContracts."""

    def __init__(self, engine: Engine) -> None:
        self._registry = engine.registry

    async def describe_contracts(self, call: Call, request: DescribeContractsRequest) -> DescribeContractsResult:
        """Return the contracts; see DescribeContracts in worker.proto."""
        return await describe_contracts(self._registry, request)


async def describe_contracts(registry: WorkerRegistry, request: DescribeContractsRequest) -> DescribeContractsResult:
    """Return the contracts of a registry, as a service with it answers DescribeContracts."""
    wanted = {contract_for(registry, name).name for name in request.workflow_type}
    contracts = [
        (module, contract) for module, contract in _contracts(registry) if not wanted or contract.name in wanted
    ]
    described = [_describe(module, contract) for module, contract in contracts]
    plain = [contract for _, contract in contracts]
    if request.include_schemas:
        # The first time takes about ten milliseconds per contract, so run it in a thread.
        for description, contract in zip(described, plain, strict=True):
            await asyncio.to_thread(_add_schemas, description, contract)
    if request.include_options:
        for description, contract in zip(described, plain, strict=True):
            description.options = _options(contract)
    return DescribeContractsResult(
        contracts=described,
        file_descriptor_set=await asyncio.to_thread(whole_descriptors, plain)
        if request.include_descriptors
        else descriptors(plain),
        activities=_activities(contracts) if request.include_options else [],
    )


def _contracts(registry: WorkerRegistry) -> list[tuple[str, WorkflowContract]]:
    found = [
        (module.config.name, contract)
        for module in registry.modules.values()
        for service in module.contracts
        for contract in service.workflows.values()
        if not contract.internal
    ]
    return sorted(found, key=lambda each: each[1].name)


def _describe(module: str, contract: WorkflowContract) -> ContractDescription:
    policy = contract.id_conflict_policy
    return ContractDescription(
        workflow_type=contract.name,
        aliases=list(contract.aliases),
        module=module,
        description=contract.description,
        input_type=_name(contract.input_type),
        output_type=_name(contract.output_type),
        task_queue=contract.task_queue or "",
        id_expression=contract.id_expression,
        id_conflict_policy=policy.name if policy is not None and int(policy) else "",
        queries=_handlers(binding.contract for binding in contract.queries.values()),
        signals=_handlers(binding.contract for binding in contract.signals.values()),
        updates=_handlers(binding.contract for binding in contract.updates.values()),
        deprecated=contract.deprecated,
        fields=_fields(contract.input_type) if contract.input_type is not None else [],
    )


def _handlers(contracts: Iterable[MethodContract]) -> list[HandlerDescription]:
    return [
        HandlerDescription(
            name=contract.name,
            input_type=_name(contract.input_type),
            output_type=_name(contract.output_type),
            description=contract.description,
        )
        for contract in contracts
        if not contract.internal
    ]


def _options(contract: WorkflowContract) -> WorkflowDescription:
    return WorkflowDescription(
        method=contract.method,
        execution_timeout=contract.execution_timeout,
        run_timeout=contract.run_timeout,
        task_timeout=contract.task_timeout,
        retry_policy=_retries(contract.retry_policy),
        id_reuse_policy=_policy(contract.id_reuse_policy),
        parent_close_policy=_policy(contract.parent_close_policy),
        versioning_behavior=_policy(contract.versioning_behavior),
    )


def _policy(policy: enum.IntEnum | None) -> str:
    return policy.name if policy else ""


def _retries(policy: RetryPolicy | None) -> RetryDescription | None:
    if policy is None:
        return None
    return RetryDescription(
        initial_interval=policy.initial_interval,
        backoff_coefficient=policy.backoff_coefficient,
        maximum_interval=policy.maximum_interval,
        maximum_attempts=policy.maximum_attempts,
        non_retryable_error_types=list(policy.non_retryable_error_types or ()),
    )


def _activities(contracts: Iterable[tuple[str, WorkflowContract]]) -> list[ActivityDescription]:
    services = {contract.service: module for module, contract in contracts}
    found = [
        _describe_activity(module, contract)
        for service, module in services.items()
        for contract in service.activities.values()
    ]
    return sorted(found, key=lambda each: each.name)


def _describe_activity(module: str, contract: ActivityContract) -> ActivityDescription:
    return ActivityDescription(
        name=contract.name,
        method=contract.method,
        module=module,
        description=contract.description,
        input_type=_name(contract.input_type),
        output_type=_name(contract.output_type),
        task_queue=contract.task_queue or "",
        schedule_to_close_timeout=contract.schedule_to_close_timeout,
        schedule_to_start_timeout=contract.schedule_to_start_timeout,
        start_to_close_timeout=contract.start_to_close_timeout,
        heartbeat_timeout=contract.heartbeat_timeout,
        retry_policy=_retries(contract.retry_policy),
    )


def _add_schemas(description: ContractDescription, contract: WorkflowContract) -> None:
    described: dict[str, MethodContract] = {each.name: each for each in bound(contract)}
    description.input_schema, description.output_schema = _schemas(contract, contract)
    for handler in (*description.queries, *description.signals, *description.updates):
        handler.input_schema, handler.output_schema = _schemas(contract, described[handler.name])


@functools.cache
def _schemas(workflow: WorkflowContract, contract: MethodContract) -> tuple[str, str]:
    """Return the input and output schema of a workflow, or of its query, signal or update."""
    # Imported on demand, so that a service starts without it.
    from contextunity.worker.json_schema import message_schema

    comments = comments_of(workflow)
    # Only starts have fields that the service fills in or that form the workflow id.
    fills, names = (filled_fields(workflow), named_fields(workflow)) if contract is workflow else ((), ())
    taken = message_schema(_descriptor(contract.input_type), comments, fills=fills, names=names)
    given = message_schema(_descriptor(contract.output_type), comments, is_output=True)
    return json.dumps(taken, ensure_ascii=False), json.dumps(given, ensure_ascii=False)


def _descriptor(message_class: type[betterproto2.Message] | None) -> Any:
    return None if message_class is None else codec.proto_class(message_class).DESCRIPTOR


def _name(message_class: type[betterproto2.Message] | None) -> str:
    return "" if message_class is None else codec.full_name(message_class)


def _fields(message_class: type[betterproto2.Message]) -> list[FieldDescription]:
    comments = _comments(message_class)
    return [
        FieldDescription(
            name=field.name,
            type=_type(field),
            # A map is repeated only on the wire.
            repeated=field.is_repeated and not _is_map(field),
            enum_values=_enum_values(field),
            description=comments.get(field.name, ""),
            rules=_rules(field),
        )
        for field in codec.proto_class(message_class).DESCRIPTOR.fields
        if not is_internal(field)
    ]


_SCALARS: dict[int, str] = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _enum_values(field: Any) -> list[str]:
    of = field.message_type.fields_by_name["value"] if _is_map(field) else field
    return [value.name for value in of.enum_type.values] if of.enum_type is not None else []


def _type(field: Any) -> str:
    if field.message_type is not None:
        if _is_map(field):
            key, value = field.message_type.fields
            return f"map<{_type(key)}, {_type(value)}>"
        return str(field.message_type.full_name)
    if field.enum_type is not None:
        return str(field.enum_type.full_name)
    return _SCALARS[field.type]


_PARSING = threading.Lock()


@functools.cache  # Parsing a module's source again takes about ten milliseconds, during which calls wait.
def _comments(message_class: type[betterproto2.Message]) -> dict[str, str]:
    """Return the proto's comments of fields: the generator writes each as a string below its field."""
    try:
        # CPython counts how deep it is in a tree for all threads together, and raises a SystemError where two parse at
        # once; inspect parses as well.
        with _PARSING:
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(message_class))).body
    except (OSError, SyntaxError, ValueError):
        return {}  # Installed without sources, so there are no comments.
    if not isinstance(node, ast.ClassDef):
        return {}
    found = dict[str, str]()
    for field, below in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(below.value.value)
    return found


def _rules(field: Any) -> list[str]:
    from contextunity.worker.json_schema import rules_of

    rules = rules_of(field)
    return [] if rules is None else list(_rule_lines(rules, ""))


def _rule_lines(rules: Any, prefix: str) -> Iterator[str]:
    for field, value in rules.ListFields():
        name = f"{prefix}{field.name}"
        if (
            field.message_type is not None
            and not field.is_repeated
            and field.message_type.file is rules.DESCRIPTOR.file
        ):
            yield from _rule_lines(value, f"{name}.")
        elif field.is_repeated:
            yield f"{name}: {', '.join(str(each).strip() for each in value)}"
        else:
            yield f"{name}: {str(value).strip()}"
