"""More harvests than their tenant may have at once: they wait, through a worker's death, and go on by themselves."""

from __future__ import annotations

import json
import signal
import uuid
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from contextunity.modules.harvest.feed_server import FeedServer
from contextunity.modules.harvest.sample import write_sample
from contextunity.modules.harvest.workflows import HarvestWorkflow
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_SUPPLIER = '[modules.harvest.suppliers.{0}]\nurl = "{1}"\nallow_private = true\nformat = "shopify_csv"\n'


def _stage(status: dict[str, Any]) -> str:
    return str(status.get("progress", {}).get("stage", ""))


def test_a_harvest_over_the_quota_waits_and_begins_when_the_one_before_is_over(house: Any, tmp_path: Path) -> None:
    feed, tenant = tmp_path / "feed.csv", f"tenant-{uuid.uuid4().hex[:8]}"
    write_sample(feed, products=20)
    with FeedServer(feed) as fast, FeedServer(feed, bytes_per_second=2_000) as slow:
        suppliers = _SUPPLIER.format("slow", slow.url()) + _SUPPLIER.format("fast", fast.url())
        (tmp_path / "quotas.toml").write_text(f"[tenants.{tenant}]\nharvests = 1\n")
        house.configure(f'quotas_file = "quotas.toml"\n{suppliers}')
        house.serve()
        worker = house.work()
        first = house.start(supplier_code="slow", tenant_id=tenant)
        house.wait_until(first, lambda status: _stage(status) in ("HARVEST_STAGE_OPENING", "HARVEST_STAGE_RUNNING"))
        second = house.start(supplier_code="fast", tenant_id=tenant)
        waits = house.wait_until(second, lambda status: "waits for its turn" in json.dumps(status))
        assert _stage(waits) == "HARVEST_STAGE_WAITING"
        assert f"1 of the tenant '{tenant}' came before it, and its quota harvests = 1" in json.dumps(waits)
        worker.wait_for("fetch_products: waits for its turn, over the quota harvests of 1")
        # Of another tenant nothing waits.
        other = house.wait(house.start(supplier_code="fast", tenant_id=f"{tenant}-other"))
        assert other["status"] == "completed"
        worker.send(signal.SIGKILL)
        worker.wait()
        house.work()
        # A worker's death frees nothing: the first one goes on.
        waits = house.wait_until(second, lambda status: _stage(status) == "HARVEST_STAGE_WAITING")
        assert house.status(first)["status"] == "running"
        # A harvest that ends in any way does.
        house.call("TerminateTask", {"workflow_id": first, "reason": "enough"})
        ended = house.wait(second)
    assert ended["status"] == "completed", ended


async def test_harvests_of_the_release_before_are_replayed() -> None:
    """It has no turns. The history is of a harvest of the bundled supplier in pages of 10."""
    text = (Path(__file__).parent / "data" / "harvest_without_turns.json").read_text(encoding="utf-8")
    history = WorkflowHistory.from_json("harvest/acme/camping-trade", text)
    replayer = Replayer(workflows=[HarvestWorkflow], plugins=[ContextWorkerPlugin()])
    result = await replayer.replay_workflow(history)
    assert result.replay_failure is None
