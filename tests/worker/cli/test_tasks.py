"""Commands that look at tasks and steer them, contracts, and programs."""

from __future__ import annotations

import io
import json
import signal
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity.worker import ExecuteCodeResult, TaskStatus
from google.protobuf import descriptor_pb2

from contextunity.worker.cli import main
from contextunity.worker.cli.watching import last_of
from contextunity.worker.client import SyncTaskHandle, SyncWorkerClient, WorkerServiceError

from .conftest import Command

_SMALL = ("--supplier-code", "camping-trade", "--max-products", "20")


@pytest.fixture
def done_id(command: Command) -> str:
    """Id of a task that has completed."""
    lines = command("start", "harvest", *_SMALL, "--json", "--watch").lines
    assert lines[-1]["status"] == "completed"
    return str(lines[0]["workflow_id"])


@pytest.fixture
def paused_id(command: Command) -> str:
    """Id of a task that goes on only when it is told to."""
    started = command("start", "harvest", "--supplier-code", "camping-trade", "--page-size", "1", "--json").json
    workflow_id = str(started["workflow_id"])
    assert command("signal", workflow_id, "pause").out == "sent\n"
    return workflow_id


def test_status_result_and_watch_of_a_task_that_is_done(command: Command, done_id: str, tenant: str) -> None:
    status = command("status", done_id)
    assert status.code == 0
    assert f"workflow_id    {done_id}\n" in status.out
    assert "status         completed\n" in status.out
    assert f"tenant_id      {tenant}\n" in status.out
    assert "  counts\n" in status.out
    assert command("status", done_id, "--json").json["status"] == "completed"
    result = command("result", done_id)
    assert (result.code, result.err) == (0, "")
    assert command("result", done_id, "--json", "--no-wait").json["counts"]["pages"] == "1"
    watch = command("watch", done_id)
    assert watch.code == 0
    assert watch.out.startswith("completed\n")
    assert [line["status"] for line in command("watch", done_id, "--json").lines] == ["completed"]


def test_a_task_under_way_is_asked_and_steered(command: Command, paused_id: str) -> None:
    status = command("status", paused_id)
    assert "status         running\n" in status.out
    assert "progress " in status.out
    assert f"contextworker watch {paused_id}" in status.out
    assert command("query", paused_id, "get_progress").code == 0
    assert "stage" in command("query", paused_id, "get_progress", "--json").json
    early = command("result", paused_id, "--no-wait")
    assert (early.code, early.out) == (1, "")
    assert "the task has not ended yet" in early.err
    update = command("update", paused_id, "set_page_size", "--input", '{"page_size": 100}')
    assert (update.code, update.out) == (0, "previous_page_size  1\n")
    wrong = command("update", paused_id, "set_page_size", "--input", '{"page_size": 0}')
    assert wrong.code == 1
    assert "args.page_size: must be greater than" in wrong.err
    assert command("query", paused_id, "get_weather").err.endswith("it has: get_progress\n")
    assert command("signal", paused_id, "resume", "--json").json["workflow_id"] == paused_id
    assert command("result", paused_id).code == 0


def test_a_task_is_cancelled_or_terminated(command: Command, paused_id: str) -> None:
    assert command("cancel", paused_id, "--reason", "enough").out.startswith("asked to cancel; see its status with\n")
    cancelled = command("watch", paused_id)
    assert cancelled.code == 1
    assert f"contextworker: task {paused_id} cancelled" in cancelled.err
    again = command("cancel", paused_id)
    assert again.code == 1
    assert again.err.startswith("contextworker: TASK_ENDED: ")
    command("start", "harvest", "--supplier-code", "camping-trade", "--page-size", "1")
    assert command("terminate", paused_id, "--reason", "enough", "--json").json["workflow_id"] == paused_id
    terminated = command("result", paused_id)
    assert terminated.code == 1
    assert f"contextworker: task {paused_id} terminated: enough" in terminated.err


def test_tasks_are_listed(command: Command, done_id: str) -> None:
    # The server's list lags, and nothing tells when it is up to date.
    while not (tasks := command("list", "--status", "completed", "--json").json["tasks"]):
        pass
    assert [(task["workflow_id"], task["status"]) for task in tasks] == [(done_id, "completed")]
    table = command("list", "--workflow-type", "harvest", "--since", "1h", "--limit", "5")
    assert table.code == 0
    heading, row = table.out.splitlines()
    assert heading.split() == ["workflow_id", "status", "workflow_type", "started", "took", "tenant_id"]
    assert row.split()[:3] == [done_id, "completed", "harvest"]
    other = command("start", "harvest", "--supplier-code", "other", "--json").json["workflow_id"]
    while len(command("list", "--json").json["tasks"]) < 2:
        pass
    first = command("list", "--limit", "1")
    assert (first.out.splitlines()[1].split()[0], first.code) == (other, 0)
    assert first.err == "contextworker: there are more; --limit 10 shows them, --since and --status fewer\n"
    assert command("list", "--limit", "1", "--json").json["has_more"] is True
    assert command("list", "--json").json["has_more"] is False
    assert command("list", "--until", "2020-01-01T00:00Z").out == "no tasks\n"
    assert command("list", "--since", "yesterday").code == 2
    assert command("list", "--limit", "0").code == 2


def test_unknown_tasks_are_told_for_people_and_programs(command: Command) -> None:
    for name in ("status", "watch", "result", "cancel", "terminate"):
        done = command(name, "nobody")
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("contextworker: TASK_UNKNOWN: no task has the workflow_id 'nobody'")
    done = command("status", "nobody", "--json")
    assert done.out == ""
    assert '"reason": "TASK_UNKNOWN"' in done.err


def test_a_service_that_is_not_there_ends_with_3(command: Command) -> None:
    done = command("status", "w", "--target", "127.0.0.1:1")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("contextworker: UNAVAILABLE: no WorkerService can be reached at 127.0.0.1:1")
    assert "contextworker dev runs one here; --target HOST:PORT or CONTEXTWORKER_TARGET names another" in done.err


def test_with_json_every_error_is_json(command: Command, paused_id: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    calls: dict[tuple[str, ...], tuple[int, str]] = {
        ("status", "nobody"): (1, "NOT_FOUND"),
        ("status", "w", "--target", "127.0.0.1:1"): (3, "UNAVAILABLE"),
        ("status",): (2, "USAGE"),
        ("status", "w", "--timeout", "soon"): (2, "USAGE"),
        ("start", "harvest", "--suplier-code", "x"): (2, "USAGE"),
        ("start", "harvest", "--input", str(tmp_path / "list.json")): (2, "USAGE"),
        ("result", paused_id, "--no-wait"): (1, "NOT_ENDED"),
        ("token", "verify", "x", "--frob"): (2, "USAGE"),
    }
    for words, (code, name) in calls.items():
        done = command(*words, "--json")
        error = json.loads(done.err)["error"]
        assert (done.code, done.out, error["code"], error["exit_code"]) == (code, "", name, code), words
        assert error["message"]
    command("terminate", paused_id)
    ended = command("result", paused_id, "--json")
    error = json.loads(ended.err)["error"]
    assert (ended.code, ended.out, error["code"], error["status"]) == (1, "", "TASK_FAILED", "terminated")


def test_mistyped_words_are_told_with_the_nearest(command: Command) -> None:
    for words, near in {
        ("strat",): "start",
        ("schedules", "aply"): "apply",
        ("status", "w", "--jsn"): "--json",
        ("schedules", "apply", "--dry_rum"): "--dry-run",
    }.items():
        done = command(*words)
        assert (done.code, done.out) == (2, "")
        assert f"; did you mean {near}?\n" in done.err
    assert "did you mean" not in command("frobnicate").err


def test_the_version_is_that_of_the_distribution(command: Command) -> None:
    assert command("--version").out == f"contextworker {version('contextworker')}\n"


def test_ports_are_checked_before_anything_starts(command: Command) -> None:
    done = command("dev", "--temporal-port", "99999")
    assert done.code == 2
    assert "argument --temporal-port: '99999' is not a port; give a number from 1 to 65535" in done.err


def test_wrong_connections_are_mistakes(command: Command, tmp_path: Path) -> None:
    assert "it is host:port" in command("status", "w", "--target", "ftp://x").err
    done = command("status", "w", "--target", "foo:bar")
    assert (done.code, done.err.partition(",")[0]) == (2, "contextworker: target 'foo:bar': it is host:port")
    done = command("status", "w", "--token-file", str(tmp_path / "none"))
    assert done.code == 2
    assert done.err == f"contextworker: {tmp_path / 'none'} cannot be read: No such file or directory\n"
    (tmp_path / "bytes").write_bytes(b"\xff")
    assert "bytes cannot be read: it is not UTF-8 text" in command("list", "--ca-file", str(tmp_path / "bytes")).err
    for wrong in ("0", "abc", "nan", "inf"):
        done = command("status", "w", "--timeout", wrong)
        assert done.code == 2
        assert f"argument --timeout: {wrong!r} is not a number of seconds above 0, such as 30 or 0.5" in done.err


def test_where_a_token_is_refused_it_is_told_what_takes_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise WorkerServiceError(grpc.StatusCode.UNAUTHENTICATED, "the call has no token", reason="TOKEN_REFUSED")

    monkeypatch.setattr(SyncWorkerClient, "call", refuse)
    done = command("list")
    assert done.code == 1
    assert done.err.splitlines() == [
        "contextworker: TOKEN_REFUSED: the call has no token",
        "  here the token comes from --token-file FILE or CONTEXTWORKER_TOKEN",
    ]
    assert "--token-file" not in command("list", "--json").err


def test_contracts_are_told(command: Command) -> None:
    table = command("contracts")
    assert table.code == 0
    assert [line.split()[0] for line in table.out.splitlines()[1:5]] == [
        "enrich",
        "execute_code",
        "gardener",
        "harvest",
    ]
    one = command("contracts", "harvest")
    assert "  workflow id    harvest/${! tenantId }/${! supplierCode }\n" in one.out
    assert "    page_size            int32 [int32.lte: 1000; int32.gte: 0]\n" in one.out
    assert "contextunity.harvest.v1.SetPageSizeRequest → contextunity.harvest.v1.SetPageSizeResponse" in one.out
    (contract,) = command("contracts", "harvest", "--json").json["contracts"]
    assert contract["input_type"] == "contextunity.harvest.v1.HarvestRequest"


def test_a_contract_is_printed_as_schemas_as_a_manifest_and_as_descriptors(command: Command, tmp_path: Path) -> None:
    schema = command("contracts", "--schema", "harvest").json
    assert (schema["type"], schema["title"]) == ("object", "contextunity.harvest.v1.HarvestRequest")
    assert {"anyOf": [{"required": ["supplier_code"]}, {"required": ["supplierCode"]}]} in schema["allOf"]
    assert command("contracts", "--output-schema", "harvest").json["title"] == "contextunity.harvest.v1.HarvestResponse"
    handler = command("contracts", "--output-schema", "harvest", "--handler", "get_progress").json
    assert handler["title"] == "contextunity.harvest.v1.HarvestProgress"
    manifest = command("contracts", "--manifest", "harvest").json
    (contract,) = manifest["contracts"]
    assert (contract["workflow_type"], contract["task_queue"]) == ("harvest", "harvest")
    assert contract["id_expression"] == "harvest/${! tenantId }/${! supplierCode }"
    assert contract["method"] == "contextunity.harvest.v1.HarvestService.Harvest"
    assert "fields" not in contract
    activities = {each["name"]: each for each in manifest["activities"]}
    assert activities["fetch_products"]["input_type"] == "contextunity.harvest.v1.FetchProductsRequest"
    assert activities["fetch_products"]["start_to_close_timeout"].endswith("s")
    assert activities["fetch_products"]["retry_policy"]["maximum_attempts"] > 1
    written = command("contracts", "--descriptors", str(tmp_path / "image.binpb"))
    assert (written.code, written.out) == (0, "")
    files = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "image.binpb").read_bytes()).file
    assert {"contextunity/code/v1/code.proto", "contextunity/harvest/v1/harvest.proto"} < {file.name for file in files}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(["--schema", "nothing"], 1, "there is no workflow_type 'nothing'; known ones: ", id="type"),
        pytest.param(
            ["--schema", "harvest", "--handler", "no"], 2, "query, signal or update no; it has ", id="handler"
        ),
        pytest.param(["--schema", "harvest", "code"], 2, "a schema is of one workflow_type", id="two"),
        pytest.param(["--handler", "no"], 2, "--handler goes with --schema or --output-schema", id="alone"),
        pytest.param(["--schema", "harvest", "--manifest"], 2, "not allowed with argument", id="forms"),
        pytest.param(["--descriptors", "/nowhere/image"], 2, "cannot write /nowhere/image: No such file", id="file"),
    ],
)
def test_a_contract_that_cannot_be_printed(command: Command, words: list[str], code: int, said: str) -> None:
    done = command("contracts", *words)
    assert done.code == code
    assert said in done.err


def test_programs_are_run(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text("print('seen')\n{'twice': number * 2}")
    done = command("code", "run", str(tmp_path / "program.py"), "--input", '{"number": 21}')
    assert (done.code, done.out, done.err) == (0, 'seen\n{"twice": 42}\n', "")
    monkeypatch.setattr("sys.stdin", io.StringIO("1 / 0"))
    failed = command("code", "run", "-")
    assert failed.code == 1
    assert "contextworker: the program ended with exception" in failed.err
    monkeypatch.setattr("sys.stdin", io.StringIO("1 + 1"))
    assert command("code", "run", "-", "--json").json["result"] == 2
    assert command("code", "run", "-", "--input", "-").code == 2
    assert command("code", "run", str(tmp_path / "none.py")).code == 2


def test_a_program_that_has_not_ended_in_time_is_told_with_what_keeps_it(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = TaskStatus(notice="no worker polls the task queue 'code'")
    monkeypatch.setattr(SyncTaskHandle, "status", lambda task: status)
    result = ExecuteCodeResult(workflow_id="execute-code/1", run_id="r", status="running")
    monkeypatch.setattr(SyncWorkerClient, "execute_code", lambda *_, **__: result)
    done = command("code", "run", __file__)
    assert (done.code, done.err) == (0, "contextworker: no worker polls the task queue 'code'\n")
    assert done.out.startswith("it runs; wait for it with\n  contextworker result execute-code/1")
    assert command("code", "run", __file__, "--json").json["notice"] == status.notice


def test_ctrl_c_lets_go_of_a_task_and_leaves_it_alone(
    command: Command, paused_id: str, spawn: Any, service_target: str, tenant: str
) -> None:
    process = spawn("-m", "contextunity.worker", "watch", paused_id, "--target", service_target, "--tenant", tenant)
    process.wait_for("running")
    process.send(signal.SIGINT)
    assert process.wait() == 130
    assert "stopped watching; the task is still running. Come back with" in process.output
    assert f"python -m contextunity.worker watch {paused_id} --tenant {tenant}" in process.output
    assert "Traceback" not in process.output
    assert command("status", paused_id, "--json").json["status"] == "running"
    assert command("cancel", paused_id).code == 0


def test_hooks_of_other_commands_are_found(command: Command) -> None:
    assert command("token", "secret").code == 0
    assert "mint" in command("token", "--help").out
    assert "apply" in command("schedules", "--help").out


@pytest.mark.parametrize(
    ("argv0", "program"),
    [("/x/bin/contextworker", "contextworker"), ("/x/worker/__main__.py", "python -m contextunity.worker")],
)
def test_the_help_shows_what_was_typed(
    argv0: str, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [argv0])
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert out.startswith(f"usage: {program} [-h]")
    assert f"  {program} dev " in out


def test_a_watch_is_received_where_no_signal_interrupts_it() -> None:
    threads, shown = set[threading.Thread](), list[Any]()

    def answers() -> Iterator[Any]:
        threads.add(threading.current_thread())
        yield from ("first", "second")
        raise ValueError("the service went away")

    with pytest.raises(ValueError, match="the service went away"):
        last_of(answers(), shown.append)
    assert shown == ["first", "second"]
    assert threading.main_thread() not in threads
