"""`python -m bench._bare_service TEMPORAL_ADDRESS`: the least that a service between callers and Temporal is.

It is grpc.aio on our processes' loop, with Google's message classes and Temporal's SDK. It takes every unit for a good
one, asks Temporal what ours asks it, and answers with next to nothing: no contracts, no rules, no tenants, no errors.
It ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from bench_tree.bench.job.v1 import job_pb2
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryReverseRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client

from contextunity.core import worker_pb2
from contextunity.worker import event_loop
from contextunity.worker.boundary import SERVICE_NAME


class _Bare:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def start_workflow(self, unit: Any, _context: Any) -> Any:
        payload = unit.payload.fields
        job = job_pb2.JobRequest(tenant_id="bench", name=payload["name"].string_value, wait=True)
        wanted = StartWorkflowExecutionRequest(
            namespace=self._client.namespace,
            workflow_id=f"bench/{job.name}",
            request_id=unit.unit_id,
        )
        wanted.workflow_type.name = "bench_job"
        wanted.task_queue.name = "bench-idle"
        wanted.input.payloads.add(data=job.SerializeToString(), metadata={"encoding": b"binary/protobuf"})
        answer = await self._client.workflow_service.start_workflow_execution(wanted, retry=True)
        return _answer(workflow_id=wanted.workflow_id, run_id=answer.run_id)

    async def get_task_status(self, unit: Any, _context: Any) -> Any:
        """Describes a task, and beside that asks for its last event or its progress, as the payload says."""
        service, namespace = self._client.workflow_service, self._client.namespace
        execution = WorkflowExecution(workflow_id=unit.payload.fields["workflow_id"].string_value)
        if unit.payload.fields["ask"].string_value == "progress":
            more = self._client.get_workflow_handle(execution.workflow_id).query("bench_progress")
        else:
            last = GetWorkflowExecutionHistoryReverseRequest(
                namespace=namespace, execution=execution, maximum_page_size=1
            )
            more = service.get_workflow_execution_history_reverse(last, retry=True)
        wanted = DescribeWorkflowExecutionRequest(namespace=namespace, execution=execution)
        answer, _ = await asyncio.gather(service.describe_workflow_execution(wanted, retry=True), more)
        status = "running" if answer.workflow_execution_info.status == 1 else "completed"
        return _answer(workflow_id=execution.workflow_id, status=status)

    async def describe_contracts(self, unit: Any, _context: Any) -> Any:
        return unit


def _answer(**texts: str) -> Any:
    unit = worker_pb2.ContextUnit()
    unit.payload.update(texts)
    return unit


async def _main(temporal: str) -> None:
    bare = _Bare(await Client.connect(temporal))
    handlers: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
        "StartWorkflow": bare.start_workflow,
        "GetTaskStatus": bare.get_task_status,
        "DescribeContracts": bare.describe_contracts,
    }
    server = grpc.aio.server()
    rows = {
        name: grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=worker_pb2.ContextUnit.FromString,
            response_serializer=worker_pb2.ContextUnit.SerializeToString,
        )
        for name, handle in handlers.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, rows),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.collect()
    gc.freeze()
    print(f"listens 127.0.0.1:{port}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    event_loop.run(_main(sys.argv[1]))
