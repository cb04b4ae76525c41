"""A workflow that handles times to the nanosecond, and an activity. The sandbox imports this file anew for each run."""

from __future__ import annotations

import copy
import dataclasses
from datetime import datetime, timedelta

from contextunity.gen.contextunity.harvest.v1 import Feed, HarvestResponse
from temporalio import activity, workflow

from contextunity.core.exact_datetime import ExactDatetime


@activity.defn
async def pass_on(response: HarvestResponse, at: datetime) -> HarvestResponse:
    assert response.started_at == at
    return dataclasses.replace(response, harvest_id=at.isoformat())


@workflow.defn(name="Exact")
class Exact:
    @workflow.run
    async def run(self, response: HarvestResponse, at: datetime) -> HarvestResponse:
        started_at = response.started_at
        assert isinstance(started_at, datetime)
        assert isinstance(started_at, ExactDatetime)
        assert started_at == at == copy.deepcopy(started_at)
        assert started_at > started_at.plain()
        # To subtract goes by the microsecond.
        assert started_at - started_at.plain() == timedelta(0)
        await workflow.sleep(timedelta(milliseconds=1))
        answer: HarvestResponse = await workflow.execute_activity(
            pass_on, args=[copy.copy(response), at], start_to_close_timeout=timedelta(seconds=30)
        )
        return answer


@workflow.defn(name="Formats")
class Formats:
    def __init__(self) -> None:
        self._seen: list[int] = []

    @workflow.run
    async def run(self, feed: Feed) -> list[int]:
        self._seen.append(int(feed.format))
        await workflow.wait_condition(lambda: len(self._seen) > 1)
        return sorted(self._seen)  # the signal may come before the run begins

    @workflow.signal
    async def more(self, feed: Feed) -> None:
        self._seen.append(int(feed.format))


WORKFLOWS = [Exact, Formats]
ACTIVITIES = [pass_on]
