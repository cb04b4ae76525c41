"""Small programs in each sandbox, beside a bare process of the same interpreter that protects from nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from contextunity.gen.contextunity.code.v1 import ExecutionStatus

from contextunity.modules.code.backend import Backend, Outcome, Program, ProgramLimits
from contextunity.modules.code.cpython import CPythonBackend
from contextunity.modules.code.errors import SandboxUnavailable
from contextunity.modules.code.monty import MontyBackend

from ._model import Goal, Measurement, Options, Result
from ._rounds import interleave

__all__ = ["run"]

_FRESH, _WARM, _CPYTHON = "monty, a process each", "monty, warm", "cpython, jailed"
_BARE = "bare subprocess"
_ROUNDS = 5
_RUNS = 100
_LIMITS = ProgramLimits(
    wall=5.0, cpu=5.0, memory_bytes=256 << 20, output_bytes=65536, result_bytes=262144, scratch_bytes=16 << 20
)
_CODE = "result = {str(n): n * n for n in range(100)}\nprint(sum(result.values()))"
_PROGRAM = Program(code=_CODE, limits=_LIMITS)
_BARE_CODE = f"{_CODE}\nimport json, sys; json.dump(result, sys.stderr)"

_Run = Callable[[], Awaitable[None]]


def run(options: Options) -> Result:
    """Runs one program again and again, one at a time and as many at once as there are processors."""
    runs = 10 if options.quick else _RUNS
    rounds = options.rounds_or(_ROUNDS)
    at_once = os.cpu_count() or 1
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        subjects, missing = runner.run(_open(stack, options.folder, at_once))
        try:
            steps = {
                name: functools.partial(lambda once: runner.run(_round(once, runs, at_once)), once)
                for name, once in subjects.items()
            }
            found = interleave(rounds, steps)
        finally:
            runner.run(stack.aclose())
    case = f"a program of two lines, {runs} runs a round"
    measurements = tuple(
        Measurement(case=case, subject=name, quantity=quantity, unit=unit, values=tuple(value[at] for value in values))
        for name, values in found.items()
        for at, (quantity, unit) in enumerate((("p50", "ms"), (f"{at_once} at once", "runs/s")))
    )
    result = Result(
        title="code: small programs in their sandboxes",
        reference=_BARE,
        measurements=measurements,
        notes=(
            f"{_BARE}: `python -I -c`, with the result as JSON on standard error; no limit and no protection at all",
            f"{_FRESH}: as the worker runs it unless runs_per_process says otherwise",
            *missing,
        ),
    )
    ratio = result.ratio(case, _FRESH, _BARE, "p50")
    goal = Goal(name=f"p50: {_FRESH} to {_BARE}", value=ratio, limit=1)
    return dataclasses.replace(result, goals=(goal,))


async def _open(
    stack: contextlib.AsyncExitStack, folder: Path, at_once: int
) -> tuple[dict[str, _Run], tuple[str, ...]]:
    fresh = await stack.enter_async_context(MontyBackend(processes=at_once, folder=folder / "fresh"))
    warm = await stack.enter_async_context(
        MontyBackend(processes=at_once, runs_per_process=1_000_000, folder=folder / "warm")
    )
    subjects: dict[str, _Run] = {_BARE: _bare, _FRESH: _by(fresh), _WARM: _by(warm)}
    jailed = CPythonBackend(folder=folder / "cpython")
    stack.push_async_callback(jailed.aclose)
    try:
        await _by(jailed)()
    except SandboxUnavailable as error:
        return subjects, (f"{_CPYTHON} is not here: {error}",)
    return {**subjects, _CPYTHON: _by(jailed)}, ()


def _by(backend: Backend) -> _Run:
    async def once() -> None:
        outcome = await backend.run(_PROGRAM)
        assert isinstance(outcome, Outcome)
        assert outcome.status is ExecutionStatus.OK, outcome
        assert isinstance(outcome.result, dict)
        assert outcome.result["99"] == 9801

    return once


async def _bare() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _BARE_CODE),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 0
    assert b'"99": 9801' in told


async def _round(once: _Run, runs: int, at_once: int) -> tuple[float, float]:
    """The middle of the milliseconds of a run, and runs a second of several at once."""
    took = []
    for _ in range(runs):
        began = time.perf_counter()
        await once()
        took.append((time.perf_counter() - began) * 1000)
    left = iter(range(runs))

    async def work() -> None:
        for _ in left:
            await once()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return statistics.median(took), runs / (time.perf_counter() - began)
