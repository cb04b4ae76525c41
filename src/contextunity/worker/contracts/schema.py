"""Read one version of a contract: descriptors with readable custom options, annotated methods, and source places."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from .findings import ContractError, Place

__all__ = ["KINDS", "Element", "IncomparableError", "Schema", "Service", "enum_name", "is_map", "plain_text"]

KINDS = ("workflow", "activity", "query", "signal", "update")
"""Kinds of methods, by their annotation."""

_EXTENSIONS = (
    *(f"temporal.v1.{name}" for name in ("service", *KINDS)),
    *(f"contextunity.worker.{name}" for name in ("heartbeats", "internal", "internal_method", "schedule")),
    *(f"buf.validate.{name}" for name in ("field", "message", "oneof")),
)
_BY_ACTIVITY = 2
"""Number of HEARTBEATS_BY_ACTIVITY."""
# In an image, buf marks each file as built or only imported.
_BUF_EXTENSION, _IS_IMPORT = 8042, 1


class IncomparableError(ContractError):
    """The two versions cannot be compared, so breaking changes are unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Element:
    """A workflow, activity, query, signal or update.

    Attributes:
        kind: one of KINDS.
        full_name: full name of its method, `package.Service.Method`.
        names: its Temporal name, followed by its aliases.
        options: its annotation.
        path: path of its method in the file's descriptor.
        task_queue: its own or its service's; empty if neither has one.
    """

    kind: str
    full_name: str
    names: tuple[str, ...]
    options: Any
    service: Service
    method: Any
    path: tuple[int, ...]
    task_queue: str
    schema: Schema

    @property
    def name(self) -> str:
        """Its Temporal name."""
        return self.names[0]

    def place(self, option: str = "") -> Place:
        """Return the place of the method, or of an option in its annotation."""
        extension = self.schema.extension(f"temporal.v1.{self.kind}")
        field = self.options.DESCRIPTOR.fields_by_name.get(option)
        path = (*self.path, 4, extension.number, field.number) if field is not None else self.path
        return self.schema.place(self.service.file, *path)

    def get(self, name: str, default: Any = "") -> Any:
        """Return an option; `default` if this version of the annotations lacks it."""
        return getattr(self.options, name) if name in self.options.DESCRIPTOR.fields_by_name else default

    def has(self, name: str) -> bool:
        """Return whether an option with presence is set."""
        return name in self.options.DESCRIPTOR.fields_by_name and bool(self.options.HasField(name))

    def enum(self, name: str) -> str:
        """Return the name of an enum option's value; empty if unspecified."""
        return enum_name(self.options, name)

    def bindings(self, kind: str) -> Iterator[tuple[str, Any]]:
        """Return a workflow's `query`, `signal` or `update` entries by the full method name they refer to."""
        for entry in self.get(kind, ()):
            yield entry.ref if "." in entry.ref else f"{self.service.full_name}.{entry.ref}", entry

    @property
    def schedules(self) -> list[Any]:
        """The schedules declared for it."""
        return list(self.schema.option(self.method.options, "contextunity.worker.schedule") or ())

    @property
    def is_internal(self) -> bool:
        """Whether only other workflows may start or send it."""
        return bool(self.schema.option(self.method.options, "contextunity.worker.internal_method"))

    @property
    def heartbeats(self) -> str:
        """The value's name of who sends an activity's heartbeats, with its default."""
        extension = "contextunity.worker.heartbeats"
        by_activity = self.schema.option(self.method.options, extension) == _BY_ACTIVITY
        return "HEARTBEATS_BY_ACTIVITY" if by_activity else "HEARTBEATS_BY_WORKER"


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A service, annotated or not."""

    full_name: str
    file: str
    path: tuple[int, ...]
    proto: Any
    annotation: Any


def enum_name(message: Any, name: str) -> str:
    """Return the name of an enum field's value; empty if it is zero or the message has no such field."""
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None or field.enum_type is None:
        return ""
    number = int(getattr(message, name))
    value = field.enum_type.values_by_number.get(number)
    return "" if number == 0 else str(value.name if value is not None else number)


class Schema:
    """One version of a contract.

    Options are read with the schema that came with the files, not with what Python has imported: others may use the
    same extension numbers, and the annotations exist in several versions.

    Args:
        image: a serialized FileDescriptorSet, or a buf image.
        locate: returns the path to show for a file, given its name in imports.
        is_other: returns whether a file belongs to others and is only imported, given its name in imports.

    Raises:
        IncomparableError: the descriptors are inconsistent.
    """

    def __init__(
        self, image: bytes, locate: Callable[[str], str] = str, is_other: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._locate = locate
        try:
            raw = descriptor_pb2.FileDescriptorSet.FromString(image)
        except DecodeError:
            raise IncomparableError("not an image of protos; create one with `buf build -o`") from None
        self.imported = frozenset(file.name for file in raw.file if _is_import(file) or is_other(file.name))
        self.pool = descriptor_pool.DescriptorPool()
        self._add(raw)
        self._extensions: dict[str, Any] = {}
        file_class = self._prepare()
        self.files: dict[str, Any] = {}
        for file in raw.file:
            try:
                self.files[file.name] = file_class.FromString(file.SerializeToString())
            except DecodeError as error:
                raise IncomparableError(f"{file.name}: its options do not fit the schema it imports: {error}") from None
        self._places: dict[str, dict[tuple[int, ...], int]] = {}

    def _add(self, raw: descriptor_pb2.FileDescriptorSet) -> None:
        pending = {file.name: file for file in raw.file}
        added = set[str]()

        def add(name: str) -> None:
            file = pending.pop(name, None)
            if file is None:
                if name not in added:
                    raise IncomparableError(f"it lacks {name}, which others import; build it with its imports")
                return
            added.add(name)
            for dependency in file.dependency:
                add(dependency)
            try:
                self.pool.Add(file)
            except TypeError as error:
                raise IncomparableError(f"{name}: its descriptor is not valid: {error}") from None

        while pending:
            add(next(iter(pending)))

    def _prepare(self) -> Any:
        """Create the message classes for files and their options."""
        try:
            descriptor = self.pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto")
        except KeyError:
            return descriptor_pb2.FileDescriptorProto  # No file imports descriptor.proto, so none has an annotation.
        for name in _EXTENSIONS:
            try:
                extension = self.pool.FindExtensionByName(name)
            except KeyError:
                continue  # A schema of another version; an option that it lacks cannot be set.
            if name.startswith("temporal.v1.") and extension.message_type is None:
                raise IncomparableError(f"option ({name}) is not the one of Temporal's schema; import that one")
            self._extensions[name] = extension
        # Extensions become fields only after the class of the extended message was created.
        for kind in ("Message", "Field", "Oneof", "Enum", "EnumValue", "Service", "Method"):
            message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"google.protobuf.{kind}Options"))
        return message_factory.GetMessageClass(descriptor)

    def extension(self, name: str) -> Any:
        """Return the descriptor of an extension in these files."""
        return self._extensions[name]

    def option(self, options: Any, name: str) -> Any | None:
        """Return an option by its full name; None if it is not set or not in these files."""
        extension = self._extensions.get(name)
        if extension is None:
            return None
        if extension.is_repeated:
            return options.Extensions[extension]
        return options.Extensions[extension] if options.HasExtension(extension) else None

    def others(self, options: Any, package: str) -> dict[str, str]:
        """Return the options of a package that this module does not read itself, as text by full name."""
        return {
            field.full_name: str(value).strip().replace("\n", " ")
            for field, value in options.ListFields()
            if field.is_extension and field.file.package == package and field.full_name not in self._extensions
        }

    def place(self, file: str, *path: int) -> Place:
        """Return the place of a declaration or option, or of the nearest enclosing one with a known place."""
        if file not in self._places:
            proto = self.files[file]
            self._places[file] = {
                tuple(location.path): int(location.span[0]) + 1 for location in proto.source_code_info.location
            }
        places = self._places[file]
        if path not in places:
            # For a message in an option, only the fields have places.
            within = [(line, other) for other, line in places.items() if other[: len(path)] == path]
            if within:
                return Place(self._locate(file), *min(within))
        for length in range(len(path), 0, -1):
            line = places.get(path[:length])
            if line is not None:
                return Place(self._locate(file), line, path[:length])
        return Place(self._locate(file))

    def declared_at(self, file: str, line: int) -> str:
        """Return the full name of the innermost declaration around a line; empty if there is none."""
        best, size = "", 0
        spans = {tuple(each.path): each.span for each in self.files[file].source_code_info.location}
        for full_name, (name, path, _) in self.declarations.items():
            span = spans.get(path) if name == file else None
            if span is None:
                continue
            first, last = span[0] + 1, span[0 if len(span) == 3 else 2] + 1
            if first <= line <= last and (not best or last - first < size):
                best, size = full_name, last - first
        return best

    def shown(self, file: str) -> str:
        """Return the path to show for a file."""
        return self._locate(file)

    @cached_property
    def declarations(self) -> Mapping[str, tuple[str, tuple[int, ...], Any]]:
        """File, path and descriptor of every message, field, oneof, enum, value, service and method by full name."""
        found: dict[str, tuple[str, tuple[int, ...], Any]] = {}
        for name, file in self.files.items():
            for full_name, path, proto in _declared(file, str(file.package)):
                found[full_name] = (name, path, proto)
        return found

    def place_of(self, full_name: str) -> Place | None:
        """Return the place of a declaration, or of the nearest enclosing one; None if there is none."""
        while full_name:
            if full_name in self.declarations:
                file, path, _ = self.declarations[full_name]
                return self.place(file, *path)
            full_name = full_name.rpartition(".")[0]
        return None

    @cached_property
    def services(self) -> tuple[Service, ...]:
        """All services, without those of files that are only imported."""
        return tuple(
            Service(
                full_name=".".join(filter(None, (file.package, service.name))),
                file=name,
                path=(6, index),
                proto=service,
                annotation=self.option(service.options, "temporal.v1.service"),
            )
            for name, file in self.files.items()
            if name not in self.imported
            for index, service in enumerate(file.service)
        )

    @cached_property
    def elements(self) -> tuple[Element, ...]:
        """All workflows, activities, queries, signals and updates."""
        return tuple(
            self._element(service, index, method, kind, options)
            for service in self.services
            for index, method in enumerate(service.proto.method)
            for kind in KINDS
            if (options := self.option(method.options, f"temporal.v1.{kind}")) is not None
        )

    def _element(self, service: Service, index: int, method: Any, kind: str, options: Any) -> Element:
        full_name = f"{service.full_name}.{method.name}"
        aliases = options.aliases if "aliases" in options.DESCRIPTOR.fields_by_name else ()
        queue = getattr(options, "task_queue", "") or getattr(service.annotation, "task_queue", "")
        return Element(
            kind=kind,
            full_name=full_name,
            names=tuple(dict.fromkeys((getattr(options, "name", "") or full_name, *aliases))),
            options=options,
            service=service,
            method=method,
            path=(*service.path, 2, index),
            task_queue=str(queue),
            schema=self,
        )

    def message(self, full_name: str) -> Descriptor:
        """Return a message by its name, with or without the leading dot."""
        return self.pool.FindMessageTypeByName(full_name.removeprefix("."))


def _is_import(file: descriptor_pb2.FileDescriptorProto) -> bool:
    return any(
        field.field_number == _IS_IMPORT and bool(field.data)
        for outer in _unknown(file)
        if outer.field_number == _BUF_EXTENSION
        for field in _unknown(empty_pb2.Empty.FromString(outer.data))
    )


def _unknown(message: Message) -> Iterator[Any]:
    fields = UnknownFieldSet(message)
    return (fields[index] for index in range(len(fields)))


def _declared(file: Any, package: str) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    def named(scope: str, name: str) -> str:
        return f"{scope}.{name}" if scope else name

    def messages(protos: Any, scope: str, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...], Any]]:
        for index, message in enumerate(protos):
            full_name, here = named(scope, message.name), (*path, index)
            yield full_name, here, message
            for number, field in enumerate(message.field):
                yield named(full_name, field.name), (*here, 2, number), field
            for number, oneof in enumerate(message.oneof_decl):
                yield named(full_name, oneof.name), (*here, 8, number), oneof
            yield from messages(message.nested_type, full_name, (*here, 3))
            yield from enums(message.enum_type, full_name, (*here, 4))

    def enums(protos: Any, scope: str, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...], Any]]:
        for index, enum in enumerate(protos):
            full_name, here = named(scope, enum.name), (*path, index)
            yield full_name, here, enum
            for number, value in enumerate(enum.value):
                # By name, enum values are siblings of their enum. List them under the enum, where people look for them.
                yield named(full_name, value.name), (*here, 2, number), value

    yield from messages(file.message_type, package, (4,))
    yield from enums(file.enum_type, package, (5,))
    for index, service in enumerate(file.service):
        full_name = named(package, service.name)
        yield full_name, (6, index), service
        for number, method in enumerate(service.method):
            yield named(full_name, method.name), (6, index, 2, number), method


_SPACE = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\s+""")


def plain_text(expression: str) -> str:
    """Replace every run of whitespace outside quotes by one space, so that layout does not matter."""
    return _SPACE.sub(lambda match: match[1] or " ", expression).strip()


def is_map(field: FieldDescriptor) -> bool:
    """Return whether a field is a map."""
    return field.is_repeated and field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
