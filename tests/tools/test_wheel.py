"""The wheel: built from a clean tree, installed, and looked at."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

_PACKAGES = (
    "betterproto2_codec",
    "contextunity.core",
    "contextunity.gen",
    "contextunity.modules",
    "contextunity.worker",
    "contextunity.worker.contracts",
    "process_jail",
    "protoc_gen_python_messages",
    "protoc_gen_python_temporal",
    "python_temporal",
    "shared_import_sandbox",
)


pytestmark = pytest.mark.timeout(300)


def _run(installed: Path, program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=installed,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_has_every_package(unpacked_wheel: Path) -> None:
    program = (
        "import importlib\n"
        f"for name in {_PACKAGES}:\n    print(name, next(iter(importlib.import_module(name).__path__)))"
    )
    places = dict(line.split(" ", 1) for line in _run(unpacked_wheel, program).splitlines())
    assert places.keys() == set(_PACKAGES)
    assert {name for name, place in places.items() if not Path(place).is_relative_to(unpacked_wheel)} == set()


def test_the_gate_needs_no_source_tree(unpacked_wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "buf.yaml").write_text("version: v2\n")
    (tmp_path / "a.proto").write_text('syntax = "proto3";\npackage a;\nmessage A { int32 size = 1; }\n')
    shutil.copytree(tmp_path, tmp_path.with_name("released"))
    (tmp_path / "a.proto").write_text('syntax = "proto3";\npackage a;\nmessage A {}\n')
    told = _run(
        unpacked_wheel,
        "import sys, pathlib; from contextunity.worker.contracts import check; "
        f"found = check(pathlib.Path({str(tmp_path)!r}), {str(tmp_path.with_name('released'))!r}).findings; "
        "print(*(each.path for each in found))",
    )
    assert told == "a.A.size"
    scripts = next(unpacked_wheel.glob("*.dist-info/entry_points.txt")).read_text()
    assert "contextworker-buf-plugin = contextunity.worker.contracts.buf_plugin:main" in scripts


def test_it_has_the_compiled_codec(unpacked_wheel: Path) -> None:
    if shutil.which("cc") is None or not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        pytest.skip("there is no C compiler, or Python.h is missing")
    told = _run(
        unpacked_wheel, "from betterproto2_codec import _schema, _wire; print(_schema.IS_NATIVE, _wire.__file__)"
    )
    native, place = told.split(" ", 1)
    assert native == "True"
    assert Path(place).is_relative_to(unpacked_wheel)


def test_it_has_the_protos_that_contracts_import(unpacked_wheel: Path) -> None:
    told = _run(
        unpacked_wheel,
        "import pathlib, tempfile; from contextunity.worker.protos import export; "
        "print(*export(pathlib.Path(tempfile.mkdtemp())))",
    )
    assert {"buf/validate/validate.proto", "temporal/v1/temporal.proto", "contextunity/worker/worker.proto"} <= set(
        told.split()
    )


def test_it_writes_the_protos_of_callers(unpacked_wheel: Path, tmp_path: Path) -> None:
    told = _run(
        unpacked_wheel, f"from contextunity.worker.cli import main; main(['protos', {str(tmp_path)!r}, '--client'])"
    )
    assert {"contextunity/harvest/v1/harvest.proto", "google/rpc/error_details.proto", "buf.yaml"} <= set(told.split())
    assert "rpc Harvest(" in (tmp_path / "contextunity/harvest/v1/harvest.proto").read_text(encoding="utf-8")
