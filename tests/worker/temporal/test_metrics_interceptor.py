"""What workers measure of starts: once for each, whatever becomes of its first task."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from temporalio import workflow
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.settings import Settings
from contextunity.worker.temporal import metrics_interceptor
from contextunity.worker.temporal.client import connect


class _Seconds:
    """Stands for the histogram, which only a process that serves metrics has."""

    def __init__(self) -> None:
        self.observed = list[tuple[float, str]]()

    def observe(self, value: float, *, workflow_type: str, tenant: str) -> None:
        self.observed.append((value, workflow_type))


_failed = set[str]()


@workflow.defn(name="child")
class _Child:
    @workflow.run
    async def run(self) -> None:
        return


@workflow.defn(name="parent")
class _Parent:
    """Fails its first task, waits, starts a child, and goes on as another run."""

    @workflow.run
    async def run(self, is_last: bool) -> None:
        run_id = workflow.info().run_id
        if run_id not in _failed:
            _failed.add(run_id)
            raise RuntimeError("a slip, which fails the task and not the workflow")
        await workflow.sleep(0.001)
        await workflow.execute_child_workflow(_Child.run, id=f"child-{workflow.uuid4()}")
        if not is_last:
            workflow.continue_as_new(True)


async def test_a_start_is_measured_once(temporal_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: Any = _Seconds()
    monkeypatch.setattr(metrics_interceptor, "START_SECONDS", seconds)
    client = await connect(Settings(), address=temporal_server.address)
    name = f"starts-{uuid.uuid4()}"
    async with Worker(
        client,
        task_queue=name,
        workflows=[_Parent, _Child],
        workflow_runner=UnsandboxedWorkflowRunner(),
        # Each task but the first is a replay.
        max_cached_workflows=0,
    ):
        await client.execute_workflow(_Parent.run, False, id=name, task_queue=name)
    ((value, workflow_type),) = seconds.observed
    assert workflow_type == "parent"
    assert value > 0
    assert len(_failed) == 2
