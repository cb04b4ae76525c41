"""The search attributes that bind a task: registered where they are missing, and again where a server lost them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
    RemoveSearchAttributesRequest,
)
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from contextunity.core import codec
from contextunity.core.unit import ContextUnit
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.errors import RegistryError, SearchAttributesError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.service import Call, WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from contextunity.worker.temporal.search_attributes import ATTRIBUTES, register_attributes
from python_temporal.contract import WorkflowContract
from python_temporal.expressions import optional, search_attributes


@pytest.fixture
async def plain_client() -> AsyncIterator[Client]:
    """Of a server of the test's own that has no search attributes yet."""
    server = str(Path(sys.executable).parent / "temporal")
    # Untyped here, because the SDK's signature is not fully typed itself.
    async with await cast("Any", WorkflowEnvironment).start_local(
        dev_server_existing_path=server, dev_server_log_level="error"
    ) as environment:
        yield environment.client


async def _types(client: Client) -> dict[str, int]:
    request = ListSearchAttributesRequest(namespace="default")
    return dict((await client.operator_service.list_search_attributes(request)).custom_attributes)


def _with(contract: WorkflowContract, **keys: SearchAttributeKey[Any]) -> WorkflowContract:
    """A contract that sets search attributes, as generated code does: of fields, and of fields of other messages."""
    return replace(
        contract,
        search_attributes=lambda request: search_attributes(
            *((key, optional(request.order, name)) for name, key in keys.items())
        ),
    )


async def test_ours_and_the_contracts_are_registered_on_connecting_and_again_by_a_start(
    plain_client: Client, registry: WorkerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    ping = replace(
        registry.workflows["ping"],
        search_attributes=lambda _: search_attributes((SearchAttributeKey.for_int("OrderNumber"), 7)),
    )
    workflows = {**registry.workflows, "ping": ping}
    monkeypatch.setattr(registry, "workflows", workflows)
    names = {*(key.name for key in ATTRIBUTES), "OrderNumber"}
    address = plain_client.service_client.config.target_host
    client = await connect(Settings(), address=address, workflows=workflows)
    assert names <= (await _types(client)).keys()
    await client.operator_service.remove_search_attributes(
        RemoveSearchAttributesRequest(namespace="default", search_attributes=sorted(names))
    )
    assert not names & (await _types(client)).keys()
    service = WorkerService(client, registry)
    unit = ContextUnit(payload={"workflow_type": "ping", "tenant_id": "one"}).to_dataclass()
    answer = await service.call(service.methods["StartWorkflow"], Call(unit=unit))
    assert answer.payload is not None
    workflow_id = str(codec.struct_to_dict(answer.payload)["workflow_id"])
    assert names <= (await _types(client)).keys()
    described = ContextUnit(payload={"workflow_id": workflow_id}).to_dataclass()
    status: Any = await service.call(service.methods["GetTaskStatus"], Call(unit=described))
    assert codec.struct_to_dict(status.payload)["tenant_id"] == "one"
    found = (await client.get_workflow_handle(workflow_id).describe()).typed_search_attributes
    assert found.get(SearchAttributeKey.for_int("OrderNumber")) == 7


class _ClosedOperatorService:
    """The operator service of a server that lets only operators use it."""

    async def list_search_attributes(self, *_: Any, **__: Any) -> Any:
        raise RPCError("not for you", RPCStatusCode.PERMISSION_DENIED, b"")

    add_search_attributes = list_search_attributes


async def test_where_they_may_not_be_registered_the_error_names_those_that_are_missing(
    temporal_server: EmbeddedServer, registry: WorkerRegistry
) -> None:
    plain_client = await Client.connect(temporal_server.address)
    ping = registry.workflows["ping"]
    closed: Any = SimpleNamespace(
        namespace=plain_client.namespace,
        workflow_service=plain_client.workflow_service,
        operator_service=_ClosedOperatorService(),
    )
    there, tags = SearchAttributeKey.for_keyword("IsThere"), SearchAttributeKey.for_keyword_list("OrderTags")
    await register_attributes(plain_client, [_with(ping, a=there)])
    # What is there serves, although it can be listed as little as registered.
    await register_attributes(closed, [_with(ping, a=there)])
    placed = SearchAttributeKey.for_datetime("PlacedAt")
    with pytest.raises(SearchAttributesError) as caught:
        await register_attributes(closed, [_with(ping, a=there, b=tags, c=placed)])
    assert str(caught.value) == (
        "search attributes of the namespace 'default' cannot be registered: not for you\n"
        "  - OrderTags of type KeywordList, which workflow 'ping' sets\n"
        "  - PlacedAt of type Datetime, which workflow 'ping' sets\n"
        "Have an operator run: temporal operator search-attribute create --namespace default "
        "--name OrderTags --type KeywordList --name PlacedAt --type Datetime"
    )


async def test_an_attribute_that_the_server_has_as_another_type_is_an_error(
    temporal_server: EmbeddedServer, registry: WorkerRegistry
) -> None:
    plain_client = await Client.connect(temporal_server.address)
    request = AddSearchAttributesRequest(namespace="default", search_attributes={"OrderNumber": cast("Any", 2)})
    await plain_client.operator_service.add_search_attributes(request)
    number = SearchAttributeKey.for_int("OrderNumber")
    with pytest.raises(SearchAttributesError, match=r"OrderNumber is of type Keyword .* 'ping' sets it as Int; rename"):
        await register_attributes(plain_client, [_with(registry.workflows["ping"], a=number)])


def test_two_contracts_that_set_one_attribute_as_different_types_are_refused(
    desk_messages: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = desk_messages.modules[0]
    registry = WorkerRegistry()
    registry.register(module)
    (service,) = registry.modules[module.name].contracts
    keys = iter([SearchAttributeKey.for_int("Number"), SearchAttributeKey.for_keyword("Number")])
    changed = {
        name: _with(contract, a=key) for (name, contract), key in zip(service.workflows.items(), keys, strict=False)
    }
    monkeypatch.setattr(registry, "_modules", {})
    altered = replace(service, workflows={**service.workflows, **changed})
    with pytest.raises(RegistryError, match=r"search attribute 'Number' is Int in workflow .* and Keyword in workflow"):
        registry.register(replace(module, contracts=[altered]))
