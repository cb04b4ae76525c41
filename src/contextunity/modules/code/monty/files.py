"""Fill and read the folder of a program, and pack and unpack snapshots of stopped programs."""

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
    """A stopped program in a snapshot.

    Attributes:
        version: version of Monty; another version cannot read its dumps.
        dump: Monty's dump.
        files: contents by relative path; a path with a slash at the end is an empty folder.
    """

    version: str
    dump: bytes
    files: Mapping[str, bytes]


def fill_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into an empty folder, and create their folders."""
    for path, content in files.items():
        target = folder / PurePosixPath(path)
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


class FolderFullError(Exception):
    """A folder exceeds its limit. Monty checks it for one part of a run; this is for the whole run."""


def read_folder(folder: Path, max_bytes: int) -> dict[str, bytes]:
    """Read all files and folders in a folder, and ignore other entries.

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
    """Pack a snapshot: a line of JSON, the dump, and the files in order; compressed."""
    head = {
        "version": stopped.version,
        "dump": len(stopped.dump),
        "files": [[path, len(content)] for path, content in stopped.files.items()],
    }
    parts = [json.dumps(head).encode() + b"\n", stopped.dump, *stopped.files.values()]
    return zlib.compress(b"".join(parts), 1)


def unpack(data: bytes) -> Snapshot:
    """Unpack a snapshot from `pack`.

    Raises:
        ValueError: the bytes are not a snapshot.
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
        raise ValueError(f"these bytes are not a snapshot of a program: {error}") from error
