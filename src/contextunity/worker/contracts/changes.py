"""List every change between two versions of a contract, breaking or not, for a changelog."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from .schema import Schema, enum_name, plain_text

__all__ = ["ContractChange", "changes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContractChange:
    """A change of one declaration.

    Attributes:
        action: added, removed or changed.
        kind: message, field, oneof, enum, enum value, service, method or file.
        path: full name of the declaration.
        details: for a changed declaration, each changed option with its old and new value.
    """

    action: str
    kind: str
    path: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.action} {self.kind} {self.path}"
        return f"{text}: {'; '.join(self.details)}" if self.details else text


_KINDS = {
    "DescriptorProto": "message",
    "FieldDescriptorProto": "field",
    "OneofDescriptorProto": "oneof",
    "EnumDescriptorProto": "enum",
    "EnumValueDescriptorProto": "enum value",
    "ServiceDescriptorProto": "service",
    "MethodDescriptorProto": "method",
}
_PARTS = {"field", "oneof", "enum value", "method"}


def changes(old: Schema, new: Schema) -> list[ContractChange]:
    """List added, removed and changed declarations in file order, without parts of an added or removed one."""
    found: list[ContractChange] = []
    others = old.imported | new.imported
    before, after = _declarations(old, others), _declarations(new, others)
    for path, (kind, texts) in after.items():
        if path not in before:
            if not _within(path, after, before):
                found.append(ContractChange(action="added", kind=kind, path=path))
            continue
        was = before[path][1]
        details = [
            f"{name} {was.get(name, 'none')} → {texts.get(name, 'none')}"
            for name in dict.fromkeys((*was, *texts))
            if was.get(name) != texts.get(name)
        ]
        if details:
            found.append(ContractChange(action="changed", kind=kind, path=path, details=tuple(details)))
    for path, (kind, _) in before.items():
        if path not in after and not _within(path, before, after):
            found.append(ContractChange(action="removed", kind=kind, path=path))
    return found


_Declarations = dict[str, tuple[str, dict[str, str]]]


def _within(path: str, here: _Declarations, there: _Declarations) -> bool:
    """Whether a declaration is part of another one that the other version lacks too."""
    around = path.rpartition(".")[0]
    return around in here and around not in there


def _declarations(schema: Schema, others: Collection[str]) -> _Declarations:
    found: _Declarations = {}
    for path, (file, _, proto) in schema.declarations.items():
        kind = _KINDS[proto.DESCRIPTOR.name]
        if file in others or (kind == "message" and proto.options.map_entry):
            continue
        if kind in _PARTS and path.rpartition(".")[0] not in found:
            continue  # The key or the value of a map.
        found[path] = (kind, dict(_texts(proto)))
    return found


def _texts(proto: Any) -> Iterator[tuple[str, str]]:
    """Yield the properties of a declaration, without its parts, as name and text."""
    match _KINDS[proto.DESCRIPTOR.name]:
        case "field":
            yield "number", str(proto.number)
            yield "type", _type(proto)
            yield "name in JSON", proto.json_name
        case "enum value":
            yield "number", str(proto.number)
        case "method":
            yield "input", f"{'stream ' if proto.client_streaming else ''}{proto.input_type.removeprefix('.')}"
            yield "output", f"{'stream ' if proto.server_streaming else ''}{proto.output_type.removeprefix('.')}"
        case _:
            pass
    yield from _options(proto.options, "")


def _type(proto: Any) -> str:
    kind = enum_name(proto, "type").removeprefix("TYPE_").lower()
    label = enum_name(proto, "label").removeprefix("LABEL_").lower()
    text = str(proto.type_name).removeprefix(".") or kind
    if label == "optional" and not proto.proto3_optional:
        return text
    return f"{label} {text}"


def _options(message: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        name = f"({field.full_name})" if field.is_extension else field.name
        path = f"{prefix}.{name}" if prefix else name
        if field.is_repeated:
            yield path, "[" + ", ".join(_text(field, each) for each in value) + "]"
        elif field.message_type is not None and not field.message_type.full_name.startswith("google.protobuf."):
            # The presence of an empty message is information.
            if not value.ListFields():
                yield path, "{}"
            yield from _options(value, path)
        else:
            yield path, _text(field, value)


def _text(field: Any, value: Any) -> str:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(known.name if known is not None else value)
    if field.message_type is not None:
        if field.message_type.full_name in ("google.protobuf.Duration", "google.protobuf.Timestamp"):
            return f"{value.seconds + value.nanos / 1e9:g}s"
        return "{" + plain_text(str(value)) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)
