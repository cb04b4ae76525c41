"""A workflow that uses a class derived from one that the sandbox restricts, which the SDK does not support."""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow


class Stamp(datetime):
    pass


@workflow.defn
class Stamps:
    @workflow.run
    async def run(self) -> str:
        return Stamp(2026, 1, 2).isoformat()
