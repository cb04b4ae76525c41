"""A client of HTTP/2 that sends what no well-behaved one would: half a message, and no more than it is allowed to."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from typing import Any

__all__ = ["RawConnection"]

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_INITIAL_WINDOW = 65_535


class RawConnection:
    """A connection.

    Attributes:
        sent: bytes of data that the server let it send, by stream.
        ended: streams that the server has ended.
        farewell: what the server said when it ended the connection; empty where it said nothing.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, reads: bool) -> None:
        self._reader, self._writer = reader, writer
        self._window, self._initial = _INITIAL_WINDOW, _INITIAL_WINDOW
        self._windows, self._left = dict[int, int](), dict[int, bytes]()
        self._changed = asyncio.Event()
        self.sent, self.ended, self.farewell = dict[int, int](), set[int](), b""
        # Who does not read lets no byte of an answer be sent either.
        settings = b"" if reads else struct.pack(">HI", 4, 0)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, settings))
        self._reading: asyncio.Task[Any] = asyncio.create_task(self._read() if reads else asyncio.Event().wait())

    @classmethod
    async def connect(cls, host: str, port: int, *, reads: bool = True) -> RawConnection:
        """Connects; one that does not read leaves all answers where they are."""
        return cls(*await asyncio.open_connection(host, port), reads=reads)

    def call(
        self, stream: int, path: str, *, declared: int = 0, sends: int = 0, message: bytes = b"", token: str = ""
    ) -> None:
        """Begins a call whose message is declared to have some bytes, of which it will send fewer; or a whole one."""
        self._writer.write(_frame(_HEADERS, 4, stream, _headers(path, token)))
        self._windows[stream] = self._initial
        self._left[stream], self.sent[stream] = (
            struct.pack(">BI", 0, declared or len(message)) + (message or b"\0" * sends),
            0,
        )
        self._send()

    async def call_and_cancel(self, path: str, *, times: int, token: str = "") -> None:
        """Begins calls and cancels each at once, as fast as the server takes the bytes."""
        headers = _headers(path, token)
        for stream in range(1, 2 * times, 2):
            self._writer.write(_frame(_HEADERS, 4, stream, headers) + _frame(_RST_STREAM, 0, stream, b"\0\0\0\x08"))
            await self._writer.drain()

    async def ping(self, times: int) -> None:
        """Sends pings one after another."""
        for _ in range(times):
            self._writer.write(_frame(_PING, 0, 0, b"8 bytes!"))
            await self._writer.drain()

    async def until_hung_up(self) -> None:
        """Waits until the server has ended the connection."""
        await asyncio.gather(self._reading, return_exceptions=True)

    async def until_ended(self, *streams: int) -> None:
        """Waits until the server has ended the streams."""
        while not self.ended.issuperset(streams):
            self._changed.clear()
            await self._changed.wait()

    async def until_so_many_ended(self, count: int) -> None:
        """Waits until the server has ended so many streams."""
        while len(self.ended) < count:
            self._changed.clear()
            await self._changed.wait()

    async def until_sent(self, stream: int, count: int) -> None:
        """Waits until the server has let so much be sent."""
        while self.sent[stream] < count:
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        """Hangs up."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()

    def _send(self) -> None:
        for stream, left in self._left.items():
            while left and stream not in self.ended:
                count = min(len(left), self._window, self._windows[stream], 16_384)
                if count <= 0:
                    break
                self._writer.write(_frame(_DATA, 0, stream, left[:count]))
                left = left[count:]
                self._window -= count
                self._windows[stream] -= count
                self.sent[stream] += count
            self._left[stream] = left

    async def _read(self) -> None:
        while True:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3]))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:]) & 0x7FFFFFFF
            if kind == _SETTINGS and not flags & 1:
                for place in range(0, len(payload), 6):
                    name, value = struct.unpack(">HI", payload[place : place + 6])
                    if name == 4:
                        for each in self._windows:
                            self._windows[each] += value - self._initial
                        self._initial = value
                self._writer.write(_frame(_SETTINGS, 1, 0, b""))
            elif kind == _PING and not flags & 1:
                self._writer.write(_frame(_PING, 1, 0, payload))
            elif kind == _WINDOW_UPDATE:
                (more,) = struct.unpack(">I", payload)
                if stream:
                    self._windows[stream] = self._windows.get(stream, self._initial) + more
                else:
                    self._window += more
            elif (kind == _HEADERS and flags & 1) or kind == _RST_STREAM:
                self.ended.add(stream)
            elif kind == _GOAWAY:
                self.farewell = payload[8:]
            self._send()
            self._changed.set()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _headers(path: str, token: str) -> bytes:
    headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    headers += [("content-type", "application/grpc"), ("te", "trailers")]
    return _packed(headers + ([("authorization", f"Bearer {token}")] if token else []))


def _packed(headers: Iterable[tuple[str, str]]) -> bytes:
    """Headers as HPACK has them without its tables and without its compression."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    length, left = bytearray([127]), len(data) - 127
    while left > 127:
        length.append(left & 127 | 128)
        left >>= 7
    return bytes([*length, left]) + data
