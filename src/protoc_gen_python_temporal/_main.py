"""The plugin's entry point: a CodeGeneratorRequest on stdin, a CodeGeneratorResponse on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from google.protobuf.compiler import plugin_pb2
from google.protobuf.message import DecodeError

from ._build import Builder
from ._faults import Faults, UsageError
from ._model import FileModel
from ._options import Options, parse_options
from ._print_module import print_module
from ._reference import print_reference
from ._source import Schema

__all__ = ["generate", "main"]

_NAME = "protoc-gen-python_temporal"


def generate(
    request: plugin_pb2.CodeGeneratorRequest, warn: Callable[[str], None] = lambda text: None
) -> plugin_pb2.CodeGeneratorResponse:
    """Answers a request; what the user got wrong is the response's `error`, all of it at once.

    Args:
        request: what protoc or buf asks for.
        warn: takes each warning.
    """
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    try:
        options = parse_options(request.parameter)
        texts = _write(_read(request, options, warn), options)
    except UsageError as error:
        response.error = f"{_NAME}: {error}"
        return response
    except UnicodeDecodeError as error:
        response.error = f"{_NAME}: {error.object!r} is not UTF-8; save the proto file that has it in UTF-8"
        return response
    for name in sorted(texts):
        response.file.add(name=name, content=texts[name])
    return response


def _read(request: plugin_pb2.CodeGeneratorRequest, options: Options, warn: Callable[[str], None]) -> list[FileModel]:
    schema, faults = Schema(request), Faults()
    builder = Builder(schema, options, faults)
    models = [builder.build(name) for name in request.file_to_generate]
    faults.raise_errors()
    for place, text in sorted(faults.warnings):
        warn(f"{place}: warning: {text}")
    return [model for model in models if model is not None]


def _write(models: list[FileModel], options: Options) -> dict[str, str]:
    texts: dict[str, str] = {}
    if options.code:
        texts = {model.path: print_module(model, options.parameter, _version()) for model in models}
    if options.docs:
        texts[options.docs] = print_reference(models, _version())
    return texts


def _version() -> str:
    try:
        return version("contextworker")
    except PackageNotFoundError:
        return "unknown"


def main() -> None:
    """Runs the plugin as protoc and buf do."""
    try:
        request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    except DecodeError as error:
        raise SystemExit(f"{_NAME} is run by buf or protoc; stdin holds no request: {error}") from None
    response = generate(request, lambda text: print(text, file=sys.stderr))  # noqa: T201  # protoc shows stderr
    sys.stdout.buffer.write(response.SerializeToString())
