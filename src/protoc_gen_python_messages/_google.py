"""Google's message classes, grpcio's stubs and servicers, and types for both, each by its own generator."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import descriptor_pb2

from ._request import UsageError

_MYPY_PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


def generate(files: list[descriptor_pb2.FileDescriptorProto], targets: list[str], package: str) -> dict[str, str]:
    """Generates the modules of `targets`.

    Args:
        files: the targets and all that they import, dependencies first.
        targets: names of the files to generate.
        package: Python package of the output folder; imports among the modules are written for it.

    Returns:
        Text by path, relative to the output folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        out = root / "out"
        out.mkdir()
        descriptors = root / "request.binpb"
        descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=files).SerializeToString())
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={descriptors}"]
        command += [f"--plugin={name}={_executable(name)}" for name in _MYPY_PLUGINS]
        command += [f"--{flag}_out={out}" for flag in ("python", "grpc_python", "mypy", "mypy_grpc")]
        done = subprocess.run([*command, *targets], cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UsageError(f"Google's generator refused the files: {done.stderr.strip()}")
        return {
            path.relative_to(out).as_posix(): _rewrite_imports(path.read_text(encoding="utf-8"), targets, package)
            for path in sorted(out.rglob("*.py*"))
            if _is_wanted(path, root, files)
        }


def _is_wanted(path: Path, root: Path, files: Iterable[descriptor_pb2.FileDescriptorProto]) -> bool:
    """Whether a module has content; files without services get an empty grpc module, which nobody needs."""
    if "_pb2_grpc" not in path.name:
        return True
    proto = path.relative_to(root / "out").as_posix().partition("_pb2_grpc")[0]
    return any(file.service for file in files if _stem(file.name) == proto)


def _stem(proto: str) -> str:
    return proto.removesuffix(".proto").replace("-", "_")


def _rewrite_imports(text: str, targets: list[str], package: str) -> str:
    """Puts `package` before imports of the modules generated here.

    Google's generator takes Python's import path from the proto's file name. To change the name in the descriptor
    instead would show the changed name to every client of gRPC reflection, and clash in the process of a client that
    has generated the same protos under their own names.
    """
    if not package:
        return text
    for target in targets:
        folder, _, module = _stem(target).rpartition("/")
        folder = re.escape(folder.replace("/", "."))
        module = re.escape(module)
        if not folder:
            text = re.sub(rf"^import ({module}_pb2\w*)", rf"from {package} import \1", text, flags=re.MULTILINE)
            continue
        text = re.sub(
            rf"^(\s*)from {folder} import ({module}_pb2)",
            rf"\1from {package}.{_plain(folder)} import \2",
            text,
            flags=re.MULTILINE,
        )
        text = re.sub(
            rf"^(\s*)from {folder}\.({module}_pb2)", rf"\1from {package}.{_plain(folder)}.\2", text, flags=re.MULTILINE
        )
    return text


def _plain(escaped: str) -> str:
    return escaped.replace("\\", "")


def _executable(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise UsageError(f"{name} is not installed; pip install 'contextworker[generate]'")
    return found
