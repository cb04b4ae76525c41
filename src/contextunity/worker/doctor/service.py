"""Checks of the running service: health, encryption, certificate, clock, and its contracts against this build."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import grpc
from contextunity.gen.contextunity.worker import DescribeContractsRequest, DescribeContractsResult
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contextunity.core import codec

from ..boundary import SERVICE_NAME
from ..client import WorkerServiceError
from ..client.methods import DESCRIBE_CONTRACTS
from ..modules.registry import WorkerRegistry
from ..service.contracts import describe_contracts
from ..settings import is_loopback
from .findings import Finding, Status, fail, ok, skip, warn
from .run import Machine, Service, in_thread
from .temporal import clock_finding

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["check_certificate", "check_contracts", "check_service", "check_tls_cert_file"]

_SOON = timedelta(days=14)
"""Time before the end of a certificate from which there is a warning."""
_SHOWN_DIFFERENCES = 5
_START = "start one with contextworker, or name another with --target HOST:PORT or CONTEXTWORKER_TARGET"


def check_service(machine: Machine) -> list[Finding]:
    """Check that the service answers health checks, and is SERVING."""
    service = machine.service
    if isinstance(service, str):
        return [fail("service.health", service, fix=_START)]
    with service.open_channel() as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=machine.patience)
        except grpc.RpcError as error:
            return [_no_health(service, error)]
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        fix = "it cannot reach Temporal; run contextworker doctor on its machine, and see its log"
        return [fail("service.health", f"{service.target} is {status}", fix=fix), _encryption(service)]
    return [ok("service.health", f"{service.target} is SERVING"), _encryption(service)]


def _no_health(service: Service, error: Any) -> Finding:
    code, details = cast("grpc.StatusCode", error.code()), str(error.details() or "")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        if not service.is_named:
            why = f"no service at {service.target}, and neither --target nor CONTEXTWORKER_TARGET names one"
            return skip("service.health", why)
        return fail("service.health", f"{service.target} does not answer", details, fix=_START)
    value = f"{service.target} is no WorkerService: {code.name}"
    return fail("service.health", value, details, fix="name the service's gRPC port with --target HOST:PORT")


def _encryption(service: Service) -> Finding:
    if service.has_tls:
        return ok("service.tls", "encrypted")
    host = service.address.rpartition(":")[0]
    if is_loopback(host):
        return ok("service.tls", "plaintext, on this machine")
    fix = "set tls_cert_file and tls_key_file (docs/how-to/tls.md), unless a proxy in front of it encrypts"
    return warn("service.tls", "plaintext", "who reads the network reads tokens and payloads", fix=fix)


def check_certificate(machine: Machine) -> list[Finding]:
    """Check the names and the end of the certificate that the running service shows."""
    service = machine.service
    if isinstance(service, str) or not service.has_tls:
        return [skip("service.certificate", "the connection to the service is not encrypted")]
    from cryptography import x509

    host, _, port = service.address.rpartition(":")
    context = ssl.create_default_context()
    # Whether it is to be trusted, the health check says; this looks at it whatever it is.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout=machine.patience / 2) as plain,
            context.wrap_socket(plain, server_hostname=host.strip("[]")) as connection,
        ):
            data = connection.getpeercert(binary_form=True)
    except OSError as error:
        return [skip("service.certificate", f"no handshake with {service.address}: {error}")]
    return [_certificate("service.certificate", x509.load_der_x509_certificate(data or b""))]


def check_tls_cert_file(machine: Machine) -> list[Finding]:
    """Check the names and the end of the certificate that a service here would show."""
    path = machine.settings.tls_cert_file
    if path is None:
        return [skip("tls.certificate", "tls_cert_file is not set")]
    from cryptography import x509

    try:
        certificate, *_ = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return [skip("tls.certificate", "tls_cert_file cannot be read; see file.tls_cert_file")]
    return [_certificate("tls.certificate", certificate)]


def _certificate(check: str, certificate: Certificate) -> Finding:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    except x509.ExtensionNotFound:
        names = []
    begin, end, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, datetime.now(UTC)
    until, detail = f"until {end:%Y-%m-%d %H:%M}Z", f"for {', '.join(names) or 'no names'}"
    renew = "renew it; a running service reads the new files by itself"
    if now > end:
        return fail(check, f"has expired: valid {until}", detail, fix=renew)
    if now < begin:
        return fail(check, f"is not valid before {begin:%Y-%m-%d %H:%M}Z", detail, fix="correct the clock, or renew it")
    if not names:
        return fail(check, "has no names", "clients compare them with the target", fix="make one with subjectAltName")
    if end - now < _SOON:
        return warn(check, f"ends soon: valid {until}", detail, fix=renew)
    return ok(check, f"valid {until}", detail)


async def check_contracts(machine: Machine) -> list[Finding]:
    """Compare the contracts of the running service with those of this build, and the clocks."""
    service, registry = machine.service, await machine.registry()
    if isinstance(service, str):
        return [skip("contracts", "there is no service to compare with")]
    request = DescribeContractsRequest(include_options=True)
    sent = datetime.now(UTC)
    try:
        answer = await in_thread(lambda: _ask(service, request, machine.patience))
    except WorkerServiceError as error:
        if error.unreachable:
            return [skip("contracts", "the service does not answer"), skip("clock.service", "it does not answer")]
        fix = "give a token with worker:read in CONTEXTWORKER_TOKEN or --token-file FILE"
        return [warn("contracts", f"cannot be compared: {error.reason or error.code.name}", error.message, fix=fix)]
    clock = skip("clock.service", "the service did not tell its time")
    if answer.unit.created_at is not None:
        heard = datetime.now(UTC)
        clock = clock_finding("clock.service", "the service", answer.unit.created_at, sent, heard)
    if not isinstance(registry, WorkerRegistry):
        return [skip("contracts", "the modules here cannot be loaded"), clock]
    here = await describe_contracts(registry, request)
    return [*compare_contracts(here, answer.body), clock]


def _ask(service: Service, request: DescribeContractsRequest, timeout: float) -> Any:
    with service.open_client() as client:
        return client.call(DESCRIBE_CONTRACTS, request, timeout=timeout)


def compare_contracts(here: DescribeContractsResult, there: DescribeContractsResult) -> list[Finding]:
    """Return what differs between two builds, by workflow_type and activity.

    Args:
        here: the contracts of this build, with options.
        there: those of the running service, with options.
    """
    ours, theirs = _Build.of(here), _Build.of(there)
    findings = list[Finding]()
    for what in sorted({*ours.described, *theirs.described}):
        one, other = ours.described.get(what), theirs.described.get(what)
        fix = "run the same version of contextworker and of the modules on both"
        if one is None or other is None:
            where = "the service has it, and this build does not" if one is None else "only this build has it"
            findings.append(warn(f"contract.{what}", where, fix=fix))
            continue
        differences = [*_differences(one, other), *ours.changed_messages(theirs, what)]
        if differences:
            shown, rest = differences[:_SHOWN_DIFFERENCES], len(differences) - _SHOWN_DIFFERENCES
            text = "; ".join(shown) + (f"; and {rest} more" if rest > 0 else "")
            findings.append(warn(f"contract.{what}", "differs from the service's", text, fix=fix))
    if not any(finding.status is not Status.OK for finding in findings):
        findings.append(ok("contracts", f"all {len(here.contracts)} are the same here and in the service"))
    return findings


@dataclass(frozen=True, slots=True)
class _Build:
    """The contracts of one build.

    Attributes:
        described: descriptions as plain data, by workflow_type or name of the activity.
        roots: types of messages that each of these names.
        messages: descriptors of messages and enums, by full name.
    """

    described: Mapping[str, Mapping[str, Any]]
    roots: Mapping[str, frozenset[str]]
    messages: Mapping[str, Any]

    @classmethod
    def of(cls, answer: DescribeContractsResult) -> _Build:
        files = descriptor_pb2.FileDescriptorSet.FromString(answer.file_descriptor_set)
        described: dict[str, Any] = {
            each.workflow_type: codec.to_dict(each, preserving_proto_field_name=True) for each in answer.contracts
        }
        described |= {
            f"activity.{each.name}": codec.to_dict(each, preserving_proto_field_name=True) for each in answer.activities
        }
        roots = {name: frozenset(_types_named(data)) for name, data in described.items()}
        messages = {name: found for file in files.file for name, found in _messages(file, file.package)}
        return cls(described, roots, messages)

    def changed_messages(self, other: _Build, what: str) -> list[str]:
        """Return the messages below a contract's types whose descriptors differ."""
        used = self._closure(self.roots[what]) | other._closure(other.roots[what])
        return [
            f"message {name} differs"
            for name in sorted(used)
            if name in self.messages and name in other.messages and self.messages[name] != other.messages[name]
        ]

    def _closure(self, roots: Iterable[str]) -> set[str]:
        found, waiting = set[str](), list(roots)
        while waiting:
            name = waiting.pop()
            message = self.messages.get(name)
            if name in found or message is None:
                continue
            found.add(name)
            fields = getattr(message, "field", ())
            waiting += [field.type_name.removeprefix(".") for field in fields if field.type_name]
        return found


def _messages(scope: Any, prefix: str) -> Iterable[tuple[str, Any]]:
    """Yield the messages and enums of a file or message, with their full names."""
    inside = scope.message_type if isinstance(scope, descriptor_pb2.FileDescriptorProto) else scope.nested_type
    for message in inside:
        yield f"{prefix}.{message.name}", message
        yield from _messages(message, f"{prefix}.{message.name}")
    for enum in scope.enum_type:
        yield f"{prefix}.{enum.name}", enum


def _types_named(data: object) -> Iterable[str]:
    match data:
        case dict():
            for key, value in cast("dict[str, object]", data).items():
                if key in ("input_type", "output_type") and isinstance(value, str):
                    yield value
                yield from _types_named(value)
        case list():
            for value in cast("Sequence[object]", data):
                yield from _types_named(value)
        case _:
            return


def _differences(one: object, other: object, path: str = "") -> list[str]:
    """Return the paths at which two pieces of plain data differ; elements of lists are matched by their names."""
    if one == other:
        return []
    left, right = _by_name(one), _by_name(other)
    if left is not None and right is not None:
        return [
            each
            for key in sorted({*left, *right})
            for each in _differences(left.get(key), right.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(one, dict | list) or isinstance(other, dict | list):
        where = "only here" if other is None else "only in the service" if one is None else "differs"
        return [f"{path} {where}"]
    if path.endswith("description"):
        return [f"{path} differs"]
    return [f"{path} is {_word(one)} here and {_word(other)} in the service"]


def _word(value: object) -> str:
    return "not set" if value is None else str(value)


def _by_name(data: object) -> Mapping[str, object] | None:
    """Return an object's members, or a list's elements by their names; None for other data."""
    match data:
        case dict():
            return cast("dict[str, object]", data)
        case list():
            items = cast("list[object]", data)
            members = [cast("dict[str, object]", item) for item in items if isinstance(item, dict)]
            named = {str(each["name"]): each for each in members if "name" in each}
            return named if len(named) == len(items) else None
        case _:
            return None
