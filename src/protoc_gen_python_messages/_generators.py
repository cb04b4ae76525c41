"""Finds the generators that the plugin runs: packages and programs of the extra `generate`."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from ._faults import UsageError

_INSTALL = "pip install 'contextworker[generate]'"
_PACKAGES = {"betterproto2_compiler": "betterproto2_compiler", "grpc_tools": "grpcio-tools"}
_PROGRAMS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc", "ruff")


def require_generators() -> None:
    """Checks that all generators are there.

    Raises:
        UsageError: some are not installed; its text names them.
    """
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    missing += [name for name in _PROGRAMS if _find(name) is None]
    if missing:
        raise UsageError(f"not installed: {', '.join(missing)}; {_INSTALL}")


def executable(name: str) -> str:
    """Path of a program beside this Python, or else on the path.

    Raises:
        UsageError: it is in neither place.
    """
    found = _find(name)
    if found is None:
        raise UsageError(f"not installed: {name}; {_INSTALL}")
    return found


def _find(name: str) -> str | None:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)
