"""Handle fields that only workflows may set: `[(contextunity.worker.internal) = true]` in a proto.

The service rejects them with their path, before it fills in its own values (`internal_in_data`,
`internal_in_message`). A worker clears them in a run that was started without the service (`clear_internal`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import betterproto2
from contextunity.gen.contextunity.worker import options_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError, Message
from temporalio import workflow

from contextunity.core import codec
from contextunity.core.errors import CodecError, Violation

__all__ = ["clear_internal", "internal_in_data", "internal_in_message", "is_internal"]

_Descriptor: TypeAlias = Any
"""A message's descriptor; the stubs have two incompatible classes of it."""
_Field: TypeAlias = Any
_ANY = "google.protobuf.Any"
_REASON = "is internal: only workflows set it; leave it out"


@functools.cache
def is_internal(field: _Field) -> bool:
    """Whether a field is marked as internal, by its descriptor."""
    # Parse again: the field's module may have been imported before our options.
    options = descriptor_pb2.FieldOptions.FromString(field.GetOptions().SerializeToString())
    return bool(options.Extensions[options_pb2.internal])


def internal_in_data(data: Any, descriptor: _Descriptor, *, into_packed: bool = True) -> list[Violation]:
    """Return the internal fields that are set in ProtoJSON data, each with its path.

    A key counts with any value, including zero and empty; only null means absent, as in ProtoJSON. Other
    errors, such as a wrong type, are left to the codec.

    Args:
        data: data from a caller.
        descriptor: descriptor of its message.
        into_packed: whether to check messages packed in an Any.
    """
    if not _may_hold(descriptor):
        return []
    return [Violation(path, _REASON) for path in _in_data(data, descriptor, "", into_packed)]


def internal_in_message(message: betterproto2.Message | Message, *, into_packed: bool = True) -> list[Violation]:
    """Return the internal fields that are set in a message, each with its path.

    Args:
        message: decoded message from a caller.
        into_packed: whether to check messages packed in an Any.
    """
    if not isinstance(message, Message):
        if not _may_hold(codec.proto_class(type(message)).DESCRIPTOR):
            return []
        message = codec.to_proto(message)
    return [Violation(path, _REASON) for path in _in_message(message, "", into_packed)]


def clear_internal(argument: object) -> None:
    """Clear the internal fields in the input of a workflow that neither continues another run nor has a parent.

    Call it in a workflow, before its code sees the input. A workflow started by a Temporal client directly was not
    checked by the service, so its internal fields are not trusted.

    A run that Temporal started by the workflow's retry policy or cron has the input of an earlier run, maybe the first
    one, so it counts as started directly.
    """
    if not isinstance(argument, betterproto2.Message) or not workflow.in_workflow():
        return
    if not _may_hold(codec.proto_class(type(argument)).DESCRIPTOR):
        return
    info = workflow.info()
    continues = info.continued_run_id is not None and info.attempt == 1 and info.cron_schedule is None
    if continues or info.parent is not None:
        return
    found = internal_in_message(argument)
    if not found:
        return
    cleared = codec.to_proto(argument)
    _clear(cleared)
    fresh = codec.from_proto(type(argument), cleared)
    # In place, because the SDK passes the same object to `__init__` and `run`.
    vars(argument).clear()
    vars(argument).update(vars(fresh))
    if not workflow.unsafe.is_replaying():
        names = ", ".join(violation.path for violation in found)
        workflow.logger.warning("the start set internal fields, which are ignored: %s", names)


def _children(descriptor: _Descriptor) -> Iterator[_Descriptor]:
    for field in descriptor.fields:
        if field.message_type is not None:
            yield field.message_type


@functools.cache
def _may_hold(descriptor: _Descriptor) -> bool:
    """Whether a message can contain an internal field anywhere; nearly always it cannot, and the search is skipped."""
    seen = dict[str, _Descriptor]()
    pending = [descriptor]
    while pending:
        current = pending.pop()
        if current.full_name == _ANY or any(is_internal(field) for field in current.fields):
            return True
        seen[current.full_name] = current
        pending += [child for child in _children(current) if child.full_name not in seen]
    return False


def _in_data(data: Any, descriptor: _Descriptor, path: str, into_packed: bool) -> Iterator[str]:
    if not isinstance(data, Mapping):
        return
    given = cast("Mapping[str, Any]", data)
    if descriptor.full_name == _ANY:
        packed = _packed_type(given.get("@type")) if into_packed else None
        if packed is not None and _may_hold(packed):
            # Types with a special JSON form, including Any, have it under `value`.
            special = packed.full_name.startswith("google.protobuf.")
            yield from _in_data(given.get("value") if special else given, packed, path, into_packed)
        return
    for key, value in given.items():
        field = descriptor.fields_by_name.get(key) or _by_json_name(descriptor).get(key)
        if field is None or value is None:
            continue
        where = f"{path}.{key}" if path else key
        if is_internal(field):
            yield where
        elif field.message_type is not None and _may_hold(field.message_type):
            for place, each, inner in _parts(field, value, where):
                yield from _in_data(each, inner, place, into_packed)


@functools.cache
def _by_json_name(descriptor: _Descriptor) -> Mapping[str, _Field]:
    return {field.json_name: field for field in descriptor.fields}


def _in_message(message: Message, path: str, into_packed: bool) -> Iterator[str]:
    if message.DESCRIPTOR.full_name == _ANY:
        packed = _unpacked(message) if into_packed else None
        if packed is not None:
            yield from _in_message(packed, path, into_packed)
        return
    for field, value in codec.list_fields(message):
        where = f"{path}.{field.name}" if path else str(field.name)
        if is_internal(field):
            yield where
        elif field.message_type is not None and _may_hold(field.message_type):
            for place, each, _ in _parts(field, value, where):
                yield from _in_message(each, place, into_packed)


def _clear(message: Message) -> None:
    if message.DESCRIPTOR.full_name == _ANY:
        packed = _unpacked(message)
        if packed is not None:
            _clear(packed)
            cast("Any", message).value = packed.SerializeToString()
        return
    for field, value in codec.list_fields(message):
        if is_internal(field):
            message.ClearField(field.name)
        elif field.message_type is not None and _may_hold(field.message_type):
            for _, each, _ in _parts(field, value, ""):
                _clear(each)


def _parts(field: _Field, value: Any, where: str) -> list[tuple[str, Any, _Descriptor]]:
    """Yield the messages in a field's value with path and type, including values of a map and elements of a list."""
    inner = field.message_type
    if inner.GetOptions().map_entry:
        inner = inner.fields_by_name["value"].message_type
        if inner is None or not isinstance(value, Mapping):
            return []
        given = cast("Mapping[str, Any]", value)
        return [(f"{where}[{_key(key)}]", given[key], inner) for key in given]
    if not field.is_repeated:
        return [(where, value, inner)]
    if isinstance(value, str) or not isinstance(value, Sequence):
        return []
    return [(f"{where}[{place}]", each, inner) for place, each in enumerate(cast("Any", value))]


def _key(key: object) -> str:
    return f'"{key}"' if isinstance(key, str) else str(key)


def _packed_type(type_url: object) -> _Descriptor | None:
    """Unpack an Any; None if its type is unknown here, so that nothing here reads it."""
    name = type_url.rpartition("/")[2] if isinstance(type_url, str) else ""
    try:
        return codec.proto_class(codec.message_class(name)).DESCRIPTOR if name else None
    except CodecError:
        return None


def _unpacked(message: Message) -> Message | None:
    packed = cast("Any", message)
    descriptor = _packed_type(packed.type_url)
    if descriptor is None or not _may_hold(descriptor):
        return None
    try:
        return codec.proto_class(codec.message_class(str(descriptor.full_name))).FromString(packed.value)
    except DecodeError:
        return None  # Its reader rejects it.
