"""Reads what a program writes, as much as is wanted, and lets the rest go by."""

from __future__ import annotations

import asyncio
import codecs
import os

__all__ = ["Budget", "Stream"]

_CHUNK = 1 << 16
_PASSED_BY_AT_ONCE = 1 << 20


class Budget:
    """Bytes that several streams may keep together."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, data: bytes) -> bytes:
        """Returns the part of the data that there is room for."""
        kept = data[: self._left]
        self._left -= len(kept)
        return kept

    @property
    def spent(self) -> bool:
        """Whether there is no more room."""
        return self._left <= 0


class Stream:
    """The reading end of a pipe of which a child holds the other one."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self.truncated = False
        self._null: int | None = None
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._read)

    @property
    def data(self) -> bytes:
        """What was kept."""
        return bytes(self._kept)

    @property
    def text(self) -> str:
        """What was kept, as text; a character that was cut off at its end is left out."""
        return codecs.getincrementaldecoder("utf-8")("replace").decode(self.data, final=not self.truncated)

    def release_writer(self) -> None:
        """Closes the writing end, once the child has it."""
        if self.writer != -1:
            os.close(self.writer)
            self.writer = -1

    async def end(self) -> None:
        """Waits until the child has closed the other end, or has ended."""
        await asyncio.shield(self._ended)

    def close(self) -> None:
        """Closes what is open."""
        self.release_writer()
        if not self._ended.done():
            self._close_reader()
            self._ended.cancel()

    def _read(self) -> None:
        try:
            if self.truncated:
                size = self._pass_by()
            else:
                chunk = os.read(self._reader, _CHUNK)
                size = len(chunk)
                kept = self._budget.take(chunk)
                self._kept += kept
                self.truncated = len(kept) < size
        except BlockingIOError:
            return
        if size == 0:
            self._close_reader()
            self._ended.set_result(None)

    def _pass_by(self) -> int:
        """Moves what is in the pipe away without a copy: a flood would cost the worker more than the program."""
        if self._null is None:
            self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        return os.splice(self._reader, self._null, _PASSED_BY_AT_ONCE)

    def _close_reader(self) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        if self._null is not None:
            os.close(self._null)
            self._null = None
