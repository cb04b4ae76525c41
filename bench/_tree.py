"""Generates the protos of bench/proto as any project generates its own, into a folder that goes away afterwards."""

from __future__ import annotations

import atexit
import functools
import importlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["generated_tree", "page_module"]

_ROOT = Path(__file__).resolve().parents[1]
_PROTO = _ROOT / "bench" / "proto"
_PACKAGE = "bench_tree"


@functools.cache
def generated_tree() -> Path:
    """Writes the package `bench_tree` into a folder that lasts as long as this process, and puts it on Python's path.

    All benchmarks of a process share it, because they share the modules that are loaded from it.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-tree-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    out = folder / _PACKAGE
    out.mkdir()
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"-I{_ROOT / 'proto'}", f"-I{_temporal_protos()}"]
    for plugin in ("python_messages", "python_temporal"):
        program = Path(sys.executable).parent / f"protoc-gen-{plugin}"
        command += [f"--plugin=protoc-gen-{plugin}={program}", f"--{plugin}_out={out}"]
        command.append(f"--{plugin}_opt=package={_PACKAGE}")
    files = sorted(path.relative_to(_PROTO).as_posix() for path in _PROTO.rglob("*.proto"))
    subprocess.run([*command, *files], cwd=_PROTO, check=True)
    sys.path.insert(0, str(folder))
    return folder


def page_module() -> Any:
    """The dataclasses of `page.proto`, generated; Google's classes lie beside them."""
    generated_tree()
    return importlib.import_module(f"{_PACKAGE}.bench.v1")


def _temporal_protos() -> str:
    spec = importlib.util.find_spec("temporalio")
    assert spec is not None
    assert spec.submodule_search_locations
    return f"{spec.submodule_search_locations[0]}/bridge/sdk-core/crates/protos/protos/api_upstream"
