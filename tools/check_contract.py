"""Compares proto/ with contract/, the protos as last released, and moves contract/ on purpose.

`python tools/check_contract.py` exits with 0 where nothing breaks, 1 where something does, and 2 where the two could
not be compared at all. With `--release` contract/ becomes a copy of proto/.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

_BUF_BREAKING = 100
_ROOT = Path(__file__).resolve().parent.parent


def compare(root: Path) -> tuple[int, str]:
    """Compares `root/proto` with `root/contract`; returns an exit code as above, and what buf says."""
    buf = Path(sys.executable).parent / "buf"
    against = root / ".build" / "contract"
    # The released protos import the same third-party files as today's, so both get them from the same folder.
    shutil.rmtree(against, ignore_errors=True)
    if not any((root / "contract").rglob("*.proto")):
        return 2, "contract/ holds no protos; `make release-contract` puts today's there"
    shutil.copytree(root / "contract", against / "proto")
    shutil.copytree(root / ".build" / "protos", against / ".build" / "protos")
    shutil.copy(root / "buf.yaml", against / "buf.yaml")
    # Files that do not compile give the same code as breaking ones, so that is looked at first.
    for folder in (against, root):
        code, output = _run([str(buf), "build", str(folder)], root)
        if code:
            return 2, output
    code, output = _run([str(buf), "breaking", "--against", str(against)], root)
    if code == 0:
        return 0, output
    return (1 if code == _BUF_BREAKING else 2), output


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def release(root: Path) -> None:
    """Makes `root/contract` a copy of the protos in `root/proto`."""
    shutil.rmtree(root / "contract", ignore_errors=True)
    for source in sorted((root / "proto").rglob("*.proto")):
        target = root / "contract" / source.relative_to(root / "proto")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def main() -> int:
    """Runs the comparison, or the release."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", action="store_true", help="make proto/ the released contract")
    parser.add_argument("--root", type=Path, default=_ROOT, help="the repository")
    arguments = parser.parse_args()
    if arguments.release:
        release(arguments.root)
        return 0
    code, output = compare(arguments.root)
    if output:
        print(output)
    if code == 1:
        print("proto/ breaks the released contract; take it back, or add a new version of the package beside the old")
    elif code:
        print("proto/ and contract/ could not be compared; nothing is known about compatibility")
    return code


if __name__ == "__main__":
    sys.exit(main())
