"""The context of the work at hand."""

from __future__ import annotations

import asyncio
import doctest

import pytest

from contextunity.core import context
from contextunity.core.context import TaskContext


def test_without_any_the_context_is_empty() -> None:
    assert context.current() == TaskContext()


def test_the_innermost_context_is_the_current_one_until_it_is_left() -> None:
    outer, inner = TaskContext(trace_id="outer"), TaskContext(trace_id="inner")
    with context.using(outer):
        with context.using(inner):
            assert context.current() is inner
        assert context.current() is outer
        with context.using(None):
            assert context.current() == TaskContext()
    assert context.current() == TaskContext()


def test_an_error_leaves_the_context_too() -> None:
    with pytest.raises(RuntimeError), context.using(TaskContext(trace_id="t")):
        raise RuntimeError
    assert context.current() == TaskContext()


async def test_tasks_keep_apart() -> None:
    entered = asyncio.Barrier(2)

    async def trace(name: str) -> str:
        with context.using(TaskContext(trace_id=name)):
            await entered.wait()
            return context.current().trace_id

    assert await asyncio.gather(trace("a"), trace("b")) == ["a", "b"]


@pytest.mark.parametrize(
    ("provenance", "extended"),
    [
        pytest.param([], ["harvest:fetch"], id="first"),
        pytest.param(["shop:click"], ["shop:click", "harvest:fetch"], id="further"),
        pytest.param(["shop:click", "harvest:fetch"], ["shop:click", "harvest:fetch"], id="the same again"),
        pytest.param(["harvest:fetch", "b:c"], ["harvest:fetch", "b:c", "harvest:fetch"], id="once more, later"),
    ],
)
def test_provenance_is_extended_in_a_copy(provenance: list[str], extended: list[str]) -> None:
    before = TaskContext(trace_id="t", unit_id="u", tenant_id="n", provenance=list(provenance), principal="p")
    after = context.extended(before, "harvest:fetch")
    assert after == TaskContext(trace_id="t", unit_id="u", tenant_id="n", provenance=extended, principal="p")
    assert before.provenance == provenance
    after.provenance.append("x:y")
    assert before.provenance == provenance


def test_provenance_has_a_bound() -> None:
    way = TaskContext()
    for step in range(context.MAX_PROVENANCE + 2):
        way = context.extended(way, f"service:{step}")
    assert way.provenance == [f"service:{step}" for step in range(context.MAX_PROVENANCE)]


def test_an_adopted_context_ends_with_its_task() -> None:
    async def adopting() -> str:
        context.adopt(TaskContext(trace_id="t"))
        return context.current().trace_id

    assert asyncio.run(adopting()) == "t"
    assert context.current() == TaskContext()


def test_the_fallback_is_asked_where_there_is_no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_fallback", None)
    found: TaskContext | None = TaskContext(trace_id="fallback")
    context.fall_back_on(lambda: found)
    assert context.current() is found
    with context.using(TaskContext(trace_id="t")):
        assert context.current().trace_id == "t"
    found = None
    assert context.current() == TaskContext()


def test_its_example_is_true() -> None:
    assert doctest.testmod(context).failed == 0
