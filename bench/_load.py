"""`python -m bench._load REQUEST_FILE`: calls StartWorkflow with raw bytes, as told line by line.

A line is `TARGET CLIENTS SECONDS`; the answer is one line of JSON, with the calls a second and the middle latency. Each
client has a channel of its own, and calls again as soon as it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import grpc

_METHOD = "/contextunity.worker.WorkerService/StartWorkflow"
_WARM_UP = 0.3
"""Seconds of calls that do not count."""


async def _load(target: str, clients: int, seconds: float, request: bytes) -> dict[str, float]:
    async with contextlib.AsyncExitStack() as stack:
        calls: list[Any] = []
        for _ in range(clients):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=options))
            await channel.channel_ready()
            calls.append(channel.unary_unary(_METHOD))
        latencies: list[float] = []
        begin = time.perf_counter() + _WARM_UP

        async def client(call: Any) -> None:
            while (began := time.perf_counter()) < begin + seconds:
                await call(request)
                if began >= begin:
                    latencies.append(time.perf_counter() - began)

        await asyncio.gather(*(client(call) for call in calls))
        return {"throughput": len(latencies) / seconds, "p50": statistics.median(latencies)}


def main() -> None:
    request = Path(sys.argv[1]).read_bytes()
    with asyncio.Runner() as runner:
        gc.freeze()
        print("ready", flush=True)
        for line in sys.stdin:
            target, clients, seconds = line.split()
            print(json.dumps(runner.run(_load(target, int(clients), float(seconds), request))), flush=True)


if __name__ == "__main__":
    main()
