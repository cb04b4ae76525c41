"""Encode and decode betterproto2 dataclasses: bytes, ProtoJSON, plain dicts, Structs and Google's messages.

Google's message classes do the work, through functions that are compiled once per message class. If the optional
extension is built, it encodes and decodes clean, common bytes directly, with the same result. The codec works with the
dataclasses of every tree that protoc-gen-python_messages generated.

Read `_model.py` first (describes a message class), then `_compile.py` (one function per direction), `_binary.py` and
`_json.py` (use them). `_schema.py` passes the model to the extension in `_wire.pyx`; `_violations.py` and
`_json_violations.py` find invalid values.
"""

from __future__ import annotations

from ._any import pack_any, unpack_any
from ._binary import decode, encode, from_proto, serialize, timestamp_to_datetime, to_proto
from ._classes import full_name, message_class, prefer_tree, proto_class, type_url
from ._conflicts import import_pb2
from ._json import JsonValue, from_dict, from_json, list_fields, to_dict, to_json
from ._struct import decode_apart, dict_to_struct, encode_apart, struct_to_dict
from .errors import CodecError, DescriptorConflictError, Violation

__all__ = [
    "CodecError",
    "DescriptorConflictError",
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
    "import_pb2",
    "list_fields",
    "message_class",
    "pack_any",
    "prefer_tree",
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
