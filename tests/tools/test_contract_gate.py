"""The compatibility gate: what breaks callers is refused, and "could not compare" is never taken for "compatible"."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_HARVEST = "proto/contextunity/harvest/v1/harvest.proto"
_UNIT = "proto/contextunity/core/context_unit.proto"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what the gate looks at."""
    for name in ("proto", "contract"):
        shutil.copytree(_ROOT / name, tmp_path / name)
    shutil.copy(_ROOT / "buf.yaml", tmp_path / "buf.yaml")
    collect = [sys.executable, str(_ROOT / "tools/third_party_protos.py"), str(tmp_path / ".build/protos")]
    subprocess.run(collect, check=True)
    return tmp_path


def _gate(repository: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_ROOT / "tools/check_contract.py"), "--root", str(repository), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_unchanged_copy_passes(repository: Path) -> None:
    assert _gate(repository).returncode == 0


def test_a_new_field_passes(repository: Path) -> None:
    _replace(
        repository / _UNIT, "google.protobuf.Any body = 11;", "google.protobuf.Any body = 11;\n  string more = 12;"
    )
    assert _gate(repository).returncode == 0


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param(_UNIT, "string trace_id = 2;", "string trace_id = 12;", id="field renumbered"),
        pytest.param(_UNIT, "string trace_id = 2;", "string trace = 2;", id="field renamed"),
        pytest.param(_UNIT, "string trace_id = 2;", "", id="field deleted"),
        pytest.param(_UNIT, "string trace_id = 2;", "bytes trace_id = 2;", id="field retyped"),
        pytest.param(_UNIT, "AUDIO = 1;", "SOUND = 1;", id="enum value renamed"),
        pytest.param(_HARVEST, "rpc Harvest(HarvestRequest)", "rpc Reap(HarvestRequest)", id="method renamed"),
        pytest.param(_HARVEST, "message RawPage {", "message RawSheet {", id="payload message renamed"),
    ],
)
def test_what_breaks_callers_is_refused(repository: Path, file: str, old: str, new: str) -> None:
    _replace(repository / file, old, new)
    done = _gate(repository)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "breaks the released contract" in done.stdout


def test_a_deleted_file_is_refused(repository: Path) -> None:
    (repository / _HARVEST).unlink()
    assert _gate(repository).returncode == 1


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda root: shutil.rmtree(root / "contract"), id="no contract"),
        pytest.param(
            lambda root: (root / "contract/contextunity/core/context_unit.proto").write_text("?"), id="broken"
        ),
        pytest.param(lambda root: (root / _UNIT).write_text("syntax = "), id="proto does not compile"),
    ],
)
def test_could_not_compare_is_told_apart_from_breaking(repository: Path, spoil: object) -> None:
    assert callable(spoil)
    spoil(repository)
    done = _gate(repository)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "could not be compared" in done.stdout


def test_releasing_moves_the_contract(repository: Path) -> None:
    _replace(repository / _UNIT, "string trace_id = 2;", "string trace = 2;")
    assert _gate(repository, "--release").returncode == 0
    assert _gate(repository).returncode == 0
