"""Workflows that go beyond limits of Temporal or of its sandbox. The sandbox imports this file."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from contextunity.gen.contextunity.harvest.v1 import Feed, FetchProductsResponse, HarvestResponse
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

_LARGE = 3 * 1024 * 1024
_TIMEOUT = timedelta(seconds=30)
_ONCE = RetryPolicy(maximum_attempts=1)


@activity.defn
async def measure(response: FetchProductsResponse | HarvestResponse) -> int:
    return len(str(response))


@activity.defn
async def grow(size: int) -> HarvestResponse:
    return HarvestResponse(harvest_id="x" * size)


@activity.defn
async def beat(size: int) -> None:
    activity.heartbeat("x" * size)
    await asyncio.Event().wait()


@activity.defn
async def fail(kind: str) -> None:
    raise ApplicationError(f"no {kind}", type=kind)


@activity.defn
async def fail_at_length(size: int) -> None:
    raise ApplicationError("it went wrong", "x" * size, type="AtLength", non_retryable=True)


@workflow.defn
class Sends:
    """Sends something large in one of the ways there are."""

    @workflow.run
    async def run(self, way: str) -> HarvestResponse:
        large = HarvestResponse(harvest_id="x" * _LARGE)
        match way:
            case "activity":
                page = FetchProductsResponse(feed=Feed(supplier_code="x" * _LARGE), fetched=7)
                await workflow.execute_activity(measure, page, start_to_close_timeout=_TIMEOUT)
            case "local activity":
                await workflow.execute_local_activity(measure, large, start_to_close_timeout=_TIMEOUT)
            case "activity result":
                await workflow.execute_activity(grow, _LARGE, start_to_close_timeout=_TIMEOUT)
            case "heartbeat":
                await workflow.execute_activity(beat, _LARGE, start_to_close_timeout=_TIMEOUT)
            case "details":
                await workflow.execute_activity(fail_at_length, _LARGE, start_to_close_timeout=_TIMEOUT)
            case "child":
                await workflow.execute_child_workflow("Receives", large)
            case "signal":
                await workflow.get_external_workflow_handle("nobody").signal("note", large)
            case "next run":
                workflow.continue_as_new(large)
            case "failure":
                raise ApplicationError("y" * _LARGE, type="Long")
            case _:
                pass
        return large

    @workflow.query
    def ask(self, size: int) -> HarvestResponse:
        return HarvestResponse(harvest_id="x" * size)


@workflow.defn
class Catches:
    """Goes on after what was too large."""

    @workflow.run
    async def run(self) -> str:
        try:
            large = HarvestResponse(harvest_id="x" * _LARGE)
            await workflow.execute_activity(measure, large, start_to_close_timeout=_TIMEOUT)
        except ApplicationError as error:
            await workflow.sleep(timedelta(milliseconds=1))
            answer: HarvestResponse = await workflow.execute_activity(grow, 3, start_to_close_timeout=_TIMEOUT)
            return f"{error.type} {answer.harvest_id}"
        return ""


@workflow.defn
class Receives:
    def __init__(self) -> None:
        self._done = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self._done)

    @workflow.update
    async def grow(self, size: int) -> HarvestResponse:
        return HarvestResponse(harvest_id="x" * size)

    @workflow.update
    async def gather(self, kinds: list[str]) -> None:
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                group.create_task(_fail(kind))

    @workflow.signal
    async def finish(self) -> None:
        self._done = True


async def _fail(kind: str) -> None:
    await workflow.execute_activity(fail, kind, start_to_close_timeout=_TIMEOUT, retry_policy=_ONCE)


async def _wait() -> None:
    await workflow.execute_activity(beat, 1, start_to_close_timeout=_TIMEOUT)


async def _raise(error: Exception) -> None:
    raise error


@workflow.defn
class Groups:
    @workflow.run
    async def run(self, kinds: list[str]) -> None:
        async with asyncio.TaskGroup() as group:
            # Cancelled as soon as another fails, which is no reason of its own.
            group.create_task(_wait())
            for kind in kinds:
                match kind:
                    case "mistake":
                        group.create_task(_raise(KeyError("mistake")))
                    case "at once":
                        group.create_task(_raise(ApplicationError("no time", type="Time")))
                    case _:
                        group.create_task(_fail(kind))


@workflow.defn
class Splits:
    """Handles what a group raises by itself."""

    @workflow.run
    async def run(self) -> str:
        failed = 0
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail("Stock"))
        except* ActivityError as errors:
            failed = len(errors.exceptions)
        return f"{failed} failed"


@workflow.defn
class Zones:
    @workflow.run
    async def run(self, at: datetime) -> str:
        now = workflow.now().astimezone(ZoneInfo("UTC"))
        return f"{at.astimezone(ZoneInfo('Europe/Paris')).isoformat()} {now.tzname()}"


WORKFLOWS = (Sends, Catches, Receives, Groups, Splits, Zones)
ACTIVITIES = (measure, grow, beat, fail, fail_at_length)
