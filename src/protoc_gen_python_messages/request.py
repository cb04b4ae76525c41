"""The plugin's options, Python names of files, and declarations in files."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf import descriptor_pb2

from .errors import Diagnostic, Lines, UsageError


def module_of(proto: str) -> str:
    """Return the dotted name of Google's `_pb2` module of a file; dots in file names make folders."""
    return proto.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"


def is_importable_name(name: str) -> bool:
    """Return whether an import statement can contain a name."""
    return name.isidentifier() and not keyword.iskeyword(name)


_FILE_MESSAGES, _FILE_ENUMS = 4, 5
_NESTED_MESSAGES, _NESTED_ENUMS = 3, 4
"""Field numbers in FileDescriptorProto and DescriptorProto; paths consist of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """A message or enum.

    Attributes:
        file: its file.
        lines: lines of that file.
        path: its path in the file's descriptor.
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
        """The name with the package."""
        return f"{self.file.package}.{self.name}" if self.file.package else self.name

    def error(self, text: str, below: tuple[int, ...] = ()) -> Diagnostic:
        """Return an error at the declaration, or at the path `below` it in its descriptor."""
        kind = "message" if isinstance(self.proto, descriptor_pb2.DescriptorProto) else "enum"
        line = self.lines[(*self.path, *below)] or self.lines[self.path]
        return Diagnostic(file=self.file.name, line=line, text=f"{kind} {self.full_name}: {text}")

    def references(self) -> Iterator[tuple[int, str]]:
        """Yield the full names of a message's field types, with a leading dot, and the fields' indices."""
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
    """Yield all messages and enums of some files, including nested ones, without entries of maps."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of the plugin.

    Attributes:
        package: dotted Python package of the output folder, such as `acme.gen`; empty if the folder is on the path.
    """

    package: str = ""


def parse_options(parameter: str) -> Options:
    """Parse the plugin's `opt`.

    Raises:
        UsageError: an option is unknown, repeated or invalid.
    """
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in parameter.split(","))):
        name, _, value = item.partition("=")
        if name != "package":
            raise UsageError(f"unknown option {name!r}; the one option is package=dotted.name")
        if name in values:
            raise UsageError(f"option {name!r} is set twice")
        if not all(is_importable_name(part) for part in value.split(".")):
            raise UsageError(f"option package={value!r} is not a dotted Python package name")
        values[name] = value
    return Options(**values)
