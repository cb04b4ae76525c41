"""Prints descriptors as proto text again: what is selected of a file, with comments and without annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor

from .errors import WorkerError

__all__ = ["Selection", "Symbols", "print_file"]

_Path: TypeAlias = tuple[int, ...]
_Field: TypeAlias = descriptor_pb2.FieldDescriptorProto
_PROTO = descriptor_pb2.FieldDescriptorProto
_REFERS = (_PROTO.TYPE_MESSAGE, _PROTO.TYPE_ENUM)
_INDENT = "  "
_LAST_NUMBER, _LAST_ENUM_NUMBER = 2**29 - 1, 2**31 - 1
# Numbers of these fields in the messages of descriptor.proto; the places of comments are made of them.
_SYNTAX, _PACKAGE, _EDITION, _MESSAGES, _ENUMS, _SERVICES, _EXTENSIONS = 12, 2, 14, 4, 5, 6, 7
_FIELDS, _NESTED, _NESTED_ENUMS, _NESTED_EXTENSIONS, _ONEOFS, _VALUES, _METHODS = 2, 3, 4, 6, 8, 2, 2


class Selection(Protocol):
    """What of a file is printed; the rest is as if it had never been declared."""

    def keeps(self, full_name: str) -> bool:
        """Whether to print a message or enum of the top level, a service, a method, or an extension of a message."""
        ...

    def hides(self, field: _Field) -> bool:
        """Whether to leave out a field of a message that is printed; its number and name stay reserved."""
        ...

    def imports(self, file: descriptor_pb2.FileDescriptorProto) -> Sequence[str]:
        """Which of its imports a file still needs, in their order."""
        ...


class Symbols:
    """What names mean, as a compiler looks them up: from the scope that they stand in outwards."""

    def __init__(self, files: Sequence[descriptor_pb2.FileDescriptorProto]) -> None:
        self._types, self._scopes = set[str](), set[str]()
        for file in files:
            parts = file.package.split(".") if file.package else []
            self._scopes.update(".".join(parts[:end]) for end in range(1, len(parts) + 1))
            self._scopes.update(_joined(file.package, service.name) for service in file.service)
            self._types.update(_joined(file.package, enum.name) for enum in file.enum_type)
            for message in file.message_type:
                self._add(file.package, message)

    def _add(self, scope: str, message: descriptor_pb2.DescriptorProto) -> None:
        name = _joined(scope, message.name)
        self._types.add(name)
        self._types.update(_joined(name, enum.name) for enum in message.enum_type)
        for nested in message.nested_type:
            self._add(name, nested)

    def shortest(self, target: str, scope: str) -> str:
        """The shortest name by which a type is found from a scope.

        Args:
            target: its full name, with the dot that descriptors begin it with.
            scope: full name of the message, service or package around it.
        """
        target = target.removeprefix(".")
        parts = target.split(".")
        for start in range(len(parts) - 1, -1, -1):
            name = ".".join(parts[start:])
            if self._found(name, scope) == target:
                return name
        return f".{target}"

    def _found(self, name: str, scope: str) -> str:
        first, dot, _ = name.partition(".")
        known = self._types | self._scopes if dot else self._types
        while True:
            if _joined(scope, first) in known:
                return _joined(scope, name)
            if not scope:
                return ""
            scope = scope.rpartition(".")[0]


def print_file(file: descriptor_pb2.FileDescriptorProto, selection: Selection, symbols: Symbols) -> str:
    """The text of a file.

    Raises:
        WorkerError: it has what this cannot print, a group of proto2.
    """
    return "\n".join(_Printer(file, selection, symbols).lines()).rstrip("\n") + "\n"


class _Printer:
    def __init__(self, file: descriptor_pb2.FileDescriptorProto, selection: Selection, symbols: Symbols) -> None:
        self._file, self._selection, self._symbols = file, selection, symbols
        self._comments = {tuple(each.path): each for each in file.source_code_info.location}
        self._syntax = file.syntax or "proto2"

    def lines(self) -> Iterator[str]:
        file = self._file
        editions = self._syntax == "editions"
        yield from self._leading((_EDITION,) if editions else (_SYNTAX,), "")
        edition = descriptor_pb2.Edition.Name(file.edition).removeprefix("EDITION_") if editions else ""
        yield f'edition = "{edition}";' if editions else f'syntax = "{self._syntax}";'
        if file.package:
            yield ""
            yield from self._leading((_PACKAGE,), "")
            yield f"package {file.package};"
        imports = self._selection.imports(file)
        public = {file.dependency[index] for index in file.public_dependency}
        if imports:
            yield ""
        yield from (f"import {'public ' if name in public else ''}{_quoted(name)};" for name in imports)
        options = sorted(_options(file.options))
        if options:
            yield ""
        yield from (f"option {name} = {value};" for name, value in options)
        for lines in self._elements():
            yield ""
            yield from lines

    def _elements(self) -> Iterator[Iterator[str]]:
        """What stands at the top level, in the order of the source where each has a comment that tells its line."""
        file = self._file
        kinds: list[tuple[int, Sequence[Any], Callable[..., Iterator[str]]]] = [
            (_SERVICES, file.service, self._service),
            (_ENUMS, file.enum_type, self._enum),
            (_MESSAGES, file.message_type, self._message),
        ]
        places = [(number, index) for number, elements, _ in kinds for index in range(len(elements))]
        known = all(path in self._comments for path in places)
        found: list[tuple[int, Iterator[str]]] = []
        for number, elements, print_one in kinds:
            for index, element in enumerate(elements):
                path = (number, index)
                line = self._comments[path].span[0] if known else 0
                if self._selection.keeps(_joined(file.package, element.name)):
                    found.append((line, print_one(element, path, file.package, "")))
        yield from (lines for _, lines in sorted(found, key=lambda each: each[0]))
        for index, field in enumerate(file.extension):
            if self._extends(field, file.package):
                yield self._extension(field, (_EXTENSIONS, index), file.package, "")

    def _service(
        self, service: descriptor_pb2.ServiceDescriptorProto, path: _Path, scope: str, indent: str
    ) -> Iterator[str]:
        name = _joined(scope, service.name)
        yield from self._open(f"service {service.name} {{", path, indent)
        yield from _statements(service.options, indent)
        first = True
        for index, method in enumerate(service.method):
            if not self._selection.keeps(_joined(name, method.name)):
                continue
            if not first:
                yield ""
            first = False
            asked, given = (self._symbols.shortest(each, name) for each in (method.input_type, method.output_type))
            asked = f"stream {asked}" if method.client_streaming else asked
            given = f"stream {given}" if method.server_streaming else given
            head = f"rpc {method.name}({asked}) returns ({given})"
            inner, options = f"{indent}{_INDENT}", list(_statements(method.options, f"{indent}{_INDENT}"))
            if options:
                yield from self._open(f"{head} {{", (*path, _METHODS, index), inner)
                yield from options
                yield f"{inner}}}"
            else:
                yield from self._line(f"{head};", (*path, _METHODS, index), inner)
        yield f"{indent}}}"

    def _message(self, message: descriptor_pb2.DescriptorProto, path: _Path, scope: str, indent: str) -> Iterator[str]:
        name, inner = _joined(scope, message.name), f"{indent}{_INDENT}"
        yield from self._open(f"message {message.name} {{", path, indent)
        yield from _statements(message.options, indent)
        yield from self._reserved(message, inner)
        for extensions in message.extension_range:
            yield f"{inner}extensions {_range(extensions.start, extensions.end - 1, _LAST_NUMBER)};"
        for index, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*path, _NESTED_ENUMS, index), name, inner)
        entries = dict[str, descriptor_pb2.DescriptorProto]()
        for index, nested in enumerate(message.nested_type):
            if nested.options.map_entry:
                entries[f".{name}.{nested.name}"] = nested
            else:
                yield from self._message(nested, (*path, _NESTED, index), name, inner)
        opened: int | None = None
        for index, field in enumerate(message.field):
            if self._selection.hides(field):
                continue
            place = (*path, _FIELDS, index)
            oneof = field.oneof_index if field.HasField("oneof_index") and not field.proto3_optional else None
            if opened is not None and oneof != opened:
                yield f"{inner}}}"
            if oneof is not None and oneof != opened:
                declared = message.oneof_decl[oneof]
                yield from self._open(f"oneof {declared.name} {{", (*path, _ONEOFS, oneof), inner)
                yield from _statements(declared.options, inner)
            opened = oneof
            yield from self._field(field, place, name, inner if oneof is None else f"{inner}{_INDENT}", entries)
        if opened is not None:
            yield f"{inner}}}"
        for index, field in enumerate(message.extension):
            if self._extends(field, name):
                yield from self._extension(field, (*path, _NESTED_EXTENSIONS, index), name, inner)
        yield f"{indent}}}"

    def _reserved(self, message: descriptor_pb2.DescriptorProto, indent: str) -> Iterator[str]:
        hidden = [field for field in message.field if self._selection.hides(field)]
        ranges = [(each.start, each.end - 1) for each in message.reserved_range]
        ranges += [(field.number, field.number) for field in hidden]
        names = [*message.reserved_name, *(field.name for field in hidden)]
        return self._reservations(sorted(ranges), names, indent, _LAST_NUMBER)

    def _reservations(
        self, ranges: Sequence[tuple[int, int]], names: Sequence[str], indent: str, last: int
    ) -> Iterator[str]:
        if ranges:
            yield f"{indent}reserved {', '.join(_range(*each, last) for each in ranges)};"
        if names:
            # Editions have them as identifiers.
            written = names if self._syntax == "editions" else [_quoted(name) for name in names]
            yield f"{indent}reserved {', '.join(written)};"

    def _field(
        self,
        field: _Field,
        path: _Path,
        scope: str,
        indent: str,
        entries: dict[str, descriptor_pb2.DescriptorProto],
    ) -> Iterator[str]:
        if field.type == _PROTO.TYPE_GROUP:
            raise WorkerError(
                f"{self._file.name}: {scope}.{field.name} is a group, which cannot be written for clients; "
                "make it a message"
            )
        entry = entries.get(field.type_name)
        label = "" if entry is not None else self._label(field)
        if entry is not None:
            key, value = entry.field
            kind = f"map<{self._type(key, scope)}, {self._type(value, scope)}>"
        else:
            kind = self._type(field, scope)
        options = [f"{name} = {value}" for name, value in self._field_options(field)]
        more = f" [{', '.join(options)}]" if options else ""
        yield from self._line(f"{label}{kind} {field.name} = {field.number}{more};", path, indent)

    def _label(self, field: _Field) -> str:
        if field.label == _PROTO.LABEL_REPEATED:
            return "repeated "
        if field.proto3_optional:
            return "optional "
        if self._syntax != "proto2" or field.HasField("oneof_index"):
            return ""
        return "required " if field.label == _PROTO.LABEL_REQUIRED else "optional "

    def _type(self, field: _Field, scope: str) -> str:
        if field.type in _REFERS:
            return self._symbols.shortest(field.type_name, scope)
        return _PROTO.Type.Name(field.type).removeprefix("TYPE_").lower()

    def _field_options(self, field: _Field) -> Iterator[tuple[str, str]]:
        if field.HasField("default_value"):
            text = field.default_value
            # That of bytes is escaped already.
            quoted = {_PROTO.TYPE_STRING: _quoted(text), _PROTO.TYPE_BYTES: f'"{text}"'}
            yield "default", quoted.get(field.type, text)
        if field.json_name and field.json_name != _json_name(field.name) and not field.extendee:
            yield "json_name", _quoted(field.json_name)
        yield from _options(field.options)

    def _enum(self, enum: descriptor_pb2.EnumDescriptorProto, path: _Path, _scope: str, indent: str) -> Iterator[str]:
        inner = f"{indent}{_INDENT}"
        yield from self._open(f"enum {enum.name} {{", path, indent)
        yield from _statements(enum.options, indent)
        ranges = [(each.start, each.end) for each in enum.reserved_range]
        yield from self._reservations(ranges, enum.reserved_name, inner, _LAST_ENUM_NUMBER)
        for index, value in enumerate(enum.value):
            options = [f"{name} = {text}" for name, text in _options(value.options)]
            more = f" [{', '.join(options)}]" if options else ""
            yield from self._line(f"{value.name} = {value.number}{more};", (*path, _VALUES, index), inner)
        yield f"{indent}}}"

    def _extends(self, field: _Field, scope: str) -> bool:
        """Whether to print an extension; annotations are extensions, too."""
        return not field.extendee.startswith(".google.protobuf.") and self._selection.keeps(_joined(scope, field.name))

    def _extension(self, field: _Field, path: _Path, scope: str, indent: str) -> Iterator[str]:
        yield f"{indent}extend {self._symbols.shortest(field.extendee, scope)} {{"
        yield from self._field(field, path, scope, f"{indent}{_INDENT}", {})
        yield f"{indent}}}"

    def _open(self, text: str, path: _Path, indent: str) -> Iterator[str]:
        yield from self._leading(path, indent)
        yield f"{indent}{text}"
        yield from _commented(self._trailing(path), f"{indent}{_INDENT}")

    def _line(self, text: str, path: _Path, indent: str) -> Iterator[str]:
        yield from self._leading(path, indent)
        trailing = self._trailing(path)
        if len(trailing) == 1:
            yield f"{indent}{text} //{trailing[0]}"
            return
        yield f"{indent}{text}"
        yield from _commented(trailing, indent)

    def _leading(self, path: _Path, indent: str) -> Iterator[str]:
        found = self._comments.get(path)
        return _commented(_comment_lines(found.leading_comments) if found is not None else [], indent)

    def _trailing(self, path: _Path) -> list[str]:
        found = self._comments.get(path)
        return _comment_lines(found.trailing_comments) if found is not None else []


def _joined(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


def _comment_lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _commented(lines: Sequence[str], indent: str) -> Iterator[str]:
    yield from (f"{indent}//{line}" for line in lines)


def _statements(options: Any, indent: str) -> Iterator[str]:
    yield from (f"{indent}{_INDENT}option {name} = {value};" for name, value in _options(options))


def _options(options: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The options that every compiler knows, as names and texts; annotations are left out."""
    for field, value in options.ListFields():
        if field.is_extension or field.name == "uninterpreted_option":
            continue
        for each in value if field.is_repeated else (value,):
            if field.message_type is not None:
                yield from _options(each, f"{prefix}{field.name}.")
            else:
                yield f"{prefix}{field.name}", _option_value(field, each)


def _option_value(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else str(value)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(each, f"\\{ord(each):03o}" if each < " " else each) for each in text) + '"'


def _range(start: int, end: int, last: int) -> str:
    if start == end:
        return str(start)
    return f"{start} to {'max' if end >= last else end}"


def _json_name(name: str) -> str:
    """The JSON name that protoc gives a field without one of its own."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)
