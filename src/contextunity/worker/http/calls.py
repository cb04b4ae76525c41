"""Calls over HTTP: Connect, gRPC-Web and JSON, for all methods that gRPC serves.

A call passes the same `Admission` as one over gRPC; for it, `_Exchange` takes the place of grpcio's context. Admission
authenticates before the body is read. Then connectrpc extracts the message, and the same handlers answer. connectrpc
passes bytes through; JSON is converted to protobuf bytes and back here.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, cast

import betterproto2
import grpc
from connectrpc.code import Code
from connectrpc.codec import Codec
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.interceptor import MetadataInterceptor
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.google.protobuf import Empty
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]  # there are none
from protobuf.wkt import Any as ConnectAny
from starlette.types import Message, Receive

from contextunity.core import codec
from contextunity.core.errors import CodecError

from ..admission import Admission
from ..grpc_errors import FieldViolation, Reason, ServiceError
from ..service import ContractMethod, Method, run_in_thread
from ..service.payloads import invalid_fields
from .admission import check_values

__all__ = ["Calls"]


_LARGE = 64 * 1024
"""Bytes from which JSON is converted in a thread."""
_APART, _BUSY = 0.005, 1.0
"""Seconds between the starts of HTTP calls while gRPC calls arrive, and shortly after the last one."""
_PREFIX = 5
"""Length of the prefix of each message in a stream."""
_SUFFIX = "-bin"


class _Raw(NamedTuple):
    """A received message.

    Attributes:
        data: its bytes.
        is_json: whether the bytes are JSON; otherwise they are protobuf.
    """

    data: bytes
    is_json: bool


class _Passing(Codec[bytes, _Raw]):
    """Passes bytes through; the handler decodes them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name

    def encode(self, message: bytes) -> bytes:
        return message

    def decode(self, data: bytes | bytearray, message_class: type[_Raw]) -> _Raw:
        return _Raw(bytes(data), self._name == "json")


_CODE = {
    grpc_code: Code[grpc_code.name.replace("CANCELLED", "CANCELED")]
    for grpc_code in grpc.StatusCode
    if grpc_code.name != "OK"
}


class _Form:
    """How to convert a method's messages to and from JSON, and the maximum number of values in them."""

    def __init__(self, method: Method, most: int) -> None:
        self._takes_unit, self._most = method.takes_unit, most
        self._input: type[betterproto2.Message] = ContextUnit
        self._output: type[betterproto2.Message] = ContextUnit
        if isinstance(method, ContractMethod):
            self._input = method.contract.input_type or Empty
            self._output = method.contract.output_type or Empty

    async def to_bytes(self, raw: _Raw) -> bytes:
        """Return the protobuf bytes of a received message.

        Raises:
            ServiceError: it is not a valid message; every violation is named.
        """
        if not raw.is_json:
            return raw.data
        return await _aside(self._read, raw.data)

    async def from_bytes(self, data: bytes, *, as_json: bool) -> bytes:
        """Convert a response to the caller's format."""
        return await _aside(self._write, data) if as_json else data

    def _read(self, data: bytes) -> bytes:
        check_values(data, self._most)
        try:
            return codec.encode(codec.from_json(self._input, data))
        except CodecError as error:
            if not self._takes_unit:
                raise invalid_fields("", error.violations) from None
            raise ServiceError(
                Reason.UNIT_UNREADABLE,
                f"the request is not a ContextUnit: {error.reason}",
                violations=[FieldViolation(field=each.path, description=each.reason) for each in error.violations],
            ) from None

    def _write(self, data: bytes) -> bytes:
        return codec.to_json(codec.decode(self._output, data)).encode()


async def _aside(function: Callable[[bytes], bytes], data: bytes) -> bytes:
    return function(data) if len(data) <= _LARGE else await run_in_thread(function, data)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Details:
    """What grpcio provides about a call before it is read."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]

    @property
    def rpc_system(self) -> str:
        """What traces call its protocol."""
        kind = dict(self.invocation_metadata).get("content-type", "")
        return "grpc" if isinstance(kind, str) and kind.startswith("application/grpc") else "connectrpc"


_END: Any = object()
_current = ContextVar["_Exchange"]("contextunity_http_exchange")


class _Exchange:
    """A call over HTTP, with the interface of grpcio's context that the gRPC handlers use.

    Args:
        form: how to convert its messages.
        details: its method and metadata.
        receive: ASGI's function that receives the body.
        pace: delays the reading.
        most: maximum bytes of the body.
    """

    def __init__(self, form: _Form, details: _Details, receive: Receive, pace: _Pace, most: int) -> None:
        self._form, self._details, self._receive, self._pace, self._most = form, details, receive, pace, most
        loop = asyncio.get_running_loop()
        self._deadline: float | None = None
        self.content_length = _content_length(details.invocation_metadata)
        """Bytes of the body, if the headers say so."""
        self.body: asyncio.Future[bytes] = loop.create_future()
        self.message: asyncio.Future[_Raw] = loop.create_future()
        self._headers, self._trailers = list[tuple[str, str]](), list[tuple[str, str]]()
        self.is_json = False
        self.answer: asyncio.Task[Any] | None = None
        self.rest: AsyncIterator[bytes] | None = None

    def begin(self, handler: Any) -> None:
        """Start the handler: it rejects the call or reads it."""
        if handler.stream_unary is not None:
            self.answer = asyncio.create_task(handler.stream_unary(None, self))
        else:
            self.rest = handler.stream_stream(None, self)
            self.answer = asyncio.create_task(anext(cast("Any", self.rest), _END))

    async def end(self) -> None:
        """Cancel everything that the call has running."""
        if self.answer is not None:
            self.answer.cancel()
            await asyncio.gather(self.answer, return_exceptions=True)
        if self.rest is not None:
            await cast("Any", self.rest).aclose()

    @property
    def refusal(self) -> ConnectError | None:
        """The error of a call that was rejected before it was read; None otherwise."""
        if self.answer is None or not self.answer.done() or self.body.done():
            return None
        error = self.answer.exception()
        return error if isinstance(error, ConnectError) else ConnectError(Code.INTERNAL, "the call was not read")

    def take(self, raw: _Raw, context: RequestContext[Any, Any]) -> None:
        """Set the message, which connectrpc found in the body."""
        if context.timeout_ms is not None:
            self._deadline = asyncio.get_running_loop().time() + context.timeout_ms / 1000
        self.is_json = raw.is_json
        if not self.message.done():
            self.message.set_result(raw)

    def tell_metadata(self, context: RequestContext[Any, Any]) -> None:
        """Copy the headers and trailers set since the last time to the response."""
        for kept, told in ((self._headers, context.response_headers), (self._trailers, context.response_trailers)):
            for key, value in kept:
                told.add(key, value)
            kept.clear()

    async def told(self, data: bytes) -> bytes:
        """A response in the caller's format."""
        return await self._form.from_bytes(data, as_json=self.is_json)

    # The following methods are those of grpcio's context that handlers use.

    async def read(self) -> bytes | object:
        """Wait for the caller's turn, and return the message."""
        # Only admitted calls get here; rejected ones have delays of their own.
        await self._pace.turn(next((value for key, value in self.invocation_metadata() if key == "authorization"), ""))
        parts, size = list[bytes](), 0
        more = True
        while more:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                return grpc.aio.EOF
            parts.append(event.get("body", b""))
            size += len(parts[-1])
            if size > self._most + _PREFIX:
                text = f"the message has more than {self._most:,} bytes; the service takes no more"
                raise ServiceError(Reason.UNIT_TOO_LARGE, f"{text} (CONTEXTWORKER_MAX_UNIT_BYTES)")
            more = event.get("more_body", False)
        self.body.set_result(b"".join(parts))
        return await self._form.to_bytes(await self.message)

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        if self._deadline is None:
            return None
        return max(0.001, self._deadline - asyncio.get_running_loop().time())

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return the metadata from the headers."""
        return self._details.invocation_metadata

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        """Set headers of the response."""
        self._headers += map(_entry, metadata)

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        """Set trailers of the response."""
        self._trailers = [_entry(each) for each in metadata]

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with an error."""
        ((_, packed),) = status.trailing_metadata
        raise _connect_error(status_pb2.Status.FromString(packed))


def _connect_error(status: Any) -> ConnectError:
    code = next(each for each in grpc.StatusCode if each.value[0] == status.code)
    details = [ErrorDetail(ConnectAny(type_url=each.type_url, value=each.value)) for each in status.details]
    return ConnectError(_CODE[code], status.message, details)


def _entry(entry: tuple[str, str | bytes]) -> tuple[str, str]:
    """Return a metadata entry as an HTTP header; bytes are base64."""
    key, value = entry
    return key, value if isinstance(value, str) else base64.b64encode(value).decode().rstrip("=")


def _metadata(headers: list[tuple[bytes, bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    """Return headers as metadata; names ending with -bin have bytes."""
    found = list[tuple[str, str | bytes]]()
    for key, value in headers:
        name, text = key.decode(), value.decode()
        if name.endswith(_SUFFIX) and name.startswith("contextunity-"):
            with contextlib.suppress(ValueError):
                found.append((name, base64.b64decode(text + "=" * (-len(text) % 4), validate=True)))
                continue
        found.append((name, text))
    return tuple(found)


def _content_length(metadata: tuple[tuple[str, str | bytes], ...]) -> int | None:
    """Return the length of a body from its headers; uvicorn enforces it. A compressed body becomes longer."""
    told = dict(metadata)
    text = told.get("content-length", "")
    is_plain = not told.keys() & {"content-encoding", "connect-content-encoding", "grpc-encoding"}
    return int(text) if is_plain and text.isdigit() else None


class _Pace:
    """Delays calls while gRPC calls arrive; callers take turns.

    A call over HTTP occupies the event loop twice as long as one over gRPC, so many of them would delay gRPC calls.

    Args:
        admission: knows when the last gRPC call arrived.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._lines = OrderedDict[str | bytes, deque[asyncio.Future[None]]]()
        self._next = 0.0

    async def turn(self, caller: str | bytes) -> None:
        """Wait until a call of a caller may start."""
        loop = asyncio.get_running_loop()
        if not self._lines and (not self._is_busy() or loop.time() >= self._next):
            self._next = loop.time() + _APART
            return
        if not self._lines:
            loop.call_at(self._next, self._begin_next, loop)
        turn: asyncio.Future[None] = loop.create_future()
        self._lines.setdefault(caller, deque()).append(turn)
        await turn

    def _begin_next(self, loop: asyncio.AbstractEventLoop) -> None:
        begun = False
        while self._lines and not begun:
            caller, line = self._lines.popitem(last=False)
            while line and not begun:
                turn = line.popleft()
                # A cancelled call is done already.
                begun = not turn.done()
                if begun:
                    turn.set_result(None)
            if line:
                self._lines[caller] = line
        self._next = loop.time() + (_APART if self._is_busy() else 0.0)
        if self._lines:
            loop.call_at(self._next, self._begin_next, loop)

    def _is_busy(self) -> bool:
        return time.monotonic() - self._admission.called_at < _BUSY


class _Refusals(MetadataInterceptor[None]):
    """Ends calls that were rejected by their headers, before connectrpc reads a body.

    It must derive from connectrpc's class: other objects with the same methods are silently ignored.
    """

    async def on_start(self, ctx: RequestContext[Any, Any]) -> None:
        exchange = _current.get()
        if exchange.refusal is not None:
            raise exchange.refusal

    async def on_end(self, token: None, ctx: RequestContext[Any, Any], error: Exception | None, /) -> None:
        return None


class Calls(ConnectASGIApplication[Any]):
    """The ASGI application: admits calls, and lets connectrpc handle the protocols.

    Args:
        admission: admits calls.
        most: maximum bytes of a message.
        values: maximum number of values in a JSON message.
    """

    def __init__(self, admission: Admission, most: int, values: int) -> None:
        self._admission, self._most, self._pace = admission, most, _Pace(admission)
        self._forms = {path: _Form(method, values) for path, method in admission.methods.items()}
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # of types that are not told
            service=None,
            endpoints=lambda _: {path: _endpoint(path, method) for path, method in admission.methods.items()},
            interceptors=[_Refusals()],
            read_max_bytes=most,
            codecs=[_Passing("proto"), _Passing("json")],
        )

    @property
    def path(self) -> str:
        """The path where it is mounted."""
        return "/"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request."""
        form = self._forms.get(scope["path"])
        if form is None or scope["method"] != "POST":
            await self._speak(scope, receive, send)
            return
        details = _Details(method=scope["path"], invocation_metadata=_metadata(scope["headers"]))
        exchange = _Exchange(form, details, receive, self._pace, self._most)
        _current.set(exchange)
        exchange.begin(self._admission.admit(details))
        assert exchange.answer is not None
        try:
            await asyncio.wait({exchange.answer, exchange.body}, return_when=asyncio.FIRST_COMPLETED)
            await self._speak(scope, _replaying(exchange, receive), send)
        finally:
            await exchange.end()

    async def _speak(self, scope: Any, receive: Any, send: Any) -> None:
        """Let connectrpc answer."""
        await super().__call__(scope, receive, send)  # pyright: ignore[reportUnknownMemberType]  # as above


def _replaying(exchange: _Exchange, receive: Receive) -> Receive:
    """Return the body that was read, and then the disconnect message."""
    pending: list[Message] = [
        {"type": "http.request", "body": exchange.body.result() if exchange.body.done() else b"", "more_body": False}
    ]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _endpoint(path: str, method: Method) -> Any:
    service, _, name = path.removeprefix("/").rpartition("/")
    is_stream = method.watch is not None
    info: MethodInfo[Any, Any] = MethodInfo(
        name=name,
        service_name=service,
        input=_Raw,
        output=bytes,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.SERVER_STREAM if is_stream else StreamType.UNARY,
    )
    return Endpoint.server_stream(info, _stream) if is_stream else Endpoint.unary(info, _unary)


async def _unary(raw: _Raw, context: RequestContext[Any, Any]) -> bytes:
    exchange = _exchange(raw, context)
    assert exchange.answer is not None
    try:
        return await exchange.told(await exchange.answer)
    finally:
        exchange.tell_metadata(context)


async def _stream(raw: _Raw, context: RequestContext[Any, Any]) -> AsyncIterator[bytes]:
    exchange = _exchange(raw, context)
    assert exchange.answer is not None
    try:
        first = await exchange.answer
        assert exchange.rest is not None
        exchange.tell_metadata(context)
        if first is not _END:
            yield await exchange.told(first)
            async for data in exchange.rest:
                yield await exchange.told(data)
    finally:
        exchange.tell_metadata(context)


def _exchange(raw: _Raw, context: RequestContext[Any, Any]) -> _Exchange:
    exchange = _current.get()
    if exchange.refusal is not None:
        raise exchange.refusal
    exchange.take(raw, context)
    return exchange
