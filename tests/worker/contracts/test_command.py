"""`contextworker contract` in a repository that is not ours, with the real buf and the real git."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contextunity.worker.cli import main

from .conftest import BUF, ROOT

_GREET = """\
syntax = "proto3";

package acme.greet.v1;

import "shared/v1/shared.proto";

message Greeting {
  string name = 1;
  shared.v1.Place place = 2;
}
"""
_SHARED = 'syntax = "proto3";\n\npackage shared.v1;\n\nmessage Place {\n  string city = 1;\n}\n'
_CONFIG = "version: v2\nmodules:\n  - path: proto\n  - path: imports\nbreaking:\n  use: [FILE]\n"


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Done]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `contextworker contract WORDS` where the test is."""

    def run(*words: str) -> Done:
        try:
            code = main(["contract", *words])
        except SystemExit as ended:
            code = int(str(ended.code))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(code, captured.out, captured.err)

    return run


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def _git(folder: Path, *words: str) -> None:
    names = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository with a module of its own, and one that it collects from elsewhere and has git ignore."""
    folder = tmp_path / "repository"
    _write(
        folder,
        {
            "buf.yaml": _CONFIG,
            ".gitignore": "/imports\n",
            "proto/acme/greet/v1/greet.proto": _GREET,
            "imports/shared/v1/shared.proto": _SHARED,
            "imports/unused/v1/unused.proto": _SHARED.replace("shared", "unused"),
        },
    )
    _git(folder, "init", "--quiet")
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "-m", "first")
    _git(folder, "tag", "v1")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: dict[str, str], imports: Path) -> Path:
    """A repository with annotated protos, released as they are."""
    folder = tmp_path / "orders"
    _write(folder, {"buf.yaml": _CONFIG, ".gitignore": "/imports\n"})
    _git(folder, "init", "--quiet")
    for name in ("proto", "contract"):
        _write(folder / name, foreign)
    shutil.copytree(imports, folder / "imports")
    monkeypatch.chdir(folder)
    return folder


def test_the_first_release_is_the_baseline_of_checks(repository: Path, command: Command) -> None:
    done = command("release")
    assert done.code == 0, done.err
    assert "released 1 files to contract" in done.out
    released = [
        path.relative_to(repository / "contract").as_posix() for path in repository.rglob("contract/**/*.proto")
    ]
    assert released == ["acme/greet/v1/greet.proto"]
    done = command("check")
    assert (done.code, done.out) == (0, "nothing breaks, compared with contract\n")


@pytest.mark.parametrize("kind", ["folder", "folder with buf.yaml", "binary image", "JSON image", "git reference"])
def test_it_compares_with(kind: str, repository: Path, command: Command, tmp_path: Path) -> None:
    match kind:
        case "folder":
            against = "../released"
            shutil.copytree(repository / "proto", tmp_path / "released")
        case "folder with buf.yaml":
            against = "../released"
            shutil.copytree(repository, tmp_path / "released")
        case "git reference":
            against = "v1"
        case _:
            against = f"../image.{'json' if 'JSON' in kind else 'binpb'}"
            subprocess.run([str(BUF), "build", ".", "-o", against], check=True)
    assert command("check", "--against", against).code == 0
    _edit(repository / "proto/acme/greet/v1/greet.proto", "  string name = 1;", "\n  string title = 1;")
    done = command("check", "--against", against, "--json")
    assert done.code == 1
    found = {each["rule"]: each for each in done.json["findings"]}
    assert {"FIELD_SAME_NAME"} <= set(found)
    finding = found["FIELD_SAME_NAME"]
    assert finding["path"] == "acme.greet.v1.Greeting.name"
    assert finding["new"] == {"file": "proto/acme/greet/v1/greet.proto", "line": 9}
    assert finding["old"]["line"] == 8
    assert finding["old"]["file"].endswith("acme/greet/v1/greet.proto")
    assert (kind != "git reference") or finding["old"]["file"] == "v1:proto/acme/greet/v1/greet.proto"
    assert finding["breaks"] == ["callers", "workers on the old build", "running tasks"]


def test_a_folder_within_a_git_repository_is_compared_by_itself(
    repository: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("buf.yaml", "proto", "imports")
    for name in names:
        (repository / "service" / name).parent.mkdir(exist_ok=True)
        (repository / name).rename(repository / "service" / name)
    _git(repository, "add", ".")
    _git(repository, "commit", "--quiet", "-m", "moved")
    _edit(repository / "service/proto/acme/greet/v1/greet.proto", "  string name = 1;\n", "")
    done = command("check", "--against", "HEAD", "--root", "service")
    assert done.code == 1
    assert "service/proto/acme/greet/v1/greet.proto:7: error FIELD_NO_DELETE: acme.greet.v1.Greeting.name" in done.out
    monkeypatch.chdir(repository / "service")
    done = command("check", "--against", "HEAD")
    assert done.code == 1
    assert "before   HEAD:proto/acme/greet/v1/greet.proto:8" in done.out
    assert "v1 has no buf.yaml" in command("check", "--against", "v1").err


def test_what_was_deleted_is_named_where_it_was(repository: Path, command: Command) -> None:
    file = repository / "proto/acme/greet/v1/greet.proto"
    _edit(file, "  string name = 1;\n", "")
    done = command("check", "--against", "v1")
    assert done.code == 1
    assert "error FIELD_NO_DELETE: acme.greet.v1.Greeting.name" in done.out
    assert "v1:proto/acme/greet/v1/greet.proto:8" in done.out
    file.unlink()
    _write(repository, {"proto/acme/greet/v2/greet.proto": _GREET.replace("v1;", "v2;", 1)})
    done = command("check", "--against", "v1")
    assert done.code == 1
    assert "error FILE_NO_DELETE: acme/greet/v1/greet.proto" in done.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(
            ("--against", "v7"), "'v7' is not a folder, an image or a known git reference", id="unknown reference"
        ),
        pytest.param((), "there is no folder contract/ to compare with; give --against", id="nothing given"),
        pytest.param(("--against", "empty"), "empty has no protos", id="empty folder"),
        pytest.param(("--root", "imports"), "has no buf.yaml", id="no buf.yaml"),
        pytest.param(("--against", "v0"), "v0 has no buf.yaml", id="reference without buf.yaml"),
        pytest.param(("--json", "--sarif"), "not allowed with", id="two outputs"),
    ],
)
def test_it_is_used_wrongly(words: tuple[str, ...], told: str, repository: Path, command: Command) -> None:
    (repository / "empty").mkdir()
    if "v0" in words:
        _git(repository, "checkout", "--quiet", "--orphan", "old")
        _git(repository, "rm", "--quiet", "--cached", "buf.yaml")
        _git(repository, "commit", "--quiet", "-m", "none")
        _git(repository, "tag", "v0")
    done = command("check", *words)
    assert done.code == 2, done.out
    assert told in done.err
    assert len(done.err.splitlines()) == 1 or "usage:" in done.err


def test_what_does_not_compile_is_no_breaking_change(repository: Path, command: Command, tmp_path: Path) -> None:
    released = tmp_path / "released"
    shutil.copytree(repository / "proto", released)
    spoilt = {"acme/greet/v1/greet.proto": "syntax = "}
    _write(repository / "proto", spoilt)
    done = command("check", "--against", "v1")
    assert done.code == 3
    assert "do not compile: proto/acme/greet/v1/greet.proto:1:" in done.err
    assert "nothing is known about what breaks" in done.err
    shutil.copytree(released, repository / "proto", dirs_exist_ok=True)
    _write(released, spoilt)
    done = command("check", "--against", str(released))
    assert done.code == 3
    assert f"the protos in {released} do not compile" in done.err
    (tmp_path / "image.binpb").write_bytes(b"\x0a\xff")
    done = command("check", "--against", str(tmp_path / "image.binpb"))
    assert done.code == 3
    assert "is not an image that buf can read" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "code", "exit_code"),
    [("message Broken {", "INCOMPARABLE", 3), ("", "USAGE", 2)],
    ids=["broken", "unknown"],
)
def test_for_programs_errors_are_json(text: str, code: str, exit_code: int, repository: Path, command: Command) -> None:
    with (repository / "proto/acme/greet/v1/greet.proto").open("a") as file:
        file.write(text)
    done = command("check", "--against", "v1" if text else "nowhere", "--json")
    error = json.loads(done.err)["error"]
    assert (done.code, done.out, error["code"], error["exit_code"]) == (exit_code, "", code, exit_code)


def test_without_buf_it_says_what_to_install(
    repository: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    done = command("check", "--against", "v1")
    assert done.code == 3
    assert "pip install 'contextworker[contract]'" in done.err


def test_all_families_come_in_one_report(orders: Path, command: Command) -> None:
    file = orders / "proto/acme/orders/v1/orders.proto"
    assert command("check").code == 0
    _edit(file, 'task_queue: "reorders"', 'task_queue: "more"')
    _edit(file, "max_len = 200", "max_len = 20")
    _edit(file, "string free = 23;", "string free = 23 [(contextunity.worker.internal) = true];")
    _edit(file, "bool express = 20;", "bool fast = 20;")
    _edit(file, "execution_timeout: {seconds: 86400}", "execution_timeout: {seconds: 60}")
    done = command("check", "--json")
    assert done.code == 1
    assert {(each["family"], each["severity"]) for each in done.json["findings"]} == {
        ("wire", "error"),
        ("temporal", "error"),
        ("temporal", "warning"),
        ("rules", "error"),
        ("options", "error"),
    }
    assert done.json["warnings"] == 1
    [warning] = [each for each in done.json["findings"] if each["severity"] == "warning"]
    assert warning["text"] == "execution_timeout 86400s → 60s"


def test_every_break_of_our_own_protos_is_found_at_once(tmp_path: Path, command: Command, imports: Path) -> None:
    for name in ("proto", "contract"):
        shutil.copytree(ROOT / "proto", tmp_path / name)
    shutil.copytree(imports, tmp_path / ".build/protos")
    for name in ("contextunity", "temporal/v1"):
        shutil.rmtree(tmp_path / ".build/protos" / name)
    shutil.copy(ROOT / "buf.yaml", tmp_path / "buf.yaml")
    unit = tmp_path / "proto/contextunity/core/context_unit.proto"
    harvest = tmp_path / "proto/contextunity/harvest/v1/harvest.proto"
    _edit(unit, "string trace_id = 2;", "string trace_id = 21;")
    _edit(unit, "string parent_unit_id = 3;", "string parent = 3;")
    _edit(unit, "AUDIO = 1;", "SOUND = 1;")
    _edit(unit, "int64 latency_ms = 1;", "int32 latency_ms = 1;")
    _edit(harvest, "rpc Harvest(HarvestRequest)", "rpc Reap(HarvestRequest)")
    _edit(harvest, "message RawPage {", "message RawSheet {")
    (tmp_path / "proto/contextunity/worker/context.proto").unlink()
    done = command("check", "--root", str(tmp_path), "--json")
    assert done.code == 1
    found = {(each["rule"], each["path"]) for each in done.json["findings"]}
    assert {
        ("FIELD_NO_DELETE", "contextunity.core.ContextUnit.trace_id"),
        ("FIELD_SAME_NAME", "contextunity.core.ContextUnit.parent_unit_id"),
        ("ENUM_VALUE_SAME_NAME", "contextunity.core.Modality.AUDIO"),
        ("FIELD_SAME_TYPE", "contextunity.core.UnitMetrics.latency_ms"),
        ("RPC_NO_DELETE", "contextunity.harvest.v1.HarvestService.Harvest"),
        ("MESSAGE_NO_DELETE", "contextunity.harvest.v1.RawPage"),
        ("FILE_NO_DELETE", "contextunity/worker/context.proto"),
    } <= found, found


def test_warnings_are_errors_when_it_is_strict(orders: Path, command: Command) -> None:
    _edit(orders / "proto/acme/orders/v1/orders.proto", "heartbeat_timeout: {seconds: 10}", "")
    done = command("check")
    assert done.code == 0
    assert "warning HEARTBEAT_TIMEOUT_REMOVED: acme.orders.v1.OrderService.Charge" in done.out
    done = command("check", "--strict")
    assert done.code == 1
    assert "error HEARTBEAT_TIMEOUT_REMOVED" in done.out


_EXCEPTION = """\
[[exception]]
rule = "FIELD_SAME_NAME"
path = "acme.greet.v1.Greeting"
reason = "nobody reads it as JSON"
"""


def test_an_exception_is_for_a_rule_and_a_path_and_ends_with_the_release(repository: Path, command: Command) -> None:
    assert command("release").code == 0
    _edit(repository / "proto/acme/greet/v1/greet.proto", "string name = 1;", "string title = 1;")
    json_name = _EXCEPTION.replace("SAME_NAME", "SAME_JSON_NAME").replace("Greeting", "Greeting.name")
    unused = _EXCEPTION.replace("SAME_NAME", "SAME_TYPE")
    _write(repository, {"contract-exceptions.toml": f"{_EXCEPTION}\n{unused}\n{json_name}"})
    done = command("check")
    assert done.code == 1
    assert "contract-exceptions.toml:6: error EXCEPTION_UNUSED: acme.greet.v1.Greeting" in done.out
    assert "1 error, compared with contract; 2 excepted by contract-exceptions.toml" in done.out
    _write(repository, {"contract-exceptions.toml": f"{_EXCEPTION}\n{json_name}"})
    done = command("release")
    assert done.code == 0, done.out
    assert not (repository / "contract-exceptions.toml").exists()
    assert "string title = 1;" in (repository / "contract/acme/greet/v1/greet.proto").read_text()
    assert command("check").code == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("[[exception]", "cannot be read", id="no TOML"),
        pytest.param('[[exception]]\nrule = "A"\npath = "b"\n', ":1: the exception needs a reason", id="no reason"),
        pytest.param(_EXCEPTION + "until = 3\n", ":1: 'until' is unknown", id="unknown key"),
        pytest.param("[other]\n", "may only hold tables [[exception]]", id="other table"),
        pytest.param("exception = 3\n", "may only hold tables [[exception]]", id="no table"),
    ],
)
def test_a_faulty_file_of_exceptions_is_named(text: str, told: str, repository: Path, command: Command) -> None:
    _write(repository, {"contract-exceptions.toml": text})
    done = command("check", "--against", "v1")
    assert done.code == 2
    assert told in done.err


@pytest.mark.parametrize(
    "path", ["acme/greet/v1/greet.proto", "acme", "proto/acme/greet"], ids=["file", "folder", "folder of the module"]
)
def test_what_a_file_says_as_a_whole_is_excepted_by_it_or_a_folder(
    path: str, repository: Path, command: Command
) -> None:
    assert command("release").code == 0
    _edit(
        repository / "proto/acme/greet/v1/greet.proto",
        "package acme.greet.v1;",
        'package acme.greet.v1;\noption go_package = "acme.example/greet/v1;greetv1";',
    )
    assert "error FILE_SAME_GO_PACKAGE: acme/greet/v1/greet.proto" in command("check").out
    exception = _EXCEPTION.replace("FIELD_SAME_NAME", "FILE_SAME_GO_PACKAGE").replace("acme.greet.v1.Greeting", path)
    _write(repository, {"contract-exceptions.toml": exception})
    done = command("check")
    assert (done.code, "1 excepted by contract-exceptions.toml" in done.out) == (0, True), done.out


def test_nothing_is_released_where_something_breaks(repository: Path, command: Command) -> None:
    assert command("release").code == 0
    _edit(repository / "proto/acme/greet/v1/greet.proto", "string name = 1;", "bytes name = 1;")
    done = command("release")
    assert done.code == 1
    assert "nothing was released" in done.err
    assert "string name = 1;" in (repository / "contract/acme/greet/v1/greet.proto").read_text()


def test_code_scanning_gets_places_and_what_is_excepted(orders: Path, command: Command) -> None:
    file = orders / "proto/acme/orders/v1/orders.proto"
    _edit(file, "max_len = 200", "max_len = 20")
    _edit(file, 'name: "get_order"', 'name: "order"')
    exception = _EXCEPTION.replace("FIELD_SAME_NAME", "INPUT_LENGTH_NARROWED").replace("greet.v1.Greeting", "orders.v1")
    _write(orders, {"contract-exceptions.toml": exception})
    done = command("check", "--sarif")
    assert done.code == 1
    assert done.json["version"] == "2.1.0"
    [run] = done.json["runs"]
    results = {each["ruleId"]: each for each in run["results"]}
    assert set(results) == {"QUERY_NAME_CHANGED", "INPUT_LENGTH_NARROWED"}
    query = results["QUERY_NAME_CHANGED"]
    assert run["tool"]["driver"]["rules"][query["ruleIndex"]]["id"] == "QUERY_NAME_CHANGED"
    assert query["level"] == "error"
    line = file.read_text().splitlines().index('    option (temporal.v1.query) = {name: "order"};') + 1
    [location] = query["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "proto/acme/orders/v1/orders.proto"},
        "region": {"startLine": line},
    }
    [related] = query["relatedLocations"]
    assert related["physicalLocation"]["artifactLocation"]["uri"] == "contract/acme/orders/v1/orders.proto"
    assert results["INPUT_LENGTH_NARROWED"]["suppressions"] == [
        {"kind": "external", "justification": "nobody reads it as JSON"}
    ]


def test_a_diff_tells_harmless_changes_too(orders: Path, command: Command) -> None:
    file = orders / "proto/acme/orders/v1/orders.proto"
    _edit(file, "string free = 23;", "string free = 23 [deprecated = true];\n  string more = 30;")
    _edit(file, "execution_timeout: {seconds: 86400}", "execution_timeout: {seconds: 90000}")
    _edit(file, "message Parked {\n  int32 slot = 1 [(buf.validate.field).int32.lt = 50];\n}\n", "")
    done = command("diff")
    assert done.code == 0
    assert sorted(done.out.splitlines()) == [
        "- added field acme.orders.v1.PlaceOrderRequest.more",
        "- changed field acme.orders.v1.PlaceOrderRequest.free: deprecated none → true",
        "- changed method acme.orders.v1.OrderService.PlaceOrder: "
        "(temporal.v1.workflow).execution_timeout 86400s → 90000s",
        "- removed message acme.orders.v1.Parked",
    ]


def test_a_diff_of_the_same_is_empty(repository: Path, command: Command) -> None:
    assert command("diff", "--against", "v1").out == "nothing changed\n"
    _edit(repository / "proto/acme/greet/v1/greet.proto", "string name = 1;", "string name = 1 [deprecated = true];")
    assert command("diff", "--against", "v1", "--json").json == {
        "changes": [
            {
                "action": "changed",
                "kind": "field",
                "path": "acme.greet.v1.Greeting.name",
                "details": ["deprecated none → true"],
            }
        ]
    }


def test_a_release_leaves_other_files_alone_and_never_replaces_the_protos(repository: Path, command: Command) -> None:
    _write(repository, {"contract/README": "ours", "contract/acme/old/v1/old.proto": _SHARED})
    for target in (".", "proto", "proto/released"):
        done = command("release", "--to", target)
        assert done.code == 2
        assert f"{target} and the protos in " in done.err
    (repository / "contract/acme/old/v1/old.proto").unlink()
    assert command("release").code == 0
    kept = {path.relative_to(repository / "contract").as_posix() for path in repository.glob("contract/**/*.*")}
    assert kept == {"acme/greet/v1/greet.proto"}
    assert (repository / "contract/README").read_text() == "ours"
    assert command("release", "--module", "other").code == 2


def test_numbers_that_others_use_for_options_of_their_own_are_not_ours(repository: Path, command: Command) -> None:
    options = (
        'syntax = "proto3";\n\npackage acme.options.v1;\n\nimport "google/protobuf/descriptor.proto";\n\n'
        "extend google.protobuf.FieldOptions {\n  bool shown = 50010;\n}\n"
    )
    file = "proto/acme/greet/v1/greet.proto"
    text = _GREET.replace("import", 'import "acme/options/v1/options.proto";\nimport', 1)
    _write(repository, {"proto/acme/options/v1/options.proto": options, file: text})
    assert command("release").code == 0
    _edit(repository / file, "string name = 1;", "string name = 1 [(acme.options.v1.shown) = true];")
    done = command("check")
    assert (done.code, done.out) == (0, "nothing breaks, compared with contract\n")


def test_the_commands_of_the_guide_work_as_they_stand_there(
    repository: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (ROOT / "docs/how-to/guard-your-contract.md").read_text()
    blocks = "\n".join(re.findall(r"```(?:sh|yaml)\n(.*?)```", guide, re.DOTALL))
    commands = re.findall(r"(?:^|run: |entry: )contextworker ([^>|\n]*)", blocks, re.MULTILINE)
    assert len(commands) >= 7
    for words in (each.split() for each in commands):
        if words[0] == "contract":
            done = command(*words[1:])
            assert done.code == 0, (words, done.out, done.err)
        else:
            assert main(words) == 0
            capsys.readouterr()
