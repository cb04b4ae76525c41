"""JWTs and revoked tokens at all doors: gRPC, the contracts' own services, HTTP, its document and codec."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc import error_details_pb2

from contextunity.core import ContextUnit, worker_pb2
from contextunity.worker import file_changes
from contextunity.worker import jwks as jwks_module
from contextunity.worker.auth import AUDIT_LOGGER, open_authenticator
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.server import RunningServer, running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.client import connect
from tests.worker.issuer import AUDIENCE, EC, ISSUER, Site, jwk, jwks, jwt, publishing

from .conftest import SECRET, Desk, Refusal, refusal_of

_WORKER, _DESK = "/contextunity.worker.WorkerService", "/acme.desk.v1.Desk"
_MAY: dict[str, Any] = {"permissions": ["worker:execute", "worker:read"]}
_NO_KEYS = (503, "TOKEN_UNCHECKED", "KEYS_UNAVAILABLE")
_NEW = ec.generate_private_key(ec.SECP256R1())


@dataclass
class Doors:
    """A service that takes both kinds of token, and how to call it."""

    server: RunningServer
    channel: grpc.aio.Channel
    web: httpx.AsyncClient
    paths: list[str]
    authenticator: Any

    async def unit(self, method: str, token: str, /, **payload: Any) -> dict[str, Any]:
        sent = ContextUnit(payload=payload, provenance=["test:caller"]).to_protobuf(worker_pb2)
        data = sent.SerializeToString()
        with _refusals():
            answer = await self.channel.unary_unary(f"{_WORKER}/{method}")(data, metadata=_bearer(token), timeout=20)
        return dict(ContextUnit.from_protobuf(worker_pb2.ContextUnit.FromString(answer)).payload)

    async def typed(self, name: str, data: bytes, token: str, /, **metadata: str) -> bytes:
        entries = [*_bearer(token), *((f"contextunity-{key}", value) for key, value in metadata.items())]
        with _refusals():
            answer: bytes = await self.channel.unary_unary(f"{_DESK}/{name}")(data, metadata=entries, timeout=20)
            return answer

    async def unread(self, path: str, token: str) -> Refusal:
        """How a call over gRPC ends that sends nothing after its headers."""
        with pytest.raises(Refusal) as caught, _refusals():
            await self.channel.stream_unary(path)(_never(), metadata=_bearer(token), timeout=20)
        return caught.value

    async def post(self, path: str, token: str, json: Any) -> tuple[int, str, str]:
        """Status, reason and fault of a call over HTTP."""
        answer = await self.web.post(path, json=json, headers=dict(_bearer(token)))
        return answer.status_code, *_fault(answer)


@contextlib.contextmanager
def _refusals() -> Any:
    try:
        yield
    except grpc.RpcError as error:
        raise refusal_of(error) from None


def _bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


async def _never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


def _fault(answer: httpx.Response) -> tuple[str, str]:
    if answer.status_code == 200:
        return "", ""
    for detail in answer.json()["details"]:
        if detail["type"].endswith("ErrorInfo"):
            data = base64.b64decode(detail["value"] + "==")
            info = error_details_pb2.ErrorInfo.FromString(data)
            return info.reason, info.metadata.get("fault", "")
    raise AssertionError(answer.text)


@contextlib.asynccontextmanager
async def _doors(temporal: EmbeddedServer, registry: WorkerRegistry, **more: Any) -> AsyncGenerator[Doors]:
    given = {"host": "127.0.0.1", "port": 0, "http_port": 0, "auth": "token", "token_secret": SECRET, **more}
    settings = Settings.model_validate({"jwt_issuer": ISSUER, "jwt_audience": (AUDIENCE,), **given})
    async with contextlib.AsyncExitStack() as stack:
        authenticator = await stack.enter_async_context(open_authenticator(settings))
        service = WorkerService(await connect(settings, address=temporal.address), registry)
        server = await stack.enter_async_context(running_server(service, settings, authenticator))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.target))
        web = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{server.http_target}", timeout=20))
        paths = [*service.contracts.methods, *(f"{_WORKER}/{name}" for name in service.methods)]
        yield Doors(server, channel, web, paths, authenticator)


@pytest.fixture
async def doors(temporal_server: EmbeddedServer, registry: WorkerRegistry, tmp_path: Path) -> AsyncIterator[Doors]:
    """With a file of keys and one of revoked tokens."""
    (tmp_path / "jwks.json").write_bytes(jwks(jwk(EC, "ec-1")))
    (tmp_path / "revoked").write_text("leaked\n")
    files: dict[str, Any] = {"jwt_jwks_file": tmp_path / "jwks.json", "revoked_tokens_file": tmp_path / "revoked"}
    async with _doors(temporal_server, registry, **files) as doors:
        yield doors


@pytest.mark.usefixtures("desk")
async def test_tenants_of_a_jwt_are_enforced_at_each_door(doors: Doors) -> None:
    one, two = jwt(tenants=["one"], **_MAY), jwt(tenants="two", scope="worker:read worker:execute")
    task = (await doors.unit("StartWorkflow", one, workflow_type="work", name=uuid.uuid4().hex, mode="MODE_WAIT"))[
        "workflow_id"
    ]
    assert (await doors.unit("GetTaskStatus", one, workflow_id=task))["status"] == "running"
    # Both kinds of token tell the same tenant.
    assert (await doors.unit("GetTaskStatus", Desk.token("one"), workflow_id=task))["status"] == "running"
    status, reason, _ = await doors.post(f"{_WORKER}/GetTaskStatus", two, {"payload": {"workflow_id": task}})
    assert (status, reason) == (404, "TASK_UNKNOWN")
    for name, token, payload, expected in (
        ("GetTaskStatus", two, {"workflow_id": task}, "TASK_UNKNOWN"),
        ("GetTaskStatus", one, {"workflow_id": task, "tenant_id": "two"}, "TENANT_REFUSED"),
        ("StartWorkflow", jwt(**_MAY), {"workflow_type": "work", "name": "a"}, "TENANT_REFUSED"),
        ("TerminateTask", jwt(tenants=["one"], scope="worker:read"), {"workflow_id": task}, "PERMISSION_MISSING"),
    ):
        with pytest.raises(Refusal) as caught:
            await doors.unit(name, token, **payload)
        assert caught.value.reason == expected
    with pytest.raises(Refusal) as caught:
        await doors.typed("Finish", b"", two, **{"workflow-id": task})
    assert caught.value.reason == "TASK_UNKNOWN"
    assert await doors.typed("Finish", b"", one, **{"workflow-id": task}) == b""
    answer = await doors.web.post(f"{_DESK}/Work", json={"name": "a", "mode": "MODE_DONE"}, headers=dict(_bearer(two)))
    assert answer.json()["text"] == "a for two"


@pytest.mark.parametrize(
    ("token", "status", "fault"),
    [
        pytest.param(jwt(kid="ec-2", **_MAY), "UNAUTHENTICATED", "TOKEN_INVALID", id="unknown key"),
        pytest.param(jwt(aud="other", **_MAY), "UNAUTHENTICATED", "TOKEN_WRONG_AUDIENCE", id="another audience"),
        pytest.param(jwt(jti="leaked", **_MAY), "UNAUTHENTICATED", "TOKEN_REVOKED", id="revoked"),
        pytest.param(jwt(jti="leaked"), "UNAUTHENTICATED", "TOKEN_REVOKED", id="revoked, without permissions"),
    ],
)
async def test_a_bad_jwt_is_refused_by_the_headers_at_every_method(
    doors: Doors, token: str, status: str, fault: str
) -> None:
    for path in doors.paths:
        refusal = await doors.unread(path, token)
        assert (refusal.code.name, refusal.reason, refusal.metadata["fault"]) == (status, "TOKEN_REFUSED", fault), path
    for path in (f"{_WORKER}/DescribeContracts", f"{_DESK}/Work", "/codec/default/decode"):
        assert await doors.post(path, token, {}) == (401, "TOKEN_REFUSED", fault), path
    answer = await doors.web.get("/openapi.json", headers=dict(_bearer(token)))
    assert (answer.status_code, _fault(answer)) == (401, ("TOKEN_REFUSED", fault))


async def test_a_good_jwt_opens_each_door(doors: Doors) -> None:
    token = jwt(tenants=["one"], **_MAY)
    assert await doors.unit("DescribeContracts", token)
    assert (await doors.post(f"{_WORKER}/DescribeContracts", token, {}))[0] == 200
    assert (await doors.web.get("/openapi.json", headers=dict(_bearer(token)))).status_code == 200
    assert (await doors.post("/codec/default/decode", token, {"payloads": []}))[0] == 200


async def test_a_token_that_is_revoked_while_it_is_used_is_refused_from_then_on(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_changes, "_PAUSE", 0.0)
    caplog.set_level("INFO", AUDIT_LOGGER.name)
    token = jwt(jti="t-7", tenants=["one"], **_MAY)
    assert await doors.unit("DescribeContracts", token)
    (tmp_path / "revoked").write_text("leaked\nt-7 # lost laptop\n")
    assert (await doors.unread(f"{_WORKER}/StartWorkflow", token)).metadata["fault"] == "TOKEN_REVOKED"
    # The audit log has it: its caller is known.
    assert '"token_id": "t-7"' in caplog.text
    assert '"reason": "TOKEN_REFUSED"' in caplog.text
    (tmp_path / "revoked").unlink()
    for path in (f"{_WORKER}/StartWorkflow", f"{_WORKER}/WatchTask", f"{_DESK}/Work"):
        refusal = await doors.unread(path, token)
        found = (refusal.code.name, refusal.reason, refusal.metadata["fault"], refusal.retry_after)
        assert found == ("UNAVAILABLE", "TOKEN_UNCHECKED", "REVOCATIONS_UNAVAILABLE", 1)
    assert await doors.post(f"{_DESK}/Work", token, {}) == (503, "TOKEN_UNCHECKED", "REVOCATIONS_UNAVAILABLE")
    assert await doors.post("/codec/default/decode", token, {}) == (503, "TOKEN_UNCHECKED", "REVOCATIONS_UNAVAILABLE")


@contextlib.asynccontextmanager
async def _rotating(
    temporal: EmbeddedServer, registry: WorkerRegistry, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[Doors, Site]]:
    """A service, and the site of its issuer, which has a new key by now."""
    with publishing(jwks(jwk(EC, "ec-1"))) as site:
        async with _doors(temporal, registry, jwt_jwks_url=site.url) as doors:
            monkeypatch.setattr(jwks_module, "_UNKNOWN_PAUSE", 0.0)
            site.body = jwks(jwk(EC, "ec-1"), jwk(_NEW, "ec-2"))
            site.open.clear()
            yield doors, site


async def _until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not reached():  # noqa: ASYNC110 - another thread serves
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("door", ["gRPC", "gRPC stream", "HTTP", "document"])
async def test_calls_with_a_new_key_wait_until_it_is_fetched(
    temporal_server: EmbeddedServer, registry: WorkerRegistry, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    async with _rotating(temporal_server, registry, monkeypatch) as (doors, site):
        # The second is by a key that does not come.
        tokens = jwt(key=_NEW, kid="ec-2", tenants=["one"], **_MAY), jwt(key=_NEW, kid="ec-3", tenants=["one"], **_MAY)

        async def call(token: str) -> str:
            unit = ContextUnit(payload={"workflow_id": "nobody-has-this"}).to_protobuf(worker_pb2).SerializeToString()
            match door:
                case "gRPC":
                    with contextlib.suppress(Refusal), _refusals():
                        await doors.unit("DescribeContracts", token)
                        return "good"
                    return "TOKEN_REFUSED"
                case "gRPC stream":
                    stream = doors.channel.unary_stream(f"{_WORKER}/WatchTask")
                    with pytest.raises(Refusal) as caught, _refusals():
                        await stream(unit, metadata=_bearer(token), timeout=20).read()
                    return caught.value.reason
                case "HTTP":
                    return (await doors.post(f"{_WORKER}/DescribeContracts", token, {}))[1] or "good"
                case _:
                    answer = await doors.web.get("/openapi.json", headers=dict(_bearer(token)))
                    return _fault(answer)[0] or "good"

        calls = [asyncio.create_task(call(token)) for token in tokens]
        await _until(lambda: site.asked == 2)
        monkeypatch.setattr(jwks_module, "_UNKNOWN_PAUSE", 60.0)
        assert not any(each.done() for each in calls)
        site.open.set()
        expected = "TASK_UNKNOWN" if door == "gRPC stream" else "good"
        assert await asyncio.gather(*calls) == [expected, "TOKEN_REFUSED"]
        assert site.asked == 2


async def test_a_caller_that_leaves_while_the_key_is_fetched_leaves_nothing(
    temporal_server: EmbeddedServer, registry: WorkerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _rotating(temporal_server, registry, monkeypatch) as (doors, site):
        before = len(asyncio.all_tasks())
        call = asyncio.create_task(doors.unit("DescribeContracts", jwt(key=_NEW, kid="ec-2", **_MAY)))
        await _until(lambda: site.asked == 2)
        call.cancel()
        site.open.set()
        await _until(lambda: len(asyncio.all_tasks()) <= before)
        assert await doors.unit("DescribeContracts", jwt(key=_NEW, kid="ec-2", tenants=["one"], **_MAY))


async def test_a_service_whose_keys_are_too_old_is_unavailable(
    temporal_server: EmbeddedServer, registry: WorkerRegistry
) -> None:
    with publishing(jwks(jwk(EC, "ec-1"))) as site:
        async with _doors(temporal_server, registry, jwt_jwks_url=site.url) as doors:
            token = jwt(tenants=["one"], **_MAY)
            assert await doors.unit("DescribeContracts", token)
            # As after an hour without an answer.
            doors.authenticator._jwts._keys._usable_until = float("-inf")
            assert await doors.post(f"{_WORKER}/DescribeContracts", token, {}) == _NO_KEYS
            refusal = await doors.unread(f"{_WORKER}/StartWorkflow", token)
            found = (refusal.code.name, refusal.reason, refusal.metadata["fault"], refusal.retry_after)
            assert found == ("UNAVAILABLE", "TOKEN_UNCHECKED", "KEYS_UNAVAILABLE", 1)
            # Tokens of the other kind need none of these keys.
            assert await doors.unit("DescribeContracts", Desk.token("one"))
