"""Search attributes that bind a task to its tenant, and to the request that started it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, cast

from temporalio.api.common.v1 import SearchAttributes
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import CountWorkflowExecutionsRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from python_temporal.contract import WorkflowContract

from ..errors import SearchAttributesError, WorkerError, namespace_unknown
from .errors import missing_namespace

__all__ = [
    "ATTRIBUTES",
    "TENANT_ATTRIBUTE",
    "UNIT_ATTRIBUTE",
    "bound_attributes",
    "quoted",
    "register_attributes",
    "tenant_in",
    "tenant_of",
    "type_name",
    "unregistered_attributes",
]

TENANT_ATTRIBUTE = SearchAttributeKey.for_keyword("ContextUnityTenant")
"""Tenant of a workflow. Workflows that were started without the service have none."""
UNIT_ATTRIBUTE = SearchAttributeKey.for_keyword("ContextUnityUnit")
"""unit_id of the request that started a workflow."""
ATTRIBUTES = (TENANT_ATTRIBUTE, UNIT_ATTRIBUTE)
_TIMEOUT = timedelta(seconds=10)
_NOT_FOR_US = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.UNIMPLEMENTED)
"""Statuses of servers whose operator service is missing, or not permitted."""
_Wanted = tuple[SearchAttributeKey[Any], str]
"""An attribute, and the workflow that sets it."""


def bound_attributes(
    tenant_id: str, unit_id: str = "", others: TypedSearchAttributes | None = None
) -> TypedSearchAttributes:
    """Return the search attributes of a workflow: its tenant, its unit, and others."""
    own = {TENANT_ATTRIBUTE.name, UNIT_ATTRIBUTE.name}
    # Untyped: attributes are generic in their value, and the list has several types.
    pairs = list[Any]()
    if others is not None:
        pairs += [pair for pair in cast("Any", others) if pair.key.name not in own]
    if tenant_id:
        pairs.append(SearchAttributePair(TENANT_ATTRIBUTE, tenant_id))
    if unit_id:
        pairs.append(SearchAttributePair(UNIT_ATTRIBUTE, unit_id))
    return TypedSearchAttributes(pairs)


def quoted(text: str) -> str:
    """Return a text quoted for a list filter."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def tenant_of(attributes: TypedSearchAttributes) -> str:
    """Return the tenant that a workflow is bound to; empty for none."""
    return attributes.get(TENANT_ATTRIBUTE) or ""


def tenant_in(attributes: SearchAttributes) -> str:
    """Return the tenant in the server's search attributes; empty for none.

    It decodes only this attribute; the SDK would decode all.
    """
    kept = attributes.indexed_fields
    if TENANT_ATTRIBUTE.name not in kept:
        return ""
    data = kept[TENANT_ATTRIBUTE.name].data
    if data[:1] == b'"' and b"\\" not in data:
        # Fast path: usually it is plain text without escapes.
        return data[1:-1].decode()
    found: object = json.loads(data or b"null")
    # The server may return a single value as a list.
    if isinstance(found, list):
        found = cast("list[object]", found)[0] if len(cast("list[object]", found)) == 1 else ""
    return found if isinstance(found, str) else ""


async def register_attributes(client: Client, contracts: Iterable[WorkflowContract] = ()) -> None:
    """Register missing search attributes in the client's namespace.

    Args:
        client: Temporal client.
        contracts: workflows whose own search attributes to register too.

    Raises:
        WorkerError: the namespace does not exist.
        SearchAttributesError: registering is not permitted, or the namespace has an attribute with another type.
            It lists all of these, and what an operator must do.
    """
    wanted = _wanted(contracts)
    known = await _known(client, wanted)
    missing = list[str]()
    refusals = dict[str, None]()
    for name in (name for name in wanted if name not in known):
        refusal = await _add(client, name, int(wanted[name][0].indexed_value_type))
        if refusal is not None:
            missing.append(name)
            refusals[refusal] = None
    if error := _violations(client, wanted, known, missing, "; ".join(refusals)):
        raise error


async def unregistered_attributes(
    client: Client, contracts: Iterable[WorkflowContract] = ()
) -> SearchAttributesError | None:
    """Return what `register_attributes` would still have to register, or cannot; None if nothing. It changes nothing.

    Raises:
        WorkerError: the namespace does not exist.
        SearchAttributesError: the attributes cannot be read.
    """
    wanted = _wanted(contracts)
    known = await _known(client, wanted)
    return _violations(client, wanted, known, [name for name in wanted if name not in known], "not registered yet")


def _wanted(contracts: Iterable[WorkflowContract]) -> dict[str, _Wanted]:
    wanted: dict[str, _Wanted] = {key.name: (key, "every task") for key in ATTRIBUTES}
    for contract in contracts:
        for key in contract.search_attribute_keys:
            wanted.setdefault(key.name, (key, f"workflow {contract.name!r}"))
    return wanted


def _violations(
    client: Client, wanted: Mapping[str, _Wanted], known: Mapping[str, int], missing: Iterable[str], reason: str
) -> SearchAttributesError | None:
    lacking = {name: (type_name(wanted[name][0].indexed_value_type), wanted[name][1]) for name in missing}
    other = {
        name: (type_name(key.indexed_value_type), user, type_name(known[name]))
        for name, (key, user) in wanted.items()
        if known.get(name, key.indexed_value_type) != int(key.indexed_value_type)
    }
    return SearchAttributesError(client.namespace, lacking, other, reason) if lacking or other else None


async def _known(client: Client, wanted: Mapping[str, _Wanted]) -> dict[str, int]:
    """Return the types of the namespace's attributes, as numbers; at least those of the wanted ones."""
    try:
        answer = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace), timeout=_TIMEOUT
        )
    except RPCError as error:
        _check_namespace(error)
        if error.status not in _NOT_FOR_US:
            raise SearchAttributesError(client.namespace, {}, {}, error.message) from error
    else:
        return {**answer.system_attributes, **answer.custom_attributes}
    # Permission to start workflows may not include listing attributes, but a list filter tests each one.
    return {
        name: int(key.indexed_value_type)
        for name, (key, _) in wanted.items()
        if await _can_be_filtered_by(client, name)
    }


def _check_namespace(error: RPCError) -> None:
    if namespace := missing_namespace(error):
        raise WorkerError(namespace_unknown(namespace)) from error


async def _can_be_filtered_by(client: Client, name: str) -> bool:
    try:
        await client.workflow_service.count_workflow_executions(
            CountWorkflowExecutionsRequest(namespace=client.namespace, query=f"{name} IS NULL"), timeout=_TIMEOUT
        )
    except RPCError as error:
        _check_namespace(error)
        if error.status not in (RPCStatusCode.INVALID_ARGUMENT, *_NOT_FOR_US):
            raise SearchAttributesError(client.namespace, {}, {}, error.message) from error
        return False
    return True


async def _add(client: Client, name: str, kind: int) -> str | None:
    """Register one attribute; return the server's error, or None.

    One at a time: some servers reject a whole request if another process has just registered one of its attributes.
    """
    request = AddSearchAttributesRequest(namespace=client.namespace)
    request.search_attributes[name] = cast("Any", kind)
    try:
        await client.operator_service.add_search_attributes(request, timeout=_TIMEOUT)
    except RPCError as error:
        return None if error.status is RPCStatusCode.ALREADY_EXISTS else error.message
    return None


def type_name(kind: int) -> str:
    """Return a type in the form of `temporal operator search-attribute create --type`: `KeywordList`."""
    words = IndexedValueType.Name(cast("Any", int(kind))).removeprefix("INDEXED_VALUE_TYPE_").split("_")
    return "".join(word.capitalize() for word in words)
