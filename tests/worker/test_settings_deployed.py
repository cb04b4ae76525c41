"""Settings of the deployed system: what is taken, what stops the start, what is passed over."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from contextunity.core.tokens import ContextToken, mint
from contextunity.worker.auth import authenticator_for
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.errors import RegistryError, SettingsError
from contextunity.worker.modules.discovery import discover
from contextunity.worker.settings import ignored_warning, load_settings, nearest
from contextunity.worker.temporal.client import with_port

_WORKER = ("-m", "contextunity.worker")
_SECRET = "a secret of more than thirty-two bytes"


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"TEMPORAL_HOST": "temporal:7233"}, "temporal_host", "temporal:7233"),
        ({"LOG_LEVEL": "DEBUG"}, "log_level", "debug"),
        ({"LOG_LEVEL": "Warn"}, "log_level", "warning"),
        ({"LOG_LEVEL": "CRITICAL"}, "log_level", "error"),
        ({"LOG_LEVEL": "DEBUG", "CONTEXTWORKER_LOG_LEVEL": "Error"}, "log_level", "error"),
        ({"CU_PROJECT_SECRET": _SECRET}, "auth", "token"),
        ({"CU_PROJECT_SECRET": _SECRET, "CONTEXTWORKER_AUTH": "none"}, "auth", "none"),
        ({"CU_PROJECT_SECRET": _SECRET}, "listen_host", "0.0.0.0"),
        ({"CU_PROJECT_SECRET": _SECRET, "CONTEXTWORKER_TOKEN_SECRET": "s" * 32}, "auth", "none"),
        ({"CU_PROJECT_SECRET": _SECRET, "CONTEXTWORKER_TOKEN_SECRET_FILE": "f"}, "token_secret", None),
        ({"GRPC_TLS_ENABLED": "false"}, "port", 50052),
        ({"WORKER_PORT": "tcp://10.0.0.7:50052"}, "port", 50052),
    ],
)
def test_what_is_taken(tmp_path: Path, environ: dict[str, str], field: str, value: Any) -> None:
    assert getattr(load_settings(environ, tmp_path), field) == value


def test_the_secret_is_the_one_that_verifies(tmp_path: Path) -> None:
    settings = load_settings({"CU_PROJECT_SECRET": _SECRET}, tmp_path)
    assert settings.token_secret is not None
    assert settings.token_secret.get_secret_value() == _SECRET


def test_a_wrong_level_is_told_by_the_name_that_has_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LOG_LEVEL = 'loud'"):
        load_settings({"LOG_LEVEL": "loud"}, tmp_path)


@pytest.mark.parametrize("value", ["true", "TRUE", "1", "yes"])
def test_tls_without_files_stops_the_start(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"GRPC_TLS_ENABLED": value}, tmp_path)
    assert [fault.partition(" names")[0] for fault in caught.value.faults] == [
        "GRPC_TLS_ENABLED is set, but GRPC_TLS_SERVER_CERT",
        "GRPC_TLS_ENABLED is set, but GRPC_TLS_SERVER_KEY",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONTEXTWORKER_SERVICE_HOST", "10.0.0.7"),
        ("CONTEXTWORKER_SERVICE_PORT", "50052"),
        ("CONTEXTWORKER_SERVICE_PORT_GRPC", "50052"),
        ("CONTEXTWORKER_PORT", "tcp://10.0.0.7:50052"),
        ("CONTEXTWORKER_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
        ("CONTEXTWORKER_PORT_8080_TCP_ADDR", "10.0.0.7"),
        ("WORKER_PORT_8080_UDP_PROTO", "udp"),
        ("WORKER_SERVICE_HOST", "10.0.0.7"),
        ("WORKER_CLASS", "uvicorn"),
        ("WORKER_POOL", "7"),
        ("WORKER_TENANTS", "a,b"),
        ("WORKER_INSTANCE_NAME", "w"),
    ],
)
def test_what_is_passed_over(tmp_path: Path, name: str, value: str) -> None:
    assert load_settings({name: value}, tmp_path) == load_settings({}, tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WORKER_PROT", "WORKER_PORT"),
        ("WORKER_MODULE", "WORKER_MODULES"),
        ("WROKER_HOST", "WORKER_HOST"),
        ("worker_port", "WORKER_PORT"),
        ("CONTEXTWORKER_AUHT", "CONTEXTWORKER_AUTH"),
        ("CONTEXT_WORKER_AUTH", "CONTEXTWORKER_AUTH"),
        ("CONTEXTWORKER_DATA_FOLDR", "CONTEXTWORKER_DATA_FOLDER"),
    ],
)
def test_a_slip_is_told_with_the_nearest(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({name: "1"}, tmp_path)
    assert caught.value.faults == (f"environment variable {name} is not a setting; did you mean {meant}?",)


def test_the_environment_of_this_machine_has_no_slip() -> None:
    known = {"WORKER_PORT", "WORKER_HOST", "WORKER_MODULES"}
    assert [name for name in os.environ.keys() - known if nearest(name, known)] == []


def test_what_means_nothing_is_named_in_one_warning() -> None:
    told = ignored_warning({"WORKER_TENANTS": "a", "WORKER_INSTANCE_NAME": "b", "PATH": "c"})
    assert "WORKER_TENANTS" in told
    assert "WORKER_INSTANCE_NAME" in told
    assert ignored_warning({"PATH": "c"}) == ""


@pytest.mark.parametrize(
    ("given", "address"),
    [("h", "h:7233"), ("h:1", "h:1"), ("[::1]:1", "[::1]:1"), ("[::1]", "[::1]:7233"), ("::1", "[::1]:7233")],
)
def test_the_port_may_be_left_out(given: str, address: str) -> None:
    assert with_port(given) == address


def test_the_service_starts_by_the_names_of_the_deployed_system(spawn: Any, temporal_server: EmbeddedServer) -> None:
    process = spawn(
        *_WORKER,
        "serve",
        "--log-level",
        "INFO",
        TEMPORAL_HOST=temporal_server.address,
        WORKER_HOST="127.0.0.1",
        WORKER_PORT="0",
        WORKER_TENANTS="a",
        WORKER_INSTANCE_NAME="b",
    )
    process.wait_for("WorkerService listens on")
    assert len([line for line in process.lines if "WORKER_TENANTS" in line and "WORKER_INSTANCE_NAME" in line]) == 1


@pytest.mark.parametrize("words", [("temporal", "-m", "code"), ("--temporal", "-m", "code")])
def test_workers_start_by_them_too(spawn: Any, temporal_server: EmbeddedServer, words: tuple[str, ...]) -> None:
    # The flag wins over the environment.
    process = spawn(
        *_WORKER, *words, "--temporal-host", temporal_server.address, TEMPORAL_ADDRESS="127.0.0.1:1", LOG_LEVEL="ERROR"
    )
    assert process.wait_for("Temporal workers run for modules:").split("modules: ")[1].startswith("code;")


def test_a_plug_in_of_the_deployed_shape_is_refused_with_the_config_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deployed_plugin.py").write_text(
        "class Harvest: ...\ndef fetch(): ...\n"
        "def register_all(registry):\n"
        "    registry.register(name='old', queue='old-tasks', workflows=[Harvest], activities=[fetch])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RegistryError) as caught:
        discover(load_settings({"WORKER_MODULES": "deployed_plugin"}, tmp_path))
    (fault,) = caught.value.faults
    assert "module = ModuleConfig(name='old', workflows=[Harvest], activities=[fetch])" in fault
    assert 'task_queue: "old-tasks"' in fault


def test_a_token_that_could_be_revoked_is_warned_of_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    authenticator = authenticator_for(load_settings({"CU_PROJECT_SECRET": _SECRET}, tmp_path))
    token = mint(ContextToken(token_id="t", revocation_id="r"), kid="p:hmac-001", secret=_SECRET.encode())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            authenticator.authenticate([("authorization", f"Bearer {token}")])
    assert [record.message for record in caplog.records if "revocation" in record.message] == [
        "a token has a revocation_id, but no revocation list is configured: revoked tokens are valid until they expire"
    ]
