"""Import `_pb2` modules; if two trees have different copies of a file, say which modules and what differs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import CodeType, TracebackType
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError

from .errors import DescriptorConflictError

__all__ = ["import_pb2"]

_File = descriptor_pb2.FileDescriptorProto
_Field = descriptor_pb2.FieldDescriptorProto
_SHOWN = 3


def import_pb2(name: str) -> None:
    """Import a generated `_pb2` module and what it imports.

    Args:
        name: import path.

    Raises:
        DescriptorConflictError: another tree has loaded a different copy of one of the files.
    """
    try:
        importlib.import_module(name)
    except TypeError as error:
        # The descriptor pool tells the name of the file, or of one message in it, and neither module.
        conflict = _conflict(error.__traceback__)
        if conflict is None:
            raise
        raise conflict from error


def _conflict(traceback: TracebackType | None) -> DescriptorConflictError | None:
    """Return the error for a module whose file the pool rejected; None if that is not what happened."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return None
    rejected = _file_in(traceback.tb_frame.f_code)
    if rejected is None:
        return None
    module = str(traceback.tb_frame.f_globals.get("__name__"))
    loaded = _loaded_file(rejected)
    if loaded is None:
        return None
    other = _module_of(str(loaded.name))
    if loaded.name != rejected.name:
        reason = f"{other} has {_named(loaded)} in {loaded.name}, and {module} has it in {rejected.name}"
        differences: tuple[str, ...] = ()
    else:
        differences = tuple(_differences(_File.FromString(loaded.serialized_pb), rejected, other, module))
        listed = "; ".join(differences[:_SHOWN]) or "options or names in JSON differ"
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        reason = f"{other} and {module} have different copies of {rejected.name}: {listed}{more}"
    return DescriptorConflictError(
        f"{reason}. One process can only load one copy; generate both from the same release of the file",
        file=str(rejected.name),
        modules=(other, module),
        differences=differences,
    )


def _file_in(code: CodeType) -> _File | None:
    """Return the file that a `_pb2` module contains as a constant."""
    for constant in code.co_consts:
        if isinstance(constant, bytes):
            try:
                return _File.FromString(constant)
            except DecodeError:
                continue
    return None


def _loaded_file(rejected: _File) -> FileDescriptor | None:
    """Return the loaded file of the same name, or one that declares a message or enum of the same name."""
    pool: Any = descriptor_pool.Default()
    try:
        return cast("FileDescriptor", pool.FindFileByName(rejected.name))
    except KeyError:
        pass
    names = [*(message.name for message in rejected.message_type), *(enum.name for enum in rejected.enum_type)]
    for name in names:
        try:
            return cast("FileDescriptor", pool.FindFileContainingSymbol(_full_name(rejected.package, name)))
        except KeyError:
            continue
    return None


def _named(file: FileDescriptor) -> str:
    return f"package {file.package}" if file.package else "the same messages"


def _module_of(file: str) -> str:
    for name, module in tuple(sys.modules.items()):
        if name.endswith("_pb2") and getattr(getattr(module, "DESCRIPTOR", None), "name", None) == file:
            return name
    return "another module"


def _differences(loaded: _File, rejected: _File, other: str, module: str) -> Iterator[str]:
    one, two = dict(_declared(loaded)), dict(_declared(rejected))
    for name in dict.fromkeys((*one, *two)):
        if name not in two:
            yield f"only {other} has {name}, {one[name]}"
        elif name not in one:
            yield f"only {module} has {name}, {two[name]}"
        elif one[name] != two[name]:
            yield f"{name} is {one[name]} in {other} and {two[name]} in {module}"


def _declared(file: _File) -> Iterator[tuple[str, str]]:
    """Yield the fields, values and methods of a file: full name and what is declared."""
    pending = [(_full_name(file.package, message.name), message) for message in file.message_type]
    enums = [(_full_name(file.package, enum.name), enum) for enum in file.enum_type]
    while pending:
        name, message = pending.pop(0)
        yield name, "a message"
        yield from ((_full_name(name, field.name), _field(field)) for field in message.field)
        pending += [(_full_name(name, nested.name), nested) for nested in message.nested_type]
        enums += [(_full_name(name, enum.name), enum) for enum in message.enum_type]
    for name, enum in enums:
        yield name, "an enum"
        yield from ((_full_name(name, value.name), f"value {value.number}") for value in enum.value)
    for service in file.service:
        for method in service.method:
            types = f"({method.input_type.lstrip('.')}) returns ({method.output_type.lstrip('.')})"
            yield _full_name(file.package, f"{service.name}.{method.name}"), types


def _field(field: _Field) -> str:
    kind = field.type_name.lstrip(".") or _Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    label = {_Field.LABEL_REPEATED: "repeated ", _Field.LABEL_REQUIRED: "required "}.get(field.label, "")
    optional = "optional " if field.proto3_optional else ""
    return f"{label}{optional}{kind} = {field.number}"


def _full_name(outer: str, name: str) -> str:
    return f"{outer}.{name}" if outer else name
