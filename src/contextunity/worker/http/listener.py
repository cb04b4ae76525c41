"""The HTTP listener: another port of the process that serves gRPC, in its event loop, with uvicorn and Starlette."""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
import socket
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from contextunity.core.tokens import MAX_TOKEN_LENGTH

from ..admission import Admission
from ..auth import Authenticator
from ..errors import PortTakenError
from ..readiness import Readiness
from ..service import WorkerService
from ..settings import Settings, is_loopback
from .admission import RequestAdmission
from .calls import Calls
from .openapi import openapi_routes
from .payload_codec import codec_routes

if TYPE_CHECKING:
    from ..tls import ServerTls

__all__ = ["Server", "application", "listen", "running_http"]

_LAST_WORD = 1
"""Seconds after the grace period in which calls are told that the service stops."""
_IDLE = 10.0
"""Seconds between checks of a connection; one without a request between two checks is closed."""
_SLOW_READER = 60.0
"""Seconds in which a client must read what it is sent; otherwise its connection is closed, and its memory freed."""
_BACKLOG = 2048
"""Connections that wait to be accepted."""
_SKIPPED, _SKIPPED_IN = 64 * 1024, 1.0
"""Bytes of a rejected request's body that are read, and the seconds that they may take."""
_CONNECTIONS = 1000
"""Maximum connections; fewer if the process may open few files."""
_HEADERS = (
    *("authorization", "content-type", "content-encoding", "accept-encoding", "x-namespace"),
    *("connect-protocol-version", "connect-timeout-ms", "connect-content-encoding", "connect-accept-encoding"),
    *("grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "x-grpc-web", "x-user-agent"),
    *("contextunity-workflow-id", "contextunity-workflow-id-bin", "contextunity-run-id", "contextunity-request-id"),
    *("contextunity-tenant", "contextunity-detach", "contextunity-on-cancel"),
)
"""Headers that pages of allowed origins may send."""
_EXPOSED = (
    *("grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding", "connect-content-encoding"),
    *("contextunity-workflow-id", "contextunity-workflow-id-bin", "contextunity-run-id"),
)
"""Headers of responses that they may read."""


@contextlib.asynccontextmanager
async def running_http(
    service: WorkerService,
    admission: Admission,
    authenticator: Authenticator,
    settings: Settings,
    listening: socket.socket,
    tls: ServerTls | None = None,
    readiness: Readiness | None = None,
) -> AsyncGenerator[int, None]:
    """Serve while the context is open; yield the port.

    Args:
        service: the service.
        admission: admits calls, shared with the gRPC listener.
        authenticator: authenticates requests that are not calls.
        settings: settings of the process, such as the allowed origins.
        listening: a socket from `listen`, closed at the end.
        tls: TLS of the connections; plaintext if not given.
        readiness: what `/readyz` reports; always ready if not given.
    """
    port: int = listening.getsockname()[1]
    server = Server(
        uvicorn.Config(
            application(service, admission, authenticator, settings, readiness),
            loop="none",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=_max_connections(),
            backlog=_BACKLOG,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_grace) + _LAST_WORD,
            h11_max_incomplete_event_size=2 * MAX_TOKEN_LENGTH,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls.ssl_context(),
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    try:
        await server.ready.wait()
        yield port
    finally:
        server.should_exit = True
        await serving


def application(
    service: WorkerService,
    admission: Admission,
    authenticator: Authenticator,
    settings: Settings,
    readiness: Readiness | None = None,
) -> Starlette:
    """Return the application with all routes."""
    request_admission = RequestAdmission(authenticator, settings)

    async def livez(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> PlainTextResponse:
        ready = readiness is None or readiness.is_ready
        return PlainTextResponse("ready\n") if ready else PlainTextResponse("not ready\n", status_code=503)

    probes = [Route("/livez", livez), Route("/readyz", readyz)]
    routes = [*probes, *openapi_routes(service, request_admission), *codec_routes(service.client, request_admission)]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.http_origins,
        allow_methods=("GET", "POST"),
        allow_headers=_HEADERS,
        expose_headers=_EXPOSED,
        max_age=7200,
    )
    only_this_machine = settings.auth == "none" and is_loopback(settings.listen_host)
    guard = Middleware(_Guard, only_this_machine=only_this_machine, readiness=readiness)
    calls = Calls(admission, settings.max_unit_bytes, settings.max_payload_values)
    return Starlette(routes=[*routes, Mount("/", calls)], middleware=[guard, cors])


def listen(host: str, port: int) -> socket.socket:
    """Bind a port now: nobody else can take it from then on, but no request is answered yet.

    Args:
        host: the address.
        port: the port; 0 takes a free one.

    Raises:
        PortTakenError: the address cannot be listened on.
    """
    bare = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((bare, port))
        # Two sockets can be bound to one port until one of them listens.
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        reason = (error.strerror or str(error)).lower()
        raise PortTakenError(f"{host}:{port}", "WORKER_HTTP_PORT (or the host with WORKER_HOST)", reason) from None
    return listening


def _max_connections() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS if limit == resource.RLIM_INFINITY else max(1, min(_CONNECTIONS, limit // 4))


class Server(uvicorn.Server):
    """uvicorn's server as a part of a process: the process handles signals, and the server reports when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, and report it."""
        await super().startup(sockets=sockets)
        self.ready.set()


class _Protocol(H11Protocol):
    """uvicorn's protocol, which never times out while it waits for the headers of a request; this one does."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(_IDLE, self._look, None)

    def _look(self, before: Any) -> None:
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle
        if (cycle is None or cycle.response_complete) and cycle is before:
            self.transport.close()
            return
        self.loop.call_later(_IDLE, self._look, cycle)


class _Guard:
    """Rejects requests that none of our clients sends, before anything else is done.

    Args:
        app: the application.
        only_this_machine: whether only this machine can connect, without tokens. A web page could then make a browser
            call by a host name of its own that resolves to this address, so only names of this machine are accepted.
        readiness: readiness of the process; once it stops, each response is the last on its connection.
    """

    def __init__(self, app: Any, *, only_this_machine: bool, readiness: Readiness | None) -> None:
        self._app, self._only_this_machine, self._readiness = app, only_this_machine, readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        headers = dict(scope["headers"])
        if not all(key.isascii() and _is_text(value) for key, value in scope["headers"]):
            await _answer(receive, send, 400, "a header is not UTF-8")
            return
        host = headers.get(b"host", b"").decode().rpartition("]")[0] or headers.get(b"host", b"").decode().split(":")[0]
        if self._only_this_machine and not is_loopback(host or "localhost"):
            await _answer(
                receive, send, 421, f"callers are not asked who they are, so {host} is not served; call localhost"
            )
            return
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind == b"application/grpc" or kind.startswith(b"application/grpc+"):
            await _answer(
                receive, send, 415, "gRPC is served on the port of WORKER_PORT; this one takes Connect and gRPC-Web"
            )
            return

        async def send_in_time(message: Message) -> None:
            if message["type"] == "http.response.start" and self._readiness is not None and self._readiness.is_stopping:
                # The caller connects again, and a load balancer sends it elsewhere.
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            async with asyncio.timeout(_SLOW_READER):
                await send(message)

        await self._app(scope, receive, send_in_time)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


async def _answer(receive: Receive, send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await _skip_body(receive)
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})


async def _skip_body(receive: Receive) -> None:
    """Read a small body before the connection is closed: later data would reset it, and the response could be lost."""
    left = _SKIPPED
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SKIPPED_IN):
            while left > 0:
                message = await receive()
                if not message.get("more_body"):
                    return
                left -= len(message["body"])
