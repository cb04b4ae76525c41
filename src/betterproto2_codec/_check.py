"""Check plain data against a message before Google's JSON parser reads it, and report every fault.

The parser stops at the first fault, and names its place in prose only. It also accepts what callers rarely mean, such
as null for a value or text for a 32-bit integer; `strict` rejects these.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from ._classes import message_class
from ._faults import item, join
from ._leaves import (
    DURATION,
    TIME,
    hint,
    is_digits,
    is_list,
    is_object,
    json_reason,
    json_scalar_reason,
    key_reason,
    kind_of,
    takes_null,
    text_reason,
)
from ._model import FieldModel, Kind, MessageModel, ValueType, model_of
from ._runtime import MAX_DEPTH
from .errors import CodecError, Violation

_MOST = 1000
"""Maximum number of reported faults: each takes time to describe, and no reader needs more."""


def violations_of(cls: type, data: Any, *, strict: bool = True, ignore_unknown_fields: bool = False) -> list[Violation]:
    """Return why `data`, plain ProtoJSON, is not a valid message of `cls`: up to a thousand faults."""
    found = Checker(strict=strict, ignore_unknown_fields=ignore_unknown_fields).message(cls, data, "", 0)
    told = list(itertools.islice(found, _MOST))
    if len(told) == _MOST and next(found, None) is not None:
        told.append(Violation("", f"there are more faults; only the first {_MOST:,} are listed"))
    return told


class Checker:
    """Walk data along the models of messages."""

    def __init__(self, *, strict: bool, ignore_unknown_fields: bool) -> None:
        self._strict = strict
        self._ignore_unknown_fields = ignore_unknown_fields

    def message(self, cls: type, data: Any, path: str, depth: int) -> Iterator[Violation]:
        """Check the data of one message, of a well-known type or not."""
        if depth > MAX_DEPTH:
            yield Violation(path, f"messages are nested more than {MAX_DEPTH} deep")
            return
        model = model_of(cls)
        special = _SPECIAL.get(model.name)
        if special is not None:
            yield from special(self, model, data, path, depth)
        elif not is_object(data):
            yield Violation(path, f"expected an object, got {kind_of(data)}")
        else:
            yield from self.fields(cls, data, path, depth)

    def fields(self, cls: type, data: Mapping[Any, Any], path: str, depth: int) -> Iterator[Violation]:
        """Check the keys of an object and the values under them."""
        by_key = model_of(cls).by_key
        given: dict[int, str] = {}
        oneofs: dict[str, str] = {}
        for key, value in data.items():
            field = by_key.get(key)
            if field is None:
                yield from self._unknown_key(key, by_key, path)
                continue
            where = join(path, field.name)
            if field.number in given:
                yield Violation(where, f"given twice, as {given[field.number]!r} and as {key!r}")
                continue
            given[field.number] = key
            if field.oneof and not self._is_absent(field, value):
                other = oneofs.setdefault(field.oneof, field.name)
                if other != field.name:
                    yield Violation(where, f"oneof {field.oneof} already holds {other}; give one of its members")
            yield from self._field(field, value, where, depth)

    def _unknown_key(self, key: Any, known: Mapping[str, FieldModel], path: str) -> Iterator[Violation]:
        if not isinstance(key, str):
            yield Violation(item(path, key), f"expected a str as a key, got {kind_of(key)}")
        elif not self._ignore_unknown_fields:
            names = list(dict.fromkeys(field.name for field in known.values()))
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            advice = f"; did you mean {known[near[0]].name}?" if near else hint(key, names, "known fields:")
            yield Violation(join(path, key), f"no such field{advice}")

    def _is_absent(self, field: FieldModel, value: Any) -> bool:
        return value is None and not takes_null(field.value)

    def _field(self, field: FieldModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if data is None and not (takes_null(field.value) and not field.repeated and field.key is None):
            if self._strict:
                yield Violation(path, "null is not allowed; leave the field out")
        elif field.key is not None:
            yield from self._map(field, field.key, data, path, depth)
        elif field.repeated:
            if not is_list(data):
                yield Violation(path, f"expected a list, got {kind_of(data)}")
                return
            for index, element in enumerate(data):
                yield from self._element(field.value, element, item(path, index), depth + 1)
        else:
            yield from self._value(field.value, data, path, depth + 1)

    def _map(self, field: FieldModel, key: ValueType, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not is_object(data):
            yield Violation(path, f"expected an object, got {kind_of(data)}")
            return
        given: dict[int, str] = {}
        for name, element in data.items():
            where = item(path, name)
            if reason := key_reason(key, name):
                yield Violation(where, f"as a key: {reason}")
            elif key.kind is Kind.INT and (first := given.setdefault(int(name), name)) != name:
                yield Violation(where, f"as a key: given twice, as {first!r} and as {name!r}")
            yield from self._element(field.value, element, where, depth + 2)

    def _element(self, value: ValueType, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if data is None and not takes_null(value):
            yield Violation(path, "null is not allowed")
        else:
            yield from self._value(value, data, path, depth)

    def _value(self, value: ValueType, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if value.kind is Kind.MESSAGE:
            assert value.cls is not None
            yield from self.message(value.cls, data, path, depth)
            return
        if value.kind is Kind.ENUM and self._ignore_unknown_fields and isinstance(data, str) and not is_digits(data):
            return  # Google's parser skips an unknown enum name as it does an unknown field.
        yield from _violation(path, json_reason(value, data, strict=self._strict))

    def any(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not is_object(data):
            yield Violation(path, f"expected an object, got {kind_of(data)}")
            return
        if not data:
            return
        url = data.get("@type")
        if not isinstance(url, str) or "/" not in url:
            yield Violation(join(path, "@type"), "expected a type URL, such as type.googleapis.com/package.Message")
            return
        try:
            cls = message_class(url.rpartition("/")[2])
        except CodecError as error:
            yield Violation(join(path, "@type"), error.reason)
            return
        rest = {key: value for key, value in data.items() if key != "@type"}
        if model_of(cls).name not in _SPECIAL:
            yield from self.fields(cls, rest, path, depth + 1)
        elif "value" not in rest:
            yield Violation(join(path, "value"), f"missing; inside an Any, this key holds the {model_of(cls).name}")
        else:
            yield from self.message(cls, rest["value"], join(path, "value"), depth + 1)

    def json_object(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not is_object(data):
            yield Violation(path, f"expected an object, got {kind_of(data)}")
            return
        for key, value in data.items():
            if not isinstance(key, str):
                yield Violation(item(path, key), f"expected a str as a key, got {kind_of(key)}")
            else:
                yield from self.json_value(model, value, item(path, key), depth + 2)

    def json_list(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not is_list(data):
            yield Violation(path, f"expected a list, got {kind_of(data)}")
            return
        for index, element in enumerate(data):
            yield from self.json_value(model, element, item(path, index), depth + 1)

    def json_value(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if depth > MAX_DEPTH:
            yield Violation(path, f"messages are nested more than {MAX_DEPTH} deep")
        elif is_object(data):
            yield from self.json_object(model, data, path, depth + 1)
        elif is_list(data):
            yield from self.json_list(model, data, path, depth + 1)
        else:
            yield from _violation(path, json_scalar_reason(data))

    def mask(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from _violation(path, text_reason(FieldMask, data, "paths in lowerCamelCase, separated by commas"))

    def timestamp(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from _violation(path, text_reason(Timestamp, data, TIME))

    def duration(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from _violation(path, text_reason(Duration, data, DURATION))

    def wrapper(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from self._value(model.fields[0].value, data, path, depth)


def _violation(path: str, reason: str) -> Iterator[Violation]:
    if reason:
        yield Violation(path, reason)


_WRAPPERS = ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")

_SPECIAL: dict[str, Callable[[Checker, MessageModel, Any, str, int], Iterator[Violation]]] = {
    "google.protobuf.Any": Checker.any,
    "google.protobuf.Duration": Checker.duration,
    "google.protobuf.FieldMask": Checker.mask,
    "google.protobuf.ListValue": Checker.json_list,
    "google.protobuf.Struct": Checker.json_object,
    "google.protobuf.Timestamp": Checker.timestamp,
    "google.protobuf.Value": Checker.json_value,
    **{f"google.protobuf.{name}Value": Checker.wrapper for name in _WRAPPERS},
}
"""Checks of messages whose ProtoJSON is not an object of their fields."""
