"""Collects what a program prints, within its bound, and the messages that are printed among it."""

from __future__ import annotations

from collections import deque
from typing import Literal

from ._monty_guest import MARK

__all__ = ["Output"]


class Output:
    """Takes output as it comes; called with the stream and the text.

    Args:
        limit: bytes that are kept, of both streams together; what is beyond is dropped, and the program goes on.
        message_limit: bytes that a message may take.
    """

    def __init__(self, limit: int, message_limit: int) -> None:
        self._limit = limit
        self._kept: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._seen_bytes = 0
        self._seen_stdout = 0
        self._message_limit = message_limit + 2 * len(MARK)
        self._tail: deque[str] = deque()
        self._tail_size = 0

    def __call__(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        """Keeps what there is room for."""
        data = text.encode("utf-8", "replace")
        room = self._limit - self._seen_bytes
        self._seen_bytes += len(data)
        # What a message may yet take back is kept as well; `streams` cuts it.
        if room > 0:
            self._kept[stream].append(text if len(data) <= room else data[:room].decode("utf-8", "ignore"))
        if stream == "stdout":
            self._seen_stdout += len(text)
            self._tail.append(text)
            self._tail_size += len(text)
            while self._tail_size - len(self._tail[0]) >= self._message_limit:
                self._tail_size -= len(self._tail.popleft())

    def take_message(self) -> str | None:
        """The message that ends what was printed, which then counts as not printed; None where there is none."""
        tail = "".join(self._tail)
        start = tail.rfind(MARK, 0, max(0, len(tail) - len(MARK))) if tail.endswith(MARK) else -1
        if start < 0:
            return None
        whole = tail[start:]
        self._seen_bytes -= len(whole.encode("utf-8", "replace"))
        self._seen_stdout -= len(whole)
        self._kept["stdout"] = ["".join(self._kept["stdout"])[: self._seen_stdout]]
        self._tail, self._tail_size = deque(), 0
        return whole[len(MARK) : -len(MARK)]

    @property
    def streams(self) -> tuple[str, str]:
        """Standard output and standard error, as far as kept."""
        return "".join(self._kept["stdout"]), "".join(self._kept["stderr"])

    @property
    def seen_bytes(self) -> int:
        """Bytes that were printed so far, kept or not."""
        return self._seen_bytes

    @property
    def truncated(self) -> bool:
        """Whether something was dropped."""
        return self._seen_bytes > self._limit
