"""Calls over HTTP: Connect, gRPC-Web and JSON for all that gRPC serves.

A call passes the same `Admission` as one over gRPC: for that, `_Exchange` is to it what grpcio's context is. Admission
has the body read, so that nothing is read of strangers; then connectrpc takes the message out of it, and the same
handlers answer. connectrpc passes bytes on: what is JSON becomes bytes of protobuf here, and they become JSON.
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
"""Bytes from which on JSON is read and written aside from the event loop."""
_APART, _BUSY = 0.005, 1.0
"""Seconds between the beginnings of calls while others come over gRPC, and after their last."""
_PREFIX = 5
"""Bytes before each message of a stream."""
_SUFFIX = "-bin"


class _Raw(NamedTuple):
    """A message as it came.

    Attributes:
        data: its bytes.
        is_json: whether they are JSON; else they are those of protobuf.
    """

    data: bytes
    is_json: bool


class _Passing(Codec[bytes, _Raw]):
    """Passes bytes on: whether and how they are read is for those who answer."""

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
    """How the messages of a method are told in JSON, and how many values those may hold."""

    def __init__(self, method: Method, most: int) -> None:
        self._takes_unit, self._most = method.takes_unit, most
        self._input: type[betterproto2.Message] = ContextUnit
        self._output: type[betterproto2.Message] = ContextUnit
        if isinstance(method, ContractMethod):
            self._input = method.contract.input_type or Empty
            self._output = method.contract.output_type or Empty

    async def to_bytes(self, raw: _Raw) -> bytes:
        """The bytes of what came.

        Raises:
            ServiceError: it is not such a message; every violation is named.
        """
        if not raw.is_json:
            return raw.data
        return await _aside(self._read, raw.data)

    async def from_bytes(self, data: bytes, *, as_json: bool) -> bytes:
        """An answer in the caller's form."""
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
    """What grpcio tells of a call before it is read."""

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
    """A call over HTTP, which handlers of gRPC take for one of theirs.

    Args:
        form: of its messages.
        details: its method and metadata.
        receive: gives the body.
        pace: says when it may be read.
        most: bytes of the largest body.
    """

    def __init__(self, form: _Form, details: _Details, receive: Receive, pace: _Pace, most: int) -> None:
        self._form, self._details, self._receive, self._pace, self._most = form, details, receive, pace, most
        loop = asyncio.get_running_loop()
        self._deadline: float | None = None
        self.content_length = _content_length(details.invocation_metadata)
        """Bytes of the body, where the headers tell."""
        self.body: asyncio.Future[bytes] = loop.create_future()
        self.message: asyncio.Future[_Raw] = loop.create_future()
        self._headers, self._trailers = list[tuple[str, str]](), list[tuple[str, str]]()
        self.is_json = False
        self.answer: asyncio.Task[Any] | None = None
        self.rest: AsyncIterator[bytes] | None = None

    def begin(self, handler: Any) -> None:
        """Has a handler begin: it refuses the call, or reads it."""
        if handler.stream_unary is not None:
            self.answer = asyncio.create_task(handler.stream_unary(None, self))
        else:
            self.rest = handler.stream_stream(None, self)
            self.answer = asyncio.create_task(anext(cast("Any", self.rest), _END))

    async def end(self) -> None:
        """Ends what the call has under way."""
        if self.answer is not None:
            self.answer.cancel()
            await asyncio.gather(self.answer, return_exceptions=True)
        if self.rest is not None:
            await cast("Any", self.rest).aclose()

    @property
    def refusal(self) -> ConnectError | None:
        """What the call was refused with before it was read; None where it was not."""
        if self.answer is None or not self.answer.done() or self.body.done():
            return None
        error = self.answer.exception()
        return error if isinstance(error, ConnectError) else ConnectError(Code.INTERNAL, "the call was not read")

    def take(self, raw: _Raw, context: RequestContext[Any, Any]) -> None:
        """Takes the message, now that connectrpc has found it in the body."""
        if context.timeout_ms is not None:
            self._deadline = asyncio.get_running_loop().time() + context.timeout_ms / 1000
        self.is_json = raw.is_json
        if not self.message.done():
            self.message.set_result(raw)

    def tell_metadata(self, context: RequestContext[Any, Any]) -> None:
        """Hands on what was kept for headers and trailers since the last time."""
        for kept, told in ((self._headers, context.response_headers), (self._trailers, context.response_trailers)):
            for key, value in kept:
                told.add(key, value)
            kept.clear()

    async def told(self, data: bytes) -> bytes:
        """An answer as the caller takes it."""
        return await self._form.from_bytes(data, as_json=self.is_json)

    # What follows is what handlers ask of grpcio's context.

    async def read(self) -> bytes | object:
        """Reads the message, when it is the caller's turn."""
        # Only those that were let in come here; the others end at a pace of their own.
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
        """Seconds that the caller still waits; None where it has no deadline."""
        if self._deadline is None:
            return None
        return max(0.001, self._deadline - asyncio.get_running_loop().time())

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What came in headers."""
        return self._details.invocation_metadata

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        """Keeps what goes into the headers of the answer."""
        self._headers += map(_entry, metadata)

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        """Keeps what goes into its trailers."""
        self._trailers = [_entry(each) for each in metadata]

    async def abort_with_status(self, status: Any) -> NoReturn:
        """Ends the call with an error."""
        ((_, packed),) = status.trailing_metadata
        raise _connect_error(status_pb2.Status.FromString(packed))


def _connect_error(status: Any) -> ConnectError:
    code = next(each for each in grpc.StatusCode if each.value[0] == status.code)
    details = [ErrorDetail(ConnectAny(type_url=each.type_url, value=each.value)) for each in status.details]
    return ConnectError(_CODE[code], status.message, details)


def _entry(entry: tuple[str, str | bytes]) -> tuple[str, str]:
    """An entry of metadata as HTTP has it: bytes are written in base64."""
    key, value = entry
    return key, value if isinstance(value, str) else base64.b64encode(value).decode().rstrip("=")


def _metadata(headers: list[tuple[bytes, bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    """Headers as metadata: those whose names say so hold bytes."""
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
    """How long a body is; the server holds callers to it. What is compressed becomes longer."""
    told = dict(metadata)
    text = told.get("content-length", "")
    is_plain = not told.keys() & {"content-encoding", "connect-content-encoding", "grpc-encoding"}
    return int(text) if is_plain and text.isdigit() else None


class _Pace:
    """Has calls begin a while apart while others come over gRPC, those of each caller in turn.

    A call over HTTP takes the event loop twice as long as one over gRPC; many of them would have those wait.

    Args:
        admission: tells when the last call came over gRPC.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._lines = OrderedDict[str | bytes, deque[asyncio.Future[None]]]()
        self._next = 0.0

    async def turn(self, caller: str | bytes) -> None:
        """Waits until a call of a caller may begin."""
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
                # One that was given up is cancelled.
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
    """Ends calls that were refused by their headers, before connectrpc looks at a body.

    It derives from connectrpc's class: what only looks like one is passed over in silence.
    """

    async def on_start(self, ctx: RequestContext[Any, Any]) -> None:
        exchange = _current.get()
        if exchange.refusal is not None:
            raise exchange.refusal

    async def on_end(self, token: None, ctx: RequestContext[Any, Any], error: Exception | None, /) -> None:
        return None


class Calls(ConnectASGIApplication[Any]):
    """The calls: lets them in, and has connectrpc speak its protocols.

    Args:
        admission: lets calls in.
        most: bytes of the largest message.
        values: that the JSON of a message may hold.
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
        """Where it is mounted."""
        return "/"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a call."""
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
        """Has connectrpc answer."""
        await super().__call__(scope, receive, send)  # pyright: ignore[reportUnknownMemberType]  # as above


def _replaying(exchange: _Exchange, receive: Receive) -> Receive:
    """Gives the body that was read, and then what comes after it: that the caller is gone."""
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
