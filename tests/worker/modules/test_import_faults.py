"""Modules that cannot be imported: each is told in one line, with the file and line to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextunity.worker.errors import RegistryError
from contextunity.worker.modules.discovery import discover
from contextunity.worker.settings import load_settings

_CASES = {
    "name that is missing in a library": (
        "import os\nfrom json import nothing\n",
        "{folder}/acme_{n}.py:2: ImportError: cannot import name 'nothing' from 'json'",
    ),
    "library that is not installed": (
        "import os\nimport nowhere_installed\n",
        "{folder}/acme_{n}.py:2: ModuleNotFoundError: No module named 'nowhere_installed'",
    ),
    "library that lacks another": (
        "import os\n\nimport library_that_lacks\n",
        "{folder}/acme_{n}.py:3: ModuleNotFoundError: No module named 'nowhere_installed' "
        "(raised at {folder}/library_that_lacks.py:1)",
    ),
    "syntax": ("x = 1\ndef f(:\n", "{folder}/acme_{n}.py:2: SyntaxError: invalid syntax: def f(:"),
    "indentation": ("def f():\nx = 1\n", "{folder}/acme_{n}.py:2: IndentationError: expected an indented block"),
    "end of the process": (
        "import sys\nsys.exit('no licence')\n",
        "{folder}/acme_{n}.py:2: SystemExit: no licence; a module must not end the process when it is imported",
    ),
    "callable that fails": (
        "def module():\n    return {}['greeting']\n",
        "{folder}/acme_{n}.py:2: KeyError: 'greeting'",
    ),
    "error of many lines": ("raise ValueError('first\\nsecond')\n", "{folder}/acme_{n}.py:1: ValueError: first"),
}


def _faults(folder: Path, paths: str) -> tuple[str, ...]:
    with pytest.raises(RegistryError) as caught:
        discover(load_settings({"WORKER_MODULES": paths}, folder))
    return caught.value.faults


def test_each_is_told_in_one_line_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "library_that_lacks.py").write_text("import nowhere_installed\n")
    for n, (code, _) in enumerate(_CASES.values()):
        (tmp_path / f"acme_{n}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    faults = _faults(tmp_path, ",".join(f"acme_{n}" for n in range(len(_CASES))))
    assert len(faults) == len(_CASES)
    for n, (fault, (_, told)) in enumerate(zip(faults, _CASES.values(), strict=True)):
        start = f"module 'acme_{n}' (WORKER_MODULES) cannot be loaded: "
        assert fault.startswith(start + told.format(folder=tmp_path, n=n)), fault
        assert "\n" not in fault


def test_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert _faults(tmp_path, "nowhere_at_all") == (
        "module 'nowhere_at_all' (WORKER_MODULES) cannot be loaded: "
        "ModuleNotFoundError: No module named 'nowhere_at_all'",
    )


def test_one_without_a_config_gets_the_line_to_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_plain.py").write_text("def build(settings): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    add = f"ModuleConfig(name='acme_plain', workflows=[…], activities=[…]) to {tmp_path}/acme_plain.py, or name what"
    assert _faults(tmp_path, "acme_plain,acme_plain:modul,acme_plain:build") == (
        f"module 'acme_plain' (WORKER_MODULES) has no 'module'; add module = {add} is a ModuleConfig: acme_plain:NAME",
        f"module 'acme_plain:modul' (WORKER_MODULES) has no 'modul'; add modul = {add} is a ModuleConfig: "
        "acme_plain:NAME",
        "module 'acme_plain:build' (WORKER_MODULES) needs arguments; it should be a ModuleConfig, or return one "
        "without any",
    )
