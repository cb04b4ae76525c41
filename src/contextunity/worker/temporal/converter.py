"""The Temporal data converter: generated dataclasses as `binary/protobuf`, everything else as in the SDK."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, ClassVar, Self, Union, cast, get_args, get_origin

import betterproto2
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import (
    BinaryNullPayloadConverter,
    BinaryPlainPayloadConverter,
    CompositePayloadConverter,
    DataConverter,
    EncodingPayloadConverter,
    ExternalStorage,
    JSONPlainPayloadConverter,
    JSONTypeConverter,
    PayloadCodec,
    SerializationContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
    WorkflowSerializationContext,
)

from contextunity.core import codec
from contextunity.core.errors import CodecError
from contextunity.core.exact_datetime import read_isoformat

from .errors import PayloadKeyError, PayloadTooLargeError, StoredPayloadError, UndecodableInputError
from .failure_converter import EncodingFailureConverter, FailureConverter

__all__ = [
    "KEY_ID",
    "LARGEST_STORED",
    "ProtobufPayloadConverter",
    "data_converter",
    "encoding_converter",
    "for_workflow",
    "without_storage",
]

_Dataclass = betterproto2.Message


class _MessagePayloadConverter(EncodingPayloadConverter):
    """Finds the message class to decode; the two encodings only differ in the format of the bytes."""

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        message_type = payload.metadata.get("messageType", b"").decode(errors="replace")
        hinted = next(_message_classes(type_hint), None)
        if hinted is None:
            if not message_type:
                raise CodecError(
                    f"a {self.encoding} payload has no messageType, and the code that decodes it has no type hint"
                )
            hinted = codec.message_class(message_type)
        expected = _full_name(hinted)
        if message_type and message_type != expected:
            raise CodecError(f"the payload is a {message_type}, but the code that decodes it expects {expected}")
        return self._read(payload.data, hinted)

    def _read(self, data: bytes, message_class: type[Any]) -> Any:
        raise NotImplementedError


class _BinaryProtobufConverter(_MessagePayloadConverter):
    """Encodes and decodes `binary/protobuf`, for generated dataclasses and for Google's messages."""

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
    """Decodes `json/protobuf`, which Go's and Python's default converters encode. Unknown fields and enum names are
    ignored: otherwise running workflows would stop as soon as a caller of another version adds one.
    """

    @property
    def encoding(self) -> str:
        return "json/protobuf"

    def to_payload(self, value: Any) -> Payload | None:
        return None

    def _read(self, data: bytes, message_class: type[Any]) -> Any:
        return _from_json(data, message_class)


class _ExactTimes(JSONTypeConverter):
    """Decodes datetimes with all their digits; the SDK drops all after the sixth."""

    def to_typed_value(self, hint: type, value: Any) -> Any:
        # Compare by equality: in the sandbox, a workflow's hint is a proxy of the class, which the SDK does not handle.
        if not isinstance(value, str) or not hint == datetime:  # noqa: SIM201 - a proxy only implements ==
            return JSONTypeConverter.Unhandled
        try:
            return read_isoformat(value)
        except ValueError as error:
            raise TypeError(f"{value!r} is not a time in ISO 8601") from error


class _JsonPlainConverter(JSONPlainPayloadConverter):
    """Decodes ProtoJSON if a message is expected, for input from Temporal's command line and web UI."""

    def __init__(self) -> None:
        super().__init__(custom_type_converters=[_ExactTimes()])

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        hinted = next(_message_classes(type_hint), None)
        if hinted is None or payload.data == b"null":
            return super().from_payload(payload, type_hint)
        return _from_json(payload.data, hinted)


class ProtobufPayloadConverter(CompositePayloadConverter):
    """The SDK's converters, extended by the generated dataclasses.

    Messages are encoded as `binary/protobuf` with their `messageType`. They are decoded from that, `json/protobuf`, or
    ProtoJSON as `json/plain`, to the class of the type hint, or of the `messageType` without a hint. Other Python
    values use the SDK's `json/plain`.

    Attributes:
        payload_limit: maximum bytes of an input or a result, by default that of Temporal servers. A server rejects the
            whole workflow task or the outcome of an activity if it is larger, and workers would retry them forever.
            None disables the check.
        stored_from: bytes from which on a payload is stored outside of Temporal, and only a reference to it is sent;
            None without a storage.

    Raises:
        PayloadTooLargeError: an input or a result exceeds the limit; the workflow or activity fails without retries.
        CodecError: a payload is invalid, of an unknown encoding, or of another type than the hint's. For a workflow's
            input it is an UndecodableInputError, which fails the workflow; a plain CodecError would make the server
            retry the workflow task forever.
        PayloadKeyError: a payload is encrypted, and this process has no keys. The task is retried until it has them.
    """

    payload_limit: ClassVar[int | None] = 2 * 1024 * 1024
    stored_from: ClassVar[int | None] = None

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

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        """Encode values, each with the first converter that accepts it."""
        payloads = super().to_payloads(values)
        limit = self.payload_limit
        if limit is not None and self.stored_from is not None:
            self._check_stored(values, payloads, limit, self.stored_from)
        elif limit is not None and sum(payload.ByteSize() for payload in payloads) > limit - _OVERHEAD * len(payloads):
            size = Payloads(payloads=payloads).ByteSize()
            if size > limit:
                raise PayloadTooLargeError(size, limit, _largest_part(values, payloads), _whose())
        return payloads

    def _check_stored(self, values: Sequence[Any], payloads: Sequence[Payload], limit: int, stored_from: int) -> None:
        """Check what is stored against the limit of the storage, and what is then sent against the server's."""
        sizes = [payload.ByteSize() for payload in payloads]
        if max(sizes, default=0) > LARGEST_STORED:
            part = _largest_part(values, payloads)
            raise PayloadTooLargeError(max(sizes), LARGEST_STORED, part, _whose(), taker="the payload storage")
        sent = sum(size if size < stored_from else _REFERENCE for size in sizes) + _OVERHEAD * len(sizes)
        if sent > limit:
            raise PayloadTooLargeError(sent, limit, _largest_part(values, payloads), _whose())

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """Decode values, each by its encoding."""
        try:
            values = super().from_payloads(payloads, type_hints)
            if self._of_workflow:
                _check_presence(values, type_hints or [])
        except KeyError as error:
            # The SDK raises KeyError for an unknown encoding.
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
        """Return the converter for payloads of a workflow, or of an activity."""
        # All workflows share one converter, and all activities another.
        of_workflow = isinstance(context, WorkflowSerializationContext)
        if of_workflow == self._of_workflow:
            return self
        if self._other is None:
            self._other = type(self)()
            self._other._of_workflow = of_workflow
            self._other._other = self
        return self._other


class _UnlimitedPayloadConverter(ProtobufPayloadConverter):
    payload_limit = None


class _GrowingPayloadConverter(ProtobufPayloadConverter):
    payload_limit = 2 * 1024 * 1024 - 1024


@functools.cache
def _storing_converter(stored_from: int) -> type[ProtobufPayloadConverter]:
    attributes = {"stored_from": stored_from, "__doc__": "Knows from which size on payloads are stored."}
    return type("_StoringPayloadConverter", (_GrowingPayloadConverter,), attributes)


class _DataConverter(DataConverter):
    """Sets the limit for what follows: a codec may make payloads smaller, so then there is none.

    A codec with the attribute `keeps_size` only makes them a few bytes larger. Of what is stored, a reference is sent.
    """

    def __post_init__(self) -> None:
        payload_codec, storage = self.payload_codec, self.external_storage
        if self.payload_converter_class is ProtobufPayloadConverter and (payload_codec or storage) is not None:
            converter_class: type[ProtobufPayloadConverter] = _GrowingPayloadConverter
            if payload_codec is not None and not getattr(payload_codec, "keeps_size", False):
                converter_class = _UnlimitedPayloadConverter
            elif storage is not None:
                converter_class = _storing_converter(storage.payload_size_threshold)
            object.__setattr__(self, "payload_converter_class", converter_class)
        super().__post_init__()

    async def decode(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """Fetch, decrypt and decode values."""
        try:
            return await super().decode(payloads, type_hints)
        except RuntimeError as error:
            if _NO_STORAGE not in str(error):
                raise
            raise StoredPayloadError(
                "the payload is in a payload storage, and this process has none; set "
                "CONTEXTWORKER_PAYLOAD_STORAGE as for the process that wrote it"
            ) from None


KEY_ID = "encryption-key-id"
"""Metadata key for the key id of an encrypted payload."""
LARGEST_STORED = 50 * 1024 * 1024
"""Maximum bytes of a payload in the payload storage, as of a unit of the service."""
_REFERENCE = 4 * 1024
"""Maximum bytes of a reference to a stored payload; most have a tenth of that."""
_OVERHEAD = 6
"""Maximum overhead in bytes of a payload in a list of payloads."""
_NO_STORAGE = "[TMPRL1105]"
"""Begins the SDK's message for a stored payload if there is no storage."""

data_converter = _DataConverter(
    payload_converter_class=ProtobufPayloadConverter, failure_converter_class=FailureConverter
)
"""The data converter for clients and workers; `contextunity.worker.plugin.ContextWorkerPlugin` sets it."""


def encoding_converter(
    payload_codec: PayloadCodec | None, external_storage: ExternalStorage | None = None
) -> DataConverter:
    """Return the data converter for a deployment.

    Args:
        payload_codec: encodes payloads and failures, such as `encryption.EncryptionCodec`.
        external_storage: keeps large payloads, after they were encoded; see `storage.open_storage`.
    """
    if payload_codec is None and external_storage is None:
        return data_converter
    failures = FailureConverter if payload_codec is None else EncodingFailureConverter
    return dataclasses.replace(
        data_converter,
        payload_codec=payload_codec,
        failure_converter_class=failures,
        external_storage=external_storage,
    )


def for_workflow(converter: DataConverter, namespace: str, workflow_id: str, workflow_type: str) -> DataConverter:
    """Return a data converter that stores what it encodes with the other payloads of a workflow."""
    if converter.external_storage is None:
        return converter
    target = StorageDriverWorkflowInfo(namespace=namespace, id=workflow_id, type=workflow_type)
    # The SDK's client does the same in its own calls, and has no public way to it.
    return converter._with_store_context(StorageDriverStoreContext(target=target))  # pyright: ignore[reportPrivateUsage]


def without_storage(converter: DataConverter) -> DataConverter:
    """Return a data converter that keeps all it encodes in Temporal, for what must outlast stored payloads."""
    if converter.external_storage is None:
        return converter
    return encoding_converter(converter.payload_codec)


def _payload(encoding: str, message_type: str, data: bytes) -> Payload:
    payload = Payload(data=data)
    # Set the entries one by one: a dict in the constructor is slower.
    payload.metadata["encoding"] = encoding.encode()
    payload.metadata["messageType"] = message_type.encode()
    return payload


def _check_presence(values: Sequence[Any], type_hints: Sequence[Any]) -> None:
    # A message is never null; code that expects a message would fail with an obscure error.
    for value, hint in zip(values, type_hints, strict=False):
        if value is None and isinstance(hint, type) and issubclass(hint, _Dataclass | Message):
            raise CodecError(f"the payload is null, but the code that decodes it expects {_full_name(hint)}")


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
    """Yield the message classes of a type hint, which may be a union such as `Progress | None`."""
    if get_origin(type_hint) in (Union, types.UnionType):
        for arm in get_args(type_hint):
            yield from _message_classes(arm)
    elif isinstance(type_hint, type) and issubclass(type_hint, _Dataclass | Message):
        yield type_hint


def _whose() -> str:
    """Return the workflow or activity that encodes the payload."""
    if activity.in_activity():
        return f"a result or message of activity {activity.info().activity_type!r}"
    if workflow.in_workflow():
        return f"a result or message of workflow {workflow.info().workflow_type!r}"
    return ""


def _largest_part(values: Sequence[Any], payloads: Sequence[Payload]) -> str:
    """Return the largest field at any depth, or the value itself if it is not a message."""
    number, payload = max(enumerate(payloads), key=lambda each: each[1].ByteSize())
    message, path, size = values[number], list[str](), payload.ByteSize()
    name = type(message).__name__
    while isinstance(message, _Dataclass):
        sizes = {each.name: _size_alone(message, each.name) for each in dataclasses.fields(cast("Any", message))}
        largest = max(sizes, key=sizes.__getitem__, default=None)
        if largest is None:
            break
        path.append(largest)
        size, message = sizes[largest], getattr(message, largest)
    if isinstance(message, Message) and message.ListFields():
        sizes = {descriptor.name: len(str(value)) for descriptor, value in message.ListFields()}
        path.append(max(sizes, key=sizes.__getitem__))
    which = f"value {number + 1}, a {name}" if len(values) > 1 else f"a {name}"
    if not path:
        return f"{which}, with {size:,} bytes"
    count = f" ({len(message):,} values)" if isinstance(message, list | dict) else ""  # pyright: ignore[reportUnknownArgumentType]
    return f"the field {'.'.join(path)!r} of {which}, with {size:,} bytes{count}"


def _size_alone(message: Any, field: str) -> int:
    """Return the bytes of a message with only one of its fields."""
    return len(codec.encode(type(message)(**{field: getattr(message, field)})))
