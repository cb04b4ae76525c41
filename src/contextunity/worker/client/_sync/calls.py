# Generated from ../_async/calls.py by tools/sync_client.py. DO NOT EDIT.
"""How calls are made with grpc: attempts and streams."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import betterproto2
import grpc
from contextunity.gen.contextunity.worker import TaskStatus

from .._base import ClientBase
from .._channel import SyncConnection
from .._envelope import Answer, Sent, Trace
from .._outcome import Watching
from .._requests import TaskAddress
from .._retry import Attempts, Deadline
from ..methods import WATCH_TASK, Method

A = TypeVar("A", bound=betterproto2.Message)


class SyncCalls(ClientBase, SyncConnection):
    """Makes calls, again where that helps."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; a further call opens another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def call(
        self,
        method: Method[A],
        content: betterproto2.Message | None = None,
        *,
        payload: Mapping[str, Any] | None = None,
        unit_id: str = "",
        trace: Trace | None = None,
        timeout: float | None = None,
    ) -> Answer[A]:
        """Calls any method that gives one answer, and gives all that it answers.

        Args:
            method: one of `contextunity.worker.client.methods`.
            content: the typed request.
            payload: the same, or a part of it, as plain data.
            unit_id: UUID of the unit; a fresh one unless given.
            trace: the chain of work; that of the client unless given.
            timeout: seconds for the call; those of the client unless given.
        """
        sent = self._send(method, content, payload, unit_id, trace)
        deadline = Deadline(self._timeout if timeout is None else timeout)
        attempts = Attempts(self._retry, deadline)
        # Without (de)serialisers the stub takes and gives bytes.
        stub = cast("Any", self._connection()).unary_unary(method.path)
        while True:
            try:
                return sent.read(stub(sent.data, timeout=deadline.remaining(), metadata=self._metadata()))
            except grpc.RpcError as error:
                time.sleep(attempts.delay_after(sent.failure(error)))

    def watch(
        self,
        workflow_id: str,
        *,
        run_id: str = "",
        tenant_id: str | None = None,
        after: str = "",
        trace: Trace | None = None,
        timeout: float | None = None,
    ) -> Generator[Answer[TaskStatus], None]:
        """Follows a task to its end; a stream that breaks is taken up where it broke.

        Args:
            workflow_id: id of the task.
            run_id: which of its runs; empty for the newest.
            tenant_id: whose task; that of the client unless given.
            after: `resume_token` of the last status seen; empty begins with the status as it is.
            trace: the chain of work; that of the client unless given.
            timeout: seconds for all of it; unless given, as long as it takes.

        Yields:
            The status as it is, then one for each change, the end being the last.
        """
        task = TaskAddress(workflow_id=workflow_id, run_id=run_id, tenant_id=self._tenant(tenant_id))
        watching = Watching.of(task, after, self._retry, timeout)
        while not watching.ended:
            sent = self._send(WATCH_TASK, watching.request, trace=trace)
            failure = None
            try:
                with contextlib.closing(self._stream(sent, watching)) as answers:
                    yield from answers
            except grpc.RpcError as error:
                failure = sent.failure(error)
            if not watching.ended:
                time.sleep(watching.broke(failure))

    def _stream(self, sent: Sent[TaskStatus], watching: Watching) -> Generator[Answer[TaskStatus], None]:
        stub = cast("Any", self._connection()).unary_stream(sent.method.path)
        call = stub(sent.data, timeout=watching.reconnects.deadline.remaining(), metadata=self._metadata())
        try:
            for data in call:
                answer = sent.read(data)
                watching.saw(answer)
                yield answer
        finally:
            # Whoever stops looking tells the service, which otherwise goes on asking Temporal.
            call.cancel()
