"""Programs that call tools: durably, with retries, refusals and bounds, and through the death of their worker."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.code.v1 import ExecuteRequest, ExecuteResponse, ExecutionStatus, File, code_temporal
from temporalio.client import Client
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from contextunity.modules.code import workflows
from contextunity.modules.code.activities import from_value
from contextunity.modules.code.workflows import ExecuteWorkflow
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.errors import SettingsError
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_HERE = Path(__file__).parent
_NAME = "counting_tool"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The journal of the counting tool, which is importable by its bare name as in a worker's process."""
    spec = importlib.util.spec_from_file_location(_NAME, _HERE / f"{_NAME}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, _NAME, loaded)
    spec.loader.exec_module(loaded)
    return loaded.Journal(tmp_path)


def _section(tmp_path: Path) -> dict[str, Any]:
    return {"tool_paths": (_NAME,), "tools": {"count": {"folder": str(tmp_path)}}}


def _value(response: ExecuteResponse) -> Any:
    assert response.result is not None, response
    return from_value(response.result)


_PROGRAM = """
open('notes.txt', 'w').write('kept')
found = []
def ask(argument, **named):
    try:
        found.append(count(argument, **named))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        found.append([type(error).__name__, str(error)])
    print('asked', argument)
ask(1)
ask('two', then='fail once')
ask(3, then='refuse')
ask(4, wrong=1)
ask({5})
ask(6, then='flood')
found.append(open('notes.txt').read())
result = found
"""


async def test_tools_answer_fail_and_refuse_and_files_stay(working: Any, journal: Any, tmp_path: Path) -> None:
    async with working(**_section(tmp_path)) as client:
        handle = await client.start_execute(ExecuteRequest(code=_PROGRAM, tools=["count"], tenant_id="acme"))
        response = await handle.result()
        history = await handle.raw.fetch_history()
    assert response.status is ExecutionStatus.OK, response
    first, second, refused, wrong, unfit, flood, notes = _value(response)
    assert first == {"argument": 1, "tenant": "acme"}
    assert second == {"argument": "two", "tenant": "acme"}
    assert (refused[0], "not this one" in refused[1]) == ("KeyError", True)
    assert (wrong[0], "wrong" in wrong[1]) == ("TypeError", True)
    assert (unfit[0], "is of type set" in unfit[1]) == ("ValueError", True)
    assert (flood[0], "the limit is 1,048,576" in flood[1]) == ("RuntimeError", True)
    assert notes == "kept"
    assert response.stdout == "asked 1\nasked two\nasked 3\nasked 4\nasked {5}\nasked 6\n"
    assert [(call.name, call.ok) for call in response.tool_calls] == [
        ("count", True),
        ("count", True),
        ("count", False),
        ("count", False),
        ("count", False),
    ]
    assert [entry[:2] for entry in journal.read()].count(["begin", "two"]) == 2
    assert len({entry[2] for entry in journal.read()}) == 4
    replayer = Replayer(
        workflows=[ExecuteWorkflow], plugins=[ContextWorkerPlugin()], workflow_runner=SandboxedWorkflowRunner()
    )
    await replayer.replay_workflow(history)


async def test_a_program_may_call_what_it_asked_for_and_nothing_else(
    working: Any, journal: Any, tmp_path: Path
) -> None:
    async with working(**_section(tmp_path)) as client:
        without = await client.execute(ExecuteRequest(code="count(1)"))
        forged = await client.execute(ExecuteRequest(code="__cw_call()", tools=["count"]))
    assert (without.status, without.error_type) == (ExecutionStatus.EXCEPTION, "NameError")
    assert forged.status is ExecutionStatus.EXCEPTION
    assert journal.read() == []


async def test_a_tool_that_stays_broken_is_an_exception_after_all_its_attempts(
    working: Any, journal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As often as the contract says, but sooner.
    monkeypatch.setattr(code_temporal.call_tool.contract.retry_policy, "initial_interval", timedelta(seconds=0.01))
    code = "try:\n  count(1, then='break')\nexcept RuntimeError as error:\n  result = str(error)"
    async with working(shared=True, **_section(tmp_path)) as client:
        response = await client.execute(ExecuteRequest(code=code, tools=["count"]))
    assert _value(response) == "count failed: OSError: broken"
    assert journal.count("begin", 1) == 5


async def test_calls_and_what_is_held_across_them_are_bounded(
    working: Any, journal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "MAX_TOOL_CALLS", 5)
    noise = random.Random(7).randbytes(600 * 1024)
    large = ExecuteRequest(
        code="data = open('noise', 'rb').read()\ncount(1)", tools=["count"], files=[File(path="noise", content=noise)]
    )
    endless = ExecuteRequest(code="n = 0\nwhile True:\n    n += 1\n    count(n)", tools=["count"])
    async with working(shared=True, **_section(tmp_path)) as client:
        held = await client.execute(large)
        stopped = await client.execute(endless)
    assert (held.status, "hold less data" in held.error) == (ExecutionStatus.MEMORY_LIMIT, True), held
    assert (stopped.status, len(stopped.tool_calls)) == (ExecutionStatus.EXCEPTION, workflows.MAX_TOOL_CALLS)
    assert "more than 5 tools" in stopped.error
    assert len({entry[2] for entry in journal.read()}) == workflows.MAX_TOOL_CALLS


@pytest.mark.parametrize(
    ("section", "told"),
    [
        pytest.param({"tool_paths": ("no.such",)}, "cannot be loaded", id="not there"),
        pytest.param({"tool_paths": ("json:dumps",)}, "should be a Tool", id="no tool"),
        pytest.param({"tools": {"htpp_get": {}}}, "there is no such tool; known tools: http_get", id="misspelt"),
        pytest.param({"tools": {"http_get": {"allow": ["ftp://x"]}}}, "should be an origin", id="wrong setting"),
        pytest.param({"tools": {"http_get": {"enabled": "no"}}}, "should be true or false", id="neither on nor off"),
    ],
)
async def test_tools_that_cannot_be_stop_the_start(working: Any, section: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        async with working(**section):
            pass


_KILLED = """
import time
found = [count(0)]
time.sleep(2.5)
found.append(count(1, then='hold'))
found.append(count(2))
result = found
"""


async def test_a_killed_worker_loses_nothing_and_repeats_no_completed_call(
    spawn: Any, temporal: Client, temporal_server: EmbeddedServer, journal: Any, tmp_path: Path
) -> None:
    """The first worker dies between two calls, the second in the middle of one, and the third ends the program."""
    (tmp_path / "contextworker.toml").write_text(
        f'[modules.code]\ntool_paths = ["{_NAME}"]\n[modules.code.tools.count]\nfolder = "{tmp_path}"\n'
    )

    def work() -> Any:
        arguments = ("-m", "contextunity.worker", "--temporal", "--modules", "code")
        process = spawn(*arguments, TEMPORAL_ADDRESS=temporal_server.address, PYTHONPATH=str(_HERE))
        process.wait_for("Temporal workers run for modules")
        return process

    first = await asyncio.to_thread(work)
    handle = await code_temporal.CodeServiceClient(temporal).start_execute(
        ExecuteRequest(code=_KILLED, tools=["count"], tenant_id="acme")
    )

    async def between_calls() -> bool:
        pending = (await handle.raw.describe()).raw_description.pending_activities
        return journal.count("end", 0) == 1 and [each.activity_type.name for each in pending] == ["run_program"]

    async def in_a_call() -> bool:
        return bool(journal.count("begin", 1))

    await _until(between_calls)
    await _kill(first)
    second = await asyncio.to_thread(work)
    await _until(in_a_call)
    await _kill(second)
    journal.gate.touch()
    await asyncio.to_thread(work)
    response = await handle.result()
    assert response.status is ExecutionStatus.OK, response
    assert [each["argument"] for each in _value(response)] == [0, 1, 2]
    assert {argument: journal.count("end", argument) for argument in range(3)} == {0: 1, 1: 1, 2: 1}
    # The call that its worker died in was made once more, under the same id.
    assert {argument: journal.count("begin", argument) for argument in range(3)} == {0: 1, 1: 2, 2: 1}
    assert len({entry[2] for entry in journal.read()}) == 3


async def _kill(process: Any) -> None:
    process.send(signal.SIGKILL)
    await asyncio.to_thread(process.wait)


async def _until(reached: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        # What is waited for happens in other processes.
        while not await reached():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
