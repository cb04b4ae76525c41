"""Where a client connects to, with and without TLS; and that the two clients are twins."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity.worker import TaskState, TaskStatus
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from contextunity.worker.client import SyncTaskHandle, SyncWorkerClient, TaskHandle, WorkerClient, WorkerServiceError

from .conftest import QUICK, Script, packed, settle


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("localhost:50052", "localhost:50052"),
        ("http://localhost:50052", "localhost:50052"),
        ("https://worker.example.com:443/", "worker.example.com:443"),
        ("https://worker.example.com", "worker.example.com:443"),
        ("[::1]:50052", "[::1]:50052"),
    ],
)
def test_targets_are_addresses_with_or_without_a_scheme(target: str, address: str) -> None:
    assert SyncWorkerClient(target).target == address


@pytest.mark.parametrize(
    "target",
    [
        *("", "ftp://localhost:1", "http://", "localhost:1/path", "foo:bar", "foo", "https://foo:", "foo:", ":50052"),
        *("foo:0", "foo:65536", "foo:-1", "foo:٣", "::1", "[::1]", "foo bar:1"),
    ],
)
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match=f"^target {re.escape(repr(target))}: it is host:port"):
        WorkerClient(target)


def test_a_target_that_contradicts_tls_is_refused() -> None:
    with pytest.raises(ValueError, match="asks for no encryption, and tls for some"):
        WorkerClient("http://localhost:50052", tls=True)


@pytest.fixture
def encrypted() -> Iterator[tuple[str, bytes]]:
    """A service behind TLS, and the certificate to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a service")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    answer = packed(TaskStatus(workflow_id="w", status=TaskState.COMPLETED))
    handler: Any = grpc.method_handlers_generic_handler(
        "contextunity.worker.WorkerService",
        {"GetTaskStatus": grpc.unary_unary_rpc_method_handler(lambda data, context: answer)},
    )
    server: Any = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(private, pem)]))
    server.start()
    yield f"127.0.0.1:{port}", pem
    server.stop(None).wait()


async def test_tls_with_a_certificate_of_ones_own(connect: Any, encrypted: tuple[str, bytes]) -> None:
    target, pem = encrypted
    client = connect(f"https://{target}", tls=grpc.ssl_channel_credentials(pem))
    assert (await settle(client.task("w").status())).status is TaskState.COMPLETED


async def test_a_service_without_tls_is_told(connect: Any, script: Script) -> None:
    client = connect(f"https://{script.target}", retry=QUICK)
    told = f"UNAVAILABLE: no WorkerService can be reached at {script.target} over TLS: it is a service"
    with pytest.raises(WorkerServiceError, match=f"{told} without TLS: use http:// or no scheme") as seen:
        await settle(client.task("w").status())
    assert seen.value.unreachable
    assert not seen.value.transient


async def test_a_certificate_that_is_not_trusted_is_told(connect: Any, encrypted: tuple[str, bytes]) -> None:
    target, _ = encrypted
    told = rf"at {target} over TLS: its certificate is not trusted \(self.signed certificate\)"
    with pytest.raises(WorkerServiceError, match=told):
        await settle(connect(f"https://{target}", retry=QUICK).task("w").status())


async def test_a_closed_client_connects_anew(connect: Any, service_target: str) -> None:
    client = connect(service_target)
    for _ in range(2):
        assert (await settle(client.describe_contracts())).contracts
        await settle(client.close())


@pytest.mark.parametrize(("one", "other"), [(WorkerClient, SyncWorkerClient), (TaskHandle, SyncTaskHandle)])
def test_the_clients_are_twins(one: type, other: type) -> None:
    assert _methods(one) == _methods(other)


def _methods(cls: type) -> dict[str, Any]:
    """The parameters of each public method, and what is said of it."""
    return {
        name: (
            [(each.name, each.kind, each.default, each.annotation) for each in _parameters(member)[1:]],
            (inspect.getdoc(member) or "").replace("SyncWorkerClient", "WorkerClient"),
        )
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def _parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())
