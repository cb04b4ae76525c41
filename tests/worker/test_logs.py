"""What a process writes into its log."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

from contextunity.core import context
from contextunity.core.context import TaskContext
from contextunity.worker.logs import configure
from contextunity.worker.settings import Settings

_WORK = TaskContext(trace_id="t-1", tenant_id="acme")
_ACTIVITY = {
    "temporal_activity": {
        "activity_type": "fetch",
        "attempt": 2,
        "workflow_id": "w",
        "workflow_run_id": "r",
        "workflow_type": "harvest",
    }
}
_FAILED = {**_ACTIVITY, "__temporal_error_identifier": "ActivityFailure"}

Written = Callable[..., io.StringIO]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    root = logging.getLogger()
    handlers, level, httpx = root.handlers[:], root.level, logging.getLogger("httpx").level
    root.handlers = []  # `configure` closes what it replaces; pytest still needs its own.
    monkeypatch.setattr(workflow.logger, "workflow_info_on_message", True)
    monkeypatch.setattr(activity.logger, "activity_info_on_message", True)

    def write(**settings: Any) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        configure(Settings(**settings))
        return stream

    yield write
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level
    logging.getLogger("httpx").setLevel(httpx)


def _raise(error: Exception) -> None:
    raise error


def _fail(error: Exception) -> None:
    try:
        _raise(error)
    except Exception:
        logging.getLogger("temporalio.activity").warning("Completing activity as failed", exc_info=True, extra=_FAILED)


def test_text_tells_trace_and_tenant_where_there_are_any(log: Written) -> None:
    stream = log()
    logging.getLogger("a").info("nobody's")
    with context.using(_WORK):
        logging.getLogger("a").info("page %d", 7, extra=_ACTIVITY)
    first, second = stream.getvalue().splitlines()
    assert first.endswith(" INFO    a: nobody's")
    assert second.endswith(" INFO    a: page 7 [trace_id=t-1 tenant_id=acme workflow_id=w activity_type=fetch]")


def test_json_has_one_object_a_line(log: Written) -> None:
    stream = log(log_format="json")
    with context.using(_WORK):
        logging.getLogger("a").warning("zwei\nZeilen ü", extra=_ACTIVITY)
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "a",
        "message": "zwei\nZeilen ü",
        "trace_id": "t-1",
        "tenant_id": "acme",
        "workflow_id": "w",
        "run_id": "r",
        "workflow_type": "harvest",
        "activity_type": "fetch",
        "attempt": 2,
    }


def test_json_keeps_tracebacks_in_the_line(log: Written) -> None:
    stream = log(log_format="json")
    _fail(ApplicationError("no feed", type="FeedGone"))
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["message"] == "Completing activity as failed"
    assert line["exception"].startswith("Traceback ")
    assert line["exception"].endswith("FeedGone: no feed")


@pytest.mark.parametrize(
    ("error", "level", "lines"),
    [
        pytest.param(ApplicationError("no feed", type="FeedGone"), "info", 1, id="foreseen"),
        pytest.param(ApplicationError("no feed", type="FeedGone"), "debug", 7, id="foreseen, when debugging"),
        pytest.param(KeyError("sku"), "info", 7, id="unforeseen"),
    ],
)
def test_a_foreseen_failure_of_an_activity_takes_one_line(
    log: Written, error: Exception, level: str, lines: int
) -> None:
    stream = log(log_level=level)
    _fail(error)
    written = stream.getvalue().splitlines()
    assert len(written) == lines, written
    if lines == 1:
        told = "activity failed: FeedGone: no feed [workflow_id=w activity_type=fetch]"
        assert written[0].endswith(f"temporalio.activity: {told}")


def test_its_cause_is_told_too(log: Written) -> None:
    stream = log()
    error = ApplicationError("no feed", type="FeedGone")
    error.__cause__ = OSError("connection refused")
    _fail(error)
    assert "activity failed: FeedGone: no feed (connection refused) [" in stream.getvalue()


def test_warnings_go_by_the_log_and_requests_of_modules_do_not(log: Written) -> None:
    stream = log(log_format="json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    logging.getLogger("httpx").info("GET a secret")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["logger"] == "py.warnings"
    assert "old" in line["message"]


def test_what_the_log_call_says_itself_counts(log: Written) -> None:
    stream = log(log_format="json")
    with context.using(_WORK):
        logging.getLogger("a").info("x", extra={"trace_id": "own"})
    assert json.loads(stream.getvalue())["trace_id"] == "own"
