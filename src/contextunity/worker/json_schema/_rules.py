"""Read the `buf.validate` rules of a field, message or oneof, and describe those that a schema cannot express."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, TypeAlias

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    message_factory,
    timestamp_pb2,
)
from google.protobuf.message import Message

__all__ = ["ALWAYS", "IF_ZERO", "Rules", "cel_of", "comment", "noted", "rules_of", "typed"]

Rules: TypeAlias = Any
"""A message of buf.validate, or None without rules."""
IF_ZERO, ALWAYS = 1, 3
"""Values of buf.validate.Ignore."""


@functools.cache
def _options(name: str) -> type[Message]:
    """FieldOptions and the like with named buf.validate rules; the process's own pool may not know them."""
    return message_factory.GetMessageClass(_rule_pool().FindMessageTypeByName(f"google.protobuf.{name}"))


@functools.cache
def _rule_pool() -> Any:
    from protovalidate import FieldPathPb

    pool = descriptor_pool.DescriptorPool()
    for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    file = FieldPathPb.desc().file.proto
    pool.AddSerializedFile(file.to_binary())
    message_factory.GetMessageClassesForFiles([file.name], pool)
    return pool


def rules_of(described: Any) -> Rules:
    """Return the rules of a field, message or oneof; None without rules."""
    given = described.GetOptions()
    options = _options(given.DESCRIPTOR.name).FromString(given.SerializeToString())
    found = (value for extension, value in options.ListFields() if extension.full_name in _EXTENSIONS)
    return next(found, None)


_EXTENSIONS = ("buf.validate.field", "buf.validate.message", "buf.validate.oneof")


def comment(told: Iterable[str]) -> dict[str, Any]:
    """Return a `$comment` with what the service requires beyond the schema."""
    text = "; ".join(told)
    return {"$comment": f"the service also asks: {text}"} if text else {}


def noted(schema: dict[str, Any], told: list[str]) -> dict[str, Any]:
    """Return a schema with a comment added."""
    if not told:
        return schema
    if "$comment" in schema:
        return {**schema, "$comment": "; ".join([schema["$comment"], *told])}
    return {**schema, **comment(told)}


def cel_of(rules: Rules) -> list[str]:
    """Describe CEL expressions and predefined rules."""
    if rules is None:
        return []
    told = [f"{each.message or each.id}: {each.expression}".removeprefix(": ") for each in rules.cel]
    return [*told, *rules.cel_expression, *_unknown(rules)]


def _unknown(rules: Rules) -> list[str]:
    """Describe predefined rules, which are extensions by the proto's author."""
    if rules is None or len(rules.SerializeToString()) == len(_without_unknown(rules).SerializeToString()):
        return []
    return ["predefined rules of the proto"]


def _without_unknown(rules: Rules) -> Rules:
    known = rules.__deepcopy__()
    known.DiscardUnknownFields()
    return known


def typed(rules: Rules) -> Rules:
    """Return the rules of a field's type, such as Int32Rules."""
    kind = rules.WhichOneof("type") if rules is not None else None
    return getattr(rules, kind) if kind else None
