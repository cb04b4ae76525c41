"""Ids on the Temporal server: no two schedules share one, and they can be read back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextunity.worker.schedules import ScheduleName

_part = st.text(st.sampled_from("ab/%._-~ ü\n'*2F") | st.characters(exclude_categories=["Cs"]), max_size=8)
_names = st.builds(ScheduleName, tenant_id=_part, project_id=_part, schedule_id=_part)


@given(_names)
def test_an_id_leads_back_to_its_schedule(name: ScheduleName) -> None:
    assert ScheduleName.from_temporal_id(name.temporal_id) == name
    assert name.temporal_id.isascii()


@given(_names, _names)
def test_two_schedules_never_share_an_id(one: ScheduleName, other: ScheduleName) -> None:
    assert (one == other) == (one.temporal_id == other.temporal_id) == (one.workflow_id == other.workflow_id)


@pytest.mark.parametrize(
    "temporal_id",
    [
        pytest.param("", id="empty"),
        pytest.param("nightly", id="somebody-else's"),
        pytest.param("contextunity/a/b", id="too-few-parts"),
        pytest.param("contextunity/a/b/c/d", id="too-many-parts"),
        pytest.param("contextunity/a/b/c d", id="not-escaped"),
        pytest.param("contextunity/a/b/%61", id="escaped-without-need"),
    ],
)
def test_an_id_of_others_is_none_of_ours(temporal_id: str) -> None:
    assert ScheduleName.from_temporal_id(temporal_id) is None


def test_a_task_is_named_by_the_time_that_it_was_due() -> None:
    name = ScheduleName(tenant_id="my_project", project_id="shop/a", schedule_id="nightly")
    due = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert name.task_id(due) == "schedule/my_project/shop%2Fa/nightly-2026-01-02T03:04:05Z"
