"""Generates Google's message classes, grpcio's stubs and servicers, and type stubs, each with its own generator."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import descriptor_pb2

from .errors import UsageError
from .imports import Selection, rewrite_imports
from .request import module_of

_HEADER = """\
# ruff: noqa
# fmt: off
"""
_MODULE_HEADER = f"""\
{_HEADER}# The types are in the stub.
# type: ignore
"""
_STUB_HEADER = f"""\
{_HEADER}# A field may hide what its class inherits, and types may be deprecated.
# mypy: disable-error-code="assignment, misc, no-redef, override, unused-ignore"
# pyright: reportDeprecated=false, reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false
# pyright: reportPrivateUsage=false, reportRedeclaration=false
"""
_OTHER_NOQA = "  # noqa: Y015"
_MYPY_PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


def generate(selection: Selection) -> dict[str, str]:
    """Generate the modules of the targets.

    Returns:
        Text by path, relative to the output folder.
    """
    targets, files = selection.targets, selection.files
    if not targets:
        return {}
    modules = {module_of(name): module for name, module in selection.modules.items()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        out = root / "out"
        out.mkdir()
        descriptors = root / "request.binpb"
        descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=files).SerializeToString(deterministic=True))
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={descriptors}"]
        command += [f"--plugin={name}={executable(name)}" for name in _MYPY_PLUGINS]
        command += [f"--{flag}_out={out}" for flag in ("python", "grpc_python", "mypy", "mypy_grpc")]
        done = subprocess.run([*command, *targets], cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UsageError(f"Google's generator rejected the files: {done.stderr.strip()}")
        served = {_path(file.name) for file in files if file.service}
        return _packages(selection) | {
            path.relative_to(out).as_posix(): _finished(path, modules)
            for path in sorted(out.rglob("*.py*"))
            if _is_wanted(path.relative_to(out).as_posix(), served)
        }


def _packages(selection: Selection) -> dict[str, str]:
    """Return empty packages for modules without dataclasses; type checkers find `py.typed` only in packages."""
    described = {file.name for file in selection.described}
    folders = {folder for name in selection.targets if name not in described for folder in Path(_path(name)).parents}
    return {(folder / "__init__.py").as_posix(): "" for folder in folders if folder.name}


def _finished(path: Path, modules: Mapping[str, str]) -> str:
    text = rewrite_imports(path.read_text(encoding="utf-8"), modules)
    # Remove these comments: they are for another linter, and ruff reports them.
    return _STUB_HEADER + text.replace(_OTHER_NOQA, "") if path.suffix == ".pyi" else _MODULE_HEADER + text


def _is_wanted(path: str, served: set[str]) -> bool:
    """Return whether a module has content; for files without services, the grpc module is empty and not needed."""
    stem = path.rpartition(".")[0]
    return not stem.endswith("_pb2_grpc") or stem.removesuffix("_grpc") in served


def _path(proto: str) -> str:
    return module_of(proto).replace(".", "/")


_INSTALL = "pip install 'contextworker[generate]'"
_PACKAGES = {"betterproto2_compiler": "betterproto2_compiler", "grpc_tools": "grpcio-tools"}
_PROGRAMS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc", "ruff")


def require_generators() -> None:
    """Check that all generators are installed.

    Raises:
        UsageError: some are not; the text names them.
    """
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    missing += [name for name in _PROGRAMS if _find(name) is None]
    if missing:
        raise UsageError(f"not installed: {', '.join(missing)}; {_INSTALL}")


def executable(name: str) -> str:
    """Return the path of a program next to this Python, or else on the PATH.

    Raises:
        UsageError: it is in neither.
    """
    found = _find(name)
    if found is None:
        raise UsageError(f"not installed: {name}; {_INSTALL}")
    return found


def _find(name: str) -> str | None:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)
