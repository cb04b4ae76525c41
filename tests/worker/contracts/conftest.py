"""Protos of a foreign repository, images of them, and a folder in which the gate is at work."""

from __future__ import annotations

import importlib.resources
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from grpc_tools import protoc

from contextunity.worker.protos import export

ROOT = Path(__file__).resolve().parents[3]
FOREIGN = Path(__file__).parent / "protos"
BUF = Path(sys.executable).parent / "buf"
OTHERS = ("buf/", "contextunity/", "google/", "temporal/")


def build(folder: Path, files: Mapping[str, str], imports: Path) -> bytes:
    """Descriptors of some files and of what they import, by protoc, which runs in this process and so is faster."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    out = folder / "image.binpb"
    well_known = Path(str(importlib.resources.files("grpc_tools"))) / "_proto"
    flags = [f"-I{folder}", f"-I{imports}", f"-I{well_known}", "--include_imports", "--include_source_info"]
    assert protoc.main(["protoc", *flags, f"--descriptor_set_out={out}", *files]) == 0
    return out.read_bytes()


@pytest.fixture(scope="session")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What contracts import, as `contextworker protos` writes it."""
    folder = tmp_path_factory.mktemp("imports")
    export(folder)
    return folder


@pytest.fixture(scope="session")
def foreign() -> dict[str, str]:
    """The files of a repository that is not ours."""
    return {path.relative_to(FOREIGN).as_posix(): path.read_text() for path in sorted(FOREIGN.rglob("*.proto"))}
