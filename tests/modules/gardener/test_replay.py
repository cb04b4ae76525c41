"""Gardeners and enrichments that other builds began go on with this one: their histories replay.

A history is recorded again only beside the old ones, never in their place: a gardener runs for years.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from contextunity.modules.gardener.workflows import EnrichWorkflow, GardenerWorkflow
from contextunity.worker.plugin import ContextWorkerPlugin

_HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
_ID = "gardener/default"


def _replayer() -> Replayer:
    return Replayer(workflows=[GardenerWorkflow, EnrichWorkflow], plugins=[ContextWorkerPlugin()])


@pytest.mark.parametrize("path", _HISTORIES, ids=[path.stem for path in _HISTORIES])
async def test_a_recorded_history_replays(path: Path) -> None:
    history = WorkflowHistory.from_json(_ID, path.read_text())
    replayed = await _replayer().replay_workflow(history, raise_on_replay_failure=False)
    assert replayed.replay_failure is None


def test_there_is_one_of_each_way_to_go() -> None:
    assert {path.stem for path in _HISTORIES} >= {
        "enrich_by_router",
        "enrich_by_rules",
        "enrich_by_rules_pages",
        "gardener_by_rules_pages",
        "gardener_cancelled",
        "gardener_continued",
    }


async def test_a_history_of_another_order_does_not_replay() -> None:
    """What the tests above are worth: a workflow that did something else is found out."""
    told = json.loads((Path(__file__).parent / "histories" / "enrich_by_router.json").read_text())
    changed = 0
    for event in told["events"]:
        scheduled = event.get("activityTaskScheduledEventAttributes")
        if scheduled is not None and scheduled["activityType"]["name"] == "write_enrichments":
            scheduled["activityType"]["name"] = "enrich_batch"
            changed += 1
    assert changed
    replayed = await _replayer().replay_workflow(WorkflowHistory.from_json(_ID, told), raise_on_replay_failure=False)
    assert isinstance(replayed.replay_failure, NondeterminismError)
