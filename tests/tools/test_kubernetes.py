"""The example for Kubernetes: its commands, settings, ports and probes are those of this release."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from contextunity.worker.boundary import SERVICE_NAME
from contextunity.worker.cli.main import _parser
from contextunity.worker.readiness import WORKERS
from contextunity.worker.settings import Settings, load_settings
from tests.conftest import ROOT

# PyYAML has no types.
_YAML: Any = importlib.import_module("yaml")
_OBJECTS: list[dict[str, Any]] = list(_YAML.safe_load_all((ROOT / "deploy/kubernetes/contextworker.yaml").read_text()))
_PODS: dict[str, dict[str, Any]] = {
    each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in _OBJECTS if each["kind"] == "Deployment"
}
_NAMES = {"contextworker-service": SERVICE_NAME, "contextworker-workers": WORKERS}


def _container(name: str) -> dict[str, Any]:
    (container,) = _PODS[name]["containers"]
    return container


def _settings(name: str, folder: Path) -> Settings:
    environ = {each["name"]: str(each["value"]) for each in _container(name)["env"]}
    assert all(isinstance(each["value"], str) for each in _container(name)["env"])
    (folder / "contextworker.toml").write_text("")
    # The file of the example is one of the reader's own.
    return load_settings({**environ, "CONTEXTWORKER_SETTINGS": "contextworker.toml"}, folder)


def test_there_are_a_service_and_workers() -> None:
    assert _PODS.keys() == _NAMES.keys()
    for name in _NAMES:
        program, *words = _container(name)["command"]
        assert program == "contextworker"
        assert _parser(words).parse_args(words).command in ("serve", "temporal")


@pytest.mark.parametrize("name", _NAMES)
def test_settings_are_known_and_reach_other_pods(name: str, tmp_path: Path) -> None:
    settings = _settings(name, tmp_path)
    assert settings.auth == "token"
    assert settings.listen_host == settings.metrics_host == "0.0.0.0"
    assert _PODS[name].get("terminationGracePeriodSeconds", 30) > settings.shutdown_grace


@pytest.mark.parametrize("name", _NAMES)
def test_ports_and_probes_are_those_of_the_settings(name: str, tmp_path: Path) -> None:
    settings, container = _settings(name, tmp_path), _container(name)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports["metrics"] == settings.metrics_port
    asked = settings.health_port or settings.port
    assert ports.get("health", ports.get("grpc")) == asked
    assert container["readinessProbe"]["grpc"] == {"port": asked, "service": _NAMES[name]}
    assert container["livenessProbe"]["grpc"] == {"port": asked}


@pytest.mark.parametrize("name", _NAMES)
def test_files_are_mounted_and_secrets_are_not_everybodys(name: str, tmp_path: Path) -> None:
    settings, volumes = _settings(name, tmp_path), {each["name"]: each for each in _PODS[name]["volumes"]}
    mounts = {each["mountPath"]: each["name"] for each in _container(name)["volumeMounts"]}
    assert sorted(mounts.values()) == sorted(volumes)
    files = [settings.payload_keys_file, *([settings.token_keys_file] if name == "contextworker-service" else [])]
    for path in files:
        assert path is not None
        volume = volumes[mounts[str(path.parent)]]
        assert volume["secret"]["defaultMode"] == 0o400
        items = volume["secret"].get("items")
        assert items is None or path.name in [each["path"] for each in items]
    assert "emptyDir" in volumes[mounts[str(settings.data_folder)]]


def test_the_service_is_found_by_its_label() -> None:
    (service,) = (each for each in _OBJECTS if each["kind"] == "Service")
    (labels,) = (
        each["spec"]["template"]["metadata"]["labels"]
        for each in _OBJECTS
        if each["metadata"]["name"] == "contextworker-service"
    )
    assert service["spec"]["selector"].items() <= labels.items()
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] in [each["name"] for each in _container("contextworker-service")["ports"]]
