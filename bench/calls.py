"""StartWorkflow and GetTaskStatus on a real Temporal server, beside the same asked of it directly with the SDK."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import gc
import itertools
import os
import random
import statistics
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any

import grpc
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.core.context import TaskContext, using
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.temporal.encryption import EncryptionCodec
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from contextunity.worker.temporal.search_attributes import bound_attributes

from ._house import job_variables, service_of, temporal_server, worker_of
from ._model import Goal, Measurement, Options, Result
from ._processes import Child
from ._tree import generated_tree

__all__ = ["run"]

_OURS, _BARE = "over gRPC, by ContextWorker", "over gRPC, by a bare service"
_ENCRYPTED = "over gRPC, by ContextWorker, encrypted"
_TRACED = "over gRPC, by ContextWorker, traced"
_SDK, _SDK_MORE = "Temporal's SDK", "Temporal's SDK, with as much asked for"
_START, _DONE, _RUNNING = "start a workflow", "status of a finished task", "status of a running task"
_LEAST = "the smallest call there is"
_ROUNDS = 7
_CALLS = 80
_Call = Callable[[], Awaitable[object]]


def run(options: Options) -> Result:
    """Calls both in turn, one call after another."""
    rounds, calls = options.rounds_or(_ROUNDS), 20 if options.quick else _CALLS
    found = asyncio.run(_measure(options, rounds, calls))
    measurements = tuple(
        Measurement(case=case, subject=subject, quantity="p50", unit="ms", values=tuple(values))
        for (case, subject), values in found.items()
    )
    result = Result(
        title="calls on a real Temporal server",
        reference=_SDK,
        measurements=measurements,
        notes=(
            "both are called from one process, a call of each in turn; the service is a process of its own",
            "one case after the other, since the server is busy with what was started for a while after a start",
            f"{_SDK}: Client.start_workflow with a message, and handle.describe",
            f"{_SDK_MORE}: a start with the same search attributes, reuse policy and header; describe and then the "
            "result, or the query for the progress: GetTaskStatus tells these too",
            f"{_BARE}: grpc.aio and the SDK with nothing of ours between, the least that a service in Python takes; it "
            "asks Temporal the same as ours, both questions at once",
            f"{_ENCRYPTED}: with payload_keys_file, on a Temporal server and with a worker of its own",
            f"{_TRACED}: a service of its own that samples every call and exports it by OTLP over HTTP to a process "
            "that drops it; the worker is not traced",
            f"{_LEAST}: Temporal's GetSystemInfo by the SDK, and a unit that the bare service gives back",
        ),
    )
    peers = ((_SDK, "the SDK's own call"), (_SDK_MORE, "as much by the SDK"), (_BARE, "a bare service"))
    goals = [
        Goal(name=f"p50, {case}: to {words}", value=result.ratio(case, _OURS, peer, "p50"), limit=1.15)
        for case in (_START, _DONE, _RUNNING)
        for peer, words in peers
    ]
    goals += [
        Goal(name=f"p50, {case}: traced, to untraced", value=result.ratio(case, _TRACED, _OURS, "p50"), limit=1.05)
        for case in (_START, _DONE, _RUNNING)
    ]
    return dataclasses.replace(result, goals=tuple(goals))


async def _measure(options: Options, rounds: int, calls: int) -> dict[tuple[str, str], list[float]]:
    generated_tree()
    async with temporal_server(options.folder / "temporal") as temporal:
        bare = Child(
            *("-m", "bench._bare_service", temporal.address),
            folder=options.folder,
            name="bare-service",
            **job_variables(),
        )
        with service_of(options, temporal) as service, worker_of(options, temporal) as worker, bare:
            worker.wait_for("Temporal workers run")
            target = service.wait_for("listens on").split("listens on ")[1].split(",")[0]
            bare_target = bare.wait_for("listens").split()[1]
            async with grpc.aio.insecure_channel(target) as ours, grpc.aio.insecure_channel(bare_target) as theirs:
                client = await Client.connect(temporal.address)
                # With the interceptor that puts a context into headers.
                with_plugin = await Client.connect(temporal.address, plugins=[ContextWorkerPlugin()])
                stubs = (worker_pb2_grpc.WorkerServiceStub(ours), worker_pb2_grpc.WorkerServiceStub(theirs))
                subjects = await _subjects(client, with_plugin, *stubs)
                async with _encrypted(options) as encrypted, _traced(options, temporal) as traced:
                    return await _interleave({**subjects, **encrypted, **traced}, rounds, calls)


@contextlib.asynccontextmanager
async def _encrypted(options: Options) -> AsyncGenerator[dict[tuple[str, str], _Call]]:
    """The calls of ours, where payloads are encrypted."""
    keys = options.folder / "payload-keys.toml"
    keys.write_text(f'current = "a"\n[keys]\na = "{base64.b64encode(os.urandom(32)).decode()}"\n')
    keys.chmod(0o600)
    given = {"CONTEXTWORKER_PAYLOAD_KEYS_FILE": str(keys)}
    async with temporal_server(options.folder / "temporal-encrypted") as temporal:
        service = service_of(options, temporal, "service-encrypted", **given)
        with service, worker_of(options, temporal, "worker-encrypted", **given) as worker:
            worker.wait_for("Temporal workers run")
            target = service.wait_for("listens on").split("listens on ")[1].split(",")[0]
            async with grpc.aio.insecure_channel(target) as channel:
                stub = worker_pb2_grpc.WorkerServiceStub(channel)
                # Reads what is encrypted, so that the tasks are known to be where they are measured.
                client = await Client.connect(
                    temporal.address, plugins=[ContextWorkerPlugin(payload_codec=EncryptionCodec(keys))]
                )
                subjects = await _subjects(client, client, stub, stub)
                yield {(case, _ENCRYPTED): call for (case, subject), call in subjects.items() if subject == _OURS}


@contextlib.asynccontextmanager
async def _traced(options: Options, temporal: EmbeddedServer) -> AsyncGenerator[dict[tuple[str, str], _Call]]:
    """The calls of ours, where each is a trace that is exported."""
    with Child("-m", "bench._collector", folder=options.folder, name="collector") as collector:
        given = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_TRACES_SAMPLER": "always_on",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.wait_for("listens on").split()[2],
        }
        with service_of(options, temporal, "service-traced", **given) as service:
            target = service.wait_for("listens on").split("listens on ")[1].split(",")[0]
            async with grpc.aio.insecure_channel(target) as channel:
                stub = worker_pb2_grpc.WorkerServiceStub(channel)
                client = await Client.connect(temporal.address)
                subjects = await _subjects(client, client, stub, stub)
                yield {(case, _TRACED): call for (case, subject), call in subjects.items() if subject == _OURS}


async def _subjects(
    client: Client,
    with_plugin: Client,
    ours: worker_pb2_grpc.WorkerServiceAsyncStub,
    bare: worker_pb2_grpc.WorkerServiceAsyncStub,
) -> dict[tuple[str, str], _Call]:
    from bench_tree.bench.job.v1 import job_pb2

    prefix = uuid.uuid4().hex[:8]
    names: Iterator[str] = (f"job-{prefix}-{number}" for number in itertools.count())

    async def start(stub: worker_pb2_grpc.WorkerServiceAsyncStub, **parameters: object) -> str:
        payload: dict[str, Any] = {
            "workflow_type": "bench_job",
            "tenant_id": "bench",
            "name": next(names),
            **parameters,
        }
        unit = ContextUnit(payload=payload, provenance=["bench:calls"])
        answer = await stub.StartWorkflow(unit.to_protobuf(worker_pb2))
        return str(answer.payload["workflow_id"])

    async def start_directly() -> None:
        request = job_pb2.JobRequest(tenant_id="bench", name=next(names), wait=True)
        await client.start_workflow("bench_job", request, id=f"bench/{request.name}", task_queue="bench-idle")

    async def start_as_much() -> None:
        request = job_pb2.JobRequest(tenant_id="bench", name=next(names), wait=True)
        unit_id = str(uuid.uuid4())
        context = TaskContext(trace_id=unit_id, unit_id=unit_id, tenant_id="bench", provenance=["a" * 40])
        with using(context):
            await with_plugin.start_workflow(
                "bench_job",
                request,
                id=f"bench/{request.name}",
                task_queue="bench-idle",
                search_attributes=bound_attributes("bench", unit_id),
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            )

    # Nobody polls this queue, so that what is started takes no processor time from what is measured.
    async def start_idle(stub: worker_pb2_grpc.WorkerServiceAsyncStub) -> None:
        await start(stub, task_queue="bench-job/bench", wait=True)

    async def status(stub: worker_pb2_grpc.WorkerServiceAsyncStub, workflow_id: str, **more: str) -> None:
        unit = ContextUnit(payload={"workflow_id": workflow_id, **more}, provenance=["bench:calls"])
        answer = await stub.GetTaskStatus(unit.to_protobuf(worker_pb2))
        assert answer.payload["status"] in ("running", "completed")

    async def given_back() -> None:
        unit = ContextUnit(provenance=["bench:calls"])
        await bare.DescribeContracts(unit.to_protobuf(worker_pb2))

    done, waiting = await start(ours), await start(ours, wait=True)
    finished, running = (client.get_workflow_handle(each) for each in (done, waiting))
    await finished.result()
    await running.query("bench_progress")

    async def describe_and_result() -> None:
        await finished.describe()
        await finished.result()

    async def describe_and_query() -> None:
        await running.describe()
        await running.query("bench_progress")

    return {
        (_START, _OURS): lambda: start_idle(ours),
        (_START, _BARE): lambda: start_idle(bare),
        (_START, _SDK): start_directly,
        (_START, _SDK_MORE): start_as_much,
        (_DONE, _OURS): lambda: status(ours, done),
        (_DONE, _BARE): lambda: status(bare, done, ask="result"),
        (_DONE, _SDK): finished.describe,
        (_DONE, _SDK_MORE): describe_and_result,
        (_RUNNING, _OURS): lambda: status(ours, waiting),
        (_RUNNING, _BARE): lambda: status(bare, waiting, ask="progress"),
        (_RUNNING, _SDK): running.describe,
        (_RUNNING, _SDK_MORE): describe_and_query,
        (_LEAST, _BARE): given_back,
        (_LEAST, _SDK): lambda: client.workflow_service.get_system_info(GetSystemInfoRequest()),
    }


async def _interleave(
    subjects: dict[tuple[str, str], _Call], rounds: int, calls: int
) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of the middle call of each round, with a call of each in turn: the server's pace changes a lot.

    The order is another one each time, since a call is slower right after one that leaves the server something to do.
    """
    shuffle = random.Random(1)
    found: dict[tuple[str, str], list[float]] = {key: [] for key in subjects}
    for call in subjects.values():
        await call()
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        # Starts come last: what they leave for the server to do is then nobody's burden but theirs.
        for case in (_LEAST, _DONE, _RUNNING, _START):
            keys = [key for key in subjects if key[0] == case]
            took: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
            for _ in range(calls):
                for key in shuffle.sample(keys, len(keys)):
                    began = time.perf_counter()
                    await subjects[key]()
                    took[key].append((time.perf_counter() - began) * 1e3)
            for key, values in took.items():
                found[key].append(statistics.median(values))
    gc.unfreeze()
    return found
