"""Spans of workflows and activities: which there are, of whom, and that a replay writes none again."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio import activity, workflow
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import Replayer, Worker

from contextunity.core import context
from contextunity.core.context import TaskContext
from contextunity.worker import tracing
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.otel import Spans
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_SHORT = timedelta(seconds=20)


@activity.defn
async def note(how: str) -> str:
    with tracing.span("inside", db_system_name="sqlite"):
        pass
    if how == "slip":
        raise KeyError("a-secret")
    if how == "refuse":
        raise ApplicationError("a-secret", type="Refused")
    if how == "busy":
        raise ApplicationError("a-secret", type="Busy", category=ApplicationErrorCategory.BENIGN)
    return how


@workflow.defn
class Child:
    @workflow.run
    async def run(self) -> None:
        await _note("fine")


@workflow.defn
class Parent:
    @workflow.run
    async def run(self, how: str) -> None:
        await _note(how)
        await workflow.sleep(0.01)
        await workflow.execute_child_workflow(Child.run)
        if how == "again":
            workflow.continue_as_new("fine")


async def _note(how: str) -> None:
    await workflow.execute_activity(
        note, how, start_to_close_timeout=_SHORT, retry_policy=RetryPolicy(maximum_attempts=1)
    )


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    spans = Spans(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "active", spans)
    yield exporter
    spans.close()


@dataclasses.dataclass
class _Ran:
    client: Client
    task_queue: str
    worker: Worker


async def _connect(server: EmbeddedServer, *, cached: int = 100) -> _Ran:
    client = await Client.connect(server.address, plugins=[ContextWorkerPlugin()])
    queue = f"traces-{uuid.uuid4()}"
    worker = Worker(client, task_queue=queue, workflows=[Parent, Child], activities=[note], max_cached_workflows=cached)
    return _Ran(client, queue, worker)


async def _start(ran: _Ran, how: str, trace_id: str) -> WorkflowHandle[Parent, None]:
    with context.using(TaskContext(trace_id=trace_id, tenant_id="acme")):
        return await ran.client.start_workflow(Parent.run, how, id=str(uuid.uuid4()), task_queue=ran.task_queue)


def _written(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    """Each span once: the end of a run is executed again, with the same id, if its task timed out on a busy machine."""
    return list({_ids(each)[1]: each for each in exporter.get_finished_spans()}.values())


def _ids(span: ReadableSpan) -> tuple[int, int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id, span.parent.span_id if span.parent else 0


async def test_replays_write_no_span_again(temporal_server: EmbeddedServer, exported: InMemorySpanExporter) -> None:
    # Without a cache, each task of a workflow is a replay of all that was before.
    ran, trace_id = await _connect(temporal_server, cached=0), str(uuid.uuid4())
    async with ran.worker:
        handle = await _start(ran, "fine", trace_id)
        await handle.result()
    spans = _written(exported)
    assert sorted(each.name for each in spans) == [
        *("RunActivity:note", "RunActivity:note", "RunWorkflow:Child", "RunWorkflow:Parent", "inside", "inside")
    ]
    by_name = {each.name: each for each in spans}
    parent, child = _ids(by_name["RunWorkflow:Parent"]), _ids(by_name["RunWorkflow:Child"])
    # Nobody sent a span, so the trace is that of the trace_id.
    assert {_ids(each)[0] for each in spans} == {uuid.UUID(trace_id).int}
    assert (parent[2], child[2]) == (0, parent[1])
    assert {_ids(each)[2] for each in spans if each.name == "RunActivity:note"} == {parent[1], child[1]}
    assert all(
        (each.attributes or {}).get("contextunity.trace_id") == trace_id for each in spans if each.name != "inside"
    )
    exported.clear()
    replayer = Replayer(workflows=[Parent], plugins=[ContextWorkerPlugin()])
    await replayer.replay_workflow(await handle.fetch_history())
    assert exported.get_finished_spans() == ()


async def test_a_schedule_begins_a_trace_of_its_own(
    temporal_server: EmbeddedServer, exported: InMemorySpanExporter
) -> None:
    ran, name = await _connect(temporal_server), f"schedule-{uuid.uuid4()}"
    action = ScheduleActionStartWorkflow(Parent.run, "fine", id=name, task_queue=ran.task_queue)
    async with ran.worker:
        with context.using(TaskContext(trace_id=str(uuid.uuid4()), tenant_id="acme")):
            schedule = await ran.client.create_schedule(
                name, Schedule(action=action, spec=ScheduleSpec()), trigger_immediately=True
            )
        started: list[Any] = []
        while not started:
            started = list((await schedule.describe()).info.recent_actions)
        found = started[0].action
        await ran.client.get_workflow_handle(found.workflow_id, run_id=found.first_execution_run_id).result()
        await schedule.delete()
    run = _by_name_of(exported, "RunWorkflow:Parent")
    assert _ids(run)[0] == uuid.UUID(found.first_execution_run_id).int
    assert _ids(run)[2] == 0


def _by_name_of(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [each for each in _written(exporter) if each.name == name]
    return found


async def test_the_runs_of_a_chain_have_one_parent(
    temporal_server: EmbeddedServer, exported: InMemorySpanExporter
) -> None:
    ran = await _connect(temporal_server)
    async with ran.worker:
        await (await _start(ran, "again", str(uuid.uuid4()))).result()
    runs = [each for each in _written(exported) if each.name == "RunWorkflow:Parent"]
    assert [(each.attributes or {})["contextunity.status"] for each in runs] == ["continued_as_new", "completed"]
    first, second = map(_ids, runs)
    assert (first[0], first[2]) == (second[0], second[2])
    assert first[1] != second[1]


@pytest.mark.parametrize(
    ("how", "kind", "is_error", "events"),
    [
        pytest.param("slip", "KeyError", True, 1, id="unexpected"),
        pytest.param("refuse", "Refused", True, 0, id="expected"),
        pytest.param("busy", "Busy", False, 0, id="waits for its turn"),
    ],
)
async def test_failures_are_told_without_their_text(
    temporal_server: EmbeddedServer, exported: InMemorySpanExporter, how: str, kind: str, is_error: bool, events: int
) -> None:
    ran = await _connect(temporal_server)
    async with ran.worker:
        with pytest.raises(WorkflowFailureError):
            await (await _start(ran, how, str(uuid.uuid4()))).result()
    spans = {each.name: each for each in _written(exported)}
    step = spans["RunActivity:note"]
    assert (step.attributes or {})["error.type"] == kind
    assert (not step.status.is_unset, len(step.events)) == (is_error, events)
    assert (spans["RunWorkflow:Parent"].attributes or {})["contextunity.status"] == "failed"
    assert "a-secret" not in "".join(each.to_json() for each in spans.values())
    for event in step.events:
        assert "test_tracing_interceptor.py" in str((event.attributes or {})["exception.stacktrace"])


async def test_a_run_is_sampled_with_all_that_it_does(
    temporal_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "active", Spans(SimpleSpanProcessor(exporter)))
    ran = await _connect(temporal_server)
    async with ran.worker:
        handles = [await _start(ran, "fine", str(uuid.uuid4())) for _ in range(4)]
        await asyncio.gather(*(each.result() for each in handles))
    spans = _written(exporter)
    traces = {_ids(each)[0] for each in spans}
    assert len(spans) == 6 * len(traces)


@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.8])
def test_ratios_hold_for_traces_of_uuids(ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", str(ratio))
    spans = Spans()
    number = 4000
    sampled = sum(
        spans.identity("a run", None, str(uuid.UUID(int=_uuid4(each))), 1).trace_flags.sampled for each in range(number)
    )
    assert abs(sampled / number - ratio) < 0.05


def _uuid4(number: int) -> int:
    """The same UUIDs of version 4 each time."""
    return uuid.UUID(bytes=uuid.uuid5(uuid.NAMESPACE_OID, str(number)).bytes, version=4).int


def test_ids_that_are_no_uuids_have_a_trace_too() -> None:
    one, other = (Spans().identity("a run", None, trace_id, 1).trace_id for trace_id in ("order 7", "order 8"))
    assert one != other
    assert one == Spans().identity("another", None, "order 7", 2).trace_id
