"""Workers that end with programs running: another one runs these, and nothing of the first is left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from contextunity.gen.contextunity.code.v1 import ExecuteRequest, ExecutionStatus, Language, code_temporal
from temporalio.client import Client

from contextunity.core.codec import dict_to_struct
from contextunity.modules.code.activities import from_value
from contextunity.worker.embedded import EmbeddedServer
from process_jail import missing

_PROGRAM = """
import time
while time.time() < until:
    sum(range(1000))
[name, 'done']
"""
_LANGUAGES = [Language.MONTY] if missing(False, 65534) else [Language.MONTY, Language.CPYTHON]
_SETTINGS = """
[modules.code]
parallel = 2
parallel_per_tenant = 2
[modules.code.limits]
wall = 60.0
cpu = 60.0
"""


@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        pytest.param(signal.SIGKILL, 4, id="killed"),
        # Longer than a worker that is told to end lets its activities go on.
        pytest.param(signal.SIGTERM, 14, id="told to end"),
    ],
)
async def test_another_worker_runs_the_programs_of_one_that_ends(
    spawn: Any, temporal: Client, temporal_server: EmbeddedServer, tmp_path: Path, number: signal.Signals, seconds: int
) -> None:
    def work() -> Any:
        arguments = ("-m", "contextunity.worker", "--temporal", "--modules", "code")
        process = spawn(*arguments, TEMPORAL_ADDRESS=temporal_server.address)
        process.wait_for("Temporal workers run for modules")
        return process

    (tmp_path / "contextworker.toml").write_text(_SETTINGS)
    first = await asyncio.to_thread(work)
    client = code_temporal.CodeServiceClient(temporal)
    handles = {}
    for language in _LANGUAGES:
        inputs = dict_to_struct({"name": language.name, "until": time.time() + seconds})
        request = ExecuteRequest(code=_PROGRAM, language=language, inputs=inputs, tenant_id="acme")
        handles[language.name] = await client.start_execute(request)
    await _until(lambda: len(_busy(first.pid)) >= len(_LANGUAGES))
    below = psutil.Process(first.pid).children(recursive=True)
    first.send(number)
    code = await asyncio.to_thread(first.wait)
    assert code == (0 if number is signal.SIGTERM else -number), first.output
    _, alive = await asyncio.to_thread(psutil.wait_procs, below, 10)
    assert alive == []
    if number is signal.SIGTERM:
        assert _scratch_folders(tmp_path) == []
    second = await asyncio.to_thread(work)
    for name, handle in handles.items():
        response = await handle.result()
        assert response.status is ExecutionStatus.OK, response
        assert response.result is not None
        assert from_value(response.result) == [name, "done"]
        events = [event async for event in handle.raw.fetch_history_events()]
        attempts = [event.activity_task_started_event_attributes.attempt for event in events]
        assert max(attempts) == 2
    second.send(signal.SIGTERM)
    assert await asyncio.to_thread(second.wait) == 0, second.output


def _busy(worker: int) -> list[psutil.Process]:
    """What runs programs below a worker: processes that use a processor."""
    found = []
    for child in psutil.Process(worker).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if sum(child.cpu_times()[:2]) > 0.3:
                found.append(child)
    return found


def _scratch_folders(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_dir() and path.name.startswith(("run-", "contextworker-"))]


async def _until(reached: Any) -> None:
    async with asyncio.timeout(60):
        # What is waited for happens in other processes.
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
