"""How a task goes: its run, its progress, how it ended, and GetTaskStatus."""

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
from contextunity.worker.temporal.errors import PayloadKeyError
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
    """Asks what will probably be needed: of a task that was seen running its progress, of others how they ended.

    Args:
        engine: asks.
        tenants: whose tasks the caller sees; None for all.
        workflow_id: of the task.
        run_id: which of its runs; empty for the newest.
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
        """What a run told of its progress; None where it was not asked."""
        if self._progress is None or self._run_id != run.run_id:
            return None
        return await self._progress

    async def events(self, run: Run, count: int) -> list[HistoryEvent] | None:
        """The last events of a run that has ended; None where they were not asked for, or not so many.

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
        """Asks no further."""
        for task in (self._events, self._progress):
            if task is not None:
                task.cancel()
                task.add_done_callback(_retrieve_error)


def _ends(event: HistoryEvent, run: Run) -> bool:
    """Whether an event is the last one of a run: between two questions, another may have become the newest."""
    info = run.description.workflow_execution_info
    return event.event_id == info.history_length and event.event_time == info.close_time


def _retrieve_error(task: asyncio.Task[list[HistoryEvent]] | asyncio.Task[Progress]) -> None:
    """Takes notice of an error that nobody needs to know, which asyncio would otherwise log."""
    if not task.cancelled():
        task.exception()


_RUN_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MAX_WORKFLOW_ID = 1000
"""Bytes of the longest workflow id that the server gives out. Its answers about far longer ones cannot be read."""
LAST_EVENTS = 20
"""Events asked for at the end of a history: the last one, and with it the attempt that led there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run of a task.

    Attributes:
        workflow_id: id of the task.
        run_id: id of the run.
        tenant_id: whose it is; empty where it was started past the service.
        contract: what it does; None where no module here has it.
        description: what the server says about it.
    """

    workflow_id: str
    run_id: str
    tenant_id: str
    contract: WorkflowContract | None
    description: DescribeWorkflowExecutionResponse

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.description.workflow_execution_info.status == Status.WORKFLOW_EXECUTION_STATUS_RUNNING


async def find_run(call: Call, engine: Engine, workflow_id: str, run_id: str, tenant_id: str) -> Run:
    """Finds a run, or the newest of a task; one that went on as another is followed to where it is now.

    Raises:
        ServiceError: there is none, or it is another tenant's, which looks the same; or Temporal does not answer.
    """
    tenants = call.visible_tenants(tenant_id)
    check_ids(workflow_id, run_id)
    return await follow_run(engine, workflow_id, run_id, tenants)


async def follow_run(engine: Engine, workflow_id: str, run_id: str, tenants: frozenset[str] | None = None) -> Run:
    """The same for somebody who sees the tasks of these tenants; None for all.

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
    """Refuses ids that no task has, before the server is asked.

    Raises:
        ServiceError: one of them is such.
    """
    impossible = len(workflow_id.encode()) > _MAX_WORKFLOW_ID or "\0" in workflow_id
    if impossible or (run_id and not _RUN_ID.fullmatch(run_id)):
        raise task_unknown(workflow_id, run_id)


async def last_events(engine: Engine, workflow_id: str, run_id: str, *, count: int = LAST_EVENTS) -> list[HistoryEvent]:
    """The last events of a run's history, newest first; never empty.

    Raises:
        ServiceError: there is no such run; or Temporal does not answer.
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
"""Proto name of the query that tells a workflow's progress, by convention of the contracts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What came of asking.

    Attributes:
        answered: whether a worker answered in time, if only that it has nothing to tell.
        message: what it told.
    """

    answered: bool
    message: PackedMessage | None = None


def progress_query(contract: WorkflowContract | None) -> QueryContract[Any] | None:
    """The query that tells the progress of a contract's workflows; None where it has none."""
    binding = contract.queries.get(_METHOD) if contract else None
    query = binding.contract if binding else None
    return query if query is not None and query.input_type is None and query.output_type is not None else None


async def ask_progress(engine: Engine, workflow_id: str, run_id: str, query: QueryContract[Any]) -> Progress:
    """Asks a run for its progress; one that has ended is not asked, since its history would be replayed for that."""
    request = QueryWorkflowRequest(
        namespace=engine.client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        query=WorkflowQuery(query_type=query.name),
        query_reject_condition=QueryRejectCondition.QUERY_REJECT_CONDITION_NOT_OPEN,
    )
    try:
        answer = await engine.client.workflow_service.query_workflow(request, retry=True, timeout=_TIMEOUT)
        return Progress(answered=True, message=await packed(engine, answer.query_result.payloads, query.output_type))
    except (CodecError, PayloadKeyError):
        return Progress(answered=True)
    except RPCError as error:
        # The server says so where the workflow answered with an error.
        return Progress(answered=error.status is RPCStatusCode.INVALID_ARGUMENT)


async def packed(engine: Engine, payloads: Sequence[Payload], output_type: type[Any] | None) -> PackedMessage | None:
    """The message in the first of some payloads; None where there is none.

    Args:
        engine: whose client converts it.
        payloads: as Temporal has them.
        output_type: dataclass of the message; None where nothing is to be told.

    Raises:
        CodecError: it is no such message.
    """
    if output_type is None or not payloads:
        return None
    (message, *_) = await engine.client.data_converter.decode(payloads, [output_type])
    return codec.pack_any(message)


def notice_in(message: PackedMessage | None, output_type: type[Any] | None) -> str:
    """What a progress or result has to say of being incomplete; empty where it has nothing.

    By convention of the contracts, as `GetProgress` is: a text field `incomplete_detail`.
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
"""What each end is called. CONTINUED_AS_NEW is none: the run is followed to where it is now."""

_FAILURE_TEXT_LIMIT = 1000
"""Characters of what a workflow's code failed with."""

_ACTIVITY_STATES = {
    ActivityState.PENDING_ACTIVITY_STATE_SCHEDULED: PendingActivityState.SCHEDULED,
    ActivityState.PENDING_ACTIVITY_STATE_STARTED: PendingActivityState.STARTED,
    ActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED: PendingActivityState.CANCEL_REQUESTED,
    ActivityState.PENDING_ACTIVITY_STATE_PAUSED: PendingActivityState.PAUSED,
    ActivityState.PENDING_ACTIVITY_STATE_PAUSE_REQUESTED: PendingActivityState.PAUSED,
}


class TaskStatusHandler:
    """GetTaskStatus."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get_task_status(self, call: Call, request: GetTaskStatusRequest) -> TaskStatus:
        """Tells how a task goes; see GetTaskStatus in worker.proto."""
        workflow_id, run_id = request.workflow_id, request.run_id
        tenants = call.visible_tenants(request.tenant_id)
        check_ids(workflow_id, run_id)
        prefetch = StatusPrefetch(self._engine, tenants, workflow_id, run_id)
        try:
            # Its question goes out first: a query takes longer than the description.
            await asyncio.sleep(0)
            run = await find_run(call, self._engine, workflow_id, run_id, request.tenant_id)
            if not run_id:
                self._engine.known_tasks.keep(workflow_id, _known(run))
            return await self.status(run, prefetch)
        finally:
            prefetch.drop()

    async def status(self, run: Run, prefetch: StatusPrefetch | None = None) -> TaskStatus:
        """How a run goes, with its outcome where it has ended, else its progress and what it waits for.

        Args:
            run: which.
            beside: what has been asked about it already.

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
        # Of a success the last event says all; of a failure those before it say how it came to that.
        count = 1 if _succeeded(run) else LAST_EVENTS
        found = await prefetch.events(run, count) if prefetch is not None else None
        events = found or await last_events(self._engine, run.workflow_id, run.run_id, count=count)
        end, converter = events[0], self._engine.client.data_converter
        match end.WhichOneof("attributes"):
            case "workflow_execution_completed_event_attributes":
                try:
                    # A result of a workflow that no module here has is not ours to read.
                    output_type = run.contract.output_type if run.contract is not None else None
                    result = end.workflow_execution_completed_event_attributes.result
                    status.result = await packed(self._engine, result.payloads, output_type)
                    status.notice = notice_in(status.result, output_type)
                except CodecError as error:
                    # It has ended all the same, and that is told.
                    status.notice = f"its result is not what its contract, as the service knows it, says: {error}"
                except PayloadKeyError as error:
                    status.notice = f"its result cannot be read here: {error}"
            case "workflow_execution_failed_event_attributes":
                failure = end.workflow_execution_failed_event_attributes.failure
                status.failure = await chain_of(failure, converter, events)
                status.error = one_line(status.failure)
            case "workflow_execution_timed_out_event_attributes":
                status.error = "its time was over"
            case "workflow_execution_canceled_event_attributes":
                status.error = "it was cancelled"
                status.reason = _cancel_reason(events)
            case "workflow_execution_terminated_event_attributes":
                status.reason = end.workflow_execution_terminated_event_attributes.reason
                status.error = f"it was terminated: {status.reason}" if status.reason else "it was terminated"
            case _:
                pass

    async def _workflow_task_failure(self, run: Run) -> str:
        """Why a run does not come forward whose workflow task is repeated; empty where its history does not tell."""
        for event in await last_events(self._engine, run.workflow_id, run.run_id):
            if event.HasField("workflow_task_failed_event_attributes"):
                failure = event.workflow_task_failed_event_attributes.failure
                message = one_line(await chain_of(failure, self._engine.client.data_converter))
                return (
                    f"the code of its workflow failed with {message[:_FAILURE_TEXT_LIMIT]}; its task is repeated "
                    "until the worker's code is mended, or it is terminated"
                )
            if event.HasField("workflow_task_timed_out_event_attributes"):
                return "a worker took its workflow task and did not finish it in time; it is repeated"
        return ""

    async def _pending(self, info: PendingActivityInfo) -> PendingActivity:
        last_failure = ""
        if info.HasField("last_failure"):
            # A copy, since decoding changes it.
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
    """A time that the server tells, UTC; None where it tells none."""
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
    """Whether something of it waits in a task queue."""
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
