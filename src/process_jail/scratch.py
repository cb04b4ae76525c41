"""Create, measure and remove the scratch folders of programs. Their content is untrusted."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import stat
import tempfile
from pathlib import Path

__all__ = ["BLOCK", "ScratchRoot", "occupied", "open_to_all", "remove"]

_log = logging.getLogger(__name__)

BLOCK = 4096
"""Minimum bytes that each file or folder counts for, so that empty ones are not free."""
_MAX_DEPTH = 32
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ScratchRoot:
    """The folder that contains the scratch folders of one jail, locked while this process lives."""

    def __init__(self, parent: Path | None, user: tuple[int, int] | None, *, prefix: str) -> None:
        """Create the folder, and remove those that killed processes left in the same place.

        Args:
            parent: where to create it; created if missing. None, or a folder that the user cannot access, means the
                system's folder for temporary files.
            user: user and group of the programs, if not this process's own.
            prefix: prefix of the folder's name. Unlocked folders of this prefix are removed.

        Raises:
            OSError: the folder cannot be created.
        """
        self._user = user
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        place = (
            parent if parent is not None and (user is None or open_to_all(str(parent))) else Path(tempfile.gettempdir())
        )
        _remove_left_behind(place, prefix)
        # Use another name until it is locked: a process that starts now would remove it as left behind.
        made = Path(tempfile.mkdtemp(prefix=f"new-{prefix}", dir=place))
        self._lock = os.open(made, _FOLDER)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._path = made.rename(place / f"{prefix}{secrets.token_hex(8)}")
        if user is not None:
            # That user may pass through to the folder of its run, but not list this one.
            self._path.chmod(0o711)

    def make(self) -> tuple[str, int]:
        """Create a scratch folder; return its path and its open descriptor."""
        path = str(self._path / secrets.token_hex(8))
        os.mkdir(path, 0o700)
        descriptor = os.open(path, _FOLDER)
        if self._user is not None:
            os.fchown(descriptor, *self._user)
        return path, descriptor

    @staticmethod
    def remove(path: str) -> None:
        """Remove a scratch folder. Only log a failure: the next process that starts here retries."""
        try:
            remove(path)
        except OSError as error:
            _log.warning("the scratch folder %s cannot be removed: %s", path, error)

    def close(self) -> None:
        """Remove the folder and its content."""
        if self._lock != -1:
            self.remove(str(self._path))
            os.close(self._lock)
            self._lock = -1


def _remove_left_behind(place: Path, prefix: str) -> None:
    with os.scandir(place) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(prefix)]
    for path in found:
        with contextlib.suppress(OSError):
            _remove_if_left_behind(path)


def _remove_if_left_behind(path: str) -> None:
    """Remove a folder if it is this user's and unlocked; other users may have created one of that name."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    lock = os.open(path, _FOLDER)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)
    finally:
        os.close(lock)


def open_to_all(folder: str) -> bool:
    """Return whether any user can reach a folder, by the modes of the folders in its path."""
    path: str = os.path.realpath(folder)
    while True:
        if not os.stat(path).st_mode & 0o001:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def occupied(folder: int, enough: int, pid: int | None = None) -> int:
    """Return the bytes that all files and folders in a folder occupy, even while a program changes them.

    A folder that cannot be read, or is nested deeper than 32, counts as more than `enough`.

    Args:
        folder: the open folder.
        enough: stop counting above this number of bytes.
        pid: a process whose open unnamed files count too, if this process may inspect them.
    """
    total = _occupied(folder, enough, 0)
    if pid is not None and total <= enough:
        total += _occupied_by_nameless_files(pid)
    return total


def _occupied(folder: int, enough: int, depth: int) -> int:
    if depth > _MAX_DEPTH:
        return enough + 1
    try:
        # Open it again: a shared descriptor of a folder shares its position.
        own = os.open(".", _FOLDER, dir_fd=folder)
    except PermissionError:
        return enough + 1
    total = 0
    try:
        with os.scandir(own) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    status = entry.stat(follow_symlinks=False)
                    total += max(status.st_blocks * 512, BLOCK)
                    if stat.S_ISDIR(status.st_mode):
                        total += _occupied_below(own, entry.name, enough - total, depth + 1)
                if total > enough:
                    break
    finally:
        os.close(own)
    return total


def _occupied_below(folder: int, name: str, enough: int, depth: int) -> int:
    try:
        # O_NOFOLLOW: the program may have replaced the folder with a link.
        below = os.open(name, _FOLDER, dir_fd=folder)
    except PermissionError:
        return enough + 1
    except OSError:
        return 0
    try:
        return _occupied(below, enough, depth)
    finally:
        os.close(below)


def _occupied_by_nameless_files(pid: int) -> int:
    files: dict[tuple[int, int], int] = {}
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                    files[status.st_dev, status.st_ino] = max(status.st_blocks * 512, BLOCK)
    return sum(files.values())


def remove(path: str) -> None:
    """Remove a folder and everything below it, at any depth, without following links. No process may change it.

    Move each inner folder to the top before removing it, so that neither path length nor the number of open files
    limits the depth.

    Raises:
        OSError: something cannot be removed.
    """
    top = os.open(path, _FOLDER)
    prefix = f".{secrets.token_hex(16)}-"
    count = 0
    try:
        while names := os.listdir(top):
            for name in names:
                if not _unlinked(top, name):
                    count = _empty(top, name, prefix, count)
                    os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)


def _unlinked(folder: int, name: str) -> bool:
    """Unlink an entry unless it is a folder; return whether it was unlinked."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=folder)
    return True


def _empty(top: int, name: str, prefix: str, count: int) -> int:
    # The program may have made it unreadable. It is a folder, not a link.
    os.chmod(name, 0o700, dir_fd=top)
    folder = os.open(name, _FOLDER, dir_fd=top)
    try:
        for below in os.listdir(folder):
            if not _unlinked(folder, below):
                # Moving a folder writes its "..", which needs write access.
                os.chmod(below, 0o700, dir_fd=folder)
                os.rename(below, f"{prefix}{count}", src_dir_fd=folder, dst_dir_fd=top)
                count += 1
    finally:
        os.close(folder)
    return count
