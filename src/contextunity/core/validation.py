"""Validate messages against the `buf.validate` rules of their proto."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import betterproto2
from google.protobuf.message import Message

from . import codec
from .errors import CodecError, Violation

if TYPE_CHECKING:
    from protovalidate import Violation as RuleViolation

__all__ = ["check", "violations"]

_LEAST = frozenset({"required", "string.min_len", "string.min_bytes", "bytes.min_len", "repeated.min_items"})
"""Rules that a missing value breaks."""
_LENGTH = re.compile(r"(len|bytes)$")
_SHOWN = 100
"""Characters of a value that a violation shows; the rest is cut."""


def violations(message: betterproto2.Message | Message) -> list[Violation]:
    """Return the violations of a message's rules; an empty list if it is valid.

    Args:
        message: a generated dataclass, or Google's message.

    Raises:
        CodecError: a value of the dataclass cannot be encoded; or a rule of the proto cannot be evaluated, which is a
            fault in the proto.
    """
    proto = message if isinstance(message, Message) else codec.to_proto(message)
    collect, faults = _validator()
    try:
        found = collect(proto)
    except faults as error:
        name: str = proto.DESCRIPTOR.full_name
        raise CodecError(
            f"a rule of its proto cannot be evaluated: {error}; fix the proto", message_type=name
        ) from error
    return [Violation(_path(each), _reason(each)) for each in found]


def check(message: betterproto2.Message | Message) -> None:
    """Reject a message that breaks the rules of its proto.

    Raises:
        CodecError: the message is invalid; `violations` lists every fault.
    """
    found = violations(message)
    if found:
        descriptor = message.DESCRIPTOR if isinstance(message, Message) else codec.proto_class(type(message)).DESCRIPTOR
        raise CodecError.of(found, message_type=str(descriptor.full_name))


@functools.cache
def _validator() -> tuple[Callable[[Any], Sequence[RuleViolation]], tuple[type[Exception], ...]]:
    """Return a function that collects violations, and the errors it raises for rules that cannot be evaluated."""
    # Imported on first use: commands that validate nothing start faster without it.
    from protovalidate import CompilationError, EvaluationError, Validator

    return Validator().collect_violations, (CompilationError, EvaluationError)


def _path(violation: RuleViolation) -> str:
    path = ""
    field: Any = violation.proto.field
    for element in field.elements if field is not None else ():
        path = f"{path}.{element.field_name}" if path else str(element.field_name)
        subscript = element.subscript
        if subscript is not None:
            key = subscript.value
            path += f'["{key}"]' if isinstance(key, str) else f"[{key}]"
    return path


def _reason(violation: RuleViolation) -> str:
    told, value = violation.proto, violation.field_value
    message = told.message or f"breaks the rule {told.rule_id}"
    if told.rule_id in _LEAST and not value:
        message = "is required"
    elif isinstance(value, int | float | str) and value != "":
        # For a length rule, show the length of the text instead of the text.
        text = repr(len(value) if isinstance(value, str) and _LENGTH.search(told.rule_id) else value)
        message += f", not {text if len(text) <= _SHOWN else f'{text[:_SHOWN]}…'}"
    return f"as a key: {message}" if told.for_key else message
