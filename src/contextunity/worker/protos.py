"""The proto files that contracts import, for those who write contracts or generate clients outside this repository."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

from .errors import WorkerError

__all__ = ["export", "export_third_party"]

_WANTED = ("temporal/api/common/v1/message.proto", "temporal/api/enums/v1/workflow.proto")
_IMPORT = re.compile(r'^import\s+(?:public\s+|weak\s+)?"([^"]+)";', re.MULTILINE)


def export(folder: Path) -> list[str]:
    """Writes ContextWorker's own protos, the temporal.v1 annotations and what those import.

    Args:
        folder: becomes an import folder for buf or protoc; files of these names in it are replaced, others stay.

    Returns:
        Names of the files, relative to the folder, sorted.

    Raises:
        WorkerError: an installed package lacks its protos.
    """
    root = _own_folder()
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.proto")]
    for name in names:
        _copy(root / name, folder / name)
    return sorted([*names, *export_third_party(folder)])


def export_third_party(folder: Path) -> list[str]:
    """Writes the protos of Temporal's API that the annotations import, and buf's validation rules; see `export`."""
    root = _package_folder("temporalio") / "bridge/sdk-core/crates/protos/protos/api_upstream"
    pending, copied = list(_WANTED), set[str]()
    while pending:
        name = pending.pop()
        if name in copied or name.startswith("google/protobuf/"):
            continue
        if not (root / name).is_file():
            raise WorkerError(f"{name} is not where the temporalio package had it; another version of it is needed")
        _copy(root / name, folder / name)
        copied.add(name)
        pending.extend(_IMPORT.findall((root / name).read_text(encoding="utf-8")))
    return sorted([*copied, _export_validation_rules(folder)])


def _export_validation_rules(folder: Path) -> str:
    """Writes `buf/validate/validate.proto`, which the protovalidate package ships as a descriptor alone."""
    from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
    from protovalidate import FieldPathPb

    from ._proto_text import print_proto

    modules = (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2)
    file = FieldPathPb.desc().file.proto
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        print_proto(file.to_binary(), [module.DESCRIPTOR.serialized_pb for module in modules]), encoding="utf-8"
    )
    return file.name


def _own_folder() -> Path:
    beside = Path(__file__).parent
    # In the wheel they lie beside this file; in a checkout, at its top.
    for folder in (beside / "_protos", beside.parents[2] / "proto"):
        if (folder / "temporal/v1/temporal.proto").is_file():
            return folder
    raise WorkerError(f"the installation lacks its proto files; {beside / '_protos'} is not there; install it anew")


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WorkerError(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0])


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
