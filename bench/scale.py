"""Workflows a second by one worker process and by several, and what is busy meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from temporalio.client import Client

from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

from ._by_hand import JobRequest as HandRequest
from ._house import job_variables, temporal_server, worker_of
from ._model import Goal, Measurement, Options, Result
from ._processes import Child, cpu_seconds
from ._tree import generated_tree
from .worker import run_jobs

__all__ = ["run"]

_ROUNDS = 3
_AT_ONCE = 48
_SLOTS, _WAIT_MS, _BUSY_MS = 4, 500, 100
_NAMES = {1: "one worker", 2: "two workers", 3: "three workers", 4: "four workers"}
_HAND = "two by hand, no sandbox"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """What the step of the workflows does, and who is asked to do it.

    Attributes:
        runs: workflows in a sample of one worker; of several, as many times as many where `grows`.
        workers: how many processes each subject has.
        hand: whether two workers written by hand are measured as well.
    """

    name: str
    runs: int
    workers: tuple[int, ...]
    wait_ms: int = 0
    busy_ms: int = 0
    slots: int = 16
    grows: bool = False
    hand: bool = False


_WAITS = _Case(
    name=f"workflows whose activity waits {_WAIT_MS} ms, {_SLOTS} at once in a worker",
    runs=40,
    workers=(1, 2, 3, 4),
    wait_ms=_WAIT_MS,
    slots=_SLOTS,
    grows=True,
)
_COMPUTES = _Case(name=f"workflows whose activity computes {_BUSY_MS} ms", runs=100, workers=(1, 2), busy_ms=_BUSY_MS)
_LIGHT = _Case(name="workflows whose activity does next to nothing", runs=300, workers=(1, 2), hand=True)
_CASES = (_WAITS, _COMPUTES, _LIGHT)
_QUANTITIES = (
    ("throughput", "/s"),
    ("workers", "cores"),
    ("Temporal server", "cores"),
    ("caller", "cores"),
    ("whole machine", "%"),
)


def run(options: Options) -> Result:
    """Runs the same workflows with one worker and with several, in turn."""
    rounds = options.rounds_or(_ROUNDS)
    measurements = list[Measurement]()
    for case in _CASES:
        for name, values in asyncio.run(_measure(options, rounds, case)).items():
            measurements += [
                Measurement(
                    case=case.name,
                    subject=name,
                    quantity=quantity,
                    unit=unit,
                    values=tuple(each[at] for each in values),
                )
                for at, (quantity, unit) in enumerate(_QUANTITIES)
            ]
    result = Result(
        title="scale: more workers",
        reference=_NAMES[1],
        measurements=tuple(measurements),
        notes=(
            f"up to {_AT_ONCE} workflows at once; cores: processor time a second of wall time",
            f"the machine has {os.cpu_count()} cores, for the Temporal server, the caller and the workers together",
            f"{_HAND}: the same job on Temporal's SDK; where it is no faster either, the Temporal server is full",
        ),
    )
    return dataclasses.replace(result, goals=_goals(result))


def _goals(result: Result) -> tuple[Goal, ...]:
    """A second worker doubles what is done, until something else is full; and which that is, is shown."""
    one, two = _NAMES[1], _NAMES[2]
    return (
        Goal(
            name=f"throughput of two workers to one, {_WAITS.name}",
            value=result.ratio(_WAITS.name, two, one, "throughput"),
            limit=1.8,
            at_least=True,
        ),
        Goal(
            name=f"the machine is what is full with two workers, {_COMPUTES.name}",
            value=result.find(_COMPUTES.name, two, "whole machine").median,
            limit=90,
            at_least=True,
            unit="%",
        ),
        Goal(
            name=f"the Temporal server is what is full: two workers to two by hand, {_LIGHT.name}",
            value=result.ratio(_LIGHT.name, two, _HAND, "throughput"),
            limit=0.9,
            at_least=True,
        ),
    )


async def _measure(options: Options, rounds: int, case: _Case) -> dict[str, list[tuple[float, ...]]]:
    generated_tree()
    subjects = {_NAMES[workers]: workers for workers in case.workers} | ({_HAND: 2} if case.hand else {})
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in subjects}
    for number in range(rounds):
        for name in list(found)[:: 1 if number % 2 == 0 else -1]:
            runs = case.runs * (subjects[name] if case.grows else 1) // (4 if options.quick else 1)
            folder = f"{_CASES.index(case)}-{number}-{name.replace(' ', '-')}"
            found[name].append(await _sample(options, folder, case, subjects[name], runs, by_hand=name == _HAND))
    return found


async def _sample(
    options: Options, name: str, case: _Case, workers: int, runs: int, *, by_hand: bool
) -> tuple[float, ...]:
    """Everything fresh, so that nothing of the sample before is left in the server."""
    async with temporal_server(options.folder / f"temporal-{name}") as temporal:
        with contextlib.ExitStack() as stack:
            children = [
                stack.enter_context(_worker(options, temporal, f"{name}-{number}", case, by_hand=by_hand))
                for number in range(workers)
            ]
            for child in children:
                child.wait_for("worker runs" if by_hand else "Temporal workers run")
            client = await Client.connect(temporal.address, plugins=[] if by_hand else [ContextWorkerPlugin()])
            queue = "bench-hand" if by_hand else "bench-job"
            # Every worker has its modules loaded before anything counts.
            await run_jobs(client, queue, _request(case, by_hand=by_hand), 8 * workers, _AT_ONCE)
            before, began = _spent(children, temporal.pid), time.perf_counter()
            psutil.cpu_percent()
            await run_jobs(client, queue, _request(case, by_hand=by_hand), runs, _AT_ONCE)
            took = time.perf_counter() - began
            cores = [(after - was) / took for after, was in zip(_spent(children, temporal.pid), before, strict=True)]
            return (runs / took, *cores, psutil.cpu_percent())


def _worker(options: Options, temporal: EmbeddedServer, name: str, case: _Case, *, by_hand: bool) -> Child:
    if by_hand:
        arguments = ("-m", "bench._by_hand", temporal.address, "bench-hand", "unsandboxed")
        return Child(*arguments, folder=options.folder, name=name, **job_variables())
    slots = {"CONTEXTWORKER_MAX_CONCURRENT_ACTIVITIES": str(case.slots)}
    return worker_of(options, temporal, name, **slots)


def _request(case: _Case, *, by_hand: bool) -> Callable[..., object]:
    from bench_tree.bench.job.v1 import JobRequest

    if by_hand:
        return HandRequest
    return functools.partial(JobRequest, busy_ms=case.busy_ms, wait_ms=case.wait_ms)


def _spent(workers: list[Child], server: int) -> tuple[float, float, float]:
    """Processor time so far of the workers, the server and this process."""
    return sum(worker.cpu_seconds() for worker in workers), cpu_seconds(server), time.process_time()
