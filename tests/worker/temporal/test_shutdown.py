"""Workers that stop: what their activities have done by then is handed over."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from contextunity.worker.temporal.shutdown import Grace

_PAGES = 7


@workflow.defn
class _Reading:
    @workflow.run
    async def run(self, name: str) -> list[int]:
        return await workflow.execute_activity(
            name,
            start_to_close_timeout=timedelta(minutes=5),
            # The heartbeats between two of the SDK's reports are many: only the last report can have the last page.
            heartbeat_timeout=timedelta(minutes=2),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
            result_type=list[int],
        )


class _Reader:
    """Reads pages, and stands still in its first attempt when it has read some."""

    def __init__(self) -> None:
        self.stands = threading.Event()
        self.never = threading.Event()

    def _begin(self) -> list[int]:
        info = activity.info()
        if info.attempt == 1:
            for page in range(1, _PAGES + 1):
                activity.heartbeat(page)
            self.stands.set()
        return [info.attempt, *info.heartbeat_details]

    @activity.defn
    async def read(self) -> list[int]:
        begun = self._begin()
        if begun[0] == 1:
            await asyncio.get_running_loop().create_future()
        return begun

    @activity.defn
    def read_in_a_thread(self) -> list[int]:
        begun = self._begin()
        if begun[0] == 1:
            self.never.wait()
        return begun


@pytest.mark.parametrize(
    "choose", [lambda reader: reader.read, lambda reader: reader.read_in_a_thread], ids=["async", "thread"]
)
async def test_another_worker_goes_on_at_the_last_heartbeat(
    temporal_server: EmbeddedServer, choose: Callable[[_Reader], Any]
) -> None:
    client = await connect(Settings(), address=temporal_server.address)
    reader, name = _Reader(), f"reading-{uuid.uuid4()}"
    read = choose(reader)
    with ThreadPoolExecutor() as executor:
        try:
            grace = Grace(0.1)
            first = asyncio.create_task(_worker(client, name, read, executor, grace).run())
            handle = await client.start_workflow(_Reading.run, read.__name__, id=name, task_queue=name)
            assert await asyncio.to_thread(reader.stands.wait, 30)
            await grace.stop(first)
            assert first.done()
            async with _worker(client, name, read, executor, Grace(0.1)):
                assert await handle.result() == [2, _PAGES]
        finally:
            reader.never.set()


def _worker(client: Client, name: str, read: Any, executor: ThreadPoolExecutor, grace: Grace) -> Worker:
    return Worker(
        client,
        task_queue=name,
        workflows=[_Reading],
        activities=[read],
        activity_executor=executor,
        workflow_runner=UnsandboxedWorkflowRunner(),
        graceful_shutdown_timeout=timedelta(seconds=grace.seconds),
        interceptors=[grace],
    )
