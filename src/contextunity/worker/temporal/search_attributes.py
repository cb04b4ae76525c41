"""The search attributes that bind a task to its tenant and to the request that started it."""

from __future__ import annotations

import json
from typing import Any, cast

from temporalio.api.common.v1 import SearchAttributes
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from ..errors import WorkerError, namespace_unknown
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
]

TENANT_ATTRIBUTE = SearchAttributeKey.for_keyword("ContextUnityTenant")
"""Tenant that a workflow is run for. Workflows that were started past the service have none."""
UNIT_ATTRIBUTE = SearchAttributeKey.for_keyword("ContextUnityUnit")
"""unit_id of the request that started a workflow."""
ATTRIBUTES = (TENANT_ATTRIBUTE, UNIT_ATTRIBUTE)


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


def quoted(text: str) -> str:
    """A text as a value in a list filter."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


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
        namespace = missing_namespace(error)
        if namespace:
            raise WorkerError(namespace_unknown(namespace)) from error
        names = " ".join(f"--name {key.name}" for key in ATTRIBUTES)
        raise WorkerError(
            f"the namespace {client.namespace!r} lacks our search attributes, and the Temporal server does not let us "
            f"register them ({error.message}). Have an operator run: temporal operator search-attribute create "
            f"--namespace {client.namespace} {names} --type Keyword --type Keyword"
        ) from error
