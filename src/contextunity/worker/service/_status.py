"""How a task goes: what the Temporal server says about its run, in the words of the contract."""

from __future__ import annotations

import asyncio
from datetime import datetime

from contextunity.gen.contextunity.worker import (
    GetTaskStatusRequest,
    PendingActivity,
    PendingActivityState,
    TaskState,
    TaskStatus,
)
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.enums.v1 import PendingActivityState as ActivityState
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.enums.v1 import WorkflowExecutionStatus as Status
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.service import RPCError

from contextunity.core import codec
from contextunity.core.errors import CodecError
from contextunity.worker.status import from_rpc_error

from ._beside import Beside
from ._call import Call, Engine
from ._failures import chain_of, one_line
from ._progress import Progress, ask_progress, notice_in, packed, progress_query
from ._runs import LAST_EVENTS, Run, check_ids, find_run, last_events
from ._seen import Seen

__all__ = ["STATES", "Telling", "instant"]

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

_STUMBLE_LIMIT = 1000
"""Characters of what a workflow's code failed with."""

_ACTIVITY_STATES = {
    ActivityState.PENDING_ACTIVITY_STATE_SCHEDULED: PendingActivityState.SCHEDULED,
    ActivityState.PENDING_ACTIVITY_STATE_STARTED: PendingActivityState.STARTED,
    ActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED: PendingActivityState.CANCEL_REQUESTED,
    ActivityState.PENDING_ACTIVITY_STATE_PAUSED: PendingActivityState.PAUSED,
    ActivityState.PENDING_ACTIVITY_STATE_PAUSE_REQUESTED: PendingActivityState.PAUSED,
}


class Telling:
    """GetTaskStatus."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get_task_status(self, call: Call, request: GetTaskStatusRequest) -> TaskStatus:
        """Tells how a task goes; see GetTaskStatus in worker.proto."""
        workflow_id, run_id = request.workflow_id, request.run_id
        tenants = call.tenants(request.tenant_id)
        check_ids(workflow_id, run_id)
        beside = Beside(self._engine, tenants, workflow_id, run_id)
        try:
            # Its question goes out first: a query takes longer than the description.
            await asyncio.sleep(0)
            run = await find_run(call, self._engine, workflow_id, run_id, request.tenant_id)
            if not run_id:
                self._engine.seen.keep(workflow_id, _seen(run))
            return await self.status(run, beside)
        finally:
            beside.drop()

    async def status(self, run: Run, beside: Beside | None = None) -> TaskStatus:
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
            await self._tell_outcome(run, status, beside)
            return status
        status.pending_activities = [_pending(each) for each in run.description.pending_activities]
        notices = list[str]()
        query = progress_query(run.contract)
        progress = Progress(answered=False)
        if query is not None:
            found = await beside.progress(run) if beside is not None else None
            progress = found or await ask_progress(self._engine, run.workflow_id, run.run_id, query)
            status.progress = progress.told
            notices.append(notice_in(progress.told, query.output_type))
        if run.description.pending_workflow_task.attempt > 1:
            notices.append(await self._stumble(run))
        if not progress.answered and _waits_for_a_worker(run):
            notices.append(await self._idle(status.task_queue))
        status.notice = "; ".join(notice for notice in notices if notice)
        return status

    async def _tell_outcome(self, run: Run, status: TaskStatus, beside: Beside | None) -> None:
        # Of a success the last event says all; of a failure those before it say how it came to that.
        count = 1 if _succeeded(run) else LAST_EVENTS
        found = await beside.events(run, count) if beside is not None else None
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

    async def _stumble(self, run: Run) -> str:
        """Why a run does not come forward whose workflow task is repeated; empty where its history does not tell."""
        for event in await last_events(self._engine, run.workflow_id, run.run_id):
            if event.HasField("workflow_task_failed_event_attributes"):
                failure = event.workflow_task_failed_event_attributes.failure
                told = one_line(await chain_of(failure, self._engine.client.data_converter))
                return (
                    f"the code of its workflow failed with {told[:_STUMBLE_LIMIT]}; its task is repeated until the "
                    "worker's code is mended, or it is terminated"
                )
            if event.HasField("workflow_task_timed_out_event_attributes"):
                return "a worker took its workflow task and did not finish it in time; it is repeated"
        return ""

    async def _idle(self, task_queue: str) -> str:
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


def _seen(run: Run) -> Seen:
    return Seen(
        run_id=run.run_id,
        tenant_id=run.tenant_id,
        contract=run.contract,
        is_running=run.is_running,
        succeeded=_succeeded(run),
    )


def _pending(info: PendingActivityInfo) -> PendingActivity:
    failure = info.last_failure.message if info.HasField("last_failure") else ""
    kind = info.last_failure.application_failure_info.type if failure else ""
    return PendingActivity(
        activity_type=info.activity_type.name,
        activity_id=info.activity_id,
        state=_ACTIVITY_STATES.get(info.state, PendingActivityState.UNSPECIFIED),
        attempt=info.attempt,
        maximum_attempts=info.maximum_attempts,
        last_failure=(f"{kind}: {failure}" if kind else failure)[:1000],
        next_attempt_at=instant(info.next_attempt_schedule_time),
        last_started_at=instant(info.last_started_time),
        last_heartbeat_at=instant(info.last_heartbeat_time),
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
