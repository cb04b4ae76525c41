"""ContextUnit for Python callers: the generated envelope with defaults, validation and plain Python values."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol, Self, cast

import betterproto2
from contextunity.gen.contextunity import core as gen
from contextunity.gen.google import protobuf as wkt
from google.protobuf.message import Message
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    JsonValue,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    WrapSerializer,
    WrapValidator,
    model_validator,
)

from . import codec
from .errors import CodecError
from .exact_datetime import ExactDatetime, nanosecond_in

__all__ = ["ContextUnit", "EnvelopeModule"]


class EnvelopeModule(Protocol):
    """A generated pb2 module that contains the envelope, such as `worker_pb2` or a caller's own copy."""

    @property
    def ContextUnit(self) -> type[Any]:  # noqa: N802 - the generated class is called so
        """Google's message class for the envelope."""
        ...


def _new_id() -> str:
    return str(uuid.uuid4())


def _uuid_or_empty(value: str) -> str:
    if value:
        try:
            return str(uuid.UUID(value))
        except ValueError:
            raise ValueError(f"{value!r} is not a UUID such as {uuid.UUID(int=0)}") from None
    return value


def _to_the_nanosecond(value: Any, read: ValidatorFunctionWrapHandler) -> datetime:
    # pydantic keeps a datetime unchanged, but reads only six digits of a second from text.
    moment: datetime = read(value)
    nanosecond = nanosecond_in(value) if isinstance(value, str) else 0
    return ExactDatetime.of(moment, nanosecond) if nanosecond else moment


def _with_all_digits(moment: datetime | None, write: SerializerFunctionWrapHandler) -> Any:
    if isinstance(moment, ExactDatetime) and moment.nanosecond:
        return moment.isoformat().replace("+00:00", "Z")
    return write(moment)


_Time = Annotated[
    AwareDatetime, WrapValidator(_to_the_nanosecond), WrapSerializer(_with_all_digits, when_used="json-unless-none")
]
_Id = Annotated[str, AfterValidator(_uuid_or_empty)]


class ContextUnit(BaseModel):
    """One unit of context.

    It is validated against the generated envelope when created: a value that cannot be encoded raises pydantic's
    ValidationError, which names the field. The fields are described in the proto message
    `contextunity.core.ContextUnit`.

    Args:
        payload: the content as JSON-like data; integers up to 2**53.
        unit_id: UUID; a new one by default.
        trace_id: UUID; a new one by default. Pass the trace_id of the unit that caused this one.
        created_at: with a time zone; now by default.
        body: the content as a typed message: a generated dataclass, which is packed immediately, or a
            google.protobuf.Any. Reading it always returns an Any or None.

    Example:
        >>> unit = ContextUnit(payload={"workflow_type": "harvest"}, provenance=["commerce:trigger"])
        >>> unit.payload["workflow_type"]
        'harvest'
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_assignment=True)

    unit_id: _Id = Field(default_factory=_new_id)
    trace_id: _Id = Field(default_factory=_new_id)
    parent_unit_id: _Id = ""
    modality: gen.Modality = gen.Modality.TEXT
    payload: dict[str, JsonValue] = Field(default_factory=dict)
    chain_of_thought: list[InstanceOf[gen.CotStep]] = Field(default_factory=list[gen.CotStep])
    metrics: InstanceOf[gen.UnitMetrics] | None = None
    security: InstanceOf[gen.SecurityScopes] | None = None
    created_at: _Time | None = Field(default_factory=lambda: datetime.now(UTC))
    provenance: list[str] = Field(default_factory=list)
    body: InstanceOf[betterproto2.Message] | None = None

    _unknown_fields: bytes = PrivateAttr(default=b"")
    _has_payload: bool = PrivateAttr(default=True)

    @model_validator(mode="before")
    @classmethod
    def _pack_body(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        body = given.get("body")
        if body is None or isinstance(body, wkt.Any):
            return given
        try:
            return {**given, "body": codec.pack_any(body)}
        except (CodecError, TypeError, AttributeError) as error:
            raise ValueError(f"body: {error}") from None

    @model_validator(mode="after")
    def _fits_the_wire(self) -> Self:
        # The codec checks ranges, and names the field by its proto path.
        try:
            self._encode()
        except CodecError as error:
            raise ValueError(f"{error.path}: {error.reason}") from None
        return self

    def to_dataclass(self) -> gen.ContextUnit:
        """Convert to the generated dataclass."""
        unit = self._without_payload()
        if self.payload or self._has_payload:
            try:
                unit.payload = codec.dict_to_struct(self.payload)
            except CodecError as error:
                raise CodecError(error.reason, path=f"payload{error.path}") from None
        return unit

    @classmethod
    def from_dataclass(cls, unit: gen.ContextUnit) -> Self:
        """Create a unit from a generated dataclass; missing ids and times stay empty."""
        return cls._of(unit, None if unit.payload is None else codec.struct_to_dict(unit.payload))

    def to_protobuf(self, pb_module: EnvelopeModule) -> Any:
        """Convert to the message to send, `pb_module.ContextUnit`.

        Args:
            pb_module: module with the generated message class, such as `contextunity.core.worker_pb2`.
        """
        return pb_module.ContextUnit.FromString(self._encode())

    @classmethod
    def from_protobuf(cls, message: Message) -> Self:
        """Create a unit from a received message; unknown fields are kept.

        Raises:
            CodecError: the message is not a ContextUnit.
        """
        name = message.DESCRIPTOR.full_name
        if name != codec.full_name(gen.ContextUnit):
            raise CodecError(f"expected {codec.full_name(gen.ContextUnit)}, got {name}")
        data = message.SerializeToString()
        apart = codec.decode_apart(gen.ContextUnit, data, "payload")
        if apart is None:
            return cls.from_dataclass(codec.decode(gen.ContextUnit, data))
        unit, payload = apart
        return cls._of(unit, payload if payload or message.HasField("payload") else None)

    def _encode(self) -> bytes:
        unit = self._without_payload()
        if self.payload or self._has_payload:
            return codec.encode_apart(unit, "payload", self.payload)
        return codec.encode(unit)

    def _without_payload(self) -> gen.ContextUnit:
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "payload"}
        unit = gen.ContextUnit(**values)
        # betterproto2 has no public name for the unknown fields that it keeps.
        unit._unknown_fields = self._unknown_fields  # pyright: ignore[reportPrivateUsage]
        return unit

    @classmethod
    def _of(cls, unit: gen.ContextUnit, payload: dict[str, Any] | None) -> Self:
        """Create a unit from a dataclass and its payload as plain data; None if it has no payload."""
        values = {name: getattr(unit, name) for name in cls.model_fields if name != "payload"}
        face = cls.model_construct(payload=payload or {}, **values)
        face._unknown_fields = unit._unknown_fields  # pyright: ignore[reportPrivateUsage]
        face._has_payload = payload is not None
        return face
