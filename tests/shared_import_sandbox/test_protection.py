"""Ours refuses what the SDK's own sandbox refuses, word for word, and allows what that allows."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.client import Client

from tests.shared_import_sandbox.conftest import first_task_failure, result_of, running, sharing_runner, stock_runner


async def test_it_refuses_the_same(
    client: Client, steps: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "shared_import_sandbox")
    hostile = steps("hostile_steps")
    outcomes = dict[str, dict[str, str]]()
    for kind, runner in (("ours", sharing_runner()), ("stock", stock_runner())):
        async with running(client, [hostile.Hostile], runner) as queue:
            names = (*hostile.FORBIDDEN, *hostile.ALLOWED)
            found = await asyncio.gather(*(result_of(client, queue, "Hostile", name) for name in names))
            outcomes[kind] = dict(zip(names, found, strict=True))
    assert outcomes["ours"] == outcomes["stock"]
    refused = {name for name, outcome in outcomes["ours"].items() if outcome.startswith("refused: ")}
    assert refused == {*hostile.FORBIDDEN}
    assert outcomes["ours"]["local_import_twice"] == "allowed: 'refused twice'"
    # It was one import for all of them until the end, and nothing was found changed.
    told = [record.message for record in caplog.records if record.name == "shared_import_sandbox"]
    assert told == ["workflow module hostile_steps: imported once, for all runs"]


async def test_what_is_refused_fails_the_task(client: Client, steps: Callable[[str], Any]) -> None:
    careless = steps("hostile_steps").Careless
    async with running(client, [careless], sharing_runner()) as queue:
        handle = await client.start_workflow("Careless", id=f"careless-{uuid.uuid4()}", task_queue=queue)
        assert "Cannot access random.random" in await first_task_failure(handle)
        await handle.terminate()
