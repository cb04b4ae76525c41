"""Admit or reject calls by their headers, before a byte of a unit is read, and limit the bytes of units.

Each step rejects before the next one uses resources: token and permission, from the metadata alone; the number of
concurrent calls; then the unit, which must arrive in time and within the byte limits.

grpcio reads the message of a unary method before it calls the handler. So all methods are registered as methods that
stream requests, and the handler reads the one message itself. On the wire both are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

import grpc

from .auth import Authenticator, Caller, Subject, refusal_of
from .errors import AuthenticationError, KeyPendingError
from .fair_gate import FairGate, Turn
from .grpc_errors import Reason, ServiceError
from .observed_calls import call_observer
from .quotas import Quotas, over_quota
from .rejected_calls import Turns, refuse, rejecting, trace_id_of
from .service import Method, require_permission
from .stopping import CallsUnderWay, stopping

__all__ = ["Admission", "Answering", "BodyLimits", "CallDetails", "Refused"]

_LOG = logging.getLogger(__name__)

_PROMPT = 0.05
"""Seconds between two checks of units that have not arrived."""
_LOOKS = 3
"""Checks after which a unit counts as not sent at once: the first may come right after the headers, and the second may
be due only because the processor was busy. Until then the unit reserves no room, because its size is unknown; from then
on it reserves the room of the largest unit."""
_SMALL = 64 * 1024
"""Bytes up to which units are not counted: the limit of calls bounds them."""
_BRIEFLY = 1.0
"""Seconds that a complete unit waits for room."""
_AT_ONCE, _SHARE = 32, 4
"""Calls processed at once, in all, and of a tenant while others call too; waiting calls take turns by tenant. So a
tenant's call shares the Temporal server with few calls of another tenant, and waits for at most one of them."""
_LARGE_AT_ONCE = 2
"""The same for large units; a tenant has one."""
_MOMENT = 0.25
"""Seconds after which a call frees its place: by then it waits for something else."""
_LARGE_MOMENT = 1.0

_Count = Literal["concurrent_calls", "watches"]
_Context = grpc.aio.ServicerContext[bytes, bytes]
_stream_unary: Any = grpc.stream_unary_rpc_method_handler
_stream_stream: Any = grpc.stream_stream_rpc_method_handler
T = TypeVar("T")


class Refused(NamedTuple):
    """Error of a call that is rejected after its unit was read.

    Attributes:
        status: status for grpcio.
        size: bytes of the unit.
    """

    status: Any
    size: int


class CallDetails(Protocol):
    """A call before its message is read."""

    @property
    def method(self) -> str:
        """Full name of the method."""
        ...

    @property
    def invocation_metadata(self) -> Any:
        """Its metadata, as key and value pairs."""
        ...


class Answering(Protocol):
    """Answers the admitted calls."""

    async def answer(
        self,
        method: Method,
        data: bytes,
        context: _Context,
        caller: Caller,
        turn: Turn | None = None,
        release: Callable[[], None] | None = None,
    ) -> bytes | Refused:
        """Answer a call with the bytes of a unit, or of a contract's own message.

        Args:
            method: the called method.
            data: the unit, or the message.
            context: grpcio's context.
            caller: the caller.
            turn: the caller's turn among tenants, to leave early when the call only waits; None if tokens are not
                required.
            release: frees the room that `data` takes, once it is no longer held.

        Returns:
            The answer, or an error to send later if the rejected call used many resources. Without a turn, all errors
            end the call at once.
        """
        ...

    def answers(self, method: Method, data: bytes, context: _Context, caller: Caller) -> AsyncIterator[bytes]:
        """Answer a call with a stream of units."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyLimits:
    """Limits of units before they are processed.

    Attributes:
        seconds: timeout from the headers of a call to the end of its unit.
        one: bytes of the largest unit.
        process: bytes of all arriving units, and the same again for units being processed.
        tenant: the same for one caller's tenants; not used if tokens are not required.
    """

    seconds: float
    one: int
    process: int
    tenant: int


@dataclass(slots=True)
class _Room:
    """A limit of bytes held at once. If nothing is held, any size fits, so that every unit is admitted at some time."""

    size: int
    used: int = 0
    freed: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, count: int) -> bool:
        """Take room; return False if there is none."""
        if self.used and self.used + count > self.size:
            return False
        self.used += count
        return True

    def give(self, count: int) -> None:
        """Free room."""
        self.used -= count
        self.freed.set()
        self.freed = asyncio.Event()


class _Arrival:
    """A message that has not arrived yet."""

    __slots__ = ("error", "late_at", "looks", "method", "rooms", "size", "task", "took")

    def __init__(self, rooms: tuple[_Room, ...], late_at: float, method: str, size: int) -> None:
        self.task, self.rooms, self.late_at, self.method = asyncio.current_task(), rooms, late_at, method
        self.size = size
        self.looks = 0
        self.took: list[_Room] | None = None
        self.error: ServiceError | None = None


class _Arrivals:
    """Waits for messages with a timeout; a message that does not arrive at once reserves room.

    One timer checks all, because a timer per call costs more than most messages take to arrive.
    """

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._waiting = set[_Arrival]()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, reading: Coroutine[Any, Any, T], rooms: tuple[_Room, ...], method: str, size: int) -> T:
        """Return the message.

        Args:
            reading: reads it.
            rooms: where it reserves room.
            method: the called method.
            size: bytes to reserve; those of the largest unit if the size is not known.

        Raises:
            ServiceError: the message did not arrive in time, or there is no room for another slow one.
        """
        loop = asyncio.get_running_loop()
        arrival = _Arrival(rooms, loop.time() + self._limits.seconds, method, size)
        self._waiting.add(arrival)
        if self._timer is None:
            self._timer = loop.call_later(_PROMPT, self._look, loop)
        try:
            return await reading
        except asyncio.CancelledError:
            if arrival.error is None or arrival.task is None or arrival.task.uncancel():
                raise
            raise arrival.error from None
        finally:
            self._waiting.discard(arrival)
            if arrival.took is not None:
                for room in arrival.took:
                    room.give(arrival.size)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for arrival in self._waiting:
            arrival.looks += 1
            if arrival.error is not None:
                continue
            if arrival.took is None and arrival.looks >= _LOOKS:
                self._take_room(arrival)
            if arrival.error is None and now >= arrival.late_at:
                text = f"the unit was incomplete {self._limits.seconds:g} s after the headers of its call"
                arrival.error = ServiceError(Reason.UNIT_LATE, f"{text}; send it at once")
            if arrival.error is not None and arrival.task is not None:
                arrival.task.cancel()
        self._timer = loop.call_later(_PROMPT, self._look, loop) if self._waiting else None

    def _take_room(self, arrival: _Arrival) -> None:
        arrival.took = []
        for room in arrival.rooms:
            if not room.take(arrival.size):
                text = "arriving units use all of it"
                arrival.error = over_quota("bytes_in_flight", room.size, text, method=arrival.method)
                return
            arrival.took.append(room)


@dataclass(slots=True)
class _Account:
    """What callers of the same tenants hold."""

    name: str
    arriving: _Room
    held: _Room
    arriving_rooms: tuple[_Room, ...]
    turns: Turns = field(default_factory=Turns)
    calls: int = 0
    watches: int = 0

    def count(self, method: Method, change: int) -> None:
        """Count a call that begins or ends."""
        if method.is_watch:
            self.watches += change
        else:
            self.calls += change


class _Unary:
    """The attributes that grpcio needs of a call's handler; grpcio's own class is slow to create."""

    __slots__ = ("stream_unary",)
    request_streaming, response_streaming = True, False
    request_deserializer = response_serializer = None
    unary_unary = unary_stream = stream_stream = None

    def __init__(self, stream_unary: Callable[[Any, _Context], Any]) -> None:
        self.stream_unary = stream_unary


def _later(method: Method, decide: Callable[[], Awaitable[Any]]) -> Any:
    """The handler of a call whose rejection or answer is decided later, but before anything is read."""

    async def handle(requests: Any, context: _Context) -> Any:
        return await (await decide()).stream_unary(requests, context)

    async def handle_stream(requests: Any, context: _Context) -> AsyncIterator[bytes]:
        handler = await decide()
        if handler.stream_unary is not None:
            await handler.stream_unary(requests, context)
            return
        async with contextlib.aclosing(handler.stream_stream(requests, context)) as units:
            async for unit in units:
                yield unit

    return _Unary(handle) if method.watch is None else _stream_stream(handle_stream)


class Admission(grpc.GenericRpcHandler):
    """Admits the calls of the service.

    Args:
        answering: answers the admitted calls.
        methods: methods by full name, such as `/contextunity.worker.WorkerService/StartWorkflow`.
        authenticator: authenticates callers.
        limits: limits of the bytes of units.
        quotas: quotas of concurrent calls and watches.
    """

    def __init__(
        self,
        answering: Answering,
        methods: dict[str, Method],
        authenticator: Authenticator,
        limits: BodyLimits,
        quotas: Quotas,
    ) -> None:
        self.methods: Mapping[str, Method] = methods
        """The methods by full name."""
        self.called_at = float("-inf")
        """Monotonic time of the last call over gRPC."""
        self.under_way = CallsUnderWay()
        """The admitted calls except watches, which the service ends itself."""
        self._answering, self._authenticator, self._confirm = answering, authenticator, authenticator.confirm
        self._limits, self._quotas = limits, quotas
        self._arriving, self._held = _Room(limits.process), _Room(limits.process)
        self._arrivals = _Arrivals(limits)
        self._gate, self._large = FairGate(_AT_ONCE, seconds=_MOMENT), FairGate(_LARGE_AT_ONCE, seconds=_LARGE_MOMENT)
        self._turns = Turns()
        self._observer = call_observer()
        self._accounts = dict[frozenset[str] | None, _Account]()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call, which rejects or answers it; None for other services' methods."""
        if handler_call_details.method not in self.methods:
            return None
        self.called_at = time.monotonic()
        return self.admit(handler_call_details)

    def admit(self, details: CallDetails) -> Any:
        """Return the handler of a call of one of the methods, which rejects or answers it."""
        method = self.methods[details.method]
        tenants: frozenset[str] | None = None
        handler: Any
        try:
            caller = self._authenticator.authenticate(details.invocation_metadata or ())
        except KeyPendingError as error:
            handler = _later(method, functools.partial(self._known, error.fetched, method, details))
        except AuthenticationError as error:
            handler = rejecting(refusal_of(error), self._turns)
        else:
            tenants = caller.tenants
            if self._confirm is None:
                handler = self._handler(method, caller)
            else:
                handler = _later(method, functools.partial(self._confirmed, method, caller))
        if self._observer is None:
            return handler
        # A token of several tenants does not tell which of them calls, and without tokens only the unit does.
        tenant = next(iter(tenants)) if tenants is not None and len(tenants) == 1 else ""
        if handler.stream_unary is not None:
            return _Unary(self._observer.unary(handler.stream_unary, method.name, tenant, details))
        return _stream_stream(self._observer.stream(handler.stream_stream, method.name, tenant, details))

    async def _known(self, fetched: asyncio.Event, method: Method, details: CallDetails) -> Any:
        """Return the handler of a call whose token may be signed by a key that is being fetched."""
        await fetched.wait()
        try:
            caller = self._authenticator.authenticate(details.invocation_metadata or ())
        except AuthenticationError as error:
            return rejecting(refusal_of(error), self._turns)
        return await self._confirmed(method, caller)

    async def _confirmed(self, method: Method, caller: Caller) -> Any:
        """Return the handler of a call whose token may be revoked."""
        if self._confirm is not None:
            try:
                await self._confirm(caller)
            except ServiceError as error:
                method.record(caller, None, error)
                return rejecting(error, self._account(caller).turns)
        return self._handler(method, caller)

    def _handler(self, method: Method, caller: Caller) -> Any:
        if self.under_way.is_stopping:
            error = stopping()
            method.record(caller, None, error)
            return rejecting(error, self._turns)
        try:
            require_permission(method, caller)
        except ServiceError as error:
            method.record(caller, None, error)
            account = self._account(caller)
            trace_of = functools.partial(self._prompt_trace, account) if method.takes_unit else None
            return rejecting(error, account.turns, trace_of)
        account = self._account(caller)
        if caller.tenants is not None:
            quotas = self._quotas.of(account.name)
            quota: _Count = "watches" if method.is_watch else "concurrent_calls"
            limit: int = getattr(quotas, quota)
            if (account.watches if method.is_watch else account.calls) >= limit:
                full = over_quota(quota, limit, "as many calls are running", account.name, method=method.name)
                method.record(caller, None, full)
                return rejecting(full, account.turns)
            # If a token has several tenants, only the unit tells which one starts something.
            if method.subject is Subject.NEW_TASK and len(caller.tenants) == 1:
                many = self._quotas.start_error(account.name, method.name)
                if many is not None:
                    method.record(caller, None, many)
                    return rejecting(many, account.turns)
        if method.watch is not None:
            return _stream_stream(self._stream(method, caller, account))
        return _Unary(self._unary(method, caller, account))

    def _account(self, caller: Caller) -> _Account:
        account = self._accounts.get(caller.tenants)
        if account is None:
            self._forget_idle()
            # If tokens are not required, one caller may use all of the process.
            size = self._limits.process if caller.tenants is None else self._limits.tenant
            arriving = _Room(size)
            name = ",".join(sorted(caller.tenants or ()))
            account = _Account(name, arriving, _Room(size), (arriving, self._arriving))
            self._accounts[caller.tenants] = account
        return account

    def _forget_idle(self) -> None:
        """Forget idle tenants: their tokens are signed by the operator's keys, but over years there are many."""
        if len(self._accounts) >= 10_000:
            idle = [
                key
                for key, each in self._accounts.items()
                if not each.calls and not each.watches and not each.held.used and not each.arriving.used
            ]
            for key in idle:
                del self._accounts[key]

    def _unary(self, method: Method, caller: Caller, account: _Account) -> Callable[[Any, _Context], Any]:
        async def handle(_requests: Any, context: _Context) -> bytes:
            # As in `under_way.running`, without another file that each call enters.
            task = cast("asyncio.Task[Any]", asyncio.current_task())
            self.under_way.tasks.add(task)
            try:
                answer = await self._answered(method, caller, account, context)
            except asyncio.CancelledError:
                if not self.under_way.has_outlasted(task):
                    raise
                await self.under_way.refuse(context)
            finally:
                self.under_way.tasks.discard(task)
            if not isinstance(answer, Refused):
                return answer
            # A client that calls again at once must not cause the same work again.
            await asyncio.sleep(account.turns.take(context, answer.size))
            await context.abort_with_status(answer.status)
            raise AssertionError("abort_with_status raises")

        return handle

    async def _answered(self, method: Method, caller: Caller, account: _Account, context: _Context) -> bytes | Refused:
        account.count(method, 1)
        held, turn = 0, None
        large: Turn | None = None
        stack: contextlib.AsyncExitStack | None = None

        def release() -> None:
            nonlocal held, large
            if held:
                account.held.give(held)
                self._held.give(held)
                held = 0
            if large is not None:
                large.leave()

        try:
            try:
                stack = await self._share(method, caller, account)
                data = await self._read(account, context, method)
                held = await self._hold(account, data, method.name)
            except ServiceError as error:
                method.record(caller, None, error)
                await asyncio.sleep(account.turns.take(context))
                await refuse(error, context)
            # The only reference is passed on, so that the unit is freed once it is decoded.
            unit = [data]
            del data
            if caller.tenants is None:
                return await self._answering.answer(method, unit.pop(), context, caller, None, release)
            if held:
                large = await self._large.enter(account.name, 1, 1)
            turn = self._gate.try_enter(account.name, _AT_ONCE, _SHARE)
            if turn is None:
                turn = await self._gate.enter(account.name, _AT_ONCE, _SHARE)
            return await self._answering.answer(method, unit.pop(), context, caller, turn, release)
        finally:
            account.count(method, -1)
            release()
            if turn is not None:
                turn.leave()
            if stack is not None:
                await stack.aclose()

    def _stream(self, method: Method, caller: Caller, account: _Account) -> Callable[[Any, _Context], Any]:
        async def handle(_requests: Any, context: _Context) -> AsyncIterator[bytes]:
            account.count(method, 1)
            try:
                stack: contextlib.AsyncExitStack | None = None
                try:
                    try:
                        stack = await self._share(method, caller, account)
                        data = await self._read(account, context, method)
                    except ServiceError as error:
                        await asyncio.sleep(account.turns.take(context))
                        await refuse(error, context)
                    async for unit in self._answering.answers(method, data, context, caller):
                        yield unit
                finally:
                    if stack is not None:
                        await stack.aclose()
            finally:
                account.count(method, -1)

        return handle

    async def _share(self, method: Method, caller: Caller, account: _Account) -> contextlib.AsyncExitStack | None:
        """Count a call among those of all processes, until the returned stack is closed.

        None if this process counts alone: its own calls are counted already.

        Raises:
            ServiceError: the quota is used up.
        """
        if caller.tenants is None or not self._quotas.is_shared:
            return None
        quota: _Count = "watches" if method.is_watch else "concurrent_calls"
        limit: int = getattr(self._quotas.of(account.name), quota)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._quotas.holding(quota, limit, account.name, method.name))
            return stack.pop_all()

    async def _read(self, account: _Account, context: _Context, method: Method) -> bytes:
        # HTTP declares the size, gRPC does not.
        told: int | None = getattr(context, "content_length", None)
        size = self._limits.one if told is None else min(told, self._limits.one)
        try:
            data: Any = await self._arrivals.wait(context.read(), account.arriving_rooms, method.name, size)
        except asyncio.CancelledError:
            account.turns.take(context)
            raise
        if isinstance(data, bytes):
            return data
        # A caller that disconnected looks like one that sent nothing; it does not receive the error.
        what = "ContextUnit" if method.takes_unit else "message"
        raise ServiceError(Reason.UNIT_UNREADABLE, f"the call has no message; send one {what}")

    async def _prompt_trace(self, account: _Account, context: _Context) -> str:
        """Return the trace of a unit that arrived at once, for callers with a valid token but without the permission.

        grpcio receives the whole unit while it reads, so there must be room for it.
        """
        taken = [room for room in account.arriving_rooms if room.take(self._limits.one)]
        try:
            if len(taken) < len(account.arriving_rooms):
                return ""
            # As long as a unit may take to count as sent at once elsewhere; a busy processor can delay it.
            async with asyncio.timeout(_LOOKS * _PROMPT):
                data: Any = await context.read()
            return trace_id_of(data) if isinstance(data, bytes) else ""
        except (TimeoutError, ServiceError):
            return ""
        finally:
            for room in taken:
                room.give(self._limits.one)

    async def _hold(self, account: _Account, data: bytes, method: str) -> int:
        """Reserve room for a complete unit until it is answered; return the reserved bytes."""
        count = len(data)
        if count <= _SMALL:
            return 0
        taken = list[_Room]()
        try:
            async with asyncio.timeout(_BRIEFLY):
                for room in (account.held, self._held):
                    while not room.take(count):
                        await room.freed.wait()
                    taken.append(room)
        except BaseException as error:
            for room in taken:
                room.give(count)
            if isinstance(error, TimeoutError):
                size = (account.held if not taken else self._held).size
                text = "units being processed use all of it"
                raise over_quota("bytes_in_flight", size, text, method=method) from None
            raise
        return count
