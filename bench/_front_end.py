"""`python -m bench._front_end ours|echo|echo_uvloop`: a gRPC server to be measured, until its standard input is closed.

`ours` is the whole service, with an engine that answers every start at once; `echo` is grpc.aio with Google's message
classes and a handler that gives back what it got, on asyncio's own loop or on that of our processes.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from types import SimpleNamespace
from typing import Any, cast

import grpc
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionResponse
from temporalio.client import Client
from temporalio.service import WorkflowService

from contextunity.core import worker_pb2_grpc
from contextunity.worker import event_loop
from contextunity.worker.auth import authenticator_for
from contextunity.worker.modules.discovery import boot
from contextunity.worker.server import running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_STARTED = StartWorkflowExecutionResponse(run_id="7d2f4a1c-9a55-4c7e-8a0f-0d5a4a3f9f10", started=True)


async def _ours() -> None:
    settings, registry = boot()
    client = await Client.connect("127.0.0.1:1", lazy=True, plugins=[ContextWorkerPlugin()])
    service = cast("Any", client.service_client)
    service.workflow_service = cast("WorkflowService", SimpleNamespace(start_workflow_execution=_start))
    async with running_server(WorkerService(client, registry), settings, authenticator_for(settings)) as server:
        await _serve(server.target)


async def _start(*_arguments: Any, **_named: Any) -> StartWorkflowExecutionResponse:
    return _STARTED


class _Echo(worker_pb2_grpc.WorkerServiceServicer):
    async def StartWorkflow(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return request


async def _echo() -> None:
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(cast("Any", _Echo()), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await _serve(f"127.0.0.1:{port}")
    await server.stop(0)


async def _serve(target: str) -> None:
    gc.collect()
    gc.freeze()
    print(f"listens {target}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    match sys.argv[1]:
        case "ours":
            event_loop.run(_ours())
        case "echo_uvloop":
            event_loop.run(_echo())
        case _:
            asyncio.run(_echo())
