"""The search attributes that bind a task: registered where they are missing, and again where a server lost them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest, RemoveSearchAttributesRequest
from temporalio.testing import WorkflowEnvironment

from contextunity.core import codec
from contextunity.core.unit import ContextUnit
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.service import Call, WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from contextunity.worker.temporal.search_attributes import ATTRIBUTES


async def test_they_are_registered_on_connecting_and_again_by_a_start(registry: WorkerRegistry) -> None:
    names = {key.name for key in ATTRIBUTES}
    server = str(Path(sys.executable).parent / "temporal")
    # Untyped here, because the SDK's signature is not fully typed itself.
    async with await cast("Any", WorkflowEnvironment).start_local(
        dev_server_existing_path=server, dev_server_log_level="error"
    ) as environment:
        client = await connect(Settings(), address=environment.client.service_client.config.target_host)
        operator = client.operator_service

        async def registered() -> set[str]:
            answer = await operator.list_search_attributes(ListSearchAttributesRequest(namespace="default"))
            return names & set(answer.custom_attributes)

        assert await registered() == names
        await operator.remove_search_attributes(
            RemoveSearchAttributesRequest(namespace="default", search_attributes=sorted(names))
        )
        assert await registered() == set()
        service = WorkerService(client, registry)
        unit = ContextUnit(payload={"workflow_type": "ping", "tenant_id": "one"}).to_dataclass()
        answer = await service.call(service.methods["StartWorkflow"], Call(unit=unit))
        assert answer.payload is not None
        workflow_id = str(codec.struct_to_dict(answer.payload)["workflow_id"])
        assert await registered() == names
        described = ContextUnit(payload={"workflow_id": workflow_id}).to_dataclass()
        status: Any = await service.call(service.methods["GetTaskStatus"], Call(unit=described))
        assert codec.struct_to_dict(status.payload)["tenant_id"] == "one"
