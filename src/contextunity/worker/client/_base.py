"""The common base of both clients."""

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
    """Target, identity and defaults of a client.

    Args:
        target: `host:port`, optionally after `http://` or `https://`; `https://` uses TLS.
        token: bearer token, or a function that returns one and is called before each attempt; None sends none.
        tenant_id: default tenant of all calls; empty for the token's only one.
        tls: True for TLS with the system's roots, or grpcio credentials, such as those with a client certificate; False
            for no TLS.
        server_name: name in the service's certificate, if not that of the target.
        timeout: seconds for a call with all its retries; None for no limit. Watches have their own timeout.
        trace_id: UUID of the trace of all calls; by default, each task starts a new one.
        provenance: `service:action` labels of the earlier steps; the client's own comes after them.
        retry: how to retry calls that were UNAVAILABLE.

    Raises:
        ValueError: the target is not an address, or contradicts `tls`.
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
    """Ids of a task, and its trace."""

    def __init__(self, task: TaskAddress, trace: Trace, *, follows: bool = False) -> None:
        self._task = task
        # A task may continue as a new run; control requests must reach the current one.
        self._steered = replace(task, run_id="") if follows else task
        self._trace = trace

    @property
    def workflow_id(self) -> str:
        """Id of the task."""
        return self._task.workflow_id

    @property
    def run_id(self) -> str:
        """Id of the run; empty for the newest."""
        return self._task.run_id

    @property
    def trace_id(self) -> str:
        """Trace of the task; empty if unknown."""
        return self._trace.trace_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.workflow_id}>"
