"""Plain data as people and programs write it, made ProtoJSON: words for enum values, seconds for durations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from ._classes import message_class, proto_class
from .errors import CodecError

__all__ = [
    "Convert",
    "Descriptor",
    "EnumWords",
    "elementwise",
    "enum_words",
    "has_words",
    "is_list",
    "is_object",
    "is_plain",
    "to_protojson",
    "words_of",
]

Descriptor: TypeAlias = Any
"""A message's descriptor; the stubs know two classes of them that do not fit each other."""

Convert: TypeAlias = Callable[[Any], Any]
"""Makes one form of a value into the other, and leaves what it does not know as it is."""

_ANY = "google.protobuf.Any"


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether it is a JSON list."""
    return isinstance(value, list)


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is a JSON object."""
    return isinstance(value, dict)


class EnumWords(NamedTuple):
    """How the values of an enum may be written.

    Attributes:
        prefix: what all names begin with, up to an underscore.
        by_text: names of values by each form in capitals: with the prefix, and without it.
        names: of all values.
    """

    prefix: str
    by_text: Mapping[str, str]
    names: frozenset[str]

    def word(self, name: str) -> str:
        """The word for a value: its name in lower case, without the prefix."""
        return name.removeprefix(self.prefix).lower()

    def name(self, text: str) -> str | None:
        """The name of the value that a text stands for, whatever its case; None where it stands for none."""
        if text in self.names:
            return text
        # Of letters that ASCII lacks, some become those of a word in capitals.
        return self.by_text.get(text.upper()) if text.isascii() else None


def enum_words(names: Sequence[str]) -> EnumWords:
    """How the values with these names may be written."""
    shared = names[0]
    for name in names[1:]:
        while not name.startswith(shared):
            shared = shared[:-1]
    prefix = shared[: shared.rfind("_") + 1]
    short, whole = _by_capitals(names, prefix), _by_capitals(names, "")
    # Answers have the short ones, so that those win where one value is called as another is without the prefix.
    return EnumWords(prefix, whole | short, frozenset(names))


def _by_capitals(names: Sequence[str], prefix: str) -> dict[str, str]:
    """Names by themselves in capitals, without those that differ in their case alone."""
    found, twice = dict[str, str](), set[str]()
    for name in names:
        text = name.removeprefix(prefix).upper()
        if found.setdefault(text, name) != name:
            twice.add(text)
    return {text: name for text, name in found.items() if text not in twice}


@functools.cache
def words_of(enum: EnumDescriptor) -> EnumWords:
    """How the values of an enum may be written."""
    return enum_words([value.name for value in enum.values])


def has_words(enum: EnumDescriptor) -> bool:
    """Whether the values of an enum have words; null is one of JSON's own."""
    return enum.full_name != "google.protobuf.NullValue"


def is_plain(message: Descriptor) -> bool:
    """Whether its JSON is as ProtoJSON has it, whatever it holds."""
    return bool(message.full_name.startswith("google.protobuf."))


def elementwise(one: Convert) -> Convert:
    """Converts the elements of a list."""

    def convert(values: Any) -> Any:
        return [one(value) for value in values] if is_list(values) else values

    return convert


@functools.cache
def to_protojson(message: Descriptor, *, seconds: bool = False) -> Convert | None:
    """What makes plain data ProtoJSON for a message; None where the two are the same, as they mostly are.

    It leaves what does not fit as it is, for the codec to refuse.

    Args:
        message: its descriptor.
        seconds: whether durations may be numbers of seconds, as they are in payloads of the service's own messages.
    """
    if not _may_change(message, seconds):
        return None
    converters = dict[str, Convert]()

    def convert(data: Any) -> Any:
        if not is_object(data):
            return data
        return {key: converters[key](value) if key in converters else value for key, value in data.items()}

    for field in message.fields:
        of_field = _converter(field, seconds)
        if of_field is not None:
            # Either name of a field may be used, as in ProtoJSON.
            converters[field.name] = converters[field.json_name] = of_field
    return convert


def _converter(field: FieldDescriptor, seconds: bool) -> Convert | None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of_value = _converter(field.message_type.fields_by_name["value"], seconds)
        return None if of_value is None else _valuewise(of_value)
    one = _single(field, seconds)
    return elementwise(one) if one is not None and field.is_repeated else one


def _single(field: FieldDescriptor, seconds: bool) -> Convert | None:
    if field.enum_type is not None:
        return functools.partial(_from_word, words_of(field.enum_type)) if has_words(field.enum_type) else None
    inner = field.message_type
    if inner is None:
        return None
    if inner.full_name == _ANY:
        return _packed
    if inner.full_name == "google.protobuf.Duration" and seconds:
        return _from_seconds
    if is_plain(inner) or not _may_change(inner, seconds):
        return None
    # Asked for with the value: a message may hold one of its own type.
    return lambda value: _as_protojson(value, inner, seconds)


def _as_protojson(value: Any, message: Descriptor, seconds: bool) -> Any:
    convert = to_protojson(message, seconds=seconds)
    return value if convert is None else convert(value)


@functools.cache
def _may_change(descriptor: Descriptor, seconds: bool) -> bool:
    """Whether anything in a message can be written otherwise than in ProtoJSON."""
    seen = dict[str, Descriptor]()
    pending = [descriptor]
    while pending:
        current = pending.pop()
        seen[current.full_name] = current
        for field in current.fields:
            inner = field.message_type
            if field.enum_type is not None and has_words(field.enum_type):
                return True
            if inner is None or inner.full_name in seen:
                continue
            if inner.full_name == _ANY or (seconds and inner.full_name == "google.protobuf.Duration"):
                return True
            if not is_plain(inner):
                pending.append(inner)
    return False


def _valuewise(one: Convert) -> Convert:
    def convert(entries: Any) -> Any:
        return {key: one(value) for key, value in entries.items()} if is_object(entries) else entries

    return convert


def _from_word(words: EnumWords, value: Any) -> Any:
    return words.name(value) or value if isinstance(value, str) else value


def _packed(value: Any) -> Any:
    if not is_object(value) or not isinstance(value.get("@type"), str):
        return value
    try:
        inner = proto_class(message_class(value["@type"].rpartition("/")[2])).DESCRIPTOR
    except CodecError:
        return value  # Nobody here knows it, which the codec says.
    return value if is_plain(inner) else _as_protojson(value, inner, seconds=False)


def _from_seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    return f"{value:.9f}s"
