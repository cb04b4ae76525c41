"""`python -m bench._by_hand ADDRESS QUEUE sandboxed|unsandboxed`: the smallest job, by hand on Temporal's SDK."""

from __future__ import annotations

import asyncio
import gc
import sys
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner


@dataclass
class JobRequest:
    name: str
    tenant_id: str = ""
    count: int = 0
    wait: bool = False


@dataclass
class JobResponse:
    text: str
    count: int


@activity.defn(name="bench_step")
async def step(request: JobRequest) -> JobResponse:
    return JobResponse(text=f"did {request.name}", count=request.count + 1)


@workflow.defn(name="bench_job")
class RunJob:
    @workflow.run
    async def run(self, request: JobRequest) -> JobResponse:
        return await workflow.execute_activity(
            step,
            request,
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=RetryPolicy(maximum_attempts=3),
        )


async def _main() -> None:
    address, task_queue, kind = sys.argv[1:]
    runner = SandboxedWorkflowRunner() if kind == "sandboxed" else UnsandboxedWorkflowRunner()
    client = await Client.connect(address)
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=[RunJob],
        activities=[step],
        workflow_runner=runner,
        # As many as ours keeps, so that neither throws workflows out.
        max_cached_workflows=500,
        max_concurrent_activities=16,
    )
    async with worker:
        # As ours does.
        gc.collect()
        gc.freeze()
        print("worker runs", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
