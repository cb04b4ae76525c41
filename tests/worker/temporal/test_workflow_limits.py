"""What does not work in workflows: each entry of docs/explanation/workflow-limits.md, on a real server."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from contextunity.gen.contextunity.harvest.v1 import HarvestResponse, harvest_pb2
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.converter import PayloadCodec
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Replayer, Worker

from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.temporal.converter import data_converter
from contextunity.worker.temporal.errors import PAYLOAD_TOO_LARGE, PayloadTooLargeError
from contextunity.worker.temporal.failure_interceptor import TASKS_FAILED
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_PAGE = Path(__file__).parents[3] / "docs/explanation/workflow-limits.md"
_LARGE = 3 * 1024 * 1024
_LIMIT = 2 * 1024 * 1024

_PARTS = """\
import builtins

if hasattr(builtins, __name__):
    raise ImportError("cannot load module more than once per process")
setattr(builtins, __name__, True)
total = sum
"""
"""Stands for what libraries such as numpy load at first use."""
_LAZY = """\
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import {library} as library

STATE = {state}

@workflow.defn
class Lazy:
    @workflow.run
    async def run(self) -> int:
        return library.total([1, 2])
"""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "sandboxed"))
    return importlib.import_module("limit_steps")


@pytest_asyncio.fixture
async def client(temporal_server: EmbeddedServer) -> Client:
    return await Client.connect(temporal_server.address, plugins=[ContextWorkerPlugin()])


@contextlib.asynccontextmanager
async def _running(client: Client, steps: Any) -> AsyncIterator[str]:
    queue = f"limits-{uuid.uuid4()}"
    async with Worker(client, task_queue=queue, workflows=steps.WORKFLOWS, activities=steps.ACTIVITIES):
        yield queue


async def _start(client: Client, queue: str, workflow_type: str, *args: Any) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(workflow_type, args=args, id=f"{workflow_type}-{uuid.uuid4()}", task_queue=queue)


async def _failure(handle: WorkflowHandle[Any, Any]) -> BaseException:
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    return caught.value.cause


async def _task_failure(handle: WorkflowHandle[Any, Any]) -> str:
    """What the first workflow task of a run failed with."""
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.HasField("workflow_task_failed_event_attributes"):
            return event.workflow_task_failed_event_attributes.failure.message
    raise AssertionError("the run ended without")


@pytest.mark.parametrize(
    ("way", "whose", "field"),
    [
        pytest.param(
            *("activity", "the input of activity 'measure'", "'feed.supplier_code' of a FetchProductsResponse"),
            id="activity",
        ),
        pytest.param("local activity", "the input of activity 'measure'", "'harvest_id'", id="local activity"),
        pytest.param("activity result", "a result or message of activity 'grow'", "'harvest_id'", id="activity result"),
        pytest.param("heartbeat", "a result or message of activity 'beat'", "a str, with 3,145,", id="heartbeat"),
        pytest.param("child", "the input of workflow 'Receives'", "'harvest_id'", id="child"),
        pytest.param("signal", "the input of signal 'note'", "'harvest_id'", id="signal"),
        pytest.param("next run", "the input of the next run of workflow 'Sends'", "'harvest_id'", id="next run"),
        pytest.param("result", "a result or message of workflow 'Sends'", "'harvest_id'", id="result"),
    ],
)
async def test_what_is_too_large_fails_the_workflow_at_once_and_is_named(
    client: Client, steps: Any, way: str, whose: str, field: str
) -> None:
    async with _running(client, steps) as queue:
        handle = await _start(client, queue, "Sends", way)
        cause = await _failure(handle)
        if isinstance(cause, ActivityError):
            assert cause.cause is not None
            cause = cause.cause
        assert isinstance(cause, ApplicationError)
        assert (cause.type, cause.non_retryable) == (PAYLOAD_TOO_LARGE, True)
        assert f"{whose} has 3,145," in cause.message
        assert "Temporal takes 2,097,152 at most" in cause.message
        assert field in cause.message
        history = await handle.fetch_history()
    # Nothing was repeated, and the same code finds the same end.
    assert not [each for each in history.events if each.HasField("workflow_task_failed_event_attributes")]
    await Replayer(workflows=steps.WORKFLOWS, plugins=[ContextWorkerPlugin()]).replay_workflow(history)


async def test_a_workflow_may_handle_it_and_go_on(client: Client, steps: Any) -> None:
    async with _running(client, steps) as queue:
        handle = await _start(client, queue, "Catches")
        assert await handle.result() == f"{PAYLOAD_TOO_LARGE} xxx"
        history = await handle.fetch_history()
    await Replayer(workflows=steps.WORKFLOWS, plugins=[ContextWorkerPlugin()]).replay_workflow(history)


async def test_clients_and_handlers_are_told_too(client: Client, steps: Any) -> None:
    large = HarvestResponse(harvest_id="x" * _LARGE)
    async with _running(client, steps) as queue:
        with pytest.raises(PayloadTooLargeError, match="the largest part is the field 'harvest_id'"):
            await _start(client, queue, "Sends", large)
        handle = await _start(client, queue, "Receives")
        with pytest.raises(PayloadTooLargeError):
            await handle.signal("finish", large)
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update("grow", _LARGE)
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.type == PAYLOAD_TOO_LARGE
        answer = await handle.execute_update("grow", 3, result_type=HarvestResponse)
        assert answer.harvest_id == "xxx"
        await handle.signal("finish")
        await handle.result()
        sends = await _start(client, queue, "Sends", "result")
        await _failure(sends)
        with pytest.raises(WorkflowQueryFailedError, match="the largest part is the field 'harvest_id'"):
            await sends.query("ask", _LARGE)


async def test_a_failure_that_is_too_large_is_cut(client: Client, steps: Any) -> None:
    async with _running(client, steps) as queue:
        cause = await _failure(await _start(client, queue, "Sends", "failure"))
        assert isinstance(cause, ApplicationError)
        assert cause.type == "Long"
        assert re.fullmatch(r"(Long: )?y+ … \(cut: the failure had 3,1\d\d,\d\d\d bytes\)", cause.message)
        cause = await _failure(await _start(client, queue, "Sends", "details"))
        assert isinstance(cause, ActivityError)
        assert isinstance(cause.cause, ApplicationError)
        assert (cause.cause.type, cause.cause.non_retryable) == ("AtLength", True)
        assert "it went wrong (without its details: " in cause.cause.message


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (1, False)])
def test_the_limit_counts_as_the_server_does(spare: int, fits: bool) -> None:
    converter = data_converter.payload_converter

    def size(length: int) -> int:
        data = harvest_pb2.HarvestResponse(harvest_id="x" * length).SerializeToString()
        payload = Payload(
            metadata={"encoding": b"binary/protobuf", "messageType": b"contextunity.harvest.v1.HarvestResponse"},
            data=data,
        )
        return Payloads(payloads=[payload]).ByteSize()

    length = _LIMIT - 200
    length += _LIMIT - size(length)
    assert size(length) == _LIMIT
    message = HarvestResponse(harvest_id="x" * (length + spare))
    if fits:
        assert len(converter.to_payloads([message])) == 1
    else:
        with pytest.raises(PayloadTooLargeError) as caught:
            converter.to_payloads([message])
        assert (caught.value.size, caught.value.limit) == (_LIMIT + 1, _LIMIT)


def test_the_largest_of_several_values_is_named() -> None:
    with pytest.raises(PayloadTooLargeError, match="is value 2, a list, with 2,5"):
        data_converter.payload_converter.to_payloads(["a", ["x" * 2_500_000], HarvestResponse()])
    with pytest.raises(PayloadTooLargeError, match="the field 'harvest_id' of a HarvestResponse"):
        data_converter.payload_converter.to_payloads([harvest_pb2.HarvestResponse(harvest_id="x" * _LARGE)])


async def test_what_a_codec_makes_smaller_is_not_held_against_the_limit() -> None:
    class Shrinks(PayloadCodec):
        async def encode(self, payloads: Any) -> list[Payload]:
            return [Payload(data=each.data[:10]) for each in payloads]

        async def decode(self, payloads: Any) -> list[Payload]:
            return list(payloads)

    converter = replace(data_converter, payload_codec=Shrinks())
    (payload,) = await converter.encode([HarvestResponse(harvest_id="x" * _LARGE)])
    assert len(payload.data) == 10
    with pytest.raises(PayloadTooLargeError):
        await replace(
            converter, payload_codec=None, payload_converter_class=data_converter.payload_converter_class
        ).encode([HarvestResponse(harvest_id="x" * _LARGE)])


async def test_a_group_fails_the_workflow_with_what_its_tasks_failed_with(client: Client, steps: Any) -> None:
    async with _running(client, steps) as queue:
        cause = await _failure(await _start(client, queue, "Groups", ["Stock"]))
        assert isinstance(cause, ActivityError)
        assert isinstance(cause.cause, ApplicationError)
        assert (cause.cause.type, cause.cause.message) == ("Stock", "no Stock")
        cause = await _failure(await _start(client, queue, "Groups", ["at once", "at once"]))
        assert isinstance(cause, ApplicationError)
        assert (cause.type, cause.message) == (
            TASKS_FAILED,
            "2 tasks of a group failed: Time: no time; Time: no time",
        )
        assert isinstance(cause.cause, ApplicationError)
        assert cause.cause.type == "Time"
        assert await (await _start(client, queue, "Splits")).result() == "1 failed"
        handle = await _start(client, queue, "Receives")
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update("gather", ["Stock"])
        assert isinstance(caught.value.cause, ActivityError)
        await handle.signal("finish")
        await handle.result()


async def test_a_mistake_in_a_group_fails_the_task_by_its_own_name(client: Client, steps: Any) -> None:
    async with _running(client, steps) as queue:
        handle = await _start(client, queue, "Groups", ["Stock", "mistake"])
        assert await _task_failure(handle) == "'mistake'"
        await handle.terminate()


async def test_time_zones_are_those_of_the_process(client: Client, steps: Any) -> None:
    async with _running(client, steps) as queue:
        handle = await _start(client, queue, "Zones", datetime(2026, 7, 1, 12, tzinfo=UTC))
        assert await handle.result() == "2026-07-01T14:00:00+02:00 UTC"


@pytest.mark.parametrize("state", [pytest.param("()", id="one import"), pytest.param("[]", id="import for each run")])
async def test_a_library_under_imports_passed_through_loads_its_parts_outside_of_the_sandbox(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    library = "lazy_library_once" if state == "()" else "lazy_library_each"
    (tmp_path / library).mkdir()
    (tmp_path / library / "__init__.py").write_text(
        "def total(values):\n    from .parts import total\n    return total(values)\n"
    )
    (tmp_path / library / "parts.py").write_text(_PARTS)
    (tmp_path / f"uses_{library}.py").write_text(_LAZY.format(library=library, state=state))
    monkeypatch.syspath_prepend(str(tmp_path))
    uses, queue = importlib.import_module(f"uses_{library}"), f"lazy-{uuid.uuid4()}"
    with caplog.at_level(logging.INFO, "shared_import_sandbox"):
        async with Worker(client, task_queue=queue, workflows=[uses.Lazy]):
            assert ("imported once, for all runs" in caplog.text) is (state == "()")
            for _ in range(2):
                assert await (await _start(client, queue, "Lazy")).result() == 3


async def test_a_class_derived_from_a_restricted_one_is_warned_of_at_the_start(
    client: Client, steps: Any, caplog: pytest.LogCaptureFixture
) -> None:
    derived = importlib.import_module("derived_steps")
    queue = f"derived-{uuid.uuid4()}"
    with caplog.at_level(logging.WARNING, "shared_import_sandbox"):
        async with Worker(client, task_queue=queue, workflows=[derived.Stamps]):
            warnings = [each.getMessage() for each in caplog.records if each.name == "shared_import_sandbox"]
            assert any(
                "derived_steps.Stamp is derived from a class that the sandbox restricts" in each for each in warnings
            )
            handle = await _start(client, queue, "Stamps")
            assert "Using subclasses of proxied objects is unsupported" in await _task_failure(handle)
            await handle.terminate()


def test_each_entry_of_the_page_is_tested_here() -> None:
    headings = re.findall(r"^## (.+)$", _PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [
        "Inputs and results over 2 MiB",
        "Task groups",
        "Exceptions that are mistakes",
        "Classes derived from datetime",
        "Time zones",
        "Libraries that cannot be imported twice",
    ]
