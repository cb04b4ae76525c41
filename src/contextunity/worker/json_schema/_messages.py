"""Build the schema of a message from its descriptor: objects, lists and maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from google.protobuf import wrappers_pb2
from google.protobuf.descriptor import FieldDescriptor

from contextunity.core import codec, validation
from contextunity.core.errors import CodecError

from ..internal_fields import is_internal
from ._patterns import DURATION, TIMESTAMP
from ._rules import ALWAYS, IF_ZERO, Rules, cel_of, comment, noted, rules_of, typed
from ._values import Schema, key_schema, scalar_schema

__all__ = ["message_schema"]

_Descriptor: TypeAlias = Any
"""A descriptor; the stubs have two incompatible classes of each."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_UNRULED = "-without-rules"
_NOTHING: Schema = {"type": "object", "properties": {}, "additionalProperties": False}


def message_schema(
    message: _Descriptor | None,
    comments: Mapping[str, str],
    *,
    is_output: bool = False,
    fills: Iterable[str] = (),
    names: Iterable[str] = (),
) -> Schema:
    """Return the schema of a message.

    Args:
        message: descriptor of the message; None means an empty object.
        comments: comments of the proto on messages and fields, by full name.
        is_output: whether the service sends the message; if so, internal fields are included.
        fills: fields of the message that the service fills in if they are absent or empty.
        names: fields of the message, in ProtoJSON, that make up an id, so they must be set and not empty.
    """
    if message is None:
        return {"$schema": _DIALECT, **_NOTHING}
    writer = _Writer(comments, is_output)
    made = {"$schema": _DIALECT, "title": message.full_name}
    special = _SPECIAL.get(message.full_name)
    made |= special(None) if special else writer.fields(message, "#", fills=frozenset(fills), named=frozenset(names))
    return made | ({"$defs": dict(sorted(writer.definitions.items()))} if writer.definitions else {})


class _Writer:
    def __init__(self, comments: Mapping[str, str], is_output: bool) -> None:
        self.definitions: dict[str, Schema] = {}
        self._comments = comments
        self._is_output = is_output

    def message(self, message: _Descriptor, rules: Rules, is_ruled: bool) -> Schema:
        """Return the schema of a message field, for messages with and without a special JSON form."""
        special = _SPECIAL.get(message.full_name)
        if special is not None and rules is None and message.full_name in _TIMES:
            return self._shared(message.full_name, lambda: special(None))
        if special is not None:
            return special(rules)
        name = str(message.full_name) + ("" if is_ruled else _UNRULED)
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self.fields(message, f"#/$defs/{name}", is_ruled)
        return {"$ref": f"#/$defs/{name}"}

    def fields(
        self,
        message: _Descriptor,
        where: str,
        is_ruled: bool = True,
        fills: frozenset[str] = frozenset(),
        named: frozenset[str] = frozenset(),
    ) -> Schema:
        """Return an object with the fields of a message, each under its proto name and its ProtoJSON name."""
        keys = {key: field for field in message.fields for key in (field.name, field.json_name)}
        names = dict[int, list[str]]()
        for key, field in keys.items():
            if self._is_output or not is_internal(field):
                names.setdefault(field.number, []).append(key)
        properties, twice, all_of = dict[str, Schema](), dict[str, Schema](), list[Schema]()
        needed = _needed(message) - fills if is_ruled else frozenset[str]()
        required = list[str]()
        for number, (first, *others) in names.items():
            field = message.fields_by_number[number]
            made = self._field(field, is_ruled)
            if field.name in fills and made != {"type": "string"}:
                made = {"anyOf": [{"const": ""}, made]}
            if field.json_name in named and field.name not in fills:
                made = _not_empty(field, made)
                needed |= {field.name} if field.has_presence or field.type in _TEXTS else set[str]()
            text = self._comments.get(field.full_name)
            properties[first] = {**made, **({"description": text} if text else {})}
            for other in others:
                properties[other] = {"$ref": f"{where}/properties/{first}"}
                twice[other] = {"properties": {first: False}}
            if field.name in needed and not others:
                required.append(first)
            elif field.name in needed:
                all_of.append(_present([first, *others]))
        told = list[str]()
        for oneof in message.oneofs:
            # The oneof of a proto3 `optional` field has only that field, and no meaning.
            members = [names[field.number] for field in oneof.fields if field.number in names]
            if len(members) > 1 or oneof.name in needed:
                all_of.append(_one_of(members, oneof.name in needed))
        for schema, words in _message_rules(rules_of(message) if is_ruled else None, keys):
            all_of += [schema] if schema else []
            told.append(words)
        text = self._comments.get(message.full_name)
        return {
            **({"description": text} if text else {}),
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            **({"dependentSchemas": twice} if twice else {}),
            **({"allOf": all_of} if all_of else {}),
            "additionalProperties": False,
            **comment(told),
        }

    def _field(self, field: _Descriptor, is_ruled: bool) -> Schema:
        rules = rules_of(field) if is_ruled else None
        if rules is not None and rules.ignore == ALWAYS:
            rules, is_ruled = None, False
        ignored = rules is not None and rules.ignore == IF_ZERO and not field.has_presence
        needed = rules is not None and rules.required and not field.has_presence
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            made = self._map(field, rules, is_ruled, ignored, needed)
        elif field.is_repeated:
            made = self._list(field, rules, is_ruled, ignored, needed)
        else:
            made = self._value(field, rules, is_ruled, zero=True if ignored else False if needed else None)
        return noted(made, cel_of(rules))

    def _list(self, field: _Descriptor, rules: Rules, is_ruled: bool, ignored: bool, needed: bool) -> Schema:
        of = rules.repeated if rules is not None and rules.HasField("repeated") else None
        made: Schema = {"type": "array", "items": self._element(field, of and of.items, is_ruled)}
        least = max(of.min_items if of else 0, 1 if needed else 0)
        made |= {"minItems": least} if least else {}
        made |= {"maxItems": of.max_items} if of is not None and of.HasField("max_items") else {}
        if of is not None and of.unique:
            # NaN is not equal to itself.
            floats = field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
            made |= {} if floats else {"uniqueItems": True}
            made |= comment(["unique by value, in every notation"])
        return {"anyOf": [{"type": "array", "maxItems": 0}, made]} if ignored and least else made

    def _map(self, field: _Descriptor, rules: Rules, is_ruled: bool, ignored: bool, needed: bool) -> Schema:
        of = rules.map if rules is not None and rules.HasField("map") else None
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        made: Schema = {"type": "object"}
        names = key_schema(key, of.keys if of is not None and of.HasField("keys") else None)
        made |= {"propertyNames": names} if names != {"type": "string"} else {}
        made["additionalProperties"] = self._element(value, of and of.values, is_ruled)
        if key.type != FieldDescriptor.TYPE_STRING and key.type != FieldDescriptor.TYPE_BOOL:
            made |= comment(["unique keys, in every notation"])
        least = max(of.min_pairs if of else 0, 1 if needed else 0)
        made |= {"minProperties": least} if least else {}
        made |= {"maxProperties": of.max_pairs} if of is not None and of.HasField("max_pairs") else {}
        return {"anyOf": [{"type": "object", "maxProperties": 0}, made]} if ignored and least else made

    def _element(self, field: _Descriptor, rules: Rules, is_ruled: bool) -> Schema:
        if rules is not None and rules.ignore == ALWAYS:
            return self._value(field, None, False, zero=None)
        ignored = rules is not None and rules.ignore == IF_ZERO
        if ignored and field.message_type is not None:
            return noted(self._value(field, None, False, zero=None), ["its rules apply if one of its fields is set"])
        return noted(self._value(field, rules, is_ruled, zero=True if ignored else None), cel_of(rules))

    def _value(self, field: _Descriptor, rules: Rules, is_ruled: bool, *, zero: bool | None) -> Schema:
        """Return the schema of a single value. `zero` allows or forbids zero, regardless of the rules."""
        if field.message_type is not None:
            return self.message(field.message_type, rules, is_ruled)
        name = _LONG.get(field.cpp_type, "")
        if name and rules is None and zero is None:
            return self._shared(name, lambda: scalar_schema(field, None, None))
        return scalar_schema(field, rules, zero)

    def _shared(self, name: str, make: Callable[[], Schema]) -> Schema:
        """Return a reference to a shared definition, for long schemas that many fields use."""
        if name not in self.definitions:
            self.definitions[name] = make()
        return {"$ref": f"#/$defs/{name}"}


def _needed(message: _Descriptor) -> frozenset[str]:
    """Return the required fields and oneofs of a message: the rules reject an empty message without them."""
    try:
        found = validation.violations(codec.proto_class(codec.message_class(message.full_name))())
    except CodecError:
        return frozenset()  # Its rules cannot be evaluated, so every message is rejected.
    return frozenset(each.path for each in found if each.path)


_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def _not_empty(field: _Descriptor, made: Schema) -> Schema:
    if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated and "minLength" not in made:
        return {**made, "minLength": 1}
    return made


def _present(names: list[str]) -> Schema:
    return {"required": names} if len(names) == 1 else {"anyOf": [{"required": [name]} for name in names]}


def _one_of(members: list[list[str]], is_needed: bool) -> Schema:
    none: Schema = {"not": {"anyOf": [{"required": [name]} for names in members for name in names]}}
    return {"oneOf": [*map(_present, members), *([] if is_needed else [none])]}


def _message_rules(rules: Rules, keys: Mapping[str, _Descriptor]) -> Iterator[tuple[Schema, str]]:
    for text in cel_of(rules):
        yield {}, text
    for oneof in rules.oneof if rules is not None else ():
        names = [key for key, field in keys.items() if field.name in oneof.fields]
        # A field counts as set if it is not zero, so it must at least be present.
        yield (_present(names) if oneof.required else {}), f"at most one of these may be set: {', '.join(oneof.fields)}"


_Special: TypeAlias = Callable[[Rules], Schema]


def _in_words(schema: Schema, rules: Rules) -> Schema:
    """Return a schema with the rules of its type as a comment."""
    of = typed(rules)
    fields: list[tuple[Any, Any]] = of.ListFields() if of is not None else []
    return noted(dict(schema), [f"{field.name}: {_short(value)}" for field, value in fields if field.name != "example"])


def _short(value: Any) -> str:
    if hasattr(value, "ToJsonString"):
        return str(value.ToJsonString())
    return ", ".join(map(_short, value)) if not isinstance(value, str | bool) else str(value).lower()


def _fixed(**schema: Any) -> _Special:
    return lambda rules: _in_words(schema, rules)


def _any_schema(rules: Rules) -> Schema:
    of = typed(rules)
    url: Schema = {"type": "string", "pattern": "/"}
    listed, refused = (list(getattr(of, name)) if of is not None else [] for name in ("in", "not_in"))
    if listed:
        url = {"enum": listed}
    if refused:
        url = {**url, "not": {"enum": refused}}
    made: Schema = {"type": "object", "properties": {"@type": url}, **comment(["the packed message matches its type"])}
    # An empty Any has an empty type, which a list of types excludes.
    packed: Schema = {"required": ["@type"]}
    return {**made, **packed} if listed else {**made, "anyOf": [{"maxProperties": 0}, packed]}


def _of_wrapper(name: str) -> _Special:
    field = wrappers_pb2.DESCRIPTOR.message_types_by_name[name].fields_by_name["value"]
    return lambda rules: scalar_schema(field, rules, None)


_LONG = {FieldDescriptor.CPPTYPE_INT64: "int64", FieldDescriptor.CPPTYPE_UINT64: "uint64"}
_TIMES = ("google.protobuf.Duration", "google.protobuf.Timestamp")
_SPECIAL: dict[str, _Special] = {
    "google.protobuf.Any": _any_schema,
    "google.protobuf.Duration": _fixed(type="string", pattern=DURATION),
    "google.protobuf.FieldMask": _fixed(type="string", pattern="^[^_]*$"),
    "google.protobuf.ListValue": _fixed(type="array"),
    "google.protobuf.Struct": _fixed(type="object"),
    "google.protobuf.Timestamp": _fixed(type="string", format="date-time", pattern=TIMESTAMP),
    "google.protobuf.Value": _fixed(),
    **{f"google.protobuf.{name}": _of_wrapper(name) for name in wrappers_pb2.DESCRIPTOR.message_types_by_name},
}
"""Messages whose ProtoJSON is not an object with their fields."""
