"""TLS of the listeners: certificate, key and the certificate authority of clients, read again when their files change.

Open connections continue as they are; new ones use the current files. Invalid files are logged, and the previous ones
stay in use.
"""

from __future__ import annotations

import logging
import ssl
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from .errors import SettingsError
from .file_changes import FileChanges
from .token_keys import read_secret_file

__all__ = ["ServerTls"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Material:
    """Contents of the files, in PEM.

    Attributes:
        certificate: the chain, the service's own certificate first.
        key: its private key.
        client_ca: certificate authorities of clients; None if clients need no certificates.
    """

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class ServerTls:
    """The current certificate, key and certificate authority of clients.

    Args:
        cert_file: PEM file of the certificate and its intermediates.
        key_file: PEM file of its private key.
        client_ca_file: PEM file of the certificate authorities of clients, which then need a certificate.

    Raises:
        SettingsError: a file cannot be read or is invalid; all errors are named at once.
    """

    def __init__(self, cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
        self._cert_file, self._key_file, self._client_ca_file = cert_file, key_file, client_ca_file
        self._changes = FileChanges(*(path for path in (cert_file, key_file, client_ca_file) if path is not None))
        self._material = self._read()
        # grpcio calls this in its own threads.
        self._lock = threading.Lock()

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return credentials for grpcio's server, with TLS 1.2 or later."""
        configured = self._now()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal configured
            now = self._now()
            if now is configured:
                return None
            configured = now
            return _configuration(now)

        # grpcio's stubs do not know that None means no change.
        fetcher = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch)
        return grpc.dynamic_ssl_server_credentials(
            _configuration(configured), fetcher, require_client_authentication=self._client_ca_file is not None
        )

    def ssl_context(self) -> ssl.SSLContext:
        """Return a context for Python's servers, with the same files."""
        used = self._now()
        newest = _context(used)

        def choose(connection: ssl.SSLObject, _name: str | None, _context_before: ssl.SSLContext) -> None:
            nonlocal used, newest
            now = self._now()
            if now is not used:
                used, newest = now, _context(now)
            connection.context = newest

        first = _context(used)
        # Called at each handshake, even if the client names no server.
        first.sni_callback = choose
        return first

    def _now(self) -> _Material:
        """Read the files again if one has changed."""
        with self._lock:
            if not self._changes.found():
                return self._material
            try:
                self._material = self._read()
            except SettingsError as error:
                # For example, only half of a new pair is there.
                _LOG.error("the certificate stays as it was: %s", error)
            else:
                _LOG.info("read the certificate of the listeners again")
            return self._material

    def _read(self) -> _Material:
        violations = list[str]()
        certificates, chain = _certificates("tls_cert_file", self._cert_file, violations)
        client_ca: bytes | None = None
        if self._client_ca_file is not None:
            client_ca, _ = _certificates("tls_client_ca_file", self._client_ca_file, violations)
        key, public_key = self._read_key(violations)
        if chain and public_key is not None and _encoded(chain[0].public_key()) != public_key:
            violations.append(
                f"tls_key_file = {str(self._key_file)!r}: is not the key of the first certificate in {self._cert_file}"
            )
        if violations:
            raise SettingsError(violations)
        if chain[0].not_valid_after_utc < datetime.now(UTC):
            _LOG.warning("the certificate in %s has expired at %s", self._cert_file, chain[0].not_valid_after_utc)
        return _Material(certificate=certificates, key=key, client_ca=client_ca)

    def _read_key(self, violations: list[str]) -> tuple[bytes, bytes | None]:
        where = f"tls_key_file = {str(self._key_file)!r}"
        try:
            data = read_secret_file(self._key_file, "tls_key_file")
        except SettingsError as error:
            violations += error.faults
            return b"", None
        try:
            key: Any = serialization.load_pem_private_key(data, password=None)
            return data, _encoded(key.public_key())
        except TypeError:
            violations.append(f"{where}: is encrypted with a password; decrypt it, and let only the service read it")
        except ValueError:
            violations.append(
                f"{where}: has no private key in PEM: a block that begins with -----BEGIN PRIVATE KEY-----"
            )
        return b"", None


def _certificates(setting: str, path: Path, violations: list[str]) -> tuple[bytes, list[x509.Certificate]]:
    where = f"{setting} = {str(path)!r}"
    try:
        data = path.read_bytes()
        return data, x509.load_pem_x509_certificates(data)
    except OSError as error:
        violations.append(f"{where}: cannot be read: {(error.strerror or str(error)).lower()}")
    except ValueError:
        violations.append(f"{where}: has no certificate in PEM: a block that begins with -----BEGIN CERTIFICATE-----")
    return b"", []


def _encoded(public_key: Any) -> bytes:
    """A public key in the form in which equal ones are equal."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = public_key.public_bytes(encoding, form)
    return encoded


def _configuration(material: _Material) -> grpc.ServerCertificateConfiguration:
    pairs = [(material.key, material.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, root_certificates=material.client_ca)


def _context(material: _Material) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if material.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=material.client_ca.decode("ascii", "ignore"))
    # Python takes both from a file alone; by their names they may be others' by now.
    with tempfile.NamedTemporaryFile(prefix="contextworker-", suffix=".pem") as both:
        both.write(material.key + b"\n" + material.certificate)
        both.flush()
        context.load_cert_chain(both.name)
    return context
