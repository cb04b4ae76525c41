"""Single values and lists of google.protobuf to and from Python's."""

from __future__ import annotations

from typing import cast

from contextunity.gen.google.protobuf import ListValue, Struct, Value

from contextunity.core.codec import JsonValue, dict_to_struct, struct_to_dict

__all__ = ["from_list_value", "from_value", "to_list_value", "to_value"]


def to_value(value: JsonValue) -> Value:
    """Returns a Value.

    Raises:
        CodecError: it does not fit one.
    """
    return dict_to_struct({"value": value}).fields["value"]


def from_value(value: Value) -> JsonValue:
    """Returns what a Value holds; whole numbers up to 2^53 as int."""
    return struct_to_dict(Struct(fields={"value": value}))["value"]


def to_list_value(values: list[JsonValue]) -> ListValue:
    """Returns a ListValue.

    Raises:
        CodecError: a value does not fit one.
    """
    return ListValue(values=[to_value(value) for value in values])


def from_list_value(values: ListValue) -> list[JsonValue]:
    """Returns what a ListValue holds."""
    return cast("list[JsonValue]", from_value(Value(list_value=values)))
