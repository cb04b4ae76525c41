"""How the service is reached: address, encryption, limits, token."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TypeAlias

import grpc

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


class AsyncConnection:
    """Opens the channel with the first call, and anew after it was closed."""

    target: str
    _credentials: grpc.ChannelCredentials | None
    _channel: grpc.aio.Channel | None = None

    def _connection(self) -> grpc.aio.Channel:
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self.target, options=OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(self.target, self._credentials, options=OPTIONS)
        return self._channel


class SyncConnection:
    """The same for programs whose threads share a client."""

    target: str
    _credentials: grpc.ChannelCredentials | None
    _channel: grpc.Channel | None = None
    _opening = threading.Lock()
    """Opening a channel takes no time, so one lock serves all clients."""

    def _connection(self) -> grpc.Channel:
        with self._opening:
            if self._channel is None:
                if self._credentials is None:
                    self._channel = grpc.insecure_channel(self.target, options=OPTIONS)
                else:
                    self._channel = grpc.secure_channel(self.target, self._credentials, options=OPTIONS)
            return self._channel
