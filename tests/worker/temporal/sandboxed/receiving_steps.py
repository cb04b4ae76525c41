"""Workflows and activities whose input has rules. The sandbox imports this file anew for each run."""

from __future__ import annotations

from datetime import timedelta

from contextunity.gen.contextunity.harvest.v1 import HarvestRequest, SetPageSizeRequest
from temporalio import activity, workflow

_SOON = timedelta(seconds=30)


@activity.defn
async def take(request: HarvestRequest) -> str:
    return request.supplier_code


@workflow.defn(name="Receiver")
class Receiver:
    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._done = False

    @workflow.run
    async def run(self, request: HarvestRequest) -> list[int]:
        await workflow.wait_condition(lambda: self._done)
        await workflow.sleep(timedelta(milliseconds=1))
        return self._sizes

    @workflow.signal
    async def resize(self, request: SetPageSizeRequest) -> None:
        self._sizes.append(request.page_size)

    @workflow.signal
    async def finish(self) -> None:
        self._done = True

    @workflow.query
    def fits(self, request: SetPageSizeRequest) -> bool:
        return True

    @workflow.update
    async def unchecked(self, request: SetPageSizeRequest) -> int:
        return request.page_size

    @workflow.update
    async def checked(self, request: SetPageSizeRequest) -> int:
        return request.page_size

    @checked.validator
    def _check(self, request: SetPageSizeRequest) -> None:
        if request.page_size == 7:
            raise ValueError("7 is not to our taste")


@workflow.defn(name="Sender")
class Sender:
    @workflow.run
    async def run(self, supplier_code: str) -> str:
        request = HarvestRequest(supplier_code=supplier_code, page_size=5000, tenant_id="t")
        return await workflow.execute_activity(take, request, start_to_close_timeout=_SOON)


@workflow.defn(name="Mistaken")
class Mistaken:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("take", SetPageSizeRequest(page_size=1), start_to_close_timeout=_SOON)


WORKFLOWS = [Mistaken, Receiver, Sender]
ACTIVITIES = [take]
