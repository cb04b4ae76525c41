"""ExecuteCode over the real service: answers, limits, waiting, repetition, and programs that fail."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity.code.v1 import ExecuteResponse, ExecutionStatus, File, Language, Limits
from contextunity.gen.contextunity.worker import ExecuteCodeRequest

from contextunity.core import ContextUnit, codec, worker_pb2, worker_pb2_grpc
from contextunity.core.codec import dict_to_struct
from contextunity.worker.cli import main
from contextunity.worker.client import SyncWorkerClient, WorkerServiceError
from process_jail import missing

_JAILED = pytest.mark.skipif(bool(missing(False, 65534)), reason=f"the jail needs {missing(False, 65534)}")


class _Caller:
    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target)
        self._stub = worker_pb2_grpc.WorkerServiceStub(self.channel)

    def execute(self, payload: dict[str, Any] | None = None, *, timeout: float = 30, **fields: Any) -> ContextUnit:
        unit = ContextUnit(payload=payload or {}, **fields)
        return ContextUnit.from_protobuf(self._stub.ExecuteCode(unit.to_protobuf(worker_pb2), timeout=timeout))

    def refusal(self, payload: dict[str, Any]) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            self.execute(payload)
        return caught.value

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
    assert body.execution_status is ExecutionStatus.OK


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
        pytest.param({"code": "1", "limits": {"timeout": 86400}}, "CODE_REFUSED", "", id="more than the maximum"),
        pytest.param({"code": "1", "timeout": 60, "limits": {"cpu": 60}}, "CODE_REFUSED", "", id="processor time"),
        pytest.param(
            {"code": "1", "timeout": 60, "limits": {"memory_bytes": 1 << 40}}, "CODE_REFUSED", "", id="memory"
        ),
        pytest.param({"code": "1", "timeout": 60, "limits": {"timeout": 60}}, "CODE_REFUSED", "", id="named as limit"),
        pytest.param({"code": "1", "sandbox": False}, "PAYLOAD_INVALID", "payload.sandbox", id="no sandbox"),
        pytest.param({"code": "1", "sandbox": "true"}, "PAYLOAD_INVALID", "payload.sandbox", id="sandbox as a text"),
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
    assert (answer["status"], answer["execution_status"]) == ("started", "unspecified")
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


def test_the_same_unit_repeats_no_effect(caller: _Caller, site: Any) -> None:
    unit_id = str(uuid.uuid4())
    code = f"http_get('{site.origin}/effect/{unit_id}')['status']"

    def execute(_: int) -> Any:
        return caller.execute({"code": code, "tools": ["http_get"]}, unit_id=unit_id).payload

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(execute, range(4)))
    answers.append(execute(4))
    assert answers == [answers[0]] * 5
    assert (answers[0]["status"], answers[0]["result"]) == ("ok", 200)
    assert site.asked.count(f"/effect/{unit_id}") == 1


_REAL_PYTHON = """
import csv, dataclasses

@dataclasses.dataclass
class Row:
    name: str
    price: float

class Dear(Row):
    pass

def rows():
    with open('data/prices.csv', newline='') as file:
        for row in csv.DictReader(file):
            yield Dear(row['name'], float(row['price']) * factor)

print('rows read')
{row.name: row.price for row in rows()}
"""


@_JAILED
def test_the_full_interpreter_runs_with_files_and_inputs(caller: _Caller) -> None:
    request = ExecuteCodeRequest(
        code=_REAL_PYTHON,
        language=Language.CPYTHON,
        inputs=dict_to_struct({"factor": 2}),
        files=[File(path="data/prices.csv", content=b"name,price\ntent,99.5\nstove,20\n")],
    )
    payload = caller.execute(body=request).payload
    assert (payload["status"], payload["backend"], payload["stdout"]) == ("ok", "cpython", "rows read\n")
    assert payload["result"] == {"tent": 199, "stove": 40}
    # The same by payload, where bytes are base64; and Monty says what it lacks.
    files = [{"path": "data/prices.csv", "content": base64.b64encode(b"name,price\nmat,1\n").decode()}]
    asked = {"code": _REAL_PYTHON, "files": files, "inputs": {"factor": 3}}
    assert caller.execute({**asked, "language": "cpython"}).payload["result"] == {"mat": 3}
    lacking: Any = caller.execute({**asked, "language": "monty"}).payload
    assert (lacking["status"], lacking["backend"]) == ("unsupported", "monty")
    assert "language: cpython" in lacking["error"]


@_JAILED
@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        pytest.param("while True: pass", "cpu_limit timeout", "152 124", id="time"),
        pytest.param("bytes(1 << 30)", "memory_limit", "137", id="memory"),
        pytest.param("open('f', 'wb').write(bytes(32 << 20))", "scratch_limit", "153", id="disk"),
        pytest.param("import os; os._exit(7)", "crashed", "7", id="exit"),
        pytest.param("object()", "result_error", "1", id="result"),
        pytest.param("import socket; socket.socket()", "exception", "1", id="network"),
    ],
)
def test_the_full_interpreter_is_held_to_its_limits(caller: _Caller, code: str, status: str, exit_code: str) -> None:
    payload = caller.execute({"code": code, "language": "cpython", "timeout": 0.5}).payload
    assert payload["status"] in status.split(), payload
    assert str(payload["exit_code"]) in exit_code.split()
    assert payload["result"] is None


def test_a_program_calls_the_tools_that_come_with_the_worker(
    caller: _Caller, service_target: str, site: Any, tenant: str
) -> None:
    with SyncWorkerClient(service_target, tenant_id=tenant) as client:
        client.start("harvest", {"supplier_code": "camping-trade"}).result()
        listed = client.execute_code("lookup_sku('AS-BAG-000077-1')", tools=["lookup_sku"])
    assert listed.status == "ok", listed
    code = f"""
product = lookup_sku('AS-BAG-000077-1')
page = http_get('{site.origin}/of', {{'sku': product['sku']}})
try:
    http_get('http://127.0.0.1:1/')
    refused = None
except PermissionError as error:
    refused = str(error)
except Exception as error:
    refused = type(error).__name__ + ' ' + str(error)
[product['sku'], lookup_sku('none'), page['status'], page['body'], refused]
"""
    asked = {"code": code, "tools": ["lookup_sku", "http_get"], "tenant_id": tenant}
    payload: Any = caller.execute(asked).payload
    assert payload["status"] == "ok", payload
    sku, missing, status, body, refused = payload["result"]
    assert (sku, missing, status) == ("AS-BAG-000077-1", None, 200)
    assert body == "hello from /of?sku=AS-BAG-000077-1"
    assert "127.0.0.1:1" in refused
    # What it was not given it does not have, and another tenant's catalogue is not there.
    assert caller.execute({**asked, "tools": []}).payload["error_type"] == "NameError"
    other = {"code": "lookup_sku('AS-BAG-000077-1')", "tools": ["lookup_sku"], "tenant_id": f"{tenant}-other"}
    assert caller.execute(other).payload["result"] is None
    refusal = caller.refusal({**asked, "language": "cpython"})
    assert (refusal.code(), "CODE_REFUSED" in str(refusal.trailing_metadata())) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        True,
    )


@_JAILED
def test_the_command_runs_programs_with_files_tools_and_either_backend(
    service_target: str, site: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, data = tmp_path / "program.py", tmp_path / "data.txt"
    data.write_text("forty two")
    program.write_text("class A(str): pass\nprint('reading')\nA(open('data.txt').read()).upper() + mark\n")
    words = ("code", "run", str(program), "--target", service_target)
    assert main([*words, "--language", "cpython", "--file", str(data), "--input", '{"mark": "!"}']) == 0
    assert capsys.readouterr().out == 'reading\n"FORTY TWO!"\n'
    assert main([*words, "--language", "monty", "--file", str(data), "--input", '{"mark": "!"}']) == 1
    assert "language: cpython" in capsys.readouterr().err
    program.write_text(f"http_get('{site.origin}/by-command')['body']")
    assert main([*words, "--tool", "http_get", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == "hello from /by-command"


def test_what_deployed_clients_send_runs(caller: _Caller) -> None:
    asked = {"code": "6 * 7", "language": "python", "timeout": 30, "sandbox": True}
    answer = caller.execute(asked).payload
    assert (answer["status"], answer["result"], answer["notice"]) == ("ok", 42, "")
    lowered = caller.execute({**asked, "timeout": 45}).payload
    assert (lowered["status"], lowered["result"]) == ("ok", 42)
    assert "from 45 s to 30 s" in str(lowered["notice"])


def test_a_timeout_above_the_maximum_is_lowered_and_said(
    service_target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with SyncWorkerClient(service_target) as client:
        result = client.execute_code("1", time_limit=timedelta(days=1))
    assert (result.status, "from 86400 s to 30 s" in result.notice) == ("ok", True)
    program = tmp_path / "program.py"
    program.write_text("'done'")
    words = ("code", "run", str(program), "--target", service_target, "--time-limit", "60")
    assert main([*words]) == 0
    assert "from 60 s to 30 s" in capsys.readouterr().err
    assert main([*words, "--json"]) == 0
    assert "from 60 s to 30 s" in json.loads(capsys.readouterr().out)["notice"]


def test_the_client_raises_what_was_refused(service_target: str) -> None:
    with SyncWorkerClient(service_target) as client, pytest.raises(WorkerServiceError) as caught:
        client.execute_code("1", tools=["no_such"])
    assert caught.value.reason == "CODE_REFUSED"
