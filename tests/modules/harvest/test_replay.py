"""Harvests that other builds began go on with this one: their histories replay with the workflow of today.

A history is recorded again only beside the old ones, never in their place: a workflow may run for a day, and through
an upgrade.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from contextunity.modules.harvest.workflows import HarvestWorkflow
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
_ID = "harvest/acme/camping-trade"


def _replayer() -> Replayer:
    return Replayer(workflows=[HarvestWorkflow], plugins=[ContextWorkerPlugin()])


@pytest.mark.parametrize("path", _HISTORIES, ids=[path.stem for path in _HISTORIES])
async def test_a_recorded_harvest_replays(path: Path) -> None:
    history = WorkflowHistory.from_json(_ID, path.read_text())
    replayed = await _replayer().replay_workflow(history, raise_on_replay_failure=False)
    assert replayed.replay_failure is None


def test_there_are_histories_from_before_and_of_each_way_to_end() -> None:
    assert {path.stem for path in _HISTORIES} >= {
        "harvest_before_unchanged",
        "harvest_followed",
        "harvest_read",
        "harvest_unchanged",
    }


async def test_a_history_of_another_order_does_not_replay() -> None:
    """What the tests above are worth: a workflow that did something else is found out."""
    told = json.loads((Path(__file__).parent / "histories" / "harvest_read.json").read_text())
    synced = 0
    for event in told["events"]:
        scheduled = event.get("activityTaskScheduledEventAttributes")
        if scheduled is not None and scheduled["activityType"]["name"] == "sync_to_brain":
            scheduled["activityType"]["name"] = "transform_data"
            synced += 1
    assert synced > 1
    replayed = await _replayer().replay_workflow(WorkflowHistory.from_json(_ID, told), raise_on_replay_failure=False)
    assert isinstance(replayed.replay_failure, NondeterminismError)
