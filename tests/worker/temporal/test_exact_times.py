"""Times to the nanosecond, and enums of a newer version, on their way through workflows and activities."""

from __future__ import annotations

import contextlib
import importlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from contextunity.gen.contextunity.harvest.v1 import FeedFormat, HarvestResponse, harvest_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RawValue
from temporalio.worker import Replayer, Worker

from contextunity.core.exact_datetime import ExactDatetime
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_MOMENT = ExactDatetime(2026, 1, 2, 3, 4, 5, 600_007, UTC, nanosecond=89)
_TEXT = "2026-01-02T03:04:05.600007089"

Handle = WorkflowHandle[Any, Any]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "sandboxed"))
    return importlib.import_module("exact_steps")


@pytest_asyncio.fixture
async def client(temporal_server: EmbeddedServer) -> Client:
    return await Client.connect(temporal_server.address, plugins=[ContextWorkerPlugin()])


@contextlib.asynccontextmanager
async def _worker(client: Client, steps: Any) -> AsyncIterator[str]:
    queue = f"exact-{uuid.uuid4()}"
    async with Worker(client, task_queue=queue, workflows=steps.WORKFLOWS, activities=steps.ACTIVITIES):
        yield queue


async def test_a_workflow_and_its_activity_keep_nanoseconds(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        handle: Handle = await client.start_workflow(
            "Exact",
            args=[HarvestResponse(started_at=_MOMENT), _MOMENT],
            id=queue,
            task_queue=queue,
            result_type=HarvestResponse,
        )
        answer = await handle.result()
        assert (type(answer.started_at), answer.started_at) == (ExactDatetime, _MOMENT)
        assert answer.harvest_id == f"{_TEXT}+00:00"
        history = await handle.fetch_history()
    completed = history.events[-1].workflow_execution_completed_event_attributes.result.payloads[0]
    told = harvest_pb2.HarvestResponse.FromString(completed.data).started_at
    assert (told.seconds, told.nanos) == (_seconds(_MOMENT), 600_007_089)
    await Replayer(workflows=steps.WORKFLOWS, plugins=[ContextWorkerPlugin()]).replay_workflow(history)


async def test_so_does_what_another_language_sends_as_json(client: Client, steps: Any) -> None:
    data = harvest_pb2.HarvestResponse(started_at=Timestamp(seconds=_seconds(_MOMENT), nanos=600_007_089))
    async with _worker(client, steps) as queue:
        handle: Handle = await client.start_workflow(
            "Exact",
            args=[
                _json(f'{{"startedAt": "{_TEXT}Z"}}', "HarvestResponse"),
                RawValue(Payload(metadata={"encoding": b"json/plain"}, data=f'"{_TEXT}Z"'.encode())),
            ],
            id=queue,
            task_queue=queue,
            result_type=harvest_pb2.HarvestResponse,
        )
        answer = await handle.result()
    assert answer.started_at == data.started_at


async def test_the_name_of_an_enum_that_is_not_known_here_stops_no_workflow(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        handle: Handle = await client.start_workflow(
            "Formats", _json('{"format": "FEED_FORMAT_NEWER"}', "Feed"), id=queue, task_queue=queue
        )
        await handle.signal("more", _json('{"format": "FEED_FORMAT_SHOPIFY_CSV"}', "Feed"))
        assert await handle.result() == [0, FeedFormat.SHOPIFY_CSV]
    async with _worker(client, steps) as queue:
        handle = await client.start_workflow(
            "Formats", _json('{"format": "FEED_FORMAT_SHOPIFY_CSV"}', "Feed"), id=queue, task_queue=queue
        )
        await handle.signal("more", _json('{"format": "FEED_FORMAT_NEWER"}', "Feed"))
        assert await handle.result() == [0, FeedFormat.SHOPIFY_CSV]


def _json(text: str, name: str) -> RawValue:
    metadata = {"encoding": b"json/protobuf", "messageType": f"contextunity.harvest.v1.{name}".encode()}
    return RawValue(Payload(metadata=metadata, data=text.encode()))


def _seconds(moment: datetime) -> int:
    return int(moment.replace(microsecond=0).timestamp())
