"""A task as the client for asyncio holds it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, TypeVar, overload

import betterproto2
from contextunity.gen.contextunity import worker as bodies

from .. import methods
from .._base import HandleBase
from .._envelope import Answer, Trace
from .._outcome import result_of, typed_or_plain
from .._requests import Input, TaskAddress, steer_request
from ..methods import Method
from .calls import AsyncCalls

A = TypeVar("A", bound=betterproto2.Message)
M = TypeVar("M", bound=betterproto2.Message)


class TaskHandle(HandleBase):
    """A task: ask it, wait for it, steer it. Methods raise as those of WorkerClient do."""

    def __init__(self, client: AsyncCalls, task: TaskAddress, trace: Trace, *, follows: bool = False) -> None:
        super().__init__(task, trace, follows=follows)
        self._client = client

    async def status(self) -> bodies.TaskStatus:
        """Tells how it goes."""
        return (await self._call(methods.GET_TASK_STATUS, bodies.GetTaskStatusRequest(**self._task.fields()))).body

    def watch(
        self,
        *,
        after: str = "",
        timeout: float | None = None,
    ) -> AsyncGenerator[Answer[bodies.TaskStatus], None]:
        """Follows it to its end; see the `watch` of the client."""
        return self._client.watch(**self._task.fields(), after=after, trace=self._trace, timeout=timeout)

    @overload
    async def result(self, result_type: None = None, *, timeout: float | None = None) -> Any: ...  # noqa: ASYNC109
    @overload
    async def result(self, result_type: type[M], *, timeout: float | None = None) -> M: ...  # noqa: ASYNC109
    async def result(self, result_type: type[M] | None = None, *, timeout: float | None = None) -> M | Any:  # noqa: ASYNC109 - goes to gRPC as the deadline
        """Waits for its result.

        Args:
            result_type: class of the result, such as HarvestResponse; betterproto2.Message for whichever generated
                class it is. None gives plain data.
            timeout: seconds to wait; unless given, as long as it takes.

        Raises:
            TaskFailedError: it came to another end.
            WorkerServiceError: DEADLINE_EXCEEDED where it has not ended in time.
            CodecError: the result is of another type.
        """
        async with contextlib.aclosing(self.watch(timeout=timeout)) as answers:
            last = [answer async for answer in answers][-1]
        return result_of(last, result_type)

    async def cancel(self, *, reason: str = "") -> bodies.TaskReference:
        """Asks it to end in its own way; `reason` is for whoever looks at its history."""
        request = bodies.CancelTaskRequest(**self._steered.fields(), reason=reason)
        return (await self._call(methods.CANCEL_TASK, request)).body

    async def terminate(self, *, reason: str = "") -> bodies.TaskReference:
        """Ends it at once, without giving it a say; `reason` is for whoever looks at its history."""
        request = bodies.TerminateTaskRequest(**self._steered.fields(), reason=reason)
        return (await self._call(methods.TERMINATE_TASK, request)).body

    async def signal(self, name: str, given: Input = None, *, unit_id: str = "") -> bodies.TaskReference:
        """Sends it a signal of its contract, with its input as plain data or as the generated dataclass."""
        request = steer_request(bodies.SignalTaskRequest, self._steered, {"signal": name}, given)
        return (await self._call(methods.SIGNAL_TASK, request, unit_id)).body

    @overload
    async def query(self, name: str, given: Input = None, *, result_type: None = None) -> Any: ...
    @overload
    async def query(self, name: str, given: Input = None, *, result_type: type[M]) -> M: ...
    async def query(self, name: str, given: Input = None, *, result_type: type[M] | None = None) -> M | Any:
        """Asks it a query of its contract; `result_type` is as with `result`."""
        request = steer_request(bodies.QueryTaskRequest, self._steered, {"query": name}, given)
        answer = await self._call(methods.QUERY_TASK, request)
        return typed_or_plain(answer.body.result, answer.payload.get("result"), result_type)

    @overload
    async def update(self, name: str, given: Input = None, *, result_type: None = None, unit_id: str = "") -> Any: ...
    @overload
    async def update(self, name: str, given: Input = None, *, result_type: type[M], unit_id: str = "") -> M: ...
    async def update(
        self, name: str, given: Input = None, *, result_type: type[M] | None = None, unit_id: str = ""
    ) -> M | Any:
        """Has it do an update of its contract, and waits for it; `result_type` is as with `result`.

        The same `unit_id` again is the same update.
        """
        request = steer_request(bodies.UpdateTaskRequest, self._steered, {"update": name}, given)
        answer = await self._call(methods.UPDATE_TASK, request, unit_id)
        return typed_or_plain(answer.body.result, answer.payload.get("result"), result_type)

    async def _call(self, method: Method[A], content: betterproto2.Message, unit_id: str = "") -> Answer[A]:
        return await self._client.call(method, content, unit_id=unit_id, trace=self._trace)
