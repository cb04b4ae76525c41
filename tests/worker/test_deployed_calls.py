"""Calls as deployed clients send them, from a recording, to the real service over gRPC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc

_CALLS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data/deployed_calls.json").read_text("utf-8"))


def _sent(payload: dict[str, Any], tenant: str) -> Any:
    """The unit of a payload, for a tenant of the test's own."""
    own = json.loads(json.dumps(payload).replace("TENANT", tenant))
    return ContextUnit(payload=own, provenance=["sdk:call"]).to_protobuf(worker_pb2)


@pytest.mark.parametrize("call", _CALLS, ids=lambda call: call["name"])
def test_a_deployed_call_is_answered_as_its_sender_expects(
    service_target: str, tenant: str, call: dict[str, Any]
) -> None:
    with grpc.insecure_channel(service_target) as channel:
        method = getattr(worker_pb2_grpc.WorkerServiceStub(channel), call["method"])
        if "refused" in call:
            with pytest.raises(grpc.RpcError) as caught:
                method(_sent(call["payload"], tenant), timeout=60)
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert call["refused"] in str(error.trailing_metadata())
            return
        payload = ContextUnit.from_protobuf(method(_sent(call["payload"], tenant), timeout=60)).payload
    assert {key: payload[key] for key in call["answer"]} == call["answer"]
