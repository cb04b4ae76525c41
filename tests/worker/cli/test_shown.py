"""What people are shown: progress of messages that nobody knows, values, spans, welcome."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contextunity.worker.cli import main
from contextunity.worker.cli.output import headline, number_text, printable, seconds_text, table_lines, value_text
from contextunity.worker.cli.watching import fields_text, part_done, progress_text
from contextunity.worker.cli.welcome import start_command, welcome
from contextunity.worker.devserver import DevServer
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.server import RunningServer


def test_progress_gives_words_first_then_numbers_by_name() -> None:
    progress = {
        "stage": "HARVEST_STAGE_RUNNING",
        "counts": {"pages": "3", "synced": "12345"},
        "bytes_done": "10",
        "bytes_total": "40",
        "started_at": "2030-01-01T00:00:00Z",
        "note": "",
        "rows": [1, 2],
        "share": 0.5,
    }
    assert progress_text(progress) == "running  bytes 10  pages 3  synced 12,345  share 0.5"
    assert part_done(progress) == 0.25
    assert progress_text(None) == ""


@pytest.mark.parametrize(
    ("progress", "part"),
    [
        ({}, None),
        ({"done": 3, "total": 4}, 0.75),
        ({"rows_completed": 9, "rows_total": 3}, 1.0),
        ({"rows_done": 1, "rows_total": 0}, None),
        ({"rows_done": "some", "rows_total": "all"}, None),
        ({"rows_done": 1}, None),
    ],
)
def test_the_part_that_is_done_is_told_where_two_fields_tell_it(progress: dict[str, Any], part: float | None) -> None:
    assert part_done(progress) == part


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        ("1234567", "1,234,567"),
        ("-5", "-5"),
        ("007", "007"),
        ("v1", "v1"),
        ("٣", "٣"),
        (0.25, "0.25"),
        (True, "true"),
        (None, "null"),
        ([1, "a"], '[1, "a"]'),
    ],
)
def test_values_on_one_line(value: Any, text: str) -> None:
    assert value_text(value) == text


def test_numbers_spans_and_headlines() -> None:
    assert number_text(-1234.5) == "-1,234.5"
    spans = [seconds_text(timedelta(seconds=each)) for each in (-3, 5, 65, 3 * 3600 + 61, 90_000)]
    assert spans == ["0s", "5s", "1m 05s", "3h 01m", "1d 01h"]
    assert headline("Does one\nthing. And more.\n\nMuch more.") == "Does one thing."


def test_fields_over_several_lines() -> None:
    value = {"b": {"inner": "5", "none": {}}, "a": 1, "long_name": "text"}
    assert list(fields_text(value)) == ["a          1", "long_name  text", "b", "  inner  5", "  none   {}"]
    assert list(fields_text(None)) == []
    assert list(fields_text("plain")) == ["plain"]


_ID = "harvest/my_tenant/a-supplier-with-a-long-name"


def test_tables_never_shorten_an_id() -> None:
    headers = ("workflow_id", "status", "note")
    rows = [(_ID, "completed", "a note that is longer than there is room for"), ("b", "running", "")]
    assert table_lines(headers, rows, None)[1] == f"{_ID}  completed  a note that is longer than there is room for"
    heading, first, second = table_lines(headers, rows, 80)
    assert heading.split() == list(headers)
    assert (first, len(first)) == (f"{_ID}  completed  a note that is longer…", 80)
    assert second.split() == ["b", "running"]
    assert table_lines(headers, rows, 60) == [
        *(_ID, "  completed  a note that is longer than there is room for"),
        *("b", "  running"),
    ]


def test_tables_count_wide_characters_as_two() -> None:
    lines = table_lines(("id", "title"), [("目録", "a"), ("b", "c")], 40)
    assert lines == ["id    title", "目録  a", "b     c"]


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert printable("a\x1b[31m\x07\x9b\u202e\ud800\tb\n") == "a\\x1b[31m\\x07\\x9b\\u202e\\ud800\tb\n"
    assert table_lines(("id",), [("a\x1b]0;x",)], 40) == ["id", "a\\x1b]0;x"]


def test_output_that_the_encoding_lacks_is_escaped() -> None:
    program = (
        "from contextunity.worker.cli.output import *; escape_unprintable_output(); say('Größe 目'); complain('目')"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == (b"Gr\\xf6\\xdfe \\u76ee\n", b"contextworker: \\u76ee\n")


def test_json_stays_json_where_the_encoding_lacks_its_characters() -> None:
    data = {"größe": "目 😀 \x1b"}
    program = (
        "import argparse\n"
        "from contextunity.worker.cli.output import *\n"
        "escape_unprintable_output()\n"
        f"print_json({data!r})\n"
        f"fail(argparse.Namespace(json=True), 2, '目')\n"
    )
    for encoding in ("ascii", "utf-8"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True)
        assert json.loads(done.stdout) == data
        assert json.loads(done.stderr)["error"]["message"] == "目"
        assert done.stdout.isascii() == (encoding == "ascii")


def test_what_is_piped_in_is_utf_8_whatever_the_terminal_has() -> None:
    program = "from contextunity.worker.cli.inputs import read_input; assert read_input('-') == {'a': 'ü目'}"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", program]
    subprocess.run(command, input='{"a": "ü目"}'.encode(), env=environment, check=True)


def test_a_file_is_evaluated_where_the_encoding_lacks_characters_of_what_is_said(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "contextunity.modules.gardener", "evaluate", str(tmp_path / "größe.csv")]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 1
    assert b"gr\\xf6\\xdfe.csv" in done.stdout
    assert done.stderr == b""


def test_the_example_of_a_module_becomes_a_command() -> None:
    plain = {"workflow_type": "harvest", "supplier_code": "a b", "tenant_id": "t"}
    words = start_command(plain, "127.0.0.1:50052").partition(" ")[2]
    assert words == "start harvest --supplier-code 'a b' --tenant-id t --watch"
    deep = {"workflow_type": "x", "tenant_id": "t", "sizes": [1]}
    words = start_command(deep, "127.0.0.1:7").partition(" ")[2]
    assert words == "start x --tenant t --input '{\"sizes\": [1]}' --watch --target 127.0.0.1:7"


def test_where_callers_are_asked_for_tokens_the_welcome_has_a_command_that_makes_one() -> None:
    module = SimpleNamespace(config=SimpleNamespace(name="x", example={"workflow_type": "x", "tenant_id": "t"}))
    nothing: Any = None
    modules: Any = [module]
    stack = DevServer(
        temporal=EmbeddedServer(address="a:1", ui_url="http://a:2", database=Path("d/temporal.db"), pid=1),
        grpc=RunningServer(host="127.0.0.1", port=50052, server=nothing, readiness=nothing, calls=nothing),
        modules=modules,
        workers=nothing,
    )
    text = welcome(stack, with_token=True)
    assert "contextworker token mint --project my_project --tenant t --permission worker:execute" in text
    assert '  export CONTEXTWORKER_TOKEN="$(' in text
    assert '-H "authorization: Bearer $CONTEXTWORKER_TOKEN"' in text
    assert "token" not in welcome(stack).lower()


@pytest.mark.parametrize("words", [("--help",), ("status", "--help"), ("signal",), ("frobnicate",), ("dev", "--help")])
def test_help_and_mistakes_import_nothing_that_takes_long(words: tuple[str, ...]) -> None:
    program = (
        "import sys\nfrom contextunity.worker.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\nprint(*sorted(set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines()[-1].split())
    assert imported.isdisjoint({"asyncio", "betterproto2", "google.protobuf", "grpc", "pydantic", "rich", "temporalio"})


@pytest.mark.parametrize("width", ["60", "160"])
def test_a_terminal_gets_a_line_that_changes_in_place(service_target: str, tenant: str, width: str) -> None:
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "contextunity.worker", "start", "harvest", "--supplier-code", "camping-trade"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": width}
    with subprocess.Popen(
        [*command, "--watch", "--target", service_target, "--tenant", tenant],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        os.close(writer)
        seen = b""
        # The terminal ends with the process: an error on Linux, an empty read elsewhere.
        with contextlib.suppress(OSError):
            while data := os.read(reader, 65536):
                seen += data
    os.close(reader)
    assert process.returncode == 0
    text = seen.decode()
    assert "completed" in text
    assert "100%" in text
    assert "harvest_id" in text


def test_bash_completes_commands_flags_and_words() -> None:
    program = """
eval "$(contextworker completion bash)"
for words in "sta" "schedules app" "status --ru" "list --status com"; do
  line="contextworker $words"
  COMP_LINE=$line COMP_POINT=${#line} COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  _python_argcomplete contextworker
  echo "${COMPREPLY[@]}"
done
"""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["start", "status"],
        ["apply"],
        ["--run-id"],
        ["completed"],
    ]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_of_theirs(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "contextworker" in script
    assert ("function __fish_contextworker_complete" in script) == (shell == "fish")
