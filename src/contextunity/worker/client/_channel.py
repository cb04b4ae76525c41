"""The connection to the service, and when a call is tried again."""

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

from .errors import WorkerServiceError

__all__ = ["Retry", "RetryPolicy"]

_LOG = logging.getLogger("contextunity.worker.client")

Token: TypeAlias = str | Callable[[], str] | None
Tls: TypeAlias = bool | grpc.ChannelCredentials

_HOST = re.compile(r"\[[^][/\s]+\]|[^][:/\s]+")
_HOST_AND_PORT = re.compile(rf"({_HOST.pattern}):(?P<port>[0-9]{{1,5}})")
"""An IPv6 address stands in brackets, for it has colons of its own."""
_HIGHEST_PORT = 65535
_HTTPS_PORT = 443
_MAX_UNIT_BYTES = 50 * 1024 * 1024
OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", _MAX_UNIT_BYTES),
    ("grpc.max_send_message_length", _MAX_UNIT_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A watch can be silent for hours; without pings nobody notices that the line is dead.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Otherwise a channel that lost its service looks for it again only after up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def address_of(target: str, tls: Tls) -> tuple[str, grpc.ChannelCredentials | None]:
    """What grpcio connects to, and the credentials for it; None for no encryption.

    Args:
        target: `host:port`, or the same behind `http://` or `https://`; the latter asks for TLS, and may leave out 443.
        tls: True for TLS with the system's roots, or credentials of the caller's own.

    Raises:
        ValueError: the target and `tls` contradict each other, or it has no host, or no port from 1 to 65535.
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
    """The metadata of one call; a token that is a function is asked each time, so that it can be renewed."""
    text = token() if callable(token) else token
    return (("authorization", f"Bearer {text}"),) if text else ()


def options_of(server_name: str) -> list[tuple[str, int | str]]:
    """The options of a channel to a service whose certificate has the name; empty for that of the target."""
    return [*OPTIONS, ("grpc.ssl_target_name_override", server_name)] if server_name else [*OPTIONS]


class AsyncConnection:
    """Opens the channel with the first call, and anew after it was closed."""

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
    """The same for programs whose threads share a client."""

    target: str
    _options: list[tuple[str, int | str]]
    _credentials: grpc.ChannelCredentials | None
    _channel: grpc.Channel | None = None
    _opening = threading.Lock()
    """Opening a channel takes no time, so one lock serves all clients."""

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
    """One call that is about to be tried again.

    Attributes:
        failures: attempts that failed so far.
        delay: seconds until the next one.
        error: of the last attempt; its `method` and `target` say what was called.
    """

    failures: int
    delay: float
    error: WorkerServiceError


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How patiently a client calls again what was UNAVAILABLE.

    The same unit is sent again, so nothing is done twice. Delays double from the first to the longest, each shortened
    at random by up to a half; where the service names a delay, that one is kept at least.

    Attributes:
        attempts: calls in all, at least 1; None for as many as the call's timeout allows.
        initial_delay: seconds before the second attempt.
        maximum_delay: seconds between attempts at most, unless the service asks for more.
        reconnect_for: seconds for which a call without a timeout, or a watch that broke, is tried again.
        on_retry: called before each delay, in the thread or task of the call.
    """

    attempts: int | None = None
    initial_delay: float = 0.1
    maximum_delay: float = 5.0
    reconnect_for: float = 120.0
    on_retry: Callable[[Retry], None] | None = None

    def delay(self, failures: int, failure: WorkerServiceError) -> float:
        """Seconds to wait after so many failures in a row, the given one being the last."""
        bound = min(self.maximum_delay, self.initial_delay * 2.0 ** min(failures - 1, 30))
        # Chance spreads clients that failed together; nothing secret hangs on it.
        return max(bound * random.uniform(0.5, 1.0), failure.retry_after or 0.0)  # noqa: S311

    def exhausted(self, failures: int, since: float) -> bool:
        """Whether there is no further attempt after so many failures, the first at a time of time.monotonic()."""
        return time.monotonic() - since >= self.reconnect_for if self.attempts is None else failures >= self.attempts

    def observe(self, failures: int, failure: WorkerServiceError, delay: float) -> None:
        """Logs at debug that a call is tried again, and calls `on_retry`."""
        _LOG.debug("%s at %s is tried again in %.2f s: %s", failure.method, failure.target, delay, failure)
        if self.on_retry is not None:
            self.on_retry(Retry(failures=failures, delay=delay, error=failure))


class Deadline:
    """A moment that all attempts of a call share.

    Args:
        timeout: seconds from now; None for never.
    """

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, never negative; None for no end."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def allows(self, delay: float) -> bool:
        """Says whether anything is left after a delay in seconds."""
        remaining = self.remaining()
        return remaining is None or remaining > delay


@dataclass(slots=True)
class Attempts:
    """The attempts at one call."""

    policy: RetryPolicy
    deadline: Deadline
    failures: int = 0
    _since: float = field(default_factory=time.monotonic)
    _last_failure: WorkerServiceError | None = None

    def delay_after(self, failure: WorkerServiceError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            WorkerServiceError: the failure itself, where there is no next attempt.
        """
        self.failures += 1
        if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._last_failure is not None:
            # That the time was over says less than what was told while there was some.
            raise self._last_failure from failure
        self._last_failure = failure
        # With a deadline, that alone bounds a call.
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
    """The attempts at one stream, counted anew whenever something arrives."""

    policy: RetryPolicy
    deadline: Deadline
    failures: int = 0
    began: bool = False
    since: float = field(default_factory=time.monotonic)

    def arrived(self) -> None:
        """Notes that the stream works."""
        self.failures, self.began = 0, True

    def delay_after(self, failure: WorkerServiceError) -> float:
        """Seconds to wait before the stream is taken up again.

        A stream that never began is given up as early as a call.

        Raises:
            WorkerServiceError: the failure itself, where the stream is given up.
        """
        if self.failures == 0:
            self.since = time.monotonic()
        self.failures += 1
        # A server that is told to stop cancels the streams that are still open.
        lost = failure.transient or (self.began and failure.code is grpc.StatusCode.CANCELLED)
        patient = (
            time.monotonic() - self.since < self.policy.reconnect_for
            if self.began
            else not self.policy.exhausted(self.failures, self.since)
        )
        delay = self.policy.delay(self.failures, failure)
        if not lost or not patient or not self.deadline.allows(delay):
            raise failure
        self.policy.observe(self.failures, failure, delay)
        return delay
