"""The two forms of what a unit holds: typed messages in its body, the same as plain data in its payload.

In a payload, enum values are lower-case words without their prefix, durations are seconds, and a packed message is an
object without its type. The rest is ProtoJSON by proto names.
"""

from __future__ import annotations

import functools
import math
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeGuard, TypeVar

import betterproto2
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.worker import ExecuteCodeResult, RegisterSchedulesResult, StartWorkflowResult
from contextunity.gen.google import protobuf
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from contextunity.core import codec, validation
from contextunity.core.errors import CodecError, Violation
from contextunity.worker.status import FieldViolation, Reason, ServiceError, invalid

from ._call import Call

__all__ = [
    "answer",
    "as_payload",
    "check_rules",
    "from_payload",
    "misfits",
    "payload_of",
    "read_payload",
    "read_request",
    "unpack",
]

M = TypeVar("M", bound=betterproto2.Message)

_WHOLE = frozenset(
    codec.full_name(message) for message in (ExecuteCodeResult, RegisterSchedulesResult, StartWorkflowResult)
)
"""Messages whose payload has every field, as deployed clients expect, also where it is empty, zero or absent."""

_PAYLOAD_LEVELS = 32
"""Objects and lists in each other that a payload can surely hold: each takes up to three of protobuf's 100 levels."""

_Convert = Callable[[Any], Any]
Descriptor: TypeAlias = Any
"""A message's descriptor; the stubs know two classes of them that do not fit each other."""


def payload_of(unit: ContextUnit) -> dict[str, Any]:
    """The payload as a plain dict; empty where there is none.

    Raises:
        ServiceError: it holds what a Struct may not, such as NaN.
    """
    if unit.payload is None:
        return {}
    try:
        return dict(codec.struct_to_dict(unit.payload))
    except CodecError as error:
        raise misfits("payload", error.violations) from None


def unpack(unit: ContextUnit) -> betterproto2.Message | None:
    """The typed message in the body; None where there is none.

    Raises:
        ServiceError: it is of a type that nobody here knows, or its bytes are not of that type.
    """
    if unit.body is None:
        return None
    try:
        return codec.unpack_any(unit.body)
    except CodecError as error:
        violation = FieldViolation(field="body", description=str(error))
        raise ServiceError(Reason.BODY_INVALID, f"body: {error}", violations=[violation]) from None


def read_request(unit: ContextUnit, message_class: type[M], prepare: _Convert | None = None) -> M:
    """The typed request of a unit, from its body or else from its payload, held against the rules of its proto.

    Args:
        unit: the request.
        message_class: what it should hold.
        prepare: brings a payload of a deployed client into today's names.

    Raises:
        ServiceError: it does not fit; every violation is named.
    """
    payload = payload_of(unit)
    message = unpack(unit)
    if message is not None:
        wanted = codec.full_name(message_class)
        if not isinstance(message, message_class):
            text = f"the body is a {codec.full_name(message)}; this method takes a {wanted}"
            raise ServiceError(Reason.BODY_INVALID, text, violations=[FieldViolation(field="body", description=text)])
        if payload:
            text = "the content stands in the body already; leave the payload empty"
            raise invalid(FieldViolation(field="payload", description=text))
        check_rules(message, "body")
        return message
    if prepare is not None:
        payload = prepare(payload)
    return read_payload(payload, message_class)


def read_payload(payload: Mapping[str, Any], message_class: type[M]) -> M:
    """A typed request from a payload, held against the rules of its proto.

    Raises:
        ServiceError: it does not fit; every violation is named.
    """
    try:
        message = from_payload(payload, message_class)
    except CodecError as error:
        raise misfits("payload", error.violations) from None
    check_rules(message, "payload")
    return message


def from_payload(data: Mapping[str, Any], message_class: type[M]) -> M:
    """A message from plain data as payloads have it; `as_payload` is the way back.

    Raises:
        CodecError: the data does not fit; every violation is named.
    """
    return codec.from_dict(message_class, _read(dict(data), codec.proto_class(message_class).DESCRIPTOR))


def check_rules(message: betterproto2.Message, where: str) -> None:
    """Holds a message against the rules of its proto.

    Args:
        message: what came.
        where: path of the message in the request, for the violations.

    Raises:
        ServiceError: it breaks some; each is named.
    """
    found = validation.violations(message)
    if found:
        raise misfits(where, found)


def answer(call: Call, message: betterproto2.Message) -> ContextUnit:
    """The unit that answers a call, with a message in both forms."""
    return ContextUnit(
        unit_id=str(uuid.uuid4()),
        trace_id=call.trace_id,
        parent_unit_id=call.unit.unit_id,
        payload=_struct(as_payload(message)),
        created_at=datetime.now(UTC),
        provenance=[*call.unit.provenance, call.label],
        body=codec.pack_any(message),
    )


def _struct(data: dict[str, Any]) -> protobuf.Struct:
    """A payload; of what is nested deeper than a Struct can be, nulls are left, and the body alone has it."""
    try:
        return codec.dict_to_struct(data)
    except CodecError:
        return codec.dict_to_struct(_shallow(data, _PAYLOAD_LEVELS))


def _shallow(value: Any, levels: int) -> Any:
    if _is_list(value):
        return [_shallow(each, levels - 1) for each in value] if levels else None
    if _is_object(value):
        return {key: _shallow(each, levels - 1) for key, each in value.items()} if levels else None
    return value


def as_payload(message: betterproto2.Message) -> dict[str, Any]:
    """A message as the plain data of a payload."""
    data = codec.to_dict(message, preserving_proto_field_name=True)
    return _write(data, codec.proto_class(type(message)).DESCRIPTOR)


def misfits(where: str, violations: tuple[Violation, ...] | list[Violation]) -> ServiceError:
    """The error for violations of a message that stands at `where` in the request."""
    return invalid(
        *(
            FieldViolation(field=f"{where}.{each.path}" if each.path else where, description=each.reason)
            for each in violations
        )
    )


def _read(data: Any, descriptor: Descriptor) -> Any:
    converters = _readers(descriptor)
    if not converters or not _is_object(data):
        return data
    return {key: converters[key](value) if key in converters else value for key, value in data.items()}


@functools.cache
def _readers(descriptor: Descriptor) -> Mapping[str, _Convert]:
    made = dict[str, _Convert]()
    for field in descriptor.fields:
        convert = _reader(field)
        if convert is not None:
            # A payload may use either name of a field, as ProtoJSON does.
            made[field.name] = made[field.json_name] = convert
    return made


def _reader(field: FieldDescriptor) -> _Convert | None:
    if field.enum_type is not None:
        words = {_word(value.name, field.enum_type): value.name for value in field.enum_type.values}
        one: _Convert = functools.partial(_from_word, words)
    elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Duration":
        one = _from_seconds
    elif field.message_type is not None and not _is_plain(field.message_type):
        inner = field.message_type
        one = lambda value: _read(value, inner)  # noqa: E731 - one of three
    else:
        return None
    return _each(one) if field.is_repeated else one


def _each(one: _Convert) -> _Convert:
    def convert(values: Any) -> Any:
        return [one(value) for value in values] if _is_list(values) else values

    return convert


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _from_word(words: Mapping[str, str], value: Any) -> Any:
    return words.get(value, value) if isinstance(value, str) else value


def _from_seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    return f"{value:.9f}s"


def _write(data: dict[str, Any], descriptor: Descriptor) -> dict[str, Any]:
    made = dict[str, Any]()
    whole = descriptor.full_name in _WHOLE
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_BYTES:
            continue
        if field.name in data:
            convert = _writer(field)
            made[field.name] = convert(data[field.name]) if convert else data[field.name]
        elif whole:
            made[field.name] = [] if field.is_repeated else None if field.message_type else field.default_value
    return made


@functools.cache
def _writer(field: FieldDescriptor) -> _Convert | None:
    if field.enum_type is not None:
        enum = field.enum_type
        one: _Convert = lambda name: _word(name, enum) if isinstance(name, str) else name  # noqa: E731 - one of four
    elif field.message_type is None or field.message_type.GetOptions().map_entry:
        return None
    elif field.message_type.full_name == "google.protobuf.Any":
        one = _without_type
    elif field.message_type.full_name == "google.protobuf.Duration":
        one = lambda text: float(text.removesuffix("s"))  # noqa: E731
    elif _is_plain(field.message_type):
        return None
    else:
        inner = field.message_type
        one = lambda value: _write(value, inner)  # noqa: E731
    return _each(one) if field.is_repeated else one


def _without_type(data: dict[str, Any]) -> Any:
    rest = {key: value for key, value in data.items() if key != "@type"}
    # Types with a JSON form of their own, such as Struct and Timestamp, have it under `value`.
    kind = str(data.get("@type", ""))
    return rest["value"] if ".google.protobuf." in kind.replace("/", ".") and rest.keys() == {"value"} else rest


def _is_plain(message: Descriptor) -> bool:
    """Whether its JSON is as ProtoJSON has it, whatever it holds."""
    return bool(message.full_name.startswith("google.protobuf.") or message.GetOptions().map_entry)


@functools.cache
def _prefix(enum: EnumDescriptor) -> str:
    names = [value.name for value in enum.values]
    shared = names[0]
    for name in names[1:]:
        while not name.startswith(shared):
            shared = shared[:-1]
    return shared[: shared.rfind("_") + 1]


def _word(name: str, enum: EnumDescriptor) -> str:
    return name.removeprefix(_prefix(enum)).lower()
