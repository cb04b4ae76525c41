"""Workers that go by another contract than the service does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.worker import Worker

from .conftest import Desk, Refusal


@workflow.defn(name="work", sandboxed=False)
class _Other:
    def __init__(self) -> None:
        self.finished = False

    @workflow.run
    async def run(self, _: RawValue) -> str:
        await workflow.wait_condition(lambda: self.finished)
        return "done"

    @workflow.query
    def progress(self) -> str:
        return "half"

    @workflow.query
    def recall(self, _: RawValue) -> int:
        return 5

    @workflow.update
    async def rename(self, _: RawValue) -> list[int]:
        return [1]

    @workflow.signal
    def finish(self) -> None:
        self.finished = True


def _steer(desk: Desk, workflow_id: str, token: str) -> dict[str, Any]:
    task = {"workflow_id": workflow_id}
    for method, payload in {
        "QueryTask": {"query": "recall", "args": {"index": 0}},
        "UpdateTask": {"update": "rename", "args": {"name": "b"}},
    }.items():
        with pytest.raises(Refusal) as caught:
            desk.call(method, {**task, **payload}, token=token)
        assert caught.value.reason == "ANSWER_UNREADABLE"
        assert caught.value.metadata["workflow_id"] == workflow_id
    running = desk.status(workflow_id, token=token)
    assert running["status"] == "running"
    assert "progress" not in running
    desk.call("SignalTask", {**task, "signal": "finish"}, token=token)
    return desk.wait(workflow_id, token)


async def test_what_its_worker_answers_otherwise_is_told_and_does_not_hide_the_task(desk: Desk) -> None:
    token = desk.token("other")
    client = await Client.connect(desk.temporal.address)
    async with Worker(client, task_queue="desk/other", workflows=[_Other]):
        workflow_id = await asyncio.to_thread(desk.start, token=token, name="a", task_queue="desk/other")
        ended = await asyncio.to_thread(_steer, desk, workflow_id, token)
    assert ended["status"] == "completed"
    assert "result" not in ended
    assert "contract" in ended["notice"]
