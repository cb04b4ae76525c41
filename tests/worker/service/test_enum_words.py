"""Enum values in plain data: with or without the prefix of their names, in any case, wherever they stand."""

from __future__ import annotations

from typing import Any

import pytest
from contextunity.gen.contextunity.worker import ListTasksRequest, RegisterSchedulesRequest, ScheduleOverlap, TaskState

from betterproto2_codec.plain_data import enum_words
from contextunity.core import codec
from contextunity.worker.grpc_errors import ServiceError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.schedules.check import check_entry
from contextunity.worker.service.inputs import handler_input
from contextunity.worker.service.payloads import from_payload, read_payload
from python_temporal.contract import MethodContract


@pytest.fixture(scope="module")
def kinds(desk_messages: Any) -> Any:
    del desk_messages
    import desk_gen.acme.kinds.v1 as kinds  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

    return kinds


def _input(kinds: Any, data: dict[str, Any]) -> Any:
    contract = MethodContract(name="ask", method="a.B.Ask", input_type=kinds.Plain, output_type=None)
    return handler_input(contract, data, None)


@pytest.mark.parametrize("text", ["COLOR_RED", "color_red", "Color_Red", "RED", "red", "Red"])
def test_a_word_is_read_wherever_an_enum_stands(kinds: Any, text: str) -> None:
    red = kinds.Color.RED
    data: dict[str, Any] = {
        "color": text,
        "colors": [text, 2, "COLOR_DARK"],
        "byUint64": {"7": text},
        "again": {"color": text},
        "many": [{"colors": [text]}],
        "by_name": {"a": {"color": text}},
    }
    read = _input(kinds, data)
    assert read.color == red
    assert read.colors == [red, kinds.Color.GREEN, kinds.Color.DARK]
    assert read.by_uint64 == {7: red}
    assert read.again.color == red
    assert read.many[0].colors == [red]
    assert read.by_name["a"].color == red
    assert data["again"] == {"color": text}  # what came stays as it came


def test_a_word_is_read_in_what_is_packed(kinds: Any) -> None:
    packed = {"@type": "type.googleapis.com/acme.kinds.v1.Plain", "many": [{"color": "green"}]}
    contract = MethodContract(name="ask", method="a.B.Ask", input_type=kinds.Loose, output_type=None)
    read: Any = handler_input(contract, {"all": packed, "either_one": "a"}, None)
    assert codec.unpack_any(read.all).many[0].color == kinds.Color.GREEN  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"color": "re"}, id="the beginning of a word"),
        pytest.param({"color": "color-red"}, id="a dash"),
        pytest.param({"color": ""}, id="nothing"),
        pytest.param({"color": "un\u017fpecified"}, id="a letter whose capital is one of ASCII"),
        pytest.param({"colors": "red"}, id="no list"),
        pytest.param({"color": ["red"]}, id="a list"),
        pytest.param({"by_uint64": ["red"]}, id="no map"),
    ],
)
def test_what_stands_for_no_value_is_refused(kinds: Any, data: dict[str, Any]) -> None:
    with pytest.raises(ServiceError) as caught:
        _input(kinds, data)
    assert next(iter(caught.value.violations)).field == f"args.{next(iter(data))}"


def test_the_service_reads_its_own_requests_so_too() -> None:
    words: Any = ["failed", "FAILED", "Running", "task_state_completed", "TASK_STATE_CANCELLED"]
    states = [TaskState.FAILED, TaskState.FAILED, TaskState.RUNNING, TaskState.COMPLETED, TaskState.CANCELLED]
    assert read_payload({"status": words}, ListTasksRequest).status == states
    entries = [{"schedule_id": "a", "workflow_type": "w", "cron": "0 5 * * *", "overlap": word} for word in ("Skip",)]
    read = from_payload({"schedules": entries}, RegisterSchedulesRequest)
    assert [each.overlap for each in read.schedules] == [ScheduleOverlap.SKIP]


def test_the_input_of_a_schedule_is_read_so_too(registry: WorkerRegistry) -> None:
    entry = {
        "schedule_id": "a",
        "workflow_type": "work",
        "cron": "0 5 * * *",
        "args": {"name": "a", "mode": "Done"},
    }
    entry_message = from_payload({"schedules": [entry]}, RegisterSchedulesRequest).schedules[0]
    checked = check_entry(entry_message, registry.workflows, tenant_id="one", project_id="p")
    assert checked.input is not None
    assert codec.to_dict(checked.input)["mode"] == "MODE_DONE"


def test_the_longer_name_never_takes_the_word_of_another() -> None:
    words = enum_words(["A_B", "A_A_B", "A_Red", "A_RED"])
    assert [words.word(name) for name in ("A_B", "A_A_B")] == ["b", "a_b"]
    # An answer has `a_b` for the second one, and so does a request.
    assert [words.name(text) for text in ("b", "a_b", "A_B", "A_A_B")] == ["A_B", "A_A_B", "A_B", "A_A_B"]
    assert [words.name(text) for text in ("red", "a_red", "A_Red")] == [None, None, "A_Red"]
