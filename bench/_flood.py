"""`python -m bench._flood TARGET TENANT SLOW_FEEDS KINDS`: floods a service as one tenant until it is told a line.

KINDS are some of start,program,watch,big: starts, programs, watches, and units of some megabytes, each again as soon as
it is answered; or steady: ten starts a second. Before them it starts harvests of the suppliers `slow-0` to `slow-N`. A
rejected call is tried again a moment later, as by a client that heeds no advice.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc

_STARTS, _PROGRAMS, _WATCHES, _BIG_UNITS = 8, 50, 50, 2
_BIG = "x" * (4 << 20)
_MOMENT = 0.05


async def _flood(target: str, tenant: str, slow_feeds: int, wanted: set[str]) -> None:
    numbers = itertools.count()
    outcomes = Counter[str]()
    shown = (("authorization", f"Bearer {os.environ['CONTEXTWORKER_TOKEN']}"),)
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)

        def unit(**payload: Any) -> Any:
            return ContextUnit(payload={"tenant_id": tenant, **payload}, provenance=["bench:flood"]).to_protobuf(
                worker_pb2
            )

        async def start() -> None:
            await stub.StartWorkflow(unit(workflow_type="bench_job", name=f"flood-{next(numbers)}"), metadata=shown)

        async def program() -> None:
            await stub.ExecuteCode(unit(code="sum(range(200000))"), metadata=shown)

        async def watch() -> None:
            async for _ in stub.WatchTask(unit(workflow_id=watched), metadata=shown):
                pass

        async def big() -> None:
            await stub.StartWorkflow(unit(workflow_type="bench_job", name=_BIG), metadata=shown)

        async def steady() -> None:
            await asyncio.gather(start(), asyncio.sleep(0.1))

        async def again(name: str, call: Callable[[], Awaitable[None]]) -> None:
            while True:
                try:
                    await call()
                    outcomes[name] += 1
                except grpc.aio.AioRpcError as error:
                    outcomes[f"{name} {error.code().name}"] += 1
                    await asyncio.sleep(_MOMENT)

        # It waits for ever, whoever runs it.
        idle = unit(workflow_type="bench_job", name=f"watched-{tenant}-{uuid.uuid4()}", wait=True)
        watched = (await stub.StartWorkflow(idle, metadata=shown)).payload["workflow_id"]
        for number in range(slow_feeds):
            await stub.StartWorkflow(unit(workflow_type="harvest", supplier_code=f"slow-{number}"), metadata=shown)
        kinds = (("start", start, _STARTS), ("program", program, _PROGRAMS), ("watch", watch, _WATCHES))
        tasks = [
            asyncio.create_task(again(name, call))
            for name, call, at_once in (*kinds, ("big", big, _BIG_UNITS), ("steady", steady, 1))
            if name in wanted
            for _ in range(at_once)
        ]
        print("floods", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(outcomes), flush=True)


if __name__ == "__main__":
    asyncio.run(_flood(sys.argv[1], sys.argv[2], int(sys.argv[3]), set(sys.argv[4].split(","))))
