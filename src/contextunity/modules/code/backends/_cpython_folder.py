"""The folder that the scratch folders of a backend's programs lie in, and those that killed workers left behind."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import stat
import tempfile
from pathlib import Path

from process_jail.library import open_to_all
from process_jail.scratch import remove

__all__ = ["ScratchRoot"]

_log = logging.getLogger(__name__)
_PREFIX, _PREFIX_UNLOCKED = "contextworker-code-", "contextworker-new-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ScratchRoot:
    """A folder of one backend's own, locked while this process lives."""

    def __init__(self, parent: Path | None, user: tuple[int, int] | None) -> None:
        """Makes the folder.

        Args:
            parent: where, made unless it is there. The folder for temporary files where none is given, or where the
                user could not get there.
            user: user and group that the scratch folders are for, where it is not this process's own.

        Raises:
            OSError: it cannot be made there.
        """
        self._user = user
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        place = (
            parent if parent is not None and (user is None or open_to_all(str(parent))) else Path(tempfile.gettempdir())
        )
        _remove_left_behind(place)
        # Under another name until it is locked: a worker that starts now would take it for one left behind.
        made = Path(tempfile.mkdtemp(prefix=_PREFIX_UNLOCKED, dir=place))
        self._lock = os.open(made, _FOLDER)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._path = made.rename(place / (_PREFIX + secrets.token_hex(8)))
        if user is not None:
            # Its user must get through to the folder of its run, and needs to see nothing on the way.
            self._path.chmod(0o711)

    def make(self) -> tuple[str, int]:
        """Makes a scratch folder; returns its path, and it, open."""
        path = str(self._path / secrets.token_hex(8))
        os.mkdir(path, 0o700)
        descriptor = os.open(path, _FOLDER)
        if self._user is not None:
            os.fchown(descriptor, *self._user)
        return path, descriptor

    @staticmethod
    def remove(path: str) -> None:
        """Removes a scratch folder. Where that fails it says so in the log, and the next worker tries again."""
        try:
            remove(path)
        except OSError as error:
            _log.warning("the scratch folder %s cannot be removed: %s", path, error)

    def close(self) -> None:
        """Removes the folder with all that is in it."""
        if self._lock != -1:
            self.remove(str(self._path))
            os.close(self._lock)
            self._lock = -1


def _remove_left_behind(place: Path) -> None:
    with os.scandir(place) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in found:
        with contextlib.suppress(OSError):
            _remove_if_left_behind(path)


def _remove_if_left_behind(path: str) -> None:
    """Removes a folder of ours whose lock nobody holds; anybody may have put something of that name there."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    lock = os.open(path, _FOLDER)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)
    finally:
        os.close(lock)
