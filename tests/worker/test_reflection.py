"""gRPC reflection as raw clients ask for it: both versions, and what is needed to print the details of errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2

from contextunity.worker.boundary import SERVICE_NAME
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.reflection import SERVICES
from contextunity.worker.server import RunningServer
from tests.worker.service.conftest import serving

_VERSIONS = [pytest.param(name, id=name.split(".")[2]) for name in SERVICES]


async def _ask(server: RunningServer, service: str, **request: Any) -> Any:
    """What a service of reflection answers; the messages of both versions are the same bytes."""
    asked = reflection_pb2.ServerReflectionRequest(**request)
    async with grpc.aio.insecure_channel(server.target) as channel:
        call: Any = cast("Any", channel).stream_stream(
            f"/{service}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([asked]), timeout=20)
        (answer,) = [each async for each in call]
        return answer


def _pool(answer: Any) -> descriptor_pool.DescriptorPool:
    """A client's own pool, with the files of an answer."""
    pool: Any = descriptor_pool.DescriptorPool()
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(each)
        for each in answer.file_descriptor_response.file_descriptor_proto
    ]
    known = {each.name: each for each in files}

    def add(name: str) -> Iterator[str]:
        for dependency in known[name].dependency:
            yield from add(dependency)
        yield name

    for name in dict.fromkeys(each for file in files for each in add(file.name)):
        pool.Add(known[name])
    return cast("descriptor_pool.DescriptorPool", pool)


def test_the_two_versions_are_named_as_clients_know_them() -> None:
    assert SERVICES == ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")


@pytest.mark.parametrize("service", _VERSIONS)
async def test_services_are_listed_and_described(service: str) -> None:
    async with serving(WorkerRegistry()) as server:
        listed = await _ask(server, service, list_services="")
        names = [each.name for each in listed.list_services_response.service]
        assert names == sorted(["grpc.health.v1.Health", *SERVICES, SERVICE_NAME])
        for name in names:
            answer = await _ask(server, service, file_containing_symbol=name)
            found = _pool(answer).FindServiceByName(name)
            assert found.methods
            assert found.methods[0].input_type.full_name.startswith(name.rpartition(".")[0].replace(".worker", ".core"))
        by_name = await _ask(server, service, file_by_filename="grpc/reflection/v1/reflection.proto")
        assert by_name.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("service", _VERSIONS)
async def test_the_details_of_errors_can_be_read(service: str) -> None:
    async with serving(WorkerRegistry()) as server:
        for name in ("google.rpc.Status", "google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo"):
            answer = await _ask(server, service, file_containing_symbol=name)
            found = _pool(answer).FindMessageTypeByName(name)
            assert message_factory.GetMessageClass(found)().SerializeToString() == b""


@pytest.mark.parametrize("service", _VERSIONS)
async def test_what_is_not_there_is_not_found(service: str) -> None:
    async with serving(WorkerRegistry()) as server:
        for request in (
            {"file_containing_symbol": "acme.Nothing"},
            {"file_by_filename": "nothing.proto"},
            {"all_extension_numbers_of_type": "acme.Nothing"},
        ):
            answer = await _ask(server, service, **request)
            assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
