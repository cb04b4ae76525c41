"""Reads units from bytes: the envelope as a dataclass, its payload as plain data, and no more of it than is bearable.

Some two bytes are enough for a value in a Struct, and what becomes of it takes hundreds, and microseconds. So it is the
values that are bounded, beside the bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.core.context_unit_pb2 import ContextUnit as UnitMessage
from google.protobuf.message import DecodeError, Message

from contextunity.core import codec
from contextunity.core.errors import CodecError

from .status import FieldViolation, Reason, ServiceError

__all__ = ["read_unit"]

_SMALLEST = 2
"""Bytes that a value takes at least: a tag and a length."""


def read_unit(data: bytes, *, max_values: int) -> tuple[ContextUnit, dict[str, Any] | None]:
    """The unit, and its payload where that could be read apart from it; else the unit has it still.

    Args:
        data: bytes of the unit.
        max_values: values that its payload, and its body, may hold.

    Raises:
        ServiceError: the bytes are no unit, or it holds more values.
    """
    apart = codec.decode_apart(ContextUnit, data, "payload")
    if len(data) > _SMALLEST * max_values:
        _check_values(data, apart, max_values)
    if apart is not None:
        return apart
    try:
        return codec.decode(ContextUnit, data), None
    except CodecError as error:
        raise ServiceError(
            Reason.UNIT_UNREADABLE,
            f"the request is not a ContextUnit: {error.reason}",
            violations=[FieldViolation(field=error.path, description=error.reason)],
        ) from None


def _check_values(data: bytes, apart: tuple[ContextUnit, dict[str, Any]] | None, most: int) -> None:
    """Refuses a payload or body with more values.

    They are counted in what was read already, else in Google's messages, of which each takes some tens of bytes where a
    dataclass takes a thousand.
    """
    body: Any
    try:
        if apart is not None:
            unit, payload = apart
            count, body = _in_plain(payload, most), unit.body
        else:
            message = UnitMessage.FromString(data)
            count, body = _in_messages(message.payload, most), message.body
        if count > most:
            raise _too_many("payload", most)
        if body is not None and body.value:
            inner = codec.proto_class(codec.message_class(body.type_url.rpartition("/")[2]))
            if _in_messages(inner.FromString(body.value), most) > most:
                raise _too_many("body", most)
    except (DecodeError, CodecError):
        # Whoever reads it tells what is wrong with it.
        return


def _in_plain(content: dict[str, Any], most: int) -> int:
    """Values in plain data, objects and lists included; no more are counted once there are more than `most`."""
    pending: list[Any] = [content]
    count = 0
    while pending and count <= most:
        each = pending.pop()
        inside = cast("Collection[Any]", each.values() if isinstance(each, dict) else each)
        count += len(inside)
        pending += [value for value in inside if isinstance(value, dict | list)]
    return count


def _in_messages(message: Message, most: int) -> int:
    """The same for a message: what its lists and maps hold, at any depth."""
    pending = [message]
    count = 0
    while pending and count <= most:
        for field, value in codec.list_fields(pending.pop()):
            inside: Collection[Any] = (value,)
            if field.is_repeated:
                inside = value.values() if hasattr(value, "values") else value
                count += len(inside)
                if count > most:
                    break
            pending += [each for each in inside if isinstance(each, Message)]
    return count


def _too_many(where: str, most: int) -> ServiceError:
    return ServiceError(
        Reason.UNIT_TOO_LARGE,
        f"the {where} holds more than {most:,} values, objects and lists included, and the service takes no more "
        "(CONTEXTWORKER_MAX_PAYLOAD_VALUES); hand over where they lie instead",
    )
