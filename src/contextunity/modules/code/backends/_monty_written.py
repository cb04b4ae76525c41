"""Tells how long the text of an exception is before it is read.

Monty hands an error over whole, and turning its text into one of ours takes up to four bytes a character: half a
gigabyte, where a program may have 256 MiB. What its process has written tells the length beforehand.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["Written"]


class Written:
    """What a process has written since it was last asked for, beside what it printed. Linux alone tells it."""

    def __init__(self, process: int | None) -> None:
        self._file = None if process is None else Path(f"/proc/{process}/io")
        self._passed = self._total() or 0

    def pass_over(self, printed_bytes: int) -> None:
        """Leaves out what it has written so far, of which so much was printed."""
        self._passed = (self._total() or 0) - printed_bytes

    def beyond(self, printed_bytes: int) -> int:
        """Bytes that it has written since, beside what it has printed in all; 0 where this cannot be known."""
        total = self._total()
        return 0 if total is None else max(0, total - self._passed - printed_bytes)

    def _total(self) -> int | None:
        if self._file is not None:
            # Gone, or not to be looked at: then the text is read, as where there is no such file.
            with contextlib.suppress(OSError, ValueError):
                for line in self._file.read_text(encoding="ascii").splitlines():
                    name, _, value = line.partition(": ")
                    if name == "wchar":
                        return int(value)
        return None
