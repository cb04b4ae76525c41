"""The one codec between betterproto2 dataclasses and what leaves the process.

ProtoJSON, plain dicts and Structs go through Google's message classes, by functions that are compiled once for each
message class. So do bytes, but for the clean and common ones, which a compiled extension reads and writes where it was
built; both ways give the same. It works on the dataclasses of every tree that protoc-gen-python_messages generated, not
only on one.

Read `_model.py` first (what is known of a message class), then `_compile.py` (a function for each direction),
`_binary.py` and `_json.py` (their use). `_schema.py` hands the same model to the extension in `_wire.pyx`;
`_violations.py` and `_json_violations.py` find the values that do not fit.
"""

from __future__ import annotations

from ._any import pack_any, unpack_any
from ._binary import decode, encode, from_proto, serialize, timestamp_to_datetime, to_proto
from ._classes import full_name, message_class, prefer_tree, proto_class, type_url
from ._json import JsonValue, from_dict, from_json, list_fields, to_dict, to_json
from ._struct import decode_apart, dict_to_struct, encode_apart, struct_to_dict
from .errors import CodecError, Violation

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
