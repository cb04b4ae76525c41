"""The plugin's entry point: reads a CodeGeneratorRequest from stdin, writes a CodeGeneratorResponse to stdout."""

from __future__ import annotations

import sys

from google.protobuf.compiler import plugin_pb2
from google.protobuf.message import DecodeError

from . import betterproto_classes, google_classes
from .errors import UsageError
from .google_classes import require_generators
from .imports import select
from .request import parse_options


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Answer a request; an error of the user is the response's `error`."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    try:
        options = parse_options(request.parameter)
        require_generators()
        # Imported late, because it imports a part of betterproto2's generator.
        from .check import check

        selection = select(request, options)
        check(selection)
        texts = betterproto_classes.generate(selection) | google_classes.generate(selection)
    except UsageError as error:
        response.error = f"protoc-gen-python_messages: {error}"
        return response
    for name in sorted(texts):
        response.file.add(name=name, content=texts[name])
    return response


def main() -> None:
    """Run the plugin like protoc and buf."""
    try:
        request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    except DecodeError as error:
        raise SystemExit(
            f"protoc-gen-python_messages is run by buf or protoc; stdin has no valid request: {error}"
        ) from None
    sys.stdout.buffer.write(generate(request).SerializeToString())
