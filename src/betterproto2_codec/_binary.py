"""Encode messages to bytes and Google's classes, and decode them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import betterproto2
from google.protobuf.message import DecodeError, EncodeError
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp

from ._classes import full_name
from ._compile import Conversions, conversions_of
from ._runtime import MAX_DEPTH, SERIALIZE, InvalidValueError, datetime_from_proto
from ._violations import violation_in_message, violation_in_proto
from .errors import CodecError

if TYPE_CHECKING:
    from ._wire import Schema

M = TypeVar("M", bound=betterproto2.Message)

serialize = SERIALIZE
"""Serialise one of Google's messages, even if a field hides its method of that name."""


def encode(message: betterproto2.Message) -> bytes:
    """Encode a message to protobuf's binary format.

    The order of map entries and unknown fields is not defined, so equal messages can have different bytes.

    Raises:
        CodecError: a value is invalid; the error names its field.
    """
    conversions = conversions_of(type(message))
    if conversions.schema is not None:
        data = conversions.schema.encode(message)
        if data is not None:
            return data
    return SERIALIZE(_fill(message, conversions))


def decode(cls: type[M], data: bytes) -> M:
    """Decode protobuf's binary format.

    Unknown fields are kept in `_unknown_fields` of their message, and encoded again. Timestamp, Duration and the
    wrapper types, which become plain Python values, lose theirs.

    Args:
        cls: the dataclass to create.
        data: the bytes; empty bytes are an empty message.

    Raises:
        CodecError: the bytes are truncated, of a wrong wire type, not UTF-8 in a text field or nested more than 100
            deep, or a timestamp or duration is out of range.
    """
    conversions = conversions_of(cls)
    if conversions.schema is not None:
        made = conversions.schema.decode(data)
        if made is not None:
            return made if type(made) is cls else _derived(cls, made)
    try:
        pb = conversions.model.proto.FromString(data)
    except DecodeError as error:
        raise CodecError(_detail(error), message_type=conversions.model.name) from None
    except TypeError:
        raise CodecError(f"expected bytes, got {type(data).__name__}", message_type=conversions.model.name) from None
    return _read(cls, pb, conversions)


def to_proto(message: betterproto2.Message) -> ProtoMessage:
    """Convert a dataclass instance to Google's class of the same message.

    Raises:
        CodecError: a value is invalid; the error names its field.
    """
    conversions = conversions_of(type(message))
    if conversions.schema is not None:
        # Through bytes: both steps are compiled, and together take a third of the time of setting fields.
        data = conversions.schema.encode(message)
        if data is not None:
            return conversions.model.proto.FromString(data)
    return _fill(message, conversions)


def from_proto(cls: type[M], pb: ProtoMessage) -> M:
    """Convert Google's message to a dataclass instance. The message is not changed.

    Datetimes are aware, in UTC. A Timestamp or Duration with nanoseconds becomes an ExactDatetime or ExactTimedelta of
    `betterproto2_codec.exact_datetime`; all others are plain.

    Raises:
        CodecError: the message is of another type than the class, or a timestamp or duration is out of range.
    """
    conversions = conversions_of(cls)
    given = type(pb).DESCRIPTOR.full_name
    if given != conversions.model.name:
        raise CodecError(f"expected this message, got a {given}", message_type=conversions.model.name)
    if conversions.schema is not None and type(pb) is conversions.model.proto:
        made = _read_by_bytes(pb, conversions.schema)
        if made is not None:
            return made if type(made) is cls else _derived(cls, made)
    return _read(cls, pb, conversions)


def timestamp_to_datetime(timestamp: Timestamp) -> datetime:
    """Convert one of Google's Timestamps to a datetime in UTC; with nanoseconds, to an ExactDatetime.

    Raises:
        CodecError: the timestamp is out of range.
    """
    try:
        return datetime_from_proto(timestamp)
    except InvalidValueError as error:
        raise CodecError(str(error), message_type="google.protobuf.Timestamp") from None


def _fill(message: Any, conversions: Conversions) -> ProtoMessage:
    pb = conversions.model.proto()
    try:
        conversions.fill(message, pb)
    except RecursionError:
        raise CodecError("it contains itself, or is nested without end", message_type=conversions.model.name) from None
    except Exception as error:
        raise _explained(message, conversions.model.name, error) from error
    return pb


def _read_by_bytes(pb: ProtoMessage, schema: Schema) -> Any:
    try:
        return schema.decode(SERIALIZE(pb))
    except EncodeError:
        return None  # Nested deeper than bytes allow; it can be read field by field.


def _read(cls: type[M], pb: Any, conversions: Conversions) -> M:
    try:
        made = conversions.read(pb)
    except Exception as error:
        violation = violation_in_proto(pb, conversions.model)
        if violation is None:
            raise
        raise CodecError(violation.reason, path=violation.path, message_type=conversions.model.name) from error
    return made if type(made) is cls else _derived(cls, made)


def _derived(cls: type[M], made: Any) -> M:
    """Return a copy as an instance of a class derived from the generated one."""
    derived: Any = object.__new__(cls)
    derived.__dict__.update(made.__dict__)
    return cast("M", derived)


def _explained(message: Any, name: str, error: Exception) -> CodecError:
    violation = violation_in_message(message)
    if violation is None:
        return CodecError(f"{type(error).__name__}: {error}", message_type=name)
    return CodecError(violation.reason, path=violation.path, message_type=full_name(message))


def _detail(error: DecodeError) -> str:
    """Return upb's reason without its message type, since the CodecError names that."""
    text = str(error)
    if "MaxDepth" in text:
        return f"not the bytes of this message: messages are nested more than {MAX_DEPTH} deep, the maximum depth"
    _, separator, reason = text.partition("': ")
    return f"not the bytes of this message: {reason[:1].lower() + reason[1:] if separator else text}"
