"""Collects the proto files that ours import from the wheels that ship them, into an ignored folder beside buf.yaml.

Run as `python tools/third_party_protos.py FOLDER`. The folder is replaced as a whole, so it never holds a stale file.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

_WANTED = (
    "temporal/api/common/v1/message.proto",
    "temporal/api/enums/v1/workflow.proto",
)
_IMPORT = re.compile(r'^import\s+(?:public\s+|weak\s+)?"([^"]+)";', re.MULTILINE)


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {package!r} is not installed; run `make setup`")
    return Path(spec.submodule_search_locations[0])


def collect(target: Path) -> list[str]:
    """Copies the wanted protos and all that they import to `target`; returns their names, sorted."""
    root = _package_folder("temporalio") / "bridge/sdk-core/crates/protos/protos/api_upstream"
    pending, copied = list(_WANTED), set[str]()
    shutil.rmtree(target, ignore_errors=True)
    while pending:
        name = pending.pop()
        if name in copied or name.startswith("google/protobuf/"):
            continue
        source = root / name
        if not source.is_file():
            raise SystemExit(f"{name} is not in the temporalio wheel at {root}; its layout has changed")
        text = source.read_text(encoding="utf-8")
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_text(text, encoding="utf-8")
        copied.add(name)
        pending.extend(_IMPORT.findall(text))
    return sorted(copied)


if __name__ == "__main__":
    collect(Path(sys.argv[1]))
