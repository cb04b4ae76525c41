"""Whose a task is: bound to it when it starts, by search attributes that the Temporal server keeps with it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Any, cast

from temporalio.api.common.v1 import SearchAttributes
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import Priority, SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from .errors import WorkerError

__all__ = [
    "ATTRIBUTES",
    "TENANT_ATTRIBUTE",
    "UNIT_ATTRIBUTE",
    "bound_attributes",
    "fair_priority",
    "fairness_key",
    "register_attributes",
    "resolved_queue",
    "tenant_fault",
    "tenant_in",
    "tenant_of",
    "tenant_queue",
]

TENANT_ATTRIBUTE = SearchAttributeKey.for_keyword("ContextUnityTenant")
"""Tenant that a workflow is run for. Workflows that were started past the service have none."""
UNIT_ATTRIBUTE = SearchAttributeKey.for_keyword("ContextUnityUnit")
"""unit_id of the request that started a workflow."""
ATTRIBUTES = (TENANT_ATTRIBUTE, UNIT_ATTRIBUTE)

_MAX_FAIRNESS_KEY_BYTES = 64
_TENANT = re.compile(r"[\w.:@/+\-]{1,200}")


def tenant_fault(tenant_id: str) -> str:
    """What keeps a text from being a tenant's id; empty where nothing does."""
    if _TENANT.fullmatch(tenant_id):
        return ""
    return "is not a tenant id: 1 to 200 letters, digits and . : @ / + - _"


def bound_attributes(
    tenant_id: str, unit_id: str = "", others: TypedSearchAttributes | None = None
) -> TypedSearchAttributes:
    """Search attributes that bind a workflow to a tenant, and to the unit that started it, beside others."""
    own = {TENANT_ATTRIBUTE.name, UNIT_ATTRIBUTE.name}
    # Untyped here: attributes are generic in their value, and a list of them holds all kinds.
    pairs = list[Any]()
    if others is not None:
        pairs += [pair for pair in cast("Any", others) if pair.key.name not in own]
    if tenant_id:
        pairs.append(SearchAttributePair(TENANT_ATTRIBUTE, tenant_id))
    if unit_id:
        pairs.append(SearchAttributePair(UNIT_ATTRIBUTE, unit_id))
    return TypedSearchAttributes(pairs)


def tenant_of(attributes: TypedSearchAttributes) -> str:
    """Tenant that a workflow is bound to; empty where it is bound to none."""
    return attributes.get(TENANT_ATTRIBUTE) or ""


def tenant_in(attributes: SearchAttributes) -> str:
    """Tenant in search attributes as the server tells them; empty where there is none.

    It reads the one attribute; the SDK would make objects of all.
    """
    kept = attributes.indexed_fields
    if TENANT_ATTRIBUTE.name not in kept:
        return ""
    data = kept[TENANT_ATTRIBUTE.name].data
    if data[:1] == b'"' and b"\\" not in data:
        # What it nearly always is: a text that stands there as it is.
        return data[1:-1].decode()
    found: object = json.loads(data or b"null")
    # The server may tell a single value as a list of one.
    if isinstance(found, list):
        found = cast("list[object]", found)[0] if len(cast("list[object]", found)) == 1 else ""
    return found if isinstance(found, str) else ""


def fairness_key(tenant_id: str) -> str:
    """The fairness key of Temporal's priorities under which a tenant's tasks wait; empty for no tenant.

    The server refuses a start whose key takes more than 64 bytes, so a longer tenant's is a hash of it. No tenant has
    one that begins with `~`, so a hash is nobody else's id.
    """
    encoded = tenant_id.encode()
    if len(encoded) <= _MAX_FAIRNESS_KEY_BYTES:
        return tenant_id
    return "~" + hashlib.sha256(encoded).hexdigest()[: _MAX_FAIRNESS_KEY_BYTES - 1]


def fair_priority(tenant_id: str, declared: Priority | None = None) -> Priority | None:
    """The priority of a tenant's task: the tenant's fairness key, with what the contract declares besides.

    A contract's own fairness key would have all tenants wait under one, and give a tenant one more turn for each
    contract that it uses. So it counts only where there is no tenant.

    Args:
        tenant_id: whose task it is; may be empty.
        declared: what the contract says, or the caller.

    Returns:
        The priority; `declared` as it is where there is no tenant.
    """
    if not tenant_id:
        return declared
    return dataclasses.replace(declared or Priority.default, fairness_key=fairness_key(tenant_id))


def tenant_queue(task_queue: str, tenant_id: str) -> str:
    """The task queue that a tenant's own workers poll; for no tenant, the one that all share."""
    return f"{task_queue}/{tenant_id}" if tenant_id else task_queue


def resolved_queue(task_queue: str, named: str, tenant_id: str) -> str | None:
    """The task queue that a request means by the name that it gives; None where it is none that it may name.

    Args:
        task_queue: that of the contract.
        named: by the request: the contract's, that of the tenant's own workers, or `TENANT-tasks`, under which deployed
            clients know the one that all share; empty for the contract's.
        tenant_id: whose work it is.
    """
    if named in ("", task_queue):
        return task_queue
    own = tenant_queue(task_queue, tenant_id)
    if named == own:
        return own
    return task_queue if tenant_id and named == f"{tenant_id}-tasks" else None


async def register_attributes(client: Client) -> None:
    """Registers the search attributes in the client's namespace where they are missing.

    Raises:
        WorkerError: the server does not let us; the text says how an operator does it.
    """
    operator = client.operator_service
    try:
        known = await operator.list_search_attributes(ListSearchAttributesRequest(namespace=client.namespace))
        missing = [key.name for key in ATTRIBUTES if key.name not in known.custom_attributes]
        if missing:
            kind = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
            await operator.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=dict.fromkeys(missing, kind))
            )
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return  # Another process of ours was faster.
        names = " ".join(f"--name {key.name}" for key in ATTRIBUTES)
        raise WorkerError(
            f"the namespace {client.namespace!r} lacks our search attributes, and the Temporal server does not let us "
            f"register them ({error.message}). Have an operator run: temporal operator search-attribute create "
            f"--namespace {client.namespace} {names} --type Keyword --type Keyword"
        ) from error
