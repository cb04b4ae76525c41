"""Arguments that no unit can carry are refused before anything is sent, in the client's own words."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from contextunity.gen.contextunity.worker import ScheduleEntry

from contextunity.worker.client import methods

from .conftest import Client, settle

_NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda client: client.start("harvest", "x"), "start() takes the input as a mapping by proto names or as "),
        (lambda client: client.start("harvest", 5), "the generated message, not the int 5"),
        (
            lambda client: client.start(5),
            "start() takes a workflow_type or the input message itself first, not the int",
        ),
        (lambda client: client.task("w").signal("pause", "x"), "signal() takes the input as a mapping"),
        (lambda client: client.task("w").update("pause", [1]), "update() takes the input as a mapping"),
        (lambda client: client.execute_code("1", inputs="x"), "execute_code() takes inputs as a mapping by name, not"),
        (lambda client: client.register_schedules("x"), "register_schedules() takes schedules as a list of"),
        (lambda client: client.register_schedules({"a": 1}), "ScheduleEntry or mappings, not the dict {'a': 1}"),
        (lambda client: client.register_schedules(5), "not the int 5"),
        (lambda client: client.register_schedules([5]), "register_schedules() takes ScheduleEntry or mappings as"),
        (lambda client: client.register_schedules([ScheduleEntry(), {}]), "takes entries of one form"),
        (
            lambda client: client.call(methods.GET_TASK_STATUS, {"workflow_id": "w"}),
            "content of GetTaskStatus is a generated message, not the dict {'workflow_id': 'w'}; plain data goes into "
            "payload",
        ),
        (
            lambda client: client.call(methods.GET_TASK_STATUS, payload="w"),
            "payload of GetTaskStatus is a mapping by proto names, not the str 'w'",
        ),
    ],
)
async def test_arguments_of_other_types_are_named(connect: Any, call: Callable[[Client], Any], told: str) -> None:
    with pytest.raises(TypeError, match=re.escape(told)):
        await settle(call(connect(_NOWHERE)))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), 'payload["args"]["page_size"]: a Struct holds finite numbers, not nan'),
        (
            b"x",
            "payload.args.page_size: it takes null, booleans, numbers, text, lists and mappings, not the bytes b'x'",
        ),
        (datetime(2030, 1, 1, tzinfo=UTC), "not the datetime datetime.datetime(2030, 1, 1, 0, 0, "),
        (
            object(),
            "payload.args.page_size: it takes null, booleans, numbers, text, lists and mappings, not the object",
        ),
        ({1: 2}, "payload.args.page_size.1: a name is text, not the int 1"),
        ([1, {"list": {2}}], "payload.args.page_size.1.list: it takes null"),
        (b"x" * 1000, f"not the bytes b'{'x' * 98}…"),
    ],
)
async def test_values_that_do_not_fit_are_named(connect: Any, value: object, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as seen:
        await settle(connect(_NOWHERE).start("harvest", {"page_size": value}))
    assert type(seen.value) is ValueError
    assert "pydantic" not in str(seen.value)


async def test_all_that_is_wrong_is_told_at_once(connect: Any) -> None:
    with pytest.raises(ValueError, match=r"^unit_id: '7' is not a UUID such as .*; payload\.args\.a: it takes null"):
        await settle(connect(_NOWHERE).start("harvest", {"a": b""}, unit_id="7"))
