"""Encode and decode betterproto2 dataclasses; see the package `betterproto2_codec`.

google.protobuf's own messages, such as Any and Struct, are those of ContextUnity's generated tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import betterproto2
from contextunity.gen.google import protobuf

import betterproto2_codec
from betterproto2_codec import (
    CodecError,
    JsonValue,
    Violation,
    decode,
    decode_apart,
    encode,
    encode_apart,
    from_dict,
    from_json,
    from_proto,
    full_name,
    list_fields,
    message_class,
    proto_class,
    serialize,
    struct_to_dict,
    timestamp_to_datetime,
    to_dict,
    to_json,
    to_proto,
    type_url,
    unpack_any,
)

__all__ = [
    "CodecError",
    "JsonValue",
    "Violation",
    "decode",
    "decode_apart",
    "dict_to_struct",
    "encode",
    "encode_apart",
    "from_dict",
    "from_json",
    "from_proto",
    "full_name",
    "list_fields",
    "message_class",
    "pack_any",
    "proto_class",
    "serialize",
    "struct_to_dict",
    "timestamp_to_datetime",
    "to_dict",
    "to_json",
    "to_proto",
    "type_url",
    "unpack_any",
]

betterproto2_codec.prefer_tree("contextunity.gen")

pack_any: Callable[[betterproto2.Message], protobuf.Any] = betterproto2_codec.pack_any  # type: ignore[assignment]
dict_to_struct: Callable[[Mapping[str, Any]], protobuf.Struct] = betterproto2_codec.dict_to_struct  # type: ignore[assignment]
