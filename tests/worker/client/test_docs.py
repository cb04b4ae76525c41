"""What docs/client.md and docs/cli.md publish is executed as it stands there."""

from __future__ import annotations

import ast
import inspect
import re
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


@pytest.mark.parametrize("cls", [WorkerClient, TaskHandle])
def test_every_method_is_listed(cls: type) -> None:
    public = {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}
    assert {name for name in public - {"close"} if f"`{name}" not in _CLIENT} == set()


def test_every_command_is_listed() -> None:
    assert {name for name in COMMANDS if f"contextworker {name}" not in _CLI and f"`{name} ID" not in _CLI} == set()
