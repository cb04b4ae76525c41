"""What a process writes into its log."""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.runtime import TelemetryFilter

from contextunity.core import context
from contextunity.core.context import TaskContext
from contextunity.worker.client import SyncWorkerClient, WorkerServiceError
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.logs import configure, core_log
from contextunity.worker.settings import Settings
from tests.conftest import Spawn

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
    for owner, hook in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(owner, hook, getattr(owner, hook))
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
    stream = log(log_format="json", build_id="b-7")
    _fail(KeyError("sku"))
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["message"] == "Completing activity as failed"
    assert line["exception"].startswith("Traceback ")
    assert line["exception"].endswith("KeyError: 'sku'")
    assert (line["error_type"], line["build_id"]) == ("KeyError", "b-7")


def test_what_was_expected_of_an_activity_has_no_traceback_in_json_either(log: Written) -> None:
    stream = log(log_format="json")
    _fail(ApplicationError("no\nfeed", type="FeedGone"))
    _fail(CancelledError())
    failed, cancelled = map(json.loads, stream.getvalue().splitlines())
    assert (failed["message"], failed["error_type"]) == ("activity failed: FeedGone: no feed", "FeedGone")
    assert cancelled["message"] == "activity was cancelled"
    assert not failed.keys() & {"exception"}
    assert not cancelled.keys() & {"exception"}


def test_lines_of_the_sdks_core_have_the_shape_of_others(log: Written) -> None:
    stream = log(log_format="json")
    config = core_log(Settings())
    assert config.filter == TelemetryFilter(core_level="WARN", other_level="ERROR")
    assert config.forwarding is not None
    entry = SimpleNamespace(
        level=logging.WARNING, target="worker", message="slow", time=0.5, fields={"workflow_id": "w", "run_id": "r"}
    )
    config.forwarding._on_logs(cast("Any", [entry]))
    line = json.loads(stream.getvalue())
    assert line["time"] == "1970-01-01T00:00:00.500+00:00"
    assert line["logger"] == "temporalio-sdk_core::worker"
    assert (line["workflow_id"], line["run_id"]) == ("w", "r")
    assert line["message"].startswith("slow ")


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


_NOISY = """
import asyncio, contextlib, threading, warnings
from contextunity.worker.modules.registry import ModuleConfig

warnings.warn("at import")

class Careless:
    def __del__(self):
        raise ValueError("unraisable")

async def lost():
    raise LookupError("in a task")

def fall():
    raise OSError("in a thread")

@contextlib.asynccontextmanager
async def lifespan(context):
    warnings.warn("at start")
    task = asyncio.create_task(lost())
    await asyncio.wait({task})
    del task
    thread = threading.Thread(target=fall)
    thread.start()
    thread.join()
    Careless()
    yield

module = ModuleConfig(name="noisy", lifespan=lifespan)
"""


def test_each_line_of_a_service_and_a_worker_is_an_object(
    spawn: Spawn, tmp_path: Path, temporal_server: EmbeddedServer
) -> None:
    (tmp_path / "noisy.py").write_text(_NOISY)
    variables = {
        "CONTEXTWORKER_LOG_FORMAT": "json",
        "CONTEXTWORKER_LOG_LEVEL": "debug",
        "WORKER_MODULES": "noisy",
        "WORKER_PORT": "0",
        "WORKER_HTTP_PORT": "0",
        "PYTHONPATH": str(tmp_path),
        "TEMPORAL_ADDRESS": temporal_server.address,
    }
    service = spawn("-m", "contextunity.worker", **variables)
    worker = spawn("-m", "contextunity.worker", "--temporal", "--tenant", "logs", **variables)
    target = json.loads(service.wait_for("listens on"))["message"].split("listens on ")[1].split()[0]
    with SyncWorkerClient(target) as client, pytest.raises(WorkerServiceError) as refused:
        client.start("nothing of this name", {})
    worker.wait_for("Temporal workers run")
    for process in (service, worker):
        process.send(signal.SIGTERM)
        assert process.wait() == 0, process.output
    of_service, of_worker = ([json.loads(line) for line in each.lines if line] for each in (service, worker))
    for line in (*of_service, *of_worker):
        assert {"time", "level", "logger", "message"} <= line.keys()
    # A call that is refused is no failure of the service.
    assert not [line for line in of_service if "exception" in line]
    audited = [line for line in of_service if line["logger"] == "contextunity.worker.audit"]
    assert [line["trace_id"] for line in audited] == [refused.value.trace_id]
    found = {line["error_type"]: line for line in of_worker if "exception" in line}
    assert found.keys() == {"LookupError", "OSError", "ValueError"}
    assert all(line["exception"].startswith("Traceback ") for line in found.values())
    warned = [line["message"] for line in of_worker if line["logger"] == "py.warnings"]
    assert len(warned) == 2
    assert "at import" in warned[0]
    # The SDK's core says at this level that it polls.
    assert any("sdk_core" in line["logger"] for line in of_worker)


def test_what_ends_a_command_is_an_object_too(spawn: Spawn) -> None:
    process = spawn("-m", "contextunity.worker", CONTEXTWORKER_LOG_FORMAT="json", WORKER_PORT="many")
    assert process.wait() == 2
    (line,) = [json.loads(line) for line in process.lines if line]
    assert line["level"] == "critical"
    assert "WORKER_PORT" in line["message"]
