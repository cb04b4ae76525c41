"""Fill and read the folder of a program, and pack what a snapshot keeps of a program that stopped."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["FolderFullError", "Snapshot", "fill_folder", "pack", "read_folder", "unpack"]

_MAX_UNPACKED = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A stopped program as a snapshot has it.

    Attributes:
        version: of Monty, whose dumps are of no use to another version.
        dump: Monty's own.
        files: contents by relative path; a path that ends with a slash is an empty folder.
    """

    version: str
    dump: bytes
    files: Mapping[str, bytes]


def fill_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into an empty folder, with the folders that they lie in."""
    for path, content in files.items():
        target = folder / PurePosixPath(path)
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


class FolderFullError(Exception):
    """A folder holds more than it may. Monty checks that for one stretch of a program; this is for all of them."""


def read_folder(folder: Path, max_bytes: int) -> dict[str, bytes]:
    """Read all that lies in a folder, but what is neither a file nor a folder.

    Raises:
        FolderFullError: the files take more than `max_bytes`, each counted with its path.
    """
    files = dict[str, bytes]()
    size = 0
    pending = [(str(folder), "")]
    while pending:
        path, relative = pending.pop()
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        if not found and relative:
            files[relative] = b""
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, f"{relative}{entry.name}/"))
            elif entry.is_file(follow_symlinks=False):
                size += entry.stat(follow_symlinks=False).st_size + len(entry.name)
                if size > max_bytes:
                    raise FolderFullError
                files[f"{relative}{entry.name}"] = Path(entry.path).read_bytes()
    return files


def pack(stopped: Snapshot) -> bytes:
    """Pack a snapshot: a line of JSON, the dump, and the files one after the other; compressed."""
    head = {
        "version": stopped.version,
        "dump": len(stopped.dump),
        "files": [[path, len(content)] for path, content in stopped.files.items()],
    }
    parts = [json.dumps(head).encode() + b"\n", stopped.dump, *stopped.files.values()]
    return zlib.compress(b"".join(parts), 1)


def unpack(data: bytes) -> Snapshot:
    """Unpack what `pack` wrote.

    Raises:
        ValueError: the bytes are no snapshot.
    """
    try:
        whole = zlib.decompressobj().decompress(data, _MAX_UNPACKED)
        line, _, rest = whole.partition(b"\n")
        head = json.loads(line)
        files, at = dict[str, bytes](), int(head["dump"])
        for path, size in head["files"]:
            files[path] = rest[at : at + size]
            at += size
        return Snapshot(version=head["version"], dump=rest[: head["dump"]], files=files)
    except (zlib.error, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"these bytes are no snapshot of a program: {error}") from error
