"""Whole runs: by the published command, over gRPC, after a harvest, through a worker's death, tenant by tenant."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.gardener.v1 import gardener_temporal
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal

from contextunity.modules.harvest.catalogue import Catalogue
from contextunity.modules.harvest.following import follower_for
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


def test_a_killed_worker_loses_and_repeats_nothing(house: Any) -> None:
    tenant = _tenant()
    house.configure("[modules.harvest]\nsample_products = 250\n")
    house.serve()
    first = house.work(*_BOTH)
    harvested = house.wait(house.start(supplier_code=_SUPPLIER, tenant_id=tenant))
    products = int(harvested["result"]["counts"]["synced"])
    assert products > 400
    # Batches of one product, so that there is a middle to be killed in.
    workflow_id = house.start(workflow_type="enrich", supplier_code=_SUPPLIER, tenant_id=tenant, batch_size=1)
    middle = house.wait_until(workflow_id, lambda status: _enriched(status) > 0)
    first.send(signal.SIGKILL)
    first.wait()
    assert middle["status"] == "running"
    with Catalogue.open(house.catalogue_url) as catalogue:
        assert catalogue.count_enriched(tenant, _SUPPLIER) < products
        house.work(*_BOTH)
        ended = house.wait(workflow_id)
        assert ended["status"] == "completed", ended
        assert int(ended["result"]["enriched"]) == products
        assert int(ended["result"].get("failed", 0)) == 0
        assert catalogue.count_enriched(tenant, _SUPPLIER) == products
        assert all(row.is_current for row in catalogue.enriched(tenant, _SUPPLIER, products))
    # Nothing is left to do.
    again = house.wait(house.start(workflow_type="enrich", supplier_code=_SUPPLIER, tenant_id=tenant))
    assert int(again["result"].get("enriched", 0)) == 0


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
