"""The wheel: built from a clean tree, installed, and looked at."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the files that git knows, and of nothing else that lies about."""
    clean = tmp_path_factory.mktemp("clean")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=_ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (_ROOT / name).is_file():
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, clean / name)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=clean,
        check=True,
        timeout=300,
        capture_output=True,
    )
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is installed: a wheel without scripts is installed by unpacking it."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


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


@pytest.mark.parametrize("package", _PACKAGES)
def test_it_has_every_package(installed: Path, package: str) -> None:
    place = _run(installed, f"import {package} as p; print(next(iter(p.__path__)))")
    assert Path(place).is_relative_to(installed)


def test_the_gate_needs_no_source_tree(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "buf.yaml").write_text("version: v2\n")
    (tmp_path / "a.proto").write_text('syntax = "proto3";\npackage a;\nmessage A { int32 size = 1; }\n')
    shutil.copytree(tmp_path, tmp_path.with_name("released"))
    (tmp_path / "a.proto").write_text('syntax = "proto3";\npackage a;\nmessage A {}\n')
    told = _run(
        installed,
        "import sys, pathlib; from contextunity.worker.contracts import check; "
        f"found = check(pathlib.Path({str(tmp_path)!r}), {str(tmp_path.with_name('released'))!r}).findings; "
        "print(*(each.path for each in found))",
    )
    assert told == "a.A.size"
    scripts = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    assert "contextworker-buf-plugin = contextunity.worker.contracts.buf_plugin:main" in scripts


def test_it_has_the_compiled_codec(installed: Path) -> None:
    if shutil.which("cc") is None or not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        pytest.skip("there is no C compiler, or Python.h is missing")
    told = _run(installed, "from betterproto2_codec import _schema, _wire; print(_schema.IS_NATIVE, _wire.__file__)")
    native, place = told.split(" ", 1)
    assert native == "True"
    assert Path(place).is_relative_to(installed)


def test_it_has_the_protos_that_contracts_import(installed: Path) -> None:
    told = _run(
        installed,
        "import pathlib, tempfile; from contextunity.worker.protos import export; "
        "print(*export(pathlib.Path(tempfile.mkdtemp())))",
    )
    assert {"buf/validate/validate.proto", "temporal/v1/temporal.proto", "contextunity/worker/worker.proto"} <= set(
        told.split()
    )
