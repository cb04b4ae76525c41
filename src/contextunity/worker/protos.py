"""The proto files that contracts import, for those who write contracts or generate clients outside this repository."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

from .errors import WorkerError

__all__ = ["export", "export_third_party", "package_folder"]

_TEMPORAL = ("temporal/api/common/v1/message.proto", "temporal/api/enums/v1/workflow.proto")
_RULES = "buf/validate/validate.proto"
# In the wheel all protos lie beside this file; a checkout has them at its top.
_IN_WHEEL = Path(__file__).parent / "_protos"
_CHECKOUT = Path(__file__).parents[3]
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
    names = {path.relative_to(root).as_posix() for path in root.rglob("*.proto")}
    for name in names:
        _copy(root / name, folder / name)
    return sorted(names.union(export_third_party(folder)))


def export_third_party(folder: Path) -> list[str]:
    """Writes the protos of Temporal's API that the annotations import, and Protovalidate's rules; see `export`."""
    root = package_folder("temporalio") / "bridge/sdk-core/crates/protos/protos/api_upstream"
    pending, copied = list(_TEMPORAL), set[str]()
    while pending:
        name = pending.pop()
        if name in copied or name.startswith("google/protobuf/"):
            continue
        if not (root / name).is_file():
            raise WorkerError(f"{name} is not where the temporalio package had it; another version of it is needed")
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
    raise WorkerError(f"the installation lacks {name}; {_IN_WHEEL} does not have it; install the package again")


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
