"""The protos for callers: the services and messages that they need, without annotations, rules and internals.

An implementer's files import the annotations of `temporal.v1` and the rules of `buf.validate`, for which each language
would need generated code; a caller needs neither. What is written has the comments of the authors, and Google's error
details, which every refusal carries.
"""

from __future__ import annotations

import base64
import bz2
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contextunity.gen.contextunity.worker import options_pb2, package_descriptors
from google.protobuf import descriptor_pb2

from .errors import WorkerError
from .modules.registry import WorkerRegistry
from .proto_text import Symbols, print_file
from .protos import package_folder
from .service.descriptors import whole_descriptors

__all__ = ["export_client"]

_SERVICE = "contextunity.worker.WorkerService"
_BODIES = (
    "contextunity/worker/code.proto",
    "contextunity/worker/schedules.proto",
    "contextunity/worker/tasks.proto",
)
"""Files whose messages travel in the body of a unit, so that no method names them."""
_DETAILS = ("google/rpc/error_details.proto", "google/rpc/status.proto")
_BUF_YAML = "buf.yaml"
_MARK = "# Written by `contextworker protos --client`, with the protos beside it.\n"
_BUF_TEXT = f"""\
{_MARK}version: v2
lint:
  use:
    - STANDARD
  except:
    # Results, progress and what a query asks for are named for what they hold, and some methods share them.
    - RPC_REQUEST_RESPONSE_UNIQUE
    - RPC_REQUEST_STANDARD_NAME
    - RPC_RESPONSE_STANDARD_NAME
  ignore:
    # As Google publishes them.
    - google
  ignore_only:
    # Deployed clients send these two packages, and the values of the envelope's enum, by exactly these names.
    PACKAGE_VERSION_SUFFIX:
      - contextunity/core
      - contextunity/worker
    ENUM_VALUE_PREFIX:
      - contextunity/core/context_unit.proto
    ENUM_ZERO_VALUE_SUFFIX:
      - contextunity/core/context_unit.proto
    # It hands on the envelope, so that clients find it beside the service.
    IMPORT_NO_PUBLIC:
      - contextunity/worker/worker.proto
"""


def export_client(folder: Path, registry: WorkerRegistry) -> list[str]:
    """Writes what callers of WorkerService and of all registered contracts generate their code from.

    Args:
        folder: becomes a module of buf, with a buf.yaml; files of these names in it are replaced, others stay.
        registry: the modules.

    Returns:
        Names of the files, relative to the folder, sorted.

    Raises:
        WorkerError: the folder has a buf.yaml of somebody else's, or a proto cannot be written.
    """
    target = folder / _BUF_YAML
    if target.exists() and not target.read_text(encoding="utf-8").startswith(_MARK):
        raise WorkerError(f"{target} is not from this command; name a folder of the protos' own")
    texts = {**_texts(registry), **_error_details(), _BUF_YAML: _BUF_TEXT}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return sorted(texts)


def _texts(registry: WorkerRegistry) -> dict[str, str]:
    files = _files(registry)
    selection = _Selection(files, _methods(registry, files))
    symbols = Symbols(list(files.values()))
    return {name: print_file(file, selection, symbols) for name, file in files.items() if selection.needs(file)}


def _files(registry: WorkerRegistry) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    own = bz2.decompress(base64.b64decode(package_descriptors.FILE_DESCRIPTOR_SET))
    contracts = [each for each in registry.workflows.values() if not each.internal]
    found = dict[str, descriptor_pb2.FileDescriptorProto]()
    for data in (own, whole_descriptors(contracts)):
        for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
            found.setdefault(file.name, file)
    return found


def _methods(registry: WorkerRegistry, files: Mapping[str, descriptor_pb2.FileDescriptorProto]) -> set[str]:
    """Full names of the methods that callers may call: all of ours, and what contracts have but their activities."""
    found = {
        f"{_SERVICE}.{method.name}"
        for file in files.values()
        for service in file.service
        if f"{file.package}.{service.name}" == _SERVICE
        for method in service.method
    }
    for module in registry.modules.values():
        for service in module.contracts:
            for handlers in (service.workflows, service.queries, service.signals, service.updates):
                found.update(f"{service.full_name}.{name}" for name, each in handlers.items() if not each.internal)
    return found


def _error_details() -> dict[str, str]:
    folder = package_folder("google.rpc")
    texts = dict[str, str]()
    for name in _DETAILS:
        path = folder / Path(name).name
        if not path.is_file():
            raise WorkerError(f"{name} is not in {folder}; install googleapis-common-protos again")
        texts[name] = path.read_text(encoding="utf-8")
    return texts


def _types(file: descriptor_pb2.FileDescriptorProto) -> list[Any]:
    return [*file.message_type, *file.enum_type]


class _Selection:
    """What callers need: some methods, the bodies of units, and what these are made of."""

    def __init__(self, files: Mapping[str, descriptor_pb2.FileDescriptorProto], methods: set[str]) -> None:
        self._files = files
        self._file_of = dict[str, str]()
        self._top = dict[str, str]()
        self._elements = dict[str, Any]()
        for file in files.values():
            for element in _types(file):
                self._add(file, f".{file.package}.{element.name}" if file.package else f".{element.name}", element)
        self._kept = set[str](methods)
        asked = list[str]()
        for file in files.values():
            for service in file.service:
                name = f"{file.package}.{service.name}" if file.package else service.name
                called = [method for method in service.method if f"{name}.{method.name}" in methods]
                if called:
                    self._kept.add(name)
                asked += [each for method in called for each in (method.input_type, method.output_type)]
            if file.name in _BODIES:
                asked += [f".{file.package}.{message.name}" for message in file.message_type]
        self._follow(asked)

    def _add(self, file: descriptor_pb2.FileDescriptorProto, top: str, element: Any) -> None:
        self._elements[top] = element
        pending: list[tuple[str, Any]] = [(top, element)]
        while pending:
            name, each = pending.pop()
            self._top[name], self._file_of[name] = top, file.name
            if isinstance(each, descriptor_pb2.DescriptorProto):
                pending += [(f"{name}.{enum.name}", enum) for enum in each.enum_type]
                pending += [(f"{name}.{nested.name}", nested) for nested in each.nested_type]

    def _follow(self, pending: list[str]) -> None:
        while pending:
            top = self._top[pending.pop()]
            if top[1:] not in self._kept:
                self._kept.add(top[1:])
                pending += self._types_of(self._elements[top])

    def _types_of(self, element: Any) -> Iterator[str]:
        """The types that a message is made of."""
        if isinstance(element, descriptor_pb2.DescriptorProto):
            yield from (field.type_name for field in element.field if field.type_name and not self.hides(field))
            for nested in element.nested_type:
                yield from self._types_of(nested)

    def keeps(self, full_name: str) -> bool:
        """See `Selection`."""
        return full_name in self._kept

    def hides(self, field: descriptor_pb2.FieldDescriptorProto) -> bool:
        """See `Selection`; internal fields are not for callers."""
        return bool(field.options.Extensions[options_pb2.internal])

    def needs(self, file: descriptor_pb2.FileDescriptorProto) -> bool:
        """Whether anything of a file is kept; what compilers bring along is never written."""
        if file.name.startswith("google/protobuf/") or file.name in _DETAILS:
            return False
        prefix = f"{file.package}." if file.package else ""
        return any(f"{prefix}{each.name}" in self._kept for each in (*_types(file), *file.service))

    def imports(self, file: descriptor_pb2.FileDescriptorProto) -> Sequence[str]:
        """See `Selection`."""
        used = {self._file_of[name] for name in self._used(file)}
        public = {file.dependency[index] for index in file.public_dependency}
        return [
            name
            for name in file.dependency
            if used & self._provided(name) or (name in public and self.needs(self._files[name]))
        ]

    def _used(self, file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
        prefix = f"{file.package}." if file.package else ""
        for service in file.service:
            for method in service.method:
                if f"{prefix}{service.name}.{method.name}" in self._kept:
                    yield from (method.input_type, method.output_type)
        for message in file.message_type:
            if f"{prefix}{message.name}" in self._kept:
                yield from self._types_of(message)

    @functools.cached_property
    def _public(self) -> Mapping[str, Iterable[str]]:
        return {
            name: [file.dependency[index] for index in file.public_dependency] for name, file in self._files.items()
        }

    def _provided(self, name: str) -> set[str]:
        """The files whose types an import makes known."""
        found, pending = set[str](), [name]
        while pending:
            each = pending.pop()
            if each not in found:
                found.add(each)
                pending += self._public[each]
        return found
