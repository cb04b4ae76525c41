"""State of a task: its run, its progress, its outcome, and GetTaskStatus."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from contextunity.gen.contextunity.worker import (
    GetTaskStatusRequest,
    PendingActivity,
    PendingActivityState,
    TaskState,
    TaskStatus,
)
from contextunity.gen.google.protobuf import Any as PackedMessage
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState as ActivityState
from temporalio.api.enums.v1 import QueryRejectCondition, TaskQueueType
from temporalio.api.enums.v1 import WorkflowExecutionStatus as Status
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryReverseRequest,
    QueryWorkflowRequest,
)
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core import codec
from contextunity.core.errors import CodecError
from contextunity.worker.grpc_errors import from_rpc_error, task_unknown
from contextunity.worker.temporal.errors import UnreadablePayloadError
from contextunity.worker.temporal.search_attributes import tenant_in
from python_temporal.contract import QueryContract, WorkflowContract

from .call import Call, Engine, KnownTask
from .failures import chain_of, one_line

__all__ = [
    "LAST_EVENTS",
    "STATES",
    "Progress",
    "Run",
    "StatusPrefetch",
    "TaskStatusHandler",
    "ask_progress",
    "chain_of",
    "check_ids",
    "find_run",
    "follow_run",
    "instant",
    "last_events",
    "notice_in",
    "one_line",
    "packed",
    "progress_query",
]


class StatusPrefetch:
    """Requests early what will probably be needed: the progress of a task last seen running, the outcome of others.

    Args:
        engine: the engine that requests it.
        tenants: the caller's tenants; None for all.
        workflow_id: id of the task.
        run_id: id of the run; empty for the newest.
    """

    def __init__(self, engine: Engine, tenants: frozenset[str] | None, workflow_id: str, run_id: str) -> None:
        self._events: asyncio.Task[list[HistoryEvent]] | None = None
        self._progress: asyncio.Task[Progress] | None = None
        self._count = 1
        known = engine.known_tasks.recall(workflow_id)
        if known is not None and run_id and known.run_id != run_id:
            known = None
        self._run_id = run_id if known is None else known.run_id
        if known is not None and tenants is not None and known.tenant_id not in tenants:
            return
        if known is not None and known.is_running:
            query = progress_query(known.contract)
            if query is not None:
                self._progress = asyncio.create_task(ask_progress(engine, workflow_id, known.run_id, query))
            return
        if known is not None and not known.succeeded:
            self._count = LAST_EVENTS
        events = last_events(engine, workflow_id, self._run_id, count=self._count)
        self._events = asyncio.create_task(events)

    async def progress(self, run: Run) -> Progress | None:
        """Return the progress of the run; None if it was not requested."""
        if self._progress is None or self._run_id != run.run_id:
            return None
        return await self._progress

    async def events(self, run: Run, count: int) -> list[HistoryEvent] | None:
        """Return the last events of an ended run; None if they, or so many of them, were not requested.

        Raises:
            ServiceError: Temporal does not answer.
        """
        if self._events is None or self._count < count:
            return None
        events = await self._events
        if self._run_id == run.run_id or _ends(events[0], run):
            return events
        return None

    def drop(self) -> None:
        """Cancel the outstanding requests."""
        for task in (self._events, self._progress):
            if task is not None:
                task.cancel()
                task.add_done_callback(_retrieve_error)


def _ends(event: HistoryEvent, run: Run) -> bool:
    """Return whether an event is the last of a run: between two requests, another run may have become the newest."""
    info = run.description.workflow_execution_info
    return event.event_id == info.history_length and event.event_time == info.close_time


def _retrieve_error(task: asyncio.Task[list[HistoryEvent]] | asyncio.Task[Progress]) -> None:
    """Retrieve an error that nobody needs, because asyncio would otherwise log it."""
    if not task.cancelled():
        task.exception()


_RUN_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MAX_WORKFLOW_ID = 1000
"""Maximum bytes of a workflow id from the server. Its answers with far longer ids cannot be decoded."""
LAST_EVENTS = 20
"""Events requested at the end of a history: the last one, and the attempt that led to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run of a task.

    Attributes:
        workflow_id: id of the task.
        run_id: id of the run.
        tenant_id: its tenant; empty if it was started without the service.
        contract: its contract; None if no module here has it.
        description: the server's description.
    """

    workflow_id: str
    run_id: str
    tenant_id: str
    contract: WorkflowContract | None
    description: DescribeWorkflowExecutionResponse

    @property
    def is_running(self) -> bool:
        """Whether it is running."""
        return self.description.workflow_execution_info.status == Status.WORKFLOW_EXECUTION_STATUS_RUNNING


async def find_run(call: Call, engine: Engine, workflow_id: str, run_id: str, tenant_id: str) -> Run:
    """Find a run, or the newest run of a task; a run that continued as new is followed to the current one.

    Raises:
        ServiceError: there is none, or it belongs to another tenant (the same error), or Temporal does not answer.
    """
    tenants = call.visible_tenants(tenant_id)
    check_ids(workflow_id, run_id)
    return await follow_run(engine, workflow_id, run_id, tenants)


async def follow_run(engine: Engine, workflow_id: str, run_id: str, tenants: frozenset[str] | None = None) -> Run:
    """Find a run for a caller with these tenants; None for all.

    Raises:
        ServiceError: as above.
    """
    while True:
        run = await _describe(engine, workflow_id, run_id)
        if tenants is not None and run.tenant_id not in tenants:
            raise task_unknown(workflow_id, run_id)
        info = run.description.workflow_execution_info
        if info.status != Status.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW:
            return run
        (event, *_) = await last_events(engine, workflow_id, run.run_id, count=1)
        run_id = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id


def check_ids(workflow_id: str, run_id: str) -> None:
    """Reject invalid ids before the server is asked.

    Raises:
        ServiceError: an id is invalid.
    """
    impossible = len(workflow_id.encode()) > _MAX_WORKFLOW_ID or "\0" in workflow_id
    if impossible or (run_id and not _RUN_ID.fullmatch(run_id)):
        raise task_unknown(workflow_id, run_id)


async def last_events(engine: Engine, workflow_id: str, run_id: str, *, count: int = LAST_EVENTS) -> list[HistoryEvent]:
    """Return the last events of a run's history, newest first; never empty.

    Raises:
        ServiceError: there is no such run, or Temporal does not answer.
    """
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=engine.client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        maximum_page_size=count,
    )
    try:
        answer = await engine.client.workflow_service.get_workflow_execution_history_reverse(
            request, retry=True, timeout=engine.rpc_timeout
        )
    except RPCError as error:
        raise from_rpc_error(error, workflow_id=workflow_id) from error
    return list(answer.history.events)


async def _describe(engine: Engine, workflow_id: str, run_id: str) -> Run:
    request = DescribeWorkflowExecutionRequest(
        namespace=engine.client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
    )
    try:
        description = await engine.client.workflow_service.describe_workflow_execution(
            request, retry=True, timeout=engine.rpc_timeout
        )
    except RPCError as error:
        raise from_rpc_error(error, workflow_id=workflow_id, run_id=run_id) from error
    info = description.workflow_execution_info
    return Run(
        workflow_id=workflow_id,
        run_id=info.execution.run_id,
        tenant_id=tenant_in(info.search_attributes),
        contract=engine.registry.workflows.get(info.type.name),
        description=description,
    )


_TIMEOUT = timedelta(seconds=2)
_NOTICE = "incomplete_detail"
_METHOD = "GetProgress"
"""Proto name of the query that returns a workflow's progress, by convention of the contracts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The result of a progress query.

    Attributes:
        answered: whether a worker answered in time, even without progress.
        message: the progress.
    """

    answered: bool
    message: PackedMessage | None = None


def progress_query(contract: WorkflowContract | None) -> QueryContract[Any] | None:
    """Return the progress query of a contract; None if it has none."""
    binding = contract.queries.get(_METHOD) if contract else None
    query = binding.contract if binding else None
    return query if query is not None and query.input_type is None and query.output_type is not None else None


async def ask_progress(engine: Engine, workflow_id: str, run_id: str, query: QueryContract[Any]) -> Progress:
    """Query the progress of a run; ended runs are not queried, because that replays their history."""
    request = QueryWorkflowRequest(
        namespace=engine.client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        query=WorkflowQuery(query_type=query.name),
        query_reject_condition=QueryRejectCondition.QUERY_REJECT_CONDITION_NOT_OPEN,
    )
    try:
        answer = await engine.client.workflow_service.query_workflow(request, retry=True, timeout=_TIMEOUT)
        return Progress(answered=True, message=await packed(engine, answer.query_result.payloads, query.output_type))
    except (CodecError, UnreadablePayloadError):
        return Progress(answered=True)
    except RPCError as error:
        # This is the server's status if the workflow answered with an error.
        return Progress(answered=error.status is RPCStatusCode.INVALID_ARGUMENT)


async def packed(engine: Engine, payloads: Sequence[Payload], output_type: type[Any] | None) -> PackedMessage | None:
    """Decode the message in the first payload; None if there is none.

    Args:
        engine: the engine whose client decodes it.
        payloads: payloads from Temporal.
        output_type: dataclass of the message; None if there is no message.

    Raises:
        CodecError: it is not such a message.
    """
    if output_type is None or not payloads:
        return None
    (message, *_) = await engine.client.data_converter.decode(payloads, [output_type])
    return codec.pack_any(message)


def notice_in(message: PackedMessage | None, output_type: type[Any] | None) -> str:
    """Return what a progress or result reports as incomplete; empty if nothing.

    Like `GetProgress` this is a convention of the contracts: a text field `incomplete_detail`.
    """
    if message is None or not hasattr(output_type, "__dataclass_fields__"):
        return ""
    assert output_type is not None
    if _NOTICE not in output_type.__dataclass_fields__:
        return ""
    text = getattr(codec.decode(output_type, message.value), _NOTICE)
    return f"incomplete: {text}" if isinstance(text, str) and text else ""


STATES = {
    Status.WORKFLOW_EXECUTION_STATUS_RUNNING: TaskState.RUNNING,
    Status.WORKFLOW_EXECUTION_STATUS_PAUSED: TaskState.RUNNING,
    Status.WORKFLOW_EXECUTION_STATUS_COMPLETED: TaskState.COMPLETED,
    Status.WORKFLOW_EXECUTION_STATUS_FAILED: TaskState.FAILED,
    Status.WORKFLOW_EXECUTION_STATUS_CANCELED: TaskState.CANCELLED,
    Status.WORKFLOW_EXECUTION_STATUS_TERMINATED: TaskState.TERMINATED,
    Status.WORKFLOW_EXECUTION_STATUS_TIMED_OUT: TaskState.TIMED_OUT,
}
"""The state of each outcome. CONTINUED_AS_NEW has none: the run is followed to the current one."""

_FAILURE_TEXT_LIMIT = 1000
"""Maximum characters of the error of a workflow's code."""

_ACTIVITY_STATES = {
    ActivityState.PENDING_ACTIVITY_STATE_SCHEDULED: PendingActivityState.SCHEDULED,
    ActivityState.PENDING_ACTIVITY_STATE_STARTED: PendingActivityState.STARTED,
    ActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED: PendingActivityState.CANCEL_REQUESTED,
    ActivityState.PENDING_ACTIVITY_STATE_PAUSED: PendingActivityState.PAUSED,
    ActivityState.PENDING_ACTIVITY_STATE_PAUSE_REQUESTED: PendingActivityState.PAUSED,
}


class TaskStatusHandler:
    """Handles GetTaskStatus."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get_task_status(self, call: Call, request: GetTaskStatusRequest) -> TaskStatus:
        """Return the state of a task; see GetTaskStatus in worker.proto."""
        workflow_id, run_id = request.workflow_id, request.run_id
        tenants = call.visible_tenants(request.tenant_id)
        check_ids(workflow_id, run_id)
        prefetch = StatusPrefetch(self._engine, tenants, workflow_id, run_id)
        try:
            # Send the query first, because it takes longer than the description.
            await asyncio.sleep(0)
            run = await find_run(call, self._engine, workflow_id, run_id, request.tenant_id)
            if not run_id:
                self._engine.known_tasks.keep(workflow_id, _known(run))
            return await self.status(run, prefetch)
        finally:
            prefetch.drop()

    async def status(self, run: Run, prefetch: StatusPrefetch | None = None) -> TaskStatus:
        """Return the state of a run, with its outcome if it has ended, otherwise its progress and what it waits for.

        Args:
            run: the run.
            beside: requests that were sent early.

        Raises:
            ServiceError: Temporal does not answer.
        """
        info = run.description.workflow_execution_info
        status = TaskStatus(
            workflow_id=run.workflow_id,
            run_id=run.run_id,
            workflow_type=info.type.name,
            status=STATES.get(info.status, TaskState.UNKNOWN),
            tenant_id=run.tenant_id,
            task_queue=info.task_queue or run.description.execution_config.task_queue.name,
            started_at=instant(info.start_time),
            closed_at=instant(info.close_time),
        )
        if not run.is_running:
            await self._add_outcome(run, status, prefetch)
            return status
        status.pending_activities = [await self._pending(each) for each in run.description.pending_activities]
        notices = list[str]()
        query = progress_query(run.contract)
        progress = Progress(answered=False)
        if query is not None:
            found = await prefetch.progress(run) if prefetch is not None else None
            progress = found or await ask_progress(self._engine, run.workflow_id, run.run_id, query)
            status.progress = progress.message
            notices.append(notice_in(progress.message, query.output_type))
        if run.description.pending_workflow_task.attempt > 1:
            notices.append(await self._workflow_task_failure(run))
        if not progress.answered and _waits_for_a_worker(run):
            notices.append(await self._missing_workers(status.task_queue))
        status.notice = "; ".join(notice for notice in notices if notice)
        return status

    async def _add_outcome(self, run: Run, status: TaskStatus, prefetch: StatusPrefetch | None) -> None:
        # The last event has all of a success; a failure also needs the events before it.
        count = 1 if _succeeded(run) else LAST_EVENTS
        found = await prefetch.events(run, count) if prefetch is not None else None
        events = found or await last_events(self._engine, run.workflow_id, run.run_id, count=count)
        end, converter = events[0], self._engine.client.data_converter
        match end.WhichOneof("attributes"):
            case "workflow_execution_completed_event_attributes":
                try:
                    # Without a module for the workflow its result cannot be decoded.
                    output_type = run.contract.output_type if run.contract is not None else None
                    result = end.workflow_execution_completed_event_attributes.result
                    status.result = await packed(self._engine, result.payloads, output_type)
                    status.notice = notice_in(status.result, output_type)
                except CodecError as error:
                    # The task has ended anyway, so report that.
                    status.notice = f"its result does not match the contract that this service knows: {error}"
                except UnreadablePayloadError as error:
                    status.notice = f"its result cannot be read here: {error}"
            case "workflow_execution_failed_event_attributes":
                failure = end.workflow_execution_failed_event_attributes.failure
                status.failure = await chain_of(failure, converter, events)
                status.error = one_line(status.failure)
            case "workflow_execution_timed_out_event_attributes":
                status.error = "it timed out"
            case "workflow_execution_canceled_event_attributes":
                status.error = "it was cancelled"
                status.reason = _cancel_reason(events)
            case "workflow_execution_terminated_event_attributes":
                status.reason = end.workflow_execution_terminated_event_attributes.reason
                status.error = f"it was terminated: {status.reason}" if status.reason else "it was terminated"
            case _:
                pass

    async def _workflow_task_failure(self, run: Run) -> str:
        """Return why the workflow task of a run is retried; empty if its history does not say."""
        for event in await last_events(self._engine, run.workflow_id, run.run_id):
            if event.HasField("workflow_task_failed_event_attributes"):
                failure = event.workflow_task_failed_event_attributes.failure
                message = one_line(await chain_of(failure, self._engine.client.data_converter))
                return (
                    f"the code of its workflow failed with {message[:_FAILURE_TEXT_LIMIT]}; its task is retried "
                    "until the worker's code is fixed, or the workflow is terminated"
                )
            if event.HasField("workflow_task_timed_out_event_attributes"):
                return "a worker took its workflow task and did not complete it in time; it is retried"
        return ""

    async def _pending(self, info: PendingActivityInfo) -> PendingActivity:
        last_failure = ""
        if info.HasField("last_failure"):
            # A copy, because decoding changes it.
            failure = Failure.FromString(info.last_failure.SerializeToString())
            last_failure = one_line(await chain_of(failure, self._engine.client.data_converter))
        return PendingActivity(
            activity_type=info.activity_type.name,
            activity_id=info.activity_id,
            state=_ACTIVITY_STATES.get(info.state, PendingActivityState.UNSPECIFIED),
            attempt=info.attempt,
            maximum_attempts=info.maximum_attempts,
            last_failure=last_failure[:_FAILURE_TEXT_LIMIT],
            next_attempt_at=instant(info.next_attempt_schedule_time),
            last_started_at=instant(info.last_started_time),
            last_heartbeat_at=instant(info.last_heartbeat_time),
        )

    async def _missing_workers(self, task_queue: str) -> str:
        kinds = {
            "workflows": TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
            "activities": TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        }
        polled = await asyncio.gather(*(self._has_pollers(task_queue, number) for number in kinds.values()))
        idle = [kind for kind, is_polled in zip(kinds, polled, strict=True) if not is_polled]
        if not idle:
            return ""
        return (
            f"no worker polls the task queue {task_queue!r} for {' and '.join(idle)}; start one with "
            "`python -m contextunity.worker --temporal`"
        )

    async def _has_pollers(self, task_queue: str, kind: TaskQueueType.ValueType) -> bool:
        request = DescribeTaskQueueRequest(
            namespace=self._engine.client.namespace, task_queue=TaskQueue(name=task_queue), task_queue_type=kind
        )
        try:
            answer = await self._engine.client.workflow_service.describe_task_queue(
                request, retry=True, timeout=self._engine.rpc_timeout
            )
        except RPCError as error:
            raise from_rpc_error(error) from error
        return bool(answer.pollers)


def instant(timestamp: Timestamp) -> datetime | None:
    """Return a time from the server in UTC; None if there is none."""
    if timestamp.seconds == 0 and timestamp.nanos == 0:
        return None
    return codec.timestamp_to_datetime(timestamp)


def _succeeded(run: Run) -> bool:
    return run.description.workflow_execution_info.status == Status.WORKFLOW_EXECUTION_STATUS_COMPLETED


def _known(run: Run) -> KnownTask:
    return KnownTask(
        run_id=run.run_id,
        tenant_id=run.tenant_id,
        contract=run.contract,
        is_running=run.is_running,
        succeeded=_succeeded(run),
    )


def _waits_for_a_worker(run: Run) -> bool:
    """Return whether something of the run waits in a task queue."""
    description = run.description
    task = description.pending_workflow_task
    waits = description.HasField("pending_workflow_task") and not task.HasField("started_time")
    return (
        waits
        or not (description.HasField("pending_workflow_task") or description.pending_activities)
        or any(
            each.state == ActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
            and not each.HasField("next_attempt_schedule_time")
            for each in description.pending_activities
        )
    )


def _cancel_reason(events: list[HistoryEvent]) -> str:
    return next(
        (
            event.workflow_execution_cancel_requested_event_attributes.cause
            for event in events
            if event.HasField("workflow_execution_cancel_requested_event_attributes")
        ),
        "",
    )
