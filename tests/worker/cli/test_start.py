"""`contextworker start`: flags from the contract, help, and what it prints."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path

import pytest

from .conftest import Command

_SMALL = ("--supplier-code", "camping-trade", "--max-products", "20")


def test_it_starts_with_flags_of_the_contract_and_says_how_to_go_on(command: Command, tenant: str) -> None:
    done = command("start", "harvest", *_SMALL)
    assert done.code == 0
    assert f"started    harvest/{tenant}/camping-trade" in done.out
    assert f"contextworker watch harvest/{tenant}/camping-trade --tenant {tenant} --target 127.0.0.1:" in done.out


def test_with_watch_it_stays_until_the_end_and_prints_the_result(command: Command) -> None:
    done = command("start", "harvest", *_SMALL, "--watch")
    assert done.code == 0
    assert "\ncompleted" in done.out
    assert "harvest_id" in done.out
    assert "  pages     1\n" in done.out


def test_programs_get_one_document_or_a_line_for_each_change(command: Command, tenant: str) -> None:
    started = command("start", "harvest", *_SMALL, "--json").json
    assert started.keys() == {"workflow_id", "run_id", "status"}
    lines = command("start", "harvest", *_SMALL, "--json", "--watch").lines
    assert [lines[0]["status"], lines[-1]["status"]] == ["started", "completed"]
    assert lines[-1]["result"]["counts"]["pages"] == "1"


def test_a_task_that_fails_ends_with_1_and_its_causes(command: Command, tenant: str) -> None:
    done = command("start", "harvest", "--supplier-code", "no-such", "--watch")
    assert done.code == 1
    assert f"contextworker: task harvest/{tenant}/no-such failed: SupplierUnknown: unknown supplier" in done.err
    assert "  activity fetch_products: " in done.err


def test_internal_fields_have_no_flag_and_are_refused_in_input(command: Command) -> None:
    assert "resume" not in command("start", "harvest", "--help").out
    assert command("start", "harvest", *_SMALL, "--resume", "{}").code == 2
    done = command("start", "harvest", *_SMALL, "--input", '{"resume": {"harvestId": "forged"}}')
    assert done.code == 1
    assert "resume: is internal" in done.err


@pytest.mark.parametrize("way", ["inline", "file", "stdin"])
def test_input_is_given_whole_and_single_flags_win(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, tenant: str
) -> None:
    text = json.dumps({"supplier_code": "camping-trade", "max_products": 20, "page_size": 5000})
    file = tmp_path / "input.json"
    file.write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    given = {"inline": text, "file": str(file), "stdin": "-"}[way]
    assert command("start", "harvest", "--input", given).code == 1
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    done = command("start", "harvest", "--input", given, "--page-size", "500", "--json")
    assert done.json["workflow_id"] == f"harvest/{tenant}/camping-trade"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("{x", "--input: not JSON: "),
        ("/no/such/file", "/no/such/file: No such file or directory"),
    ],
)
def test_input_that_is_none_is_a_mistake(command: Command, given: str, reason: str) -> None:
    done = command("start", "harvest", "--input", given)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"contextworker: {reason}")


def test_input_that_is_no_object_is_a_mistake(command: Command, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    done = command("start", "harvest", "--input", str(tmp_path / "list.json"))
    assert done.code == 2
    assert "it holds list where a JSON object is due" in done.err


def test_what_the_service_refuses_is_told_by_flag(command: Command) -> None:
    done = command("start", "harvest", "--page-size", "5000", "--max-products", "-1")
    assert done.code == 1
    head, *violations = done.err.splitlines()
    assert head == "contextworker: PAYLOAD_INVALID: the request does not fit:"
    assert {each.partition(":")[0] for each in violations} == {
        "  - --supplier-code",
        "  - --page-size",
        "  - --max-products",
    }
    assert command("start", "harvest").err.startswith("contextworker: PAYLOAD_INVALID: --supplier-code: ")


def test_what_the_contract_does_not_know_is_a_mistake(command: Command) -> None:
    done = command("start", "harvest", "--suplier-code", "x")
    assert done.code == 2
    assert "unrecognized arguments: --suplier-code x; did you mean --supplier-code?" in done.err
    done = command("start", "harvest", "--page-size", "many")
    assert done.code == 2
    assert "argument --page-size: 'many' is not a whole number" in done.err


def test_flags_may_be_written_like_their_fields(command: Command) -> None:
    done = command("start", "harvest", "--supplier_code=camping-trade", "--max_products", "many")
    assert "argument --max-products: 'many' is not a whole number" in done.err


def test_an_unknown_workflow_type_is_told_with_those_known(command: Command) -> None:
    done = command("start", "harvst")
    assert done.code == 1
    assert "there is no workflow_type 'harvst'; known ones: enrich, execute_code, gardener, harvest" in done.err
    assert command("start").code == 2
    done = command("start", "--supplier-code", "harvest", "harvest")
    assert done.code == 2
    assert "name what to start first: contextworker start WORKFLOW_TYPE --supplier-code" in done.err


def test_help_has_the_contract(command: Command) -> None:
    done = command("start", "harvest", "--help")
    assert done.code == 0
    assert "usage: contextworker start harvest" in done.out
    assert "Harvests one supplier's feed for one tenant" in done.out
    assert "--supplier-code TEXT" in done.out
    assert "[min_len: 1; max_len: 200]" in done.out
    assert done.out.count("--tenant-id") == 1, "the tenant has one flag, also where the input has a field for it"
    general = command("start", "--help")
    assert general.code == 0
    assert "  harvest              Harvests one supplier's feed" in general.out


@pytest.mark.parametrize("words", [("start", "--help"), ("start", "harvest", "--help")])
def test_help_without_a_service_says_so(command: Command, words: tuple[str, ...]) -> None:
    done = command(*words, "--target", "127.0.0.1:1")
    assert done.code == 0
    assert "no WorkerService can be reached at 127.0.0.1:1" in done.out
    assert "usage: contextworker start WORKFLOW_TYPE [flags]" in done.out


def test_the_same_unit_id_gives_the_same_run(command: Command) -> None:
    words = ("start", "harvest", *_SMALL, "--json", "--unit-id", str(uuid.uuid4()))
    assert command(*words).json == command(*words).json
    done = command("start", "harvest", *_SMALL, "--unit-id", "7")
    assert (done.code, done.err) == (
        2,
        "contextworker: unit_id: '7' is not a UUID such as 00000000-0000-0000-0000-000000000000\n",
    )
