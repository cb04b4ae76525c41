"""What lies in a folder that a program has to itself, and its removal; it may hold any evil."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat

__all__ = ["BLOCK", "occupied", "remove"]

BLOCK = 4096
"""Bytes that every file and folder counts for at least, so that empty ones are not free."""
_MAX_DEPTH = 32
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def occupied(folder: int, enough: int, pid: int | None = None) -> int:
    """Bytes that the files and folders in a folder occupy on the disk.

    Counts while a program is changing them. Folders that cannot be looked into, and those nested deeper than 32, count
    as more than enough.

    Args:
        folder: the open folder.
        enough: counting ends once this many bytes are exceeded.
        pid: a process whose open files without a name are counted too, where its user is ours.
    """
    total = _occupied(folder, enough, 0)
    if pid is not None and total <= enough:
        total += _occupied_by_nameless_files(pid)
    return total


def _occupied(folder: int, enough: int, depth: int) -> int:
    if depth > _MAX_DEPTH:
        return enough + 1
    try:
        # Opened anew, because a position in a folder is shared by all who hold it open.
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
        # O_NOFOLLOW: what was a folder a moment ago may be a link to somewhere else by now.
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
    """Removes a folder and all beneath it, however deep, following no link; no process may change it meanwhile.

    Folders within are first moved to the top and then removed there, so that neither the length of a path nor the
    number of open files bounds the depth.

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
    """Whether it was no folder, and so is gone."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=folder)
    return True


def _empty(top: int, name: str, prefix: str, count: int) -> int:
    # It may have been made without the right to look into it, and is a folder, no link.
    os.chmod(name, 0o700, dir_fd=top)
    folder = os.open(name, _FOLDER, dir_fd=top)
    try:
        for below in os.listdir(folder):
            if not _unlinked(folder, below):
                # Moving a folder writes to it, for its way back up.
                os.chmod(below, 0o700, dir_fd=folder)
                os.rename(below, f"{prefix}{count}", src_dir_fd=folder, dst_dir_fd=top)
                count += 1
    finally:
        os.close(folder)
    return count
