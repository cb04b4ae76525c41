"""The Temporal data converter: generated dataclasses as `binary/protobuf`, everything else as the SDK has it."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Self, Union, get_args, get_origin

import betterproto2
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import (
    BinaryNullPayloadConverter,
    BinaryPlainPayloadConverter,
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    EncodingPayloadConverter,
    JSONPlainPayloadConverter,
    JSONTypeConverter,
    PayloadCodec,
    PayloadConverter,
    SerializationContext,
    WorkflowSerializationContext,
)
from temporalio.exceptions import ApplicationError

from contextunity.core import codec
from contextunity.core.errors import CodecError
from contextunity.core.exact_datetime import read_isoformat

from .errors import PayloadKeyError, UndecodableInputError

__all__ = ["KEY_ID", "ProtobufPayloadConverter", "data_converter", "encoding_converter"]

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
    """Reads `json/protobuf`, which Go's and Python's default converters write. Fields and names of enums that are not
    known here are passed over: refusing them would stop running workflows as soon as a caller of another version adds
    one.
    """

    @property
    def encoding(self) -> str:
        return "json/protobuf"

    def to_payload(self, value: Any) -> Payload | None:
        return None

    def _read(self, data: bytes, message_class: type[Any]) -> Any:
        return _from_json(data, message_class)


class _ExactTimes(JSONTypeConverter):
    """Reads datetimes with all the digits that they were written with; the SDK cuts them off after the sixth."""

    def to_typed_value(self, hint: type, value: Any) -> Any:
        # By equality: in the sandbox a workflow's hint is a proxy of the class, which the SDK does not know at all.
        if not isinstance(value, str) or not hint == datetime:  # noqa: SIM201 - a proxy is asked in this way alone
            return JSONTypeConverter.Unhandled
        try:
            return read_isoformat(value)
        except ValueError as error:
            raise TypeError(f"{value!r} is not a time in ISO 8601") from error


class _JsonPlainConverter(JSONPlainPayloadConverter):
    """Reads ProtoJSON where a message is expected: what people type at Temporal's command line and in its web UI."""

    def __init__(self) -> None:
        super().__init__(custom_type_converters=[_ExactTimes()])

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        hinted = next(_message_classes(type_hint), None)
        if hinted is None or payload.data == b"null":
            return super().from_payload(payload, type_hint)
        return _from_json(payload.data, hinted)


class ProtobufPayloadConverter(CompositePayloadConverter):
    """The SDK's converters, made to know the generated dataclasses.

    Messages are written as `binary/protobuf` with their `messageType`, and read from that, `json/protobuf` or ProtoJSON
    as `json/plain`, into the class of the type hint, or by `messageType` where the code that reads has no hint. Other
    Python values go by the SDK's `json/plain`.

    Raises:
        CodecError: a payload is broken, of an unknown encoding, or of another type than the hint's. What a workflow
            receives raises UndecodableInputError, which fails the workflow; the error alone would have the server
            repeat the workflow task for ever.
        PayloadKeyError: a payload is encrypted, and this process has no keys. The task is retried until it has.
    """

    def __init__(self) -> None:
        self._of_workflow = False
        self._other: Self | None = None
        super().__init__(
            BinaryNullPayloadConverter(),
            BinaryPlainPayloadConverter(),
            _BinaryProtobufConverter(),
            _JsonProtobufConverter(),
            _JsonPlainConverter(),
        )

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """Decodes values, each by its encoding."""
        try:
            values = super().from_payloads(payloads, type_hints)
            if self._of_workflow:
                _check_presence(values, type_hints or [])
        except KeyError as error:
            # The SDK's own way to say that it does not know the encoding.
            key_id = next((each.metadata[KEY_ID] for each in payloads if KEY_ID in each.metadata), None)
            if key_id is not None:
                name = key_id.decode(errors="replace")
                raise PayloadKeyError(
                    f"the payload is encrypted with the key {name!r}, and this process has no keys; "
                    "set CONTEXTWORKER_PAYLOAD_KEYS_FILE"
                ) from error
            codec_error, cause = CodecError(str(error.args[0])), error
        except CodecError as error:
            codec_error, cause = error, None
        else:
            return values
        raise UndecodableInputError(codec_error) if self._of_workflow else codec_error from cause

    def with_context(self, context: SerializationContext) -> Self:
        """A converter for payloads of a workflow, or of an activity."""
        # Both are what they are for all workflows and activities: to make one for each of them would be waste.
        of_workflow = isinstance(context, WorkflowSerializationContext)
        if of_workflow == self._of_workflow:
            return self
        if self._other is None:
            self._other = type(self)()
            self._other._of_workflow = of_workflow
            self._other._other = self
        return self._other


class _FailureConverter(DefaultFailureConverter):
    """Has an activity that cannot read its input fail for good: the SDK would have it retried."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        cause = exception.__cause__
        undecodable = isinstance(exception, ApplicationError) and exception.message == _SDK_CANNOT_DECODE
        if undecodable and isinstance(cause, CodecError):
            super().to_failure(UndecodableInputError(cause), payload_converter, failure)
        else:
            super().to_failure(exception, payload_converter, failure)


KEY_ID = "encryption-key-id"
"""Metadata key that names the key of an encrypted payload."""
_SDK_CANNOT_DECODE = "Failed decoding arguments"

data_converter = DataConverter(
    payload_converter_class=ProtobufPayloadConverter, failure_converter_class=_FailureConverter
)
"""The data converter for clients and workers; `contextunity.worker.plugin.ContextWorkerPlugin` brings it along."""


class _EncodingFailureConverter(_FailureConverter):
    """Has the payload codec encode messages and stack traces of failures as well."""

    def __init__(self) -> None:
        super().__init__(encode_common_attributes=True)


def encoding_converter(payload_codec: PayloadCodec) -> DataConverter:
    """The data converter, with a codec such as `encryption.EncryptionCodec` for payloads and texts of failures."""
    return dataclasses.replace(
        data_converter, payload_codec=payload_codec, failure_converter_class=_EncodingFailureConverter
    )


def _payload(encoding: str, message_type: str, data: bytes) -> Payload:
    payload = Payload(data=data)
    # One by one: handed to the constructor as a dict, they go through Python code of Google's.
    payload.metadata["encoding"] = encoding.encode()
    payload.metadata["messageType"] = message_type.encode()
    return payload


def _check_presence(values: Sequence[Any], type_hints: Sequence[Any]) -> None:
    # Null is none of a message's values; code that is given one all the same fails in ways that nobody understands.
    for value, hint in zip(values, type_hints, strict=False):
        if value is None and isinstance(hint, type) and issubclass(hint, _Dataclass | Message):
            raise CodecError(f"the payload is null, but the code that reads it expects {_full_name(hint)}")


def _from_json(data: bytes, message_class: type[Any]) -> Any:
    if issubclass(message_class, _Dataclass):
        return codec.from_json(message_class, data, ignore_unknown_fields=True)
    try:
        return json_format.Parse(data, message_class(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise CodecError(f"the JSON is not a {_full_name(message_class)}: {error}") from error


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
