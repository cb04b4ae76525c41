"""The gRPC server: where it listens and how, with health and reflection beside the service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contextunity.core.tokens import MAX_TOKEN_LENGTH

from . import reflection
from .admission import Admission, BodyLimits
from .auth import Authenticator
from .boundary import SERVICE_NAME, Boundary
from .errors import PortTakenError, SettingsError
from .memory_release import giving_back
from .readiness import Pace, Readiness, following_temporal, temporal_probe
from .service import WorkerService
from .settings import Settings, is_loopback, tls_violations
from .stopping import CallsUnderWay
from .unauthenticated import UnauthenticatedMethods

if TYPE_CHECKING:
    from .tls import ServerTls

__all__ = ["RunningServer", "open_tls", "running_server"]

_LOG = logging.getLogger(__name__)

_LAST_WORD = 1.0
"""Seconds after the grace period for calls to be told that they end."""
_REJECTING = 0.25
"""Seconds in which calls are rejected before the port closes: grpcio drops those that come in the moment in which it
stops, as CANCELLED, and callers that were told to wait have none on their way then."""
_FRAME = 1024 * 1024
"""Bytes beyond the limit that are still read, so that a unit just over it is refused with its details."""

_PENDING = 100_000
"""Calls that wait to be looked at, of all connections. grpcio's own limit of 1,000 is met by one connection alone."""
_OWN_FILES = 200
"""File descriptors that connections of callers leave to the process, so that it still reaches Temporal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningServer:
    """A server that serves.

    Attributes:
        host: address that it listens on.
        port: port that it listens on.
        server: grpcio's own server.
        readiness: what health checks and `/readyz` report.
        calls: the calls under way.
        http_port: port that HTTP is served on; None where it is not.
        has_tls: whether both are served by TLS.
    """

    host: str
    port: int
    server: grpc.aio.Server
    readiness: Readiness
    calls: CallsUnderWay
    http_port: int | None = None
    has_tls: bool = False

    @property
    def target(self) -> str:
        """What a client on this machine connects to."""
        return self._target(self.port)

    @property
    def http_target(self) -> str:
        """The same for HTTP; empty where it is not served."""
        return "" if self.http_port is None else self._target(self.http_port)

    async def drain(self, seconds: float, over: asyncio.Event) -> None:
        """Report that the service is not ready, go on answering for a while, then reject new calls for a moment.

        Args:
            seconds: how long to answer, so that load balancers notice.
            over: ends that at once.
        """
        await self.readiness.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await over.wait()
        self.calls.is_stopping = True
        await asyncio.sleep(_REJECTING)

    def _target(self, port: int) -> str:
        host = "127.0.0.1" if self.host in ("0.0.0.0", "[::]", "::") else self.host  # noqa: S104 - compared, not bound
        return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


@contextlib.asynccontextmanager
async def running_server(
    service: WorkerService,
    settings: Settings,
    authenticator: Authenticator,
    *,
    pace: Pace | None = None,
    http: socket.socket | None = None,
    tls: ServerTls | None = None,
) -> AsyncGenerator[RunningServer, None]:
    """Serves while the context is open.

    On leaving it, health is NOT_SERVING at once, watches and waits end as STOPPING, new calls are rejected, and calls
    under way have `shutdown_grace` to finish; what outlasts that ends as STOPPING too.

    Args:
        service: answers the calls.
        settings: of the process: where to listen, and how large a unit may be.
        authenticator: authenticates callers, as from `open_authenticator`.
        pace: how often Temporal is probed for the health of the service; see `Pace`.
        http: what to serve HTTP on, as from `http.listen`; unless given, the port of the settings, where they have one.
        tls: as from `open_tls`; unless given, it is opened here.

    Raises:
        PortTakenError: the address cannot be listened on.
        SettingsError: a file of TLS cannot be read or used.
    """
    tls = tls or open_tls(settings)
    boundary = Boundary(
        service,
        authenticator,
        max_unit_bytes=settings.max_unit_bytes,
        max_payload_values=settings.max_payload_values,
    )
    server = grpc.aio.server(options=_options(settings))
    admission = Admission(
        boundary,
        {**service.contracts.methods, **{f"/{SERVICE_NAME}/{name}": each for name, each in service.methods.items()}},
        authenticator,
        BodyLimits(
            seconds=settings.body_timeout,
            one=settings.max_unit_bytes,
            process=settings.max_bytes_in_flight,
            tenant=settings.max_tenant_bytes_in_flight,
        ),
        service.quotas,
    )
    unauthenticated = UnauthenticatedMethods()
    readiness = Readiness(SERVICE_NAME, file=settings.ready_file)
    # Generated code needs only this method of a server.
    add_health: Any = health_pb2_grpc.add_HealthServicer_to_server
    server.add_generic_rpc_handlers((admission, unauthenticated))
    add_health(readiness.health, unauthenticated)
    listed = [SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, *service.contracts.services]
    unauthenticated.add_generic_rpc_handlers(reflection.handlers(listed, service.contracts.services.values()))
    port = _bind(server, settings, tls)
    await server.start()
    http_serving = contextlib.AsyncExitStack()
    try:
        http_port = await http_serving.enter_async_context(
            _http(service, admission, authenticator, settings, http, tls, readiness)
        )
        async with giving_back(), following_temporal(readiness, temporal_probe(service.client), pace):
            yield RunningServer(
                host=settings.listen_host,
                port=port,
                server=server,
                readiness=readiness,
                calls=admission.under_way,
                http_port=http_port,
                has_tls=tls is not None,
            )
    finally:
        # What would go on for long ends before anybody waits for it.
        service.stop()
        async with asyncio.TaskGroup() as group:
            group.create_task(unauthenticated.stop())
            group.create_task(admission.under_way.stop(settings.shutdown_grace))
            group.create_task(server.stop(settings.shutdown_grace + _LAST_WORD))
            group.create_task(http_serving.aclose())
        await service.close()


@contextlib.asynccontextmanager
async def _http(
    service: WorkerService,
    admission: Admission,
    authenticator: Authenticator,
    settings: Settings,
    listening: socket.socket | None,
    tls: ServerTls | None,
    readiness: Readiness,
) -> AsyncGenerator[int | None, None]:
    """Serves HTTP as well, where that is asked for."""
    if settings.http_port is None and listening is None:
        yield None
        return
    # Imported only here: most processes serve gRPC alone.
    from .http import listen, running_http

    listening = listening or listen(settings.listen_host, settings.http_port or 0)
    async with running_http(service, admission, authenticator, settings, listening, tls, readiness) as port:
        yield port


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", min(settings.max_unit_bytes + _FRAME, 2**31 - 1)),
        ("grpc.max_send_message_length", -1),
        # Beyond 8 KiB of headers grpcio otherwise refuses calls at random, and the longest token alone has 16.
        ("grpc.max_metadata_size", 2 * MAX_TOKEN_LENGTH),
        # Each call that waits to be looked at holds up those behind it, whoever sends them. Beyond this many grpcio
        # answers by itself; without it, one that calls and cancels without end has all others' calls cancelled.
        ("grpc.max_concurrent_streams", settings.max_connection_calls),
        ("grpc.server.max_pending_requests", _PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _PENDING),
        # Of a call whose unit nobody reads yet, no more than this is taken; grpcio would take 4 MiB and more.
        ("grpc.http2.lookahead_bytes", 64 * 1024),
        ("grpc.http2.bdp_probe", 0),
        # Without this a second server on the port would share it in silence.
        ("grpc.so_reuseport", 0),
        # Deployed clients ping every 60 s, also while no call is under way.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        # A connection whose client does not read, or is gone, ends within a minute, and what is held for it with it.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 15_000),
        ("grpc.max_allowed_incoming_connections", _max_connections()),
    ]


def _max_connections() -> int:
    """As many as there are file descriptors for, but for some that the process needs itself."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2**31 - 1
    return most if limit == resource.RLIM_INFINITY else max(1, min(limit - _OWN_FILES, most))


def open_tls(settings: Settings) -> ServerTls | None:
    """The TLS that the settings ask for; None for plaintext.

    Raises:
        SettingsError: a file cannot be read or used, or the settings do not go together.
    """
    if violations := tls_violations(settings):
        raise SettingsError(violations)
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    # Imported only here: most processes have no certificate, and cryptography takes a while to load.
    from .tls import ServerTls

    return ServerTls(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def _bind(server: grpc.aio.Server, settings: Settings, tls: ServerTls | None) -> int:
    address = settings.listen_address
    if tls is None and not is_loopback(settings.listen_host):
        _LOG.warning(
            "%s is served in plaintext: who reads the network reads tokens and payloads, unless a proxy in front of it "
            "encrypts; set tls_cert_file and tls_key_file",
            address,
        )
    try:
        port = (
            server.add_insecure_port(address)
            if tls is None
            else server.add_secure_port(address, tls.grpc_credentials())
        )
    except RuntimeError:
        raise PortTakenError(
            address, "WORKER_PORT (or the host with WORKER_HOST)", "the address is taken or not ours"
        ) from None
    return port
