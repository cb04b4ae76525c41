"""ExecuteCode over the real service: answers, limits, waiting, repetition, and programs that fail."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity.code.v1 import ExecuteResponse, Language, Limits
from contextunity.gen.contextunity.worker import ExecuteCodeRequest

from contextunity.core import ContextUnit, codec, worker_pb2, worker_pb2_grpc
from contextunity.worker.client import SyncWorkerClient, WorkerServiceError


class _Caller:
    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target)
        self._stub = worker_pb2_grpc.WorkerServiceStub(self.channel)

    def execute(self, payload: dict[str, Any] | None = None, *, timeout: float = 30, **fields: Any) -> ContextUnit:
        unit = ContextUnit(payload=payload or {}, **fields)
        return ContextUnit.from_protobuf(self._stub.ExecuteCode(unit.to_protobuf(worker_pb2), timeout=timeout))

    def ask(self, method: str, **payload: Any) -> Any:
        answer = getattr(self._stub, method)(ContextUnit(payload=payload).to_protobuf(worker_pb2), timeout=30)
        return ContextUnit.from_protobuf(answer).payload


@pytest.fixture
def caller(service_target: str) -> Iterator[_Caller]:
    caller = _Caller(service_target)
    yield caller
    caller.channel.close()


def test_a_program_gives_its_result_output_and_exit_code(caller: _Caller) -> None:
    answer = caller.execute(
        {"code": "print('working')\n[inputs_total * 2, 'done', None]", "inputs": {"inputs_total": 21}}
    )
    payload = answer.payload
    assert payload["result"] == [42, "done", None]
    assert payload["stdout"] == "working\n"
    assert (payload["stderr"], payload["exit_code"], payload["status"]) == ("", 0, "ok")
    assert payload["truncated"] is False
    assert isinstance(payload["duration_ms"], int)
    assert answer.body is not None
    body: Any = codec.unpack_any(answer.body)
    assert codec.full_name(body) == "contextunity.worker.ExecuteCodeResult"
    assert body.stdout == "working\n"


def test_the_typed_body_does_the_same(caller: _Caller) -> None:
    request = ExecuteCodeRequest(
        code="result = {'n': 1}", language=Language.PYTHON, limits=Limits(timeout=timedelta(seconds=2))
    )
    assert caller.execute(body=request).payload["result"] == {"n": 1}


def test_what_a_program_does_wrong_is_its_result(caller: _Caller) -> None:
    failed = caller.execute({"code": "1/0"}).payload
    assert (failed["status"], failed["error_type"]) == ("exception", "ZeroDivisionError")
    assert failed["exit_code"] != 0
    assert failed["result"] is None
    assert caller.execute({"code": "def"}).payload["status"] == "syntax_error"
    endless = caller.execute({"code": "while True: pass", "timeout": 0.5}).payload
    assert endless["status"] in ("timeout", "cpu_limit")


@pytest.mark.parametrize(
    ("payload", "reason", "field"),
    [
        pytest.param({}, "PAYLOAD_INVALID", "payload.code", id="no code"),
        pytest.param({"code": "1", "language": "cobol"}, "PAYLOAD_INVALID", "payload.language", id="language"),
        pytest.param({"code": "1", "timeout": "soon"}, "PAYLOAD_INVALID", "payload.timeout", id="timeout"),
        pytest.param({"code": "1", "inputs": 5}, "PAYLOAD_INVALID", "payload.inputs", id="inputs"),
        pytest.param({"code": "1", "cod": "2"}, "PAYLOAD_INVALID", "payload.cod", id="unknown key"),
        pytest.param({"code": "1", "timeout": 86400}, "CODE_REFUSED", "", id="more than the maximum"),
        pytest.param({"code": "1", "tools": ["rm"]}, "CODE_REFUSED", "", id="unknown tool"),
    ],
)
def test_a_wrong_request_is_refused(service_target: str, payload: dict[str, Any], reason: str, field: str) -> None:
    caller = _Caller(service_target)
    with pytest.raises(grpc.RpcError) as caught:
        caller.execute(payload)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailing = str(error.trailing_metadata())
    assert reason in trailing
    assert field in trailing
    caller.channel.close()


def test_without_waiting_the_task_is_gone_on_with_by_its_id(caller: _Caller, service_target: str) -> None:
    answer = caller.execute({"code": "6 * 7", "wait": False}).payload
    assert answer["status"] == "started"
    assert answer["result"] is None
    with SyncWorkerClient(service_target) as client:
        response = client.task(str(answer["workflow_id"])).result(ExecuteResponse)
        assert response.result is not None
        assert response.result.number_value == 42
    status = caller.ask("GetTaskStatus", workflow_id=answer["workflow_id"])
    assert status["status"] == "completed"
    assert status["result"]["result"] == 42


def test_a_deadline_before_the_end_is_answered_in_time(caller: _Caller) -> None:
    answer = caller.execute({"code": "while True: pass", "timeout": 4}, timeout=1.5).payload
    assert answer["status"] == "running"
    assert answer["workflow_id"]


def test_the_same_unit_runs_once(caller: _Caller) -> None:
    unit_id = str(uuid.uuid4())
    one, two = (caller.execute({"code": "'same'"}, unit_id=unit_id).payload for _ in range(2))
    assert one == two


def test_the_client_raises_what_was_refused(service_target: str) -> None:
    with SyncWorkerClient(service_target) as client, pytest.raises(WorkerServiceError) as caught:
        client.execute_code("1", time_limit=timedelta(days=1))
    assert caught.value.reason == "CODE_REFUSED"
