"""The files of a request: which imports are used, and which modules have them.

Used types that are not generated here are from installed packages: their dataclasses are written into this tree, for
betterproto2's relative imports, and Google's classes are imported from the package.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.compiler import plugin_pb2
from google.protobuf.message import Message

from .errors import Diagnostic, Lines, UsageError
from .request import Options, module_of

_File = descriptor_pb2.FileDescriptorProto

_WORKER_TREE = "contextunity.gen"
"""The worker's own generated tree, the only modules for options that contracts use."""

_ANNOTATIONS = ("temporal/v1/", "temporal/api/")
"""Folders of files that only generators need. Their annotations are not in the generated code."""

_NOT_WRITTEN = (*_ANNOTATIONS, "buf/validate/")
"""Folders of files for which no modules are generated, even on request, because a process can only load one copy of
each. The worker's own tree has them."""

_HOMES = (
    ("temporal/api/", "temporalio.api."),
    ("temporal/v1/", f"{_WORKER_TREE}.temporal.v1."),
    ("buf/validate/", f"{_WORKER_TREE}.buf.validate."),
    ("contextunity/", f"{_WORKER_TREE}.contextunity."),
)
"""Folders of modules in installed packages, for files whose folder has another name in Python."""

_SHIPPED = frozenset(
    f"google/protobuf/{name}.proto"
    for name in (
        *("any", "api", "compiler/plugin", "descriptor", "duration", "empty", "field_mask", "source_context"),
        *("struct", "timestamp", "type", "wrappers"),
    )
)
"""Files whose `_pb2` modules are in google.protobuf, which all Python programs share."""

_DESCRIPTORS = "google/protobuf/descriptor.proto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The files to generate, and where to find others.

    Attributes:
        targets: names of the files to generate modules for.
        files: the targets and all their imports, dependencies first, without unused imports and without the options
            for generators.
        described: the files whose packages become dataclasses.
        packages: proto packages to generate dataclasses for.
        modules: import path of each file's `_pb2` module by file name, except those of google.protobuf.
        errors: used types that no module has.
    """

    targets: list[str]
    files: list[_File]
    described: list[_File]
    packages: frozenset[str]
    modules: Mapping[str, str]
    errors: tuple[Diagnostic, ...]


def select(request: plugin_pb2.CodeGeneratorRequest, options: Options) -> Selection:
    """Select the files to generate, and find the modules of the others.

    Raises:
        UsageError: a descriptor is invalid, or a requested file is missing in the request.
    """
    held = {file.name for file in request.proto_file}
    missing = [name for name in request.file_to_generate if name not in held]
    if missing:
        raise UsageError(f"the request asks for {', '.join(missing)}, but does not contain it")
    strip = _OptionStripper(request.proto_file)
    files = {file.name: strip(file) for file in request.proto_file}
    targets = [name for name in request.file_to_generate if _is_written(name, options)]
    imports = _Imports(files, targets, options)
    reached = imports.reach(request.file_to_generate)
    described = imports.described(request.file_to_generate)
    written = {name for name in described if name in targets or imports.home(name).borrowed}
    for name in reached:
        _keep_dependencies(files[name], imports.kept(name))
        for field, *_ in _fields(files[name]):
            # Fill in the JSON name of each field. protoc only writes it if it is not the default, and one process can
            # load two modules of one file only if both are equal.
            if field.json_name == _usual_json_name(field.name):
                field.ClearField("json_name")
    return Selection(
        targets=targets,
        files=[files[file.name] for file in request.proto_file if file.name in reached],
        described=[files[file.name] for file in request.proto_file if file.name in described],
        packages=frozenset(files[name].package for name in written),
        modules={name: imports.home(name).module for name in reached if name not in _SHIPPED},
        errors=tuple(imports.errors(reached)),
    )


def _is_written(name: str, options: Options) -> bool:
    if name in _SHIPPED or name.startswith("temporal/api/"):
        return False
    return not name.startswith(_NOT_WRITTEN) or options.package == _WORKER_TREE


@dataclass(frozen=True, slots=True)
class _Home:
    """The module of a file.

    Attributes:
        module: its import path; empty for none.
        borrowed: whether it is in another package, so that this tree has no dataclasses of it yet.
    """

    module: str
    borrowed: bool = False


class _Imports:
    """What the files of a request use of each other."""

    def __init__(self, files: Mapping[str, _File], targets: Sequence[str], options: Options) -> None:
        self._files = files
        self._targets = frozenset(targets)
        self._options = options
        self._homes: dict[str, _Home] = {}
        self._definer = {f".{name}": file.name for file in files.values() for name in _type_names(file)}
        self._uses = {name: self._used_files(_uses(file)) for name, file in files.items()}
        self._used_anywhere = frozenset(used for name in files for used in self._uses[name] if used != name)

    def _used_files(self, uses: Iterable[tuple[str, tuple[int, ...]]]) -> frozenset[str]:
        return frozenset(self._definer[name] for name, _ in uses if name in self._definer)

    def home(self, name: str) -> _Home:
        """Return the module of a file."""
        if name not in self._homes:
            self._homes[name] = self._find_home(name)
        return self._homes[name]

    def _find_home(self, name: str) -> _Home:
        own = ".".join(filter(None, (self._options.package, module_of(name))))
        if name in self._targets:
            return _Home(own)
        if name in _SHIPPED:
            return _Home(module_of(name))
        for folder, package in _HOMES:
            if name.startswith(folder):
                return _Home(package + module_of(name.removeprefix(folder)), borrowed=True)
        here = Path.cwd()
        installed = [path for each in sys.path if each and (path := Path(each).absolute()) != here]
        if _is_module_below(installed, module_of(name)):
            return _Home(module_of(name), borrowed=True)
        # The request does not have the output folder. Generators run in the project's folder, so it is below that.
        near = [here, *(path for path in sorted(here.iterdir()) if path.is_dir() and not path.name.startswith("."))]
        return _Home(own if _is_module_below([*near, *installed], own) else "")

    def kept(self, name: str) -> list[str]:
        """Return the imports of a file that are used."""
        file = self._files[name]
        public = {file.dependency[index] for index in file.public_dependency}
        return [each for each in file.dependency if self._is_kept(name, each, each in public)]

    def _is_kept(self, name: str, dependency: str, is_public: bool) -> bool:
        if dependency in _SHIPPED or (dependency in self._targets and not dependency.startswith(_NOT_WRITTEN)):
            return True
        wanted = self._uses[name] | (self._used_anywhere if is_public else frozenset[str]())
        if wanted & self._handed_on(dependency):
            return True
        # Only options: they can be decoded if their file is installed under its own name. Other ones are decoded by
        # their numbers.
        return not any(dependency.startswith(folder) for folder, _ in _HOMES) and bool(self.home(dependency).module)

    def _handed_on(self, name: str) -> set[str]:
        """Return the file itself and its direct and indirect public imports."""
        seen, pending = set[str](), [name]
        while pending:
            current = pending.pop()
            if current not in seen:
                seen.add(current)
                file = self._files[current]
                pending.extend(file.dependency[index] for index in file.public_dependency)
        return seen

    def reach(self, asked: Iterable[str]) -> set[str]:
        """Return the requested files and those of google.protobuf, and their used imports."""
        seen, pending = set[str](), [name for name in asked if name in self._targets or name in _SHIPPED]
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                pending.extend(self.kept(name))
        return seen

    def described(self, asked: Iterable[str]) -> set[str]:
        """Return the files of dataclasses to write, and of their fields' types, including google.protobuf."""
        left_out = (*_NOT_WRITTEN, _DESCRIPTORS)
        seen, pending = set[str](), [name for name in asked if not name.startswith(left_out)]
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                held = ((type_name, path) for type_name, path in _uses(self._files[name]) if not _is_extension(path))
                pending.extend(self._used_files(held))
                # Most files import it only for options, which dataclasses do not have.
                pending.extend(each for each in self.kept(name) if each in _SHIPPED - {_DESCRIPTORS})
        return seen

    def errors(self, reached: Set[str]) -> Iterator[Diagnostic]:
        """Return the uses of types that no module has."""
        for name in sorted(each for each in reached if self.home(each).module):
            lines = Lines(self._files[name])
            for type_name, path in _uses(self._files[name]):
                source = self._definer.get(type_name, "")
                if source and not self.home(source).module:
                    yield Diagnostic(
                        file=name,
                        line=_line(lines, path),
                        text=f"{type_name.removeprefix('.')} is declared in {source}, which is neither among the files "
                        f"to generate nor installed as {module_of(source)}; add it to `inputs`, or set "
                        "`include_imports: true`",
                    )


def _is_module_below(folders: Iterable[Path], module: str) -> bool:
    path = f"{module.replace('.', '/')}.py"
    return any((folder / path).is_file() for folder in folders)


_MESSAGES, _SERVICES, _EXTENSIONS = 4, 6, 7
_FIELDS, _NESTED, _NESTED_EXTENSIONS, _METHODS = 2, 3, 6, 2
"""Numbers of these fields in FileDescriptorProto, DescriptorProto and ServiceDescriptorProto."""


def _fields(file: _File) -> Iterator[tuple[descriptor_pb2.FieldDescriptorProto, tuple[int, ...]]]:
    """Yield all fields and extensions of a file, with their paths."""
    yield from ((field, (_EXTENSIONS, index)) for index, field in enumerate(file.extension))
    pending: list[tuple[descriptor_pb2.DescriptorProto, tuple[int, ...]]] = [
        (message, (_MESSAGES, index)) for index, message in enumerate(file.message_type)
    ]
    while pending:
        message, path = pending.pop()
        # The entry type of a map has no lines of its own; the map has.
        maps = {field.type_name.rpartition(".")[2]: (*path, _FIELDS, at) for at, field in enumerate(message.field)}
        pending += [
            (nested, maps[nested.name] if nested.options.map_entry else (*path, _NESTED, index))
            for index, nested in enumerate(message.nested_type)
        ]
        yield from ((field, (*path, _FIELDS, index)) for index, field in enumerate(message.field))
        yield from ((field, (*path, _NESTED_EXTENSIONS, index)) for index, field in enumerate(message.extension))


def _is_extension(path: tuple[int, ...]) -> bool:
    return path[0] == _EXTENSIONS or (path[0] == _MESSAGES and path[-2] == _NESTED_EXTENSIONS)


def _uses(file: _File) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the full names, with a leading dot, of the types that a file uses, and their places."""
    for field, path in _fields(file):
        yield from ((name, path) for name in (field.type_name, field.extendee) if name)
    for number, service in enumerate(file.service):
        for index, method in enumerate(service.method):
            path = (_SERVICES, number, _METHODS, index)
            yield from ((name, path) for name in (method.input_type, method.output_type))


def _type_names(file: _File) -> Iterator[str]:
    prefix = f"{file.package}." if file.package else ""
    yield from (prefix + enum.name for enum in file.enum_type)
    pending = [(prefix + message.name, message) for message in file.message_type]
    while pending:
        name, message = pending.pop()
        yield name
        yield from (f"{name}.{enum.name}" for enum in message.enum_type)
        pending += [(f"{name}.{nested.name}", nested) for nested in message.nested_type]


def _line(lines: Lines, path: tuple[int, ...]) -> int:
    # A part without a place, such as the value of a map, has that of its parent.
    return next((line for end in range(len(path), 0, -1) if (line := lines[path[:end]])), 0)


def _keep_dependencies(file: _File, kept: list[str]) -> None:
    public = [file.dependency[index] for index in file.public_dependency]
    weak = [file.dependency[index] for index in file.weak_dependency]
    del file.dependency[:], file.public_dependency[:], file.weak_dependency[:]
    file.dependency.extend(kept)
    file.public_dependency.extend(kept.index(name) for name in public if name in kept)
    file.weak_dependency.extend(kept.index(name) for name in weak if name in kept)


def _usual_json_name(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


_FROM_FOLDER = re.compile(r"^(\s*from )([\w.]+)( import (\w*))", re.MULTILINE)
_FROM_NOWHERE = re.compile(r"^import (\w+)", re.MULTILINE)


def rewrite_imports(text: str, modules: Mapping[str, str]) -> str:
    """Correct the import paths in a module.

    Google's generator derives Python's import path from the proto's file name. Changing the name in the descriptor
    would show the changed name to clients of gRPC reflection, and conflict in a client that generated the same protos
    with their own names.

    Args:
        text: output of Google's generator.
        modules: import path of each module by that of Google's generator.
    """

    def from_folder(match: re.Match[str]) -> str:
        # `from folder import x_pb2`, or `from folder.x_pb2 import name` for a public import.
        module = modules.get(match[2]) or modules.get(f"{match[2]}.{match[4]}", "").rpartition(".")[0]
        return f"{match[1]}{module}{match[3]}" if module else match[0]

    def from_nowhere(match: re.Match[str]) -> str:
        folder = modules.get(match[1], "").rpartition(".")[0]
        return f"from {folder} {match[0]}" if folder else match[0]

    text = _FROM_FOLDER.sub(from_folder, text)
    return _FROM_NOWHERE.sub(from_nowhere, text)


class _OptionStripper:
    """Clear the options for generators; others, such as buf.validate's, stay."""

    def __init__(self, files: Iterable[descriptor_pb2.FileDescriptorProto]) -> None:
        # In a pool of this request alone, the options are known fields, whatever Python has imported.
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
            return  # No file imports descriptor.proto, so no options are defined or set.
        self._file_class = message_factory.GetMessageClass(descriptor)
        message_factory.GetMessageClassesForFiles([file.name for file in files], pool)

    def __call__(self, file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
        dynamic = self._file_class.FromString(file.SerializeToString())
        for options in _option_messages(dynamic):
            for field, _ in options.ListFields():
                # The stubs lack a field's file, and ClearExtension's support for plain descriptors.
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
