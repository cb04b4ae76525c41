"""What `contextworker doctor` finds on machines that are well, and on those that are not."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity.worker import DescribeContractsRequest, DescribeContractsResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import descriptor_pb2
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from temporalio.api.enums.v1 import IndexedValueType, TaskQueueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    PollActivityTaskQueueRequest,
    PollWorkflowTaskQueueRequest,
    RegisterNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

from contextunity.modules.harvest.plugin import module as harvest
from contextunity.worker.cli.main import main
from contextunity.worker.client import SyncWorkerClient
from contextunity.worker.core.registry import ModuleConfig, ModuleContext, WorkerRegistry
from contextunity.worker.doctor.findings import Finding, Status, ok
from contextunity.worker.doctor.run import Check, Machine, Service, run_checks
from contextunity.worker.doctor.service import check_certificate, check_contracts, check_service, compare_contracts
from contextunity.worker.doctor.temporal import clock_finding
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.readiness import recent_pollers
from contextunity.worker.service.contracts import describe_contracts
from tests.worker.cli.conftest import Done

_Report = dict[str, dict[str, str]]
"""Findings by check."""


class _Doctor:
    """Runs the command in a folder of its own, with a clean environment."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        for name in os.environ:
            if name.startswith(("CONTEXTWORKER_", "WORKER_", "TEMPORAL_")):
                monkeypatch.delenv(name)
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["/usr/bin/contextworker"])
        # Nothing listens there, so what a test is not about fails at once.
        monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
        monkeypatch.setenv("WORKER_PORT", "1")
        self.setenv = monkeypatch.setenv

    def run(self, *words: str) -> Done:
        try:
            code = main(("doctor", *words))
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Done(code, captured.out, captured.err)

    def report(self, *words: str) -> _Report:
        done = self.run("--json", *words)
        findings: list[dict[str, str]] = done.json
        assert all(each.keys() == {"check", "status", "value", "detail", "fix"} for each in findings)
        assert all(bool(each["fix"]) == (each["status"] in ("warn", "fail")) for each in findings)
        assert done.code == int(any(each["status"] == "fail" for each in findings))
        self.all = findings
        return {each["check"]: each for each in findings}


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> _Doctor:
    return _Doctor(tmp_path, monkeypatch, capsys)


def _status(report: _Report, *checks: str) -> dict[str, str]:
    return {check: report[check]["status"] for check in checks}


def test_a_machine_that_is_well(doctor: _Doctor, temporal_server: EmbeddedServer, service_target: str) -> None:
    doctor.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    doctor.setenv("WORKER_PORT", service_target.rpartition(":")[2])
    (doctor.folder / "contextworker.toml").write_text("max_cached_workflows = 77\n")
    report = doctor.report("--target", service_target)
    assert [each for each in doctor.all if each["status"] == "fail"] == []
    assert report["temporal.address"]["value"] == f"{temporal_server.address} answers"
    well = ("temporal.version", "temporal.namespace", "temporal.listing", "clock.temporal", "clock.service")
    well += ("service.health", "contracts", "module.harvest", "disk.data_folder", "code.kernel", "harvest.catalogue")
    well += ("code.programs.monty", "code.programs.cpython", "port.port")
    assert set(_status(report, *well).values()) == {"ok"}
    assert report["port.port"]["value"].endswith("is used by contextworker")
    assert report["contracts"]["value"] == "all 5 are the same here and in the service"
    shown = {name: (report[name]["value"], report[name]["detail"]) for name in report if name.startswith("setting.")}
    assert shown["setting.max_cached_workflows"] == ("77", "from contextworker.toml: max_cached_workflows")
    assert shown["setting.port"] == (service_target.rpartition(":")[2], "from WORKER_PORT")
    assert shown["setting.log_level"] == ("info", "default")
    assert shown["setting.TEMPORAL_ADDRESS"][0] == temporal_server.address
    # It only looks.
    assert [path.name for path in doctor.folder.iterdir()] == ["contextworker.toml"]
    lines = doctor.run("--target", service_target, "--quiet").out.splitlines()
    assert all(line.startswith(("warn", " ")) for line in lines[:-2])
    assert lines[-1].endswith(" skipped")


def test_servers_that_are_stopped_hide_nothing_else(doctor: _Doctor) -> None:
    report = doctor.report()
    assert report["temporal.address"]["value"] == "127.0.0.1:1: connection refused"
    assert "TEMPORAL_ADDRESS" in report["temporal.address"]["fix"]
    skipped = ("temporal.attributes", "queue", "clock.temporal", "service.health", "contracts")
    assert set(_status(report, *skipped).values()) == {"skip"}
    assert set(_status(report, "version.python", "module.code", "disk.space").values()) == {"ok"}
    assert _status(report, "port.port")["port.port"] != "skip"
    # A service that somebody names has to answer.
    doctor.setenv("CONTEXTWORKER_TARGET", "127.0.0.1:1")
    assert doctor.report()["service.health"]["status"] == "fail"
    text = doctor.run().out
    assert "fail  temporal.address " in text
    assert "→ set TEMPORAL_ADDRESS" in text


def test_servers_that_take_connections_and_say_nothing(doctor: _Doctor) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        doctor.setenv("TEMPORAL_ADDRESS", address)
        report = doctor.report("--target", address, "--timeout", "1")
    assert report["temporal.address"]["value"] == f"{address}: no answer within 0.8 s"
    assert report["service.health"]["value"] == f"{address} does not answer"
    assert set(_status(report, "queue", "contracts").values()) == {"skip"}
    assert report["disk.space"]["status"] == "ok"


def test_settings_of_temporals_sdk_that_are_wrong(doctor: _Doctor) -> None:
    (doctor.folder / "temporal.toml").write_text('[profile.default]\napi_key = "a-secret-without-an-end\n')
    doctor.setenv("TEMPORAL_CONFIG_FILE", "temporal.toml")
    report = doctor.report()
    assert report["temporal"]["status"] == "fail"
    assert report["temporal"]["value"].startswith(
        "Temporal's own settings: Configuration loading error: TOML parse error"
    )
    assert "a-secret" not in str(report)
    assert report["queue"]["status"] == "skip"
    assert report["disk.space"]["status"] == "ok"
    doctor.setenv("TEMPORAL_CONFIG_FILE", "")
    doctor.setenv("TEMPORAL_TLS_CLIENT_CERT_PATH", "/no/such")
    assert "/no/such cannot be read" in doctor.report()["temporal"]["value"]


def test_a_namespace_that_is_not_there(doctor: _Doctor, temporal_server: EmbeddedServer) -> None:
    doctor.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    doctor.setenv("TEMPORAL_NAMESPACE", "no-such")
    report = doctor.report()
    assert report["temporal.namespace"]["status"] == "fail"
    assert "temporal operator namespace create --namespace no-such" in report["temporal.namespace"]["fix"]
    assert set(_status(report, "temporal.attributes", "queue").values()) == {"skip"}


async def _new_namespace(address: str) -> str:
    """A namespace of the test's own, so without search attributes and workers; one has a wrong type."""
    client, namespace = await Client.connect(address), f"doctor-{uuid.uuid4().hex[:8]}"
    retention = Duration(seconds=86_400)
    service = client.workflow_service
    await service.register_namespace(
        RegisterNamespaceRequest(namespace=namespace, workflow_execution_retention_period=retention)
    )
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(RPCError):
                await service.describe_namespace(DescribeNamespaceRequest(namespace=namespace))
                request = AddSearchAttributesRequest(namespace=namespace)
                request.search_attributes["ContextUnityUnit"] = IndexedValueType.INDEXED_VALUE_TYPE_INT
                await client.operator_service.add_search_attributes(request)
                return namespace
            # The server notices new namespaces by itself after a moment.
            await asyncio.sleep(0.1)


def test_a_namespace_without_attributes_and_workers(doctor: _Doctor, temporal_server: EmbeddedServer) -> None:
    namespace = asyncio.run(_new_namespace(temporal_server.address))
    doctor.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    doctor.setenv("TEMPORAL_NAMESPACE", namespace)
    report = doctor.report()
    tenant, unit = (report[f"temporal.attributes.ContextUnity{name}"] for name in ("Tenant", "Unit"))
    assert (tenant["status"], unit["status"]) == ("warn", "fail")
    create = f"temporal operator search-attribute create --namespace {namespace} --name ContextUnityTenant"
    assert tenant["fix"].endswith(f"{create} --type Keyword")
    assert unit["value"] == "is of type Int"
    assert f"search-attribute remove --namespace {namespace} --name ContextUnityUnit" in unit["fix"]
    queues = {name: report[name] for name in report if name.startswith("queue.")}
    assert queues.keys() == {"queue.code", "queue.gardener", "queue.harvest"}
    assert {each["status"] for each in queues.values()} == {"warn"}
    assert queues["queue.harvest"]["fix"] == "contextworker --temporal --modules harvest"
    assert report["clock.temporal"]["status"] == "ok"


async def _polling(address: str, namespace: str, queue: str, run: Callable[[], _Report]) -> _Report:
    """Does something while a worker polls a task queue of a namespace."""
    client = await Client.connect(address, namespace=namespace)
    service, name = client.workflow_service, TaskQueue(name=queue)
    polls = (
        service.poll_workflow_task_queue(
            PollWorkflowTaskQueueRequest(namespace=namespace, task_queue=name, identity="one")
        ),
        service.poll_activity_task_queue(
            PollActivityTaskQueueRequest(namespace=namespace, task_queue=name, identity="two")
        ),
    )
    tasks = [asyncio.ensure_future(poll) for poll in polls]
    try:
        async with asyncio.timeout(30):
            kinds = (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)
            while True:
                if all([await recent_pollers(client, queue, kind) for kind in kinds]):
                    break
                await asyncio.sleep(0.05)
        return await asyncio.to_thread(run)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_workers_that_poll_are_listed(doctor: _Doctor, temporal_server: EmbeddedServer) -> None:
    address = temporal_server.address
    namespace = asyncio.run(_new_namespace(address))
    doctor.setenv("TEMPORAL_ADDRESS", address)
    doctor.setenv("TEMPORAL_NAMESPACE", namespace)
    report = asyncio.run(_polling(address, namespace, "code", doctor.report))
    found = report["queue.code"]
    assert (found["status"], found["value"], found["detail"]) == ("ok", "2 workers", "one, two")
    assert report["queue.harvest"]["status"] == "warn"


def test_settings_are_told_as_at_a_start(doctor: _Doctor) -> None:
    (doctor.folder / "contextworker.toml").write_text("max_cached_workflow = 1\n[modules.harvest]\nmax_fetches = 0\n")
    doctor.setenv("CONTEXTWORKER_LOG_LEVL", "info")
    doctor.setenv("WORKER_TENANTS", "acme")
    report = doctor.report()
    told = [each["value"] for each in doctor.all if each["check"] == "settings"]
    assert "environment variable CONTEXTWORKER_LOG_LEVL is not a setting; did you mean CONTEXTWORKER_LOG_LEVEL?" in told
    assert "contextworker.toml: max_cached_workflow: unknown setting" in told
    assert any(text.startswith("not used here, remove them: WORKER_TENANTS") for text in told)
    assert report["modules"]["value"].startswith("modules.harvest.max_fetches = 0: ")
    assert report["modules"]["status"] == "fail"


_KEYS = '[hmac]\n"acme:hmac-001" = "a key of the test, of more than 32 bytes"\n'


@pytest.mark.parametrize(
    ("mode", "status", "value"),
    [(0o600, "ok", ""), (0o640, "warn", "its group may read"), (0o644, "fail", "all users may read")],
)
def test_a_key_that_others_can_read(doctor: _Doctor, mode: int, status: str, value: str) -> None:
    path = doctor.folder / "keys.toml"
    path.write_text(_KEYS)
    path.chmod(mode)
    doctor.setenv("CONTEXTWORKER_AUTH", "token")
    doctor.setenv("CONTEXTWORKER_TOKEN_KEYS_FILE", str(path))
    found = doctor.report()["file.token_keys_file"]
    assert found["status"] == status
    assert value in found["detail"]
    assert (f"chmod 600 {path}" in found["fix"]) == (status != "ok")


def test_files_that_are_wrong(doctor: _Doctor) -> None:
    quotas, payloads = doctor.folder / "quotas.toml", doctor.folder / "payloads.toml"
    quotas.write_text("[tenants.acme]\nstarts = 1\n")
    payloads.write_text('current = "b"\n[keys]\na = "short"\n')
    payloads.chmod(0o600)
    doctor.setenv("CONTEXTWORKER_QUOTAS_FILE", str(quotas))
    doctor.setenv("CONTEXTWORKER_PAYLOAD_KEYS_FILE", str(payloads))
    doctor.setenv("CONTEXTWORKER_AUTH", "token")
    doctor.setenv("CONTEXTWORKER_TOKEN_SECRET_FILE", str(doctor.folder / "no such file"))
    report = doctor.report()
    wrong = {name: report[f"file.{name}"] for name in ("quotas_file", "payload_keys_file", "token_secret_file")}
    assert {each["status"] for each in wrong.values()} == {"fail"}
    assert "starts" in wrong["quotas_file"]["value"]
    assert "no such file" in wrong["token_secret_file"]["value"]
    # Of a wrong file of payload keys, the Temporal server is asked all the same.
    assert report["temporal.address"]["value"] == "127.0.0.1:1: connection refused"


def test_a_data_folder_that_is_a_file(doctor: _Doctor) -> None:
    (doctor.folder / "file").touch()
    doctor.setenv("CONTEXTWORKER_DATA_FOLDER", "file")
    found = doctor.report()["disk.data_folder"]
    assert (found["status"], found["value"]) == ("fail", f"{doctor.folder / 'file'} is a file")


def test_ports_that_others_have(doctor: _Doctor) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        doctor.setenv("CONTEXTWORKER_METRICS_PORT", port)
        doctor.setenv("CONTEXTWORKER_HEALTH_PORT", "0")
        report = doctor.report()
        assert report["port.metrics_port"]["status"] == "fail"
        assert report["port.metrics_port"]["detail"] == f"process {os.getpid()}"
        assert report["port.health_port"]["status"] == "ok"
        doctor.setenv("CONTEXTWORKER_HEALTH_PORT", port)
        assert doctor.report()["port.health_port"]["value"] == f"{port} is set twice"


_SECRETS = {
    "CONTEXTWORKER_TOKEN": "callers-token-0123456789",
    "CONTEXTWORKER_TOKEN_SECRET": "signing-secret-0123456789-0123456789",
    "CONTEXTWORKER_QUOTAS_REDIS_URL": "redis://quotas:redis-password@127.0.0.1:1/0",
    "CONTEXTWORKER_REVOKED_TOKENS_REDIS_URL": "redis://revoked:revoked-password@127.0.0.1:1/0",
    "TEMPORAL_API_KEY": "temporal-api-key-0123456789",
    "TEMPORAL_GRPC_META_AUTHORIZATION": "Bearer temporal-header-0123456789",
    "CU_PROJECT_SECRET": "older-secret-0123456789-0123456789",
}


_WITH_SECRETS = """\
[modules.harvest]
catalogue_url = "postgresql://me:database-password@127.0.0.1:1/catalogue"
[modules.harvest.suppliers.acme]
url = "https://feeds.example/products.csv?key=feed-secret"
[modules.gardener]
router_tokens = {acme = "router-secret"}
"""


@pytest.mark.parametrize("broken", [False, True])
def test_no_secret_is_printed(doctor: _Doctor, broken: bool) -> None:
    for name, value in _SECRETS.items():
        doctor.setenv(name, value)
    secrets = [
        *_SECRETS.values(),
        "redis-password",
        "revoked-password",
        "database-password",
        "router-secret",
        "feed-secret",
    ]
    text = _WITH_SECRETS
    if broken:
        # What is wrong is quoted as it stands in the file.
        text = text.replace('{acme = "router-secret"}', '"router-secret"').replace("https://feeds", "gopher://feeds")
    (doctor.folder / "contextworker.toml").write_text(text)
    for words in ((), ("--json",)):
        done = doctor.run(*words)
        assert "harvest.catalogue_url" in done.out
        assert ("modules.gardener.router_tokens: input should be a valid dictionary" in done.out) == broken
        assert ("postgresql://…@127.0.0.1:1/catalogue" in done.out) != broken
        assert [secret for secret in secrets if secret in done.out + done.err] == []


def test_wrong_usage_is_code_2(doctor: _Doctor) -> None:
    done = doctor.run("--target", "not an address")
    assert (done.code, done.out) == (2, "")
    assert "it is host:port" in done.err


async def _found(machine: Machine, *checks: Check) -> dict[str, Finding]:
    return {finding.check: finding async for finding in run_checks(machine, checks)}


async def test_checks_that_hang_or_break_hide_no_others(tmp_path: Path) -> None:
    waiting = threading.Event()

    async def hangs(_: Machine) -> list[Finding]:
        await asyncio.Event().wait()
        return []

    def breaks(_: Machine) -> list[Finding]:
        raise ZeroDivisionError("by nothing")

    machine = Machine(service="", timeout=0.2, environ={}, folder=tmp_path)
    found = await _found(
        machine,
        Check(name="hangs", run=hangs),
        Check(name="hangs in a thread", run=lambda _: [ok("thread", str(waiting.wait()))]),
        Check(name="breaks", run=breaks),
        Check(name="well", run=lambda _: [ok("well", "is well")]),
    )
    waiting.set()
    assert found["hangs"].value == found["hangs in a thread"].value == "no answer within 0.2 s"
    assert found["breaks"].value == "the check itself failed: ZeroDivisionError: by nothing"
    assert [found[name].status for name in ("hangs", "breaks", "well")] == [Status.FAIL, Status.FAIL, Status.OK]


async def test_modules_bring_checks_of_their_own(tmp_path: Path) -> None:
    async def check_it(context: ModuleContext) -> list[Finding]:
        return [ok("own.it", str(context.data_folder))]

    registry = WorkerRegistry()
    registry.register(ModuleConfig(name="own", checks={"it": check_it}))
    found = await _found(_machine(tmp_path, registry))
    assert found["own.it"].value == ".contextworker"


class _Having(Machine):
    """A machine with other modules than those that are installed here."""

    modules = WorkerRegistry()

    async def registry(self) -> WorkerRegistry:
        return self.modules


def _machine(folder: Path, registry: WorkerRegistry, service: Service | str = "") -> Machine:
    machine = _Having(service=service, timeout=20, environ={}, folder=folder)
    machine.modules = registry
    return machine


def _service(target: str, credentials: grpc.ChannelCredentials | None = None) -> Service:
    def open_channel() -> grpc.Channel:
        return grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)

    return Service(
        target=target,
        is_named=True,
        address=target,
        has_tls=credentials is not None,
        open_client=lambda: SyncWorkerClient(target, tls=credentials or False),
        open_channel=open_channel,
    )


@pytest.fixture
def other_build() -> WorkerRegistry:
    """Of one module alone."""
    registry = WorkerRegistry()
    registry.register(harvest)
    return registry


async def test_a_service_of_another_build(service_target: str, other_build: WorkerRegistry, tmp_path: Path) -> None:
    findings = await check_contracts(_machine(tmp_path, other_build, _service(service_target)))
    found = {finding.check: finding for finding in findings}
    assert found["contract.gardener"].status is Status.WARN
    assert found["contract.gardener"].value == "the service has it, and this build does not"
    assert "contract.harvest" not in found
    assert found["clock.service"].status is Status.OK


async def test_contracts_are_compared_in_all_parts(other_build: WorkerRegistry) -> None:
    here = await describe_contracts(other_build, DescribeContractsRequest(include_options=True))
    there: DescribeContractsResult = copy.deepcopy(here)
    assert [finding.status for finding in compare_contracts(here, there)] == [Status.OK]
    (contract,) = (each for each in there.contracts if each.workflow_type == "harvest")
    contract.task_queue = "elsewhere"
    field = next(each for each in contract.fields if each.name == "page_size")
    field.rules = ["int32.lte: 7"]
    (activity,) = (each for each in there.activities if each.name == "fetch_products")
    activity.start_to_close_timeout = timedelta(seconds=7)
    files = descriptor_pb2.FileDescriptorSet.FromString(there.file_descriptor_set)
    (message,) = (
        message
        for file in files.file
        if file.package == "contextunity.harvest.v1"
        for message in file.message_type
        if message.name == "HarvestCounts"
    )
    message.field.add(name="more", number=99, type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32)
    there.file_descriptor_set = files.SerializeToString(deterministic=True)
    found = {finding.check: finding for finding in compare_contracts(here, there)}
    assert found.keys() >= {"contract.harvest", "contract.activity.fetch_products"}
    told = found["contract.harvest"].detail
    assert "task_queue is harvest here and elsewhere in the service" in told
    assert "fields.page_size.rules differs" in told
    assert "message contextunity.harvest.v1.HarvestCounts differs" in told
    assert "start_to_close_timeout is " in found["contract.activity.fetch_products"].detail
    assert "contract.list_rejected" not in found


def _certificate(until: timedelta, *names: str) -> tuple[bytes, bytes]:
    """A certificate that signs itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "service")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=60)).not_valid_after(now + until)
    if names:
        alternatives = [x509.DNSName(each) for each in names]
        everywhere = x509.SubjectAlternativeName([*alternatives, x509.IPAddress(ip_address("127.0.0.1"))])
        builder = builder.add_extension(everywhere, critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return certificate.public_bytes(encoding), key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)


_CERTIFICATES: dict[str, tuple[timedelta, tuple[str, ...], str, str]] = {
    "valid": (timedelta(days=90), ("worker.example",), "ok", "valid until "),
    "ends-soon": (timedelta(days=3), ("worker.example",), "warn", "ends soon: "),
    "expired": (timedelta(days=-1), ("worker.example",), "fail", "has expired: "),
    "nameless": (timedelta(days=90), (), "fail", "has no names"),
}


@pytest.mark.parametrize("name", _CERTIFICATES)
def test_the_certificate_of_the_settings(doctor: _Doctor, name: str) -> None:
    until, names, status, value = _CERTIFICATES[name]
    cert, key = doctor.folder / "cert.pem", doctor.folder / "key.pem"
    for path, data in zip((cert, key), _certificate(until, *names), strict=True):
        path.write_bytes(data)
        path.chmod(0o600)
    doctor.setenv("CONTEXTWORKER_TLS_CERT_FILE", str(cert))
    doctor.setenv("CONTEXTWORKER_TLS_KEY_FILE", str(key))
    report = doctor.report()
    found = report["tls.certificate"]
    assert found["status"] == status
    assert found["value"].startswith(value)
    assert report["file.tls_key_file"]["status"] == "ok"
    if names:
        assert found["detail"] == "for worker.example, 127.0.0.1"


@pytest.fixture
def expired_service() -> Iterator[tuple[str, bytes]]:
    """A gRPC server whose certificate has expired, and that certificate."""
    certificate, key = _certificate(timedelta(days=-1), "localhost")
    server: Any = grpc.server(ThreadPoolExecutor(2))
    add_health: Any = health_pb2_grpc.add_HealthServicer_to_server
    add_health(HealthServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    yield f"127.0.0.1:{port}", certificate
    server.stop(0).wait()


async def test_the_certificate_of_a_service(expired_service: tuple[str, bytes], tmp_path: Path) -> None:
    target, certificate = expired_service
    service = _service(target, grpc.ssl_channel_credentials(certificate))
    machine = _machine(tmp_path, WorkerRegistry(), service)
    machine.timeout = 3
    found = await _found(
        machine,
        Check(name="service.certificate", run=check_certificate),
        Check(name="service.health", run=check_service),
    )
    assert found["service.certificate"].status is Status.FAIL
    assert found["service.certificate"].value.startswith("has expired: valid until ")
    assert found["service.certificate"].detail == "for localhost, 127.0.0.1"
    assert found["service.health"].status is Status.FAIL


@pytest.mark.parametrize(
    ("told", "status", "value"),
    [
        (timedelta(seconds=0.5), Status.OK, "within 0.1 s of the server"),
        (timedelta(seconds=-1.5), Status.OK, "within 1.5 s of the server"),
        (timedelta(seconds=-10), Status.WARN, "10 s ahead of the server"),
        (timedelta(seconds=11), Status.WARN, "10 s behind the server"),
        (timedelta(seconds=3601), Status.FAIL, "3,600 s behind the server"),
    ],
)
def test_clocks_are_compared(told: timedelta, status: Status, value: str) -> None:
    sent = datetime(2030, 1, 1, tzinfo=UTC)
    finding = clock_finding("clock", "the server", sent + told, sent, sent + timedelta(seconds=1))
    assert (finding.status, finding.value) == (status, value)


def test_what_tokens_and_large_payloads_need(doctor: _Doctor) -> None:
    report = doctor.report()
    assert set(_status(report, "identity.jwt", "identity.revocations", "payload_storage").values()) == {"skip"}
    storage, revoked, snapshots = (doctor.folder / name for name in ("payloads", "revoked.txt", "snapshots.toml"))
    storage.mkdir()
    revoked.write_text("# none\n")
    snapshots.write_text(_KEYS)
    snapshots.chmod(0o644)
    doctor.setenv("CONTEXTWORKER_AUTH", "token")
    doctor.setenv("CONTEXTWORKER_PAYLOAD_STORAGE", storage.as_uri())
    doctor.setenv("CONTEXTWORKER_REVOKED_TOKENS_FILE", str(revoked))
    doctor.setenv("CONTEXTWORKER_SNAPSHOT_KEY_FILE", str(snapshots))
    doctor.setenv("CONTEXTWORKER_JWT_ISSUER", "https://id.example")
    doctor.setenv("CONTEXTWORKER_JWT_AUDIENCE", "contextworker")
    doctor.setenv("CONTEXTWORKER_JWT_JWKS_FILE", str(doctor.folder / "no-keys.json"))
    report = doctor.report()
    assert set(_status(report, "identity.revocations", "payload_storage").values()) == {"ok"}
    assert report["identity.jwt"]["status"] == "fail"
    assert "no-keys.json" in report["identity.jwt"]["value"]
    assert report["file.snapshot_key_file"]["status"] == "fail"
    storage.rmdir()
    revoked.unlink()
    report = doctor.report()
    assert set(_status(report, "identity.revocations", "payload_storage").values()) == {"fail"}
    assert "revoked.txt" in report["identity.revocations"]["value"]
