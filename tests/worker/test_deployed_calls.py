"""Calls as deployed clients send them, from a recording, to the real service over gRPC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc

_CALLS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data/deployed_calls.json").read_text("utf-8"))


class _Client:
    """Calls as the deployed SDK makes them: one unit each, with a payload of plain data."""

    def __init__(self, channel: grpc.Channel, tenant: str) -> None:
        self._stub = worker_pb2_grpc.WorkerServiceStub(channel)
        self._names = {"TENANT": tenant}

    def call(self, method: str, payload: dict[str, Any]) -> dict[str, Any]:
        unit = ContextUnit(payload=self.own(payload), provenance=["sdk:call"])
        self._names["UNIT_ID"] = str(unit.unit_id)
        answer = getattr(self._stub, method)(unit.to_protobuf(worker_pb2), timeout=60)
        return ContextUnit.from_protobuf(answer).payload

    def run(self, method: str, payload: dict[str, Any]) -> None:
        """Makes a call that starts a task, and waits for the end of it."""
        started = self.call(method, payload)
        self._names |= {"WORKFLOW_ID": started["workflow_id"], "RUN_ID": started["run_id"]}
        unit = ContextUnit(payload={"workflow_id": started["workflow_id"]}).to_protobuf(worker_pb2)
        for _ in self._stub.WatchTask(unit, timeout=60):
            pass

    def own(self, recorded: Any) -> Any:
        """What was recorded, with the names that this run has in place of those of the recording."""
        text = json.dumps(recorded)
        for name, value in self._names.items():
            text = text.replace(name, value)
        return json.loads(text)


@pytest.mark.parametrize("call", _CALLS, ids=lambda call: call["name"])
def test_a_deployed_call_is_answered_as_its_sender_expects(
    service_target: str, tenant: str, call: dict[str, Any]
) -> None:
    with grpc.insecure_channel(service_target) as channel:
        client = _Client(channel, tenant)
        if "after" in call:
            client.run(**call["after"])
        if "refused" in call:
            with pytest.raises(grpc.RpcError) as caught:
                client.call(call["method"], call["payload"])
            error: Any = caught.value
            assert error.code() is grpc.StatusCode[call.get("code", "INVALID_ARGUMENT")]
            assert call["refused"] in str(error.trailing_metadata())
            return
        payload = client.call(call["method"], call["payload"])
        expected = client.own(call["answer"])
        assert _part(payload, expected) == expected


def _part(found: Any, expected: Any) -> Any:
    """What was found, without the keys of objects of which nothing is expected."""
    if not isinstance(found, dict) or not isinstance(expected, dict):
        return found
    return {key: _part(found.get(key), expected[key]) for key in expected}
