"""gRPC reflection, v1 and v1alpha: clients try v1 first, and grpcio only has v1alpha.

Both have the same messages in different packages, so one servicer answers both. Its data is the pool of all loaded
descriptors, including google.rpc, with which clients decode the details of errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]  # there are none
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

__all__ = ["SERVICES", "handlers"]

_OLD, _NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"
SERVICES = (reflection.SERVICE_NAME, reflection.SERVICE_NAME.replace(_OLD, _NEW))
"""Full names of the two services."""

DETAILS = (status_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR)
"""Files of error details: importing them here adds them to the pool."""


def handlers(services: Sequence[str], pool: object) -> list[grpc.GenericRpcHandler]:
    """Return the handlers of both versions.

    Args:
        services: full names of the services to list in addition to these two.
        pool: a descriptor pool with their files.
    """
    servicer: Any = cast("Any", reflection_aio.ReflectionServicer)((*services, *SERVICES), pool=_Files(pool))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    (method,) = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods
    return [grpc.method_handlers_generic_handler(service, {method.name: handler}) for service in SERVICES]


class _Files:
    """A pool, and in addition the file of v1, for which no code is generated here.

    In the pool itself, it would conflict with a package that has the same file.
    """

    def __init__(self, pool: object) -> None:
        self._all: Any = pool
        self._own: Any = descriptor_pool.DescriptorPool()
        self._own.Add(_file_of_v1())

    def FindFileByName(self, name: str) -> FileDescriptor:  # noqa: N802 - as pools have it
        """Return the file with this name."""
        return cast("FileDescriptor", self._found("FindFileByName", name))

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802
        """Return the file of this message, enum, service or other symbol."""
        return cast("FileDescriptor", self._found("FindFileContainingSymbol", symbol))

    def _found(self, method: str, name: str) -> object:
        try:
            return getattr(self._all, method)(name)
        except KeyError:
            return getattr(self._own, method)(name)

    def __getattr__(self, name: str) -> Any:
        # The additional file has no extensions.
        return getattr(self._all, name)


def _file_of_v1() -> descriptor_pb2.FileDescriptorProto:
    """Return the proto file of v1: that of v1alpha in the other package."""
    made = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    made.name, made.package = "grpc/reflection/v1/reflection.proto", _NEW
    for message in made.message_type:
        for field in filter(lambda each: each.type_name, message.field):
            field.type_name = field.type_name.replace(f".{_OLD}.", f".{_NEW}.")
    for service in made.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{_OLD}.", f".{_NEW}.")
            method.output_type = method.output_type.replace(f".{_OLD}.", f".{_NEW}.")
    return made
