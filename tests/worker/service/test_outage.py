"""The Temporal server stands still or lacks our namespace, and the service says so."""

from __future__ import annotations

import os
import signal
from typing import Any

import grpc
import pytest
from temporalio.client import Client

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.worker.auth import authenticator_for
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.server import running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from tests.conftest import Spawn

from .conftest import Desk, Refusal, refusal_of

_PATIENCE = 9.0
"""Seconds that a caller waits: less than calls to Temporal take by default, far more than they are allowed here."""


def _asked(stub: worker_pb2_grpc.WorkerServiceStub, method: str, payload: dict[str, Any]) -> Refusal | None:
    """What a method answers other than success; a stream is read to its first message."""
    unit = ContextUnit(payload=payload).to_protobuf(worker_pb2)
    try:
        answer = getattr(stub, method)(unit, timeout=_PATIENCE)
        if method == "WatchTask":
            next(answer)
    except grpc.RpcError as error:
        return refusal_of(error)
    return None


def test_a_server_that_stands_still_is_told_in_the_time_of_the_setting(desk: Desk, spawn: Spawn) -> None:
    workflow_id = desk.start(name="a", mode="MODE_WAIT")
    service = spawn(
        "-m",
        "contextunity.worker",
        WORKER_PORT="0",
        TEMPORAL_ADDRESS=desk.temporal.address,
        CONTEXTWORKER_TEMPORAL_TIMEOUT="1.5",
    )
    target = service.wait_for("listens on").split("listens on ")[1].partition(",")[0]
    schedule = {"workflow_name": "execute_code", "cron": "0 3 * * *", "args": {"code": "1"}}
    requests: dict[str, dict[str, Any]] = {
        "StartWorkflow": {"workflow_type": "execute_code", "code": "1"},
        "GetTaskStatus": {"workflow_id": workflow_id},
        "WatchTask": {"workflow_id": workflow_id},
        "ListTasks": {},
        "TriggerSchedule": {"schedule_id": "a"},
        "RegisterSchedules": {"schedules": [{**schedule, "schedule_id": f"s{number}"} for number in range(120)]},
    }
    with grpc.insecure_channel(target) as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        os.kill(desk.temporal.pid, signal.SIGSTOP)
        try:
            refusals = {method: _asked(stub, method, payload) for method, payload in requests.items()}
        finally:
            os.kill(desk.temporal.pid, signal.SIGCONT)
        for method, refusal in refusals.items():
            assert refusal is not None, method
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "TEMPORAL_UNAVAILABLE"), method
            assert refusal.retry_after == 1, method
        assert _asked(stub, "GetTaskStatus", requests["GetTaskStatus"]) is None


async def test_a_namespace_that_is_gone_is_told_as_that(desk: Desk, registry: WorkerRegistry) -> None:
    entry = {"schedule_id": "a", "workflow_type": "ping", "cron": "0 3 * * *"}
    requests: dict[str, dict[str, Any]] = {
        "StartWorkflow": {"workflow_type": "ping"},
        "GetTaskStatus": {"workflow_id": "a"},
        "CancelTask": {"workflow_id": "a"},
        "QueryTask": {"workflow_id": "a", "query": "progress"},
        "ListTasks": {},
        "RegisterSchedules": {"schedules": [entry]},
        "DeleteSchedule": {"schedule_id": "a"},
        "ListSchedules": {},
    }
    client = await Client.connect(desk.temporal.address, namespace="gone", plugins=[ContextWorkerPlugin()])
    settings = Settings(host="127.0.0.1", port=0)
    async with (
        running_server(WorkerService(client, registry), settings, authenticator_for(settings)) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)
        for method, payload in requests.items():
            with pytest.raises(grpc.RpcError) as caught:
                await getattr(stub, method)(ContextUnit(payload=payload).to_protobuf(worker_pb2), timeout=20)
            refusal = refusal_of(caught.value)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NAMESPACE_UNKNOWN"), method
            assert refusal.metadata["namespace"] == "gone"
            assert "temporal operator namespace create --namespace gone" in refusal.message
