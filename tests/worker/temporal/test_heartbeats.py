"""Heartbeats that the worker sends for activities."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from python_temporal.activities import define
from python_temporal.contract import ActivityContract, ServiceContract

_HEARTBEAT_TIMEOUT = timedelta(seconds=1)
_released = threading.Event()


@workflow.defn
class _Patient:
    @workflow.run
    async def run(self, name: str) -> list[Any]:
        return await workflow.execute_activity(
            name,
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=RetryPolicy(maximum_attempts=2),
            result_type=list,
        )


@activity.defn
async def silent_for_longer_than_its_timeout() -> list[Any]:
    # The silence is what is tested: the server counts real time.
    await asyncio.sleep(2.5 * _HEARTBEAT_TIMEOUT.total_seconds())
    return [activity.info().attempt]


@activity.defn
def silent_in_a_thread() -> list[Any]:
    _released.wait(2.5 * _HEARTBEAT_TIMEOUT.total_seconds())
    return [activity.info().attempt]


@activity.defn
async def remembers_its_details() -> list[Any]:
    if activity.info().attempt == 1:
        activity.heartbeat("page", 7)
        # Longer than the timeout, in which the heartbeats of the worker have to keep what this one said.
        await asyncio.sleep(1.5 * _HEARTBEAT_TIMEOUT.total_seconds())
        raise RuntimeError("once more")
    return list(activity.info().heartbeat_details)


def _by_itself(function: Callable[..., Any]) -> Callable[..., Any]:
    """An activity whose contract leaves the heartbeats to it."""
    contract = ActivityContract(
        name=function.__name__,
        method=f"acme.v1.Acme.{function.__name__}",
        input_type=None,
        output_type=None,
        handler=function.__name__,
        heartbeats_by_activity=True,
    )
    ServiceContract(full_name="acme.v1.Acme", source="acme/v1/acme.proto", activities={function.__name__: contract})
    return define(contract, function)


@_by_itself
async def hangs_in_its_first_attempt() -> list[Any]:
    if activity.info().attempt == 1:
        await asyncio.Event().wait()
    return [activity.info().attempt]


@_by_itself
async def sends_its_own_heartbeats() -> list[Any]:
    for _ in range(5):
        activity.heartbeat()
        await asyncio.sleep(0.5 * _HEARTBEAT_TIMEOUT.total_seconds())
    return [activity.info().attempt]


@pytest.mark.parametrize(
    ("function", "result"),
    [
        pytest.param(silent_for_longer_than_its_timeout, [1], id="async"),
        pytest.param(silent_in_a_thread, [1], id="thread"),
        pytest.param(remembers_its_details, ["page", 7], id="details stay for the next attempt"),
        pytest.param(hangs_in_its_first_attempt, [2], id="left to an activity that hangs"),
        pytest.param(sends_its_own_heartbeats, [1], id="left to an activity that sends them"),
    ],
)
async def test_an_activity_is_taken_for_dead_only_without_heartbeats(
    temporal_server: EmbeddedServer, function: Callable[[], Any], result: list[Any]
) -> None:
    client = await Client.connect(temporal_server.address, plugins=[ContextWorkerPlugin()])
    task_queue = f"heartbeat-{uuid.uuid4()}"
    with ThreadPoolExecutor(2) as executor:
        async with Worker(
            client,
            task_queue=task_queue,
            workflows=[_Patient],
            activities=[
                *(silent_for_longer_than_its_timeout, silent_in_a_thread, remembers_its_details),
                *(hangs_in_its_first_attempt, sends_its_own_heartbeats),
            ],
            activity_executor=executor,
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            name = function.__name__
            assert await client.execute_workflow("_Patient", name, id=task_queue, task_queue=task_queue) == result
