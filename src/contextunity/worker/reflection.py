"""gRPC reflection, v1 and v1alpha: clients try v1 first, and grpcio only has v1alpha.

Both have the same messages in different packages, so one servicer answers both. Its data is the pool of all loaded
descriptors, including google.rpc, with which clients decode the details of errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]  # there are none
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

from python_temporal.contract import ServiceContract

from .service.descriptors import ContractPools

__all__ = ["SERVICES", "handlers"]

_OLD, _NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"
SERVICES = (reflection.SERVICE_NAME, reflection.SERVICE_NAME.replace(_OLD, _NEW))
"""Full names of the two services."""

DETAILS = (status_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR)
"""Files of error details: importing them here adds them to the pool."""


def handlers(services: Sequence[str], contracts: Iterable[ServiceContract]) -> list[grpc.GenericRpcHandler]:
    """Return the handlers of both versions.

    Args:
        services: full names of the services to list in addition to these two.
        contracts: those of them that modules bring, with their own files.
    """
    # In the process's pool it would be in the way of a package that has the file itself.
    own: Any = descriptor_pool.DescriptorPool()
    own.Add(_file_of_v1())
    pool = ContractPools(contracts, own)
    servicer: Any = cast("Any", reflection_aio.ReflectionServicer)((*services, *SERVICES), pool=pool)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    (method,) = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods
    return [grpc.method_handlers_generic_handler(service, {method.name: handler}) for service in SERVICES]


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
