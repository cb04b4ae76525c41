"""The published commands, run as processes, and the errors that a person can provoke with them."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.worker.embedded import EmbeddedServer, usual_or_free_port

_WORKER = ("-m", "contextunity.worker")


def _serves(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest(service="contextunity.worker.WorkerService")
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(request, timeout=10, wait_for_ready=True)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def test_the_plain_command_serves_grpc_on_worker_host_and_port(spawn: Any, temporal_server: EmbeddedServer) -> None:
    port = usual_or_free_port(0)
    process = spawn(*_WORKER, TEMPORAL_ADDRESS=temporal_server.address, WORKER_HOST="127.0.0.1", WORKER_PORT=str(port))
    assert f"127.0.0.1:{port}" in process.wait_for("WorkerService listens on")
    assert _serves(port)
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert "Traceback" not in process.output


def test_keys_of_jwts_that_are_not_there_end_the_service_before_it_serves(spawn: Any) -> None:
    variables = {"AUTH": "token", "JWT_ISSUER": "i", "JWT_AUDIENCE": "a", "JWT_JWKS_URL": "http://127.0.0.1:1/jwks"}
    process = spawn(*_WORKER, **{f"CONTEXTWORKER_{name}": value for name, value in variables.items()})
    assert process.wait() == 2
    assert "jwt_jwks_url = 'http://127.0.0.1:1/jwks': ConnectError" in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        pytest.param({}, "127.0.0.1:50052", id="none"),
        pytest.param(
            {"CONTEXTWORKER_AUTH": "token", "CONTEXTWORKER_TOKEN_SECRET": "s" * 32}, "0.0.0.0:50052", id="token"
        ),
    ],
)
def test_the_default_address_is_the_published_one(
    spawn: Any, temporal_server: EmbeddedServer, variables: dict[str, str], address: str
) -> None:
    if usual_or_free_port(50052) != 50052:
        pytest.skip("something else listens on 50052 here")
    process = spawn(*_WORKER, TEMPORAL_ADDRESS=temporal_server.address, **variables)
    assert address in process.wait_for("WorkerService listens on")
    assert _serves(50052)


def test_listening_beyond_this_machine_without_asking_who_calls_ends_with_2(spawn: Any) -> None:
    process = spawn(*_WORKER, WORKER_HOST="0.0.0.0")
    assert process.wait() == 2
    assert "WORKER_HOST = '0.0.0.0'" in process.output
    assert "CONTEXTWORKER_AUTH=token" in process.output
    assert "Traceback" not in process.output


def test_temporal_runs_workers_for_all_modules_until_it_is_told_to_stop(
    spawn: Any, temporal_server: EmbeddedServer
) -> None:
    process = spawn(*_WORKER, "--temporal", TEMPORAL_ADDRESS=temporal_server.address)
    assert "harvest" in process.wait_for("Temporal workers run for modules:")
    process.send(signal.SIGINT)
    assert process.wait() == 0
    assert "Traceback" not in process.output


def test_an_unknown_module_ends_with_2_and_the_known_ones(spawn: Any, temporal_server: EmbeddedServer) -> None:
    process = spawn(*_WORKER, "--temporal", "--modules", "harvest", "no-such", TEMPORAL_ADDRESS=temporal_server.address)
    assert process.wait() == 2
    assert "unknown module 'no-such'; known modules:" in process.output
    assert "harvest" in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("options", [(), ("--temporal",)], ids=["grpc", "temporal"])
def test_no_temporal_server_is_told_with_its_address_and_the_way_out(spawn: Any, options: tuple[str, ...]) -> None:
    address = f"127.0.0.1:{usual_or_free_port(0)}"
    process = spawn(*_WORKER, *options, TEMPORAL_ADDRESS=address, CONTEXTWORKER_TEMPORAL_TIMEOUT="3")
    assert process.wait() == 1
    assert f"no Temporal server answers at {address}" in process.output
    assert "python -m contextunity.worker dev" in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("options", [(), ("--temporal",)], ids=["grpc", "temporal"])
def test_a_namespace_that_is_not_there_is_told_with_the_way_out(
    spawn: Any, temporal_server: EmbeddedServer, options: tuple[str, ...]
) -> None:
    process = spawn(*_WORKER, *options, TEMPORAL_ADDRESS=temporal_server.address, TEMPORAL_NAMESPACE="no-such")
    assert process.wait() == 1
    assert "the Temporal server has no namespace 'no-such'" in process.output
    assert "temporal operator namespace create --namespace no-such" in process.output
    assert "search attributes" not in process.output
    assert "Traceback" not in process.output


def test_settings_of_temporals_sdk_that_are_wrong_end_with_2(spawn: Any, tmp_path: Path) -> None:
    (tmp_path / "temporal.toml").write_text('[profile.default]\napi_key = "a-secret-without-an-end\n')
    process = spawn(*_WORKER, TEMPORAL_CONFIG_FILE="temporal.toml")
    assert process.wait() == 2
    assert "Temporal's own settings: Configuration loading error: TOML parse error at line 2" in process.output
    assert "TEMPORAL_CONFIG_FILE" in process.output
    assert "a-secret" not in process.output
    assert "Traceback" not in process.output


def test_a_taken_port_is_told(spawn: Any, temporal_server: EmbeddedServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port: int = other.getsockname()[1]
        process = spawn(
            *_WORKER, TEMPORAL_ADDRESS=temporal_server.address, WORKER_HOST="127.0.0.1", WORKER_PORT=str(port)
        )
        assert process.wait() == 1
    assert f"cannot listen on 127.0.0.1:{port}" in process.output
    assert "WORKER_PORT" in process.output


def test_wrong_settings_end_with_2_and_all_of_them_named(spawn: Any, tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text(
        'colour = "red"\n[modules.harvest]\nsample_products = "many"\n[modules.harvest.suppliers.x]\nurl = "ftp://x"\n'
    )
    process = spawn(*_WORKER)
    assert process.wait() == 2
    assert "colour: unknown setting" in process.output
    (tmp_path / "contextworker.toml").write_text(
        '[modules.harvest]\nsample_products = "many"\n[modules.harvest.suppliers.x]\nurl = "ftp://x"\n'
    )
    process = spawn(*_WORKER)
    assert process.wait() == 2
    assert "modules.harvest.sample_products = 'many'" in process.output
    assert "modules.harvest.suppliers.x.url = 'ftp://x'" in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("words", [("dev",), ("--temporal",), ("--temporal", "--modules", "harvest")])
def test_a_data_folder_that_cannot_be_written_to_ends_with_2(
    spawn: Any, temporal_server: EmbeddedServer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "data"
    process = spawn(*_WORKER, *words, TEMPORAL_ADDRESS=temporal_server.address, CONTEXTWORKER_DATA_FOLDER=str(folder))
    assert process.wait() == 2
    assert f"cannot write to the data folder {folder}: not a directory; choose another with" in process.output
    assert "CONTEXTWORKER_DATA_FOLDER" in process.output
    assert "Traceback" not in process.output


def test_settings_of_a_module_that_does_not_exist_are_told(spawn: Any, tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text("[modules.harvset]\nsample_products = 1\n")
    process = spawn(*_WORKER)
    assert process.wait() == 2
    assert "modules.harvset: there is no such module; known modules: code, gardener, harvest" in process.output


def test_every_module_that_does_not_load_is_listed(spawn: Any, tmp_path: Path) -> None:
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('bad wiring')\n")
    (tmp_path / "wrong_module.py").write_text("module = 7\n")
    process = spawn(
        *_WORKER, "--temporal", WORKER_MODULES="broken_module, wrong_module, nowhere", PYTHONPATH=str(tmp_path)
    )
    assert process.wait() == 2
    place = f"{tmp_path}/broken_module.py:1"
    assert f"'broken_module' (WORKER_MODULES) cannot be loaded: {place}: RuntimeError: bad wiring" in process.output
    assert "'wrong_module' (WORKER_MODULES) is a int" in process.output
    assert "'nowhere' (WORKER_MODULES) cannot be loaded: ModuleNotFoundError" in process.output


def test_modules_without_temporal_is_a_mistake_that_is_told(spawn: Any) -> None:
    process = spawn(*_WORKER, "--modules", "harvest")
    assert process.wait() == 2
    assert "--modules goes with --temporal" in process.output


def test_dev_brings_everything_and_its_commands_can_be_pasted(spawn: Any, tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text("[modules.harvest]\nsample_products = 20\n")
    port = usual_or_free_port(0)
    process = spawn(
        *_WORKER, "dev", "--temporal-port", "0", "--ui-port", "0", WORKER_PORT=str(port), WORKER_HTTP_PORT="0"
    )
    process.wait_for("ContextWorker runs")
    http = process.wait_for("HTTP with JSON").split()[-1]
    ui = process.wait_for("Temporal web UI").split()[-1]
    # The web UI shows payloads in clear by the codec endpoint, which its pages may ask.
    endpoint = httpx.get(f"{ui}/api/v1/settings").json()["Codec"]["Endpoint"]
    assert endpoint == f"{http}/codec/default"
    asks = {"origin": ui, "access-control-request-method": "POST", "access-control-request-headers": "x-namespace"}
    assert httpx.options(f"{endpoint}/decode", headers=asks).status_code == 200
    assert httpx.post(f"{endpoint}/decode", json={"payloads": []}).json() == {"payloads": []}
    command = process.wait_for("/StartWorkflow").strip()
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["payload"]["status"] == "started"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        ask = ContextUnit(payload={"workflow_id": json.loads(done.stdout)["payload"]["workflow_id"]})
        assert stub.GetTaskStatus(ask.to_protobuf(worker_pb2)).payload["status"] in ("running", "completed")
    process.send(signal.SIGINT)
    assert process.wait() == 0
    assert "Traceback" not in process.output


def test_help_is_there_for_the_installed_command_too() -> None:
    command = shutil.which("contextworker", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "python -m contextunity.worker dev" in done.stdout
