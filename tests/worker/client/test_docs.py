"""What docs/client.md and docs/cli.md publish is executed as it stands there, and type-checked."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest

from contextunity.worker.cli.commands import COMMANDS
from contextunity.worker.client import TaskHandle, WorkerClient

_DOCS = Path(__file__).parents[3] / "docs"
_CLIENT = (_DOCS / "client.md").read_text(encoding="utf-8")
_CLI = (_DOCS / "cli.md").read_text(encoding="utf-8")


async def test_the_snippets_run(service_target: str, tenant: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", _CLIENT, re.DOTALL):
        # The snippets are for a service at the published address; this one is elsewhere, and shared with other tests.
        text = snippet.replace("localhost:50052", service_target).replace("my_project", tenant)
        code = compile(text, "docs/client.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        pending = types.FunctionType(code, names)()
        if inspect.isawaitable(pending):
            await pending
    out = capsys.readouterr().out
    assert f"harvest/{tenant}/camping-trade {{" in out
    assert "completed None" in out
    assert "FAILED unknown supplier 'no-such'" in out


_TYPED = {
    "README.md": ("", 2),
    "docs/client.md": ("", None),
    "docs/schedules.md": (
        "from temporalio.client import Client\n"
        "from contextunity.worker.modules.registry import WorkerRegistry\n"
        "client: Client\n"
        "registry: WorkerRegistry\n",
        None,
    ),
}
"""What precedes the snippets of a page, and how many of them stand by themselves; None for all."""


def _typed_snippets() -> dict[str, str]:
    """Modules by file name, each with the snippet in a function; imports stay in front of it."""
    made = dict[str, str]()
    for page, (given, count) in _TYPED.items():
        text = (_DOCS.parent / page).read_text(encoding="utf-8")
        for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:count]):
            lines = snippet.splitlines()
            code = len(lines) - next(
                n for n, line in enumerate(reversed(lines)) if line.startswith(("from ", "import "))
            )
            body = textwrap.indent("\n".join(lines[code:]), "    ")
            name = f"{page.removesuffix('.md').replace('/', '_')}_{number}.py"
            made[name] = "\n".join([given, *lines[:code], "", "async def snippet() -> None:", body, ""])
    return made


def test_the_snippets_are_typed_strictly(tmp_path: Path) -> None:
    snippets = _typed_snippets()
    assert len(snippets) > len(_TYPED)
    # One that is wrong shows that the checker sees the types at all.
    snippets["wrong.py"] = snippets["docs_client_2.py"].replace("response.counts.synced", "response.counts.sunk")
    for name, text in snippets.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    # A cache that stays: what the snippets import is read once.
    cache = _DOCS.parent / ".mypy_cache/snippets"
    command = [sys.executable, "-m", "mypy", "--config-file=", "--strict", f"--cache-dir={cache}", *snippets]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [line.partition(":")[0] for line in found] == ["wrong.py"], done.stdout + done.stderr
    assert '"HarvestCounts" has no attribute "sunk"' in found[0]


@pytest.mark.parametrize("cls", [WorkerClient, TaskHandle])
def test_every_method_is_listed(cls: type) -> None:
    public = {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}
    assert {name for name in public - {"close"} if f"`{name}" not in _CLIENT} == set()


def test_every_command_is_listed() -> None:
    assert {name for name in COMMANDS if f"contextworker {name}" not in _CLI and f"`{name} ID" not in _CLI} == set()
