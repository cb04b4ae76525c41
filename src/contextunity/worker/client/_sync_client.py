# Generated from _async_client.py by tools/sync_client.py. DO NOT EDIT.
"""The client for threads, on grpc: calls with retries, the handle of a task, and SyncWorkerClient."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

import betterproto2
import grpc
from contextunity.gen.contextunity import worker as bodies
from contextunity.gen.contextunity.code.v1 import Language
from contextunity.gen.contextunity.worker import TaskStatus

from . import methods
from ._base import ClientBase, HandleBase
from ._channel import Attempts, Deadline, SyncConnection
from ._outcome import Watching, result_of, typed_or_plain
from ._requests import (
    Answer,
    Input,
    Sent,
    TaskAddress,
    Trace,
    code_request,
    list_request,
    schedules_request,
    start_request,
    steer_request,
)
from .methods import WATCH_TASK, Method

__all__ = ["SyncTaskHandle", "SyncWorkerClient"]

A = TypeVar("A", bound=betterproto2.Message)


class SyncCalls(ClientBase, SyncConnection):
    """Sends calls, and retries them if that helps."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    @overload
    def call(
        self,
        method: Method[A],
        content: betterproto2.Message | None = None,
        *,
        payload: Mapping[str, Any] | None = None,
        unit_id: str = "",
        trace: Trace | None = None,
        timeout: float | None = None,
    ) -> Answer[A]: ...
    @overload
    def call(
        self,
        method: str,
        content: betterproto2.Message | None = None,
        *,
        payload: Mapping[str, Any] | None = None,
        unit_id: str = "",
        trace: Trace | None = None,
        timeout: float | None = None,
    ) -> Answer[Any]: ...
    def call(
        self,
        method: Method[A] | str,
        content: betterproto2.Message | None = None,
        *,
        payload: Mapping[str, Any] | None = None,
        unit_id: str = "",
        trace: Trace | None = None,
        timeout: float | None = None,
    ) -> Answer[A] | Answer[Any]:
        """Call any method with one answer, and return the whole answer.

        Args:
            method: one of `contextunity.worker.client.methods`, or its name, such as `GetTaskStatus`.
            content: the typed request.
            payload: the request, or a part of it, as plain data.
            unit_id: UUID of the unit; default: a new one.
            trace: trace of the call; default: the client's.
            timeout: seconds for the call; default: the client's timeout.
        """
        if isinstance(method, str):
            method = methods.method_named(method)
        sent = self._send(method, content, payload, unit_id, trace)
        deadline = Deadline(self._timeout if timeout is None else timeout)
        attempts = Attempts(self._retry, deadline)
        # Without serializers, the stub takes and returns bytes.
        stub = cast("Any", self._connection()).unary_unary(sent.method.path)
        while True:
            try:
                return sent.read(stub(sent.data, timeout=deadline.remaining(), metadata=self._metadata()))
            except grpc.RpcError as error:
                time.sleep(attempts.delay_after(sent.failure(error)))

    def watch(
        self,
        workflow_id: str,
        *,
        run_id: str = "",
        tenant_id: str | None = None,
        after: str = "",
        trace: Trace | None = None,
        timeout: float | None = None,
    ) -> Generator[Answer[TaskStatus], None]:
        """Watch a task until it ends; a broken stream is resumed.

        Args:
            workflow_id: id of the task.
            run_id: id of the run; empty for the newest.
            tenant_id: tenant of the task; default: the client's.
            after: `resume_token` of the last known status; empty starts with the current status.
            trace: trace of the call; default: the client's.
            timeout: seconds for the whole watch; default: unlimited.

        Yields:
            The current status, then one for each change; the last one is the end.
        """
        task = TaskAddress(workflow_id=workflow_id, run_id=run_id, tenant_id=self._tenant(tenant_id))
        watching = Watching.of(task, after, self._retry, timeout)
        while not watching.ended:
            sent = self._send(WATCH_TASK, watching.request, trace=trace)
            failure = None
            try:
                with contextlib.closing(self._stream(sent, watching)) as answers:
                    yield from answers
            except grpc.RpcError as error:
                failure = sent.failure(error)
            if not watching.ended:
                time.sleep(watching.broke(failure))

    def _stream(self, sent: Sent[TaskStatus], watching: Watching) -> Generator[Answer[TaskStatus], None]:
        stub = cast("Any", self._connection()).unary_stream(sent.method.path)
        call = stub(sent.data, timeout=watching.reconnects.deadline.remaining(), metadata=self._metadata())
        try:
            for data in call:
                answer = sent.read(data)
                watching.saw(answer)
                yield answer
        finally:
            # Cancel the call if the caller stops iterating, so that the service stops polling Temporal.
            call.cancel()


M = TypeVar("M", bound=betterproto2.Message)


class SyncTaskHandle(HandleBase):
    """A task: request its status, wait for it, control it. Methods raise the errors of SyncWorkerClient."""

    def __init__(self, client: SyncCalls, task: TaskAddress, trace: Trace, *, follows: bool = False) -> None:
        super().__init__(task, trace, follows=follows)
        self._client = client

    def status(self) -> bodies.TaskStatus:
        """Return the status of the task."""
        return (self._call(methods.GET_TASK_STATUS, bodies.GetTaskStatusRequest(**self._task.fields()))).body

    def watch(
        self,
        *,
        after: str = "",
        timeout: float | None = None,
    ) -> Generator[Answer[bodies.TaskStatus], None]:
        """Watch the task until it ends; see `watch` of the client."""
        return self._client.watch(**self._task.fields(), after=after, trace=self._trace, timeout=timeout)

    @overload
    def result(self, result_type: None = None, *, timeout: float | None = None) -> Any: ...
    @overload
    def result(self, result_type: type[M], *, timeout: float | None = None) -> M: ...
    def result(self, result_type: type[M] | None = None, *, timeout: float | None = None) -> M | Any:
        """Wait for the result, and return it.

        Args:
            result_type: class of the result, such as HarvestResponse; betterproto2.Message for its own generated class,
            whichever that is. None returns plain data.
            timeout: seconds to wait; default: unlimited.

        Raises:
            TaskFailedError: the task did not complete.
            WorkerServiceError: DEADLINE_EXCEEDED if it has not ended in time.
            CodecError: the result is of another type.
        """
        with contextlib.closing(self.watch(timeout=timeout)) as answers:
            last = list(answers)[-1]
        return result_of(last, result_type)

    def cancel(self, *, reason: str = "") -> bodies.TaskReference:
        """Request the cancellation of the task; `reason` goes into its history."""
        request = bodies.CancelTaskRequest(**self._steered.fields(), reason=reason)
        return self._call(methods.CANCEL_TASK, request).body

    def terminate(self, *, reason: str = "") -> bodies.TaskReference:
        """Terminate the task at once, without cleanup; `reason` goes into its history."""
        request = bodies.TerminateTaskRequest(**self._steered.fields(), reason=reason)
        return self._call(methods.TERMINATE_TASK, request).body

    def signal(self, name: str, given: Input = None, *, unit_id: str = "") -> bodies.TaskReference:
        """Send the task a signal of its contract, with the input as plain data or as the generated dataclass."""
        request = steer_request(bodies.SignalTaskRequest, self._steered, {"signal": name}, given)
        return self._call(methods.SIGNAL_TASK, request, unit_id).body

    @overload
    def query(self, name: str, given: Input = None, *, result_type: None = None) -> Any: ...
    @overload
    def query(self, name: str, given: Input = None, *, result_type: type[M]) -> M: ...
    def query(self, name: str, given: Input = None, *, result_type: type[M] | None = None) -> M | Any:
        """Send the task a query of its contract; `result_type` is as with `result`."""
        request = steer_request(bodies.QueryTaskRequest, self._steered, {"query": name}, given)
        answer = self._call(methods.QUERY_TASK, request)
        return typed_or_plain(answer.body.result, answer.payload.get("result"), result_type)

    @overload
    def update(self, name: str, given: Input = None, *, result_type: None = None, unit_id: str = "") -> Any: ...
    @overload
    def update(self, name: str, given: Input = None, *, result_type: type[M], unit_id: str = "") -> M: ...
    def update(
        self, name: str, given: Input = None, *, result_type: type[M] | None = None, unit_id: str = ""
    ) -> M | Any:
        """Send the task an update of its contract, and wait for its result; `result_type` is as with `result`.

        A retry with the same `unit_id` is the same update.
        """
        request = steer_request(bodies.UpdateTaskRequest, self._steered, {"update": name}, given)
        answer = self._call(methods.UPDATE_TASK, request, unit_id)
        return typed_or_plain(answer.body.result, answer.payload.get("result"), result_type)

    def _call(self, method: Method[A], content: betterproto2.Message, unit_id: str = "") -> Answer[A]:
        return self._client.call(method, content, unit_id=unit_id, trace=self._trace)


class SyncWorkerClient(SyncCalls):
    """Client of a WorkerService.

    The first call opens the connection, and `close` closes it; use the client as a context manager. All methods
    raise WorkerServiceError if a call fails, and ValueError or TypeError for invalid arguments.

    Example:
        with SyncWorkerClient("localhost:50052", tenant_id="my_project") as client:
            task = client.start("harvest", {"supplier_code": "camping-trade"})
            print(task.result())
    """

    def start(
        self,
        workflow: str | betterproto2.Message,
        given: Input = None,
        *,
        tenant_id: str | None = None,
        unit_id: str = "",
        timeout: float | None = None,
    ) -> SyncTaskHandle:
        """Start a task, and return its handle.

        Args:
            workflow: the workflow_type, or the input message, whose type selects the workflow.
            given: the input, as plain data or as the generated dataclass; None for no input.
            tenant_id: tenant of the task; default: the client's.
            unit_id: UUID that makes this start idempotent: the same one returns the same run.
            timeout: seconds for the call; default: the client's timeout.
        """
        tenant = self._tenant(tenant_id)
        content, payload = start_request(workflow, given, tenant_id=tenant)
        answer = self.call(methods.START_WORKFLOW, content, payload=payload, unit_id=unit_id, timeout=timeout)
        task = TaskAddress(workflow_id=answer.body.workflow_id, run_id=answer.body.run_id, tenant_id=tenant)
        trace = Trace(trace_id=answer.unit.trace_id, parent_unit_id=answer.unit.unit_id)
        return SyncTaskHandle(self, task, trace, follows=True)

    def task(self, workflow_id: str, *, run_id: str = "", tenant_id: str | None = None) -> SyncTaskHandle:
        """Return a handle of an existing task, without a request to the service."""
        address = TaskAddress(workflow_id=workflow_id, run_id=run_id, tenant_id=self._tenant(tenant_id))
        return SyncTaskHandle(self, address, self._trace)

    def list_tasks(
        self,
        *,
        workflow_type: str | Iterable[str] = "",
        status: bodies.TaskState | str | Iterable[bodies.TaskState | str] = (),
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        tenant_id: str | None = None,
        page_size: int = 0,
    ) -> Iterator[bodies.TaskSummary]:
        """Iterate over tasks, newest first; further pages are requested on demand.

        Args:
            workflow_type: names of contracts; default: all.
            status: states, as enum members or words such as `running`; default: all.
            started_after: timezone-aware; this time or later.
            started_before: timezone-aware; before this time.
            tenant_id: tenant of the tasks; default: the client's.
            page_size: tasks per request; 0 for the service's default.
        """
        request = list_request(
            tenant_id=self._tenant(tenant_id),
            workflow_type=workflow_type,
            status=status,
            started_after=started_after,
            started_before=started_before,
            page_size=page_size,
        )
        while True:
            page = self.call(methods.LIST_TASKS, request).body
            yield from page.tasks
            if not page.next_page_token:
                return
            request = replace(request, page_token=page.next_page_token)

    def describe_contracts(
        self,
        *workflow_types: str,
        include_descriptors: bool = False,
        include_schemas: bool = False,
        include_options: bool = False,
    ) -> bodies.DescribeContractsResult:
        """Describe the named contracts, or all.

        Args:
            workflow_types: names of contracts; none means all.
            include_descriptors: return annotations and comments in `file_descriptor_set`, as in the proto files.
            include_schemas: return a JSON Schema, as text, of each input and output.
            include_options: return timeouts, retries and policies, and the activities.
        """
        request = bodies.DescribeContractsRequest(
            workflow_type=list(workflow_types),
            include_descriptors=include_descriptors,
            include_schemas=include_schemas,
            include_options=include_options,
        )
        return self.call(methods.DESCRIBE_CONTRACTS, request).body

    def execute_code(
        self,
        code: str,
        *,
        language: Language | str = "",
        time_limit: timedelta | float | None = None,
        inputs: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes | str] | None = None,
        tools: Sequence[str] = (),
        wait: bool | None = None,
        tenant_id: str | None = None,
        unit_id: str = "",
        timeout: float | None = None,
    ) -> bodies.ExecuteCodeResult:
        """Run a program in the service's sandbox. `plain_value` converts the result of the answer.

        Args:
            code: source of the program.
            language: an enum member, or a word such as `python`; default: the deployment's.
            time_limit: limit of its wall-clock time, as timedelta or seconds.
            inputs: variables of the program, by name.
            files: files in the program's folder, by relative path.
            tools: names of tools that it may call.
            wait: False returns at once, with the workflow_id for later calls.
            tenant_id: tenant of the program; default: the client's.
            unit_id: UUID that makes this run idempotent.
            timeout: seconds for the call; default: the client's timeout.
        """
        request = code_request(
            code,
            tenant_id=self._tenant(tenant_id),
            language=language,
            timeout=time_limit,
            inputs=inputs,
            files=files,
            tools=tools,
            wait=wait,
        )
        return self.call(methods.EXECUTE_CODE, request, unit_id=unit_id, timeout=timeout).body

    def register_schedules(
        self,
        schedules: Iterable[bodies.ScheduleEntry | Mapping[str, Any]],
        *,
        project_id: str = "",
        prune: bool = False,
        partial: bool = False,
        dry_run: bool = False,
        tenant_id: str | None = None,
    ) -> bodies.RegisterSchedulesResult:
        """Register the schedules of a project.

        Args:
            schedules: either all typed, or all as plain data.
            project_id: project of the schedules; default: the token's project, or "default".
            prune: remove the project's other schedules.
            partial: register the valid entries even if others are invalid; otherwise none.
            dry_run: only return what would be done.
            tenant_id: tenant of the schedules; default: the client's.
        """
        content, payload = schedules_request(
            schedules,
            project_id=project_id,
            tenant_id=self._tenant(tenant_id),
            prune=prune,
            partial=partial,
            dry_run=dry_run,
        )
        return self.call(methods.REGISTER_SCHEDULES, content, payload=payload).body

    def list_schedules(self, *, project_id: str = "", tenant_id: str | None = None) -> list[bodies.ScheduleStatus]:
        """Return the schedules of one project, or of all."""
        request = bodies.ListSchedulesRequest(project_id=project_id, tenant_id=self._tenant(tenant_id))
        return self.call(methods.LIST_SCHEDULES, request).body.schedules

    def pause_schedule(
        self, schedule_id: str, *, project_id: str = "", note: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Pause a schedule; `note` is a comment for people."""
        return self._schedule(methods.PAUSE_SCHEDULE, schedule_id, project_id, note, tenant_id)

    def resume_schedule(
        self, schedule_id: str, *, project_id: str = "", note: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Resume a paused schedule."""
        return self._schedule(methods.RESUME_SCHEDULE, schedule_id, project_id, note, tenant_id)

    def trigger_schedule(
        self, schedule_id: str, *, project_id: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Run a schedule once, now."""
        return self._schedule(methods.TRIGGER_SCHEDULE, schedule_id, project_id, "", tenant_id)

    def delete_schedule(
        self, schedule_id: str, *, project_id: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Delete a schedule; its running tasks are not affected."""
        return self._schedule(methods.DELETE_SCHEDULE, schedule_id, project_id, "", tenant_id)

    def _schedule(
        self,
        method: Method[bodies.ScheduleResult],
        schedule_id: str,
        project_id: str,
        note: str,
        tenant_id: str | None,
    ) -> bodies.ScheduleResult:
        request = bodies.ScheduleRequest(
            schedule_id=schedule_id, project_id=project_id, tenant_id=self._tenant(tenant_id), note=note
        )
        return self.call(method, request).body
