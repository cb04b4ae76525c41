"""Reads the trace_id out of the bytes of a unit, without decoding the rest: strangers may send them, and they may be
no unit at all."""

from __future__ import annotations

from contextunity.core import worker_pb2

__all__ = ["trace_id_of"]

_FIELD: int = worker_pb2.ContextUnit.DESCRIPTOR.fields_by_name["trace_id"].number
_MAX_FIELDS = 64
"""Fields that are looked at. Writers go by the numbers, so that the trace_id is the second at most."""
_MAX_LENGTH = 1000
_MAX_VARINT = 10


def trace_id_of(data: bytes) -> str:
    """The trace_id of a unit; empty where it has none, or it cannot be read.

    Example:
        >>> trace_id_of(worker_pb2.ContextUnit(unit_id="u", trace_id="t").SerializeToString() + b"\\xff")
        't'
    """
    try:
        return _trace_id(data)
    except (ValueError, IndexError):
        return ""


def _trace_id(data: bytes) -> str:
    position = 0
    for _ in range(_MAX_FIELDS):
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                _, position = _varint(data, position)
            case 1:
                position += 8
            case 5:
                position += 4
            case 2:
                length, position = _varint(data, position)
                if tag >> 3 == _FIELD:
                    return data[position : position + min(length, _MAX_LENGTH)].decode(errors="ignore")
                position += length
            case _:
                return ""
    return ""


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number and where it ends; an IndexError where the bytes end before it does."""
    value = 0
    for shift in range(_MAX_VARINT):
        byte = data[position + shift]
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, position + shift + 1
    raise ValueError("a varint has ten bytes at most")
