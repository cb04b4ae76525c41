"""Programs through the workflow, on a real server: each status, limits, inputs, files, places, replay."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from contextunity.gen.contextunity.code.v1 import (
    ExecuteRequest,
    ExecuteResponse,
    ExecutionStatus,
    File,
    Language,
    Limits,
)
from temporalio.client import WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from contextunity.core.codec import dict_to_struct
from contextunity.modules.code.activities import from_value
from contextunity.modules.code.errors import SandboxBusyError
from contextunity.modules.code.program_slots import ProgramSlots
from contextunity.modules.code.workflows import ExecuteWorkflow
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

Status = ExecutionStatus
_SHORT = Limits(timeout=timedelta(seconds=0.5))


def _value(response: ExecuteResponse) -> Any:
    assert response.result is not None, response
    return from_value(response.result)


_ENDINGS = {
    "result": ("result = {'a': [1, 2.5, None, True]}", Status.OK, 0, ""),
    "syntax": ("x = (", Status.SYNTAX_ERROR, 1, "SyntaxError"),
    "exception": ("1 / 0", Status.EXCEPTION, 1, "ZeroDivisionError: division by zero"),
    "timeout": ("while True: pass", Status.TIMEOUT, 124, "timed out"),
    "sleep": ("import time\ntime.sleep(60)", Status.TIMEOUT, 124, "timed out"),
    "memory": ("[0] * (1 << 28)", Status.MEMORY_LIMIT, 137, "memory limit"),
    "unsupported": ("class A(B): pass", Status.UNSUPPORTED, 1, "language: cpython"),
    "result error": ("{1, 2}", Status.RESULT_ERROR, 1, "result is of type set"),
}


async def test_each_ending_is_a_result_and_no_failure(working: Any) -> None:
    async with working() as client:
        found = await asyncio.gather(
            *(
                client.execute(ExecuteRequest(code=code, limits=_SHORT, tenant_id=f"t{number}"))
                for number, (code, *_) in enumerate(_ENDINGS.values())
            )
        )
    for (name, (_, status, exit_code, told)), response in zip(_ENDINGS.items(), found, strict=True):
        assert (name, response.status, response.exit_code) == (name, status, exit_code), response
        assert told in response.error, response
        assert response.backend == "monty"
    assert _value(found[0]) == {"a": [1, 2.5, None, True]}
    assert 'File "<program>", line 1' in found[2].stderr


async def test_inputs_files_and_output_go_in_and_out(working: Any) -> None:
    code = "import json\nprint('read', name)\n[json.loads(open('data/in.json').read())['n'] + n, n]"
    request = ExecuteRequest(
        code=code,
        inputs=dict_to_struct({"name": "Zoë", "n": 2}),
        files=[File(path="data/in.json", content=b'{"n": 40}')],
        language=Language.PYTHON,
    )
    async with working() as client:
        response = await client.execute(request)
    assert _value(response) == [42, 2]
    assert (response.stdout, response.stderr, response.truncated) == ("read Zoë\n", "", False)


async def _refusal(client: Any, **request: Any) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await client.execute(ExecuteRequest(**{"code": "1", **request}))
    assert isinstance(caught.value.cause, ActivityError)
    assert isinstance(caught.value.cause.cause, ApplicationError)
    return caught.value.cause.cause


async def test_what_cannot_be_is_refused_with_its_type_and_not_tried_again(working: Any) -> None:
    refusals: list[tuple[dict[str, Any], str, str]] = [
        ({"limits": Limits(timeout=timedelta(seconds=31))}, "LimitExceeded", "limits.timeout 31 is above 30"),
        ({"limits": Limits(memory_bytes=1 << 40)}, "LimitExceeded", "limits.memory_bytes"),
        ({"limits": Limits(cpu=timedelta(seconds=6)), "lower_timeout": True}, "LimitExceeded", "limits.cpu 6 is above"),
        ({"language": Language.CPYTHON}, "LanguageUnknown", "does not offer the backend cpython"),
        ({"tools": ["no_such"]}, "ToolUnknown", "there is no tool 'no_such'; this deployment offers: http_get"),
        ({"files": [File(path="../x")]}, "RequestInvalid", "paths stay in the program's folder"),
        ({"files": [File(path="/etc/x")]}, "RequestInvalid", "paths are relative"),
        ({"files": [File(path="a"), File(path="a/b")]}, "RequestInvalid", "which is a file"),
        ({"files": [File(path="a", content=b"x" * 2000)]}, "LimitExceeded", "scratch_bytes"),
        ({"inputs": dict_to_struct({"not a name": 1})}, "RequestInvalid", "'not a name'"),
    ]
    async with working(cpython=False, limits={"scratch_bytes": 1000}) as client:
        errors = await asyncio.gather(*(_refusal(client, **request) for request, _, _ in refusals))
    for (request, kind, told), error in zip(refusals, errors, strict=True):
        assert (request, error.type, error.non_retryable) == (request, kind, True)
        assert told in error.message


async def test_a_backend_that_cannot_start_is_told_to_who_asks_for_it_and_stops_nothing_else(
    working: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MONTY_BIN", str(tmp_path / "no-such"))
    async with working() as client:
        error = await _refusal(client)
    assert (error.type, error.non_retryable) == ("SandboxUnavailable", True)
    assert "the backend monty cannot start" in error.message


async def test_a_caller_may_ask_for_less_and_a_deployment_allow_more(working: Any) -> None:
    async with working(limits={"wall": 2.0, "cpu": 2.0}, maximum={"output_bytes": 100_000}) as client:
        less = await client.execute(ExecuteRequest(code="print('x' * 100)", limits=Limits(output_bytes=10)))
        more = await client.execute(ExecuteRequest(code="print('x' * 90_000)", limits=Limits(output_bytes=100_000)))
        cpu = Limits(timeout=timedelta(seconds=2), cpu=timedelta(seconds=0.2))
        burnt = await client.execute(ExecuteRequest(code="while True: pass", limits=cpu))
    assert (less.stdout, less.truncated, less.status) == ("x" * 10, True, Status.OK)
    assert (len(more.stdout), more.truncated) == (90_001, False)
    assert (burnt.status, burnt.exit_code) == (Status.CPU_LIMIT, 152)


async def test_a_timeout_is_lowered_where_the_request_lets_it_be(working: Any) -> None:
    async with working(limits={"wall": 1.0, "cpu": 1.0}) as client:

        async def run(code: str, **limits: Any) -> ExecuteResponse:
            request = ExecuteRequest(code=code, limits=Limits(**limits), lower_timeout=True)
            return cast("ExecuteResponse", await client.execute(request))

        endless = await run("while True: pass", timeout=timedelta(seconds=60))
        fits = await run("1", timeout=timedelta(seconds=1))
        own = await run("1", timeout=timedelta(seconds=2), cpu=timedelta(seconds=0.5))
    assert endless.status in (Status.TIMEOUT, Status.CPU_LIMIT)
    assert endless.notice == (
        "timeout was lowered from 60 s to 1 s, the most that this deployment allows, and with it the processor time "
        "to 1 s"
    )
    assert fits.notice == ""
    assert own.notice == "timeout was lowered from 2 s to 1 s, the most that this deployment allows"


async def test_programs_of_one_tenant_wait_for_each_other_and_not_for_all_of_the_worker(working: Any) -> None:
    code = "import time\nbegan = time.time()\ntime.sleep(0.4)\n[began, time.time()]"
    async with working(parallel=3, parallel_per_tenant=1) as client:
        tenants = ["a", "a", "a", "b"]
        found = await asyncio.gather(
            *(client.execute(ExecuteRequest(code=code, tenant_id=tenant)) for tenant in tenants)
        )
    spans = [_value(response) for response in found]
    own = sorted(spans[:3])
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(own))
    # The other tenant's began before the first tenant's were through.
    assert spans[3][0] < own[-1][0]


async def test_a_tenant_that_floods_the_worker_holds_up_no_other(working: Any) -> None:
    """More programs wait than a worker has activities at once."""
    flooding = ExecuteRequest(code="import time\ntime.sleep(0.25)\n1", tenant_id="a")
    async with working(parallel=2, parallel_per_tenant=1) as client:
        flood = await asyncio.gather(*(client.start_execute(flooding) for _ in range(80)))
        ended = [asyncio.create_task(handle.result()) for handle in flood]
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        for number in range(3):
            other = await client.execute(ExecuteRequest(code=f"{number}", tenant_id="b"))
            assert _value(other) == number
        done = sum(task.done() for task in ended)
        # One place of the two was the other tenant's all the time: a part of the flood is still waiting.
        assert done < len(ended), done
        # One that comes to its end meanwhile refuses it.
        await asyncio.gather(
            *(handle.raw.terminate() for handle, task in zip(flood, ended, strict=True) if not task.done()),
            return_exceptions=True,
        )
        await asyncio.gather(*ended, return_exceptions=True)


async def test_of_one_tenant_few_wait_in_the_worker_and_others_find_a_place() -> None:
    program_slots = ProgramSlots(2, 1, patience=60.0)

    async def hold() -> None:
        async with program_slots.hold("a"):
            pass

    async with program_slots.hold("a"):
        waiting = [asyncio.create_task(hold()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(SandboxBusyError, match="all places are taken: 2 in this worker, 1 of them"):
            await hold()
        async with program_slots.hold("b"):
            assert not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)


async def test_waiting_long_for_a_place_is_no_failure(working: Any) -> None:
    code = "import time\ntime.sleep(1.5)\n1"
    async with working(parallel=1) as client:
        handles = [await client.start_execute(ExecuteRequest(code=code, tenant_id="a")) for _ in range(3)]
        found = [await handle.result() for handle in handles]
        events = [event for handle in handles async for event in handle.raw.fetch_history_events()]
    assert [response.status for response in found] == [Status.OK] * 3
    assert any(event.HasField("timer_fired_event_attributes") for event in events)


async def test_the_same_workflow_id_is_one_run(working: Any) -> None:
    name = f"code/{uuid.uuid4()}"
    request = ExecuteRequest(code="import random\nrandom.random()")
    async with working() as client:
        handles = await asyncio.gather(
            *(
                client.start_execute(request, id=name, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING)
                for _ in range(5)
            )
        )
        results = [_value(await handle.result()) for handle in handles]
    assert len(set(results)) == 1


async def test_histories_replay(working: Any) -> None:
    async with working() as client:
        handle = await client.start_execute(ExecuteRequest(code="21 * 2"))
        await handle.result()
        history = await handle.raw.fetch_history()
    replayer = Replayer(
        workflows=[ExecuteWorkflow], plugins=[ContextWorkerPlugin()], workflow_runner=SandboxedWorkflowRunner()
    )
    await replayer.replay_workflow(history)
