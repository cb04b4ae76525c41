"""The `buf.validate` rules of a field, message or oneof, and what of them a schema can only say in words."""

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
"""A message of buf.validate, or None where there are no rules."""
IF_ZERO, ALWAYS = 1, 3
"""Values of buf.validate.Ignore."""


@functools.cache
def _options(name: str) -> type[Message]:
    """FieldOptions and its like, whose buf.validate rules have names; the process's own pool need not know them."""
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
    """The rules of a field, message or oneof; None where it has none."""
    given = described.GetOptions()
    options = _options(given.DESCRIPTOR.name).FromString(given.SerializeToString())
    found = (value for extension, value in options.ListFields() if extension.full_name in _EXTENSIONS)
    return next(found, None)


_EXTENSIONS = ("buf.validate.field", "buf.validate.message", "buf.validate.oneof")


def comment(told: Iterable[str]) -> dict[str, Any]:
    """What the service asks beyond a schema, in words."""
    text = "; ".join(told)
    return {"$comment": f"the service also asks: {text}"} if text else {}


def noted(schema: dict[str, Any], told: list[str]) -> dict[str, Any]:
    """A schema with a further comment."""
    if not told:
        return schema
    if "$comment" in schema:
        return {**schema, "$comment": "; ".join([schema["$comment"], *told])}
    return {**schema, **comment(told)}


def cel_of(rules: Rules) -> list[str]:
    """The rules that are expressions, and those of the proto's own making."""
    if rules is None:
        return []
    told = [f"{each.message or each.id}: {each.expression}".removeprefix(": ") for each in rules.cel]
    return [*told, *rules.cel_expression, *_unknown(rules)]


def _unknown(rules: Rules) -> list[str]:
    """A comment on predefined rules, which are extensions of the proto's author."""
    if rules is None or len(rules.SerializeToString()) == len(_without_unknown(rules).SerializeToString()):
        return []
    return ["predefined rules of the proto"]


def _without_unknown(rules: Rules) -> Rules:
    known = rules.__deepcopy__()
    known.DiscardUnknownFields()
    return known


def typed(rules: Rules) -> Rules:
    """The rules of the type that a field has: Int32Rules and the like."""
    kind = rules.WhichOneof("type") if rules is not None else None
    return getattr(rules, kind) if kind else None
