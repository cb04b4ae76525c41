"""betterproto2's dataclasses, by its own generator, run where it cannot trip over the project around it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2

from ._faults import UsageError

_GOOGLE = "google/protobuf/__init__.py"


def generate(files: list[descriptor_pb2.FileDescriptorProto], targets: list[str]) -> dict[str, str]:
    """Generates the packages of `targets`, and google.protobuf as far as they use it.

    Args:
        files: the targets and all that they import, dependencies first.
        targets: names of the files to generate.

    Returns:
        Text by path, relative to the output folder.
    """
    if not files:
        return {}
    request = plugin_pb2.CodeGeneratorRequest(
        file_to_generate=targets,
        # descriptor.proto is there for options alone, and dataclasses carry none.
        proto_file=[_with_presence(file) for file in files if file.name != "google/protobuf/descriptor.proto"],
        parameter="client_generation=none,server_generation=none",
    )
    wanted = _packages(files, targets)
    # In an empty folder, because the generator leaves out each __init__.py that it finds in the current one.
    with tempfile.TemporaryDirectory() as folder:
        # Without a configuration here, ruff reads that of the folders above, or of the user's home.
        (Path(folder) / "ruff.toml").touch()
        done = subprocess.run(
            [sys.executable, "-m", "betterproto2_compiler.plugin.main"],
            input=request.SerializeToString(deterministic=True),
            capture_output=True,
            check=False,
            cwd=folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
        )
        if done.returncode:
            raise UsageError(f"betterproto2's generator failed: {_reason(done.stderr, Path(folder))}")
    response = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    return {file.name: file.content for file in response.file if _is_wanted(file.name, wanted)}


def _with_presence(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """A file whose `optional` fields are those of proto3; betterproto2 takes proto2's for fields without presence."""
    # A file that says nothing about its syntax has proto2's.
    if file.syntax not in ("", "proto2"):
        return file
    copy = descriptor_pb2.FileDescriptorProto()
    copy.CopyFrom(file)
    pending = list(copy.message_type)
    while pending:
        message = pending.pop()
        pending += message.nested_type
        for field in message.field:
            field.proto3_optional = _is_optional(field) and not message.options.map_entry
    return copy


def _is_optional(field: descriptor_pb2.FieldDescriptorProto) -> bool:
    return field.label == field.LABEL_OPTIONAL and not field.HasField("oneof_index")


def _reason(stderr: bytes, folder: Path) -> str:
    left = folder / "invalid-generated-code.py"
    if left.exists():
        try:
            compile(left.read_text(encoding="utf-8"), "", "exec")
        except SyntaxError as error:
            return f"it wrote what is not Python: {(error.text or '').strip()}"
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def _packages(files: list[descriptor_pb2.FileDescriptorProto], targets: list[str]) -> set[str]:
    packages = {file.package for file in files if file.name in targets}
    return {"/".join([*package.split("."), "__init__.py"]).lstrip("/") for package in packages}


def _is_wanted(name: str, wanted: set[str]) -> bool:
    if name in ("message_pool.py", "py.typed", _GOOGLE) or name in wanted:
        return True
    folder = name.removesuffix("__init__.py")
    return name.endswith("__init__.py") and any(path.startswith(folder) for path in (*wanted, _GOOGLE))
