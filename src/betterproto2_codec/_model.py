"""Describe a message class field by field, for the rest of the codec.

A model combines the dataclass (attribute names, Python types) with Google's descriptor (types, presence). Fields are
matched by number, because betterproto2 renames fields whose names are not valid in Python.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import betterproto2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message as ProtoMessage

from ._classes import class_in_pool, proto_class_by_name, registration
from .errors import CodecError


class Kind(enum.Enum):
    """The Python kind of a single value."""

    STRING = "str"
    BYTES = "bytes"
    BOOL = "bool"
    INT = "int"
    DOUBLE = "float"
    FLOAT = "float32"
    ENUM = "enum"
    MESSAGE = "message"
    TIMESTAMP = "timestamp"
    DURATION = "duration"
    WRAPPER = "wrapper"


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueType:
    """The type of a single value: of a field, a list element, a map key or a map value.

    Attributes:
        kind: its Python kind.
        bits: for an integer, 32 or 64; otherwise 0.
        signed: for an integer, whether it can be negative.
        cls: the dataclass of a message or the Enum class of an enum; otherwise None.
        name: full proto name of a message or enum; otherwise empty.
        inner: for a wrapper, the type of the wrapped value; otherwise None.
        descriptor: Google's descriptor of the field.
    """

    kind: Kind
    bits: int = 0
    signed: bool = True
    cls: type[Any] | None = None
    name: str = ""
    inner: ValueType | None = None
    descriptor: FieldDescriptor

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldModel:
    """One field of a message.

    Attributes:
        attribute: name in the dataclass.
        name: name in the proto file, and in Google's class.
        json_name: name in ProtoJSON.
        number: field number.
        value: type of the value, of a list's elements, or of a map's values.
        key: type of a map's keys; None for other fields.
        repeated: whether it is a list.
        presence: whether absent differs from the default; such a field is None when absent.
        oneof: name of its oneof; empty for none and for proto3 `optional`.
    """

    attribute: str
    name: str
    json_name: str
    number: int
    value: ValueType
    key: ValueType | None
    repeated: bool
    presence: bool
    oneof: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageModel:
    """One message class.

    Attributes:
        cls: the generated dataclass.
        proto: Google's class.
        name: full proto name.
        fields: its fields, ordered by number.
        by_key: its fields by each key that ProtoJSON accepts.
    """

    cls: type[betterproto2.Message]
    proto: type[ProtoMessage]
    name: str
    fields: tuple[FieldModel, ...]
    by_key: Mapping[str, FieldModel]


def is_struct(value: ValueType) -> bool:
    """Whether values are Structs."""
    message = value.descriptor.message_type
    return message is not None and message.full_name == "google.protobuf.Struct"


_lock = threading.RLock()
_models: dict[type, MessageModel] = {}

_SCALARS: dict[int, tuple[Kind, int, bool]] = {
    FieldDescriptor.TYPE_STRING: (Kind.STRING, 0, True),
    FieldDescriptor.TYPE_BYTES: (Kind.BYTES, 0, True),
    FieldDescriptor.TYPE_BOOL: (Kind.BOOL, 0, True),
    FieldDescriptor.TYPE_DOUBLE: (Kind.DOUBLE, 0, True),
    FieldDescriptor.TYPE_FLOAT: (Kind.FLOAT, 0, True),
    FieldDescriptor.TYPE_INT32: (Kind.INT, 32, True),
    FieldDescriptor.TYPE_SINT32: (Kind.INT, 32, True),
    FieldDescriptor.TYPE_SFIXED32: (Kind.INT, 32, True),
    FieldDescriptor.TYPE_UINT32: (Kind.INT, 32, False),
    FieldDescriptor.TYPE_FIXED32: (Kind.INT, 32, False),
    FieldDescriptor.TYPE_INT64: (Kind.INT, 64, True),
    FieldDescriptor.TYPE_SINT64: (Kind.INT, 64, True),
    FieldDescriptor.TYPE_SFIXED64: (Kind.INT, 64, True),
    FieldDescriptor.TYPE_UINT64: (Kind.INT, 64, False),
    FieldDescriptor.TYPE_FIXED64: (Kind.INT, 64, False),
}


def model_of(cls: type) -> MessageModel:
    """Return the model of a dataclass; it is cached.

    Raises:
        CodecError: the class is not generated, or does not match Google's class of its name.
    """
    found = _models.get(cls)
    if found is None:
        with _lock:
            found = _models.get(cls) or _describe(cls)
            _models[cls] = found
    return found


def _describe(cls: type) -> MessageModel:
    base, name, pool = registration(cls)
    if base is not cls:
        return model_of(base)
    proto = proto_class_by_name(name, base.__module__)
    descriptor = proto.DESCRIPTOR
    declared = {_meta(field).number: field for field in dataclasses.fields(cast("Any", base))}
    # The stubs distinguish upb's descriptors from the pure Python ones; at run time they are interchangeable.
    described = {field.number: cast("FieldDescriptor", field) for field in descriptor.fields}
    if declared.keys() != described.keys():
        odd = ", ".join(str(number) for number in sorted(declared.keys() ^ described.keys()))
        raise CodecError(
            f"its dataclass and its _pb2 module disagree on the fields numbered {odd}; "
            "generate both again, and check that no two fields get the same Python name",
            message_type=name,
        )
    fields = tuple(
        _field(_Context(base, pool, name), declared[number], described[number]) for number in sorted(declared)
    )
    by_key = {key: field for field in fields for key in (field.name, field.json_name)}
    return MessageModel(cls=base, proto=proto, name=name, fields=fields, by_key=by_key)


@dataclass(frozen=True, slots=True)
class _Context:
    cls: type[betterproto2.Message]
    pool: betterproto2.MessagePool
    name: str


def _meta(field: dataclasses.Field[Any]) -> betterproto2.FieldMetadata:
    return cast("betterproto2.FieldMetadata", field.metadata["betterproto"])


def _field(context: _Context, field: dataclasses.Field[Any], descriptor: FieldDescriptor) -> FieldModel:
    meta = _meta(field)
    key: ValueType | None = None
    of_value, unwrap = descriptor, meta.unwrap
    entry = _map_entry(descriptor)
    if entry is not None:
        key = _value_type(context, field, entry.fields_by_number[1], wrapped=False)
        of_value = entry.fields_by_number[2]
        unwrap = meta.map_meta[1].unwrap if meta.map_meta else None
    oneof = descriptor.containing_oneof
    return FieldModel(
        attribute=field.name,
        name=descriptor.name,
        json_name=descriptor.json_name,
        number=descriptor.number,
        value=_value_type(context, field, of_value, wrapped=unwrap is not None),
        key=key,
        repeated=descriptor.is_repeated and entry is None,
        presence=descriptor.has_presence,
        # A proto3 `optional` field has a synthetic oneof: descriptors name it after the field, with an underscore.
        oneof=oneof.name if oneof is not None and meta.group else "",
    )


def _map_entry(descriptor: FieldDescriptor) -> Descriptor | None:
    message = descriptor.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def _value_type(
    context: _Context, field: dataclasses.Field[Any], descriptor: FieldDescriptor, *, wrapped: bool
) -> ValueType:
    scalar = _SCALARS.get(descriptor.type)
    if scalar is not None:
        kind, bits, signed = scalar
        return ValueType(kind=kind, bits=bits, signed=signed, descriptor=descriptor)
    if descriptor.enum_type is not None:
        name = descriptor.enum_type.full_name
        cls = _enum_class(context, field)
        return ValueType(kind=Kind.ENUM, bits=32, cls=cls, name=name, descriptor=descriptor)
    if descriptor.message_type is None or descriptor.type != FieldDescriptor.TYPE_MESSAGE:
        raise CodecError("groups are not supported", path=descriptor.name, message_type=context.name)
    name = descriptor.message_type.full_name
    if wrapped:
        return _wrapped_type(context, field, descriptor.message_type, descriptor)
    message = class_in_pool(context.pool, name)
    if message is None:
        raise CodecError(
            f"its type {name} is not in the generated tree of {context.cls.__module__}; generate it into the same tree",
            path=descriptor.name,
            message_type=context.name,
        )
    return ValueType(kind=Kind.MESSAGE, cls=message, name=name, descriptor=descriptor)


def _wrapped_type(
    context: _Context, field: dataclasses.Field[Any], message: Descriptor, descriptor: FieldDescriptor
) -> ValueType:
    name = message.full_name
    if name == "google.protobuf.Timestamp":
        return ValueType(kind=Kind.TIMESTAMP, name=name, descriptor=descriptor)
    if name == "google.protobuf.Duration":
        return ValueType(kind=Kind.DURATION, name=name, descriptor=descriptor)
    inner = _value_type(context, field, message.fields_by_name["value"], wrapped=False)
    return ValueType(kind=Kind.WRAPPER, name=name, inner=inner, descriptor=descriptor)


def _enum_class(context: _Context, field: dataclasses.Field[Any]) -> type[betterproto2.Enum]:
    """Read the Enum class off the field's annotation; betterproto2 registers enums nowhere."""
    scope = vars(sys.modules[context.cls.__module__])
    hint = field.type
    # Annotations are text in generated code. Evaluate them in the module's scope, since in the scope of the class a
    # field can have the same name as its type.
    resolved: Any = eval(hint, scope) if isinstance(hint, str) else hint  # noqa: S307 - text of generated code
    candidates = (resolved, *getattr(resolved, "__args__", ()))
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, betterproto2.Enum):
            return candidate
    raise CodecError(f"its annotation {hint!r} does not name an enum", path=field.name, message_type=context.name)
