"""The servicer alone, on grpcio-testing's server: no socket, and the deadline in the test's own hands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import grpc_testing
import pytest
from google.rpc import error_details_pb2, status_pb2
from temporalio.client import Client

from contextunity.core import ContextUnit, worker_pb2
from contextunity.worker.auth import Authenticator, Caller
from contextunity.worker.boundary import SERVICE_NAME, Boundary
from contextunity.worker.errors import AuthenticationError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.service import WorkerService

_SERVICE = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"]


class _Details:
    """What grpcio asks a generic handler for."""

    def __init__(self, method: str) -> None:
        self.method = f"/{SERVICE_NAME}/{method}"
        self.invocation_metadata = ()


class _Context:
    """grpcio-testing's context, as the asynchronous handlers want it."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def invocation_metadata(self) -> Any:
        return self._context.invocation_metadata()

    def time_remaining(self) -> float | None:
        return self._context.time_remaining()  # type: ignore[no-any-return]

    async def abort_with_status(self, status: Any) -> None:
        self._context.set_trailing_metadata(status.trailing_metadata)
        self._context.set_code(status.code)
        self._context.set_details(status.details)
        raise _Aborted


class _Aborted(Exception):  # noqa: N818 - no error but a way out
    """The handler is left; the status is set."""


class _Servicer:
    """Every method of the proto, answered by the boundary."""

    def __init__(self, boundary: Boundary, loop: asyncio.AbstractEventLoop) -> None:
        handlers = boundary.handlers()
        for name, method in _SERVICE.methods_by_name.items():
            handler = handlers.service(_Details(name))  # type: ignore[arg-type]
            assert handler is not None
            if not method.server_streaming:
                setattr(self, name, self._unary(handler.unary_unary, loop))

    @staticmethod
    def _unary(handle: Any, loop: asyncio.AbstractEventLoop) -> Any:
        def answer(request: Any, context: Any) -> Any:
            handled = handle(request.SerializeToString(), _Context(context))
            try:
                data = asyncio.run_coroutine_threadsafe(handled, loop).result(20)
            except _Aborted:
                return worker_pb2.ContextUnit()
            return worker_pb2.ContextUnit.FromString(data)

        return answer


class _ByHeader:
    """Takes the header `who` for the caller."""

    confirm = None

    def authenticate(self, metadata: Any) -> Caller:
        who = dict(metadata).get("who", "")
        if not who:
            raise AuthenticationError("TOKEN_MISSING", "the call has no token")
        return Caller(permissions=frozenset({"worker:read"}), tenants=frozenset({who}))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def server(loop: asyncio.AbstractEventLoop, registry: WorkerRegistry) -> Any:
    # Nothing listens there: what needs Temporal is UNAVAILABLE, and the rest is answered without it.
    connecting = asyncio.run_coroutine_threadsafe(Client.connect("127.0.0.1:1", lazy=True), loop)
    service = WorkerService(connecting.result(20), registry)
    authenticator: Authenticator = _ByHeader()
    servicer = _Servicer(Boundary(service, authenticator, max_unit_bytes=10_000, max_payload_values=1000), loop)
    return grpc_testing.server_from_dictionary({_SERVICE: servicer}, grpc_testing.strict_real_time())


def _call(server: Any, method: str, unit: ContextUnit, *, who: str = "one") -> tuple[Any, grpc.StatusCode, str, str]:
    metadata = (("who", who),) if who else ()
    rpc = server.invoke_unary_unary(_SERVICE.methods_by_name[method], metadata, unit.to_protobuf(worker_pb2), None)
    answer, trailing, code, details = rpc.termination()
    reason = ""
    for key, value in trailing or ():
        if key == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            status_pb2.Status.FromString(value).details[0].Unpack(info)
            assert info.metadata["trace_id"] == unit.trace_id
            reason = info.reason
    return answer, code, reason, details


def test_a_good_call_is_answered(server: Any) -> None:
    unit = ContextUnit(payload={"workflow_type": ["ping"]}, provenance=["test:caller"])
    answer, code, _, _ = _call(server, "DescribeContracts", unit)
    assert code is grpc.StatusCode.OK
    face = ContextUnit.from_protobuf(answer)
    assert face.parent_unit_id == unit.unit_id
    assert face.provenance == ["test:caller", "worker:describe_contracts"]
    payload: Any = face.payload
    assert payload["contracts"][0]["workflow_type"] == "ping"


@pytest.mark.parametrize(
    ("method", "payload", "who", "code", "reason"),
    [
        pytest.param("GetTaskStatus", {}, "", "UNAUTHENTICATED", "TOKEN_REFUSED", id="nobody"),
        pytest.param("StartWorkflow", {}, "one", "PERMISSION_DENIED", "PERMISSION_MISSING", id="no permission"),
        pytest.param("GetTaskStatus", {}, "one", "INVALID_ARGUMENT", "PAYLOAD_INVALID", id="invalid"),
        pytest.param(
            "GetTaskStatus",
            {"workflow_id": "x", "tenant_id": "two"},
            "one",
            "PERMISSION_DENIED",
            "TENANT_REFUSED",
            id="other tenant",
        ),
        pytest.param("ListTasks", {"page_token": "%"}, "one", "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", id="token"),
        pytest.param(
            "DescribeContracts", {"workflow_type": ["x"]}, "one", "NOT_FOUND", "WORKFLOW_TYPE_UNKNOWN", id="unknown"
        ),
        pytest.param(
            "ListTasks", {"page_token": "x" * 10_000}, "one", "RESOURCE_EXHAUSTED", "UNIT_TOO_LARGE", id="too large"
        ),
    ],
)
def test_each_cause_has_its_status(
    server: Any, method: str, payload: dict[str, Any], who: str, code: str, reason: str
) -> None:
    _, status, told, details = _call(server, method, ContextUnit(payload=payload), who=who)
    assert (status.name, told) == (code, reason)
    assert details
