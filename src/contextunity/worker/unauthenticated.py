"""Methods that need no token, such as health checks and reflection, with a limit per connection."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc

from .grpc_errors import Reason, ServiceError
from .quotas import over_quota
from .rejected_calls import refuse
from .stopping import CallsUnderWay

__all__ = ["UnauthenticatedMethods"]

_STRANGERS = 64
"""Maximum unanswered requests of health checks and reflection on a connection; they need no token."""
_STRANGERS_SECONDS = 1.0
"""Timeout for such a request to arrive, in seconds. They are small, and sent at once."""

_stream_unary: Any = grpc.stream_unary_rpc_method_handler
_stream_stream: Any = grpc.stream_stream_rpc_method_handler


class UnauthenticatedMethods(grpc.GenericRpcHandler):
    """Limits the requests of methods that need no token: few per connection, and with a short timeout."""

    def __init__(self) -> None:
        self._handlers = list[grpc.GenericRpcHandler]()
        self._reading = dict[str, int]()
        self._under_way = CallsUnderWay()

    async def stop(self) -> None:
        """End what is under way: a watch of the health would last as long as its caller."""
        await self._under_way.stop(0)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add handlers, like grpcio's server."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Do nothing; generated code calls this, and grpcio's asynchronous server ignores it too."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call, which rejects or answers it; None for other methods."""
        for each in self._handlers:
            handler: Any = each.service(handler_call_details)
            if handler is not None:
                return self._bounded(handler)
        return None

    def _bounded(self, handler: Any) -> Any:
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return _stream_stream(self._stream(handler), **coders)
        return _stream_unary(self._unary(handler), **coders)

    def _unary(self, handler: Any) -> Callable[[Any, Any], Any]:
        async def handle(_requests: Any, context: Any) -> Any:
            async with self._under_way.running(context):
                return await handler.unary_unary(await self._first(context), context)

        return handle

    def _stream(self, handler: Any) -> Callable[[Any, Any], Any]:
        async def handle(_requests: Any, context: Any) -> AsyncIterator[Any]:
            async with self._under_way.running(context):
                first = await self._first(context)
                if handler.request_streaming:
                    answers = handler.stream_stream(self._following(first, context), context)
                else:
                    answers = handler.unary_stream(first, context)
                if inspect.isawaitable(answers):
                    # Such as the health service's Watch, which writes to the context instead of yielding.
                    await answers
                    return
                async for answer in answers:
                    yield answer

        return handle

    async def _first(self, context: Any) -> Any:
        request = await self._next(context)
        if request is grpc.aio.EOF:
            await refuse(ServiceError(Reason.UNIT_LATE, "the call has no message; send it at once"), context)
        return request

    async def _following(self, first: Any, context: Any) -> AsyncIterator[Any]:
        """Yield the requests of a stream; end it on a timeout, because a client may send only part of a request."""
        request = first
        while request is not grpc.aio.EOF:
            yield request
            request = await self._next(context)

    async def _next(self, context: Any) -> Any:
        """Return the next request; EOF if there is none, or on a timeout."""
        connection = context.peer()
        reading = self._reading.get(connection, 0)
        if reading >= _STRANGERS:
            await refuse(over_quota("calls_without_token", _STRANGERS, "too many are unanswered"), context)
        self._reading[connection] = reading + 1
        try:
            async with asyncio.timeout(_STRANGERS_SECONDS):
                return await context.read()
        except TimeoutError:
            return grpc.aio.EOF
        finally:
            self._reading[connection] -= 1
            if not self._reading[connection]:
                del self._reading[connection]
