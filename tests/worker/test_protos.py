"""The protos that a contract imports, as written for those outside this repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2
from protovalidate import FieldPathPb

from contextunity.worker import protos

_LANGUAGE_OPTIONS = (
    "java_package",
    "ruby_package",
    "objc_class_prefix",
    "csharp_namespace",
    "php_namespace",
    "php_metadata_namespace",
)
"""File options that the build of the Python package adds or sets; they say nothing about rules."""


def test_validation_rules_are_those_that_the_installed_library_enforces(tmp_path: Path) -> None:
    protos.export_third_party(tmp_path)
    image = tmp_path / "image"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={tmp_path}",
            f"--descriptor_set_out={image}",
            "buf/validate/validate.proto",
        ],
        check=True,
    )
    (committed,) = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file
    installed = descriptor_pb2.FileDescriptorProto.FromString(FieldPathPb.desc().file.proto.to_binary())
    for file in (committed, installed):
        for option in _LANGUAGE_OPTIONS:
            file.options.ClearField(option)  # type: ignore[arg-type]
    assert len(installed.message_type) > 20
    assert committed == installed


def test_export_writes_each_file_once_and_all_that_they_import(tmp_path: Path) -> None:
    names = protos.export(tmp_path)
    assert names == sorted(set(names))
    assert {"buf/validate/validate.proto", "temporal/v1/temporal.proto", "contextunity/worker/worker.proto"} <= set(
        names
    )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={tmp_path}",
            f"--descriptor_set_out={tmp_path}/all",
            *names,
        ],
        check=True,
    )
