"""The connection to the service, and the retries of calls."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc

from ..tracing import traceparent
from .errors import WorkerServiceError

__all__ = ["Retry", "RetryPolicy"]

_LOG = logging.getLogger("contextunity.worker.client")

Token: TypeAlias = str | Callable[[], str] | None
Tls: TypeAlias = bool | grpc.ChannelCredentials

_HOST = re.compile(r"\[[^][/\s]+\]|[^][:/\s]+")
_HOST_AND_PORT = re.compile(rf"({_HOST.pattern}):(?P<port>[0-9]{{1,5}})")
"""Put an IPv6 address in brackets, because it contains colons."""
_HIGHEST_PORT = 65535
_HTTPS_PORT = 443
_MAX_UNIT_BYTES = 50 * 1024 * 1024
OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", _MAX_UNIT_BYTES),
    ("grpc.max_send_message_length", _MAX_UNIT_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A watch can be silent for hours; only pings detect a dead connection.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # The default delay before a channel reconnects grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def address_of(target: str, tls: Tls) -> tuple[str, grpc.ChannelCredentials | None]:
    """Return grpcio's address, and the credentials; None for plaintext.

    Args:
        target: `host:port`, optionally after `http://` or `https://`; `https://` uses TLS, and its default port is 443.
        tls: True for TLS with the system's roots, or the caller's own credentials.

    Raises:
        ValueError: the target and `tls` contradict each other, or the target has no host, or no port from 1 to 65535.
    """
    scheme, separator, rest = target.rpartition("://")
    address = rest.rstrip("/")
    if separator and scheme not in ("http", "https"):
        raise ValueError(f"target {target!r}: it is host:port, or begins with http:// or https://")
    if scheme == "https" and _HOST.fullmatch(address):
        address = f"{address}:{_HTTPS_PORT}"
    parts = _HOST_AND_PORT.fullmatch(address)
    if parts is None or not 1 <= int(parts["port"]) <= _HIGHEST_PORT:
        raise ValueError(
            f"target {target!r}: it is host:port, such as localhost:50052 or [::1]:50052, with a port from 1 to "
            f"{_HIGHEST_PORT}"
        )
    if scheme == "http" and tls is not False:
        raise ValueError(f"target {target!r} asks for no encryption, and tls for some; write https:// or host:port")
    if not isinstance(tls, bool):
        return address, tls
    return address, grpc.ssl_channel_credentials() if tls or scheme == "https" else None


def metadata_of(token: Token) -> tuple[tuple[str, str], ...]:
    """Return the metadata of one call: its token, and the current span of OpenTelemetry, if the program uses it.

    A token function is called each time, so that it can renew the token.
    """
    text = token() if callable(token) else token
    return (*((("authorization", f"Bearer {text}"),) if text else ()), *traceparent())


def options_of(server_name: str) -> list[tuple[str, int | str]]:
    """The options of a channel to a service whose certificate has the name; empty for that of the target."""
    return [*OPTIONS, ("grpc.ssl_target_name_override", server_name)] if server_name else [*OPTIONS]


class AsyncConnection:
    """Opens the channel with the first call, and again after it was closed."""

    target: str
    _options: list[tuple[str, int | str]]
    _credentials: grpc.ChannelCredentials | None
    _channel: grpc.aio.Channel | None = None

    def _connection(self) -> grpc.aio.Channel:
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self.target, options=self._options)
            else:
                self._channel = grpc.aio.secure_channel(self.target, self._credentials, options=self._options)
        return self._channel


class SyncConnection:
    """The same for threads that share a client."""

    target: str
    _options: list[tuple[str, int | str]]
    _credentials: grpc.ChannelCredentials | None
    _channel: grpc.Channel | None = None
    _opening = threading.Lock()
    """Opening a channel takes no time, so all clients share one lock."""

    def _connection(self) -> grpc.Channel:
        with self._opening:
            if self._channel is None:
                if self._credentials is None:
                    self._channel = grpc.insecure_channel(self.target, options=self._options)
                else:
                    self._channel = grpc.secure_channel(self.target, self._credentials, options=self._options)
            return self._channel


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """A call that will be retried.

    Attributes:
        failures: number of failed attempts.
        delay: seconds until the next attempt.
        error: error of the last attempt, with `method` and `target`.
    """

    failures: int
    delay: float
    error: WorkerServiceError


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How a client retries calls that were UNAVAILABLE.

    It sends the same unit again, so nothing is done twice. Delays double from the first to the maximum, each shortened
    at random by up to a half; a delay that the service names is the minimum.

    Attributes:
        attempts: maximum number of attempts, at least 1; None for as many as the call's timeout allows.
        initial_delay: seconds before the second attempt.
        maximum_delay: maximum seconds between attempts, unless the service names a longer delay.
        reconnect_for: seconds during which a call without a timeout, or a broken watch, is retried.
        on_retry: called before each delay, in the thread or task of the call.
    """

    attempts: int | None = None
    initial_delay: float = 0.1
    maximum_delay: float = 5.0
    reconnect_for: float = 120.0
    on_retry: Callable[[Retry], None] | None = None

    def delay(self, failures: int, failure: WorkerServiceError) -> float:
        """Return the seconds to wait after a number of failures in a row, of which the given error is the last."""
        bound = min(self.maximum_delay, self.initial_delay * 2.0 ** min(failures - 1, 30))
        # Random delays spread clients that failed together; they need no secure randomness.
        return max(bound * random.uniform(0.5, 1.0), failure.retry_after or 0.0)  # noqa: S311

    def exhausted(self, failures: int, since: float) -> bool:
        """Return whether there is no further attempt; `since` is the time.monotonic() of the first failure."""
        return time.monotonic() - since >= self.reconnect_for if self.attempts is None else failures >= self.attempts

    def observe(self, failures: int, failure: WorkerServiceError, delay: float) -> None:
        """Log a retry at debug level, and call `on_retry`."""
        _LOG.debug("retry %s at %s in %.2f s: %s", failure.method, failure.target, delay, failure)
        if self.on_retry is not None:
            self.on_retry(Retry(failures=failures, delay=delay, error=failure))


class Deadline:
    """The deadline of all attempts of a call.

    Args:
        timeout: seconds from now; None for no deadline.
    """

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, at least zero; None without a deadline."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def allows(self, delay: float) -> bool:
        """Return whether time is left after a delay in seconds."""
        remaining = self.remaining()
        return remaining is None or remaining > delay


@dataclass(slots=True)
class Attempts:
    """The attempts of one call."""

    policy: RetryPolicy
    deadline: Deadline
    failures: int = 0
    _since: float = field(default_factory=time.monotonic)
    _last_failure: WorkerServiceError | None = None

    def delay_after(self, failure: WorkerServiceError) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            WorkerServiceError: the failure itself, if there is no next attempt.
        """
        self.failures += 1
        if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._last_failure is not None:
            # The timeout itself says less than the error of the earlier attempt.
            raise self._last_failure from failure
        self._last_failure = failure
        # The deadline, if there is one, is the only limit.
        bounded = self.deadline.remaining() is not None and self.policy.attempts is None
        if not failure.transient or (not bounded and self.policy.exhausted(self.failures, self._since)):
            raise failure
        delay = self.policy.delay(self.failures, failure)
        if not self.deadline.allows(delay):
            raise failure
        self.policy.observe(self.failures, failure, delay)
        return delay


@dataclass(slots=True)
class Reconnects:
    """The attempts of one stream, counted again from zero whenever a message arrives."""

    policy: RetryPolicy
    deadline: Deadline
    failures: int = 0
    began: bool = False
    since: float = field(default_factory=time.monotonic)

    def arrived(self) -> None:
        """Record that the stream works."""
        self.failures, self.began = 0, True

    def delay_after(self, failure: WorkerServiceError) -> float:
        """Return the seconds to wait before the stream is resumed.

        A stream that never started is retried no longer than a call.

        Raises:
            WorkerServiceError: the failure itself, if the stream is not retried.
        """
        if self.failures == 0:
            self.since = time.monotonic()
        self.failures += 1
        patient = (
            time.monotonic() - self.since < self.policy.reconnect_for
            if self.began
            else not self.policy.exhausted(self.failures, self.since)
        )
        delay = self.policy.delay(self.failures, failure)
        if not failure.transient or not patient or not self.deadline.allows(delay):
            raise failure
        self.policy.observe(self.failures, failure, delay)
        return delay
