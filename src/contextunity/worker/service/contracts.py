"""Describes the contracts: what can be started, with what, and what it gives."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import betterproto2
from contextunity.gen.contextunity.worker import (
    ContractDescription,
    DescribeContractsRequest,
    DescribeContractsResult,
    FieldDescription,
    HandlerDescription,
)
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    message_factory,
    timestamp_pb2,
)
from google.protobuf.message import Message

from contextunity.core import codec
from contextunity.worker.internal_fields import is_internal
from contextunity.worker.modules.registry import WorkerRegistry
from python_temporal.contract import MethodContract, WorkflowContract

from .call import Call, Engine
from .inputs import contract_for

__all__ = ["DescribeContractsHandler"]


class DescribeContractsHandler:
    """DescribeContracts."""

    def __init__(self, engine: Engine) -> None:
        self._registry = engine.registry

    async def describe_contracts(self, call: Call, request: DescribeContractsRequest) -> DescribeContractsResult:
        """Describes what can be started; see DescribeContracts in worker.proto."""
        wanted = {contract_for(self._registry, name).name for name in request.workflow_type}
        contracts = [
            (module, contract)
            for module, contract in _contracts(self._registry)
            if not wanted or contract.name in wanted
        ]
        return DescribeContractsResult(
            contracts=[_describe(module, contract) for module, contract in contracts],
            file_descriptor_set=_descriptors(contract for _, contract in contracts),
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


def _name(message_class: type[betterproto2.Message] | None) -> str:
    return "" if message_class is None else codec.full_name(message_class)


def _fields(message_class: type[betterproto2.Message]) -> list[FieldDescription]:
    comments = _comments(message_class)
    return [
        FieldDescription(
            name=field.name,
            type=_type(field),
            # A map is repeated on the wire alone.
            repeated=field.is_repeated and not _is_map(field),
            enum_values=[value.name for value in field.enum_type.values] if field.enum_type is not None else [],
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


def _type(field: Any) -> str:
    if field.message_type is not None:
        if _is_map(field):
            key, value = field.message_type.fields
            return f"map<{_type(key)}, {_type(value)}>"
        return str(field.message_type.full_name)
    if field.enum_type is not None:
        return str(field.enum_type.full_name)
    return _SCALARS[field.type]


@functools.cache  # Reading a module of sources again takes some ten milliseconds, in which no other call is answered.
def _comments(message_class: type[betterproto2.Message]) -> dict[str, str]:
    """The proto's comments on fields: the generator leaves each as a string below its field."""
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(message_class))).body
    except (OSError, SyntaxError, ValueError):
        return {}  # Installed without sources: callers do without the comments.
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


@functools.cache
def _rule_options() -> type[Message]:
    """FieldOptions whose buf.validate rules are fields with names; the process's own pool need not know them."""
    from protovalidate import FieldPathPb

    pool = descriptor_pool.DescriptorPool()
    for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    file = FieldPathPb.desc().file.proto
    pool.AddSerializedFile(file.to_binary())
    message_factory.GetMessageClassesForFiles([file.name], pool)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))


def _rules(field: Any) -> list[str]:
    options = _rule_options().FromString(field.GetOptions().SerializeToString())
    return [
        line
        for extension, rules in options.ListFields()
        if extension.full_name == "buf.validate.field"
        for line in _rule_lines(rules, "")
    ]


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


def _descriptors(contracts: Iterable[WorkflowContract]) -> bytes:
    """A serialized FileDescriptorSet of all messages of the contracts, files after those that they import."""
    seen = dict[str, Any]()
    for contract in contracts:
        for method in (contract, *_bound(contract)):
            for message_class in (method.input_type, method.output_type):
                if message_class is not None:
                    _visit(codec.proto_class(message_class).DESCRIPTOR.file, seen)
    files = descriptor_pb2.FileDescriptorSet()
    for file in seen.values():
        files.file.add().ParseFromString(file.serialized_pb)
    return files.SerializeToString()


def _bound(contract: WorkflowContract) -> Iterator[MethodContract]:
    for bindings in (contract.queries, contract.signals, contract.updates):
        for binding in bindings.values():
            yield binding.contract


def _visit(file: Any, seen: dict[str, Any]) -> None:
    if file.name in seen:
        return
    for dependency in file.dependencies:
        _visit(dependency, seen)
    seen[file.name] = file
