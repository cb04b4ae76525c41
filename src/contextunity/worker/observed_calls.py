"""Measure and trace calls of the service: when they arrive, their sizes and how they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from . import tracing
from .metrics import CallMeter, call_meter

if TYPE_CHECKING:
    from .otel import CallSpan, Spans

__all__ = ["CallObserver", "ObservedCall", "begin_span", "call_observer"]

_Unary = Callable[[Any, Any], Awaitable[bytes]]
_Stream = Callable[[Any, Any], AsyncIterator[bytes]]


class CallObserver:
    """Observes calls of all listeners; see `call_observer`.

    Args:
        meter: counts them; None to count nothing.
        spans: records their spans; None to record none.
    """

    def __init__(self, meter: CallMeter | None, spans: Spans | None) -> None:
        self._meter, self._spans = meter, spans

    def unary(self, handle: _Unary, method: str, tenant: str, details: Any) -> _Unary:
        """Return a handler that observes another one.

        Args:
            handle: answers or rejects a call.
            method: the called method, as in metrics.
            tenant: the caller's tenant; empty if it is unknown, or if there are several.
            details: the call before it is read.
        """

        async def observed(requests: Any, context: Any) -> bytes:
            call = self._call(context, method, tenant, details)
            try:
                answer = await handle(requests, call)
            except asyncio.CancelledError:
                call.cancelled()
                raise
            else:
                call.sent, call.code = len(answer), "OK"
                return answer
            finally:
                call.end()

        return observed

    def stream(self, handle: _Stream, method: str, tenant: str, details: Any) -> _Stream:
        """The same for a handler with a stream of responses."""

        async def observed(requests: Any, context: Any) -> AsyncIterator[bytes]:
            call = self._call(context, method, tenant, details)
            answers: Any = handle(requests, call)
            try:
                async for answer in answers:
                    call.sent += len(answer)
                    yield answer
                call.code = "OK"
            except (asyncio.CancelledError, GeneratorExit):
                call.cancelled()
                raise
            finally:
                call.end()
                await answers.aclose()

        return observed

    def _call(self, context: Any, method: str, tenant: str, details: Any) -> ObservedCall:
        span: CallSpan | None = None
        if self._spans is not None:
            system = getattr(details, "rpc_system", "grpc")
            span = self._spans.call(details.method, system, details.invocation_metadata)
        return ObservedCall(context, method, tenant, self._meter, span)


class ObservedCall:
    """An observed call, with the interface of grpcio's context: it records what passes and how the call ends."""

    def __init__(self, context: Any, method: str, tenant: str, meter: CallMeter | None, span: CallSpan | None) -> None:
        self._context, self._method, self._tenant, self._meter = context, method, tenant, meter
        self._began, self._received = time.perf_counter(), 0
        self.span = span
        """The call's span; None where traces are off."""
        self.code, self.sent = "UNKNOWN", 0
        if meter is not None:
            meter.begin(method)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        """Read the message, and record its size."""
        data = await self._context.read()
        if isinstance(data, bytes):
            self._received += len(data)
        return data

    async def abort_with_status(self, status: Any) -> None:
        """End the call with an error, and record it."""
        self.code = status.code.name
        await self._context.abort_with_status(status)

    def cancelled(self) -> None:
        """Record a cancellation: grpcio cancels handlers when the caller disconnects, and at its deadline."""
        remaining: float | None = self._context.time_remaining()
        self.code = "DEADLINE_EXCEEDED" if remaining is not None and remaining <= 0 else "CANCELLED"

    def end(self) -> None:
        """Report the call to the meter and the span."""
        if self._meter is not None:
            seconds = time.perf_counter() - self._began
            self._meter.end(
                *(self._method, self._tenant, self.code), seconds=seconds, received=self._received, sent=self.sent
            )
        if self.span is not None:
            self.span.end(self.code)


def begin_span(context: Any, call: Any) -> None:
    """Start the span of a call that was decoded.

    A call that has no trace_id of its own takes that of its caller's trace.

    Args:
        context: grpcio's, as handlers have it.
        call: the `service.Call`.
    """
    if isinstance(context, ObservedCall) and context.span is not None:
        call.trace_id = context.span.begin(call.unit.trace_id or "", call.trace_id, call.about)


def call_observer() -> CallObserver | None:
    """Return what observes calls; None if nothing is exported, so that calls are not wrapped."""
    meter, spans = call_meter(), tracing.active
    return None if meter is None and spans is None else CallObserver(meter, spans)
