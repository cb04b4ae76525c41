"""How refused calls end: at a steady pace, with the trace of their unit where that can be told."""

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
"""Calls a second that are refused by their headers, or cancelled before their unit is there."""
_REFUSALS_AT_ONCE = 100
"""How many of them right away, after a while without any."""
_LONGEST_TURN = 10.0
"""Seconds that such a call waits for its turn; it bounds how many wait."""
_SMALL = 64 * 1024
"""Bytes that were read for nothing and count as one more call."""

_Context = grpc.aio.ServicerContext[bytes, bytes]
_stream_unary: Any = grpc.stream_unary_rpc_method_handler


class Turns:
    """Lets calls that come to nothing end at a steady pace, so that a flood of them leaves time for the others.

    A call that waits for its turn is still one of its connection, of which grpcio takes no more than so many: who is
    refused, or cancels what was just begun, and calls again at once, slows down nobody else.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def take(self, context: object, size: int = 0) -> float:
        """Takes a turn, and one more for each so many bytes that were read for nothing.

        Returns:
            The seconds until it comes. Until then the call is kept, even one that was cancelled.
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
        # grpcio's part of a call goes with the last reference to its context.
        loop.call_at(at, id, context)
        return at - now


def rejecting(error: ServiceError, turns: Turns, trace_of: Callable[[_Context], Awaitable[str]] | None = None) -> Any:
    """A handler that refuses, when its turn comes.

    Args:
        error: why.
        turns: when.
        trace_of: tells the trace of the unit; None where it is not looked for.
    """

    async def handle(_requests: Any, context: _Context) -> bytes:
        # What grpcio has begun for the call is done first, even if that takes no time; without it, it logs an error.
        await asyncio.sleep(turns.take(context))
        await refuse(error, context, await trace_of(context) if trace_of is not None else "")

    return _stream_unary(handle)


async def refuse(error: ServiceError, context: Any, trace_id: str = "") -> NoReturn:
    """Ends a call with an error."""
    packed = rpc_status.to_status(to_status(error, trace_id))  # pyright: ignore[reportUnknownMemberType]  # no types
    error.__traceback__ = None
    await context.abort_with_status(packed)
    raise AssertionError("abort_with_status raises")


_FIELD: int = worker_pb2.ContextUnit.DESCRIPTOR.fields_by_name["trace_id"].number
_MAX_FIELDS = 64
"""Fields that are looked at. Writers go by the numbers, so that the trace_id is the second at most."""
_MAX_LENGTH = 1000
_MAX_VARINT = 10


def trace_id_of(data: bytes) -> str:
    """The trace_id of a unit; empty where it has none, or it cannot be read.

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
    """A number and where it ends; an IndexError where the bytes end before it does."""
    value = 0
    for shift in range(_MAX_VARINT):
        byte = data[position + shift]
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, position + shift + 1
    raise ValueError("a varint has ten bytes at most")
