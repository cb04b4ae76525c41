"""What the README publishes is executed as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.modules.harvest.activities import fetch_products, sync_to_brain, transform_data
from contextunity.modules.harvest.workflows import HarvestWorkflow
from contextunity.worker.embedded import EmbeddedServer, usual_or_free_port
from contextunity.worker.errors import RegistryError

_ROOT = Path(__file__).resolve().parents[1]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _README, re.DOTALL)


def _block_with(language: str, text: str) -> str:
    (block,) = (block for block in _blocks(language) if text in block)
    return block


def test_the_calling_snippet_starts_a_workflow(
    spawn: Any, temporal_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, http_port = usual_or_free_port(0), usual_or_free_port(0)
    service = spawn(
        "-m",
        "contextunity.worker",
        TEMPORAL_ADDRESS=temporal_server.address,
        WORKER_HOST="127.0.0.1",
        WORKER_PORT=str(port),
        WORKER_HTTP_PORT=str(http_port),
    )
    service.wait_for("WorkerService listens on")
    names: dict[str, Any] = {}
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        # The snippet is for a service at the published address; this one has to make do with a port that is free.
        monkeypatch.setattr(grpc, "insecure_channel", lambda target: channel if target == "localhost:50052" else None)
        exec(_block_with("python", "stub.StartWorkflow"), names)
        assert names["workflow_id"] == "harvest/my_project/camping-trade"
        assert names["response"].payload["status"] == "started"
        assert isinstance(names["stub"], worker_pb2_grpc.WorkerServiceStub)
        ask = ContextUnit(payload={"workflow_id": names["workflow_id"]})
        status = names["stub"].GetTaskStatus(ask.to_protobuf(worker_pb2))
        assert status.payload["workflow_type"] == "harvest"
        again = names["stub"].StartWorkflow(names["unit"].to_protobuf(worker_pb2))
        assert again.payload["run_id"] == names["response"].payload["run_id"]
    curl = _block_with("sh", "buf curl").replace("localhost:50052", f"127.0.0.1:{port}").replace("\\\n", "")
    command = shlex.split(curl)
    command[0] = str(_ROOT / ".venv/bin/buf") if (_ROOT / ".venv/bin/buf").exists() else "buf"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"harvest/my_project/camping-trade"' in done.stdout
    _, _, header, _, body, url = shlex.split(_block_with("sh", "curl -H"))
    # No worker runs here, so the call must not wait.
    headers = {**dict([header.split(": ")]), "contextunity-detach": "true"}
    answer = httpx.post(url.replace("localhost:50080", f"127.0.0.1:{http_port}"), content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["contextunity-workflow-id"] == "harvest/default/camping-trade"


def test_the_registering_snippet_registers_its_module() -> None:
    names: dict[str, Any] = {
        "HarvestWorkflow": HarvestWorkflow,
        "fetch_products": fetch_products,
        "transform_data": transform_data,
        "sync_to_brain": sync_to_brain,
    }
    exec(_block_with("python", "registry.register"), names)
    assert list(names["registry"].modules) == ["harvest"]
    assert list(names["registry"].workflows) == ["harvest"]


def test_what_the_snippet_leaves_out_is_told() -> None:
    snippet = _block_with("python", "registry.register").replace("fetch_products, ", "")
    names: dict[str, Any] = {
        "HarvestWorkflow": HarvestWorkflow,
        "transform_data": transform_data,
        "sync_to_brain": sync_to_brain,
    }
    with pytest.raises(RegistryError, match="fetch_products"):
        exec(snippet, names)
