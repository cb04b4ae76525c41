"""Mistakes that a new user makes: each has one clear line, the right exit code, and with --json one document."""

from __future__ import annotations

import json

import pytest

from .conftest import Command

_START = ("start", "harvest", "--supplier-code", "x")

_MISTAKES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "unknown-command": (("lst",), 2, "did you mean list?"),
    "unknown-workflow-type": (("start", "harvst"), 1, "list_rejected; did you mean harvest?"),
    "unknown-contract": (("contracts", "gardner"), 1, "; did you mean gardener?"),
    "nothing-to-start": (("start",), 2, "name what to start"),
    "flag-before-what-it-is-of": (("start", "--supplier-code", "x", "harvest"), 2, "name what to start first"),
    "word-too-many": (("start", "harvest", "more"), 2, "unrecognized arguments: more"),
    "number-out-of-words": (("start", "harvest", "--page-size", "many"), 2, "'many' is not a whole number"),
    "field-missing": (("start", "harvest"), 1, ": is required"),
    "rule-broken": ((*_START, "--page-size", "5000"), 1, "less than or equal to 1000, not 5000"),
    "control-character": (("start", "harvest", "--supplier-code", "a\x1b[2J"), 1, "control character U+001B"),
    "input-is-no-json": (("start", "harvest", "--input", "{bad"), 2, "--input: not JSON"),
    "input-is-a-list": (("start", "harvest", "--input", "[1]"), 2, "holds list where a JSON object is due"),
    "input-is-not-there": (("start", "harvest", "--input", "/no/such"), 2, "/no/such: No such file"),
    "unit-is-no-uuid": ((*_START, "--unit-id", "7"), 2, "unit_id: '7' is not a UUID"),
    "tenant-is-none": ((*_START, "--tenant", "a b"), 1, "'a b' is not a tenant id"),
    "timeout-is-none": ((*_START, "--timeout", "0"), 2, "'0' is not a number of seconds above 0"),
    "target-is-none": ((*_START, "--target", "not an address"), 2, "target 'not an address': it is host:port"),
    "target-has-no-name": (
        (*_START, "--target", "no-such.invalid:1", "--timeout", "1"),
        3,
        "no WorkerService can be reached at no-such.invalid:1 (",
    ),
    "authority-is-no-certificate": ((*_START, "--ca-file", __file__), 2, "has no certificate in PEM"),
    "token-file-is-not-there": ((*_START, "--token-file", "/no/such"), 2, "/no/such cannot be read"),
    "id-is-missing": (("status",), 2, "required: WORKFLOW_ID"),
    "id-is-empty": (("status", ""), 1, "workflow_id: is required"),
    "id-is-unknown": (("status", "nobody"), 1, "no task has the workflow_id 'nobody'; check the id"),
    "run-is-unknown": (
        ("status", "nobody", "--run-id", "7"),
        1,
        "workflow_id 'nobody' and a run '7'; check the id",
    ),
    "result-of-nobody": (("result", "nobody"), 1, "no task has the workflow_id 'nobody'"),
    "state-is-none": (("list", "--status", "complete"), 2, "did you mean completed?"),
    "count-is-none": (("list", "--limit", "0"), 2, "'0' is not a whole number from 1"),
    "schedule-is-unknown": (("schedules", "pause", "nobody"), 1, "there is no schedule 'nobody'"),
    "action-is-unknown": (("schedules", "list-all"), 2, "did you mean list?"),
    "permission-is-none": (
        ("token", "mint", "--project", "p", "--permission", "worker:exec"),
        2,
        "did you mean worker:execute?",
    ),
    "program-is-not-there": (("code", "run", "/no/such"), 2, "/no/such: No such file"),
}


@pytest.mark.parametrize("name", _MISTAKES)
def test_a_mistake_is_told_in_one_document_or_a_line(command: Command, name: str) -> None:
    words, code, text = _MISTAKES[name]
    done = command(*words, "--json")
    assert (done.code, done.out) == (code, "")
    (line,) = done.err.splitlines()
    error = json.loads(line)["error"]
    assert error["exit_code"] == code
    assert text in error["message"]
    done = command(*words)
    assert (done.code, done.out) == (code, "")
    assert text in done.err
    assert done.err.startswith("contextworker: ")
    assert "Traceback" not in done.err
    assert "body." not in done.err
    assert "])" not in done.err


@pytest.mark.parametrize("word", ["failed", "FAILED", "Timed-Out", "TASK_STATE_FAILED"])
def test_a_state_is_written_in_any_case(command: Command, word: str) -> None:
    assert command("list", "--status", word).code == 0


def test_a_mistyped_handler_is_told_the_one_that_is_near(command: Command) -> None:
    command("start", "harvest", "--supplier-code", "no-such", "--watch", "--json")
    (task,) = {
        line["workflow_id"] for line in command("start", "harvest", "--supplier-code", "no-such", "--json").lines
    }
    for action, typed, meant in (("signal", "pauze", "pause"), ("query", "progress", "get_progress")):
        done = command(action, task, typed)
        assert done.code == 1
        assert f"; did you mean {meant}?" in done.err
