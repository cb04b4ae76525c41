"""Build the schema of values that are not messages: their JSON forms, restricted by the rules."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor

from betterproto2_codec.plain_data import has_words, words_of

from ._patterns import (
    HEADERS,
    MOST_DIGITS,
    TEXT_FORMATS,
    Span,
    any_case,
    base64_pattern,
    digits_pattern,
    ecma_pattern,
    literal,
)
from ._rules import ALWAYS, IF_ZERO, Rules, cel_of, comment, noted, typed

__all__ = ["Schema", "key_schema", "scalar_schema"]

Schema: TypeAlias = dict[str, Any]
_Descriptor: TypeAlias = Any
_EXACT = 1 << 53
"""Above it a JSON number is no longer exact for integers, and the codec accepts only strings."""


def scalar_schema(field: _Descriptor, rules: Rules, zero: bool | None) -> Schema:
    """Return the schema of a value that is not a message. `zero` allows or forbids zero, regardless of the rules."""
    of = typed(rules)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            allowed = [value for value in (True, False) if of is None or not of.HasField("const") or of.const == value]
            made: Schema = {"type": "boolean"} if len(allowed) == 2 else {"const": allowed[0]}
            made = {"const": True} if zero is False else {"type": "boolean"} if zero else made
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            made = _bytes(of, zero)
        case FieldDescriptor.CPPTYPE_STRING:
            made = _string(of, zero)
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            made = _float(of, zero, field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT)
        case FieldDescriptor.CPPTYPE_ENUM:
            made = _enum(field.enum_type, of, zero)
        case _:
            low, high = _RANGES[field.cpp_type]
            made = _integer(_spans(low, high, of, zero), is_long=high > 1 << 32)
    return made


_RANGES: dict[int, Span] = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


def _spans(low: int, high: int, of: Rules, zero: bool | None) -> list[Span]:
    """Return the integers that rules allow."""
    spans: list[Span] = [(low, high)]
    if of is not None:
        least = of.gt + 1 if _has(of, "gt") else of.gte if _has(of, "gte") else low
        most = of.lt - 1 if _has(of, "lt") else of.lte if _has(of, "lte") else high
        spans = [(low, most), (least, high)] if _is_outside(of) else [(max(low, least), min(high, most))]
        if of.HasField("const"):
            spans = _only(spans, [of.const])
        if getattr(of, "in"):
            spans = _only(spans, getattr(of, "in"))
        for number in of.not_in:
            spans = _without(spans, number)
    if zero is not None:
        kept: list[Span] = [*_without(spans, 0), *([(0, 0)] if zero else [])]
        spans = sorted(kept)
    return [span for span in spans if span[0] <= span[1]]


def _has(of: Rules, name: str) -> bool:
    return name in of.DESCRIPTOR.fields_by_name and bool(of.HasField(name))


def _is_outside(of: Rules) -> bool:
    """Return whether the bounds exclude what is between them: the lower one is above the upper."""
    lower = of.gt if _has(of, "gt") else of.gte if _has(of, "gte") else None
    upper = of.lt if _has(of, "lt") else of.lte if _has(of, "lte") else None
    return lower is not None and upper is not None and upper < lower


def _only(spans: list[Span], numbers: Iterable[int]) -> list[Span]:
    return [(each, each) for each in sorted(set(numbers)) if any(low <= each <= high for low, high in spans)]


def _without(spans: list[Span], number: int) -> list[Span]:
    return [part for low, high in spans for part in _parts(low, high, number) if part[0] <= part[1]]


def _parts(low: int, high: int, number: int) -> list[Span]:
    return [(low, number - 1), (number + 1, high)] if low <= number <= high else [(low, high)]


def _numbers(spans: list[Span]) -> list[Schema]:
    points = [low for low, high in spans if low == high]
    made: list[Schema] = [{"type": "integer", "minimum": low, "maximum": high} for low, high in spans if low < high]
    return [*made, *([{"enum": points}] if points else [])]


def _integer(spans: list[Span], *, is_long: bool) -> Schema:
    exact = [(max(low, -_EXACT), min(high, _EXACT)) for low, high in spans]
    made = _numbers([(low, high) for low, high in exact if low <= high])
    if is_long and spans:
        made.append({"type": "string", "pattern": digits_pattern(spans), "maxLength": MOST_DIGITS})
    return _any(made)


def _any(schemas: list[Schema]) -> Schema:
    if not schemas:
        return {"not": {}}
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _enum(enum: _Descriptor, of: Rules, zero: bool | None) -> Schema:
    spans = _spans(*_RANGES[FieldDescriptor.CPPTYPE_INT32], of, zero)
    if enum.is_closed or (of is not None and of.defined_only):
        defined: set[int] = {value.number for value in enum.values} | ({0} if zero else set())
        spans = _only(spans, defined)
    names: list[str | None] = [None] if enum.full_name == "google.protobuf.NullValue" else []
    names += [name for name, value in enum.values_by_name.items() if any(a <= value.number <= b for a, b in spans)]
    ranges = [each for each in _numbers(spans) if "enum" not in each]
    listed = [*names, *(low for low, high in spans if low == high)]
    words = _words(enum, {name for name in names if name is not None}) if has_words(enum) else ""
    written: list[Schema] = [{"type": "string", "pattern": words}] if words else []
    return _any([*([{"enum": listed}] if listed else []), *written, *ranges])


def _words(enum: _Descriptor, names: set[str]) -> str:
    """The pattern of what stands for these values, with and without the prefix, in any case; empty for no values."""
    words = words_of(enum)
    forms = [text for text, name in words.by_text.items() if name in names]
    prefix = words.prefix.upper()
    # Most may be written both ways, which the pattern then says once.
    both = [form for form in forms if prefix and words.by_text.get(prefix + form) == words.by_text[form]]
    rest = [form for form in forms if form not in both and form.removeprefix(prefix) not in both]
    parts = [f"(?:{any_case(prefix)})?(?:{'|'.join(map(any_case, both))})"] if both else []
    parts += map(any_case, rest)
    return f"^(?:{'|'.join(parts)})$" if parts else ""


def key_schema(field: _Descriptor, rules: Rules) -> Schema:
    """Return the schema of property names, for the keys of a map."""
    if rules is not None and rules.ignore == ALWAYS:
        rules = None
    zero = True if rules is not None and rules.ignore == IF_ZERO else None
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            allowed = scalar_schema(field, rules, zero)
            made: Schema = {"enum": [str(allowed["const"]).lower()] if "const" in allowed else ["true", "false"]}
        case FieldDescriptor.CPPTYPE_STRING:
            made = scalar_schema(field, rules, zero)
        case _:
            spans = _spans(*_RANGES[field.cpp_type], typed(rules), zero)
            made = {"pattern": digits_pattern(spans), "maxLength": MOST_DIGITS} if spans else {"not": {}}
    return noted(made, cel_of(rules))


def _string(of: Rules, zero: bool | None) -> Schema:
    made: Schema = {"type": "string"}
    parts, told = [schema for schema, _ in _texts(of)], [text for _, text in _texts(of) if text]
    for part in [*parts, *([{"minLength": 1}] if zero is False else [])]:
        if "minLength" in part and "minLength" in made:
            made["minLength"] = max(made["minLength"], part["minLength"])
        elif "maxLength" in part and "maxLength" in made and len(part) == 1:
            made["maxLength"] = min(made["maxLength"], part["maxLength"])
        elif made.keys() & part.keys():
            made.setdefault("allOf", []).append(part)
        else:
            made |= part
    made |= comment(told)
    return {"anyOf": [{"const": ""}, made]} if zero and made.keys() > {"type"} else made


def _texts(of: Rules) -> Iterator[tuple[Schema, str]]:
    """Yield for each rule of a text its schema, and a comment if the schema does not express all of it."""
    if of is None:
        return
    for field, value in of.ListFields():
        match field.name:
            case "len":
                yield {"minLength": value, "maxLength": value}, ""
            case "min_len":
                yield {"minLength": value}, ""
            case "max_len":
                yield {"maxLength": value}, ""
            case "len_bytes" | "min_bytes" | "max_bytes":
                # A character has one to four bytes.
                least = {} if field.name == "max_bytes" else {"minLength": -(-value // 4)}
                most = {} if field.name == "min_bytes" else {"maxLength": value}
                yield {**least, **most}, f"{field.name}: {value}"
            case "pattern":
                pattern = ecma_pattern(value)
                yield ({"pattern": pattern} if pattern else {}), ("" if pattern else f"pattern: {value} (of RE2)")
            case "prefix":
                yield {"pattern": f"^{literal(value)}"}, ""
            case "suffix":
                yield {"pattern": f"{literal(value)}$"}, ""
            case "contains":
                yield {"pattern": literal(value)}, ""
            case "not_contains":
                yield {"not": {"pattern": literal(value)}}, ""
            case "const":
                yield {"const": value}, ""
            case "in":
                yield {"enum": list(dict.fromkeys(value))}, ""
            case "not_in":
                yield {"not": {"enum": list(dict.fromkeys(value))}}, ""
            case "well_known_regex":
                found = HEADERS.get((value, not of.HasField("strict") or of.strict))
                yield (found.schema if found else {}), ""
            case name if name in TEXT_FORMATS and value:
                known = TEXT_FORMATS[name]
                yield known.schema, ("" if known.exact else f"{name}, as Protovalidate has it")
            case "example" | "strict":
                pass
            case name:
                yield {}, (f"{name}: {value}" if value else "")


def _bytes(of: Rules, zero: bool | None) -> Schema:
    least, most, told = 1 if zero is False else 0, None, list[str]()
    for field, value in of.ListFields() if of is not None else ():
        if field.name in ("len", "min_len"):
            least = max(least, value)
        if field.name in ("len", "max_len"):
            most = value if most is None else min(most, value)
        elif field.name not in ("min_len", "example"):
            told.append(f"{field.name}: {value!r}")
    pattern, exact = base64_pattern(least, most)
    told += [] if exact else [f"{least} to {most if most is not None else 'any number of'} bytes"]
    made: Schema = {"type": "string", "contentEncoding": "base64", "pattern": pattern, **comment(told)}
    return {"anyOf": [{"type": "string", "pattern": "^=*$"}, made]} if zero else made


def _float(of: Rules, zero: bool | None, is_single: bool) -> Schema:
    numbers: Schema = {"type": "number"}
    if is_single:
        numbers |= {"minimum": -_LARGEST, "maximum": _LARGEST}
    all_of = list[Schema]()
    if of is not None:
        lower = _bound(of, "gt", "gte", is_single)
        upper = _bound(of, "lt", "lte", is_single)
        if _is_outside(of):
            all_of.append({"anyOf": [upper, lower]})
        else:
            all_of += [each for each in (lower, upper) if each]
        all_of += [_near([of.const], is_single)] if of.HasField("const") else []
        all_of += [_near(getattr(of, "in"), is_single)] if getattr(of, "in") else []
        all_of += [{"not": _near(of.not_in, is_single)}] if of.not_in else []
    all_of += [{"not": _near([0.0], is_single)}] if zero is False else []
    made = [{**numbers, **({"allOf": all_of} if all_of else {})}]
    made += [{"type": "number", **_near([0.0], is_single)}] if zero and all_of else []
    words = [word for word in ("NaN", "Infinity", "-Infinity") if _takes(of, float(word))]
    return _any([*made, *([{"enum": words}] if words else [])])


_LARGEST = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]


def _bound(of: Rules, open_name: str, closed_name: str, is_single: bool) -> Schema:
    is_open = _has(of, open_name)
    if not is_open and not _has(of, closed_name):
        return {}
    value = getattr(of, open_name if is_open else closed_name)
    is_lower = open_name == "gt"
    if not math.isfinite(value):
        # An infinite bound excludes either nothing or everything.
        return {"not": {}} if math.isnan(value) or (value > 0) == is_lower else {}
    names = ("minimum", "exclusiveMinimum") if is_lower else ("maximum", "exclusiveMaximum")
    if not is_single:
        return {names[is_open]: value}
    # A number that rounds to an open bound is excluded.
    end, closed = _rounding(value)[1 if is_lower == is_open else 0]
    return {names[closed == is_open]: end}


def _near(values: Iterable[float], is_single: bool) -> Schema:
    """Return the schema of numbers that decode to one of `values`; for a 32 bit float, all that round to them."""
    finite = [value for value in values if math.isfinite(value)]
    if not is_single:
        return {"enum": finite} if finite else {"not": {}}
    made = list[Schema]()
    for value in finite:
        (low, low_closed), (high, high_closed) = _rounding(value)
        names = ("minimum" if low_closed else "exclusiveMinimum", "maximum" if high_closed else "exclusiveMaximum")
        made.append({names[0]: low, names[1]: high})
    return _any(made)


def _rounding(value: float) -> tuple[tuple[float, bool], tuple[float, bool]]:
    """Return the ends of the interval that rounds to a 32 bit float, and whether each end rounds to it."""
    middles = [(value + _next(value, direction)) / 2 for direction in (-1, 1)]
    low, high = ((middle, abs(middle) <= _LARGEST and _single(middle) == value) for middle in middles)
    return low, high


def _next(value: float, direction: int) -> float:
    if value == 0:
        return direction * 2.0**-149
    bits = struct.unpack("<i", struct.pack("<f", value))[0]
    bits += direction if value > 0 else -direction
    found: float = struct.unpack("<f", struct.pack("<i", bits))[0]
    return found if math.isfinite(found) else math.copysign(_LARGEST, value)


def _single(value: float) -> float:
    found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return found


def _takes(of: Rules, value: float) -> bool:
    """Return whether rules accept NaN or infinities."""
    if of is None:
        return True
    tests = {"lt": value < of.lt, "lte": value <= of.lte, "gt": value > of.gt, "gte": value >= of.gte}
    bounds = [test for name, test in tests.items() if of.HasField(name)]
    if of.finite or not (any(bounds) if _is_outside(of) else all(bounds)):
        return False
    listed = getattr(of, "in")
    return not ((of.HasField("const") and value != of.const) or (listed and value not in listed) or value in of.not_in)
