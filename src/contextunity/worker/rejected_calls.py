"""Ends rejected calls at a limited rate, with the trace of their unit if it can be read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
from grpc_status import rpc_status

from contextunity.core import worker_pb2

from .grpc_errors import ServiceError, to_status

__all__ = ["Turns", "refuse", "rejecting", "trace_id_of"]

_REFUSALS_PER_SECOND = 200
"""Calls per second that are rejected by their headers, or cancelled before their unit has arrived."""
_REFUSALS_AT_ONCE = 100
"""Burst of such calls after a time without any."""
_LONGEST_TURN = 10.0
"""Seconds that such a call waits for its turn; this limits how many wait."""
_SMALL = 64 * 1024
"""Bytes that were read in vain and count as one more call."""

_Context = grpc.aio.ServicerContext[bytes, bytes]
_stream_unary: Any = grpc.stream_unary_rpc_method_handler


class Turns:
    """Ends rejected and cancelled calls at a limited rate, so that a flood of them leaves time for other calls.

    A waiting call still counts as one of its connection, whose number grpcio limits: a client that is rejected, or
    cancels its calls, and calls again at once slows down only itself.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def take(self, context: object, size: int = 0) -> float:
        """Take a turn, and one more for each unit of bytes that were read in vain.

        Returns:
            The seconds until the turn. The call is kept until then, even if it was cancelled.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        count = 1 + size // _SMALL
        at = max(self._next, now - _REFUSALS_AT_ONCE / _REFUSALS_PER_SECOND) + count / _REFUSALS_PER_SECOND
        if at - now > _LONGEST_TURN:
            return 0
        self._next = at
        if at <= now:
            return 0
        # grpcio frees its part of a call with the last reference to the context.
        loop.call_at(at, id, context)
        return at - now


def rejecting(error: ServiceError, turns: Turns, trace_of: Callable[[_Context], Awaitable[str]] | None = None) -> Any:
    """Return a handler that rejects the call when its turn comes.

    Args:
        error: the error.
        turns: the rate limit.
        trace_of: returns the trace of the unit; None to omit it.
    """

    async def handle(_requests: Any, context: _Context) -> bytes:
        # Let grpcio complete what it has begun for the call; otherwise it logs an error.
        await asyncio.sleep(turns.take(context))
        await refuse(error, context, await trace_of(context) if trace_of is not None else "")

    return _stream_unary(handle)


async def refuse(error: ServiceError, context: Any, trace_id: str = "") -> NoReturn:
    """End a call with an error."""
    packed = rpc_status.to_status(to_status(error, trace_id))  # pyright: ignore[reportUnknownMemberType]  # no types
    error.__traceback__ = None
    await context.abort_with_status(packed)
    raise AssertionError("abort_with_status raises")


_FIELD: int = worker_pb2.ContextUnit.DESCRIPTOR.fields_by_name["trace_id"].number
_MAX_FIELDS = 64
"""Number of fields to read. Encoders write fields in the order of their numbers, so the trace_id is among the first."""
_MAX_LENGTH = 1000
_MAX_VARINT = 10


def trace_id_of(data: bytes) -> str:
    """Return the trace_id of an encoded unit; empty if it has none, or cannot be decoded.

    Example:
        >>> trace_id_of(worker_pb2.ContextUnit(unit_id="u", trace_id="t").SerializeToString() + b"\\xff")
        't'
    """
    try:
        return _trace_id(data)
    except (ValueError, IndexError):
        return ""


def _trace_id(data: bytes) -> str:
    position = 0
    for _ in range(_MAX_FIELDS):
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                _, position = _varint(data, position)
            case 1:
                position += 8
            case 5:
                position += 4
            case 2:
                length, position = _varint(data, position)
                if tag >> 3 == _FIELD:
                    return data[position : position + min(length, _MAX_LENGTH)].decode(errors="ignore")
                position += length
            case _:
                return ""
    return ""


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Decode a varint; return it and the index of its end. Raise an IndexError if the bytes end before it."""
    value = 0
    for shift in range(_MAX_VARINT):
        byte = data[position + shift]
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, position + shift + 1
    raise ValueError("a varint has ten bytes at most")
