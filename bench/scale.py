"""Workflows a second by one worker process and by two, and what is busy meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
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
_CASE = "workflows with one activity"
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
    found = asyncio.run(_measure(options, options.rounds_or(_ROUNDS), runs))
    measurements = tuple(
        Measurement(
            case=_CASE, subject=subject, quantity=quantity, unit=unit, values=tuple(each[at] for each in values)
        )
        for subject, values in found.items()
        for at, (quantity, unit) in enumerate(_QUANTITIES)
    )
    result = Result(
        title="scale: a second worker",
        reference=_ONE,
        measurements=measurements,
        notes=(
            f"{runs} runs, {_AT_ONCE} at once; cores: processor time a second of wall time",
            f"the machine has {os.cpu_count()} cores, for the Temporal server, the caller and the workers together",
        ),
    )
    ratio = result.ratio(_CASE, _TWO, _ONE, "throughput")
    goal = Goal(name="throughput of two workers to one", value=ratio, limit=1.8, at_least=True)
    busy = result.find(_CASE, _TWO, "whole machine").median
    note = f"with two workers {busy:.0f} % of the machine's processors are busy, whoever else is on it included"
    return dataclasses.replace(result, goals=(goal,), notes=(*result.notes, note))


async def _measure(options: Options, rounds: int, runs: int) -> dict[str, list[tuple[float, ...]]]:
    generated_tree()
    found: dict[str, list[tuple[float, ...]]] = {_ONE: [], _TWO: []}
    for number in range(rounds):
        for name in list(found)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(await _sample(options, f"{name.split()[0]}-{number}", 1 if name == _ONE else 2, runs))
    return found


async def _sample(options: Options, name: str, workers: int, runs: int) -> tuple[float, ...]:
    """Everything fresh, so that nothing of the sample before is left in the server."""
    from bench_tree.bench.job.v1 import JobRequest

    async with temporal_server(options.folder / f"temporal-{name}") as temporal:
        with contextlib.ExitStack() as stack:
            children = [stack.enter_context(worker_of(options, temporal, f"worker-{name}-{n}")) for n in range(workers)]
            for child in children:
                child.wait_for("Temporal workers run")
            client = await Client.connect(temporal.address, plugins=[ContextWorkerPlugin()])
            await run_jobs(client, "bench-job", JobRequest, _AT_ONCE, _AT_ONCE)
            before, began = _spent(children, temporal.pid), time.perf_counter()
            psutil.cpu_percent()
            await run_jobs(client, "bench-job", JobRequest, runs, _AT_ONCE)
            took = time.perf_counter() - began
            cores = [(after - was) / took for after, was in zip(_spent(children, temporal.pid), before, strict=True)]
            return (runs / took, *cores, psutil.cpu_percent())


def _spent(workers: list[Child], server: int) -> tuple[float, float, float]:
    """Processor time so far of the workers, the server and this process."""
    return sum(worker.cpu_seconds() for worker in workers), cpu_seconds(server), time.process_time()
