"""Secrets are planted wherever a deployment has some, and looked for wherever something can be read."""

from __future__ import annotations

import base64
import http.server
import json
import re
import secrets
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from contextunity.gen.contextunity.router import router_pb2_grpc
from temporalio.api.workflowservice.v1 import DescribeScheduleRequest, DescribeWorkflowExecutionRequest
from temporalio.client import Client

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.core.errors import ContextUnityError
from contextunity.core.tokens import ContextToken, mint
from contextunity.modules.harvest.catalogue import Catalogue
from contextunity.worker.embedded import EmbeddedServer, usual_or_free_port
from contextunity.worker.errors import SettingsError
from contextunity.worker.modules.discovery import discover
from contextunity.worker.setting_errors import secret_settings
from contextunity.worker.settings import Settings, load_settings
from tests.conftest import Process, run_python

_TENANT = "planted"
_FILES_WITHOUT_SECRETS = {
    *("quotas_file", "ready_file", "revoked_tokens_file", "jwt_jwks_file"),
    *("tls_cert_file", "tls_client_ca_file"),
}
_FEED = b'{"sku": "1", "title": "A green tent", "price": "10.00"}\n{"sku": "2", "title": "A red tent", "price": "x"}\n'


def _planted(*names: str) -> dict[str, str]:
    """A secret for each name, of a form that nothing changes on the way."""
    return {name: f"planted{secrets.token_hex(16)}" for name in names}


SECRETS = _planted(
    # By setting: values and files.
    *("token_secret", "quotas_redis_url", "revoked_tokens_redis_url", "payload_storage"),
    *("token_secret_file", "token_keys_file", "payload_keys_file", "snapshot_key_file", "tls_key_file"),
    *("modules.harvest.catalogue_url", "modules.harvest.proxy", "modules.harvest.suppliers.*.url"),
    *("modules.gardener.router_url", "modules.gardener.router_tokens.*"),
    # Without a setting of ours.
    *("TEMPORAL_API_KEY", "query of a feed", "user of a redirect", "query of a redirect", "cookie of a feed"),
    *("expired token", "forged token", "no token", "cookie of a call", "API key of a call"),
)


def test_every_secret_setting_is_planted() -> None:
    """A new secret setting fails here until a value of it is planted below."""
    found = set(secret_settings(Settings))
    found |= {name for name in Settings.model_fields if name.endswith("_file")} - _FILES_WITHOUT_SECRETS
    for name, module in discover(Settings()).modules.items():
        if module.config.settings is not None:
            found |= {f"modules.{name}.{each}" for each in secret_settings(module.config.settings)}
    assert {name for name in SECRETS if name in found} == found


def _wrong(secret: str) -> dict[str, dict[str, Any]]:
    """Values of each secret setting that it does not accept."""
    return {
        "token_secret": {"token_secret": [secret]},
        "quotas_redis_url": {"quotas_redis_url": f"redis://u:{secret}/x@host"},
        "revoked_tokens_redis_url": {"revoked_tokens_redis_url": f"redis://u:{secret}/x@host"},
        "payload_storage": {"payload_storage": f"s3://key:{secret}@bucket"},
        "modules.harvest.catalogue_url": {"modules": {"harvest": {"catalogue_url": [secret]}}},
        "modules.harvest.proxy": {"modules": {"harvest": {"proxy": f"http://u:{secret}/x@proxy"}}},
        "modules.harvest.suppliers.*.url": {
            "modules": {"harvest": {"suppliers": {"a": {"url": f"http://u:{secret}/x@feeds/a"}}}}
        },
        "modules.gardener.router_url": {"modules": {"gardener": {"router_url": f"http://u:{secret}@router"}}},
        "modules.gardener.router_tokens.*": {"modules": {"gardener": {"router_tokens": {"acme": [secret]}}}},
    }


def test_each_setting_has_a_wrong_value() -> None:
    assert {name for name in SECRETS if name.startswith("modules.")} <= _wrong("x").keys()
    assert set(secret_settings(Settings)) <= _wrong("x").keys()


@pytest.mark.parametrize("name", _wrong("x"))
def test_a_wrong_value_is_told_by_its_name_alone(name: str, tmp_path: Path) -> None:
    secret = _planted("value")["value"]
    values = _wrong(secret)[name]
    with pytest.raises(SettingsError) as caught:
        _load(tmp_path, name, values)
    assert secret not in str(caught.value)
    shown = name.removesuffix(".*").replace(".*.", ".a.")
    assert shown in str(caught.value) or f"CONTEXTWORKER_{name.upper()}" in str(caught.value)


def _load(folder: Path, name: str, values: dict[str, Any]) -> None:
    if "modules" in values:
        discover(Settings.model_validate(values))
    elif isinstance(values[name], str):
        load_settings({f"CONTEXTWORKER_{name.upper()}": values[name]}, folder)
    else:
        (folder / "contextworker.toml").write_text(f"{name} = {json.dumps(values[name])}\n")
        load_settings({}, folder)


def test_settings_are_not_shown_in_tracebacks() -> None:
    """A repr is what tracebacks, debuggers and logs of mistakes show."""
    secret = _planted("value")["value"]
    settings = Settings.model_validate({"token_secret": secret * 2, "quotas_redis_url": f"redis://:{secret}@h"})
    modules: dict[str, Any] = {
        "harvest": {
            "catalogue_url": f"postgresql://u:{secret}@h/d",
            "proxy": f"http://u:{secret}@h",
            "suppliers": {"a": {"url": f"http://u:{secret}@h/feed"}},
        },
        "gardener": {"router_tokens": {"acme": secret}},
    }
    registry = discover(Settings(modules=modules))
    assert secret not in repr(settings) + str(settings)
    assert secret not in "".join(repr(module.settings) for module in registry.modules.values())


class _Site(http.server.BaseHTTPRequestHandler):
    """A supplier's server, which is its own proxy: feeds that are there, denied, missing, and elsewhere."""

    def do_GET(self) -> None:
        path = re.sub(r"^http://[^/]*", "", self.path).partition("?")[0]
        away = f"{SECRETS['user of a redirect']}:x@elsewhere.example/a?{SECRETS['query of a redirect']}"
        status = {"/ok": 200, "/denied": 401, "/redirect": 302, "/invalid": 302, "/broken": 500}.get(path, 404)
        self.send_response(status, "as asked")
        # What is no URL is quoted by errors of libraries.
        self.send_header("Set-Cookie", f"session={SECRETS['cookie of a feed']}")
        if status == 302:
            self.send_header(
                "Location",
                f"http://{away}" if path == "/redirect" else f"http://u:{SECRETS['user of a redirect']}/x@there/{away}",
            )
        body = _FEED if status == 200 else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Router(router_pb2_grpc.RouterServiceServicer):
    """Rejects every call, and quotes the token."""

    def ExecuteAgent(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract names it so
        token = dict(context.invocation_metadata()).get("authorization", "no token")
        context.abort(grpc.StatusCode.UNAUTHENTICATED, f"who is {token}?")


@dataclass
class _Found:
    """What can be read, by place."""

    texts: dict[str, bytes] = field(default_factory=dict)

    def add(self, place: str, text: str | bytes) -> None:
        self.texts[place] = self.texts.get(place, b"") + (text if isinstance(text, bytes) else text.encode())

    def leaks(self, **tokens: str) -> list[str]:
        return [
            f"{name} in {place}: …{text[max(0, text.index(form) - 200) : text.index(form) + 60]!r}"
            for place, text in self.texts.items()
            for name, secret in (SECRETS | tokens).items()
            for form in _forms(secret)
            if form in text
        ]


def _forms(secret: str) -> list[bytes]:
    """A secret as it is, and in Base64 at each of three offsets, as JSON and Basic authentication have it."""
    shifted = (base64.b64encode(b"x" * shift + secret.encode())[4:-4] for shift in range(3))
    return [secret.encode(), *shifted]


def _settings(folder: Path, site: int, router: int) -> None:
    keys = base64.b64encode(SECRETS["payload_keys_file"].encode()[:32]).decode()
    (folder / "payload-keys.toml").write_text(f'current = ""\n[keys]\na = "{keys}"\n')
    (folder / "token-keys.toml").write_text(f'[hmac]\n"other:hmac-001" = "{SECRETS["token_keys_file"]}"\n')
    states = base64.b64encode(SECRETS["snapshot_key_file"].encode()[:32]).decode()
    (folder / "snapshot-keys.toml").write_text(f'current = "a"\n[keys]\na = "{states}"\n')
    for name in ("payload-keys.toml", "token-keys.toml", "snapshot-keys.toml"):
        (folder / name).chmod(0o600)
    suppliers = "".join(
        f"[modules.harvest.suppliers.{name}]\n"
        f'url = "http://u:{SECRETS["modules.harvest.suppliers.*.url"]}@127.0.0.1:{site}/{name}?key='
        f'{SECRETS["query of a feed"]}"\nformat = "json_lines"\nallow_private = true\n'
        for name in ("ok", "denied", "gone", "redirect", "invalid")
    )
    (folder / "contextworker.toml").write_text(
        f"""\
token_keys_file = "token-keys.toml"
payload_keys_file = "payload-keys.toml"
snapshot_key_file = "snapshot-keys.toml"
[modules.harvest]
proxy = "http://u:{SECRETS["modules.harvest.proxy"]}@127.0.0.1:{site}"
{suppliers}
[modules.gardener]
router_url = "http://127.0.0.1:{router}"
router_tokens = {{{_TENANT} = "{SECRETS["modules.gardener.router_tokens.*"]}"}}
"""
    )


_PERMISSIONS = ("worker:execute", "worker:read", "harvest:execute", "schedules:write", "schedules:read")


def _token(name: str, *, expires: int | None = None, secret: str = "token_secret") -> str:
    token = ContextToken(token_id=name, permissions=_PERMISSIONS, allowed_tenants=(_TENANT,), exp_unix=expires)
    return mint(token, kid="acme:hmac-001", secret=SECRETS[secret].encode())


class _Deployment:
    """A service and a worker with secrets in all their settings, and callers with and without good tokens."""

    def __init__(self, folder: Path, temporal: EmbeddedServer, found: _Found) -> None:
        self.folder, self.temporal, self.found = folder, temporal, found
        self.tasks = list[str]()
        self.variables = {
            "CONTEXTWORKER_AUTH": "token",
            "CONTEXTWORKER_TOKEN_SECRET": SECRETS["token_secret"],
            "CONTEXTWORKER_QUOTAS_REDIS_URL": f"redis://u:{SECRETS['quotas_redis_url']}@127.0.0.1:1/0",
            "LOG_LEVEL": "debug",
            "TEMPORAL_ADDRESS": temporal.address,
            "TEMPORAL_API_KEY": SECRETS["TEMPORAL_API_KEY"],
            "TEMPORAL_TLS": "false",
            "WORKER_HOST": "127.0.0.1",
        }
        self.ports = [usual_or_free_port(0) for _ in range(2)]
        http = usual_or_free_port(0)
        self.service = self._run(
            WORKER_PORT="0", WORKER_HTTP_PORT=str(http), CONTEXTWORKER_METRICS_PORT=str(self.ports[0])
        )
        self.worker = self._run(
            "--temporal",
            CONTEXTWORKER_LOG_FORMAT="json",
            CONTEXTWORKER_METRICS_PORT=str(self.ports[1]),
        )
        port = self.service.wait_for("WorkerService listens on ").partition("127.0.0.1:")[2].split()[0]
        self.target, self.http = f"127.0.0.1:{port}", f"http://127.0.0.1:{http}"
        self.worker.wait_for("Temporal workers run for modules")
        self.token = _token("good")

    def _run(self, *arguments: str, **variables: str) -> Process:
        return run_python(self.folder, "-m", "contextunity.worker", *arguments, **{**self.variables, **variables})

    def call(self, method: str, token: str, place: str = "answers", **payload: Any) -> dict[str, Any]:
        """Calls the service; what it answers, errors with all their details, is kept."""
        unit = ContextUnit(payload=payload).to_protobuf(worker_pb2)
        metadata = [("authorization", f"Bearer {token}"), ("cookie", f"session={SECRETS['cookie of a call']}")]
        metadata.append(("x-api-key", SECRETS["API key of a call"]))
        with grpc.insecure_channel(self.target) as channel:
            stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)
            try:
                answer = getattr(stub, method)(unit, metadata=metadata, timeout=30)
            except grpc.RpcError as error:
                trailers = [str(value).encode() for value in error.trailing_metadata() or ()]
                self.found.add(place, f"{error}{error.details()}".encode() + b"".join(trailers))
                return {}
        self.found.add(place, answer.SerializeToString())
        return dict(ContextUnit.from_protobuf(answer).payload)

    def start(self, workflow_type: str, **payload: Any) -> str:
        started = self.call("StartWorkflow", self.token, workflow_type=workflow_type, **payload)
        self.tasks.append(str(started["workflow_id"]))
        return self.tasks[-1]

    def wait(self, workflow_id: str) -> str:
        unit = ContextUnit(payload={"workflow_id": workflow_id}).to_protobuf(worker_pb2)
        last: dict[str, Any] = {}
        with grpc.insecure_channel(self.target) as channel:
            stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)
            for each in stub.WatchTask(unit, metadata=[("authorization", f"Bearer {self.token}")], timeout=40):
                self.found.add("watches", each.SerializeToString())
                last = dict(ContextUnit.from_protobuf(each).payload)
        return f"{last['status']}: {last.get('error', '')}"

    def get(self, url: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> int:
        request = urllib.request.Request(url, body, {"content-type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                self.found.add(f"HTTP {url}", answer.read() + str(answer.headers).encode())
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                self.found.add(f"HTTP {url}", error.read() + str(error.headers).encode())
                return error.code

    def command(self, *arguments: str, token: str) -> int:
        command = [sys.executable, "-m", "contextunity.worker", *arguments, "--target", self.target, "--json"]
        variables = {"CONTEXTWORKER_TOKEN": token, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, capture_output=True, cwd=self.folder, env=variables, timeout=60, check=False)
        self.found.add(f"output of {arguments[0]}", done.stdout + done.stderr)
        return done.returncode

    def end(self) -> None:
        for process, name in ((self.service, "service"), (self.worker, "worker")):
            process.end()
            self.found.add(f"output of the {name}", process.output)


@pytest.fixture(scope="module")
def deployment(temporal_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Deployment]:
    folder = tmp_path_factory.mktemp("planted")
    router = grpc.server(ThreadPoolExecutor(2))
    router_pb2_grpc.add_RouterServiceServicer_to_server(_Router(), router)
    router_port = router.add_insecure_port("127.0.0.1:0")
    router.start()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        _settings(folder, site.server_port, router_port)
        made = _Deployment(folder, temporal_server, _Found())
        try:
            yield made
        finally:
            made.end()
            site.shutdown()
            thread.join()
            router.stop(None).wait()


@pytest_asyncio.fixture
async def client(temporal_server: EmbeddedServer) -> Client:
    return await Client.connect(temporal_server.address)


async def _read_temporal(deployment: _Deployment, client: Client) -> None:
    service, namespace = client.workflow_service, client.namespace
    for workflow_id in deployment.tasks:
        handle = client.get_workflow_handle(workflow_id)
        history = await handle.fetch_history()
        deployment.found.add(f"history of {workflow_id}", history.to_json())
        for event in history.events:
            deployment.found.add(f"history of {workflow_id}", event.SerializeToString())
        request = DescribeWorkflowExecutionRequest(namespace=namespace)
        request.execution.workflow_id = workflow_id
        described = await service.describe_workflow_execution(request)
        deployment.found.add("descriptions, with memos and search attributes", described.SerializeToString())
    async for listed in await client.list_schedules():
        described_schedule = await service.describe_schedule(
            DescribeScheduleRequest(namespace=namespace, schedule_id=listed.id)
        )
        deployment.found.add("schedules", described_schedule.SerializeToString())


async def test_no_secret_is_anywhere(deployment: _Deployment, client: Client) -> None:
    found = deployment.found
    ends = {
        "ok": "completed",
        "denied": "failed: FeedForbidden",
        "gone": "failed: FeedNotFound",
        "redirect": "failed: FeedRefused",
    }
    for supplier, end in ends.items():
        ended = deployment.wait(deployment.start("harvest", supplier_code=supplier))
        assert ended.startswith(end), ended
    # This one is repeated.
    repeated = deployment.start("harvest", supplier_code="invalid")
    deployment.worker.wait_for("redirects to an invalid URL")
    deployment.call("GetTaskStatus", deployment.token, workflow_id=repeated)
    deployment.call("TerminateTask", deployment.token, workflow_id=repeated)
    deployment.wait(deployment.start("enrich", supplier_code="ok"))
    deployment.worker.wait_for("RouterRefused")
    schedule = {
        "schedule_id": "nightly",
        "workflow_type": "harvest",
        "cron": "0 3 * * *",
        "args": {"supplier_code": "ok"},
    }
    deployment.call("RegisterSchedules", deployment.token, project_id="acme", schedules=[schedule])
    deployment.call("DescribeContracts", deployment.token)
    deployment.call("ListTasks", deployment.token)
    deployment.call("StartWorkflow", deployment.token, workflow_type="harvest", suplier_code="ok")
    good = deployment.token.rpartition(".")
    rejected = {
        "expired": _token(SECRETS["expired token"], expires=int(time.time()) - 3600),
        "forged": _token(SECRETS["forged token"], secret="forged token"),
        "cut": f"{good[0]}.{SECRETS['no token']}",
        "none": SECRETS["no token"],
    }
    for name, token in rejected.items():
        assert deployment.call("ListTasks", token, f"answers to a token that is {name}") == {}
        headers = {"authorization": f"Bearer {token}", "cookie": f"a={SECRETS['cookie of a call']}"}
        assert deployment.get(f"{deployment.http}/openapi.json", headers) == 401
    headers = {"authorization": f"Bearer {deployment.token}", "x-api-key": SECRETS["API key of a call"]}
    assert deployment.get(f"{deployment.http}/openapi.json", headers) == 200
    path = f"{deployment.http}/contextunity.harvest.v1.HarvestService/Harvest"
    assert deployment.get(path, headers, b'{"supplierCode": "unheard-of"}') == 404
    assert deployment.command("list", token=deployment.token) == 0
    assert deployment.command("status", deployment.tasks[1], token=deployment.token) in (0, 1)
    assert deployment.command("schedules", "list", token=deployment.token) == 0
    assert deployment.command("list", token=rejected["forged"]) != 0
    for port in deployment.ports:
        assert deployment.get(f"http://127.0.0.1:{port}/metrics") == 200
    await _read_temporal(deployment, client)
    deployment.end()
    for file in (deployment.folder / ".contextworker").rglob("*"):
        if file.is_file():
            found.add(f"file {file.relative_to(deployment.folder)}", file.read_bytes())

    signatures = {name: token.rpartition(".")[2] for name, token in {**rejected, "good": deployment.token}.items()}
    assert found.leaks(**signatures) == []
    # It was really looked there.
    assert b"DEBUG" in found.texts["output of the service"]
    assert b'"level": "debug"' in found.texts["output of the worker"]
    assert b"GET http://127.0.0.1:" in found.texts["output of the worker"]
    assert any(b"FeedForbidden" in text for place, text in found.texts.items() if place.startswith("history"))
    assert {place.partition(" ")[0] for place in found.texts} == {
        *("HTTP", "answers", "descriptions,", "file", "history", "output", "schedules", "watches")
    }


def test_starts_that_fail_name_the_setting(temporal_server: EmbeddedServer, tmp_path: Path) -> None:
    """Real processes, each with several wrong settings: all are told at once."""
    found = _Found()
    tls_key = tmp_path / "key.pem"
    tls_key.write_text(f"-----BEGIN PRIVATE KEY-----\n{SECRETS['tls_key_file']}\n-----END PRIVATE KEY-----\n")
    (tmp_path / "cert.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "secret").write_text(f"{SECRETS['token_secret_file'][:20]}")
    (tmp_path / "keys").write_text(f'[hmac]\n"a:hmac-001" = {SECRETS["token_keys_file"]}\n')
    (tmp_path / "payload").write_text(f"current = {SECRETS['payload_keys_file']}\n")
    (tmp_path / "contextworker.toml").write_text(
        f"""\
[modules.harvest]
proxy = "http://u:{SECRETS["modules.harvest.proxy"]}/x@proxy"
[modules.harvest.suppliers.a]
url = "http://u:{SECRETS["modules.harvest.suppliers.*.url"]}/x@feeds"
[modules.gardener]
router_url = "http://u:{SECRETS["modules.gardener.router_url"]}@router"
router_tokens = ["{SECRETS["modules.gardener.router_tokens.*"]}"]
"""
    )
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue/contextworker.toml").write_text(
        f"""\
[modules.harvest]
catalogue_url = "oracle://u:{SECRETS["modules.harvest.catalogue_url"]}@db/x"
"""
    )
    (tmp_path / "keys-only").mkdir()
    secret_file, keys_file, payload_file = tmp_path / "secret", tmp_path / "keys", tmp_path / "payload"
    starts: list[tuple[Path, list[str], dict[str, str], list[str]]] = [
        (
            tmp_path,
            [],
            {
                "CONTEXTWORKER_QUOTAS_REDIS_URL": f"http://u:{SECRETS['quotas_redis_url']}@host",
                "CONTEXTWORKER_PAYLOAD_STORAGE": f"s3://key:{SECRETS['payload_storage']}@bucket",
                "WORKER_HTTP_ORIGINS": f"https://u:{SECRETS['no token']}@host",
            },
            [
                *("QUOTAS_REDIS_URL", "PAYLOAD_STORAGE", "WORKER_HTTP_ORIGINS"),
                *("proxy", "suppliers.a.url", "router_url", "router_tokens"),
            ],
        ),
        (
            tmp_path / "keys-only",
            [],
            {
                "CONTEXTWORKER_AUTH": "token",
                "CONTEXTWORKER_TOKEN_SECRET_FILE": str(secret_file),
                "CONTEXTWORKER_TOKEN_KEYS_FILE": str(keys_file),
            },
            [str(keys_file)],
        ),
        (
            tmp_path / "keys-only",
            [],
            {
                "CONTEXTWORKER_AUTH": "token",
                "CONTEXTWORKER_TOKEN_SECRET": SECRETS["token_secret"],
                "CONTEXTWORKER_REVOKED_TOKENS_REDIS_URL": f"redis://u:{SECRETS['revoked_tokens_redis_url']}@127.0.0.1:1",
                "TEMPORAL_ADDRESS": temporal_server.address,
            },
            ["REVOKED_TOKENS_REDIS_URL"],
        ),
        (
            tmp_path / "keys-only",
            [],
            {
                "CONTEXTWORKER_TLS_KEY_FILE": str(tls_key),
                "CONTEXTWORKER_TLS_CERT_FILE": str(tmp_path / "cert.pem"),
            },
            ["tls_cert_file"],
        ),
        (
            tmp_path / "keys-only",
            ["--temporal"],
            {"CONTEXTWORKER_PAYLOAD_KEYS_FILE": str(payload_file), "TEMPORAL_ADDRESS": "127.0.0.1:1"},
            ["payload_keys_file"],
        ),
    ]
    processes = [
        run_python(folder, "-m", "contextunity.worker", *arguments, **variables, LOG_LEVEL="debug", WORKER_PORT="0")
        for folder, arguments, variables, _ in starts
    ]
    for process, (_, _, variables, names) in zip(processes, starts, strict=True):
        try:
            assert process.wait() in (1, 2), process.output
        finally:
            process.end()
        for name in names:
            assert name in process.output, f"{variables}:\n{process.output}"
        found.add("output of a failed start", process.output)
    assert found.leaks() == []


@pytest.mark.parametrize(
    "url", ["oracle://u:{}@db/x", "sqlite//:{}@x", "postgresql:/u:{}@db", "u:{}@db", "x://u:{}/@b"]
)
def test_a_catalogue_that_is_no_database_is_told_without_its_password(url: str) -> None:
    secret = SECRETS["modules.harvest.catalogue_url"]
    with pytest.raises(ContextUnityError, match="catalogue") as caught:
        Catalogue.open(url.format(secret))
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_a_catalogue_that_does_not_answer_is_told_without_its_password(
    temporal_server: EmbeddedServer, tmp_path: Path
) -> None:
    found = _Found()
    url = f"postgresql://u:{SECRETS['modules.harvest.catalogue_url']}@127.0.0.1:1/x?connect_timeout=2"
    (tmp_path / "contextworker.toml").write_text(f'[modules.harvest]\ncatalogue_url = "{url}"\n')
    options = ("-m", "contextunity.worker", "--temporal", "--modules", "harvest")
    process = run_python(tmp_path, *options, LOG_LEVEL="debug", TEMPORAL_ADDRESS=temporal_server.address)
    try:
        assert process.wait() != 0, process.output
    finally:
        process.end()
    assert "catalogue postgresql://u:***@127.0.0.1:1/x" in process.output
    found.add("output of a failed start", process.output)
    assert found.leaks() == []
