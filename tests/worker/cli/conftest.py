"""Commands that call the real service, run in the test process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from contextunity.worker.cli import main


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Done]


@pytest.fixture
def command(
    service_target: str, tenant: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs `contextworker WORDS`, for a tenant of the test's own."""
    monkeypatch.setenv("CONTEXTWORKER_TARGET", service_target)
    monkeypatch.setenv("CONTEXTWORKER_TENANT", tenant)
    monkeypatch.setattr("sys.argv", ["/usr/bin/contextworker"])
    # What argparse writes is as wide as the terminal.
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Done:
        try:
            code = main(words)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run
