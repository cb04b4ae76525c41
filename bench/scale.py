"""Workflows a second by one worker process and by two, and what is busy meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import time

import psutil
from temporalio.client import Client

from contextunity.worker.plugin import ContextWorkerPlugin

from ._house import temporal_server, worker_of
from ._model import Goal, Measurement, Options, Result
from ._processes import Child, cpu_seconds
from ._tree import generated_tree
from .worker import run_jobs

__all__ = ["run"]

_ONE, _TWO = "one worker", "two workers"
_ROUNDS = 3
_RUNS = 300
_AT_ONCE = 48
_BUSY_MS = 100
_CASES = {
    "workflows whose activity does next to nothing": 0,
    f"workflows whose activity computes {_BUSY_MS} ms": _BUSY_MS,
}
_QUANTITIES = (
    ("throughput", "/s"),
    ("workers", "cores"),
    ("Temporal server", "cores"),
    ("caller", "cores"),
    ("whole machine", "%"),
)


def run(options: Options) -> Result:
    """Runs the same workflows with one worker and with two, in turn."""
    runs = 60 if options.quick else _RUNS
    rounds = options.rounds_or(_ROUNDS)
    measurements = list[Measurement]()
    for case, busy_ms in _CASES.items():
        found = asyncio.run(_measure(options, rounds, max(runs // 3, 60) if busy_ms else runs, busy_ms))
        measurements += [
            Measurement(
                case=case, subject=name, quantity=quantity, unit=unit, values=tuple(each[at] for each in values)
            )
            for name, values in found.items()
            for at, (quantity, unit) in enumerate(_QUANTITIES)
        ]
    result = Result(
        title="scale: a second worker",
        reference=_ONE,
        measurements=tuple(measurements),
        notes=(
            f"{runs} runs, {_AT_ONCE} at once; cores: processor time a second of wall time",
            f"the machine has {os.cpu_count()} cores, for the Temporal server, the caller and the workers together",
        ),
    )
    goals = tuple(
        Goal(
            name=f"throughput of two workers to one, {case}",
            value=result.ratio(case, _TWO, _ONE, "throughput"),
            limit=1.8,
            at_least=True,
        )
        for case in _CASES
    )
    return dataclasses.replace(result, goals=goals)


async def _measure(options: Options, rounds: int, runs: int, busy_ms: int) -> dict[str, list[tuple[float, ...]]]:
    generated_tree()
    found: dict[str, list[tuple[float, ...]]] = {_ONE: [], _TWO: []}
    for number in range(rounds):
        for name in list(found)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(
                await _sample(options, f"{name.split()[0]}-{number}-{busy_ms}", 1 if name == _ONE else 2, runs, busy_ms)
            )
    return found


async def _sample(options: Options, name: str, workers: int, runs: int, busy_ms: int) -> tuple[float, ...]:
    """Everything fresh, so that nothing of the sample before is left in the server."""
    from bench_tree.bench.job.v1 import JobRequest

    request = functools.partial(JobRequest, busy_ms=busy_ms)

    async with temporal_server(options.folder / f"temporal-{name}") as temporal:
        with contextlib.ExitStack() as stack:
            children = [stack.enter_context(worker_of(options, temporal, f"worker-{name}-{n}")) for n in range(workers)]
            for child in children:
                child.wait_for("Temporal workers run")
            client = await Client.connect(temporal.address, plugins=[ContextWorkerPlugin()])
            await run_jobs(client, "bench-job", request, 16, _AT_ONCE)
            before, began = _spent(children, temporal.pid), time.perf_counter()
            psutil.cpu_percent()
            await run_jobs(client, "bench-job", request, runs, _AT_ONCE)
            took = time.perf_counter() - began
            cores = [(after - was) / took for after, was in zip(_spent(children, temporal.pid), before, strict=True)]
            return (runs / took, *cores, psutil.cpu_percent())


def _spent(workers: list[Child], server: int) -> tuple[float, float, float]:
    """Processor time so far of the workers, the server and this process."""
    return sum(worker.cpu_seconds() for worker in workers), cpu_seconds(server), time.process_time()
