"""Notices that files have changed, for settings that are reloaded without a restart."""

from __future__ import annotations

import time
from pathlib import Path

__all__ = ["FileChanges"]

_PAUSE = 1.0
"""Seconds between checks where `due` is asked; a check of an unchanged file is one system call."""


class FileChanges:
    """Changes of some files since they were last looked at; first, since this object was created.

    Create it before the files are read, so that no change in between is lost. A file that disappears has changed, too.

    Args:
        paths: the files.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = self._stamps()
        self._checked_at = time.monotonic()

    def due(self) -> bool:
        """Return whether it is time to check again: a second after the last time that it was, or after the creation."""
        now = time.monotonic()
        if now - self._checked_at < _PAUSE:
            return False
        self._checked_at = now
        return True

    def found(self) -> bool:
        """Return whether a file has changed. Each change is returned once, even if its content is then rejected."""
        before, self._seen = self._seen, self._stamps()
        return self._seen != before

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
