"""Between grpcio and the service: decode units, encode responses, convert errors to statuses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, NoReturn, cast

import grpc
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.core.context_unit_pb2 import ContextUnit as UnitMessage
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from contextunity.core import codec, worker_pb2
from contextunity.core.errors import CodecError

from . import tracing
from .admission import Refused
from .auth import EVERYBODY, Authenticator, Caller, identify, refusal_of
from .errors import AuthenticationError
from .fair_gate import Turn
from .grpc_errors import FieldViolation, Reason, ServiceError, to_status
from .logs import current_call
from .observed_calls import begin_span
from .rejected_calls import trace_id_of
from .service import Call, ContractCall, ContractMethod, Method, WorkerService, respond, run_in_thread, stream
from .service import contract_methods as contracts
from .temporal.errors import PayloadStorageError, PayloadTooLargeError, UnreadablePayloadError

__all__ = ["SERVICE_NAME", "Boundary", "read_unit"]

_LOG = logging.getLogger(__name__)

SERVICE_NAME = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
"""Full name of the service, as clients and health checks call it."""

_LARGE = 64 * 1024
"""Bytes from which a unit is decoded in a thread: many small values in a Struct take up to a tenth of a second per
megabyte."""
_FOR_EVER = 10 * 365 * 86400.0
"""A deadline further away than these seconds counts as none."""

_Context = grpc.aio.ServicerContext[bytes, bytes]


class Boundary:
    """Between grpcio and the service: authentication, decoding and encoding, errors to statuses.

    The handlers have no grpcio (de)serializers, because errors that those raise would end as INTERNAL.

    Args:
        service: the service.
        authenticator: authenticates callers.
        max_unit_bytes: maximum size of a received or sent unit.
        max_payload_values: maximum number of values in a payload or body.
    """

    def __init__(
        self, service: WorkerService, authenticator: Authenticator, *, max_unit_bytes: int, max_payload_values: int
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._max_unit_bytes = max_unit_bytes
        self._max_payload_values = max_payload_values

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the handlers of all methods, for grpcio's server."""
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                name: grpc.unary_stream_rpc_method_handler(self._stream(method))
                if method.watch is not None
                else grpc.unary_unary_rpc_method_handler(self._unary(method))
                for name, method in self._service.methods.items()
            },
        )

    def _unary(self, method: Method) -> Callable[[bytes, _Context], Awaitable[bytes]]:
        async def handle(data: bytes, context: _Context) -> bytes:
            return cast("bytes", await self.answer(method, data, context))

        return handle

    def _stream(self, method: Method) -> Callable[[bytes, _Context], AsyncIterator[bytes]]:
        def handle(data: bytes, context: _Context) -> AsyncIterator[bytes]:
            return self.answers(method, data, context)

        return handle

    async def answer(
        self,
        method: Method,
        data: bytes,
        context: _Context,
        caller: Caller | None = None,
        turn: Turn | None = None,
        release: Callable[[], None] | None = None,
    ) -> bytes | Refused:
        """Answer a call with the bytes of a unit, or of a contract's own message.

        Without `caller`, it is authenticated by the metadata.
        """
        call: Call | None = None
        size = len(data)
        try:
            if isinstance(method, ContractMethod):
                call = await self._contract_call(method, data, context, caller, turn, release)
                # A call that lasts long must not keep what it no longer needs.
                data = b""
                answer = self._check_size(await method.answer(call))
            else:
                call = await self._decode_call(data, context, caller, turn)
                answer = self._encode(await respond(method, call))
        # Whatever happens, the caller gets a status, and the log the details.
        except Exception as error:  # noqa: BLE001
            status, reason = self._told(error, method, data, call, caller)
            if turn is None or not (reason is Reason.QUOTA or size > _LARGE):
                await _abort(status, context)
            return Refused(status, size)
        except asyncio.CancelledError:
            # Requests already sent to Temporal may or may not have had an effect; the task's status shows it.
            _record(method, caller or EVERYBODY, call, "CANCELLED")
            raise
        _record(method, call.caller, call)
        return answer

    async def answers(
        self, method: Method, data: bytes, context: _Context, caller: Caller | None = None
    ) -> AsyncIterator[bytes]:
        """Answer a call with the bytes of several units."""
        call: Call | None = None
        try:
            call = await self._decode_call(data, context, caller)
            async with contextlib.aclosing(stream(method, call)) as units:
                async for unit in units:
                    yield self._encode(unit)
        except Exception as error:  # noqa: BLE001 - as above
            status, _ = self._told(error, method, data, call)
            await _abort(status, context)

    async def _decode_call(
        self, data: bytes, context: _Context, caller: Caller | None, turn: Turn | None = None
    ) -> Call:
        if caller is None:
            # Authenticate first: unauthenticated callers must not make us decode units.
            caller = await identify(self._authenticator, _Metadata(context))
        self._check_received(data)
        deadline = _deadline(context)
        is_large = len(data) > _LARGE
        if is_large:
            unit, payload = await run_in_thread(read_unit, data, max_values=self._max_payload_values)
        else:
            unit, payload = read_unit(data, max_values=self._max_payload_values)
        call = Call(unit=unit, payload=payload, caller=caller, deadline=deadline, is_large=is_large, turn=turn)
        current_call.set(call)
        if tracing.active is not None:
            begin_span(context, call)
        return call

    async def _contract_call(
        self,
        method: ContractMethod,
        data: bytes,
        context: _Context,
        caller: Caller | None,
        turn: Turn | None,
        release: Callable[[], None] | None,
    ) -> ContractCall:
        if caller is None:
            caller = await identify(self._authenticator, _Metadata(context))
        self._check_received(data)
        options = contracts.read_options(method, _Metadata(context))
        input_type, most = method.contract.input_type, self._max_payload_values
        if input_type is not None and len(data) > _SMALLEST * most:
            await run_in_thread(_check_values_of, data, input_type, most)

        async def announce(ids: Mapping[str, str | bytes]) -> None:
            await context.send_initial_metadata(tuple(ids.items()))

        call = ContractCall(
            unit=contracts.empty_unit(options),
            caller=caller,
            deadline=_deadline(context),
            is_large=len(data) > _LARGE,
            turn=turn,
            release=release,
            message=data,
            options=options,
            announce=announce,
        )
        current_call.set(call)
        if tracing.active is not None:
            begin_span(context, call)
        return call

    def _check_received(self, data: bytes) -> None:
        if len(data) > self._max_unit_bytes:
            raise ServiceError(
                Reason.UNIT_TOO_LARGE,
                f"the unit has {len(data):,} bytes; the service takes up to {self._max_unit_bytes:,} "
                "(CONTEXTWORKER_MAX_UNIT_BYTES)",
            )

    def _encode(self, unit: UnitMessage) -> bytes:
        return self._check_size(unit.SerializeToString())

    def _check_size(self, data: bytes) -> bytes:
        if len(data) > self._max_unit_bytes:
            raise ServiceError(
                Reason.UNIT_TOO_LARGE,
                f"the answer has {len(data):,} bytes; the service sends up to {self._max_unit_bytes:,} "
                "(CONTEXTWORKER_MAX_UNIT_BYTES)",
            )
        return data

    def _told(
        self, error: Exception, method: Method, data: bytes, call: Call | None, caller: Caller | None = None
    ) -> tuple[Any, Reason]:
        """Return the status of an error for grpcio, and its reason."""
        trace_id = call.trace_id if call is not None else trace_id_of(data) if method.takes_unit else ""
        service_error = _service_error(error, method, trace_id)
        if isinstance(method, ContractMethod):
            service_error = contracts.in_own_names(method, service_error)
        if caller is not None:
            _record(method, caller, call, service_error)
        _forget_frames(error)
        status = to_status(service_error, trace_id)
        return rpc_status.to_status(status), service_error.reason  # pyright: ignore[reportUnknownMemberType]  # no types


def _record(method: Method, caller: Caller, call: Call | None, error: ServiceError | str | None = None) -> None:
    """Write the audit line of a call; a call that waits for its task has it since the task started."""
    if not (isinstance(call, ContractCall) and call.is_recorded):
        method.record(caller, call, error)


def _deadline(context: _Context) -> float | None:
    """Return the caller's deadline in the event loop's time; None without one."""
    # Without a deadline grpcio returns a far future or None; its stubs know neither.
    remaining = cast("float | None", context.time_remaining()) or _FOR_EVER
    return asyncio.get_running_loop().time() + remaining if remaining < _FOR_EVER else None


async def _abort(status: Any, context: _Context) -> NoReturn:
    await context.abort_with_status(status)
    raise AssertionError("abort_with_status raises")


def _service_error(error: Exception, method: Method, trace_id: str) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, PayloadTooLargeError):
        return ServiceError(Reason.UNIT_TOO_LARGE, error.message)
    if isinstance(error, UnreadablePayloadError):
        return ServiceError(Reason.PAYLOAD_UNREADABLE, str(error))
    if isinstance(error, PayloadStorageError):
        _LOG.error("%s: %s", method.name, error)
        return ServiceError(Reason.PAYLOAD_STORAGE_UNAVAILABLE, str(error))
    if isinstance(error, AuthenticationError):
        return refusal_of(error)
    _LOG.error("%s failed, trace_id %s", method.name, trace_id, exc_info=error)
    if tracing.active is not None:
        tracing.active.record(error)
    return ServiceError(Reason.INTERNAL, f"{method.name} failed; the service's log has it under the trace_id")


def _forget_frames(error: BaseException | None) -> None:
    """Release what a rejected call held: grpcio keeps the error, and through its frames all their variables."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


class _Metadata:
    """Metadata of a call, created on access, because grpcio creates objects for it."""

    __slots__ = ("_context",)

    def __init__(self, context: _Context) -> None:
        self._context = context

    def __iter__(self) -> Iterator[tuple[str, str | bytes]]:
        return iter(self._context.invocation_metadata() or ())


_SMALLEST = 2
"""Minimum bytes of a value: a tag and a length."""


def read_unit(data: bytes, *, max_values: int) -> tuple[ContextUnit, dict[str, Any] | None]:
    """Return the unit, and its payload as plain data if it could be decoded separately; otherwise the unit contains it.

    Args:
        data: bytes of the unit.
        max_values: maximum number of values in its payload, and in its body.

    Raises:
        ServiceError: the bytes are not a unit, or it has too many values.
    """
    apart = codec.decode_apart(ContextUnit, data, "payload")
    if len(data) > _SMALLEST * max_values:
        _check_values(data, apart, max_values)
    if apart is not None:
        return apart
    try:
        return codec.decode(ContextUnit, data), None
    except CodecError as error:
        raise ServiceError(
            Reason.UNIT_UNREADABLE,
            f"the request is not a ContextUnit: {error.reason}",
            violations=[FieldViolation(field=error.path, description=error.reason)],
        ) from None


def _check_values(data: bytes, apart: tuple[ContextUnit, dict[str, Any]] | None, most: int) -> None:
    """Reject a payload or body with too many values.

    Values are counted in plain data if it was decoded already, otherwise in Google's messages, which take some tens of
    bytes per value; a dataclass takes a thousand.
    """
    body: Any
    try:
        if apart is not None:
            unit, payload = apart
            count, body = _in_plain(payload, most), unit.body
        else:
            message = UnitMessage.FromString(data)
            count, body = _in_messages(message.payload, most), message.body
        if count > most:
            raise _too_many("payload", most)
        if body is not None and body.value:
            inner = codec.proto_class(codec.message_class(body.type_url.rpartition("/")[2]))
            if _in_messages(inner.FromString(body.value), most) > most:
                raise _too_many("body", most)
    except (DecodeError, CodecError):
        # The handler that decodes it reports what is wrong.
        return


def _check_values_of(data: bytes, message_class: type[Any], most: int) -> None:
    """Reject a contract's message with too many values."""
    try:
        if _in_messages(codec.proto_class(message_class).FromString(data), most) > most:
            raise _too_many("message", most)
    except DecodeError:
        # The handler that decodes it reports what is wrong.
        return


def _in_plain(content: dict[str, Any], most: int) -> int:
    """Count values in plain data, including objects and lists; stop counting beyond `most`."""
    pending: list[Any] = [content]
    count = 0
    while pending and count <= most:
        each = pending.pop()
        inside = cast("Collection[Any]", each.values() if isinstance(each, dict) else each)
        count += len(inside)
        pending += [value for value in inside if isinstance(value, dict | list)]
    return count


def _in_messages(message: Message, most: int) -> int:
    """Count values in a message: the entries of its lists and maps, at any depth."""
    pending = [message]
    count = 0
    while pending and count <= most:
        for field, value in codec.list_fields(pending.pop()):
            inside: Collection[Any] = (value,)
            if field.is_repeated:
                inside = value.values() if hasattr(value, "values") else value
                count += len(inside)
                if count > most:
                    break
            pending += [each for each in inside if isinstance(each, Message)]
    return count


def _too_many(where: str, most: int) -> ServiceError:
    return ServiceError(
        Reason.UNIT_TOO_LARGE,
        f"the {where} holds more than {most:,} values, objects and lists included, and the service takes no more "
        "(CONTEXTWORKER_MAX_PAYLOAD_VALUES); hand over where they lie instead",
    )
