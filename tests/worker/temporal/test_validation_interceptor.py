"""Rules of the protos, and types, bind whoever sends: what a worker does with input that it cannot take."""

from __future__ import annotations

import contextlib
import importlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from contextunity.gen.contextunity.harvest.v1 import FetchProductsRequest, HarvestRequest, SetPageSizeRequest
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowHistory,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Replayer, Worker

from contextunity.core import validation
from contextunity.core.errors import CodecError
from contextunity.modules.harvest.workflows import HarvestWorkflow
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.temporal.errors import INVALID_INPUT
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_GOOD = HarvestRequest(supplier_code="camping-trade")
_BAD = HarvestRequest(supplier_code="", page_size=5000)
_BAD_FIELDS = {"supplier_code", "page_size"}
_BAD_SIZE = SetPageSizeRequest(page_size=5000)
_TYPE = b"contextunity.harvest.v1.HarvestRequest"

Handle = WorkflowHandle[Any, Any]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "sandboxed"))
    return importlib.import_module("receiving_steps")


@contextlib.asynccontextmanager
async def _worker(client: Client, steps: Any) -> AsyncIterator[str]:
    queue = f"receiving-{uuid.uuid4()}"
    async with Worker(
        client, task_queue=queue, workflows=[*steps.WORKFLOWS, HarvestWorkflow], activities=steps.ACTIVITIES
    ):
        yield queue


@pytest_asyncio.fixture
async def client(temporal_server: EmbeddedServer) -> Client:
    return await Client.connect(temporal_server.address, plugins=[ContextWorkerPlugin()])


async def _replay(steps: Any, history: WorkflowHistory) -> None:
    await Replayer(workflows=steps.WORKFLOWS, plugins=[ContextWorkerPlugin()]).replay_workflow(history)


def _refused(error: BaseException | None, fields: set[str] | None = None) -> ApplicationError:
    assert isinstance(error, ApplicationError)
    assert (error.type, error.non_retryable) == (INVALID_INPUT, True)
    if fields is not None:
        assert {each["field"] for each in error.details[0]} == fields
        assert all(field in error.message for field in fields)
    return error


async def test_a_workflow_fails_with_every_violation_and_is_not_retried(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        handle: Handle = await client.start_workflow(
            "Receiver", _BAD, id=queue, task_queue=queue, retry_policy=RetryPolicy(maximum_attempts=3)
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        _refused(caught.value.cause, _BAD_FIELDS)
        history = await handle.fetch_history()
    await _replay(steps, history)


async def test_what_was_refused_stays_refused_when_the_rules_are_loosened(
    client: Client, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _worker(client, steps) as queue:
        refused: Handle = await client.start_workflow("Receiver", _BAD, id=f"{queue}/1", task_queue=queue)
        with pytest.raises(WorkflowFailureError):
            await refused.result()
        signalled: Handle = await client.start_workflow("Receiver", _GOOD, id=f"{queue}/2", task_queue=queue)
        await signalled.signal("resize", _BAD_SIZE)
        await signalled.signal("finish")
        assert await signalled.result() == []
        histories = [await refused.fetch_history(), await signalled.fetch_history()]
    monkeypatch.setattr(validation, "check", lambda message: None)
    for history in histories:
        await _replay(steps, history)


async def test_what_was_taken_stays_taken_when_the_rules_are_tightened(
    client: Client, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _worker(client, steps) as queue:
        handle: Handle = await client.start_workflow("Receiver", _GOOD, id=queue, task_queue=queue)
        await handle.signal("resize", SetPageSizeRequest(page_size=3))
        for update in ("checked", "unchecked"):
            assert await handle.execute_update(update, SetPageSizeRequest(page_size=4)) == 4
        await handle.signal("finish")
        assert await handle.result() == [3]
        history = await handle.fetch_history()

    def refuse(message: object) -> None:
        if isinstance(message, HarvestRequest | SetPageSizeRequest):
            raise CodecError("nothing is good enough any more")

    monkeypatch.setattr(validation, "check", refuse)
    await _replay(steps, history)


async def test_a_signal_is_told_in_the_log_and_passed_over(
    client: Client, steps: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with _worker(client, steps) as queue:
        handle: Handle = await client.start_workflow("Receiver", _GOOD, id=queue, task_queue=queue)
        for size in (3, 5000, 4):
            await handle.signal("resize", SetPageSizeRequest(page_size=size))
        await handle.signal("resize", _GOOD)  # Of another type altogether.
        await handle.signal("finish")
        assert await handle.result() == [3, 4]
        history = await handle.fetch_history()
    assert "signal 'resize' is ignored: contextunity.harvest.v1.SetPageSizeRequest: page_size: " in caplog.text
    await _replay(steps, history)


async def test_an_update_is_rejected_and_a_query_fails(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        handle: Handle = await client.start_workflow("Receiver", _GOOD, id=queue, task_queue=queue)
        with pytest.raises(WorkflowUpdateFailedError) as rejected:
            await handle.execute_update("checked", _BAD_SIZE)
        _refused(rejected.value.cause, {"page_size"})
        with pytest.raises(WorkflowUpdateFailedError, match="failed") as own:
            await handle.execute_update("checked", SetPageSizeRequest(page_size=7))
        assert "taste" in str(own.value.cause)
        assert not _updates(await handle.fetch_history())
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await handle.execute_update("unchecked", _BAD_SIZE)
        _refused(failed.value.cause, {"page_size"})
        assert len(_updates(await handle.fetch_history())) == 2, "accepted and completed, for want of a validator"
        with pytest.raises(WorkflowQueryFailedError, match="page_size"):
            await handle.query("fits", _BAD_SIZE)
        assert await handle.query("fits", SetPageSizeRequest(page_size=1))
        await handle.signal("finish")
        assert await handle.result() == []
        history = await handle.fetch_history()
    await _replay(steps, history)


async def test_updates_of_contracts_leave_no_history_when_rejected(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        handle: Handle = await client.start_workflow("harvest", _GOOD, id=queue, task_queue=queue)
        with pytest.raises(WorkflowUpdateFailedError) as rejected:
            await handle.execute_update("set_page_size", _BAD_SIZE)
        _refused(rejected.value.cause, {"page_size"})
        assert not _updates(await handle.fetch_history())
        await handle.terminate()


def _updates(history: WorkflowHistory) -> list[Any]:
    return [event for event in history.events if "update" in (event.WhichOneof("attributes") or "")]


async def test_an_activity_fails_with_every_violation_and_is_not_retried(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        with pytest.raises(WorkflowFailureError) as caught:
            await client.execute_workflow("Sender", "", id=queue, task_queue=queue)
    assert isinstance(caught.value.cause, ActivityError)
    _refused(caught.value.cause.cause, _BAD_FIELDS)


async def test_an_activity_that_cannot_read_its_input_is_not_retried(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        with pytest.raises(WorkflowFailureError) as caught:
            await client.execute_workflow("Mistaken", id=queue, task_queue=queue)
    assert isinstance(caught.value.cause, ActivityError)
    error = _refused(caught.value.cause.cause)
    assert "SetPageSizeRequest, but the code that decodes it expects contextunity.harvest.v1.Harv" in error.message


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        pytest.param(FetchProductsRequest(), "FetchProductsRequest", id="another type"),
        pytest.param(
            RawValue(Payload(metadata={"encoding": b"binary/protobuf", "messageType": _TYPE}, data=b"\x0a\xff")),
            "HarvestRequest",
            id="broken bytes",
        ),
        pytest.param(None, "is null", id="null"),
        pytest.param({"supplierCode": 7}, "supplier_code", id="wrong JSON"),
        pytest.param(RawValue(Payload(metadata={"encoding": b"secret/box"})), "secret/box", id="unknown encoding"),
    ],
)
async def test_a_workflow_that_cannot_read_its_input_fails(client: Client, steps: Any, sent: object, told: str) -> None:
    async with _worker(client, steps) as queue:
        with pytest.raises(WorkflowFailureError) as caught:
            await client.execute_workflow(
                "Receiver", sent, id=queue, task_queue=queue, retry_policy=RetryPolicy(maximum_attempts=3)
            )
    assert told in _refused(caught.value.cause).message
