"""The backend cpython gives what the jail gives, in the words of the code module; tests/process_jail tests the jail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from contextunity.gen.contextunity.code.v1 import ExecutionStatus

import process_jail
from contextunity.modules.code.backend import Backend, Outcome, Program, ProgramLimits
from contextunity.modules.code.cpython import CPythonBackend
from contextunity.modules.code.errors import SandboxFailedError, SandboxUnavailable

from .opened import opened

_LIMITS = ProgramLimits(
    wall=20.0, cpu=20.0, memory_bytes=128 << 20, output_bytes=1000, result_bytes=1000, scratch_bytes=1 << 20
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backend]:
    async with opened("cpython", tmp_path_factory.mktemp("backend")) as backend:
        yield backend


async def test_an_outcome_has_all_that_the_jail_tells(backend: Backend) -> None:
    program = Program(
        code="import sys\nprint(open('f').read() * n)\nsys.stderr.write('late')\n[n]",
        limits=_LIMITS,
        inputs={"n": 500},
        files={"f": b"abc"},
    )
    outcome = await backend.run(program)
    assert isinstance(outcome, Outcome)
    assert outcome == Outcome(
        status=ExecutionStatus.OK,
        has_result=True,
        result=[500],
        stdout=("abc" * 500)[:1000],
        truncated=True,
        duration_ms=outcome.duration_ms,
    )
    assert outcome.duration_ms > 0


async def test_an_exception_is_told(backend: Backend) -> None:
    outcome = await backend.run(Program(code="{}['key']", limits=_LIMITS))
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.exit_code) == (ExecutionStatus.EXCEPTION, 1)
    assert (outcome.error, outcome.error_type) == ("KeyError: 'key'", "KeyError")
    assert "{}['key']" in outcome.stderr


async def test_each_limit_is_the_jails(backend: Backend) -> None:
    programs = {
        "while True: pass": replace(_LIMITS, wall=0.2),
        "while 1: pass": replace(_LIMITS, cpu=0.2),
        "bytearray(1 << 28)": _LIMITS,
        "open('f', 'wb').write(bytes(1 << 21))": _LIMITS,
        "'x' * 2000": _LIMITS,
    }
    outcomes = [await backend.run(Program(code=code, limits=limits)) for code, limits in programs.items()]
    assert [outcome.status.name for outcome in outcomes if isinstance(outcome, Outcome)] == [
        *("TIMEOUT", "CPU_LIMIT", "MEMORY_LIMIT", "SCRATCH_LIMIT", "RESULT_ERROR"),
    ]


@pytest.mark.parametrize("status", process_jail.Status)
async def test_each_status_of_the_jail_is_one_of_the_contract(status: process_jail.Status) -> None:
    assert ExecutionStatus[status.name].name == status


async def test_tools_are_what_it_does_not_have(backend: Backend) -> None:
    outcome = await backend.run(Program(code="1", limits=_LIMITS, tools=("lookup",)))
    assert isinstance(outcome, Outcome)
    assert outcome.status is ExecutionStatus.UNSUPPORTED
    assert "monty" in outcome.error


async def test_a_killed_zygote_is_a_failure_that_is_tried_again(backend: Backend) -> None:
    running = asyncio.create_task(backend.run(Program(code="import time\ntime.sleep(60)", limits=_LIMITS)))
    zygote = next(child for child in psutil.Process().children() if "process_jail" in " ".join(child.cmdline()))
    zygote.kill()
    with pytest.raises(SandboxFailedError, match="the zygote of the cpython backend"):
        await running
    again = await backend.run(Program(code="1 + 1", limits=_LIMITS))
    assert isinstance(again, Outcome)
    assert again.result == 2


async def test_a_zygote_that_ended_unnoticed_is_a_failure_that_is_tried_again(backend: Backend) -> None:
    program = Program(code="1 + 1", limits=_LIMITS)
    await backend.run(program)
    zygote = next(child for child in psutil.Process().children() if "process_jail" in " ".join(child.cmdline()))
    zygote.kill()
    zygote.wait(10)  # The event loop has had no turn to see it.
    with pytest.raises(SandboxFailedError, match="the zygote of the cpython backend ended"):
        await backend.run(program)
    again = await backend.run(program)
    assert isinstance(again, Outcome)
    assert again.result == 2


async def test_a_closed_backend_runs_nothing(tmp_path: Path) -> None:
    backend = CPythonBackend(folder=tmp_path)
    await backend.aclose()
    await backend.aclose()
    with pytest.raises(SandboxFailedError, match=r"^the cpython backend is closed$"):
        await backend.run(Program(code="1", limits=_LIMITS))


async def test_where_the_jail_cannot_work_the_sandbox_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "beos")
    with pytest.raises(SandboxUnavailable, match=r"^the cpython backend cannot work here: it needs Linux, and this is"):
        await CPythonBackend(folder=tmp_path).run(Program(code="1", limits=_LIMITS))
