"""The request's descriptors with decoded custom options, and the places and comments of declarations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from .errors import Place, UsageError

__all__ = ["ProtoFile", "Schema", "field_value", "set_fields"]


_OWN_EXTENSIONS = ("internal_method", "heartbeats")
_EXTENSIONS = ("service", "cli", "workflow", "activity", "query", "signal", "update", "field")


@dataclass(frozen=True, slots=True)
class ProtoFile:
    """One file of the request.

    Attributes:
        proto: its descriptor, as a message whose options are known fields.
    """

    proto: Any
    _places: dict[tuple[int, ...], Any]

    @property
    def name(self) -> str:
        """The path of the file in imports."""
        return str(self.proto.name)

    @property
    def package(self) -> str:
        """The proto package; empty for none."""
        return str(self.proto.package)

    def place(self, *path: int) -> Place:
        """Return the place of a declaration or an option, or of the nearest enclosing one that has a place."""
        for length in range(len(path), 0, -1):
            location = self._places.get(path[:length])
            if location is not None:
                return Place(file=self.name, line=location.span[0] + 1)
        return Place(file=self.name)

    def comment(self, *path: int) -> str:
        """Return the leading comment of a declaration, without the space after `//`."""
        location = self._places.get(path)
        if location is None:
            return ""
        text = location.leading_comments or location.trailing_comments
        if isinstance(text, bytes):
            # protoc passes on comments unchanged even if the file is not in UTF-8.
            text = text.decode(errors="replace")
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        lines = (line.removeprefix(" ").rstrip() for line in text.split("\n"))
        return "\n".join(lines).strip("\n")


class Schema:
    """All files of a request.

    The pool contains only this request: options are decoded with their own schema, whatever Python has imported.
    """

    def __init__(self, request: plugin_pb2.CodeGeneratorRequest) -> None:
        self.pool = descriptor_pool.DescriptorPool()
        for file in request.proto_file:
            try:
                self.pool.Add(file)
            except TypeError as error:
                raise UsageError(f"{file.name}: its descriptor is not valid: {error}") from None
        self._raw = {file.name: file for file in request.proto_file}
        self._files: dict[str, ProtoFile] = {}
        self._class: Any = descriptor_pb2.FileDescriptorProto
        self._extensions: dict[str, Any] = {}
        self._own: dict[str, Any] = {}
        try:
            descriptor = self.pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto")
        except KeyError:
            return  # No file imports descriptor.proto, so there are no annotations.
        self._class = message_factory.GetMessageClass(descriptor)
        for name in _OWN_EXTENSIONS:
            with contextlib.suppress(KeyError):
                extension = self._own[name] = self.pool.FindExtensionByName(f"contextunity.worker.{name}")
                message_factory.GetMessageClass(cast("Descriptor", extension.containing_type))
        for name in _EXTENSIONS:
            try:
                extension = self.pool.FindExtensionByName(f"temporal.v1.{name}")
            except KeyError:
                continue  # Another version of the schema; unknown options cannot be set either.
            # Extensions are only decoded into known fields after the class of the extended message was created.
            message_factory.GetMessageClass(cast("Descriptor", extension.containing_type))
            if extension.message_type is not None:
                message_factory.GetMessageClass(extension.message_type)
            if extension.message_type is None or extension.is_repeated:
                raise UsageError(f"the option temporal.v1.{name} is not the one of Temporal's schema; import that one")
            self._extensions[name] = extension

    @property
    def raw(self) -> Mapping[str, descriptor_pb2.FileDescriptorProto]:
        """Return the original descriptors by file name."""
        return self._raw

    def file(self, name: str) -> ProtoFile:
        """Return a file by its name."""
        if not name.isprintable():
            raise UsageError(f"the file name {name!r} contains unprintable characters; rename the file")
        if name not in self._files:
            if name not in self._raw:
                raise UsageError(f"the request asks for {name}, but does not contain it")
            raw = self._raw[name]
            try:
                proto = self._class.FromString(raw.SerializeToString())
            except DecodeError as error:
                raise UsageError(f"{name}: its options do not match the options schema it imports: {error}") from None
            places = {tuple(location.path): location for location in raw.source_code_info.location}
            self._files[name] = ProtoFile(proto, places)
        return self._files[name]

    def file_of_method(self, full_name: str) -> str:
        """Return the name of the file that declares a method.

        Raises:
            KeyError: there is no such method.
        """
        service, _, method = full_name.rpartition(".")
        return str(self.pool.FindServiceByName(service).methods_by_name[method].containing_service.file.name)

    def dependencies(self, name: str) -> set[str]:
        """Return the names of a file and of its direct and indirect imports."""
        seen, pending = set[str](), [name]
        while pending:
            current = pending.pop()
            if current not in seen:
                seen.add(current)
                pending.extend(self._raw[current].dependency)
        return seen

    def annotation(self, options: Any, name: str) -> Any | None:
        """Return an annotation of a service or method by its extension's short name; None if not set."""
        extension = self._extensions.get(name)
        if extension is None or extension.containing_type.full_name != options.DESCRIPTOR.full_name:
            return None
        return options.Extensions[extension] if options.HasExtension(extension) else None

    def is_internal(self, options: Any) -> bool:
        """Return whether the options of a method mark it as internal to workflows."""
        return "internal_method" in self._own and bool(options.Extensions[self._own["internal_method"]])

    def heartbeats(self, options: Any) -> str:
        """Return the enum value's name for who sends an activity's heartbeats; empty if not set."""
        extension = self._own.get("heartbeats")
        if extension is None or not options.HasExtension(extension):
            return ""
        value = extension.enum_type.values_by_number.get(options.Extensions[extension])
        return str(value.name) if value is not None else ""

    def number(self, name: str) -> int:
        """Return the field number of an option's extension, by its short name."""
        extension = self._extensions.get(name) or self._own.get(name)
        return 0 if extension is None else int(extension.number)

    def message(self, type_name: str) -> Descriptor:
        """Return a message by its name with a leading dot, as in fields and methods.

        Raises:
            UsageError: the request does not contain the message.
        """
        try:
            return self.pool.FindMessageTypeByName(type_name.removeprefix("."))
        except KeyError:
            raise UsageError(f"the request names the message {type_name}, but does not contain it") from None


def field_value(message: Any, name: str, default: Any = "") -> Any:
    """Return a field of an options message; `default` if the schema in the request has no such field."""
    return getattr(message, name) if name in message.DESCRIPTOR.fields_by_name else default


def set_fields(message: Any, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor, Any]]:
    """Yield the dotted path of every field that is set in an options message, and in its nested messages."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        yield path, field, value
        if field.message_type is not None and not field.message_type.full_name.startswith("google.protobuf."):
            for item in value if field.is_repeated else (value,):
                yield from set_fields(item, f"{path}.")
