"""The codec as Google's conformance runner asks it: requests on stdin, answers on stdout, each after its length.

Run as `python testee.py FOLDER`, where FOLDER holds the generated tree `conformance_tree`.
"""

from __future__ import annotations

import importlib
import struct
import sys
from typing import Any, BinaryIO

from contextunity.core import codec

_MESSAGE = "protobuf_test_messages.proto3.TestAllTypesProto3"
_LENGTH = struct.Struct("<I")


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    protocol: Any = importlib.import_module("conformance_tree.conformance.conformance_pb2")
    tree: Any = importlib.import_module("conformance_tree.protobuf_test_messages.proto3")
    while (request := _read(sys.stdin.buffer, protocol.ConformanceRequest)) is not None:
        data = _answer(protocol, tree.TestAllTypesProto3, request).SerializeToString()
        sys.stdout.buffer.write(_LENGTH.pack(len(data)) + data)
        sys.stdout.buffer.flush()


def _read(stream: BinaryIO, request: Any) -> Any:
    length = stream.read(_LENGTH.size)
    return request.FromString(stream.read(*_LENGTH.unpack(length))) if length else None


def _answer(protocol: Any, cls: Any, request: Any) -> Any:
    response = protocol.ConformanceResponse
    if request.message_type == "conformance.FailureSet":
        # Asked for before all else: the tests that are known to fail, but the runner has them in a file.
        return response(protobuf_payload=protocol.FailureSet().SerializeToString())
    if request.message_type != _MESSAGE:
        return response(skipped=f"{request.message_type} has groups or is of an edition, which the dataclasses refuse")
    ignore = request.test_category == protocol.JSON_IGNORE_UNKNOWN_PARSING_TEST
    try:
        match request.WhichOneof("payload"):
            case "protobuf_payload":
                message = codec.decode(cls, request.protobuf_payload)
            case "json_payload":
                message = codec.from_json(cls, request.json_payload, ignore_unknown_fields=ignore)
            case other:
                return response(skipped=f"the codec knows no {other}")
    except codec.CodecError as error:
        return response(parse_error=str(error))
    try:
        match request.requested_output_format:
            case protocol.PROTOBUF:
                return response(protobuf_payload=codec.encode(message))
            case protocol.JSON:
                return response(json_payload=codec.to_json(message))
            case other:
                return response(skipped=f"the codec writes no {protocol.WireFormat.Name(other)}")
    except codec.CodecError as error:
        return response(serialize_error=str(error))


if __name__ == "__main__":
    main()
