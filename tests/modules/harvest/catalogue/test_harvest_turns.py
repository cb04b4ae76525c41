"""Turns of a tenant's harvests: so many at once, the others in the order in which they came."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from contextunity.modules.harvest.catalogue import Catalogue, harvests


def _ask(catalogue: Catalogue, number: int, *, tenant: str = "acme", limit: int = 2) -> harvests.Turn:
    return catalogue.take_turn(tenant, f"h{number}", f"harvest/{tenant}/s{number}", limit=limit)


def test_harvests_take_their_turns_in_the_order_in_which_they_came(catalogue: Catalogue) -> None:
    assert [_ask(catalogue, number).granted for number in range(5)] == [True, True, False, False, False]
    assert _ask(catalogue, 3).ahead == 3
    assert _ask(catalogue, 0, tenant="other").granted
    catalogue.end_turn("acme", "h0")
    catalogue.end_turn("acme", "h0")
    assert [_ask(catalogue, number).granted for number in (4, 3, 2, 1)] == [False, False, True, True]


def test_a_turn_is_kept_and_asked_for_any_number_of_times(catalogue: Catalogue) -> None:
    for _ in range(3):
        assert [_ask(catalogue, number).granted for number in range(3)] == [True, True, False]
    # Lowered, the quota holds for those that come.
    assert _ask(catalogue, 0, limit=1).granted
    assert not _ask(catalogue, 2, limit=1).granted
    assert _ask(catalogue, 2, limit=3).granted


def test_the_next_harvest_of_a_workflow_ends_the_turn_of_the_one_before(catalogue: Catalogue) -> None:
    assert catalogue.take_turn("acme", "h1", "harvest/acme/s", limit=1).granted
    assert catalogue.take_turn("acme", "h2", "harvest/acme/s", limit=1).granted


def test_those_in_front_are_looked_at_by_one_of_all_who_wait(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        assert _ask(catalogue, number).to_check == (), "they have just begun"
    monkeypatch.setattr(harvests, "_CHECK_INTERVAL", timedelta(0))
    assert _ask(catalogue, 3).to_check == (("h0", "harvest/acme/s0"), ("h1", "harvest/acme/s1"))
    monkeypatch.undo()
    assert _ask(catalogue, 2).to_check == (), "another one has just looked"


def test_turns_that_are_asked_for_at_once_are_no_more_than_the_quota(catalogue: Catalogue) -> None:
    with ThreadPoolExecutor(12) as threads:
        turns = list(threads.map(lambda number: _ask(catalogue, number, limit=5), range(12)))
    assert sum(turn.granted for turn in turns) == 5
    assert sorted(turn.ahead for turn in turns if not turn.granted) == list(range(5, 12))
