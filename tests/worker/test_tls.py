"""TLS of the listeners: who can connect with what, and that new files are seen without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import urllib.request
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from temporalio.client import Client

from contextunity.worker.auth import authenticator_for
from contextunity.worker.cli.main import main
from contextunity.worker.client import RetryPolicy, WorkerClient, WorkerServiceError
from contextunity.worker.errors import SettingsError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.server import RunningServer, open_tls, running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings, load_settings
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_NAME = "worker.example"
_HEADER = {"content-type": "application/json"}


class _Authority:
    """Issues certificates."""

    def __init__(self, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, password: str = "") -> tuple[bytes, bytes]:
        """A certificate for a name and this machine, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))])
        certificate = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, names)
        return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption(),
        )

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
        )


class _Files:
    """The files of a service in a folder."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key, self.client_ca = folder / "cert.pem", folder / "key.pem", folder / "clients.pem"

    def write(self, authority: _Authority) -> None:
        certificate, key = authority.issue(_NAME)
        self.cert.write_bytes(certificate)
        self.key.write_bytes(key)
        self.key.chmod(0o600)

    def settings(self, *, mutual: bool = False, **settings: Any) -> Settings:
        client_ca = self.client_ca if mutual else None
        made = {"host": "127.0.0.1", "port": 0, "http_port": 0, "tls_cert_file": self.cert, "tls_key_file": self.key}
        return Settings.model_validate({**made, "tls_client_ca_file": client_ca, **settings})


@pytest.fixture
def files(tmp_path: Path) -> _Files:
    return _Files(tmp_path)


@contextlib.asynccontextmanager
async def _serving(settings: Settings) -> AsyncGenerator[RunningServer]:
    """A service; what is called here needs no Temporal, and nothing listens where it would be."""
    client = await Client.connect("127.0.0.1:1", lazy=True, plugins=[ContextWorkerPlugin()])
    service = WorkerService(client, WorkerRegistry())
    async with running_server(service, settings, authenticator_for(settings)) as server:
        yield server


async def _call(server: RunningServer, credentials: grpc.ChannelCredentials | bool, name: str = "") -> str:
    """The outcome of a call on a connection of its own: OK, or its status."""
    # Of channels with equal options gRPC makes one connection.
    retry = RetryPolicy(attempts=1)
    async with WorkerClient(server.target, tls=credentials, server_name=name, retry=retry, timeout=20) as client:
        try:
            await client.describe_contracts()
        except WorkerServiceError as error:
            return error.code.name
    return "OK"


def _fetch(server: RunningServer, context: ssl.SSLContext) -> int:
    path = "contextunity.worker.WorkerService/DescribeContracts"
    request = urllib.request.Request(f"https://{server.http_target}/{path}", b"{}", _HEADER)
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        return int(answer.status)


def _trusting(authority: _Authority, certificate: tuple[bytes, bytes] | None = None) -> grpc.ChannelCredentials:
    chain, key = certificate or (None, None)
    return grpc.ssl_channel_credentials(authority.pem, key, chain)


def _python_trusting(authority: _Authority, folder: Path, certificate: tuple[bytes, bytes] | None = None) -> Any:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    # OpenSSL asks for extensions that an authority of a test need not have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if certificate is not None:
        both = folder / "client.pem"
        both.write_bytes(certificate[1] + certificate[0])
        context.load_cert_chain(both)
    return context


async def test_both_listeners_are_encrypted(files: _Files, tmp_path: Path) -> None:
    authority, other = _Authority("one"), _Authority("other")
    files.write(authority)
    async with _serving(files.settings()) as server:
        assert await _call(server, _trusting(authority)) == "OK"
        assert await _call(server, _trusting(authority), _NAME) == "OK"
        assert await _call(server, _trusting(authority), "another.example") == "UNAVAILABLE"
        assert await _call(server, _trusting(other)) == "UNAVAILABLE"
        assert await _call(server, False) == "UNAVAILABLE"
        assert await asyncio.to_thread(_fetch, server, _python_trusting(authority, tmp_path)) == 200
        for target in (server.target, server.http_target):
            host, _, port = target.rpartition(":")
            context = _python_trusting(authority, tmp_path)
            context.set_alpn_protocols(["h2", "http/1.1"])
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            _, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.close()
            # So that it is the service, and not this side, that refuses.
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.deprecated_call():
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            # Some tell why with an alert, and gRPC just ends the connection.
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await asyncio.open_connection(host, int(port), ssl=context)


async def test_with_an_authority_of_clients_nobody_connects_without_a_certificate(
    files: _Files, tmp_path: Path
) -> None:
    authority, clients = _Authority("servers"), _Authority("clients")
    files.write(authority)
    files.client_ca.write_bytes(clients.pem)
    async with _serving(files.settings(mutual=True)) as server:
        assert await _call(server, _trusting(authority)) == "UNAVAILABLE"
        assert await _call(server, _trusting(authority, authority.issue("of another"))) == "UNAVAILABLE"
        mine = clients.issue("a client")
        assert await _call(server, _trusting(authority, mine)) == "OK"
        for credentials, served in ((_trusting(authority), False), (_trusting(authority, mine), True)):
            async with grpc.aio.secure_channel(server.target, credentials) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                if served:
                    await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
                else:
                    with pytest.raises(grpc.RpcError):
                        await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert await asyncio.to_thread(_fetch, server, _python_trusting(authority, tmp_path, mine)) == 200
        with pytest.raises((OSError, ssl.SSLError)):
            await asyncio.to_thread(_fetch, server, _python_trusting(authority, tmp_path))


async def test_new_connections_see_new_files_and_others_go_on(files: _Files, tmp_path: Path) -> None:
    old, new = _Authority("old"), _Authority("new")
    old_clients, new_clients = _Authority("old clients"), _Authority("new clients")
    files.write(old)
    files.client_ca.write_bytes(old_clients.pem)
    before, after = old_clients.issue("a client"), new_clients.issue("a client")
    async with (
        _serving(files.settings(mutual=True)) as server,
        WorkerClient(server.target, tls=_trusting(old, before)) as lasting,
    ):
        await lasting.describe_contracts()
        assert await asyncio.to_thread(_fetch, server, _python_trusting(old, tmp_path, before)) == 200
        files.write(new)
        files.client_ca.write_bytes(new_clients.pem)
        assert await _call(server, _trusting(new, after)) == "OK"
        assert await _call(server, _trusting(old, after)) == "UNAVAILABLE"
        assert await _call(server, _trusting(new, before)) == "UNAVAILABLE"
        assert await asyncio.to_thread(_fetch, server, _python_trusting(new, tmp_path, after)) == 200
        with pytest.raises((OSError, ssl.SSLError)):
            await asyncio.to_thread(_fetch, server, _python_trusting(new, tmp_path, before))
        await lasting.describe_contracts()


async def test_half_of_a_new_pair_changes_nothing(files: _Files, caplog: pytest.LogCaptureFixture) -> None:
    old, new = _Authority("old"), _Authority("new")
    files.write(old)
    async with _serving(files.settings()) as server:
        certificate, key = new.issue(_NAME)
        files.cert.write_bytes(certificate)
        for _ in range(2):
            assert await _call(server, _trusting(old)) == "OK"
        told = [record.message for record in caplog.records if "the certificate stays as it was" in record.message]
        assert len(told) == 1
        assert "is not the key of the first certificate" in told[0]
        files.key.write_bytes(key)
        assert await _call(server, _trusting(new)) == "OK"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("cert", None, "tls_cert_file = {path!r}: cannot be read: no such file or directory"),
        ("cert", b"text", "tls_cert_file = {path!r}: has no certificate in PEM"),
        ("key", b"text", "tls_key_file = {path!r}: has no private key in PEM"),
        (
            "key",
            _Authority("another").issue("x")[1],
            "tls_key_file = {path!r}: is not the key of the first certificate",
        ),
        ("key", _Authority("another").issue("x", "pw")[1], "tls_key_file = {path!r}: is encrypted with a password"),
        ("key", None, "tls_key_file: {path}: cannot be read: no such file or directory"),
        ("client_ca", b"", "tls_client_ca_file = {path!r}: has no certificate in PEM"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_one_line(files: _Files, name: str, content: bytes | None, told: str) -> None:
    authority = _Authority("one")
    files.write(authority)
    files.client_ca.write_bytes(authority.pem)
    path: Path = getattr(files, name)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        open_tls(files.settings(mutual=True))
    (fault,) = caught.value.faults
    assert fault.startswith(told.format(path=str(path)))
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"CONTEXTWORKER_TLS_CERT_FILE": "c"}, "tls_cert_file and tls_key_file go together"),
        ({"CONTEXTWORKER_TLS_CLIENT_CA_FILE": "c"}, "tls_client_ca_file needs TLS"),
        (
            {"CONTEXTWORKER_REQUIRE_TLS": "true", "CONTEXTWORKER_AUTH": "token"},
            "require_tls is set, and the service would listen on 0.0.0.0 in plaintext",
        ),
        ({"GRPC_TLS_ENABLED": "1", "GRPC_TLS_SERVER_CERT": "c"}, "GRPC_TLS_ENABLED is set, but GRPC_TLS_SERVER_KEY"),
        (
            {
                "GRPC_TLS_ENABLED": "1",
                "GRPC_TLS_SERVER_CERT": "c",
                "GRPC_TLS_SERVER_KEY": "k",
                "GRPC_TLS_REQUIRE_CLIENT_AUTH": "true",
            },
            "GRPC_TLS_REQUIRE_CLIENT_AUTH is set, but GRPC_TLS_CA_CERT names no file",
        ),
    ],
)
def test_settings_that_would_expose_something_stop_the_start(
    tmp_path: Path, environ: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, tmp_path)
    assert [fault for fault in caught.value.faults if fault.startswith(told)], caught.value.faults


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"GRPC_TLS_ENABLED": "true"}, ("c", "k", None)),
        ({"GRPC_TLS_ENABLED": "true", "GRPC_TLS_CA_CERT": "a"}, ("c", "k", "a")),
        (
            {"GRPC_TLS_ENABLED": "true", "GRPC_TLS_CA_CERT": "a", "GRPC_TLS_REQUIRE_CLIENT_AUTH": "false"},
            ("c", "k", None),
        ),
        ({"GRPC_TLS_ENABLED": "true", "CONTEXTWORKER_TLS_CERT_FILE": "mine"}, ("mine", "k", None)),
        ({"GRPC_TLS_ENABLED": "false", "GRPC_TLS_CA_CERT": "a"}, (None, None, None)),
        ({}, (None, None, None)),
    ],
)
def test_the_names_of_the_deployed_system_are_taken(
    tmp_path: Path, environ: dict[str, str], names: tuple[str | None, ...]
) -> None:
    settings = load_settings({"GRPC_TLS_SERVER_CERT": "c", "GRPC_TLS_SERVER_KEY": "k", **environ}, tmp_path)
    found = (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    assert tuple(None if path is None else str(path) for path in found) == names


async def test_plaintext_beyond_this_machine_is_warned_of(files: _Files, caplog: pytest.LogCaptureFixture) -> None:
    files.write(_Authority("one"))
    anywhere = {"host": "0.0.0.0", "allow_unauthenticated": True, "http_port": None}
    async with _serving(files.settings(**anywhere)):
        assert "plaintext" not in caplog.text
    async with _serving(files.settings(**anywhere, tls_cert_file=None, tls_key_file=None)):
        assert "0.0.0.0:0 is served in plaintext" in caplog.text


async def test_the_command_line_shows_a_certificate(
    files: _Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = _Authority("one")
    files.write(authority)
    files.client_ca.write_bytes(authority.pem)
    certificate, key = authority.issue("a client")
    (tmp_path / "client-cert.pem").write_bytes(certificate)
    (tmp_path / "client-key.pem").write_bytes(key)
    mine = ("--client-cert-file", str(tmp_path / "client-cert.pem"))
    async with _serving(files.settings(mutual=True)) as server:
        asked = ("contracts", "--json", "--target", server.target, "--ca-file", str(files.client_ca), *mine)
        named = ("--client-key-file", str(tmp_path / "client-key.pem"), "--server-name", _NAME)
        assert await asyncio.to_thread(main, [*asked, *named]) == 0, capsys.readouterr()
        assert await asyncio.to_thread(main, asked) == 2
        assert "--client-cert-file and --client-key-file go together" in capsys.readouterr().err
        wrong = ("--client-key-file", str(tmp_path / "client-cert.pem"))
        assert await asyncio.to_thread(main, [*asked, *wrong]) == 2
        assert "has no private key in PEM" in capsys.readouterr().err
