"""Has a supplier's catalogue harvested by ContextWorker, by the contract's own service, then by the envelope.

It stands on stock gRPC alone, as callers in other languages do, and says what came of the harvest.
"""

from __future__ import annotations

import os
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from contextunity.core import context_unit_pb2 as core
from contextunity.harvest.v1 import harvest_pb2, harvest_pb2_grpc
from contextunity.worker import tasks_pb2, worker_pb2_grpc

TIMEOUT = 120.0
"""Seconds. A call that runs into its deadline ends; the harvest goes on, and the same call again attaches to it."""


def main() -> None:
    token = os.environ.get("CONTEXTWORKER_TOKEN")
    # Shown with each call.
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(os.environ["CONTEXTWORKER_TARGET"]) as channel:
        harvest(channel, metadata)
        refused(channel, metadata)
        watch(channel, metadata)


def harvest(channel: grpc.Channel, metadata: list[tuple[str, str]]) -> None:
    """Calls the contract's own service, which answers when the harvest has ended."""
    client = harvest_pb2_grpc.HarvestServiceStub(channel)
    request = harvest_pb2.HarvestRequest(supplier_code="camping-trade", max_products=300)
    # Calls with the same id are one request: however often it is sent, it is one harvest.
    with_id = [*metadata, ("contextunity-request-id", str(uuid.uuid4()))]
    response, call = client.Harvest.with_call(request, metadata=with_id, timeout=TIMEOUT)
    first = dict(call.initial_metadata())
    print(f"typed: {first['contextunity-workflow-id']}: {response.counts.synced} products synced")

    _, call = client.Harvest.with_call(request, metadata=with_id, timeout=TIMEOUT)
    second = dict(call.initial_metadata())
    print("repeated: same run:", str(first["contextunity-run-id"] == second["contextunity-run-id"]).lower())


def refused(channel: grpc.Channel, metadata: list[tuple[str, str]]) -> None:
    """Sends what breaks the contract's rules, and reads which fields are wrong."""
    request = harvest_pb2.HarvestRequest(supplier_code="camping-trade", page_size=5000)
    try:
        harvest_pb2_grpc.HarvestServiceStub(channel).Harvest(request, metadata=metadata)
    except grpc.RpcError as error:
        for detail in rpc_status.from_call(error).details:
            bad_request = error_details_pb2.BadRequest()
            if detail.Unpack(bad_request):
                for violation in bad_request.field_violations:
                    print(f"refused: {error.code().name}: {violation.field}: {violation.description}")
    else:
        raise AssertionError("a page size of 5000 was not refused")


def watch(channel: grpc.Channel, metadata: list[tuple[str, str]]) -> None:
    """Starts a harvest by the envelope, which answers at once, and follows it to its end."""
    client = worker_pb2_grpc.WorkerServiceStub(channel)
    # The same unit sent again is the same request.
    unit = core.ContextUnit(unit_id=str(uuid.uuid4()), provenance=["harvester:start"])
    unit.body.Pack(harvest_pb2.HarvestRequest(supplier_code="camping-trade", max_products=300))
    first, second = tasks_pb2.StartWorkflowResult(), tasks_pb2.StartWorkflowResult()
    for started in (first, second):
        client.StartWorkflow(unit, metadata=metadata).body.Unpack(started)
    print(f"started: {first.workflow_id}")
    print("repeated: same run:", str(first.run_id == second.run_id).lower())

    ask = core.ContextUnit()
    ask.body.Pack(tasks_pb2.WatchTaskRequest(workflow_id=first.workflow_id, run_id=first.run_id))
    for answer in client.WatchTask(ask, metadata=metadata):
        task, response = tasks_pb2.TaskStatus(), harvest_pb2.HarvestResponse()
        answer.body.Unpack(task)
        print(f"watched: {tasks_pb2.TaskState.Name(task.status)}")
        if task.result.Unpack(response):
            print(f"result: {response.counts.synced} products synced")


if __name__ == "__main__":
    main()
