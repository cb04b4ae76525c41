"""The classes that other libraries would have of a message, written from its descriptor.

betterproto's own generator needs a formatter that we do not install, and protobuf-py's is a program apart; what they
would write is plain: a dataclass or model with a field each. protobuf-py itself makes classes of descriptors.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

__all__ = ["betterproto_class", "fastproto_class", "protobuf_py_class", "pydantic_model", "python_of"]

_TYPES = {
    FieldDescriptor.TYPE_STRING: ("string", "str"),
    FieldDescriptor.TYPE_BYTES: ("bytes", "bytes"),
    FieldDescriptor.TYPE_BOOL: ("bool", "bool"),
    FieldDescriptor.TYPE_DOUBLE: ("double", "float"),
    FieldDescriptor.TYPE_INT32: ("int32", "int"),
    FieldDescriptor.TYPE_INT64: ("int64", "int"),
    FieldDescriptor.TYPE_UINT32: ("uint32", "int"),
    FieldDescriptor.TYPE_UINT64: ("uint64", "int"),
    FieldDescriptor.TYPE_ENUM: ("enum", "int"),
    FieldDescriptor.TYPE_MESSAGE: ("message", ""),
}
_DEFAULTS = {"str": "''", "bytes": "b''", "bool": "False", "float": "0.0", "int": "0"}
_BETTERPROTO_HEAD = """\
from dataclasses import dataclass
from datetime import datetime
from typing import Dict, List, Optional
import betterproto
from betterproto.lib.google import protobuf
"""
_PYDANTIC_HEAD = """\
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any
from pydantic import BaseModel
"""
_STRUCT, _TIMESTAMP, _DURATION, _ANY = (
    f"google.protobuf.{name}" for name in ("Struct", "Timestamp", "Duration", "Any")
)


def betterproto_class(descriptor: Descriptor, folder: Path) -> Any:
    """The dataclass that betterproto's generator would write for a message."""
    return getattr(_module(descriptor, folder, "betterproto", _BETTERPROTO_HEAD, _betterproto), descriptor.name)


def pydantic_model(descriptor: Descriptor, folder: Path) -> Any:
    """The model that somebody would write for the same content, with a Struct as a dict and a time as a datetime."""
    return getattr(_module(descriptor, folder, "pydantic", _PYDANTIC_HEAD, _pydantic), descriptor.name)


def protobuf_py_class(descriptor: Descriptor) -> Any:
    """The class that protobuf-py makes of a descriptor."""
    from protobuf._codegen import file_desc

    files: dict[str, Any] = {}

    def load(file: Any) -> Any:
        if file.name not in files:
            files[file.name] = file_desc(file.serialized_pb, [load(each) for each in file.dependencies], {})
        return files[file.name]

    (found,) = (each for each in load(descriptor.file).messages if each.type_name == descriptor.full_name)
    return found.type


def fastproto_class(descriptor: Descriptor, folder: Path) -> Any:
    """The dataclass that fastproto's generator writes for a message; None where it is not installed, as on Python 3.11.

    `make bench` has it with Python 3.12 or newer; docs/performance.md says how.
    """
    if importlib.util.find_spec("fastproto") is None:
        return None
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def load(file: Any) -> None:
        if file.name not in files:
            files[file.name] = described = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
            # Services go, and with them the files that only they need: it refuses some names in those, such as `field`.
            described.ClearField("service")
            used = _used_by(list(file.message_types_by_name.values()))
            needed = [each for each in file.dependencies if each.name in used]
            for each in needed:
                load(each)
            # Modules are called as files are, and `bench` and `contextunity` are packages already.
            described.name = _below(described.name)
            described.ClearField("public_dependency")
            described.dependency[:] = [_below(each.name) for each in needed]

    load(descriptor.file)
    out = folder / "fastproto"
    out.mkdir(exist_ok=True)
    set_of_files = out / "files.binpb"
    set_of_files.write_bytes(descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString())
    plugin = Path(sys.executable).parent / "protoc-gen-fastproto"
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--descriptor_set_in={set_of_files}",
        f"--fastproto_out={out}",
    ]
    command.append(f"--plugin=protoc-gen-fastproto={plugin}")
    subprocess.run([*command, *(_below(name) for name in files if not name.startswith("google/"))], check=True)
    if str(out) not in sys.path:
        sys.path.insert(0, str(out))
    importlib.invalidate_caches()
    name = _below(descriptor.file.name).removesuffix(".proto").replace("/", ".")
    return getattr(importlib.import_module(f"{name}_pb"), descriptor.name)


def _used_by(messages: Sequence[Descriptor]) -> set[str]:
    """The names of the files whose messages and enums are in the fields of these messages."""
    used = {
        inside.file.name
        for message in messages
        for field in message.fields
        if (inside := field.message_type or field.enum_type)
    }
    return used.union(*(_used_by(message.nested_types) for message in messages))


def _below(name: str) -> str:
    return name if name.startswith("google/") else f"fastproto_peers/{name}"


def python_of(message: Any) -> Any:
    """Google's message as the plain values that a pydantic model is validated from."""
    match message.DESCRIPTOR.full_name:
        case "google.protobuf.Timestamp":
            return message.ToDatetime(tzinfo=UTC)
        case "google.protobuf.Duration":
            return message.ToTimedelta()
        case "google.protobuf.Struct":
            return json_format.MessageToDict(message)
        case _:
            pass
    plain: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            plain[field.name] = list(value) if field.is_repeated else value
        elif field.message_type.GetOptions().map_entry:
            nested = field.message_type.fields_by_name["value"].message_type is not None
            plain[field.name] = {key: python_of(entry) if nested else entry for key, entry in value.items()}
        else:
            plain[field.name] = [python_of(each) for each in value] if field.is_repeated else python_of(value)
    return plain


def _module(
    descriptor: Descriptor, folder: Path, library: str, head: str, write: Callable[[Descriptor], list[str]]
) -> ModuleType:
    name = f"bench_{library}_{descriptor.full_name.replace('.', '_')}"
    messages = _inside(descriptor)
    enums = {
        field.enum_type.full_name: field.enum_type for each in messages for field in each.fields if field.enum_type
    }
    classes = [_enum(each, library) for each in enums.values()] + [write(each) for each in messages]
    (folder / f"{name}.py").write_text("\n".join([head, *(line for lines in classes for line in lines)]) + "\n")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _inside(descriptor: Descriptor) -> list[Descriptor]:
    """The message and those inside it, the innermost first; without the well-known ones."""
    found: dict[str, Descriptor] = {}

    def visit(each: Descriptor) -> None:
        for field in each.fields:
            inner = field.message_type
            if inner is not None and inner.GetOptions().map_entry:
                inner = inner.fields_by_name["value"].message_type
            if inner is not None and inner.full_name not in found and not inner.full_name.startswith("google."):
                visit(inner)
        found[each.full_name] = each

    visit(descriptor)
    return list(found.values())


def _enum(enum: EnumDescriptor, library: str) -> list[str]:
    base = "betterproto.Enum" if library == "betterproto" else "IntEnum"
    return [f"class {enum.name}({base}):", *(f"    {value.name} = {value.number}" for value in enum.values)]


def _betterproto(descriptor: Descriptor) -> list[str]:
    lines = ["@dataclass(eq=False, repr=False)", f"class {descriptor.name}(betterproto.Message):"]
    for field in descriptor.fields:
        kind, python = _TYPES[field.type]
        entry = field.message_type if field.message_type and field.message_type.GetOptions().map_entry else None
        if entry is not None:
            key, value = (_TYPES[entry.fields_by_name[name].type] for name in ("key", "value"))
            made = f"betterproto.map_field({field.number}, betterproto.TYPE_{key[0].upper()}, "
            made += f"betterproto.TYPE_{value[0].upper()})"
            lines.append(f"    {field.name}: Dict[{key[1]}, {value[1]}] = {made}")
            continue
        if field.message_type is not None:
            python = _betterproto_type(field.message_type)
        if field.enum_type is not None:
            python = field.enum_type.name
        optional = field.has_presence and field.message_type is None
        python = f"Optional[{python}]" if optional else f"List[{python}]" if field.is_repeated else python
        made = f"betterproto.{kind}_field({field.number}{', optional=True' if optional else ''})"
        lines.append(f"    {field.name}: {python!r} = {made}")
    return lines


def _betterproto_type(message: Descriptor) -> str:
    if message.full_name == _TIMESTAMP:
        return "datetime"
    return f"protobuf.{message.name}" if message.full_name.startswith("google.") else message.name


def _pydantic(descriptor: Descriptor) -> list[str]:
    lines = [f"class {descriptor.name}(BaseModel):"]
    for field in descriptor.fields:
        python = field.enum_type.name if field.enum_type is not None else _TYPES[field.type][1]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type
            key, value = (_TYPES[entry.fields_by_name[name].type][1] for name in ("key", "value"))
            lines.append(f"    {field.name}: dict[{key}, {value}] = {{}}")
        elif field.is_repeated:
            inner = _pydantic_type(field.message_type) if field.message_type is not None else python
            lines.append(f"    {field.name}: list[{inner}] = []")
        elif field.has_presence:
            inner = _pydantic_type(field.message_type) if field.message_type is not None else python
            lines.append(f"    {field.name}: {inner} | None = None")
        else:
            lines.append(f"    {field.name}: {python} = {_DEFAULTS.get(python, f'{python}(0)')}")
    return lines


def _pydantic_type(message: Descriptor) -> str:
    known = {_TIMESTAMP: "datetime", _DURATION: "timedelta", _STRUCT: "dict[str, Any]", _ANY: "dict[str, Any]"}
    return known.get(message.full_name, message.name)
