"""A small HTTP server for feeds, so that a harvest of a bundled feed is a real download.

It serves one folder on the loopback interface, with the features of real feed servers: ETag, Last-Modified, Range,
If-Range, If-None-Match and If-Modified-Since. It can also turn them off, be slow and fail, like real feed servers.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

__all__ = ["FeedServer", "ServedRequest"]

_SEND_BYTES = 64 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CONTENT_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".xml": "application/xml",
    ".jsonl": "application/jsonl",
}
_MAX_REMEMBERED = 10_000


@dataclass(kw_only=True, slots=True)
class ServedRequest:
    """One request and its answer; updated while the answer is sent."""

    path: str
    """Requested path."""
    range: str
    """The Range header; empty if there was none."""
    status: int
    """The HTTP status of the answer."""
    condition: str = ""
    """The If-None-Match or If-Modified-Since header; empty if there was none."""
    client_port: int
    """Port of the client; requests with the same port used one connection."""
    body_bytes: int = 0
    """Bytes of the body that were sent before its end, or before the client disconnected."""


class FeedServer:
    """Serves the files of one folder over HTTP while entered with `with` or `async with`.

    Attributes:
        requests: the last 10,000 requests, in the order of their answers' start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ranges: bool = True,
        validators: bool = True,
        bytes_per_second: int | None = None,
        fail_first: int = 0,
        fail_status: int = 503,
    ) -> None:
        """Configure the server.

        Args:
            folder: folder with the files to serve, including subfolders; or a single file.
            host: address to listen on.
            port: port to listen on; 0 takes a free one.
            ranges: whether to support Range.
            validators: whether to send ETag and Last-Modified.
            bytes_per_second: speed of bodies; None means unlimited.
            fail_first: number of requests to answer with `fail_status` at first.
            fail_status: HTTP status of those.
        """
        self._root = folder.resolve()
        self._address = (host, port)
        self.ranges = ranges
        self.validators = validators
        self.bytes_per_second = bytes_per_second
        self.fail_status = fail_status
        self.requests: deque[ServedRequest] = deque(maxlen=_MAX_REMEMBERED)
        self._failures_left = fail_first
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that it listens on.

        Raises:
            RuntimeError: the server is not running.
        """
        if self._server is None:
            raise RuntimeError("the feed server is not running; enter it with 'with' first")
        return int(self._server.server_address[1])

    def url(self, name: str = "") -> str:
        """Return the URL of a file; without a name, of the single file."""
        host = f"[{self._address[0]}]" if ":" in self._address[0] else self._address[0]
        return f"http://{host}:{self.port}/{quote(name or self._root.name)}"

    @property
    def bytes_sent(self) -> int:
        """Bytes of all sent bodies."""
        return sum(request.body_bytes for request in list(self.requests))

    def start(self) -> None:
        """Start the server.

        Raises:
            OSError: the port is taken.
        """
        self._stopping.clear()
        self._server = _Server(self, self._address)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="feed-server", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop the server and close open connections. A second call does nothing."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is None or thread is None:
            return
        self._stopping.set()
        server.shutdown()
        thread.join()
        server.close_connections()
        server.server_close()

    def __enter__(self) -> FeedServer:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self.stop()

    async def __aenter__(self) -> FeedServer:
        """Start the server."""
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self.stop()

    def find(self, url_path: str) -> Path | None:
        """Return the file of a request path; None if it does not exist or is outside the folder."""
        name = unquote(urlsplit(url_path).path).lstrip("/")
        if self._root.is_file():
            return self._root if name == self._root.name else None
        try:
            path = (self._root / name).resolve()
            return path if path.is_relative_to(self._root) and path.is_file() else None
        except (OSError, ValueError):
            return None

    def takes_failure(self) -> bool:
        """Return whether this request must fail, and count it."""
        with self._lock:
            failing = self._failures_left > 0
            self._failures_left -= failing
            return failing

    def pause(self, seconds: float) -> None:
        """Wait, but not after the server stopped."""
        self._stopping.wait(seconds)


class _Server(ThreadingHTTPServer):
    """Tracks its connections, so that stopping closes those that clients keep alive."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, feed_server: FeedServer, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.feed_server = feed_server
        self._connections: set[socket.socket] = set()
        self._closing = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._closing:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        assert isinstance(request, socket.socket)
        with self._closing:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._closing:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: a client that disconnects is not an error, and the server's own errors are answered with 500."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    # Head and body are sent separately; with Nagle's algorithm the body waits 40 ms for the head's acknowledgement.
    disable_nagle_algorithm = True
    timeout = 60

    @property
    def _owner(self) -> FeedServer:
        return cast("_Server", self.server).feed_server

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing; `FeedServer.requests` has the requests."""

    def _answer(self, *, with_body: bool) -> None:
        owner = self._owner
        if owner.takes_failure():
            self._refuse(owner.fail_status)
            return
        path = owner.find(self.path)
        if path is None:
            self._refuse(404)
            return
        try:
            with path.open("rb") as file:
                self._send_file(file, path, with_body=with_body)
        except OSError:
            self.close_connection = True

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self._remember(status)
        self.end_headers()

    def _send_file(self, file: Any, path: Path, *, with_body: bool) -> None:
        owner = self._owner
        found = path.stat()
        size = found.st_size
        etag = f'"{size:x}-{found.st_mtime_ns:x}"'
        modified = formatdate(found.st_mtime, usegmt=True)
        if owner.validators and self._has(etag, found.st_mtime):
            self.send_response(304)
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", modified)
            self._remember(304)
            self.end_headers()
            return
        span = self._asked_range(size, etag, modified) if owner.ranges else None
        first, end, status = (0, size, 200) if span is None else (*span, 206)
        if first >= end and span is not None:
            first, end, status = 0, 0, 416
        self.send_response(status)
        self.send_header("Content-Type", _CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream"))
        self.send_header("Content-Length", str(end - first))
        if owner.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if owner.validators:
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", modified)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        elif status == 416:
            self.send_header("Content-Range", f"bytes */{size}")
        request = self._remember(status)
        self.end_headers()
        if with_body:
            file.seek(first)
            while first + request.body_bytes < end:
                self._send_piece(file, min(_SEND_BYTES, end - first - request.body_bytes), request)

    def _has(self, etag: str, modified: float) -> bool:
        """Return whether the client has the file already (RFC 9110, 13.1): by ETag, or without one by time."""
        asked = self.headers.get("If-None-Match")
        if asked is not None:
            known = {each.strip().removeprefix("W/") for each in asked.split(",")}
            return etag in known or "*" in known
        try:
            since = parsedate_to_datetime(self.headers.get("If-Modified-Since", ""))
        except ValueError:
            return False
        return int(modified) <= since.timestamp()

    def _asked_range(self, size: int, etag: str, modified: str) -> tuple[int, int] | None:
        """Return first byte and end of the requested range; None for all, an empty span if it is unsatisfiable."""
        found = _RANGE.fullmatch(self.headers.get("Range", "").strip())
        condition = self.headers.get("If-Range", etag).strip()
        if found is None or not (found[1] or found[2]) or condition not in (etag, modified):
            return None
        if not found[1]:
            return max(0, size - int(found[2])), size
        first = int(found[1])
        end = min(size, int(found[2]) + 1) if found[2] else size
        return (first, end) if first < size else (size, size)

    def _send_piece(self, file: Any, size: int, request: ServedRequest) -> None:
        owner = self._owner
        rate = owner.bytes_per_second
        if rate is not None:
            size = min(size, max(1, rate // 10))
        piece: bytes = file.read(size)
        if not piece:
            # The file became shorter than its Content-Length; closing the connection is the only way to report it.
            raise ConnectionAbortedError
        request.body_bytes += len(piece)
        self.wfile.write(piece)
        if rate is not None:
            owner.pause(len(piece) / rate)

    def _remember(self, status: int) -> ServedRequest:
        """Record the request before its answer is sent, so that a client that has the answer finds the record."""
        request = ServedRequest(
            path=self.path,
            range=self.headers.get("Range", ""),
            status=status,
            condition=self.headers.get("If-None-Match") or self.headers.get("If-Modified-Since") or "",
            client_port=self.client_address[1],
        )
        self._owner.requests.append(request)
        return request
