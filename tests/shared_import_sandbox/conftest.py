"""Workers with either sandbox, and workflow modules written for one test."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.temporal.plugin import PASSTHROUGH_MODULES, ContextWorkerPlugin
from shared_import_sandbox import sandboxed_runner

_FOLDER = Path(__file__).parent / "sandboxed"
_numbers = itertools.count()


@pytest_asyncio.fixture
async def client(temporal_server: EmbeddedServer) -> Client:
    return await Client.connect(temporal_server.address, plugins=[ContextWorkerPlugin()])


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a file of workflows; pytest rewrites none of its assertions, so the sandbox finds it as it is."""
    monkeypatch.syspath_prepend(str(_FOLDER))
    return importlib.import_module


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Writes a module beneath a workflow class `Flow`, and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> Any:
        name = f"written_{next(_numbers)}"
        flow = """
            from temporalio import workflow

            @workflow.defn(name="Flow")
            class Flow:
                @workflow.run
                async def run(self) -> str:
                    return "done"
        """
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text) + textwrap.dedent(flow))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return write


def sharing_runner(*passthrough: str) -> Any:
    """Ours; it has to be ours, or the tests would compare the SDK's with itself."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PASSTHROUGH_MODULES, *passthrough)
    runner = sandboxed_runner(restrictions)
    assert type(runner) is not SandboxedWorkflowRunner
    return runner


def stock_runner() -> SandboxedWorkflowRunner:
    """The SDK's. The plugin leaves derived classes alone, so it stays what it is."""

    class Stock(SandboxedWorkflowRunner):
        pass

    return Stock()


def prepared(runner: Any, workflow_class: type) -> Any:
    """What a runner knows of a workflow's module after it looked at it as a worker does."""
    runner.prepare_workflow(workflow._Definition.must_from_class(workflow_class))
    return runner._shared[workflow_class.__module__]


@contextlib.asynccontextmanager
async def running(client: Client, workflows: Sequence[type], runner: Any = None, **options: Any) -> AsyncIterator[str]:
    """A worker, and its task queue."""
    queue = f"sandbox-{uuid.uuid4()}"
    if runner is not None:
        options["workflow_runner"] = runner
    async with Worker(client, task_queue=queue, workflows=workflows, **options):
        yield queue


async def result_of(client: Client, queue: str, name: str, *arguments: Any) -> Any:
    return await client.execute_workflow(name, args=arguments, id=f"sandbox-{uuid.uuid4()}", task_queue=queue)


async def first_task_failure(handle: WorkflowHandle[Any, Any]) -> str:
    """What the first workflow task that fails, sooner or later, fails with."""
    async with asyncio.timeout(30):
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                return event.workflow_task_failed_event_attributes.failure.message
    raise AssertionError("the workflow ended without a failed task")
