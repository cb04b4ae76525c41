"""Products as rows of the products table, and as a line of ProtoJSON with the complete product."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contextunity.gen.contextunity.harvest.v1 import harvest_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from pydantic_core import to_json

__all__ = [
    "ProductRow",
    "compile_to_object",
    "decimal_price",
    "product_from_json",
    "product_row",
    "product_to_json",
    "product_values",
    "replace_nul",
]

_AVAILABILITY = {
    number: "" if number == 0 else name.removeprefix("AVAILABILITY_").lower()
    for name, number in harvest_pb2.Availability.items()
}
_PUBLICATION = {
    number: "" if number == 0 else name.removeprefix("PUBLICATION_").lower()
    for name, number in harvest_pb2.Publication.items()
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductRow:
    """A product of a page, with the values that the sync compares."""

    sku: str
    """Stock keeping unit in the catalogue's form."""
    line: int
    """First line of the product in the feed."""
    content_hash: str
    """SHA-256 over everything except the line, in hex."""
    product: harvest_pb2.Product
    """The product, without its line."""


def product_row(product: harvest_pb2.Product) -> ProductRow:
    """Remove the line from a product, and hash the rest.

    The hash is over the deterministic encoding, which orders fields by number and map entries by key. Protobuf does
    not guarantee this encoding forever; if a release changes it, the next harvest only writes every product again, and
    counts it as changed.
    """
    line = product.line
    product.ClearField("line")
    content = product.SerializeToString(deterministic=True)
    return ProductRow(
        sku=replace_nul(product.sku),
        line=line,
        content_hash=hashlib.sha256(content).hexdigest(),
        product=product,
    )


def product_values(row: ProductRow) -> dict[str, Any]:
    """Return the product's values for the content columns."""
    product = row.product
    price = product.price
    priced = product.HasField("price")
    return {
        "title": replace_nul(product.title),
        "brand": replace_nul(product.brand),
        "price_units": price.units if priced else None,
        "price_nanos": price.nanos if priced else None,
        "currency_code": replace_nul(price.currency_code),
        "gtin": replace_nul(product.gtin),
        "stock": product.stock if product.HasField("stock") else None,
        "availability": _AVAILABILITY.get(product.availability, str(product.availability)),
        "weight_grams": product.weight_grams if product.HasField("weight_grams") else None,
        "publication": _PUBLICATION.get(product.publication, str(product.publication)),
        "content_hash": row.content_hash,
        "data": product_to_json(product),
        "first_line": row.line,
    }


def replace_nul(text: str) -> str:
    """Replace NUL characters by U+FFFD: PostgreSQL rejects them, and tools truncate SQLite's text at them."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


def decimal_price(units: int | None, nanos: int | None) -> Decimal | None:
    """Combine the two parts of a price, with at least two decimals.

    >>> decimal_price(54, 950_000_000)
    Decimal('54.95')
    >>> decimal_price(-1, -500_000_000)
    Decimal('-1.50')
    """
    if units is None or nanos is None:
        return None
    sign = "-" if units < 0 or nanos < 0 else ""
    digits = f"{abs(nanos):09d}".rstrip("0").ljust(2, "0")
    return Decimal(f"{sign}{abs(units)}.{digits}")


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


# `json_format` of google.protobuf decodes the JSON. Encoding uses functions that are made once from the descriptor:
# `json_format` inspects the descriptors again for every value, and took as long as the rest of a sync. A test compares
# the two.


def product_to_json(product: harvest_pb2.Product) -> str:
    """Encode a product as one line of ProtoJSON with the field names of the contract."""
    return to_json(_product_to_object(product)).decode()


def product_from_json(data: str) -> harvest_pb2.Product:
    """Decode a product from `product_to_json`."""
    # A newer worker may have written fields that are unknown here.
    return json_format.Parse(data, harvest_pb2.Product(), ignore_unknown_fields=True)


def compile_to_object(descriptor: Descriptor) -> _Convert:
    """Make the function that converts a message of one class to JSON data.

    Raises:
        NotImplementedError: a field has a type that no field of Product had so far.
    """
    plan = {field.number: (field.name, _compile_field(field)) for field in descriptor.fields}

    def convert(message: Message) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for field, value in message.ListFields():
            name, convert_value = plan[field.number]
            # Most values are texts, and a call for each would take as long as the rest.
            result[name] = value if convert_value is _as_is else convert_value(value)
        return result

    return convert


def _compile_field(field: FieldDescriptor) -> _Convert:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        if key.type == value.type == FieldDescriptor.TYPE_STRING:
            # Sorted, so that the text of a product is deterministic.
            return lambda entries: dict(sorted(entries.items()))
        raise _unsupported_type(field)
    convert = _compile_value(field)
    if field.is_repeated:
        if convert is _as_is:
            return list
        return lambda values: [convert(value) for value in values]
    return convert


def _compile_value(field: FieldDescriptor) -> _Convert:
    if field.type in _PLAIN:
        return _as_is
    if field.type in _LARGE_INTEGERS:
        return str
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number: names.get(number, number)
    if field.message_type is not None and field.message_type.file.package == harvest_pb2.DESCRIPTOR.package:
        return compile_to_object(field.message_type)
    raise _unsupported_type(field)


def _as_is(value: Any) -> Any:
    return value


def _unsupported_type(field: FieldDescriptor) -> NotImplementedError:
    return NotImplementedError(f"field {field.full_name} has a type that products.py cannot write yet; add it there")


_product_to_object = compile_to_object(harvest_pb2.Product.DESCRIPTOR)
