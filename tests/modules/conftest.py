"""A gRPC service and workers as processes of their own, and a caller that knows nothing but the service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.worker.embedded import EmbeddedServer, usual_or_free_port
from tests.conftest import run_python

_POLL_SECONDS = 0.05
_TIMEOUT_SECONDS = 90.0


class House:
    """The processes of a deployment, and a caller of its service."""

    def __init__(self, spawn: Any, temporal: EmbeddedServer, folder: Path, shared_service: Callable[[], int]) -> None:
        self._spawn = spawn
        self._temporal = temporal
        self._shared_service = shared_service
        self._channel: grpc.Channel | None = None
        self.folder = folder
        self.port = 0

    @property
    def catalogue_url(self) -> str:
        return f"sqlite:///{self.folder / '.contextworker' / 'harvest' / 'catalogue.db'}"

    def configure(self, text: str) -> None:
        (self.folder / "contextworker.toml").write_text(text)

    def serve(self) -> None:
        """Calls go to the service that the tests of a process share: it knows of no supplier and keeps no feed."""
        self._reach(self._shared_service())

    def serve_alone(self, **variables: str) -> Any:
        """Starts a service of its own, in the folder of the test."""
        port = usual_or_free_port(0)
        process = self._spawn("-m", "contextunity.worker", **_service_variables(self._temporal, port), **variables)
        process.wait_for("WorkerService listens on")
        self._reach(port)
        return process

    def _reach(self, port: int) -> None:
        self.close()
        self.port = port
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._stub = worker_pb2_grpc.WorkerServiceStub(self._channel)

    def work(self, *options: str, **variables: str) -> Any:
        process = self._spawn(
            "-m", "contextunity.worker", "--temporal", *options, TEMPORAL_ADDRESS=self._temporal.address, **variables
        )
        process.wait_for("Temporal workers run for modules")
        return process

    def call(self, method: str, payload: dict[str, Any]) -> dict[str, Any]:
        unit = ContextUnit(payload=payload, provenance=["test:caller"])
        answer = getattr(self._stub, method)(unit.to_protobuf(worker_pb2), timeout=30, wait_for_ready=True)
        face = ContextUnit.from_protobuf(answer)
        assert face.parent_unit_id == unit.unit_id
        assert face.trace_id == unit.trace_id
        assert face.provenance[0] == "test:caller"
        return dict(face.payload)

    def start(self, **payload: Any) -> str:
        answer = self.call("StartWorkflow", {"workflow_type": "harvest", **payload})
        assert answer["status"] == "started"
        return str(answer["workflow_id"])

    def status(self, workflow_id: str) -> dict[str, Any]:
        return self.call("GetTaskStatus", {"workflow_id": workflow_id})

    def wait_until(self, workflow_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Asks until the status is as wanted; there is no event to wait for across the service."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            status = self.status(workflow_id)
            if reached(status):
                return status
            assert time.monotonic() < deadline, f"never reached; last status: {status}"
            time.sleep(_POLL_SECONDS)

    def wait(self, workflow_id: str) -> dict[str, Any]:
        return self.wait_until(workflow_id, lambda status: status["status"] != "running")

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()


def _service_variables(temporal: EmbeddedServer, port: int) -> dict[str, str]:
    return {"TEMPORAL_ADDRESS": temporal.address, "WORKER_HOST": "127.0.0.1", "WORKER_PORT": str(port)}


@pytest.fixture(scope="session")
def service_port(temporal_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a service listens that all tests of a process may call; tenants keep them apart."""
    port = usual_or_free_port(0)
    folder = tmp_path_factory.mktemp("service")
    process = run_python(folder, "-m", "contextunity.worker", **_service_variables(temporal_server, port))
    process.wait_for("WorkerService listens on")
    yield port
    process.end()


@pytest.fixture
def house(
    request: pytest.FixtureRequest, spawn: Any, temporal_server: EmbeddedServer, tmp_path: Path
) -> Iterator[House]:
    house = House(spawn, temporal_server, tmp_path, lambda: request.getfixturevalue("service_port"))
    yield house
    house.close()
