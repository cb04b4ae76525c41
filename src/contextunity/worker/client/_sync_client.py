# Generated from _async_client.py by tools/sync_client.py. DO NOT EDIT.
"""The client for threads, on grpc: calls with their attempts, the handle of a task, and SyncWorkerClient."""

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
    """Makes calls, again where that helps."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; a further call opens another."""
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
        """Calls any method that gives one answer, and gives all that it answers.

        Args:
            method: one of `contextunity.worker.client.methods`, or its name, such as `GetTaskStatus`.
            content: the typed request.
            payload: the same, or a part of it, as plain data.
            unit_id: UUID of the unit; a fresh one unless given.
            trace: the chain of work; that of the client unless given.
            timeout: seconds for the call; those of the client unless given.
        """
        if isinstance(method, str):
            method = methods.method_named(method)
        sent = self._send(method, content, payload, unit_id, trace)
        deadline = Deadline(self._timeout if timeout is None else timeout)
        attempts = Attempts(self._retry, deadline)
        # Without (de)serialisers the stub takes and gives bytes.
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
        """Follows a task to its end; a stream that breaks is taken up where it broke.

        Args:
            workflow_id: id of the task.
            run_id: which of its runs; empty for the newest.
            tenant_id: whose task; that of the client unless given.
            after: `resume_token` of the last status seen; empty begins with the status as it is.
            trace: the chain of work; that of the client unless given.
            timeout: seconds for all of it; unless given, as long as it takes.

        Yields:
            The status as it is, then one for each change, the end being the last.
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
            # Whoever stops looking tells the service, which otherwise goes on asking Temporal.
            call.cancel()


M = TypeVar("M", bound=betterproto2.Message)


class SyncTaskHandle(HandleBase):
    """A task: ask it, wait for it, steer it. Methods raise as those of SyncWorkerClient do."""

    def __init__(self, client: SyncCalls, task: TaskAddress, trace: Trace, *, follows: bool = False) -> None:
        super().__init__(task, trace, follows=follows)
        self._client = client

    def status(self) -> bodies.TaskStatus:
        """Tells how it goes."""
        return (self._call(methods.GET_TASK_STATUS, bodies.GetTaskStatusRequest(**self._task.fields()))).body

    def watch(
        self,
        *,
        after: str = "",
        timeout: float | None = None,
    ) -> Generator[Answer[bodies.TaskStatus], None]:
        """Follows it to its end; see the `watch` of the client."""
        return self._client.watch(**self._task.fields(), after=after, trace=self._trace, timeout=timeout)

    @overload
    def result(self, result_type: None = None, *, timeout: float | None = None) -> Any: ...
    @overload
    def result(self, result_type: type[M], *, timeout: float | None = None) -> M: ...
    def result(self, result_type: type[M] | None = None, *, timeout: float | None = None) -> M | Any:
        """Waits for its result.

        Args:
            result_type: class of the result, such as HarvestResponse; betterproto2.Message for whichever generated
                class it is. None gives plain data.
            timeout: seconds to wait; unless given, as long as it takes.

        Raises:
            TaskFailedError: it came to another end.
            WorkerServiceError: DEADLINE_EXCEEDED where it has not ended in time.
            CodecError: the result is of another type.
        """
        with contextlib.closing(self.watch(timeout=timeout)) as answers:
            last = list(answers)[-1]
        return result_of(last, result_type)

    def cancel(self, *, reason: str = "") -> bodies.TaskReference:
        """Asks it to end in its own way; `reason` is for whoever looks at its history."""
        request = bodies.CancelTaskRequest(**self._steered.fields(), reason=reason)
        return self._call(methods.CANCEL_TASK, request).body

    def terminate(self, *, reason: str = "") -> bodies.TaskReference:
        """Ends it at once, without giving it a say; `reason` is for whoever looks at its history."""
        request = bodies.TerminateTaskRequest(**self._steered.fields(), reason=reason)
        return self._call(methods.TERMINATE_TASK, request).body

    def signal(self, name: str, given: Input = None, *, unit_id: str = "") -> bodies.TaskReference:
        """Sends it a signal of its contract, with its input as plain data or as the generated dataclass."""
        request = steer_request(bodies.SignalTaskRequest, self._steered, {"signal": name}, given)
        return self._call(methods.SIGNAL_TASK, request, unit_id).body

    @overload
    def query(self, name: str, given: Input = None, *, result_type: None = None) -> Any: ...
    @overload
    def query(self, name: str, given: Input = None, *, result_type: type[M]) -> M: ...
    def query(self, name: str, given: Input = None, *, result_type: type[M] | None = None) -> M | Any:
        """Asks it a query of its contract; `result_type` is as with `result`."""
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
        """Has it do an update of its contract, and waits for it; `result_type` is as with `result`.

        The same `unit_id` again is the same update.
        """
        request = steer_request(bodies.UpdateTaskRequest, self._steered, {"update": name}, given)
        answer = self._call(methods.UPDATE_TASK, request, unit_id)
        return typed_or_plain(answer.body.result, answer.payload.get("result"), result_type)

    def _call(self, method: Method[A], content: betterproto2.Message, unit_id: str = "") -> Answer[A]:
        return self._client.call(method, content, unit_id=unit_id, trace=self._trace)


class SyncWorkerClient(SyncCalls):
    """Calls a WorkerService.

    It opens its connection with the first call, and keeps it until it is closed; use it as a context manager. All
    methods raise WorkerServiceError where the service does not answer as asked, and ValueError or TypeError for
    arguments that no unit can carry.

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
        """Starts a task.

        Args:
            workflow: the workflow_type; or the input message itself, whose type tells it.
            given: the input, as plain data or as the generated dataclass; None where it takes none.
            tenant_id: whose task; that of the client unless given.
            unit_id: UUID that makes this start repeatable: the same one again gives the same run.
            timeout: seconds for the call; those of the client unless given.
        """
        tenant = self._tenant(tenant_id)
        content, payload = start_request(workflow, given, tenant_id=tenant)
        answer = self.call(methods.START_WORKFLOW, content, payload=payload, unit_id=unit_id, timeout=timeout)
        task = TaskAddress(workflow_id=answer.body.workflow_id, run_id=answer.body.run_id, tenant_id=tenant)
        trace = Trace(trace_id=answer.unit.trace_id, parent_unit_id=answer.unit.unit_id)
        return SyncTaskHandle(self, task, trace, follows=True)

    def task(self, workflow_id: str, *, run_id: str = "", tenant_id: str | None = None) -> SyncTaskHandle:
        """A handle of a task that exists; nothing is asked yet."""
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
        """Gives tasks, newest first, asking for page after page as they are used.

        Args:
            workflow_type: names of contracts; none for all.
            status: states, as members or words such as `running`; none for all.
            started_after: aware; this time or later.
            started_before: aware; before this time.
            tenant_id: whose tasks; those of the client's tenant unless given.
            page_size: tasks asked for at once; 0 for the service's own choice.
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
        """Describes what can be started: the contracts named, or all.

        Args:
            workflow_types: names of contracts; none means all.
            include_descriptors: whether `file_descriptor_set` has annotations and comments, as the proto files do.
            include_schemas: whether to give a JSON Schema, as text, of each input and output.
            include_options: whether to give time limits, retries and policies, and the activities.
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
        """Runs a program in the service's sandbox. `plain_value` reads the result of the answer.

        Args:
            code: its source.
            language: a member, or a word such as `python`; the deployment's default unless given.
            time_limit: wall-clock time that it may take, in seconds where it is a number.
            inputs: variables that it finds, by name.
            files: files that it finds in its folder, by relative path.
            tools: names of tools that it may call.
            wait: False answers at once, with the workflow_id to ask later.
            tenant_id: whose program; that of the client unless given.
            unit_id: UUID that makes this run repeatable.
            timeout: seconds for the call; those of the client unless given.
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
        """Has the schedules of a project be as given.

        Args:
            schedules: all typed, or all as plain data.
            project_id: whose; the token's project, or "default", unless given.
            prune: whether those that are not among them are removed.
            partial: whether good ones are registered where others are faulty; otherwise none is.
            dry_run: whether to tell only what would be done.
            tenant_id: whose schedules; those of the client's tenant unless given.
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
        """Lists schedules, of one project or of all."""
        request = bodies.ListSchedulesRequest(project_id=project_id, tenant_id=self._tenant(tenant_id))
        return self.call(methods.LIST_SCHEDULES, request).body.schedules

    def pause_schedule(
        self, schedule_id: str, *, project_id: str = "", note: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Pauses a schedule; `note` says why, for people."""
        return self._schedule(methods.PAUSE_SCHEDULE, schedule_id, project_id, note, tenant_id)

    def resume_schedule(
        self, schedule_id: str, *, project_id: str = "", note: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Has a paused schedule go on."""
        return self._schedule(methods.RESUME_SCHEDULE, schedule_id, project_id, note, tenant_id)

    def trigger_schedule(
        self, schedule_id: str, *, project_id: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Has a schedule run once, now."""
        return self._schedule(methods.TRIGGER_SCHEDULE, schedule_id, project_id, "", tenant_id)

    def delete_schedule(
        self, schedule_id: str, *, project_id: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Removes a schedule; tasks that it started go on."""
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
