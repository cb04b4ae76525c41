"""`python -m bench._bare_server`: the least that a gRPC server of this service is, to see how soon it serves."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
from contextunity.gen.contextunity.worker import worker_pb2_grpc


class _Echo(worker_pb2_grpc.WorkerServiceServicer):
    async def StartWorkflow(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return request


async def _main() -> None:
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(cast("Any", _Echo()), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listens on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main())
