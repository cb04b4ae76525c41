"""The Temporal data converter: generated dataclasses as `binary/protobuf`, everything else as the SDK has it."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import betterproto2
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    BinaryNullPayloadConverter,
    BinaryPlainPayloadConverter,
    CompositePayloadConverter,
    DataConverter,
    EncodingPayloadConverter,
    JSONPlainPayloadConverter,
)

from contextunity.core import codec
from contextunity.core.errors import CodecError

__all__ = ["ProtobufPayloadConverter", "data_converter"]

_Dataclass = betterproto2.Message


class _MessagePayloadConverter(EncodingPayloadConverter):
    """Finds the message class to decode into; the two encodings differ only in how the bytes are read and written."""

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        message_type = payload.metadata.get("messageType", b"").decode(errors="replace")
        hinted = next(_message_classes(type_hint), None)
        if hinted is None:
            if not message_type:
                raise CodecError(
                    f"a {self.encoding} payload has no messageType, and the code that reads it no type hint"
                )
            hinted = codec.message_class(message_type)
        expected = _full_name(hinted)
        if message_type and message_type != expected:
            raise CodecError(f"the payload is a {message_type}, but the code that reads it expects {expected}")
        return self._read(payload.data, hinted)

    def _read(self, data: bytes, message_class: type[Any]) -> Any:
        raise NotImplementedError


class _BinaryProtobufConverter(_MessagePayloadConverter):
    """Writes and reads `binary/protobuf`, for generated dataclasses and for Google's messages."""

    @property
    def encoding(self) -> str:
        return "binary/protobuf"

    def to_payload(self, value: Any) -> Payload | None:
        if isinstance(value, _Dataclass):
            return _payload(self.encoding, codec.full_name(value), codec.encode(value))
        if isinstance(value, Message):
            return _payload(self.encoding, value.DESCRIPTOR.full_name, value.SerializeToString())
        return None

    def _read(self, data: bytes, message_class: type[Any]) -> Any:
        if issubclass(message_class, _Dataclass):
            return codec.decode(message_class, data)
        try:
            return message_class.FromString(data)
        except DecodeError as error:
            raise CodecError(f"the bytes are not a {_full_name(message_class)}: {error}") from error


class _JsonProtobufConverter(_MessagePayloadConverter):
    """Reads `json/protobuf`, which Go's and Python's default converters write. Fields it does not know are passed over:
    refusing them would stop running workflows as soon as a caller of another version adds one.
    """

    @property
    def encoding(self) -> str:
        return "json/protobuf"

    def to_payload(self, value: Any) -> Payload | None:
        return None

    def _read(self, data: bytes, message_class: type[Any]) -> Any:
        if issubclass(message_class, _Dataclass):
            return codec.from_json(message_class, data, ignore_unknown_fields=True)
        try:
            return json_format.Parse(data, message_class(), ignore_unknown_fields=True)
        except json_format.ParseError as error:
            raise CodecError(f"the JSON is not a {_full_name(message_class)}: {error}") from error


class ProtobufPayloadConverter(CompositePayloadConverter):
    """The SDK's converters, with protobuf's two replaced by ones that know the generated dataclasses.

    Messages are written as `binary/protobuf` with their `messageType`, and read from that or `json/protobuf`, into the
    class of the type hint, or by `messageType` where the code that reads has no hint. A message of another type than
    the hint's is a CodecError. Other Python values go by the SDK's `json/plain`.
    """

    def __init__(self) -> None:
        super().__init__(
            BinaryNullPayloadConverter(),
            BinaryPlainPayloadConverter(),
            _BinaryProtobufConverter(),
            _JsonProtobufConverter(),
            JSONPlainPayloadConverter(),
        )


data_converter = DataConverter(payload_converter_class=ProtobufPayloadConverter)
"""The data converter for clients and workers; `contextunity.worker.plugin.ContextWorkerPlugin` brings it along."""


def _payload(encoding: str, message_type: str, data: bytes) -> Payload:
    return Payload(metadata={"encoding": encoding.encode(), "messageType": message_type.encode()}, data=data)


def _full_name(message_class: type[Any]) -> str:
    if issubclass(message_class, _Dataclass):
        return codec.full_name(message_class)
    name: str = message_class.DESCRIPTOR.full_name
    return name


def _message_classes(type_hint: Any) -> Iterator[type[Any]]:
    """Message classes that a type hint names, itself or as an arm of a union such as `Progress | None`."""
    if get_origin(type_hint) in (Union, types.UnionType):
        for arm in get_args(type_hint):
            yield from _message_classes(arm)
    elif isinstance(type_hint, type) and issubclass(type_hint, _Dataclass | Message):
        yield type_hint
