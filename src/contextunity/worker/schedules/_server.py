"""Calls to the Temporal server that schedules need, by its own API: the SDK's has no way to refuse a stale update."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Iterable, Set
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from temporalio.api.schedule.v1 import Schedule, SchedulePatch, TriggerImmediatelyRequest
from temporalio.api.workflowservice.v1 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    DescribeScheduleRequest,
    ListSchedulesRequest,
    PatchScheduleRequest,
    UpdateScheduleRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ._names import ID_LIMIT, ScheduleName, list_query
from ._stored import Stored, read_schedule

__all__ = ["ScheduleServer"]

T = TypeVar("T")

_AT_ONCE = 16
_PAGE = 1000


class ScheduleServer:
    """The schedules on a Temporal server.

    Every method raises `temporalio.service.RPCError` where the server does not do it.

    Args:
        client: Temporal client with the contract's data converter.
        timeout: how long one call may take.
    """

    def __init__(self, client: Client, timeout: timedelta) -> None:
        self.client = client
        self._service = client.workflow_service
        self._timeout = timeout
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def describe(self, name: ScheduleName) -> Stored | None:
        """A schedule as it is; None where there is none, or not one of ours."""
        temporal_id = name.temporal_id
        if len(temporal_id) > ID_LIMIT:
            return None
        try:
            description = await self._service.describe_schedule(
                DescribeScheduleRequest(namespace=self.client.namespace, schedule_id=temporal_id),
                retry=True,
                timeout=self._timeout,
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        return await read_schedule(self.client, temporal_id, description)

    async def create(self, name: ScheduleName, schedule: Schedule) -> bool:
        """Creates a schedule; False where the id is taken."""
        try:
            await self._service.create_schedule(
                CreateScheduleRequest(
                    namespace=self.client.namespace,
                    schedule_id=name.temporal_id,
                    schedule=schedule,
                    identity=self.client.identity,
                    request_id=str(uuid.uuid4()),
                ),
                retry=True,
                timeout=self._timeout,
            )
        except RPCError as error:
            if error.status is RPCStatusCode.ALREADY_EXISTS:
                return False
            raise
        return True

    async def update(self, stored: Stored, schedule: Schedule) -> None:
        """Asks to change a schedule that is still as it was read; where it is not, the server leaves it, silently."""
        schedule.state.CopyFrom(stored.description.schedule.state)
        try:
            await self._service.update_schedule(
                UpdateScheduleRequest(
                    namespace=self.client.namespace,
                    schedule_id=stored.name.temporal_id,
                    schedule=schedule,
                    conflict_token=stored.description.conflict_token,
                    identity=self.client.identity,
                    request_id=str(uuid.uuid4()),
                ),
                retry=True,
                timeout=self._timeout,
            )
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    async def delete(self, name: ScheduleName) -> bool:
        """Removes a schedule; False where it is gone already."""
        try:
            await self._service.delete_schedule(
                DeleteScheduleRequest(
                    namespace=self.client.namespace, schedule_id=name.temporal_id, identity=self.client.identity
                ),
                retry=True,
                timeout=self._timeout,
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        return True

    async def pause(self, name: ScheduleName, note: str) -> bool:
        """Pauses a schedule; False where it is gone."""
        return await self._patch(name, SchedulePatch(pause=note))

    async def resume(self, name: ScheduleName, note: str) -> bool:
        """Lets a schedule go on; False where it is gone."""
        return await self._patch(name, SchedulePatch(unpause=note))

    async def trigger(self, name: ScheduleName, due: datetime, overlap: int) -> bool:
        """Has a schedule start a task as if it were due at a time; False where it is gone."""
        trigger = TriggerImmediatelyRequest()
        trigger.overlap_policy = overlap  # type: ignore[assignment]  # the stubs want the enum's own type for its number
        trigger.scheduled_time.FromDatetime(due)
        return await self._patch(name, SchedulePatch(trigger_immediately=trigger))

    async def names(self, tenant_ids: Set[str] | None, project_id: str) -> list[ScheduleName]:
        """Names of the schedules that may be ours, sorted.

        The server's list lags a moment behind what was created or removed just now.

        Args:
            tenant_ids: of these tenants; None for all.
            project_id: of this project; empty for all.
        """
        only = next(iter(tenant_ids)) if tenant_ids is not None and len(tenant_ids) == 1 else None
        request = ListSchedulesRequest(
            namespace=self.client.namespace, maximum_page_size=_PAGE, query=list_query(only, project_id)
        )
        found = set[ScheduleName]()
        while True:
            page = await self._service.list_schedules(request, retry=True, timeout=self._timeout)
            for each in page.schedules:
                name = ScheduleName.from_temporal_id(each.schedule_id)
                if name is not None and (tenant_ids is None or name.tenant_id in tenant_ids):
                    found.add(name)
            if not page.next_page_token:
                break
            request.next_page_token = page.next_page_token
        return sorted(name for name in found if not project_id or name.project_id == project_id)

    async def describe_all(self, names: Iterable[ScheduleName]) -> list[Stored]:
        """Those of the schedules that are there and ours, in the order of the names."""

        found = await self.all_of(self.describe(name) for name in names)
        return [stored for stored in found if stored is not None]

    async def all_of(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """What calls give, a bounded number of them at once.

        Where one fails, no further ones are begun, and those under way have ended before its error is raised: against
        a server that does not answer, each would otherwise take its time.
        """
        first: list[BaseException] = []

        async def one(call: Coroutine[Any, Any, T]) -> T | None:
            async with self._slots:
                if first:
                    call.close()
                    return None
                try:
                    return await call
                except BaseException as error:
                    first.append(error)
                    raise

        given = await asyncio.gather(*map(one, calls), return_exceptions=True)
        if first:
            raise first[0]
        # None stands for a call that was not begun alone, and then there is a first error.
        return cast("list[T]", given)

    async def _patch(self, name: ScheduleName, patch: SchedulePatch) -> bool:
        try:
            await self._service.patch_schedule(
                PatchScheduleRequest(
                    namespace=self.client.namespace,
                    schedule_id=name.temporal_id,
                    patch=patch,
                    identity=self.client.identity,
                    request_id=str(uuid.uuid4()),
                ),
                retry=True,
                timeout=self._timeout,
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        return True
