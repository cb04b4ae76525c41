"""Messages packed into bytes, for what goes through a workflow that does not look at it."""

from __future__ import annotations

import zlib
from typing import TypeVar

import betterproto2

from . import codec
from .errors import CodecError

__all__ = ["pack", "unpack"]

_MessageT = TypeVar("_MessageT", bound=betterproto2.Message)
_MAX_BYTES = 32 * 1024 * 1024


def pack(message: betterproto2.Message) -> bytes:
    """The wire form of a message, compressed by zlib as quickly as it can."""
    # Level 1 shrinks a page of products to about a third; higher levels take several times as long for little more.
    return zlib.compress(codec.encode(message), 1)


def unpack(message_type: type[_MessageT], data: bytes, *, max_bytes: int = _MAX_BYTES) -> _MessageT:
    """The message that was packed.

    Raises:
        CodecError: the bytes are no such message, or unpack to more than `max_bytes`.
    """
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(data, max_bytes)
    except zlib.error as error:
        raise CodecError(f"are not compressed by zlib: {error}") from None
    if not stream.eof:
        what = f"unpack to more than {max_bytes} bytes" if stream.unconsumed_tail else "break off"
        raise CodecError(f"packed bytes {what}")
    return codec.decode(message_type, unpacked)
