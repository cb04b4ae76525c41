"""Generates the protos of bench/proto as any project generates its own, into a folder that goes away afterwards."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["generated_page"]

_PROTO = Path(__file__).resolve().parent / "proto"
_PACKAGE = "bench_tree"


def generated_page(folder: Path) -> Any:
    """Gives the module of the dataclasses of `page.proto`; Google's classes lie beside them."""
    out = folder / _PACKAGE
    out.mkdir()
    plugin = Path(sys.executable).parent / "protoc-gen-python_messages"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--plugin=protoc-gen-python_messages={plugin}"]
    command += [f"--python_messages_out={out}", f"--python_messages_opt=package={_PACKAGE}", "page.proto"]
    subprocess.run(command, cwd=_PROTO, check=True)
    sys.path.insert(0, str(folder))
    return importlib.import_module(f"{_PACKAGE}.bench.v1")
