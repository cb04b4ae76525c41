"""The module of the smallest job, as a module author writes it: a workflow with one activity."""

from __future__ import annotations

import asyncio
import time

from bench_tree.bench.job.v1 import JobRequest, JobResponse
from bench_tree.bench.job.v1 import job_temporal as job
from temporalio import workflow

from contextunity.worker.core.registry import ModuleConfig


@job.step.defn
async def step(request: JobRequest) -> JobResponse:
    await asyncio.sleep(request.wait_ms / 1000)
    until = time.process_time() + request.busy_ms / 1000
    while time.process_time() < until:
        pass
    return JobResponse(text=f"did {request.name}", count=request.count + 1)


class RunJob(job.RunWorkflowBase):
    def __init__(self) -> None:
        self._progress = JobResponse(text="begun")

    async def run(self, request: JobRequest) -> JobResponse:
        if request.wait:
            await workflow.wait_condition(lambda: False)
        return await job.step(request)

    def get_progress(self) -> JobResponse:
        return self._progress


module = ModuleConfig(name="bench-job", workflows=[RunJob], activities=[step])
