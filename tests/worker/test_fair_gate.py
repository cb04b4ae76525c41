"""Who is let through next, and that whoever goes away leaves no gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from contextunity.worker.fair_gate import FairGate, Turn

_ALL = 1000


class _Queue:
    """Those who enter a gate, and the order in which they were let through."""

    def __init__(self, gate: FairGate) -> None:
        self.gate = gate
        self.served: list[str] = []
        self.turns = dict[str, Turn]()
        self.tasks = dict[str, asyncio.Task[None]]()

    async def come(self, name: str, *, limit: int = _ALL, share: int = _ALL) -> None:
        """Has somebody enter; the tenant is what stands before the dash."""

        async def enter() -> None:
            self.turns[name] = await self.gate.enter(name.partition("-")[0], limit, share)
            self.served.append(name)

        self.tasks[name] = asyncio.create_task(enter())
        await settle()

    async def leave(self, name: str) -> None:
        self.turns.pop(name).leave()
        await settle()


async def settle() -> None:
    """Lets all that is ready run: none of it waits for anything but the gate."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def queue() -> AsyncIterator[_Queue]:
    queue = _Queue(FairGate(2))
    yield queue
    for task in queue.tasks.values():
        task.cancel()
    await asyncio.gather(*queue.tasks.values(), return_exceptions=True)


async def test_a_tenant_behind_a_hundred_of_anothers_is_next(queue: _Queue) -> None:
    for number in range(102):
        await queue.come(f"a-{number}")
    await queue.come("b-0")
    assert queue.served == ["a-0", "a-1"]
    await queue.leave("a-0")
    await queue.leave("a-1")
    # One of the two was already the first tenant's turn when the other came.
    assert "b-0" in queue.served[2:4]


async def test_tenants_that_wait_take_turns(queue: _Queue) -> None:
    for name in ("x-0", "x-1", "a-0", "a-1", "a-2", "b-0", "b-1", "c-0"):
        await queue.come(name)
    for _ in range(6):
        await queue.leave(queue.served[-1])
    assert queue.served[2:] == ["a-0", "b-0", "c-0", "a-1", "b-1", "a-2"]


async def test_a_tenant_takes_no_more_than_its_limit_and_the_next_one_passes_it(queue: _Queue) -> None:
    await queue.come("a-0", limit=1)
    await queue.come("a-1", limit=1)
    await queue.come("b-0", limit=1)
    assert queue.served == ["a-0", "b-0"]
    assert queue.gate.waiting("a") == 1
    await queue.leave("a-0")
    assert queue.served == ["a-0", "b-0", "a-1"]
    assert queue.gate.waiting("a") == 0


async def test_a_tenant_alone_may_have_more_than_its_share() -> None:
    queue = _Queue(FairGate(10))
    # It is the first that calls, so that others may have called just before.
    queue.gate._last_tenant = "a"
    for number in range(3):
        await queue.come(f"a-{number}", share=1)
    assert queue.served == ["a-0", "a-1", "a-2"]
    await queue.come("b-0", share=1)
    await queue.come("a-3", share=1)
    assert queue.served[3:] == ["b-0"]
    for number in range(3):
        await queue.leave(f"a-{number}")
    assert queue.served[4:] == ["a-3"]


async def test_who_stops_waiting_leaves_no_gap(queue: _Queue) -> None:
    for name in ("a-0", "a-1", "b-0", "b-1"):
        await queue.come(name)
    queue.tasks["b-0"].cancel()
    await settle()
    await queue.leave("a-0")
    assert queue.served[2:] == ["b-1"]
    await queue.come("c-0")
    # Its turn comes in the moment in which it goes away.
    queue.turns.pop("a-1").leave()
    queue.tasks["c-0"].cancel()
    await settle()
    await queue.come("d-0")
    assert queue.served[3:] == ["d-0"]


async def test_a_turn_that_is_left_twice_makes_room_for_one(queue: _Queue) -> None:
    for name in ("a-0", "a-1", "b-0", "b-1"):
        await queue.come(name)
    turn = queue.turns["a-0"]
    turn.leave()
    turn.leave()
    await settle()
    assert queue.served[2:] == ["b-0"]


async def test_what_takes_long_makes_room_for_those_who_wait() -> None:
    queue = _Queue(FairGate(1, seconds=0.02))
    await queue.come("a-0")
    await queue.come("b-0")
    async with asyncio.timeout(10):
        await queue.tasks["b-0"]
    assert queue.served == ["a-0", "b-0"]


async def test_a_gate_that_is_closed_fails_all_who_wait_and_come(queue: _Queue) -> None:
    for name in ("a-0", "a-1", "b-0"):
        await queue.come(name)
    queue.gate.close(ConnectionError("closed"))
    await queue.come("c-0")
    for name in ("b-0", "c-0"):
        with pytest.raises(ConnectionError):
            await queue.tasks[name]
    assert queue.served == ["a-0", "a-1"]


async def test_a_place_that_was_left_with_a_pause_is_for_others_only(queue: _Queue) -> None:
    for name in ("a-0", "a-1", "b-0"):
        await queue.come(name, share=1)
    assert queue.served == ["a-0", "b-0"]
    queue.turns.pop("a-0").leave(0.05)
    await queue.come("c-0", share=1)
    assert queue.served == ["a-0", "b-0", "c-0"]
    # A place is free from now on, but a's pause is not over.
    await queue.leave("c-0")
    assert queue.served == ["a-0", "b-0", "c-0"]
    async with asyncio.timeout(30):
        await queue.tasks["a-1"]


async def test_a_pause_that_nobody_waits_for_leaves_nothing_behind(queue: _Queue) -> None:
    await queue.come("a-0")
    queue.turns.pop("a-0").leave(0.01)
    await asyncio.sleep(0.05)
    await queue.come("a-1")
    await queue.come("a-2")
    assert queue.served == ["a-0", "a-1", "a-2"]
    assert queue.gate.waiting("a") == 0
