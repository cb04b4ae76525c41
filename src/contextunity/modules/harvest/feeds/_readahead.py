"""Remembers between two pages what was downloaded beyond the first one, and how long entries are.

A page's request brings a little more than the page. Kept here, the rest is where the next page starts, so that
nothing is downloaded twice while one process reads a feed. Forgetting it costs one window, never a wrong row: it is
kept by url and version, and without it everything is read from the cursor.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from contextunity.gen.contextunity.harvest.v1 import Feed

from ._model import MAX_WINDOW_BYTES, MIN_WINDOW_BYTES

__all__ = ["SHARED", "Readahead"]

_MAX_FEEDS = 8
_GUESSED_ENTRY_BYTES = 1500.0
"""What an entry is taken to have before any was read; the products of real exports have 700 to 3,000 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    offset: int
    tail: bytes
    entry_bytes: float


class Readahead:
    """What is known of the feeds that are being read; bounded in feeds and bytes."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    def tail(self, feed: Feed, offset: int) -> bytes:
        """Give the bytes from `offset` on that are at hand."""
        known = self._known.get((feed.url, feed.version))
        if known is None or not known.offset <= offset <= known.offset + len(known.tail):
            return b""
        return known.tail[offset - known.offset :]

    def entry_bytes(self, feed: Feed) -> float:
        """Tell how long an entry is on average."""
        known = self._known.get((feed.url, feed.version))
        return known.entry_bytes if known is not None and known.entry_bytes else _GUESSED_ENTRY_BYTES

    def keep(self, feed: Feed, *, offset: int, tail: bytes, entry_bytes: float = 0.0) -> None:
        """Remember what follows a page. `entry_bytes` 0 means that nothing new is known."""
        key = (feed.url, feed.version)
        before = self._known.pop(key, None)
        if not entry_bytes and before is not None:
            entry_bytes = before.entry_bytes
        self._known[key] = _Known(offset=offset, tail=tail[:MAX_WINDOW_BYTES], entry_bytes=entry_bytes)
        while len(self._known) > _MAX_FEEDS:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget everything, as a new process does."""
        self._known.clear()


def window(entries: int, entry_bytes: float) -> int:
    """Tell how many bytes to ask for, for so many entries: a little more than they should take."""
    wanted = int(entries * entry_bytes * 1.1 + 2 * entry_bytes)
    return max(MIN_WINDOW_BYTES, min(MAX_WINDOW_BYTES, wanted))


SHARED = Readahead()
"""What all pages of this process go by."""
