"""Collect a program's output up to a limit, with its messages, and measure what else it writes."""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path
from typing import Literal

from .guest import MARK

__all__ = ["Output", "WriteCounter"]


class Output:
    """Collect output; called with the stream and the text.

    Args:
        limit: maximum bytes of both streams together; the rest is dropped, and the program continues.
        message_limit: maximum bytes of a message.
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
        """Keep the text that fits."""
        data = text.encode("utf-8", "replace")
        room = self._limit - self._seen_bytes
        self._seen_bytes += len(data)
        # Keep a message too, until `take_message` removes it.
        if room > 0:
            self._kept[stream].append(text if len(data) <= room else data[:room].decode("utf-8", "ignore"))
        if stream == "stdout":
            self._seen_stdout += len(text)
            self._tail.append(text)
            self._tail_size += len(text)
            while self._tail_size - len(self._tail[0]) >= self._message_limit:
                self._tail_size -= len(self._tail.popleft())

    def take_message(self) -> str | None:
        """Remove and return the message at the end of the output; None if there is none."""
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
        """Kept standard output and standard error."""
        return "".join(self._kept["stdout"]), "".join(self._kept["stderr"])

    @property
    def seen_bytes(self) -> int:
        """Bytes printed so far, kept or dropped."""
        return self._seen_bytes

    @property
    def truncated(self) -> bool:
        """Whether output was dropped."""
        return self._seen_bytes > self._limit


class WriteCounter:
    """Measures what a process has written, except its printed output. Linux only.

    So the length of an exception's text is known before it is read. Monty passes an error as a whole, and converting
    its text takes up to four bytes per character: half a gigabyte for a program with 256 MiB.
    """

    def __init__(self, process: int | None) -> None:
        self._file = None if process is None else Path(f"/proc/{process}/io")
        self._passed = self._total() or 0

    def skip_printed(self, printed_bytes: int) -> None:
        """Reset the measurement; so many of the bytes written so far were printed."""
        self._passed = (self._total() or 0) - printed_bytes

    def unprinted_bytes(self, printed_bytes: int) -> int:
        """Return the bytes written since then, without the printed ones; 0 if unknown."""
        total = self._total()
        return 0 if total is None else max(0, total - self._passed - printed_bytes)

    def _total(self) -> int | None:
        if self._file is not None:
            # The process is gone or the file unreadable: read the text, as on a system without such a file.
            with contextlib.suppress(OSError, ValueError):
                for line in self._file.read_text(encoding="ascii").splitlines():
                    name, _, value = line.partition(": ")
                    if name == "wchar":
                        return int(value)
        return None
