"""Cron expressions: what they compile to, what is refused, and that the server reads them just so."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.schedule.v1 import StructuredCalendarSpec
from temporalio.client import Client, Schedule, ScheduleActionStartWorkflow, ScheduleSpec

from contextunity.worker.schedules import CronError, compile_cron
from contextunity.worker.schedules.cron import cron_text

_FIELDS = ("minute", "hour", "day_of_month", "month", "day_of_week")


def _values(calendar: StructuredCalendarSpec) -> list[set[int]]:
    return [
        {value for each in getattr(calendar, name) for value in range(each.start, each.end + 1, each.step)}
        for name in _FIELDS
    ]


_ALL = [set(range(60)), set(range(24)), set(range(1, 32)), set(range(1, 13)), set(range(7))]


@pytest.mark.parametrize(
    ("expression", "changes"),
    [
        pytest.param("* * * * *", {}, id="always"),
        pytest.param("0 6 * * MON-FRI", {0: {0}, 1: {6}, 4: {1, 2, 3, 4, 5}}, id="names"),
        pytest.param("0 6 * jan,Mar *", {0: {0}, 1: {6}, 3: {1, 3}}, id="months-in-any-case"),
        pytest.param("*/15 8-18/5 * * *", {0: {0, 15, 30, 45}, 1: {8, 13, 18}}, id="steps"),
        pytest.param("05 06 1 * *", {0: {5}, 1: {6}, 2: {1}}, id="leading-zeros"),
        pytest.param("0 0 * * 7", {0: {0}, 1: {0}, 4: {0}}, id="sunday-is-seven"),
        pytest.param("0 0 * * 5-7", {0: {0}, 1: {0}, 4: {5, 6, 0}}, id="until-sunday-by-number"),
        pytest.param("0 0 * * FRI-SUN", {0: {0}, 1: {0}, 4: {5, 6, 0}}, id="until-sunday-by-name"),
        pytest.param("0 0 * * SUN-MON", {0: {0}, 1: {0}, 4: {0, 1}}, id="from-sunday"),
        pytest.param("1,2,3,30 0 29 2 *", {0: {1, 2, 3, 30}, 1: {0}, 2: {29}, 3: {2}}, id="leap-day"),
        # Only some of the months have such a day, and the longest counts.
        pytest.param("0 3 31 * *", {0: {0}, 1: {3}, 2: {31}}, id="last-day"),
        pytest.param("0 3 30 2,4 *", {0: {0}, 1: {3}, 2: {30}, 3: {2, 4}}, id="day-of-one-of-two-months"),
        pytest.param("@hourly", {0: {0}}, id="hourly"),
        pytest.param("@Daily", {0: {0}, 1: {0}}, id="daily-in-any-case"),
        pytest.param("@weekly", {0: {0}, 1: {0}, 4: {0}}, id="weekly"),
        pytest.param("@monthly", {0: {0}, 1: {0}, 2: {1}}, id="monthly"),
        pytest.param("@yearly", {0: {0}, 1: {0}, 2: {1}, 3: {1}}, id="yearly"),
    ],
)
async def test_an_expression_means_what_cron_says_it_does(expression: str, changes: dict[int, set[int]]) -> None:
    calendar = compile_cron(expression)
    assert _values(calendar) == [changes.get(place, values) for place, values in enumerate(_ALL)]
    assert calendar.comment == expression
    assert [(each.start, each.end) for each in calendar.second] == [(0, 0)]


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        pytest.param("", "'' has 0 fields instead of five", id="empty"),
        pytest.param("0 3 * *", "has 4 fields instead of five: minute, hour, day of month, month", id="four"),
        pytest.param("0 0 3 * * *", "has 6 fields instead of five.*; seconds and years are not supported", id="six"),
        pytest.param("60 3 * * *", "minute '60': 60 is not from 0 to 59", id="minute"),
        pytest.param("0 24 * * *", "hour '24': 24 is not from 0 to 23", id="hour"),
        pytest.param("0 3 0 * *", "day of month '0': 0 is not from 1 to 31", id="day"),
        pytest.param("0 3 * 13 *", "month '13': 13 is not from 1 to 12", id="month"),
        pytest.param("0 3 * * 8", "day of week '8': 8 is not from 0 to 7", id="weekday"),
        pytest.param("0 3 * * mond", "day of week 'mond': 'mond' is not a number from 0 to 7 or SUN to SAT", id="name"),
        pytest.param("0 JAN * * *", "hour 'JAN': 'JAN' is not a number from 0 to 23$", id="name-elsewhere"),
        pytest.param("*/0 * * * *", "minute '\\*/0': the step '0' is not a positive integer", id="step-zero"),
        pytest.param("*/90 * * * *", "minute '\\*/90': the step 90 is larger than the range", id="step-too-long"),
        pytest.param("5/10 * * * *", "minute '5/10': a step needs a range; write 5-59/10", id="step-without-range"),
        pytest.param("50-10 * * * *", "minute '50-10': the range 50-10 ends before it begins", id="backwards"),
        pytest.param("0 3 * * FRI-MON", "day of week 'FRI-MON': the range FRI-MON ends before", id="over-the-weekend"),
        pytest.param("0 3 ? * *", "day of month '\\?': \\? is not supported; write \\*", id="question-mark"),
        pytest.param("0 3 L * *", "day of month 'L': 'L' is not a number", id="last-day"),
        pytest.param("0 3 * * 1#2", "comments and the # of 'third Monday'", id="second-monday"),
        pytest.param("0 3 * * * # nightly", "comments and the", id="comment"),
        pytest.param("+5 3 * * *", "minute '\\+5': '\\+5' is not a number", id="sign"),
        pytest.param("٣ 3 * * *", "minute '٣': '٣' is not a number", id="digits-of-others"),
        pytest.param("1,,2 3 * * *", "minute '1,,2': a value is missing", id="hole"),
        pytest.param("1/2/3 3 * * *", "minute '1/2/3'", id="two-steps"),
        pytest.param("1-2-3 3 * * *", "minute '1-2-3': '2-3' is not a number", id="two-dashes"),
        pytest.param("@every 1h", "is an interval; write five fields with a step", id="every"),
        pytest.param("@reboot", "'@reboot' is not one of @yearly", id="reboot"),
        pytest.param("CRON_TZ=UTC 0 3 * * *", "the time zone does not belong in the expression", id="zone"),
        pytest.param("0 3 31 2 *", "month '2' has no such day, so it would never run", id="31-february"),
        pytest.param("0 3 31 4,6 *", "month '4,6' has no such day", id="31-april"),
        pytest.param("0 3 1 * MON", "cron takes days that match either, Temporal days that match both", id="two-days"),
    ],
)
def test_a_mistake_is_named_with_its_field(expression: str, fault: str) -> None:
    with pytest.raises(CronError, match=fault):
        compile_cron(expression)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(CronError) as caught:
        compile_cron("60 25 * 13 *")
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["minute '60'", "hour '25'", "month '13'"]


_numbers = st.tuples(st.integers(0, 59), st.integers(0, 23), st.integers(1, 28), st.integers(1, 12))


@given(_numbers, st.lists(st.integers(0, 59), min_size=1, max_size=20))
def test_what_is_in_force_can_be_told_as_an_expression(numbers: tuple[int, ...], minutes: list[int]) -> None:
    listed = ",".join(map(str, minutes))
    calendar = compile_cron(f"{listed} {numbers[1]} {numbers[2]} {numbers[3]} *")
    assert _values(compile_cron(cron_text(calendar))) == _values(calendar)


async def test_the_server_compiles_them_the_same_way(client: Client, tenant: str) -> None:
    expressions = ["*/7 8-18/2 * * MON-FRI", "1,2,3,40 0 1-15/3 jan,jul *", "0 0 * * 5-7", "@hourly", "@yearly"]
    for expression in expressions:
        action = ScheduleActionStartWorkflow("none", id="none", task_queue="none")
        spec = ScheduleSpec(cron_expressions=[expression])
        handle = await client.create_schedule(f"{tenant}{uuid.uuid4()}", Schedule(action=action, spec=spec))
        raw: Any = (await handle.describe()).raw_description.schedule.spec.structured_calendar
        await handle.delete()
        assert _values(raw[0]) == _values(compile_cron(expression))
