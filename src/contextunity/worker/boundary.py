"""Between grpcio and the service: bytes to units and back, errors to statuses."""

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
from .auth import EVERYBODY, Authenticator, Caller
from .errors import AuthenticationError
from .fair_gate import Turn
from .grpc_errors import FieldViolation, Reason, ServiceError, to_status
from .logs import current_call
from .observed_calls import begin_span
from .rejected_calls import trace_id_of
from .service import Call, ContractCall, ContractMethod, Method, WorkerService, respond, run_in_thread, stream
from .service import contract_methods as contracts
from .temporal.errors import PayloadTooLargeError

__all__ = ["SERVICE_NAME", "Boundary", "read_unit"]

_LOG = logging.getLogger(__name__)

SERVICE_NAME = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
"""Full name of the service, as clients and health checks call it."""

_LARGE = 64 * 1024
"""Bytes from which on a unit is read aside from the event loop: what becomes of small values in a Struct takes up to a
tenth of a second a megabyte."""
_FOR_EVER = 10 * 365 * 86400.0
"""Seconds beyond which a deadline is none."""

_Context = grpc.aio.ServicerContext[bytes, bytes]


class Boundary:
    """Between grpcio and the service: who calls, bytes to units and back, errors to statuses.

    The handlers come without grpcio's (de)serialisers: what those raise would end as INTERNAL.

    Args:
        service: answers the calls.
        authenticator: tells who calls.
        max_unit_bytes: size of the largest unit taken or sent.
        max_payload_values: values that the payload or body of a unit may hold.
    """

    def __init__(
        self, service: WorkerService, authenticator: Authenticator, *, max_unit_bytes: int, max_payload_values: int
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._max_unit_bytes = max_unit_bytes
        self._max_payload_values = max_payload_values

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers of all methods, for grpcio's server."""
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
        """Answers a call with the bytes of a unit, or of a contract's own message.

        The metadata is asked for the caller where none is given.
        """
        call: Call | None = None
        size = len(data)
        try:
            if isinstance(method, ContractMethod):
                call = await self._contract_call(method, data, context, caller, turn, release)
                # What lasts is not to hold what it does not need.
                data = b""
                answer = self._check_size(await method.answer(call))
            else:
                call = await self._decode_call(data, context, caller, turn)
                answer = self._encode(await respond(method, call))
        # The boundary: whatever it is, the caller gets a status, and the log the rest.
        except Exception as error:  # noqa: BLE001
            status, reason = self._told(error, method, data, call, caller)
            if turn is None or not (reason is Reason.QUOTA or size > _LARGE):
                await _abort(status, context)
            return Refused(status, size)
        except asyncio.CancelledError:
            # What was asked of Temporal by then is done or not; whether is for the task to tell.
            _record(method, caller or EVERYBODY, call, "CANCELLED")
            raise
        _record(method, call.caller, call)
        return answer

    async def answers(
        self, method: Method, data: bytes, context: _Context, caller: Caller | None = None
    ) -> AsyncIterator[bytes]:
        """The same with the bytes of several units."""
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
            # Authenticate first: strangers are not to have units of any size decoded.
            caller = self._authenticator.authenticate(_Metadata(context))
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
            caller = self._authenticator.authenticate(_Metadata(context))
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
        """What the caller is told of an error, as grpcio takes it, and why."""
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
    """Writes the line of a call in the audit log; of one that waits for its task, that was when the task began."""
    if not (isinstance(call, ContractCall) and call.is_recorded):
        method.record(caller, call, error)


def _deadline(context: _Context) -> float | None:
    """When the caller stops waiting, in the event loop's time; None where it does not."""
    # Without a deadline grpcio tells a far future, or None; its stubs know neither.
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
    if isinstance(error, AuthenticationError):
        return ServiceError(Reason.TOKEN_REFUSED, str(error), metadata={"fault": error.reason})
    _LOG.error("%s failed, trace_id %s", method.name, trace_id, exc_info=error)
    if tracing.active is not None:
        tracing.active.record(error)
    return ServiceError(Reason.INTERNAL, f"{method.name} failed; the service's log has it under the trace_id")


def _forget_frames(error: BaseException | None) -> None:
    """Lets go of what a refused call had in hand: grpcio keeps the error, and with it all variables on its way."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


class _Metadata:
    """The metadata of a call, made when it is looked at: grpcio makes objects of it."""

    __slots__ = ("_context",)

    def __init__(self, context: _Context) -> None:
        self._context = context

    def __iter__(self) -> Iterator[tuple[str, str | bytes]]:
        return iter(self._context.invocation_metadata() or ())


_SMALLEST = 2
"""Bytes that a value takes at least: a tag and a length."""


def read_unit(data: bytes, *, max_values: int) -> tuple[ContextUnit, dict[str, Any] | None]:
    """The unit, and its payload where that could be read apart from it; else the unit has it still.

    Args:
        data: bytes of the unit.
        max_values: values that its payload, and its body, may hold.

    Raises:
        ServiceError: the bytes are no unit, or it holds more values.
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
    """Refuses a payload or body with more values.

    They are counted in what was read already, else in Google's messages, of which each takes some tens of bytes where a
    dataclass takes a thousand.
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
        # Whoever reads it tells what is wrong with it.
        return


def _check_values_of(data: bytes, message_class: type[Any], most: int) -> None:
    """Refuses the message of a contract with more values."""
    try:
        if _in_messages(codec.proto_class(message_class).FromString(data), most) > most:
            raise _too_many("message", most)
    except DecodeError:
        # Whoever reads it tells what is wrong with it.
        return


def _in_plain(content: dict[str, Any], most: int) -> int:
    """Values in plain data, objects and lists included; no more are counted once there are more than `most`."""
    pending: list[Any] = [content]
    count = 0
    while pending and count <= most:
        each = pending.pop()
        inside = cast("Collection[Any]", each.values() if isinstance(each, dict) else each)
        count += len(inside)
        pending += [value for value in inside if isinstance(value, dict | list)]
    return count


def _in_messages(message: Message, most: int) -> int:
    """The same for a message: what its lists and maps hold, at any depth."""
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
