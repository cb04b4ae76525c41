"""Connect, gRPC-Web and JSON over HTTP: what is asked, streamed and refused there."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import struct
import subprocess
import sys
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import pytest
from contextunity.gen.contextunity.worker import GetTaskStatusRequest
from google.rpc import error_details_pb2, status_pb2
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from temporalio.client import Client

from contextunity.core import ContextUnit, codec, worker_pb2
from contextunity.worker.grpc_errors import ServiceError
from contextunity.worker.http import admission, calls, listener
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.server import RunningServer
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

from .conftest import ORIGIN, Desk, serving

_WORKER = "/contextunity.worker.WorkerService"
_DESK = "/acme.desk.v1.Desk"
_MIB = 1024 * 1024


@pytest.fixture(scope="module")
def client(desk: Desk) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=desk.http, timeout=20) as client:
        yield client


def _details(error: dict[str, Any]) -> dict[str, Any]:
    """The details of an error as Connect has them, by the last word of their types."""
    kinds = {"ErrorInfo": error_details_pb2.ErrorInfo, "BadRequest": error_details_pb2.BadRequest}
    found = dict[str, Any]()
    for detail in error["details"]:
        name = detail["type"].rpartition(".")[2]
        if name in kinds:
            found[name] = kinds[name].FromString(base64.b64decode(detail["value"] + "=="))
    return found


def test_json_goes_in_and_comes_out(client: httpx.Client) -> None:
    answer = client.post(f"{_DESK}/Work", json={"name": "a", "mode": "MODE_DONE", "big": str(2**60)})
    assert (answer.status_code, answer.json()) == (200, {"text": "a for default", "big": str(2**60)})
    assert answer.headers["contextunity-workflow-id"].startswith("work/default/")
    assert answer.headers["contextunity-run-id"]


def test_a_unit_is_json_as_well(client: httpx.Client) -> None:
    unit = {"unitId": str(uuid.uuid4()), "payload": {"workflow_type": "work", "name": "a"}, "provenance": ["a:b"]}
    answer = client.post(f"{_WORKER}/StartWorkflow", json=unit).json()
    assert answer["provenance"] == ["a:b", "worker:start_workflow"]
    assert answer["parentUnitId"] == unit["unitId"]
    assert answer["payload"]["workflow_id"] == answer["body"]["workflowId"]


@pytest.mark.parametrize("compressed", [False, True])
def test_bytes_of_protobuf_go_as_well(client: httpx.Client, compressed: bool) -> None:
    data = ContextUnit(payload={"workflow_type": ["work"]}).to_protobuf(worker_pb2).SerializeToString()
    headers = {"content-type": "application/proto"}
    if compressed:
        data, headers["content-encoding"] = gzip.compress(data), "gzip"
    answer = client.post(f"{_WORKER}/DescribeContracts", content=data, headers=headers)
    assert answer.status_code == 200, answer.text
    assert worker_pb2.ContextUnit.FromString(answer.content).payload["contracts"]


def test_ids_that_are_no_ascii_go_as_bytes(client: httpx.Client) -> None:
    name = f"é{uuid.uuid4()}"
    answer = client.post(f"{_DESK}/Join", json={"name": name}, headers={"contextunity-detach": "true"})
    assert answer.json() == {}
    workflow_id = answer.headers["contextunity-workflow-id-bin"]
    assert base64.b64decode(workflow_id + "==").decode() == f"join/{name}"
    finish = client.post(f"{_DESK}/Finish", json={}, headers={"contextunity-workflow-id-bin": workflow_id})
    assert (finish.status_code, finish.json()) == (200, {})


def test_a_watch_streams(client: httpx.Client, desk: Desk) -> None:
    workflow_id = desk.start(name="a", mode="MODE_WAIT")
    unit = json.dumps({"payload": {"workflow_id": workflow_id}}).encode()
    headers = {"content-type": "application/connect+json"}
    statuses, rest = list[str](), b""
    with client.stream("POST", f"{_WORKER}/WatchTask", content=_frame(unit), headers=headers) as answer:
        for part in answer.iter_bytes():
            rest += part
            while len(rest) >= 5 and len(rest) >= 5 + struct.unpack(">BI", rest[:5])[1]:
                flags, size = struct.unpack(">BI", rest[:5])
                message, rest = json.loads(rest[5 : 5 + size]), rest[5 + size :]
                if flags & 2:
                    assert message == {}
                    continue
                statuses.append(message["payload"]["status"])
                if len(statuses) == 1:
                    desk.call("SignalTask", {"workflow_id": workflow_id, "signal": "finish"})
    assert (statuses[0], statuses[-1]) == ("running", "completed")


def _frame(data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(data)) + data


def test_grpc_web_is_spoken(client: httpx.Client) -> None:
    data = ContextUnit(payload={"workflow_type": ["work"]}).to_protobuf(worker_pb2).SerializeToString()
    headers = {"content-type": "application/grpc-web+proto"}
    answer = client.post(f"{_WORKER}/DescribeContracts", content=_frame(data), headers=headers).content
    flags, size = struct.unpack(">BI", answer[:5])
    assert worker_pb2.ContextUnit.FromString(answer[5 : 5 + size]).payload["contracts"]
    assert (flags, b"grpc-status: 0") == (0, answer[10 + size :].strip())


def test_errors_over_grpc_web_have_the_same_details(client: httpx.Client) -> None:
    headers = {"content-type": "application/grpc-web+json"}
    answer = client.post(f"{_DESK}/Work", content=_frame(b'{"name": ""}'), headers=headers)
    trailers = dict(line.split(": ", 1) for line in answer.content[5:].decode().strip().split("\r\n"))
    assert trailers["grpc-status"] == "3"
    status = status_pb2.Status.FromString(base64.b64decode(trailers["grpc-status-details-bin"] + "=="))
    request = error_details_pb2.BadRequest.FromString(status.details[1].value)
    assert [each.field for each in request.field_violations] == ["name"]


@pytest.mark.parametrize(
    ("path", "body", "code", "reason", "fields"),
    [
        pytest.param(f"{_DESK}/Work", {"nmae": "a"}, "invalid_argument", "PAYLOAD_INVALID", ["nmae"], id="misspelt"),
        pytest.param(
            f"{_DESK}/Work",
            {"name": "", "count": 101},
            "invalid_argument",
            "PAYLOAD_INVALID",
            ["name", "count"],
            id="rules",
        ),
        pytest.param(f"{_DESK}/Ping", {"name": ""}, "invalid_argument", "PAYLOAD_INVALID", ["name"], id="empty"),
        pytest.param(
            "/acme.desk.v1.Sealed/Chain", {"told": {}}, "invalid_argument", "PAYLOAD_INVALID", ["told"], id="internal"
        ),
        pytest.param(
            f"{_WORKER}/GetTaskStatus", {"playload": {}}, "invalid_argument", "UNIT_UNREADABLE", ["playload"], id="unit"
        ),
        pytest.param(
            f"{_WORKER}/GetTaskStatus", {"payload": {"workflow_id": "x"}}, "not_found", "TASK_UNKNOWN", [], id="unknown"
        ),
        pytest.param(f"{_DESK}/Step", {}, "unimplemented", "NOT_FOR_CALLERS", [], id="activity"),
    ],
)
def test_errors_are_those_of_grpc(
    client: httpx.Client, path: str, body: Any, code: str, reason: str, fields: list[str]
) -> None:
    error = client.post(path, json=body).json()
    assert error["code"] == code
    details = _details(error)
    assert (details["ErrorInfo"].reason, details["ErrorInfo"].domain) == (reason, "worker.contextunity")
    violations = details["BadRequest"].field_violations if fields else []
    assert [each.field for each in violations] == fields


def test_a_deadline_ends_the_call_and_leaves_the_task(client: httpx.Client, desk: Desk) -> None:
    name = str(uuid.uuid4())
    answer = client.post(f"{_DESK}/Join", json={"name": name}, headers={"connect-timeout-ms": "500"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert desk.status(f"join/{name}")["status"] == "running"
    client.post(f"{_DESK}/Finish", json={}, headers={"contextunity-workflow-id": f"join/{name}"}).raise_for_status()


def test_who_hangs_up_with_on_cancel_has_the_task_cancelled(client: httpx.Client, desk: Desk) -> None:
    name = str(uuid.uuid4())
    headers = {"contextunity-on-cancel": "cancel"}
    with pytest.raises(httpx.ReadTimeout):
        client.post(f"{_DESK}/Join", json={"name": name}, headers=headers, timeout=0.5)
    desk.eventually(lambda: desk.status(f"join/{name}")["status"], "cancelled")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", f"{_WORKER}/DescribeContracts", {}, 405),
        ("POST", "/nothing", {}, 404),
        ("POST", f"{_WORKER}/DescribeContracts", {"content-type": "text/plain"}, 415),
        ("POST", f"{_WORKER}/DescribeContracts", {"content-type": "application/grpc"}, 415),
        ("POST", f"{_WORKER}/DescribeContracts", {"content-type": "application/json", "x-odd": b"\xff"}, 400),
        ("POST", f"{_WORKER}/DescribeContracts", {"content-type": "application/json", "host": "evil.example"}, 421),
    ],
)
def test_what_is_no_call_is_told_so(
    client: httpx.Client, method: str, path: str, headers: dict[str, Any], status: int
) -> None:
    assert client.request(method, path, headers=headers, content=b"{}").status_code == status


def test_pages_of_configured_origins_may_call(client: httpx.Client) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    allowed = client.options(f"{_DESK}/Work", headers={"origin": ORIGIN, **asks})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
    refused = client.options(f"{_DESK}/Work", headers={"origin": "https://evil.example", **asks})
    assert "access-control-allow-origin" not in refused.headers
    answer = client.post(f"{_DESK}/Ping", json={}, headers={"origin": ORIGIN})
    assert "contextunity-workflow-id" in answer.headers["access-control-expose-headers"]


async def _paths(registry: WorkerRegistry) -> list[str]:
    temporal = await Client.connect("127.0.0.1:1", lazy=True, plugins=[ContextWorkerPlugin()])
    service = WorkerService(temporal, registry)
    return [*(f"{_WORKER}/{name}" for name in service.methods), *service.contracts.methods]


@contextlib.asynccontextmanager
async def _serving(registry: WorkerRegistry, **settings: Any) -> AsyncGenerator[RunningServer]:
    async with serving(registry, http_port=0, **settings) as server:
        yield server


async def _send(server: RunningServer, path: str, *, length: int, sends: bytes, **headers: str) -> tuple[int, bytes]:
    """Sends the headers of a call and a part of its body; the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    try:
        lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {length}"]
        lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode() + sends)
        async with asyncio.timeout(20):
            data = await reader.read()
    finally:
        writer.close()
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize("kind", ["application/json", "application/connect+json", "application/grpc-web+proto"])
async def test_strangers_are_refused_by_their_headers_at_each_method(registry: WorkerRegistry, kind: str) -> None:
    weak = Desk.token("one", permissions=("worker:none",))
    async with _serving(registry) as server:
        for path in await _paths(registry):
            if (kind == "application/connect+json") != (path == f"{_WORKER}/WatchTask") and "web" not in kind:
                continue
            for authorization, word in (("", "TOKEN_REFUSED"), (f"Bearer {weak}", "PERMISSION_MISSING")):
                extra = {"authorization": authorization} if authorization else {}
                # Nothing of the body is sent, and it is not waited for.
                status, body = await _send(server, path, length=_MIB, sends=b"", content_type=kind, **extra)
                text = body.decode(errors="replace")
                found = base64.b64encode(word.encode())[:-4].decode() in text or _shifted(word, text)
                assert status in (200, 401, 403), (path, text)
                assert found, (path, text)


def _shifted(word: str, text: str) -> bool:
    """Whether a word is in base64, wherever in it."""
    return any(base64.b64encode(b"\0" * shift + word.encode())[4:-4].decode() in text for shift in (1, 2))


async def test_a_body_that_does_not_come_is_late(registry: WorkerRegistry) -> None:
    async with _serving(registry, body_timeout=0.3) as server:
        token = f"Bearer {Desk.token('one')}"
        status, body = await _send(
            server, f"{_DESK}/Work", length=1000, sends=b"{", content_type="application/json", authorization=token
        )
        assert (status, json.loads(_unchunked(body))["code"]) == (504, "deadline_exceeded")


def _unchunked(body: bytes) -> bytes:
    return body[body.index(b"{") : body.rindex(b"}") + 1]


@pytest.mark.parametrize("is_compressed", [False, True])
async def test_a_body_that_is_too_large_is_refused(registry: WorkerRegistry, is_compressed: bool) -> None:
    async with _serving(registry, max_unit_bytes=_MIB) as server:
        headers = {"authorization": f"Bearer {Desk.token('one')}", "content-type": "application/json"}
        data = b'"' + b"x" * 2 * _MIB + b'"'
        if is_compressed:
            data, headers["content-encoding"] = gzip.compress(data), "gzip"
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}", timeout=20) as client:
            answer = await client.post(f"{_DESK}/Work", content=data, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (429, "resource_exhausted")


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"tags": [' + b'"",' * 150_000 + b'""]}'])
async def test_json_of_too_many_values_is_refused_before_it_is_read(registry: WorkerRegistry, data: bytes) -> None:
    async with _serving(registry, max_payload_values=10_000) as server:
        headers = {"authorization": f"Bearer {Desk.token('one')}", "content-type": "application/json"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}", timeout=20) as client:
            answer = await client.post(f"{_DESK}/Work", content=data, headers=headers)
        assert (answer.status_code, _details(answer.json())["ErrorInfo"].reason) == (429, "UNIT_TOO_LARGE")


@pytest.mark.parametrize("data", [b"[" * 10_000, b'{"inner":' * 10_000, b"\xff", b"", b"nul", b'{"name": "\\ud800"}'])
def test_what_is_no_json_is_told_so(client: httpx.Client, data: bytes) -> None:
    answer = client.post(f"{_DESK}/Work", content=data, headers={"content-type": "application/json"})
    assert (answer.status_code, _details(answer.json())["ErrorInfo"].reason) == (400, "PAYLOAD_INVALID")


async def test_bodies_on_their_way_take_the_room_of_their_tenant(registry: WorkerRegistry) -> None:
    async with _serving(registry, max_tenant_bytes_in_flight=2 * _MIB) as server:
        headers = {"content_type": "application/json", "authorization": f"Bearer {Desk.token('one')}"}
        sent = [
            asyncio.create_task(_send(server, f"{_DESK}/Work", length=_MIB, sends=b" ", **headers)) for _ in range(3)
        ]
        done, pending = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
        assert [call.result()[0] for call in done] == [429]
        for call in pending:
            call.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def test_a_connection_that_asks_nothing_is_closed(
    registry: WorkerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_IDLE", 0.1)
    async with _serving(registry) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
        writer.write(b"POST / HTTP/1.1\r\nhost: ")
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()


async def test_calls_begin_apart_while_others_come_over_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_APART", 0.01)
    admission: Any = type("Admission", (), {"called_at": float("inf")})
    pace, begun = calls._Pace(admission), list[bytes]()

    async def call(caller: bytes) -> None:
        await pace.turn(caller)
        begun.append(caller)

    async with asyncio.TaskGroup() as group:
        for caller in (b"one", b"one", b"one", b"two"):
            group.create_task(call(caller))
    # The first began at once; of those that waited, callers take turns.
    assert begun == [b"one", b"one", b"two", b"one"]
    assert pace._next > asyncio.get_running_loop().time()
    admission.called_at = float("-inf")
    await call(b"two")


def test_without_a_port_nothing_of_it_is_imported() -> None:
    assert Settings().http_port is None
    program = "import sys, contextunity.worker.cli.serve, contextunity.worker.server"
    program += "; print({'connectrpc', 'starlette', 'uvicorn'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_text_is_not_counted_as_values() -> None:
    admission.check_values(json.dumps({"a": ',[{"\\,' * 1000}).encode(), 10)
    with pytest.raises(ServiceError):
        admission.check_values(json.dumps({"a": [1] * 1000}).encode(), 10)


def test_the_openapi_document_is_valid_and_tells_what_is_served(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    paths = document["paths"]
    assert {f"{_DESK}/Work", f"{_DESK}/Finish", f"{_WORKER}/StartWorkflow"} <= paths.keys()
    # What callers cannot call is not in it.
    assert not {f"{_DESK}/Step", "/acme.desk.v1.Sealed/Hidden"} & paths.keys()
    schemas = document["components"]["schemas"]
    request = Draft202012Validator(
        {"$ref": "#/components/schemas/acme.desk.v1.Desk.Work-request", "components": {"schemas": schemas}}
    )
    assert request.is_valid({"name": "a", "inner": {"level": 3}, "big": "7"})
    assert not request.is_valid({"name": "a", "inner": {"level": 10}})
    assert not request.is_valid({"nmae": "a"})


async def test_who_is_told_so_may_still_be_sending_the_body(
    registry: WorkerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_SKIPPED_IN", 60.0)
    async with _serving(registry) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
        head = f"POST {_WORKER}/DescribeContracts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\n"
        writer.write(f"{head}content-length: 3\r\n\r\n1".encode())
        async with asyncio.timeout(20):
            told = await reader.readuntil(b"\r\n\r\n")
            # A closed connection would be reset by the first byte, and fail with the second.
            for _ in range(2):
                await asyncio.sleep(0.05)
                writer.write(b"1")
                await writer.drain()
            told += await reader.read()
        writer.close()
    assert told.startswith(b"HTTP/1.1 415 ")
    assert b"gRPC is served on the port of WORKER_PORT" in told


async def test_what_is_no_call_asks_for_a_token_too(registry: WorkerRegistry) -> None:
    weak = Desk.token("one", permissions=("worker:none",))
    async with (
        _serving(registry) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}", timeout=20) as client,
    ):
        for method, path in (("GET", "/openapi.json"), ("POST", "/codec/default/decode"), ("POST", "/codec/x/encode")):
            assert (await client.request(method, path)).json()["code"] == "unauthenticated"
            refused = await client.request(method, path, headers={"authorization": f"Bearer {weak}"})
            assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
        good = {"authorization": f"Bearer {Desk.token('one')}"}
        assert (await client.get("/openapi.json", headers=good)).status_code == 200


def _payload(encoding: str, data: bytes, message_type: str = "") -> dict[str, Any]:
    metadata = {"encoding": encoding, **({"messageType": message_type} if message_type else {})}
    return {
        "metadata": {key: base64.b64encode(value.encode()).decode() for key, value in metadata.items()},
        "data": base64.b64encode(data).decode(),
    }


def test_the_codec_shows_messages_in_clear_and_makes_them_again(client: httpx.Client) -> None:
    name = "contextunity.worker.GetTaskStatusRequest"
    data = codec.encode(GetTaskStatusRequest(workflow_id="a"))
    others = [_payload("json/plain", b"1"), _payload("binary/protobuf", b"\x08\x01", "no.such.Message")]
    sent = {"payloads": [_payload("binary/protobuf", data, name), *others]}
    decoded = client.post("/codec/default/decode", json=sent, headers={"x-namespace": "default"}).json()
    assert decoded == {"payloads": [_payload("json/protobuf", b'{"workflowId": "a"}', name), *others]}
    assert client.post("/codec/default/encode", json=decoded).json() == sent


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/codec/other/decode", b'{"payloads": []}', 404),
        ("/codec/default/shred", b'{"payloads": []}', 404),
        ("/codec/default/decode", b"[", 400),
        ("/codec/default/decode", b'{"payloads": 3}', 400),
        (
            "/codec/default/encode",
            json.dumps({"payloads": [_payload("json/protobuf", b"{}", "no.such")]}).encode(),
            400,
        ),
    ],
)
def test_what_the_codec_cannot_read_is_told_so(client: httpx.Client, path: str, body: bytes, status: int) -> None:
    assert client.post(path, content=body).status_code == status


def test_pages_of_the_web_ui_may_ask_the_codec(client: httpx.Client) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-namespace"}
    allowed = client.options("/codec/default/decode", headers={"origin": ORIGIN, **asks})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
