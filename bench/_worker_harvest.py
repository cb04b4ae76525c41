"""A harvest by ContextWorker as it is deployed: Temporal server, gRPC service and worker in processes of their own."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from temporalio.client import Client, WorkflowHandle, WorkflowHistory

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.modules.harvest.settings import SupplierSettings
from contextunity.worker.embedded import LOOPBACK, EmbeddedServer, embedded_server, usual_or_free_port
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

from ._processes import Child, cpu_seconds

__all__ = [
    "House",
    "WorkerHarvest",
    "harvest_by_worker",
    "histories_of",
    "histories_of_harvest",
    "histories_of_json_harvest",
    "running_house",
]

JSON_QUEUE, JSON_WORKFLOW = "json-harvest", "json_harvest"
"""Of the worker in `_json_harvest`."""

_SETTINGS = """\
log_level = "warning"
[modules.harvest.suppliers.supplier]
url = "{url}"
format = "shopify_csv"
currency_code = "EUR"
allow_private = true
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerHarvest:
    """What a harvest by ContextWorker took."""

    wall: float
    """Seconds from the call of StartWorkflow to the workflow's result."""
    products: int
    """Products created."""
    rejected: int
    pages: int
    peak_rss_bytes: int
    """Of the process that runs workflow and activities."""
    worker_cpu: float
    """Seconds of processor time of that process."""
    temporal_cpu: float
    """Seconds of processor time of the Temporal server."""
    runs: int
    """Runs of the workflow, which continues as new."""
    longest_history_events: int
    largest_history_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    temporal: EmbeddedServer
    client: Client
    worker: Child
    stub: worker_pb2_grpc.WorkerServiceAsyncStub


async def harvest_by_worker(url: str, folder: Path, *, page_size: int = 0) -> WorkerHarvest:
    """Harvests a feed with everything fresh: an empty catalogue, an empty Temporal server, new processes.

    The clock runs only once all of them are ready.

    Args:
        url: of the feed.
        folder: made anew, for everything that the processes write.
        page_size: feed entries in a page; 0 leaves it to the supplier's setting.
    """
    async with running_house(folder, url) as house:
        cpu_before = house.worker.cpu_seconds(), cpu_seconds(house.temporal.pid)
        began = time.perf_counter()
        workflow_id, result = await _harvested(house, page_size)
        wall = time.perf_counter() - began
        cpu_after = house.worker.cpu_seconds(), cpu_seconds(house.temporal.pid)
        histories = await histories_of(house.client, workflow_id, result.harvest_id)
        return WorkerHarvest(
            wall=wall,
            products=result.counts.created,
            rejected=result.counts.rejected,
            pages=result.counts.pages,
            peak_rss_bytes=house.worker.peak_rss_bytes(),
            worker_cpu=cpu_after[0] - cpu_before[0],
            temporal_cpu=cpu_after[1] - cpu_before[1],
            runs=len(histories),
            longest_history_events=max(events for events, _ in histories),
            largest_history_bytes=max(size for _, size in histories),
        )


async def histories_of_harvest(url: str, folder: Path) -> list[WorkflowHistory]:
    """Harvests a feed with everything fresh, and gives the history of each run."""
    async with running_house(folder, url) as house:
        workflow_id, result = await _harvested(house)
        if result.counts is None or not result.counts.created:
            raise RuntimeError(f"the harvest gave nothing: {result}")
        return [history async for _, history in _runs(house.client, workflow_id, result.harvest_id)]


async def histories_of_json_harvest(url: str, folder: Path) -> list[WorkflowHistory]:
    """The same of a harvest by hand, with JSON in its payloads; see `_json_harvest`."""
    folder.mkdir()
    database, page_size = f"sqlite:///{folder / 'catalogue.db'}", str(SupplierSettings(url=url).page_size)
    async with embedded_server(folder / "temporal", port=0, ui_port=0) as temporal:
        arguments = ("-m", "bench._json_harvest", temporal.address, url, database, page_size)
        with Child(*arguments, folder=folder, name="json-worker") as worker:
            worker.wait_for("worker runs")
            client = await Client.connect(temporal.address)
            handle = await client.start_workflow(JSON_WORKFLOW, id="json", task_queue=JSON_QUEUE)
            if not await handle.result():
                raise RuntimeError("the harvest gave nothing")
            run_id = handle.first_execution_run_id or ""
            return [history async for _, history in _runs(client, handle.id, run_id)]


@asynccontextmanager
async def running_house(folder: Path, url: str) -> AsyncGenerator[House]:
    folder.mkdir(exist_ok=True)
    (folder / "contextworker.toml").write_text(_SETTINGS.format(url=url))
    port = usual_or_free_port(0)
    async with AsyncExitStack() as stack:
        temporal = await stack.enter_async_context(embedded_server(folder / "temporal", port=0, ui_port=0))
        reach = {"TEMPORAL_ADDRESS": temporal.address}
        worker = Child("-m", "contextunity.worker", "--temporal", folder=folder, name="worker", **reach)
        stack.enter_context(worker)
        service = Child(
            *("-m", "contextunity.worker"),
            folder=folder,
            name="service",
            **reach,
            WORKER_HOST=LOOPBACK,
            WORKER_PORT=str(port),
        )
        stack.enter_context(service)
        worker.wait_for("Temporal workers run for modules")
        service.wait_for("WorkerService listens on")
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{port}"))
        await channel.channel_ready()
        client = await Client.connect(temporal.address, plugins=[ContextWorkerPlugin()])
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        yield House(temporal=temporal, client=client, worker=worker, stub=stub)


async def _harvested(house: House, page_size: int = 0) -> tuple[str, Any]:
    """Starts a harvest as any client does, and waits for it: its workflow id, and what came of it."""
    payload = {"workflow_type": "harvest", "supplier_code": "supplier", "tenant_id": "bench", "page_size": page_size}
    # Its second harvest of the same feed is to be measured, not its request of whether the feed has changed.
    payload["force"] = True
    unit = ContextUnit(payload=payload, provenance=["bench:harvest"])
    answer = await house.stub.StartWorkflow(unit.to_protobuf(worker_pb2))
    workflow_id = str(answer.payload["workflow_id"])
    return workflow_id, await house.client.get_workflow_handle(workflow_id).result()


async def histories_of(client: Client, workflow_id: str, first_run_id: str) -> list[tuple[int, int]]:
    """Events and bytes of the history of each run."""
    histories: list[tuple[int, int]] = []
    async for handle, _ in _runs(client, workflow_id, first_run_id):
        info = (await handle.describe()).raw_description.workflow_execution_info
        histories.append((info.history_length, info.history_size_bytes))
    return histories


async def _runs(
    client: Client, workflow_id: str, first_run_id: str
) -> AsyncGenerator[tuple[WorkflowHandle[Any, Any], WorkflowHistory]]:
    """The runs and their histories, found by going along the chain of runs."""
    run_id: str | None = first_run_id
    while run_id:
        handle = client.get_workflow_handle(workflow_id, run_id=run_id)
        history = await handle.fetch_history()
        yield handle, history
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
