"""The context of the work at hand, from a client through workflows, activities, children and continued runs."""

from __future__ import annotations

import contextlib
import importlib
import logging
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import Payload
from temporalio.api.nexus.v1 import EndpointSpec, EndpointTarget
from temporalio.api.operatorservice.v1 import CreateNexusEndpointRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    WithStartWorkflowOperation,
    WorkflowHandle,
)
from temporalio.common import Priority, WorkflowIDConflictPolicy
from temporalio.worker import Replayer, Worker

from contextunity.core import context
from contextunity.core.context import TaskContext
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.temporal.context_interceptor import context_headers
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from contextunity.worker.temporal.search_attributes import bound_attributes
from contextunity.worker.temporal.tenancy import fairness_key

_CALLER = TaskContext(trace_id="trace", unit_id="unit", tenant_id="acme", provenance=["shop:click"], principal="ann")


@contextlib.asynccontextmanager
async def _worker(client: Client, steps: Any) -> AsyncIterator[str]:
    queue = f"context-{uuid.uuid4()}"
    with ThreadPoolExecutor(2) as executor:
        async with Worker(
            client,
            task_queue=queue,
            workflows=steps.WORKFLOWS,
            activities=steps.ACTIVITIES,
            nexus_service_handlers=[steps.DeskHandler()],
            activity_executor=executor,
        ):
            yield queue


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "sandboxed"))
    return importlib.import_module("context_steps")


@pytest_asyncio.fixture
async def client(temporal_server: EmbeddedServer) -> Client:
    return await Client.connect(temporal_server.address, plugins=[ContextWorkerPlugin()])


async def test_it_goes_all_the_way_and_into_the_logs(
    client: Client, steps: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    traces: set[tuple[str, str]] = set()

    class Collector(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.name in ("temporalio.workflow", "temporalio.activity"):
                traces.add((str(record.msg).split(" (")[0], context.current().trace_id))
            return True

    collector = Collector()
    caplog.handler.addFilter(collector)
    async with _worker(client, steps) as queue:
        with context.using(_CALLER):
            handle: WorkflowHandle[Any, Any] = await client.start_workflow(
                "Chain", args=[3, []], id=queue, task_queue=queue, search_attributes=bound_attributes("acme", "unit")
            )
        seen: list[dict[str, Any]] = await handle.result()
    caplog.handler.removeFilter(collector)

    chain = ["shop:click", f"{queue}:Chain"]
    steps = {
        "constructor": chain,
        "condition": chain,
        "workflow": chain,
        "activity": [*chain, f"{queue}:look"],
        "thread": [*chain, f"{queue}:look_from_thread"],
        "leaf": [*chain, f"{queue}:Leaf"],
        "end": chain,
    }
    assert len(seen) == 3 * 7 + 1
    for each in seen:
        known = (each["trace_id"], each["tenant_id"], each["unit_id"], each["principal"])
        assert known == ("trace", "acme", "unit", "ann"), each
        assert each["provenance"] == steps[each["where"]]
        assert each.get("bound_to", "acme") == "acme", each
    messages = {"chain", "leaf", "looking", "looking from a thread"}
    assert traces >= {(message, "trace") for message in messages}
    assert context.current() == TaskContext()


async def test_replays_find_the_same(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        with context.using(_CALLER):
            handle: WorkflowHandle[Any, Any] = await client.start_workflow(
                "Chain", args=[2, []], id=queue, task_queue=queue, search_attributes=bound_attributes("acme")
            )
        await handle.result()
        first = client.get_workflow_handle(queue, run_id=handle.result_run_id)
        histories = [await first.fetch_history(), await client.get_workflow_handle(queue).fetch_history()]
    replayer = Replayer(workflows=steps.WORKFLOWS, plugins=[ContextWorkerPlugin()])
    for history in histories:
        await replayer.replay_workflow(history)


@pytest.mark.parametrize("tenant", ["acme", "a" * 200])
@pytest.mark.parametrize("started_with", ["", "key"])
async def test_all_that_a_workflow_schedules_waits_under_its_tenants_key(
    client: Client, steps: Any, tenant: str, started_with: str
) -> None:
    key = fairness_key(tenant)
    async with _worker(client, steps) as queue:
        handle: WorkflowHandle[Any, Any] = await client.start_workflow(
            "Chain",
            args=[1, []],
            id=queue,
            task_queue=queue,
            search_attributes=bound_attributes(tenant),
            # Without one it was started by an earlier version of the service.
            priority=Priority(fairness_key=key) if started_with else Priority.default,
        )
        await handle.result()
        events = (await handle.fetch_history()).events
        child = client.get_workflow_handle(f"{handle.result_run_id}/child")
        first = (await child.fetch_history()).events[0].workflow_execution_started_event_attributes
    scheduled = [
        each.activity_task_scheduled_event_attributes
        for each in events
        if each.HasField("activity_task_scheduled_event_attributes")
    ]
    own = events[0].workflow_execution_started_event_attributes.priority.fairness_key
    assert len(scheduled) == 2
    assert {each.priority.fairness_key or own for each in scheduled} == {key}
    assert first.priority.fairness_key == key


async def test_without_a_caller_the_first_run_gives_the_trace(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        handle: WorkflowHandle[Any, Any] = await client.start_workflow(
            "Chain", args=[2, []], id=queue, task_queue=queue
        )
        seen = await handle.result()
    assert {each["trace_id"] for each in seen} == {handle.result_run_id}
    assert {each["tenant_id"] for each in seen} == {""}
    assert seen[-1]["provenance"] == [f"{queue}:Chain"]


async def test_what_an_activity_starts_belongs_to_the_same_trace(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        with context.using(_CALLER):
            seen: dict[str, Any] = await client.execute_workflow("Starter", id=queue, task_queue=queue)
    assert seen["trace_id"] == "trace"
    steps = ("Starter", "start_another", "Leaf")
    assert seen["provenance"] == ["shop:click", *(f"{queue}:{step}" for step in steps)]


async def test_handlers_have_their_callers_context_for_the_workflows_tenant(client: Client, steps: Any) -> None:
    other = TaskContext(trace_id="other", tenant_id="foreign", provenance=["admin:ask"], principal="bob")
    async with _worker(client, steps) as queue:
        with context.using(_CALLER):
            handle: WorkflowHandle[Any, Any] = await client.start_workflow("Listener", id=queue, task_queue=queue)
        with context.using(other):
            await handle.signal("hear", "signal")
            updated: dict[str, Any] = await handle.execute_update("ask")
            queried: dict[str, Any] = await handle.query("peek")
        unasked: dict[str, Any] = await handle.query("peek")
        with context.using(other):
            await client.execute_workflow("Caller", queue, id=f"{queue}/caller", task_queue=queue)
        signalled, acted, last, in_run = await handle.result()
    own = f"{queue}:Listener"
    for each, way in (
        (signalled, ["admin:ask", own]),
        (acted, ["admin:ask", own, f"{queue}:look"]),
        (updated, ["admin:ask", own]),
        (queried, ["admin:ask", own]),
        (last, ["admin:ask", f"{queue}:Caller", own]),
    ):
        assert (each["trace_id"], each["principal"], each["tenant_id"]) == ("other", "bob", "acme"), each
        assert each["provenance"] == way
    for each in (unasked, in_run):
        assert (each["trace_id"], each["provenance"]) == ("trace", ["shop:click", own])


async def test_a_signal_to_a_child_carries_it(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        with context.using(_CALLER):
            signalled, in_run = await client.execute_workflow("Parent", id=queue, task_queue=queue)
    way = ["shop:click", f"{queue}:Parent", f"{queue}:Listener"]
    assert (signalled["trace_id"], signalled["provenance"]) == ("trace", way)
    assert in_run["provenance"] == way


async def test_an_update_that_starts_its_workflow_carries_it(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            "Listener", id=queue, task_queue=queue, id_conflict_policy=WorkflowIDConflictPolicy.FAIL
        )
        with context.using(_CALLER):
            updated: dict[str, Any] = await client.execute_update_with_start_workflow(
                "ask", start_workflow_operation=start
            )
        handle = await start.workflow_handle()
        await handle.signal("hear", "end")
        _, in_run = await handle.result()
    for each in (updated, in_run):
        assert (each["trace_id"], each["provenance"]) == ("trace", ["shop:click", f"{queue}:Listener"])


async def test_an_activity_without_a_workflow_has_it(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        with context.using(_CALLER):
            seen = await client.execute_activity(
                steps.look, id=queue, task_queue=queue, start_to_close_timeout=timedelta(seconds=30)
            )
    assert (seen["trace_id"], seen["provenance"]) == ("trace", ["shop:click", f"{queue}:look"])


async def test_an_operation_of_nexus_has_it(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        target = EndpointTarget(worker=EndpointTarget.Worker(namespace=client.namespace, task_queue=queue))
        endpoint = EndpointSpec(name=queue, target=target)
        await client.operator_service.create_nexus_endpoint(CreateNexusEndpointRequest(spec=endpoint))
        with context.using(_CALLER):
            seen: dict[str, Any] = await client.execute_workflow("Visitor", queue, id=queue, task_queue=queue)
    assert (seen["where"], seen["trace_id"], seen["tenant_id"]) == ("desk", "trace", "acme")
    assert seen["provenance"] == ["shop:click", f"{queue}:Visitor", f"{queue}:Desk/look"]


async def test_the_bound_tenant_counts_before_the_headers(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        with context.using(_CALLER):
            seen: dict[str, Any] = await client.execute_workflow(
                "Leaf", id=queue, task_queue=queue, search_attributes=bound_attributes("bound")
            )
    assert seen["tenant_id"] == "bound"


async def test_a_header_that_cannot_be_read_is_told_and_passed_over(
    client: Client, steps: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with _worker(client, steps) as queue:
        action = ScheduleActionStartWorkflow("Leaf", id=queue, task_queue=queue)
        action.headers = {context.HEADER: Payload(metadata={"encoding": b"binary/protobuf"}, data=b"\x0a\xff")}
        seen = await _run_of(client, Schedule(action=action, spec=ScheduleSpec()))
    assert seen["provenance"] == [f"{queue}:Leaf"]
    assert "the header contextunity-context cannot be decoded" in caplog.text


async def test_a_schedules_runs_have_its_makers_tenant_and_traces_of_their_own(client: Client, steps: Any) -> None:
    async with _worker(client, steps) as queue:
        action = ScheduleActionStartWorkflow("Leaf", id=queue, task_queue=queue)
        with context.using(_CALLER):
            seen = await _run_of(client, Schedule(action=action, spec=ScheduleSpec()))
    assert action.headers is None, "the caller's own object is changed"
    assert (seen["tenant_id"], seen["principal"], seen["unit_id"]) == ("acme", "ann", "")
    assert seen["trace_id"] not in ("", "trace")
    assert seen["provenance"] == ["shop:click", f"{queue}:Leaf"]


async def _run_of(client: Client, schedule: Schedule) -> dict[str, Any]:
    handle = await client.create_schedule(f"schedule-{uuid.uuid4()}", schedule, trigger_immediately=True)
    try:
        while not (recent := (await handle.describe()).info.recent_actions):
            pass  # Each question is a round trip to the server.
        started = recent[0].action
        assert isinstance(started, ScheduleActionExecutionStartWorkflow)
        run: WorkflowHandle[Any, Any] = client.get_workflow_handle(
            started.workflow_id, run_id=started.first_execution_run_id
        )
        seen: dict[str, Any] = await run.result()
        return seen
    finally:
        await handle.delete()


def test_an_empty_context_makes_no_header() -> None:
    assert context_headers() == {}
    assert context_headers(_CALLER)[context.HEADER].metadata["messageType"] == b"contextunity.worker.TaskContext"
