"""`python -m bench._http_load`: calls StartWorkflow over HTTP with JSON, as told line by line.

A line is `PORT CONNECTIONS`: from then on each connection calls again as soon as it is answered, until the next line,
whatever it says; then one line of JSON tells the calls a second.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

_BODY = json.dumps(
    {"payload": {"workflow_type": "bench_job", "name": "job-1", "tenant_id": "my_project", "count": 3}}
).encode()
_REQUEST = (
    b"POST /contextunity.worker.WorkerService/StartWorkflow HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY)
) + _BODY


async def _client(port: int, counts: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            writer.write(_REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise RuntimeError(head.decode())
            # Answers come in chunks, the last one of which is empty.
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
            counts[0] += 1
    finally:
        writer.close()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        port, connections = line.split()
        counts, began = [0], time.perf_counter()
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(_client(int(port), counts)) for _ in range(int(connections))]
            await loop.run_in_executor(None, sys.stdin.readline)
            for call in calls:
                call.cancel()
        print(json.dumps({"throughput": counts[0] / (time.perf_counter() - began)}), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
