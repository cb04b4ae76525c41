"""Descriptors of contracts: the minimum for decoding messages, or whole proto files."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool

from contextunity.core import codec
from python_temporal.contract import MethodContract, ServiceContract, WorkflowContract, file_descriptor_set

__all__ = ["ContractPools", "bound", "comments_of", "comments_of_service", "descriptors", "whole_descriptors"]

_MESSAGES, _NESTED, _FIELDS = 4, 3, 2
"""Numbers of these fields in FileDescriptorProto and DescriptorProto; the paths of comments consist of them."""


def bound(contract: WorkflowContract) -> Iterator[MethodContract]:
    """Return the queries, signals and updates of a workflow."""
    for bindings in (contract.queries, contract.signals, contract.updates):
        for binding in bindings.values():
            yield binding.contract


def descriptors(contracts: Iterable[WorkflowContract]) -> bytes:
    """Return a serialized FileDescriptorSet of all messages of the contracts, each file after its imports."""
    return _serialize(_files_of_messages(contracts, {}))


def whole_descriptors(contracts: Iterable[WorkflowContract]) -> bytes:
    """Return the same with the original files, including annotations, comments and services.

    If the packages of several contracts have the same file, the first is used. For packages without
    descriptors, the result is that of `descriptors`.
    """
    contracts = list(contracts)
    services = {each.service.source: each.service for contract in contracts for each in (contract, *bound(contract))}
    found = dict[str, bytes]()
    for service in services.values():
        for name, file in _whole_files(service).items():
            found.setdefault(name, file)
    return _serialize(_files_of_messages(contracts, found))


def comments_of(contract: WorkflowContract) -> Mapping[str, str]:
    """Return the comments of messages and fields in a contract's protos, by full name."""
    found = dict[str, str]()
    for each in (contract, *bound(contract)):
        found |= comments_of_service(each.service)
    return found


class ContractPools:
    """A descriptor pool for reflection, made from the files of each service and the process's own pool.

    Modules may have several versions of the same file, which do not fit into one pool. Files are decoded on
    demand.

    Args:
        services: the services.
        last: a pool with further files, for what no other has.
    """

    def __init__(self, services: Iterable[ServiceContract], last: object) -> None:
        self._services, self._last = tuple(services), last

    @functools.cached_property
    def _pools(self) -> Sequence[Any]:
        return [*(_pool(each) for each in self._services), descriptor_pool.Default(), self._last]

    def FindFileByName(self, name: str) -> Any:  # noqa: N802 - as pools have it
        """Return the file with a name."""
        return self._first(lambda pool: pool.FindFileByName(name))

    def FindFileContainingSymbol(self, name: str) -> Any:  # noqa: N802
        """Return the file of a message, service, method or extension."""
        try:
            return self._first(lambda pool: pool.FindFileContainingSymbol(name))
        except KeyError:
            # Google's pools find files by service, but not by method.
            return self._first(lambda pool: pool.FindMethodByName(name)).containing_service.file

    def FindMessageTypeByName(self, name: str) -> Any:  # noqa: N802
        """Return a message."""
        return self._first(lambda pool: pool.FindMessageTypeByName(name))

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:  # noqa: N802
        """Return an extension of a message."""
        return self._first(
            lambda pool: pool.FindExtensionByNumber(pool.FindMessageTypeByName(message.full_name), number)
        )

    def FindAllExtensions(self, message: Any) -> list[Any]:  # noqa: N802
        """Return all extensions of a message."""
        return list(message.file.pool.FindAllExtensions(message))

    def _first(self, find: Callable[[Any], Any]) -> Any:
        for pool in self._pools[:-1]:
            with contextlib.suppress(KeyError):
                return find(pool)
        return find(self._pools[-1])


def _pool(service: ServiceContract) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in _whole_files(service).values():
        pool.AddSerializedFile(file)
    return pool


def _files_of_messages(contracts: Iterable[WorkflowContract], found: dict[str, bytes]) -> dict[str, bytes]:
    for contract in contracts:
        for method in (contract, *bound(contract)):
            for message_class in (method.input_type, method.output_type):
                if message_class is not None:
                    _visit(codec.proto_class(message_class).DESCRIPTOR.file, found)
    return found


def _visit(file: Any, found: dict[str, bytes]) -> None:
    if file.name in found:
        return
    for dependency in file.dependencies:
        _visit(dependency, found)
    found[file.name] = file.serialized_pb


def _serialize(files: Mapping[str, bytes]) -> bytes:
    made = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        made.file.add().ParseFromString(file)
    return made.SerializeToString()


@functools.cache  # Decoding them takes about ten milliseconds.
def _whole_files(service: ServiceContract) -> dict[str, bytes]:
    files = descriptor_pb2.FileDescriptorSet.FromString(file_descriptor_set(service)).file
    return {file.name: file.SerializeToString() for file in files}


@functools.cache
def comments_of_service(service: ServiceContract) -> Mapping[str, str]:
    """Return the comments of messages and fields in a service's proto and its imports, by full name."""
    found = dict[str, str]()
    for file in descriptor_pb2.FileDescriptorSet.FromString(file_descriptor_set(service)).file:
        for location in file.source_code_info.location:
            name = _name_at(file, tuple(location.path))
            if name:
                found[name] = _text(location.leading_comments or location.trailing_comments)
    return found


def _name_at(file: Any, path: tuple[int, ...]) -> str:
    """Return the full name of the message or field at a path; empty for everything else."""
    names: list[str] = [file.package] if file.package else []
    children: dict[int, Any] = {_MESSAGES: file.message_type}
    for kind, index in zip(path[::2], path[1::2], strict=False):
        if kind not in children or len(path) % 2:
            return ""
        found = children[kind][index]
        names.append(found.name)
        # Comments below a field, such as on its name or options, are not used.
        children = {} if kind == _FIELDS else {_NESTED: found.nested_type, _FIELDS: found.field}
    return ".".join(names)


def _text(comment: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in comment.split("\n")).strip("\n")
