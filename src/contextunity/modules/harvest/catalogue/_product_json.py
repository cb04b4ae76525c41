"""Products as one line of ProtoJSON text, the form in which the catalogue keeps the whole of them.

`json_format` of google.protobuf reads it. Writing goes through a plan made once from the descriptor instead, because
`json_format` looks at the descriptors anew for every value and so took as long as all the rest of a sync. A test holds
the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contextunity.gen.contextunity.harvest.v1 import harvest_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from pydantic_core import to_json

__all__ = ["plan_message", "product_from_json", "product_to_json"]

_Convert = Callable[[Any], Any]

_LARGE_INTEGERS = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
}
_PLAIN = {
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_SINT32,
}


def product_to_json(product: harvest_pb2.Product) -> str:
    """Write a product as one line of ProtoJSON with the field names of the contract."""
    return to_json(_product_to_object(product)).decode()


def product_from_json(data: str) -> harvest_pb2.Product:
    """Read a product that `product_to_json` wrote."""
    # A newer worker beside this one may have written fields that this one does not know.
    return json_format.Parse(data, harvest_pb2.Product(), ignore_unknown_fields=True)


def plan_message(descriptor: Descriptor) -> _Convert:
    """Make the function that turns a message of one class into what JSON is written from.

    Raises:
        NotImplementedError: a field has a type that nothing in Product has so far.
    """
    plan = {field.number: (field.name, _plan_field(field)) for field in descriptor.fields}

    def convert(message: Message) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for field, value in message.ListFields():
            name, convert_value = plan[field.number]
            # Most are texts, and a call for each would take as long as all the rest.
            result[name] = value if convert_value is _as_is else convert_value(value)
        return result

    return convert


def _plan_field(field: FieldDescriptor) -> _Convert:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        if key.type == value.type == FieldDescriptor.TYPE_STRING:
            # Sorted, so that the text of a product does not hang on chance.
            return lambda entries: dict(sorted(entries.items()))
        raise _unplanned(field)
    convert = _plan_value(field)
    if field.is_repeated:
        if convert is _as_is:
            return list
        return lambda values: [convert(value) for value in values]
    return convert


def _plan_value(field: FieldDescriptor) -> _Convert:
    if field.type in _PLAIN:
        return _as_is
    if field.type in _LARGE_INTEGERS:
        return str
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number: names.get(number, number)
    if field.message_type is not None and field.message_type.file.package == harvest_pb2.DESCRIPTOR.package:
        return plan_message(field.message_type)
    raise _unplanned(field)


def _as_is(value: Any) -> Any:
    return value


def _unplanned(field: FieldDescriptor) -> NotImplementedError:
    return NotImplementedError(f"field {field.full_name} has a type that _product_json cannot write yet; add it there")


_product_to_object = plan_message(harvest_pb2.Product.DESCRIPTOR)
