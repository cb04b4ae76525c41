"""Export the proto files that contracts import, for contracts and clients outside this repository."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

from .errors import WorkerError

__all__ = ["export", "export_third_party", "package_folder"]

_TEMPORAL = ("temporal/api/common/v1/message.proto", "temporal/api/enums/v1/workflow.proto")
_RULES = "buf/validate/validate.proto"
# A wheel has all protos next to this file; a checkout has them at its top.
_IN_WHEEL = Path(__file__).parent / "_protos"
_CHECKOUT = Path(__file__).parents[3]
_IMPORT = re.compile(r'^import\s+(?:public\s+|weak\s+)?"([^"]+)";', re.MULTILINE)


def export(folder: Path) -> list[str]:
    """Write ContextWorker's own protos, the temporal.v1 annotations and their imports.

    Args:
        folder: import folder for buf or protoc; files with these names are replaced, others stay.

    Returns:
        Sorted names of the files, relative to the folder.

    Raises:
        WorkerError: an installed package lacks its protos.
    """
    root = _own_folder()
    names = {path.relative_to(root).as_posix() for path in root.rglob("*.proto")}
    for name in names:
        _copy(root / name, folder / name)
    return sorted(names.union(export_third_party(folder)))


def export_third_party(folder: Path) -> list[str]:
    """Write the protos of Temporal's API that the annotations import, and Protovalidate's rules. See `export`."""
    root = package_folder("temporalio") / "bridge/sdk-core/crates/protos/protos/api_upstream"
    pending, copied = list(_TEMPORAL), set[str]()
    while pending:
        name = pending.pop()
        if name in copied or name.startswith("google/protobuf/"):
            continue
        if not (root / name).is_file():
            raise WorkerError(f"{name} is missing in the temporalio package; install another version of it")
        _copy(root / name, folder / name)
        copied.add(name)
        pending.extend(_IMPORT.findall((root / name).read_text(encoding="utf-8")))
    _copy(_first_with(_RULES, _IN_WHEEL, _CHECKOUT / "third_party/protovalidate") / _RULES, folder / _RULES)
    return sorted([*copied, _RULES])


def _own_folder() -> Path:
    return _first_with("temporal/v1/temporal.proto", _IN_WHEEL, _CHECKOUT / "proto")


def _first_with(name: str, *folders: Path) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder
    raise WorkerError(f"the installation lacks {name}; {_IN_WHEEL} does not have it; reinstall the package")


def package_folder(package: str) -> Path:
    """Where an installed package lies.

    Raises:
        WorkerError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WorkerError(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0])


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
