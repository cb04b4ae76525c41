"""Tenants take turns: in which order waiting tasks are handed out, and under which key each waits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import Priority
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from contextunity.worker import embedded
from contextunity.worker.embedded import embedded_server
from contextunity.worker.temporal.tenancy import fair_priority, fairness_key

_FLOOD = 200
_QUEUE = "turns"


@workflow.defn(name="takes_its_turn", sandboxed=False)
class _TakesItsTurn:
    @workflow.run
    async def run(self, name: str) -> None:
        _SERVED.append(name)


_SERVED: list[str] = []


async def _wait_in_line(client: Client, *, flood: int = _FLOOD) -> None:
    """Has tenant A's tasks wait, then one of tenant B's, while nobody polls."""
    for number in range(flood):
        name = f"a-{number}"
        await client.start_workflow(
            "takes_its_turn", name, id=name, task_queue=_QUEUE, priority=Priority(fairness_key="a")
        )
    await client.start_workflow("takes_its_turn", "b", id="b", task_queue=_QUEUE, priority=Priority(fairness_key="b"))


async def _served(client: Client, *, flood: int = _FLOOD) -> list[str]:
    """Has one task served after the other, and tells in which order."""
    _SERVED.clear()
    worker = Worker(
        client,
        task_queue=_QUEUE,
        workflows=[_TakesItsTurn],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=0,
        max_concurrent_workflow_tasks=1,
        max_concurrent_workflow_task_polls=1,
    )
    async with worker:
        names = [*(f"a-{number}" for number in range(flood)), "b"]
        await asyncio.gather(*(client.get_workflow_handle(name).result() for name in names))
    return list(_SERVED)


def _until_empty(connection: sqlite3.Connection, table: str) -> None:
    """Looks until a table of the server's is empty, since the server tells nobody when it is."""
    deadline = time.monotonic() + 60
    while connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]:
        assert time.monotonic() < deadline, f"{table} is never empty"
        time.sleep(0.1)


async def test_a_tenant_behind_a_flood_of_anothers_is_served_among_the_first(tmp_path: Path) -> None:
    async with embedded_server(tmp_path, port=0, ui_port=0) as server:
        client = await Client.connect(server.address)
        await _wait_in_line(client)
        assert (await _served(client)).index("b") < 5


async def test_without_fairness_it_is_served_after_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the other test cannot pass for another reason than the settings of the server."""
    monkeypatch.setattr(
        embedded, "_DYNAMIC_CONFIG", [each for each in embedded._DYNAMIC_CONFIG if "enableFairness" not in each]
    )
    async with embedded_server(tmp_path, port=0, ui_port=0) as server:
        client = await Client.connect(server.address)
        await _wait_in_line(client)
        assert (await _served(client)).index("b") > _FLOOD / 2


async def test_what_waited_on_a_server_without_fairness_is_served_by_one_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a data folder of an earlier version, whose queues had the server's usual four partitions."""
    with monkeypatch.context() as earlier:
        earlier.setattr(embedded, "_DYNAMIC_CONFIG", ('history.transferProcessorUpdateAckInterval="200ms"',))
        async with embedded_server(tmp_path, port=0, ui_port=0) as server:
            await _wait_in_line(await Client.connect(server.address), flood=40)
            # Until then the server would put them into the queues once more when it starts, and so mend them itself.
            with contextlib.closing(sqlite3.connect(server.database)) as connection:
                _until_empty(connection, "transfer_tasks")
                partitions = connection.execute("SELECT count(DISTINCT task_queue_id) FROM tasks").fetchone()[0]
    assert partitions == 4
    async with embedded_server(tmp_path, port=0, ui_port=0) as server:
        async with asyncio.timeout(60):
            served = await _served(await Client.connect(server.address), flood=40)
    assert sorted(served) == sorted([*(f"a-{number}" for number in range(40)), "b"])


def test_a_key_is_the_tenant_itself_up_to_what_the_server_takes() -> None:
    assert fairness_key("acme") == "acme"
    assert fairness_key("a" * 64) == "a" * 64
    assert fairness_key("") == ""


@pytest.mark.parametrize("tenant", ["a" * 65, "é" * 33, "b" * 200, "ж" * 200])
def test_a_longer_tenants_key_fits_and_is_its_own(tenant: str) -> None:
    key, others = fairness_key(tenant), fairness_key(tenant[:-1] + "x")
    assert len(key.encode()) == 64
    assert key == fairness_key(tenant)
    assert key != others


def test_the_tenants_key_counts_before_the_contracts_and_the_rest_stays() -> None:
    declared = Priority(priority_key=2, fairness_key="shop", fairness_weight=1.5)
    assert fair_priority("acme", declared) == Priority(priority_key=2, fairness_key="acme", fairness_weight=1.5)
    assert fair_priority("", declared) is declared
    assert fair_priority("acme") == Priority(fairness_key="acme")
    assert fair_priority("") is None
