"""Where a deployment encrypts payloads, what the service sends is encrypted, and what it tells is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest, StartWorkflowExecutionResponse
from temporalio.client import Client
from temporalio.converter import PayloadCodec

from contextunity.core import ContextUnit
from contextunity.core.codec import pack_any
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.service import Call, WorkerService
from contextunity.worker.service.call import Engine
from contextunity.worker.service.status import packed
from contextunity.worker.temporal.converter import data_converter


class _Upside(PayloadCodec):
    """Stands for encryption: it turns bytes round."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"turned"}, data=each.SerializeToString()[::-1]) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(each.data[::-1]) for each in payloads]


async def _client(codec: PayloadCodec | None, sent: list[StartWorkflowExecutionRequest]) -> Client:
    async def start(request: StartWorkflowExecutionRequest, **_options: Any) -> StartWorkflowExecutionResponse:
        sent.append(request)
        return StartWorkflowExecutionResponse(run_id="r", started=True)

    converter = dataclasses.replace(data_converter, payload_codec=codec)
    client = await Client.connect("127.0.0.1:1", lazy=True, data_converter=converter)
    services: Any = client.service_client
    services.workflow_service = SimpleNamespace(start_workflow_execution=start)
    return client


@pytest.mark.parametrize("codec", [pytest.param(None, id="plain"), pytest.param(_Upside(), id="encrypted")])
async def test_input_and_result_go_through_the_payload_codec(
    registry: WorkerRegistry, desk_messages: SimpleNamespace, codec: PayloadCodec | None
) -> None:
    sent: list[StartWorkflowExecutionRequest] = []
    client = await _client(codec, sent)
    service = WorkerService(client, registry)
    unit = ContextUnit(payload={"workflow_type": "work", "name": "a", "tags": ["b"], "tenant_id": "one"})
    await service.call(service.methods["StartWorkflow"], Call(unit=unit.to_dataclass()))
    (payload,) = sent[0].input.payloads
    assert payload.metadata["encoding"] == (b"binary/protobuf" if codec is None else b"turned")
    request = desk_messages.WorkRequest(tenant_id="one", name="a", tags=["b"])
    assert await client.data_converter.decode([payload], [desk_messages.WorkRequest]) == [request]
    assert [payload] == await client.data_converter.encode([request])
    engine = Engine(client=client, registry=registry, rpc_timeout=timedelta(seconds=1))
    assert await packed(engine, [payload], desk_messages.WorkRequest) == pack_any(request)
