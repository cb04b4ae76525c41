"""Generates the protos of bench/proto as any project generates its own, into a folder that goes away afterwards."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["generate", "page_module"]

_ROOT = Path(__file__).resolve().parents[1]
_PROTO = _ROOT / "bench" / "proto"
_PACKAGE = "bench_tree"


def generate(folder: Path) -> Path:
    """Writes the package `bench_tree` into the folder, and gives the folder; it belongs on Python's path."""
    out = folder / _PACKAGE
    if out.exists():
        return folder
    out.mkdir(parents=True)
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"-I{_ROOT / 'proto'}", f"-I{_temporal_protos()}"]
    for plugin in ("python_messages", "python_temporal"):
        program = Path(sys.executable).parent / f"protoc-gen-{plugin}"
        command += [f"--plugin=protoc-gen-{plugin}={program}", f"--{plugin}_out={out}"]
        command.append(f"--{plugin}_opt=package={_PACKAGE}")
    files = sorted(path.relative_to(_PROTO).as_posix() for path in _PROTO.rglob("*.proto"))
    subprocess.run([*command, *files], cwd=_PROTO, check=True)
    return folder


def page_module(folder: Path) -> Any:
    """The dataclasses of `page.proto`, generated; Google's classes lie beside them."""
    generate(folder)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(f"{_PACKAGE}.bench.v1")


def _temporal_protos() -> str:
    spec = importlib.util.find_spec("temporalio")
    assert spec is not None
    assert spec.submodule_search_locations
    return f"{spec.submodule_search_locations[0]}/bridge/sdk-core/crates/protos/protos/api_upstream"
