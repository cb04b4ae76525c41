"""The gRPC server: bytes in, bytes out, errors as statuses, with health and reflection beside the service."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import grpc
from contextunity.gen.contextunity.core import ContextUnit
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from contextunity.core import codec, worker_pb2
from contextunity.core.errors import CodecError

from .errors import PortTakenError
from .service import WorkerService
from .settings import Settings
from .status import FieldViolation, ServiceError, to_status

__all__ = ["SERVICE_NAME", "RunningServer", "running_server"]

_LOG = logging.getLogger(__name__)

SERVICE_NAME = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
"""Full name of the service, as clients and health checks call it."""

_STOP_GRACE = 5.0
"""Seconds that calls under way have to finish when the server stops."""

_Method = Callable[[ContextUnit], Awaitable[ContextUnit]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningServer:
    """A server that serves.

    Attributes:
        host: address that it listens on.
        port: port that it listens on.
        server: grpcio's own server.
    """

    host: str
    port: int
    server: grpc.aio.Server

    @property
    def target(self) -> str:
        """What a client on this machine connects to."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "[::]", "::") else self.host  # noqa: S104 - compared, not bound
        return f"{host}:{self.port}"


@contextlib.asynccontextmanager
async def running_server(service: WorkerService, settings: Settings) -> AsyncGenerator[RunningServer, None]:
    """Serves while the context is open; on leaving it, calls under way have five seconds to finish.

    Raises:
        PortTakenError: the address cannot be listened on.
    """
    server = grpc.aio.server(options=_options(settings))
    server.add_generic_rpc_handlers((_handlers(service),))
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        (SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
    port = _bind(server, settings)
    await server.start()
    for name in ("", SERVICE_NAME):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield RunningServer(host=settings.host, port=port, server=server)
    finally:
        await health.enter_graceful_shutdown()
        await server.stop(_STOP_GRACE)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_unit_bytes),
        ("grpc.max_send_message_length", settings.max_unit_bytes),
        # Without this a second server on the port would share it in silence.
        ("grpc.so_reuseport", 0),
        # Deployed clients ping every 60 s, also while no call is under way.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    address = f"{settings.host}:{settings.port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise PortTakenError(
            address, "WORKER_PORT (or the host with WORKER_HOST)", "the address is taken or not ours"
        ) from None
    return port


def _handlers(service: WorkerService) -> grpc.GenericRpcHandler:
    methods: dict[str, _Method] = {
        "StartWorkflow": service.start_workflow,
        "GetTaskStatus": service.get_task_status,
        "ExecuteCode": service.execute_code,
        "RegisterSchedules": service.register_schedules,
    }
    return grpc.method_handlers_generic_handler(
        SERVICE_NAME,
        {name: grpc.unary_unary_rpc_method_handler(_handler(name, method)) for name, method in methods.items()},
    )


def _handler(name: str, method: _Method) -> Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
    """Wraps a method of the service for grpcio, without its (de)serialisers: what those raise would end as INTERNAL."""

    async def handle(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        trace_id = ""
        try:
            unit = _decode(data)
            trace_id = unit.trace_id
            return codec.encode(await method(unit))
        except ServiceError as error:
            failure = error
        except Exception:  # noqa: BLE001 - the boundary: whatever it is, the caller gets a status and the log the rest
            _LOG.exception("%s failed, trace_id %s", name, trace_id)
            failure = ServiceError(
                grpc.StatusCode.INTERNAL, "INTERNAL", f"{name} failed; the service's log has it under the trace_id"
            )
        status = rpc_status.to_status(to_status(failure, trace_id))  # pyright: ignore[reportUnknownMemberType]  # no types
        await context.abort_with_status(status)
        raise AssertionError("abort_with_status raises")

    return handle


def _decode(data: bytes) -> ContextUnit:
    try:
        return codec.decode(ContextUnit, data)
    except CodecError as error:
        raise ServiceError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "UNIT_UNREADABLE",
            f"the request is not a ContextUnit: {error.reason}",
            violations=[FieldViolation(field=error.path, description=error.reason)],
        ) from None
