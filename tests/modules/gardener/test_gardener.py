"""Whole runs: by the published command, over gRPC, after a harvest, through a worker's death, tenant by tenant."""

from __future__ import annotations

import signal
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity.gardener.v1 import gardener_temporal
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal
from contextunity.gen.contextunity.router import router_pb2_grpc

from contextunity.core import ContextUnit, worker_pb2
from contextunity.modules.harvest.catalogue import Catalogue
from contextunity.modules.harvest.on_finished import follower_for
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.errors import SettingsError
from python_temporal.contract import WorkflowContract

_SUPPLIER = "camping-trade"
_BOTH = ("--modules", "harvest", "gardener")


def _tenant() -> str:
    """The tests of a process share a Temporal server, so each has a tenant, and thereby workflow ids, of its own."""
    return f"tenant-{uuid.uuid4().hex[:8]}"


def _enriched(status: dict[str, Any]) -> int:
    return int(status.get("progress", {}).get("enriched", 0))


def test_a_harvest_has_the_gardener_of_its_tenant_enrich_what_came(house: Any) -> None:
    tenant, other = _tenant(), _tenant()
    house.configure('[modules.harvest]\nsample_products = 40\non_finished = "gardener"\n')
    house.serve()
    worker = house.work(*_BOTH)
    assert "run for modules: harvest, gardener" in worker.output
    harvested = house.wait(house.start(supplier_code=_SUPPLIER, tenant_id=tenant))
    assert harvested["status"] == "completed", harvested
    products = int(harvested["result"]["counts"]["synced"])
    gardener = f"gardener/{tenant}"
    status = house.wait_until(gardener, lambda status: _enriched(status) == products)
    assert status["status"] == "running"
    assert status["progress"]["batch_size"] == 50
    with Catalogue.open(house.catalogue_url) as catalogue:
        assert catalogue.count_enriched(tenant, _SUPPLIER) == products
        rows = catalogue.enriched(tenant, _SUPPLIER, products)
        assert all(row.category and row.is_current and row.enricher == "rules" for row in rows)
        # Nobody looked at what is another tenant's.
        house.wait(house.start(workflow_type="enrich", supplier_code=_SUPPLIER, tenant_id=other))
        assert catalogue.count_enriched(other, _SUPPLIER) == 0
    # The next harvest, of a feed that has not changed, tells it as well.
    house.wait(house.start(supplier_code=_SUPPLIER, tenant_id=tenant))
    house.wait_until(gardener, lambda status: int(status["progress"]["looks"]) > 1)
    update = {"workflow_id": gardener, "update": "set_batch_size", "args": {"batch_size": 7}}
    assert house.call("UpdateTask", update)["result"] == {"previous_batch_size": 50}
    house.call("SignalTask", {"workflow_id": gardener, "signal": "pause"})
    house.wait_until(gardener, lambda status: status["progress"]["stage"] == "GARDENER_STAGE_PAUSED")
    house.call("CancelTask", {"workflow_id": gardener})
    assert house.wait(gardener)["status"] == "cancelled"


class _Router(router_pb2_grpc.RouterServiceServicer):
    """Answers so many batches, and holds the others back until it is told to go on."""

    def __init__(self, batches: int) -> None:
        self._left = batches
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.asked = Counter[str]()
        self._lock = threading.Lock()

    def ExecuteAgent(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract names it so
        told: Any = ContextUnit.from_protobuf(request).payload["input"]
        skus = [product["sku"] for product in told["products"]]
        with self._lock:
            self.asked.update(skus)
            self._left -= 1
            held = self._left < 0
        if held:
            self.reached.set()
            self.go_on.wait(60)
        return ContextUnit(payload={"enrichments": [{"sku": sku} for sku in skus]}).to_protobuf(worker_pb2)


@pytest.fixture
def router() -> Iterator[tuple[_Router, int]]:
    servicer = _Router(batches=15)
    server = grpc.server(ThreadPoolExecutor(8))
    router_pb2_grpc.add_RouterServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, port
    servicer.go_on.set()
    server.stop(None).wait()


def test_a_killed_worker_loses_and_repeats_nothing(house: Any, router: tuple[_Router, int]) -> None:
    tenant, (servicer, port) = _tenant(), router
    house.configure(
        f'[modules.harvest]\nsample_products = 120\n[modules.gardener]\nrouter_url = "http://127.0.0.1:{port}"\n'
    )
    house.serve()
    first = house.work(*_BOTH)
    harvested = house.wait(house.start(supplier_code=_SUPPLIER, tenant_id=tenant))
    products = int(harvested["result"]["counts"]["synced"])
    assert products > 200
    workflow_id = house.start(workflow_type="enrich", supplier_code=_SUPPLIER, tenant_id=tenant, batch_size=10)
    # Ten batches or more are written at once, so that some are written, some made, and some at hand when it is killed.
    assert servicer.reached.wait(60)
    written = _enriched(house.wait_until(workflow_id, lambda status: _enriched(status) >= 100))
    assert written <= 150
    first.send(signal.SIGKILL)
    first.wait()
    servicer.go_on.set()
    with Catalogue.open(house.catalogue_url) as catalogue:
        assert catalogue.count_enriched(tenant, _SUPPLIER) == written
        house.work(*_BOTH)
        ended = house.wait(workflow_id)
        assert ended["status"] == "completed", ended
        assert int(ended["result"]["enriched"]) == products
        assert int(ended["result"].get("failed", 0)) == 0
        assert catalogue.count_enriched(tenant, _SUPPLIER) == products
        rows = catalogue.enriched(tenant, _SUPPLIER, products)
        assert all(row.is_current and row.enricher == "router" for row in rows)
    # What was made before is in the history: only the two batches that were at hand were asked for again.
    assert len(servicer.asked) == products
    assert sum(servicer.asked.values()) - products <= 20


def test_a_follower_that_is_none_stops_the_worker_with_a_line(
    spawn: Any, temporal_server: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "contextworker.toml").write_text('[modules.harvest]\non_finished = "gardner"\n')
    process = spawn("-m", "contextunity.worker", "--temporal", TEMPORAL_ADDRESS=temporal_server.address)
    assert process.wait() == 2
    assert (
        "modules.harvest.on_finished: 'gardner': there is no such workflow_type; known ones: enrich, execute_code, "
        "gardener, harvest, list_rejected"
    ) in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize(
    ("contract", "says"),
    [
        pytest.param(
            gardener_temporal.enrich_workflow.contract, "declares 0 signals with `start: true`", id="no signal"
        ),
        pytest.param(
            harvest_temporal.harvest_workflow.contract, "declares 0 signals with `start: true`", id="not start"
        ),
    ],
)
def test_a_workflow_that_cannot_be_told_so_is_refused(contract: WorkflowContract, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        follower_for(contract.name, {contract.name: contract})


def test_nobody_is_told_unless_the_settings_say_so() -> None:
    assert follower_for("", {}) is None
    contract = gardener_temporal.gardener_workflow.contract
    follower = follower_for("gardener", {"gardener": contract})
    assert follower is not None
    assert (follower.workflow_type, follower.signal.name) == ("gardener", "run_now")
