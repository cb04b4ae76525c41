"""`contextworker schedules`, against a service with a real server behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from contextunity.worker.auth import authenticator_for
from contextunity.worker.cli.main import main
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.server import running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings

Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def run(
    client: Client,
    registry: WorkerRegistry,
    tenant: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> AsyncIterator[Run]:
    """Runs `contextworker schedules …` for the test's tenant; gives the exit code and what it printed."""
    monkeypatch.setenv("WORKER_MODULES", "acme_reports_module")
    monkeypatch.chdir(tmp_path)
    settings = Settings(host="127.0.0.1", port=0)
    async with running_server(WorkerService(client, registry), settings, authenticator_for(settings)) as server:

        async def run(*words: str) -> tuple[int, str, str]:
            arguments = ["schedules", *words, "--target", server.target, "--tenant", tenant]
            code = await asyncio.to_thread(main, arguments)
            said = capsys.readouterr()
            return code, said.out, said.err

        yield run


async def test_declared_schedules_are_shown_then_applied(run: Run) -> None:
    shown = ["+ weekly", "+ hourly", "+ sweep"]
    code, out, err = await run("apply", "--diff", "--dry-run", "--module", "reports")
    assert (code, err) == (0, "")
    assert out.splitlines() == [*shown, "3 created (dry run: nothing was done)"]
    code, out, _ = await run("apply", "--module", "reports")
    assert (code, out.splitlines()) == (0, [*shown, "3 created"])
    assert (await run("apply", "--module", "reports"))[1] == "3 unchanged\n"
    unchanged = ["= weekly", "= hourly", "= sweep", "3 unchanged"]
    assert (await run("apply", "--diff", "--module", "reports"))[1].splitlines() == unchanged
    # Without a module it is those of all; the service here does not know harvest.
    code, out, err = await run("apply")
    assert code != 0
    assert "harvest-nightly" in out + err


async def test_a_module_without_schedules_prunes_nothing_by_mistake(run: Run) -> None:
    assert await run("apply", "--module", "code") == (
        0,
        "nothing to do\n",
        "contextworker: no contract declares a schedule\n",
    )
    code, _, err = await run("apply", "--module", "code", "--prune")
    assert code == 2
    assert "so all would be removed" in err
    code, _, err = await run("apply", "--module", "farmer")
    assert code == 2
    assert "unknown module 'farmer'" in err


@pytest.mark.parametrize("kind", ["json", "toml"])
async def test_a_file_is_applied_and_its_changes_told(
    run: Run, tmp_path: Path, kind: str, eventually: Callable[..., Awaitable[Any]]
) -> None:
    path = tmp_path / f"schedules.{kind}"

    def write(cron: str, *others: str) -> None:
        entries = [{"id": each, "workflow_name": "sweep", "cron": cron} for each in ("nightly", *others)]
        if kind == "json":
            path.write_text(json.dumps({"schedules": entries, "project_id": "p"}))
        else:
            tables = (
                "[[schedules]]\n" + "".join(f'{key} = "{value}"\n' for key, value in each.items()) for each in entries
            )
            path.write_text('project_id = "p"\n' + "\n".join(tables))

    write("0 3 * * *", "old")
    assert await run("apply", path.name) == (0, "+ nightly\n+ old\n2 created\n", "")

    async def names() -> list[str]:
        code, out, _ = await run("list", "--json", "--project", "p")
        assert code == 0
        return [each["schedule"]["schedule_id"] for each in json.loads(out)["schedules"]]

    assert await eventually(names, lambda found: len(found) == 2) == ["nightly", "old"]
    write("0 4 * * *")
    code, out, _ = await run("apply", path.name, "--diff", "--prune")
    assert (code, out.splitlines()) == (
        0,
        ["~ nightly", "    - cron: 0 3 * * *", "    + cron: 0 4 * * *", "- old", "1 updated, 1 removed"],
    )
    code, _, err = await run("apply", path.name, "--project", "q")
    assert (code, err) == (
        2,
        f"contextworker: {path.name} says project_id 'p', but 'q' was given; drop one\n",
    )


async def test_faults_of_a_file_are_named(run: Run, tmp_path: Path) -> None:
    good = {"schedule_id": "good", "workflow_type": "sweep", "cron": "@daily"}
    (tmp_path / "s.json").write_text(json.dumps([good, {**good, "schedule_id": "bad", "cron": "0 25 * * *"}]))
    code, out, err = await run("apply", "s.json")
    assert (code, out) == (1, "")
    assert "payload.schedules[1].cron: schedule 'bad': hour '25': 25 is not from 0 to 23" in err
    code, out, _ = await run("apply", "s.json", "--partial")
    assert (code, out.splitlines()) == (
        1,
        ["+ good", "! bad", "    cron: hour '25': 25 is not from 0 to 23", "1 created, 1 faulty"],
    )


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        pytest.param("a.json", "{", "a.json: not JSON: ", id="json"),
        pytest.param("a.toml", "[[", "a.toml: not TOML: ", id="toml"),
        pytest.param("a.json", "5", "a.json: it holds int where schedules are due", id="number"),
        pytest.param("a.json", None, "a.json: No such file", id="missing"),
    ],
)
async def test_what_is_no_file_of_schedules_is_said_so(
    run: Run, tmp_path: Path, name: str, text: str | None, fault: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    code, out, err = await run("apply", name)
    assert (code, out) == (2, "")
    assert fault in err
    code, _, err = await run("apply", name, "--module", "reports")
    assert (code, err) == (
        2,
        "contextworker: --module goes with the schedules that contracts declare, and not with a file\n",
    )


@pytest.mark.usefixtures("worker")
async def test_schedules_are_listed_and_steered(run: Run, eventually: Callable[..., Awaitable[Any]]) -> None:
    assert await run("list") == (0, "no schedules\n", "")
    await run("apply", "--module", "reports")
    assert await run("pause", "weekly", "--note", "holidays") == (0, "weekly: paused\n", "")
    code, out, _ = await run("trigger", "hourly")
    assert code == 0
    assert out.startswith("hourly: triggered\n  ")
    assert " watch schedule/tenant%2F" in out
    listed = await eventually(lambda: run("list"), lambda said: said[1].count("\n") == 4 and "ago" in said[1])
    lines = {line.split()[0]: line for line in listed[1].splitlines()}
    assert {"paused", "holidays", "Europe/Berlin"} <= set(lines["weekly"].split())
    assert "30 2 * * *" in lines["sweep"]
    assert await run("resume", "weekly") == (0, "weekly: active\n", "")
    code, out, _ = await run("delete", "weekly", "--json")
    assert (code, json.loads(out)["status"]) == (0, "deleted")
    code, _, err = await run("delete", "weekly")
    assert code == 1
    assert "SCHEDULE_UNKNOWN: there is no schedule 'weekly' in the project 'default'" in err
