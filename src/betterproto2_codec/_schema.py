"""Describe messages to `_wire`, the extension module that encodes and decodes bytes without google.protobuf.

It is optional, and handles clean, common bytes. Without it, and for bytes that it does not handle, google.protobuf does
the work. CONTEXTWORKER_PURE_PYTHON=1 in the environment disables it, at run time and when installing.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from ._model import FieldModel, Kind, MessageModel, ValueType
from ._runtime import EnumTable

if TYPE_CHECKING:
    from . import _wire


def _is_available() -> bool:
    # The extension copies numbers of a fixed width directly from memory, which must be little-endian.
    if os.environ.get("CONTEXTWORKER_PURE_PYTHON", "0") not in ("", "0") or sys.byteorder != "little":
        return False
    return importlib.util.find_spec(f"{__package__}._wire") is not None


IS_NATIVE = _is_available()
"""Whether the extension was built and is enabled."""

if IS_NATIVE:
    from . import _wire


def struct_bytes(mapping: object) -> bytes | None:
    """Encode a dict as a Struct; None if the extension does not handle it."""
    return _wire.struct_bytes(mapping) if IS_NATIVE else None


# Kinds of fields without a number in descriptors.
_TIMESTAMP, _DURATION, _WRAPPER, _MAP, _UNFIT, _PLAIN = 19, 20, 21, 22, 23, 24
_DEFAULTS: Mapping[Kind, Any] = {
    Kind.STRING: "",
    Kind.BYTES: b"",
    Kind.BOOL: False,
    Kind.INT: 0,
    Kind.DOUBLE: 0.0,
    Kind.FLOAT: 0.0,
}


class Schemas:
    """The schemas of message classes, which reference each other."""

    def __init__(self) -> None:
        self._schemas: dict[type, _wire.Schema] = {}
        self._enums: dict[type, EnumTable] = {}

    def of(self, models: Mapping[type, MessageModel]) -> dict[type, _wire.Schema]:
        """Return the schemas of the messages that the extension can handle.

        Args:
            models: by generated class, including all messages inside unless they were passed before.
        """
        fit = {cls: _wire.Schema(cls) for cls, model in models.items() if _is_fit(model)} if IS_NATIVE else {}
        self._schemas |= fit
        for cls, schema in fit.items():
            self._define(schema, models[cls])
        return fit

    def with_plain(self, model: MessageModel, plain: FieldModel) -> _wire.Schema | None:
        """Return a schema in which one field, a Struct, is a dict; None if the extension cannot handle it.

        Args:
            model: of a message that already has a schema.
            plain: the field.
        """
        if model.cls not in self._schemas:
            return None
        schema = _wire.Schema(model.cls)
        self._define(schema, model, plain)
        return schema

    def _define(self, schema: _wire.Schema, model: MessageModel, plain: FieldModel | None = None) -> None:
        oneofs = list(dict.fromkeys(field.oneof for field in model.fields if field.oneof))
        fields = (
            _wire.Field(field.number, _PLAIN, presence=True) if field is plain else self._field(field, oneofs)
            for field in model.fields
        )
        schema.define(tuple(fields), *_accessors(model))

    def _field(self, field: FieldModel, oneofs: list[str]) -> _wire.Field:
        made: _wire.Field | None
        if field.key is not None:
            key, inner = self._value(1, field.key), self._value(2, field.value)
            made = inner and _wire.Field(field.number, _MAP, repeated=True, key=key, inner=inner)
        else:
            made = self._value(
                field.number,
                field.value,
                repeated=field.repeated,
                presence=field.presence,
                packed=field.repeated and field.value.descriptor.is_packed,
                group=oneofs.index(field.oneof) if field.oneof else -1,
            )
        # A message type that it cannot handle makes the whole decode or encode fall back when it occurs.
        return made or _wire.Field(field.number, _UNFIT, presence=True)

    def _value(self, number: int, value: ValueType, *, presence: bool = False, **traits: Any) -> _wire.Field | None:
        traits["presence"] = presence
        match value.kind:
            case Kind.MESSAGE:
                schema = self._schemas.get(cast("type", value.cls))
                if schema is None:
                    return None
                return _wire.Field(number, FieldDescriptor.TYPE_MESSAGE, schema=schema, **traits)
            case Kind.ENUM:
                return self._enum(number, value, traits)
            case Kind.TIMESTAMP:
                return _wire.Field(number, _TIMESTAMP, **traits)
            case Kind.DURATION:
                return _wire.Field(number, _DURATION, **traits)
            case Kind.WRAPPER:
                inner = self._value(1, cast("ValueType", value.inner))
                return _wire.Field(number, _WRAPPER, inner=inner, **traits)
            case kind:
                default = None if presence else _DEFAULTS[kind]
                return _wire.Field(number, value.descriptor.type, default=default, **traits)

    def _enum(self, number: int, value: ValueType, traits: dict[str, Any]) -> _wire.Field | None:
        cls = cast("type", value.cls)
        members = self._enums.setdefault(cls, EnumTable(cls))
        if 0 not in members or cast("Any", value.descriptor.enum_type).is_closed:
            return None
        default = None if traits["presence"] else members[0]
        return _wire.Field(number, FieldDescriptor.TYPE_ENUM, default=default, members=members, enum=cls, **traits)


def _is_fit(model: MessageModel) -> bool:
    oneofs = {field.oneof for field in model.fields if field.oneof}
    file = cast("FileDescriptor", model.proto.DESCRIPTOR.file)
    return len(model.fields) <= _wire.MAX_FIELDS and len(oneofs) <= _wire.MAX_GROUPS and _is_proto3(file)


@functools.cache
def _is_proto3(file: FileDescriptor) -> bool:
    # Other editions can have what only google.protobuf supports: closed enums, required or delimited fields.
    described = FileDescriptorProto()
    file.CopyToProto(described)
    return described.syntax == "proto3"


def _accessors(model: MessageModel) -> tuple[Callable[..., None], Callable[[Any], tuple[Any, ...]]]:
    """Compile two functions: one sets all attributes of an instance, one reads them, with the unknown fields last.

    The extension uses them to find the positions of attributes, and calls them if it cannot find those. The interpreter
    gets and sets attributes of one class several times faster than C code does by name.
    """
    names = [field.attribute for field in model.fields]
    values = ", ".join(f"v{index}" for index in range(len(names)))
    sets = "\n".join(f"    o.{name} = v{index}" for index, name in enumerate(names))
    reads = "".join(f"o.{name}, " for name in names)
    source = f"def fill(o, {values}):\n{sets}\n    o._unknown_fields = b''\n\n\ndef read(o):\n"
    source += f"    return ({reads}o._unknown_fields,)\n"
    scope: dict[str, Any] = {}
    # Safe to exec: the text consists of attribute names of generated classes, never of data.
    exec(compile(source, f"<attributes of {model.name}>", "exec"), scope)  # noqa: S102
    return scope["fill"], scope["read"]
