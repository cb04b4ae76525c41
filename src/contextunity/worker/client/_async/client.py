"""The client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import betterproto2
from contextunity.gen.contextunity import worker as bodies
from contextunity.gen.contextunity.code.v1 import Language

from .. import methods
from .._envelope import Trace
from .._requests import Input, TaskAddress, code_request, list_request, schedules_request, start_request
from ..methods import Method
from .calls import AsyncCalls
from .task import TaskHandle


class WorkerClient(AsyncCalls):
    """Calls a WorkerService.

    It opens its connection with the first call, and keeps it until it is closed; use it as a context manager. All
    methods raise WorkerServiceError where the service does not answer as asked, and ValueError or TypeError for
    arguments that no unit can carry.

    Example:
        async with WorkerClient("localhost:50052", tenant_id="my_project") as client:
            task = await client.start("harvest", {"supplier_code": "camping-trade"})
            print(await task.result())
    """

    async def start(
        self,
        workflow: str | betterproto2.Message,
        given: Input = None,
        *,
        tenant_id: str | None = None,
        unit_id: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - goes to gRPC as the deadline
    ) -> TaskHandle:
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
        answer = await self.call(methods.START_WORKFLOW, content, payload=payload, unit_id=unit_id, timeout=timeout)
        task = TaskAddress(workflow_id=answer.body.workflow_id, run_id=answer.body.run_id, tenant_id=tenant)
        trace = Trace(trace_id=answer.unit.trace_id, parent_unit_id=answer.unit.unit_id)
        return TaskHandle(self, task, trace, follows=True)

    def task(self, workflow_id: str, *, run_id: str = "", tenant_id: str | None = None) -> TaskHandle:
        """A handle of a task that exists; nothing is asked yet."""
        address = TaskAddress(workflow_id=workflow_id, run_id=run_id, tenant_id=self._tenant(tenant_id))
        return TaskHandle(self, address, self._trace)

    async def list_tasks(
        self,
        *,
        workflow_type: str | Iterable[str] = "",
        status: bodies.TaskState | str | Iterable[bodies.TaskState | str] = (),
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        tenant_id: str | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[bodies.TaskSummary]:
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
            page = (await self.call(methods.LIST_TASKS, request)).body
            for task in page.tasks:
                yield task
            if not page.next_page_token:
                return
            request = replace(request, page_token=page.next_page_token)

    async def describe_contracts(self, *workflow_types: str) -> bodies.DescribeContractsResult:
        """Describes what can be started: the contracts named, or all."""
        request = bodies.DescribeContractsRequest(workflow_type=list(workflow_types))
        return (await self.call(methods.DESCRIBE_CONTRACTS, request)).body

    async def execute_code(
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
        timeout: float | None = None,  # noqa: ASYNC109 - goes to gRPC as the deadline
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
        return (await self.call(methods.EXECUTE_CODE, request, unit_id=unit_id, timeout=timeout)).body

    async def register_schedules(
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
        return (await self.call(methods.REGISTER_SCHEDULES, content, payload=payload)).body

    async def list_schedules(
        self, *, project_id: str = "", tenant_id: str | None = None
    ) -> list[bodies.ScheduleStatus]:
        """Lists schedules, of one project or of all."""
        request = bodies.ListSchedulesRequest(project_id=project_id, tenant_id=self._tenant(tenant_id))
        return (await self.call(methods.LIST_SCHEDULES, request)).body.schedules

    async def pause_schedule(
        self, schedule_id: str, *, project_id: str = "", note: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Pauses a schedule; `note` says why, for people."""
        return await self._schedule(methods.PAUSE_SCHEDULE, schedule_id, project_id, note, tenant_id)

    async def resume_schedule(
        self, schedule_id: str, *, project_id: str = "", note: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Has a paused schedule go on."""
        return await self._schedule(methods.RESUME_SCHEDULE, schedule_id, project_id, note, tenant_id)

    async def trigger_schedule(
        self, schedule_id: str, *, project_id: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Has a schedule run once, now."""
        return await self._schedule(methods.TRIGGER_SCHEDULE, schedule_id, project_id, "", tenant_id)

    async def delete_schedule(
        self, schedule_id: str, *, project_id: str = "", tenant_id: str | None = None
    ) -> bodies.ScheduleResult:
        """Removes a schedule; tasks that it started go on."""
        return await self._schedule(methods.DELETE_SCHEDULE, schedule_id, project_id, "", tenant_id)

    async def _schedule(
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
        return (await self.call(method, request)).body
