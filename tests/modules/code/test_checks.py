"""What `contextworker doctor` finds where the sandboxes do not work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import process_jail
from contextunity.modules.code.backend import Outcome
from contextunity.modules.code.checks import check_kernel, check_programs
from contextunity.modules.code.cpython import CPythonBackend
from contextunity.modules.code.errors import SandboxUnavailable
from contextunity.modules.code.settings import CodeSettings
from contextunity.worker.core.registry import ModuleContext
from contextunity.worker.doctor.findings import Status


def _context(**settings: Any) -> ModuleContext:
    return ModuleContext(settings=CodeSettings(**settings), data_folder=Path("nowhere"))


async def test_a_kernel_that_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_jail, "missing", lambda root, uid: ["Landlock", "seccomp filters"])
    (finding,) = await check_kernel(_context())
    assert (finding.status, finding.value) == (Status.FAIL, "lacks Landlock; seccomp filters")
    (finding,) = await check_kernel(_context(cpython=False))
    assert finding.status is Status.OK


async def test_a_backend_that_cannot_run_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any) -> Outcome:
        raise SandboxUnavailable("the kernel lacks Landlock")

    monkeypatch.setattr(CPythonBackend, "run", refuse)
    found = {finding.check: finding for finding in await check_programs(_context())}
    assert found["code.programs.cpython"].status is Status.FAIL
    assert found["code.programs.cpython"].detail == "the kernel lacks Landlock"
    assert found["code.programs.monty"].status is Status.OK


async def test_a_backend_that_is_off_is_not_run() -> None:
    found = {finding.check: finding.value for finding in await check_programs(_context(cpython=False))}
    assert found["code.programs.cpython"] == "off"
    assert found["code.programs.monty"].startswith("ran a program in ")
