"""The descriptors of contracts: what messages need to be read, or the whole files as their authors wrote them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import descriptor_pb2

from contextunity.core import codec
from python_temporal.contract import MethodContract, ServiceContract, WorkflowContract, file_descriptor_set

__all__ = ["bound", "comments_of", "descriptors", "whole_descriptors"]

_MESSAGES, _NESTED, _FIELDS = 4, 3, 2
"""Numbers of these fields in FileDescriptorProto and DescriptorProto; the places of comments are made of them."""


def bound(contract: WorkflowContract) -> Iterator[MethodContract]:
    """The queries, signals and updates of a workflow."""
    for bindings in (contract.queries, contract.signals, contract.updates):
        for binding in bindings.values():
            yield binding.contract


def descriptors(contracts: Iterable[WorkflowContract]) -> bytes:
    """A serialized FileDescriptorSet of all messages of the contracts, files after those that they import."""
    return _serialize(_files_of_messages(contracts, {}))


def whole_descriptors(contracts: Iterable[WorkflowContract]) -> bytes:
    """The same with the files as their authors wrote them: annotations, comments and services included.

    A file that is in the packages of several contracts is taken from the first. What was generated without its
    descriptors is as `descriptors` has it.
    """
    contracts = list(contracts)
    services = {each.service.source: each.service for contract in contracts for each in (contract, *bound(contract))}
    found = dict[str, bytes]()
    for service in services.values():
        for name, file in _whole_files(service).items():
            found.setdefault(name, file)
    return _serialize(_files_of_messages(contracts, found))


def comments_of(contract: WorkflowContract) -> Mapping[str, str]:
    """What the protos of a contract say about messages and fields, by their full names."""
    found = dict[str, str]()
    for each in (contract, *bound(contract)):
        found |= _comments(each.service)
    return found


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


@functools.cache  # Unpacking them takes some ten milliseconds.
def _whole_files(service: ServiceContract) -> dict[str, bytes]:
    files = descriptor_pb2.FileDescriptorSet.FromString(file_descriptor_set(service)).file
    return {file.name: file.SerializeToString() for file in files}


@functools.cache
def _comments(service: ServiceContract) -> Mapping[str, str]:
    found = dict[str, str]()
    for file in descriptor_pb2.FileDescriptorSet.FromString(file_descriptor_set(service)).file:
        for location in file.source_code_info.location:
            name = _name_at(file, tuple(location.path))
            if name:
                found[name] = _text(location.leading_comments or location.trailing_comments)
    return found


def _name_at(file: Any, path: tuple[int, ...]) -> str:
    """Full name of the message or field at a place; empty for everything else."""
    names: list[str] = [file.package] if file.package else []
    children: dict[int, Any] = {_MESSAGES: file.message_type}
    for kind, index in zip(path[::2], path[1::2], strict=False):
        if kind not in children or len(path) % 2:
            return ""
        found = children[kind][index]
        names.append(found.name)
        # What is below a field, such as its name and its options, has no comment of its own that anybody reads.
        children = {} if kind == _FIELDS else {_NESTED: found.nested_type, _FIELDS: found.field}
    return ".".join(names)


def _text(comment: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in comment.split("\n")).strip("\n")
