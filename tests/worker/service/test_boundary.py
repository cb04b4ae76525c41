"""The boundary: whatever bytes come, the answer is a status that says what is wrong; never INTERNAL, never UNKNOWN."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity.worker import GetTaskStatusRequest, WatchTaskRequest
from google.protobuf import any_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contextunity.core import ContextUnit, worker_pb2
from contextunity.worker.boundary import read_unit
from contextunity.worker.cli.inputs import ContractFlags
from contextunity.worker.client import SyncWorkerClient
from contextunity.worker.grpc_errors import Reason

from .conftest import Desk, Refusal, refusal_of

_METHODS = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].methods_by_name
_PATH = "/contextunity.worker.WorkerService/"
_SOUND = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
}


class _Raw:
    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)

    def send(self, method: str, data: bytes) -> grpc.RpcError | None:
        path = f"{_PATH}{method}"
        try:
            if _METHODS[method].server_streaming:
                stream = self._channel.unary_stream(path)(data, timeout=10)
                next(stream, None)
                stream.cancel()
            else:
                self._channel.unary_unary(path)(data, timeout=10)
        except grpc.RpcError as error:
            return error
        return None

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def raw(desk: Desk) -> Any:
    with contextlib.closing(_Raw(desk.target)) as raw:
        yield raw


def _check(error: grpc.RpcError | None) -> None:
    if error is not None:
        assert error.code() in _SOUND, error
        refusal = refusal_of(error)
        assert refusal.reason in Reason.__members__
        assert Reason[refusal.reason].code is error.code()


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**53), 2**53)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_keys = st.sampled_from(
    [
        *("workflow_type", "workflow_id", "run_id", "tenant_id", "task_queue", "args", "signal", "query", "update"),
        *("input", "name", "mode", "count", "big", "due", "after", "page_token", "page_size", "status", "reason"),
        *("started_after", "code", "language", "timeout", "limits", "inputs", "files", "wait", "schedules"),
        *("schedule_id", "id", "cron", "timezone", "project_id", "prune", "partial", "workflowId"),
    ]
) | st.text(alphabet=string.ascii_letters, max_size=8)
_values = _json | st.sampled_from(
    ["work", "join", "ping", "harvest", "", "\0", "é" * 2000, "' OR ''='", -1, 1e300, 0.5]
)
_payloads = st.dictionaries(_keys, _values, max_size=6)
_relaxed = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@_relaxed
@given(method=st.sampled_from(sorted(_METHODS)), payload=_payloads)
def test_no_payload_ends_in_a_fault_of_the_service(raw: Any, method: str, payload: dict[str, Any]) -> None:
    try:
        unit = ContextUnit(payload=payload)
    except ValueError:
        return  # Not even a unit, by the words of the client.
    _check(raw.send(method, unit.to_protobuf(worker_pb2).SerializeToString()))


@_relaxed
@given(method=st.sampled_from(sorted(_METHODS)), data=st.binary(max_size=200))
def test_no_bytes_end_in_a_fault_of_the_service(raw: Any, method: str, data: bytes) -> None:
    _check(raw.send(method, data))


@_relaxed
@given(
    method=st.sampled_from(sorted(_METHODS)),
    kind=st.sampled_from(
        [
            *("contextunity.worker.GetTaskStatusRequest", "contextunity.worker.ListTasksRequest"),
            *("contextunity.worker.RegisterSchedulesRequest", "contextunity.worker.ExecuteCodeRequest"),
            *("acme.desk.v1.WorkRequest", "google.protobuf.Struct", "google.protobuf.Any", "no.such.Message", ""),
        ]
    ),
    data=st.binary(max_size=60),
)
def test_no_body_ends_in_a_fault_of_the_service(raw: Any, method: str, kind: str, data: bytes) -> None:
    unit = worker_pb2.ContextUnit(body=any_pb2.Any(type_url=f"type.googleapis.com/{kind}", value=data))
    _check(raw.send(method, unit.SerializeToString()))


@pytest.mark.parametrize("method", sorted(_METHODS))
def test_bytes_that_are_no_unit_are_told_so(raw: Any, method: str) -> None:
    error = raw.send(method, b"\xff\xff\xff")
    assert error is not None
    refusal = refusal_of(error)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNIT_UNREADABLE")


def test_a_payload_with_nan_is_refused_by_its_place(raw: Any) -> None:
    unit = worker_pb2.ContextUnit(trace_id="t-1")
    unit.payload["workflow_type"] = "work"
    unit.payload["ratio"] = float("nan")
    error = raw.send("StartWorkflow", unit.SerializeToString())
    assert error is not None
    refusal = refusal_of(error)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.metadata["trace_id"] == "t-1"
    assert list(refusal.violations) == ["payload.ratio"]


def test_a_unit_over_the_limit_is_resource_exhausted_with_its_details(raw: Any, desk: Desk) -> None:
    unit = worker_pb2.ContextUnit(trace_id="big")
    unit.payload["name"] = "x" * (1024 * 1024)
    error = raw.send("StartWorkflow", unit.SerializeToString())
    assert error is not None
    assert refusal_of(error).reason == "UNIT_TOO_LARGE"
    assert "CONTEXTWORKER_MAX_UNIT_BYTES" in error.details()
    unit.payload["name"] = "x" * (3 * 1024 * 1024)
    far = raw.send("StartWorkflow", unit.SerializeToString())
    assert far is not None
    assert far.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", ["x", "é" * 300, "\x01\n\u2028"], ids=["many", "long", "odd"])
def test_any_number_of_violations_arrives_as_an_answer(desk: Desk, name: str) -> None:
    unknown = {f"{name}{number}": number for number in range(1000)}
    with pytest.raises(Refusal) as caught:
        desk.call("StartWorkflow", {"workflow_type": "work", **unknown})
    assert caught.value.reason == "PAYLOAD_INVALID"
    *_, last = caught.value.violations.items()
    assert last[0] == ""
    assert int(last[1].split()[1]) + len(caught.value.violations) - 1 == 1000
    with pytest.raises(Refusal) as caught:
        desk.call("StartWorkflow", {"workflow_type": name * 500})
    assert caught.value.reason == "WORKFLOW_TYPE_UNKNOWN"


def test_a_deadline_that_passes_is_told(desk: Desk) -> None:
    task = desk.start(name="slow", mode="MODE_WAIT")
    unit = ContextUnit(body=WatchTaskRequest(workflow_id=task))
    stream = desk.send("WatchTask", unit.to_protobuf(worker_pb2), timeout=1)
    next(stream)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    desk.call("TerminateTask", {"workflow_id": task})


def test_content_stands_in_the_body_or_in_the_payload(desk: Desk) -> None:
    task = desk.start("ping")
    body = GetTaskStatusRequest(workflow_id=task)
    assert desk.call("GetTaskStatus", body=body).payload["workflow_id"] == task
    with pytest.raises(Refusal) as caught:
        desk.call("GetTaskStatus", {"workflow_id": task}, body=body)
    assert caught.value.violations.keys() == {"payload"}
    with pytest.raises(Refusal) as caught:
        desk.call("GetTaskStatus", body=WatchTaskRequest(workflow_id=task))
    assert caught.value.reason == "BODY_INVALID"
    assert "contextunity.worker.GetTaskStatusRequest" in caught.value.message
    with pytest.raises(Refusal) as caught:
        desk.call("GetTaskStatus", body=GetTaskStatusRequest())
    assert caught.value.violations.keys() == {"body.workflow_id"}


def test_every_answer_has_both_forms(desk: Desk) -> None:
    desk.wait(desk.start("ping"))
    conditions = {"page_size": 1, "status": ["completed"]}
    desk.eventually(lambda: "tasks" in desk.call("ListTasks", conditions).payload, True)
    answer = desk.call("ListTasks", conditions)
    body = desk.body(answer)
    (task,) = answer.payload["tasks"]
    assert task["workflow_id"] == body.tasks[0].workflow_id
    assert task["status"] == "completed"


def test_buf_curl_calls_it_by_reflection(desk: Desk) -> None:
    buf = Path(sys.executable).parent / "buf"
    base = [str(buf), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    payload = {"workflow_type": "work", "name": "curl"}
    done = subprocess.run(
        [*base, "-d", json.dumps({"payload": payload}), f"http://{desk.target}{_PATH}StartWorkflow"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(Path.cwd())},
    )
    answer = json.loads(done.stdout)
    assert answer["payload"]["status"] == "started"
    wrong = subprocess.run(
        [
            *base,
            "-d",
            json.dumps({"payload": {"workflow_type": "nothing"}}),
            f"http://{desk.target}{_PATH}StartWorkflow",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 8 * grpc.StatusCode.NOT_FOUND.value[0]
    assert "nothing" in wrong.stderr
    listed = subprocess.run(
        [*base, "--list-services", f"http://{desk.target}"], capture_output=True, text=True, check=True
    )
    assert "contextunity.worker.WorkerService" in listed.stdout


def test_the_table_of_errors_is_that_of_the_docs() -> None:
    text = (Path(__file__).parents[3] / "docs/errors.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    told = {row[0].strip(" `"): (row[1].strip(), row[2].strip(), row[3].strip()) for row in rows}
    assert told == {
        reason.name: (reason.code.name, f"{reason.retry_after} s" if reason.retry_after else "", reason.meaning)
        for reason in Reason
    }


@pytest.mark.parametrize(
    ("seconds", "nanos", "refused"),
    [
        pytest.param(0, 0, False, id="the beginning"),
        pytest.param(-62_135_596_800, 0, False, id="the year 1"),
        pytest.param(253_402_300_799, 999_999_999, False, id="the year 9999"),
        pytest.param(-62_135_596_801, 0, True, id="before the year 1"),
        pytest.param(253_402_300_800, 0, True, id="the year 10000"),
        pytest.param(1, 1_000_000_000, True, id="more than a second of nanos"),
        pytest.param(1, -1, True, id="negative nanos"),
    ],
)
def test_a_unit_tells_times_that_there_are(desk: Desk, seconds: int, nanos: int, refused: bool) -> None:
    for path in ("created_at", "chain_of_thought[0].timestamp"):
        unit = worker_pb2.ContextUnit()
        unit.payload["page_size"] = 1
        time = unit.created_at if path == "created_at" else unit.chain_of_thought.add().timestamp
        time.SetInParent()
        time.seconds, time.nanos = seconds, nanos
        if not refused:
            desk.send("ListTasks", unit)
            continue
        with pytest.raises(grpc.RpcError) as caught:
            desk.send("ListTasks", unit)
        refusal = refusal_of(caught.value)
        assert (refusal.reason, list(refusal.violations)) == ("UNIT_UNREADABLE", [path])


def test_more_values_than_the_service_takes_are_resource_exhausted(raw: Any) -> None:
    unit = worker_pb2.ContextUnit(trace_id="many")
    unit.payload["workflow_type"] = "work"
    unit.payload.get_or_create_list("tags").extend([None] * 200_000)
    error = raw.send("StartWorkflow", unit.SerializeToString())
    assert error is not None
    refusal = refusal_of(error)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UNIT_TOO_LARGE")
    assert "CONTEXTWORKER_MAX_PAYLOAD_VALUES" in error.details()

    # What keeps the error would keep the unit, and all that was made of it, as well.
    # By type(): a class of other tests lies about its objects, and fails when it is asked.
    frames = [each for each in gc.get_objects() if type(each) is FrameType]
    assert not [frame for frame in frames if frame.f_code is read_unit.__code__]


def test_a_map_has_a_flag_for_entries(desk: Desk) -> None:
    with SyncWorkerClient(desk.target) as client:
        (contract,) = client.describe_contracts("work").contracts
    parser, flags = argparse.ArgumentParser(), ContractFlags(contract.fields)
    flags.add_to(parser)
    assert flags.given(parser.parse_args(["--marks", "a=1", "--marks", "b=2"])) == {"marks": {"a": 1, "b": 2}}


def test_of_very_many_violations_the_last_says_that_there_are_more(desk: Desk) -> None:
    with pytest.raises(Refusal) as caught:
        desk.call("StartWorkflow", {"workflow_type": "work", **{f"x{number}": number for number in range(3000)}})
    assert caught.value.reason == "PAYLOAD_INVALID"
    *_, last = caught.value.violations.items()
    assert int(last[1].split()[1]) + len(caught.value.violations) - 1 == 1001


def test_others_are_answered_while_a_large_unit_is_read(desk: Desk) -> None:
    large = worker_pb2.ContextUnit()
    large.payload["workflow_type"] = "work"
    large.payload.get_or_create_list("tags").extend(["a tag"] * 90_000)
    large.payload["tagz"] = 1
    data = large.SerializeToString()
    assert 500_000 < len(data) < 1024 * 1024
    with contextlib.closing(_Raw(desk.target)) as raw, ThreadPoolExecutor() as pool:
        reading = [pool.submit(raw.send, "StartWorkflow", data) for _ in range(4)]
        encode_answer = 0
        while not all(each.done() for each in reading):
            desk.call("DescribeContracts", {"workflow_type": ["ping"]})
            encode_answer += 1
        for each in reading:
            error = each.result()
            assert error is not None
            assert refusal_of(error).reason == "PAYLOAD_INVALID"
    # On the event loop itself the large ones would go first, and one of ours at the most come in between.
    assert encode_answer > len(reading)
