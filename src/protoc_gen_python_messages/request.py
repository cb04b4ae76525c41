"""What buf or protoc asks for: the files, their names in Python, and what they declare."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.compiler import plugin_pb2
from google.protobuf.message import Message

from .errors import Diagnostic, Lines, UsageError

_FROM_FOLDER = re.compile(r"^(\s*from )([\w.]+)( import (\w*))", re.MULTILINE)
_FROM_NOWHERE = re.compile(r"^import (\w+)", re.MULTILINE)


def module_of(proto: str) -> str:
    """Dotted name of the `_pb2` module that Google's generator writes for a file; dots in file names make folders."""
    return proto.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"


def is_importable_name(name: str) -> bool:
    """Whether an import statement can say a name."""
    return name.isidentifier() and not keyword.iskeyword(name)


def rewrite_imports(text: str, targets: Iterable[str], package: str) -> str:
    """Puts `package` before the imports of modules generated from `targets`.

    Google's generator takes Python's import path from the proto's file name. To change the name in the descriptor
    instead would show the changed name to every client of gRPC reflection, and clash in the process of a client that
    has generated the same protos under their own names.
    """
    if not package:
        return text
    modules = {module_of(target) for target in targets}

    def from_folder(match: re.Match[str]) -> str:
        # `from folder import x_pb2`, or `from folder.x_pb2 import name` for a public import.
        own = match[2] in modules or f"{match[2]}.{match[4]}" in modules
        return f"{match[1]}{package}.{match[2]}{match[3]}" if own else match[0]

    def from_nowhere(match: re.Match[str]) -> str:
        return f"from {package} {match[0]}" if match[1] in modules else match[0]

    text = _FROM_FOLDER.sub(from_folder, text)
    return _FROM_NOWHERE.sub(from_nowhere, text)


_FILE_MESSAGES, _FILE_ENUMS = 4, 5
_NESTED_MESSAGES, _NESTED_ENUMS = 3, 4
"""Numbers of these fields in FileDescriptorProto and DescriptorProto; paths are made of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """A message or enum.

    Attributes:
        file: the file that declares it.
        lines: lines of that file.
        path: where it stands in the file's descriptor.
        name: its name within the package, such as `Outer.Inner`.
        proto: its descriptor.
    """

    file: descriptor_pb2.FileDescriptorProto
    lines: Lines
    path: tuple[int, ...]
    name: str
    proto: descriptor_pb2.DescriptorProto | descriptor_pb2.EnumDescriptorProto

    @property
    def full_name(self) -> str:
        """Its name with the package."""
        return f"{self.file.package}.{self.name}" if self.file.package else self.name

    def error(self, text: str, below: tuple[int, ...] = ()) -> Diagnostic:
        """An error of it, or of what lies `below` it in its descriptor."""
        kind = "message" if isinstance(self.proto, descriptor_pb2.DescriptorProto) else "enum"
        line = self.lines[(*self.path, *below)] or self.lines[self.path]
        return Diagnostic(file=self.file.name, line=line, text=f"{kind} {self.full_name}: {text}")

    def references(self) -> Iterator[tuple[int, str]]:
        """Full names of the types of a message's fields, with a leading dot, and the fields' indices."""
        if not isinstance(self.proto, descriptor_pb2.DescriptorProto):
            return
        entries = {nested.name: nested for nested in self.proto.nested_type if nested.options.map_entry}
        for index, field in enumerate(self.proto.field):
            if field.type_name:
                yield index, field.type_name
                entry = entries.get(field.type_name.rpartition(".")[2])
                if entry is not None and entry.field[1].type_name:
                    yield index, entry.field[1].type_name


def declarations(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> list[Declaration]:
    """All messages and enums of some files, nested ones included, entries of maps left out."""
    found = list[Declaration]()
    for file in files:
        lines = Lines(file)

        def add(
            path: tuple[int, ...],
            outer: str,
            proto: descriptor_pb2.DescriptorProto | descriptor_pb2.EnumDescriptorProto,
            file: descriptor_pb2.FileDescriptorProto = file,
            lines: Lines = lines,
        ) -> None:
            name = f"{outer}{proto.name}"
            found.append(Declaration(file=file, lines=lines, path=path, name=name, proto=proto))
            if isinstance(proto, descriptor_pb2.DescriptorProto):
                for index, enum in enumerate(proto.enum_type):
                    add((*path, _NESTED_ENUMS, index), f"{name}.", enum)
                for index, nested in enumerate(proto.nested_type):
                    if not nested.options.map_entry:
                        add((*path, _NESTED_MESSAGES, index), f"{name}.", nested)

        for index, enum in enumerate(file.enum_type):
            add((_FILE_ENUMS, index), "", enum)
        for index, message in enumerate(file.message_type):
            add((_FILE_MESSAGES, index), "", message)
    return found


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
        if not all(is_importable_name(part) for part in value.split(".")):
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
