"""Reads the CodeGeneratorRequest: its options, and its files without the annotations that only other plugins read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.compiler import plugin_pb2
from google.protobuf.message import Message

from ._faults import UsageError
from ._modules import is_speakable

_ANNOTATIONS = ("temporal/v1/", "temporal/api/")
"""Folders of files that hold nothing but annotations, or what those need. Neither they nor the annotations appear in
what is generated."""

_RULES = ("buf/validate/",)
"""Folders of files that define annotations which are read at run time, by their field numbers, from the descriptors of
the generated modules. The annotations stay; the files that define them get no module, and need none."""

_WORKER_OPTIONS = "contextunity/worker/options.proto"
"""Defines annotations that are read at run time too, by the module that the worker brings along. It is one of the rules
for everybody who generates contracts; only where the file itself is asked for, as for the worker, has it a module."""

_SHIPPED = frozenset(
    f"google/protobuf/{name}.proto"
    for name in (
        *("any", "api", "compiler/plugin", "descriptor", "duration", "empty", "field_mask", "source_context"),
        *("struct", "timestamp", "type", "wrappers"),
    )
)
"""Files whose `_pb2` modules are in google.protobuf, where all Python programs share them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of the plugin.

    Attributes:
        package: dotted Python package that the output folder is, such as `acme.gen`; empty where it is on the path.
    """

    package: str = ""


def parse_options(parameter: str) -> Options:
    """Parses the plugin's `opt`.

    Raises:
        UsageError: an option is unknown, repeated or ill-formed.
    """
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in parameter.split(","))):
        name, _, value = item.partition("=")
        if name != "package":
            raise UsageError(f"unknown option {name!r}; the one option is package=dotted.name")
        if name in values:
            raise UsageError(f"option {name!r} is given twice")
        if not all(is_speakable(part) for part in value.split(".")):
            raise UsageError(f"option package={value!r} is not a dotted Python package name")
        values[name] = value
    return Options(**values)


def annotation_files(request: plugin_pb2.CodeGeneratorRequest) -> frozenset[str]:
    """Names of the request's files that hold annotations, and so have no modules."""
    asked = set(request.file_to_generate)
    return frozenset(
        file.name
        for file in request.proto_file
        if file.name.startswith(_ANNOTATIONS + _RULES) or (file.name == _WORKER_OPTIONS and file.name not in asked)
    )


def targets_of(request: plugin_pb2.CodeGeneratorRequest) -> list[str]:
    """Names of the files that get modules: those asked for, but for annotations and what google.protobuf ships.

    Raises:
        UsageError: a file is asked for that the request does not hold.
    """
    held = {file.name for file in request.proto_file}
    missing = [name for name in request.file_to_generate if name not in held]
    if missing:
        raise UsageError(f"the request asks for {', '.join(missing)}, but does not hold it")
    left_out = annotation_files(request) | _SHIPPED
    return [name for name in request.file_to_generate if name not in left_out]


def files_without_annotations(
    request: plugin_pb2.CodeGeneratorRequest,
) -> list[descriptor_pb2.FileDescriptorProto]:
    """The request's files in order, less annotation files, imports of them and the options that are for generators.

    Raises:
        UsageError: a descriptor is not valid, or a file that one imports is missing.
    """
    strip, left_out = _OptionStripper(request.proto_file), annotation_files(request)
    files = list[descriptor_pb2.FileDescriptorProto]()
    for file in request.proto_file:
        if file.name in left_out:
            continue
        stripped = strip(file)
        _drop_dependencies(stripped, left_out)
        for field in _fields(stripped):
            # The request names what each field is called in JSON. protoc, run by itself, writes that name only where
            # it is not the usual one, and one process takes two modules of one file only where both say the same.
            if field.json_name == _usual_json_name(field.name):
                field.ClearField("json_name")
        files.append(stripped)
    return _reachable(files, set(request.file_to_generate))


class _OptionStripper:
    """Clears the options that only generators read; others, such as buf.validate's, stay."""

    def __init__(self, files: Iterable[descriptor_pb2.FileDescriptorProto]) -> None:
        # A pool of this request alone: in it the options are known fields, whatever Python has imported.
        pool = descriptor_pool.DescriptorPool()
        for file in files:
            try:
                pool.Add(file)
            except TypeError as error:
                raise UsageError(f"{file.name}: its descriptor is not valid: {error}") from None
        self._file_class: type[Message] = descriptor_pb2.FileDescriptorProto
        try:
            descriptor = pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto")
        except KeyError:
            return  # No file imports descriptor.proto, so none defines options or has any set.
        self._file_class = message_factory.GetMessageClass(descriptor)
        message_factory.GetMessageClassesForFiles([file.name for file in files], pool)

    def __call__(self, file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
        dynamic = self._file_class.FromString(file.SerializeToString())
        for options in _option_messages(dynamic):
            for field, _ in options.ListFields():
                # The stubs know neither a field's file nor that its descriptor is all that ClearExtension wants.
                extension = cast("Any", field)
                if field.is_extension and extension.file.name.startswith(_ANNOTATIONS):
                    options.ClearExtension(extension)
        return descriptor_pb2.FileDescriptorProto.FromString(dynamic.SerializeToString())


def _option_messages(message: Message) -> Iterator[Message]:
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE or field.is_extension:
            continue
        for item in value if field.is_repeated else (value,):
            if field.name == "options":
                yield item
            else:
                yield from _option_messages(item)


def _drop_dependencies(file: descriptor_pb2.FileDescriptorProto, names: Set[str]) -> None:
    kept = [name for name in file.dependency if name not in names]
    public = [file.dependency[index] for index in file.public_dependency]
    weak = [file.dependency[index] for index in file.weak_dependency]
    del file.dependency[:], file.public_dependency[:], file.weak_dependency[:]
    file.dependency.extend(kept)
    file.public_dependency.extend(kept.index(name) for name in public if name in kept)
    file.weak_dependency.extend(kept.index(name) for name in weak if name in kept)


def _fields(file: descriptor_pb2.FileDescriptorProto) -> Iterator[descriptor_pb2.FieldDescriptorProto]:
    yield from file.extension
    pending = list(file.message_type)
    while pending:
        message = pending.pop()
        pending += message.nested_type
        yield from message.field
        yield from message.extension


def _usual_json_name(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def _reachable(
    files: list[descriptor_pb2.FileDescriptorProto], roots: set[str]
) -> list[descriptor_pb2.FileDescriptorProto]:
    by_name = {file.name: file for file in files}
    seen: set[str] = set()
    pending = [name for name in roots if name in by_name]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending.extend(by_name[name].dependency)
    return [file for file in files if file.name in seen]
