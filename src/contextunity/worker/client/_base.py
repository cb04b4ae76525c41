"""What a client is made of, whichever way it calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import betterproto2

from ._channel import RetryPolicy, Tls, Token, address_of, metadata_of, options_of
from ._requests import Sent, TaskAddress, Trace, send
from .methods import Method

A = TypeVar("A", bound=betterproto2.Message)

DEFAULT_TARGET = "localhost:50052"


class ClientBase:
    """Where and as whom to call.

    Args:
        target: `host:port`, or the same behind `http://` or `https://`; the latter asks for TLS.
        token: bearer token, or a function that gives one and is asked before each attempt; None sends none.
        tenant_id: whose work is meant where a call does not say; empty for the token's only one.
        tls: True for TLS with the system's roots, or credentials of grpcio's, such as those with a certificate of the
            client's own; False for none.
        server_name: name that the service's certificate has, where it is not that of the target.
        timeout: seconds that a call may take in all, its repetitions included; None for no end. Watching has its own.
        trace_id: UUID of the chain of work that all calls belong to; unless given, each task begins one.
        provenance: labels `service:action` of where the work has been; the client's own comes after them.
        retry: how patiently to call again what was UNAVAILABLE.

    Raises:
        ValueError: the target is no address, or contradicts `tls`.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        token: Token = None,
        tenant_id: str = "",
        tls: Tls = False,
        server_name: str = "",
        timeout: float | None = 30.0,
        trace_id: str | None = None,
        provenance: Sequence[str] = (),
        retry: RetryPolicy | None = None,
    ) -> None:
        self.target, self._credentials = address_of(target, tls)
        self._options = options_of(server_name)
        self.tenant_id = tenant_id
        self._token = token
        self._timeout = timeout
        self._trace = Trace(trace_id=trace_id or "")
        self._provenance = tuple(provenance)
        self._retry = retry or RetryPolicy()

    def _send(
        self,
        method: Method[A],
        content: betterproto2.Message | None,
        payload: Mapping[str, Any] | None = None,
        unit_id: str = "",
        trace: Trace | None = None,
    ) -> Sent[A]:
        return send(
            method,
            content,
            target=self.target,
            payload=payload,
            unit_id=unit_id,
            trace=trace or self._trace,
            provenance=self._provenance,
        )

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return metadata_of(self._token)

    def _tenant(self, tenant_id: str | None) -> str:
        return self.tenant_id if tenant_id is None else tenant_id


class HandleBase:
    """Which task, and in which chain of work it is spoken of."""

    def __init__(self, task: TaskAddress, trace: Trace, *, follows: bool = False) -> None:
        self._task = task
        # A task that was just started may go on as another run; what steers it has to reach the one of the moment.
        self._steered = replace(task, run_id="") if follows else task
        self._trace = trace

    @property
    def workflow_id(self) -> str:
        """Id of the task."""
        return self._task.workflow_id

    @property
    def run_id(self) -> str:
        """Which of its runs is meant; empty for the newest."""
        return self._task.run_id

    @property
    def trace_id(self) -> str:
        """Chain of work that the task belongs to; empty where it is not known."""
        return self._trace.trace_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.workflow_id}>"
