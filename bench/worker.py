"""What a workflow with one activity costs a worker in processor time, beside the same by hand on Temporal's SDK."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import time
from collections.abc import Awaitable, Callable

from temporalio.client import Client

from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

from ._by_hand import JobRequest
from ._house import job_variables, temporal_server, worker_of
from ._model import Goal, Measurement, Options, Result
from ._processes import Child
from ._tree import generated_tree

__all__ = ["run"]

_OURS, _HAND, _HAND_SANDBOXED = "ContextWorker, sandboxed", "by hand, no sandbox", "by hand, SDK's sandbox"
_ROUNDS = 5
_RUNS = 150
_AT_ONCE = 8
_CASE = "a workflow with one activity"


def run(options: Options) -> Result:
    """Runs workflows on each of the workers in turn."""
    runs = 30 if options.quick else _RUNS
    found = asyncio.run(_measure(options, options.rounds_or(_ROUNDS), runs))
    measurements = tuple(
        Measurement(
            case=_CASE, subject=subject, quantity=quantity, unit=unit, values=tuple(each[at] for each in values)
        )
        for subject, values in found.items()
        for at, (quantity, unit) in enumerate((("worker cpu", "ms/run"), ("throughput", "/s")))
    )
    result = Result(
        title="worker: processor time of a run",
        reference=_HAND,
        measurements=measurements,
        notes=(
            f"{runs} runs a round, {_AT_ONCE} at once, started with the SDK; each worker is a process of its own",
            "by hand: dataclasses as JSON, no headers, no rules, no protection against workflow code with side effects",
        ),
    )
    ratio = result.ratio(_CASE, _OURS, _HAND, "worker cpu")
    sandboxed = result.ratio(_CASE, _OURS, _HAND_SANDBOXED, "worker cpu")
    return dataclasses.replace(
        result,
        goals=(
            Goal(name=f"cpu of a run: ours to {_HAND}", value=ratio, limit=1.1),
            Goal(name=f"cpu of a run: ours to {_HAND_SANDBOXED}", value=sandboxed, limit=1.1),
        ),
    )


async def _measure(options: Options, rounds: int, runs: int) -> dict[str, list[tuple[float, float]]]:
    generated_tree()
    async with temporal_server(options.folder / "temporal") as temporal:
        with contextlib.ExitStack() as stack:
            samplers = await _samplers(options, temporal, stack, runs)
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in samplers}
            for sampler in samplers.values():
                await sampler()
            for number in range(rounds):
                for name in list(samplers)[:: 1 if number % 2 == 0 else -1]:
                    found[name].append(await samplers[name]())
            return found


async def _samplers(
    options: Options, temporal: EmbeddedServer, stack: contextlib.ExitStack, runs: int
) -> dict[str, Callable[[], Awaitable[tuple[float, float]]]]:
    from bench_tree.bench.job.v1 import JobRequest as OurRequest

    plain = await Client.connect(temporal.address)
    ours = await Client.connect(temporal.address, plugins=[ContextWorkerPlugin()])
    workers = {_OURS: stack.enter_context(worker_of(options, temporal))}
    for name, queue, kind in ((_HAND, "bench-hand", "unsandboxed"), (_HAND_SANDBOXED, "bench-sandboxed", "sandboxed")):
        arguments = ("-m", "bench._by_hand", temporal.address, queue, kind)
        child = Child(*arguments, folder=options.folder, name=kind, **job_variables())
        workers[name] = stack.enter_context(child)
    workers[_OURS].wait_for("Temporal workers run")
    for name in (_HAND, _HAND_SANDBOXED):
        workers[name].wait_for("worker runs")
    return {
        _OURS: lambda: sample(ours, "bench-job", OurRequest, workers[_OURS], runs),
        _HAND: lambda: sample(plain, "bench-hand", JobRequest, workers[_HAND], runs),
        _HAND_SANDBOXED: lambda: sample(plain, "bench-sandboxed", JobRequest, workers[_HAND_SANDBOXED], runs),
    }


_numbers = itertools.count()


async def sample(
    client: Client, queue: str, request: Callable[..., object], worker: Child, runs: int
) -> tuple[float, float]:
    """Milliseconds of the worker's processor time a run, and runs a second."""
    before, began = worker.cpu_seconds(), time.perf_counter()
    await run_jobs(client, queue, request, runs, _AT_ONCE)
    took = time.perf_counter() - began
    return (worker.cpu_seconds() - before) / runs * 1e3, runs / took


async def run_jobs(client: Client, queue: str, request: Callable[..., object], runs: int, at_once: int) -> None:
    """Starts jobs and waits for them, so many at once; `request` makes their inputs."""
    left = iter(range(runs))

    async def one_after_another() -> None:
        for _ in left:
            name = f"{queue}-{next(_numbers)}"
            argument = request(name=name, tenant_id="bench", count=3)
            await client.execute_workflow("bench_job", argument, id=name, task_queue=queue)

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
