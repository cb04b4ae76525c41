"""How the worker hands a program to its child: one file without a name, that no other process ever reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .values import JsonValue

__all__ = ["Request", "pack", "unpack"]

_LENGTH_BYTES = 8
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a child is to run.

    Attributes:
        code: the source.
        inputs: variables that it finds.
        files: path and size of each file that follows.
        result_bytes: bound of the result.
        error_bytes: bound of a traceback.
    """

    code: str
    inputs: dict[str, JsonValue]
    files: list[tuple[str, int]]
    result_bytes: int
    error_bytes: int


def pack(request: Request, contents: Mapping[str, bytes]) -> int:
    """Returns an open file that holds a request and the contents of its files, for `unpack`.

    Raises:
        OSError: there is no memory for it.
        ValueError: an input is not what JSON has.
    """
    header = json.dumps(
        {
            "code": request.code,
            "inputs": request.inputs,
            "files": request.files,
            "result_bytes": request.result_bytes,
            "error_bytes": request.error_bytes,
        }
    ).encode("ascii")
    descriptor = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        _write(descriptor, len(header).to_bytes(_LENGTH_BYTES, "little") + header)
        for path, _ in request.files:
            _write(descriptor, contents[path])
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unpack(descriptor: int) -> Request:
    """Reads a request, puts its files into the current folder, and closes the descriptor.

    Raises:
        OSError: a file cannot be written there.
        ValueError: the path of a file leads out of the folder.
    """
    length = int.from_bytes(_read(descriptor, _LENGTH_BYTES), "little")
    header: dict[str, Any] = json.loads(_read(descriptor, length))
    request = Request(
        code=header["code"],
        inputs=header["inputs"],
        files=[(path, size) for path, size in header["files"]],
        result_bytes=header["result_bytes"],
        error_bytes=header["error_bytes"],
    )
    for path, size in request.files:
        _place(descriptor, path, size)
    os.close(descriptor)
    return request


def _place(descriptor: int, path: str, size: int) -> None:
    parts = path.split("/")
    if not all(parts) or not {".", ".."}.isdisjoint(parts) or "\0" in path:
        raise ValueError(f"the path of a file must be relative and within the folder, such as data/a.csv; got {path!r}")
    if len(parts) > 1:
        os.makedirs("/".join(parts[:-1]), exist_ok=True)
    with open(path, "xb") as file:
        while size > 0:
            chunk = os.read(descriptor, min(size, _CHUNK))
            size -= file.write(chunk)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        part = os.read(descriptor, size)
        if not part:
            raise EOFError("the request is cut off")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
